"""What other hosts would make of a run that waits for its host."""

import pytest

import simtti
from simtti.hw_configs.hosts import hosts

FEW = {"steps": 2, "fidelity": "closed"}


def test_a_run_that_waits_for_its_host_says_what_others_would_make_of_it():
    result = simtti.run("stable-diffusion", "h100-sxm", by_host=True, **FEW)
    times = result.latency_by_host
    assert set(times) == set(hosts())
    assert times["desktop"] < times["slow-vm"] < times["default"] == result.latency_s
    assert result.to_dict()["latency_by_host"] == times
    # What it says of another host is what a run with that host says.
    desktop = simtti.run("stable-diffusion", "h100-sxm", host="desktop", **FEW)
    assert desktop.latency_s == pytest.approx(times["desktop"], rel=1e-9)


def test_one_that_does_not_says_nothing():
    graph = simtti.run("stable-diffusion", "h100-sxm", launch="graph", by_host=True, **FEW)
    assert graph.latency_by_host == {}
