"""Workloads for tests that build or record each: by default one of each model's file, the others with `make test-every`."""

import pytest
from recorded_traces import LARGE

from simtti.workloads.catalogue import WORKLOADS


def one_of_each():
    """Every workload's name as a test's parameter; those whose builder another one goes through already, and the largest, are marked `every`."""
    seen = set()
    found = []
    for name, workload in WORKLOADS.items():
        kind = workload.builder.__module__
        found.append(pytest.param(name, marks=[pytest.mark.every] if kind in seen or name in LARGE else []))
        seen.add(kind)
    return found
