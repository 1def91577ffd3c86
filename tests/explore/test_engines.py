"""The engines on real clusters of this machine, one worker of which is killed in the midst: nothing lost, nothing doubled."""

import importlib
import json
import os
import signal
import time

import pandas as pd
import pytest

from simtti.errors import InputError
from simtti.explore.api import explore
from simtti.explore.spec import parse

DESIGNS = 60
SPEC = {
    "base": "h100-sxm",
    "parameters": {"sm_count": {"low": 20, "high": 200}, "l2_capacity_bytes": {"low": 1e7, "high": 1e8}},
    "workloads": [{"workload": "stable-diffusion-1.5", "steps": 2, "launch": "graph"}],
    "objectives": ["latency_s", "area_mm2"],
    "search": {"method": "sobol", "designs": DESIGNS, "seed": 7},
}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The same study in this process alone."""
    folder = tmp_path_factory.mktemp("alone")
    explore(parse(SPEC), folder, workers=1, report=False)
    return folder


def children(name):
    """Descendants of this process whose command line has `name`, that live."""
    parents, found = {}, []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat") as stat, open(f"/proc/{entry}/cmdline") as command:
                state, parent = stat.read().rpartition(")")[2].split()[:2]
                parents[int(entry)] = int(parent)
                if name in command.read() and state != "Z":
                    found.append(int(entry))
        except OSError:
            continue

    def ours(pid):
        while pid in parents:
            if pid == os.getpid():
                return True
            pid = parents[pid]
        return False

    return [pid for pid in found if pid != os.getpid() and ours(pid)]


def explore_and_kill(tmp_path, engine, worker_name):
    """Explore with 2 workers and kill one of them while it is at work, once the first designs are done and nearly all others wait.

    It is done where designs come in, so that the search cannot end meanwhile, and as soon as a worker is seen at work, however long
    a busy machine takes to show one. Returns the killed.
    """
    killed = []

    def progress(done, total):
        if killed or done < 3:
            return
        deadline = time.monotonic() + 100
        while not (victims := children(worker_name)):
            assert time.monotonic() < deadline, f"no process of {worker_name!r}"
            time.sleep(0.01)
        os.kill(victims[0], signal.SIGKILL)
        killed.append(victims[0])
        while victims[0] in children(worker_name):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    explore(parse(SPEC), tmp_path, engine=engine, workers=2, report=False, progress=progress)
    return killed


def assert_nothing_lost_or_doubled(tmp_path, alone):
    lines = [json.loads(line) for line in (tmp_path / "study.jsonl").read_text().splitlines()]
    keys = [line["key"] for line in lines if "key" in line]
    assert len(keys) == len(set(keys))
    assert sum("+limits" not in key for key in keys) == DESIGNS
    assert len(pd.read_parquet(tmp_path / "results.parquet")) == DESIGNS
    for name in ("results.parquet", "sensitivity.csv"):
        assert (tmp_path / name).read_bytes() == (alone / name).read_bytes()


@pytest.mark.filterwarnings("ignore")
def test_local_processes_survive_the_death_of_one(tmp_path, alone):
    assert explore_and_kill(tmp_path, "local", "")
    assert_nothing_lost_or_doubled(tmp_path, alone)


@pytest.mark.filterwarnings("ignore")
def test_a_ray_cluster_survives_the_death_of_a_worker(tmp_path, alone):
    pytest.importorskip("ray", reason="ray is not installed: pip install 'simtti[ray]'")
    assert explore_and_kill(tmp_path, "ray", "ray::_evaluate_chunk")
    assert_nothing_lost_or_doubled(tmp_path, alone)


@pytest.mark.filterwarnings("ignore")
def test_a_dask_cluster_survives_the_death_of_a_worker(tmp_path, alone):
    pytest.importorskip("distributed", reason="dask is not installed: pip install 'simtti[dask]'")
    assert explore_and_kill(tmp_path, "dask", "spawn_main")
    assert_nothing_lost_or_doubled(tmp_path, alone)


def test_an_unknown_engine_and_a_missing_library_are_said_in_a_line(monkeypatch, tmp_path):
    with pytest.raises(InputError, match="engine is 'spark'; it must be one of local, ray, dask"):
        explore(parse(SPEC), tmp_path, engine="spark", report=False)

    there = importlib.import_module

    def missing(name):
        if name == "ray":
            raise ImportError(name)
        return there(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(InputError, match=r"ray, which is not installed; run: pip install 'simtti\[ray\]'"):
        explore(parse(SPEC), tmp_path, engine="ray", report=False)
