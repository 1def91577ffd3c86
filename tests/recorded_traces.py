"""Traces of the catalogue's workloads, read or recorded once a process."""

import gc
from functools import cache

import pytest

from simtti.workloads import record
from simtti.workloads.catalogue import WORKLOADS
from simtti.workloads.trace import Trace

NAMES = sorted(name for name, workload in WORKLOADS.items() if workload.group == "today")


@cache
def shipped(name):
    trace = Trace.load(record.shipped(WORKLOADS[name]))
    # Hundreds of thousands of operators that stay: the collector need not go over them again and again.
    gc.freeze()
    return trace


@cache
def small(**options):
    pytest.importorskip("torch")
    return record.record("stable-diffusion-1.5", **{"height": 64, "width": 64, **options})


def denoising(trace):
    return next(phase for phase in trace.phases if phase.name == "denoising").steps[0]
