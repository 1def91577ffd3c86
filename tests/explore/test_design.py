"""Designs: devices made of a base and what differs."""

from dataclasses import replace

import pytest
import yaml

from simtti.explore.design import device_file, make
from simtti.hw_configs.devices import load


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
    named = replace(same.hardware, name=base.name, reported_as=base.reported_as, fitted=base.fitted)
    assert named.to_dict() == base.to_dict()
    assert same.chip.area_mm2 == pytest.approx(814)


def test_a_faster_clock_costs_energy_and_a_larger_die_leaks_more():
    base = make("h100-sxm", {}).hardware
    fast, large = make("h100-sxm", {"clock_hz": base.clock_hz * 1.1}), make("h100-sxm", {"sm_count": 150})
    assert fast.hardware.tensor_j_per_flop > base.tensor_j_per_flop
    assert fast.hardware.hbm_j_per_byte == base.hbm_j_per_byte
    assert large.hardware.static_power_w > base.static_power_w
