"""Designs: devices made of a base and what differs."""

import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace

import pandas as pd
import places
import pytest
from explored import SPEC, spec
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from simtti.cli import main
from simtti.errors import InputError
from simtti.explore import analysis, formula, search, silicon
from simtti.explore.api import explore
from simtti.explore.design import device_file, make
from simtti.explore.evaluate import evaluate, limits
from simtti.explore.spec import EXAMPLES, parse, read
from simtti.hw_configs.hardware import load
from simtti.simulator.host import load_host
from simtti.simulator.lower import Policy
from simtti.simulator.simulation import simulate
from simtti.workloads.record import workload_trace

def test_a_design_s_file_is_the_same_device(tmp_path):
    design = make("h100-sxm", {"sm_count": 99, "hbm_stacks": 6, "clock_hz": 1.5e9}, "mine")
    assert design.hardware.hbm_bytes_per_s == pytest.approx(3.35e12 * 6 / 5)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(device_file("h100-sxm", design, "a test")))
    for field in (
        "sm_count",
        "clock_hz",
        "hbm_bytes_per_s",
        "hbm_capacity_bytes",
        "static_power_w",
        "tensor_j_per_flop",
    ):
        assert getattr(load(str(path)), field) == pytest.approx(getattr(design.hardware, field))


def test_a_design_like_its_base_is_its_base():
    base, same = load("h100-sxm"), make("h100-sxm", {})
    assert asdict(replace(same.hardware, name=base.name, reported_as=base.reported_as)) == asdict(base)
    assert same.chip.area_mm2 == pytest.approx(814)


def test_a_faster_clock_costs_energy_and_a_larger_die_leaks_more():
    base = make("h100-sxm", {}).hardware
    fast, large = make("h100-sxm", {"clock_hz": base.clock_hz * 1.1}), make("h100-sxm", {"sm_count": 150})
    assert fast.hardware.tensor_j_per_flop > base.tensor_j_per_flop
    assert fast.hardware.hbm_j_per_byte == base.hbm_j_per_byte
    assert large.hardware.static_power_w > base.static_power_w
