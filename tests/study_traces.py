"""Traces of the study's systems, at their smallest shapes."""

from functools import cache

import pytest

from simtti.workloads import record
from simtti.workloads.catalogue import WORKLOADS
from simtti.workloads.trace import Trace

STUDY = {name: workload for name, workload in WORKLOADS.items() if workload.group == "study"}


# The smallest shapes, for what does not depend on the shape.
SMALL = {
    "imagen": {"height": 128, "width": 256},
    "muse": {"height": 256, "width": 256},
    "prod-image": {"height": 64, "width": 128},
    "make-a-video": {"height": 96, "width": 192, "frames": 6},
    "phenaki": {"height": 8, "width": 16, "frames": 3},
    "llama2-7b": {"steps": 20},
}


@cache
def trace_of(name, **options):
    """The shipped trace where there is one, else a recording."""
    if not options and record.shipped(STUDY[name]).exists():
        return Trace.load(record.shipped(STUDY[name]))
    pytest.importorskip("torch")
    return record.record(name, **options)


def phase(trace, name):
    return next(phase for phase in trace.phases if phase.name == name)
