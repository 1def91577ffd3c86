"""Workloads for tests that build or record each: by default one of each model's file, the others with `make test-every`."""

import pytest
from recorded_traces import LARGE

from simtti.workloads.catalogue import WORKLOADS


def one_of_each(names=WORKLOADS, *, too_large=LARGE):
    """Names of workloads as a test's parameters; those whose builder another one goes through already, and the largest, are marked `every`.

    too_large: of these none stands for its builder; where nothing is built, all may.
    """
    seen = set()
    found = []
    for name in names:
        kind = WORKLOADS[name].builder.__module__
        is_another = kind in seen or name in too_large
        found.append(pytest.param(name, marks=[pytest.mark.every] if is_another else []))
        if not is_another:
            seen.add(kind)
    return found
