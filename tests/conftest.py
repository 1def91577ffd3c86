"""What tests record is kept apart from what the user has recorded, and shared by the processes of one session."""

import gc
import os

import pytest

from simtti.commands.memory import collect_seldom
from simtti.workloads import trace_cache

# What is computed on a CPU here is so small that threads of torch only wait for each other, and do so busily.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory):
    base = tmp_path_factory.getbasetemp()
    # Processes of one session have folders side by side in one that is the session's own.
    place = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    before = os.environ.get(trace_cache.VARIABLE)
    os.environ[trace_cache.VARIABLE] = str(place / "traces-recorded")
    yield
    if before is None:
        del os.environ[trace_cache.VARIABLE]
    else:
        os.environ[trace_cache.VARIABLE] = before


@pytest.fixture(scope="session", autouse=True)
def _collect_seldom():
    """As commands do. What is imported by now, a million objects with torch, is not looked through again each time."""
    gc.collect()
    gc.freeze()
    collect_seldom()
