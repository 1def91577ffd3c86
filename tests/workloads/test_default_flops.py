"""The table of FLOPs beside the recorded traces says what the traces hold."""

import pytest

from simtti.workloads import default_flops
from simtti.workloads.catalogue import WORKLOADS
from simtti.workloads.record import TRACES
from simtti.workloads.trace import Trace


@pytest.mark.parametrize("name", sorted(WORKLOADS))
def test_the_table_says_what_the_trace_holds(name):
    """Written anew by `python -m simtti.workloads.default_flops`."""
    path = TRACES / f"{name}.parquet"
    if path.exists():
        assert default_flops.default_flops(name) == default_flops.total_flops(Trace.load(path))


def test_a_workload_without_a_trace_has_none():
    assert default_flops.default_flops("my-own") is None
