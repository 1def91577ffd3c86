"""Several captures in one command: each in a process of its own, on a CPU and with a toy."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from simtti.cli import main
from simtti.commands.terminal import capture_line
from simtti.errors import InputError
from simtti.jobs import Failure
from simtti.workloads import catalogue
from simtti.workloads.capture_many import Job, capture_many, captured, is_taken
from simtti.workloads.trace import Trace

pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from toys import BROKEN, TOY


@pytest.fixture
def toys(monkeypatch):
    for workload in (TOY, BROKEN):
        monkeypatch.setitem(catalogue.WORKLOADS, workload.name, workload)


def test_one_that_fails_costs_the_others_nothing(toys, tmp_path):
    jobs = [Job("broken"), Job("toy", (("steps", 2),), "baseline")]
    found = dict(capture_many(jobs, tmp_path, device="cpu", repeats=1, longest_s=5, workers=2))
    assert found[jobs[0]] == Failure("RuntimeError: CUDA error: device-side assert")
    assert [path.name for path in tmp_path.iterdir()] == ["toy_steps2_baseline.parquet"]
    for job in jobs[1:]:
        trace = Trace.load(tmp_path / job.name)
        assert captured(trace, tmp_path / job.name) == found[job]
        assert trace.provenance["attention"] == job.attention
        assert is_taken(job, tmp_path, "cpu")
        assert not is_taken(job, tmp_path, "cuda")
    assert not is_taken(jobs[0], tmp_path, "cpu")
    assert trace.timing.end_to_end["in_one_go"]["steps"] == 2


def test_what_cannot_be_captured_is_said_before_any_is(toys, tmp_path):
    for job, message in [
        (Job("toi"), "unknown workload 'toi'"),
        (Job("toy", (("frames", 2),)), "takes no frames"),
        (Job("toy", attention="flush"), "unknown attention 'flush'"),
    ]:
        with pytest.raises(InputError, match=message):
            next(capture_many([Job("toy"), job], tmp_path, device="cpu"))
    assert not list(tmp_path.iterdir())


# The command line, which knows the toys.
COMMAND = """
from simtti.cli import main
from simtti.workloads.catalogue import register
from toys import BROKEN, SLOW, TOY

if __name__ == "__main__":
    for workload in (TOY, BROKEN, SLOW):
        register(workload)
    main()
"""


def test_an_interrupted_command_keeps_what_is_finished_and_goes_on_from_there(tmp_path):
    (tmp_path / "command.py").write_text(COMMAND)
    out, tests = tmp_path / "captures", str(Path(__file__).parents[1])
    paths = os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")])

    def started(*names):
        words = [*names, "--device", "cpu", "--repeats", "1", "--workers", "2", "-o", str(out)]
        return subprocess.Popen(
            [sys.executable, str(tmp_path / "command.py"), "capture", *words],
            stderr=subprocess.PIPE, text=True, start_new_session=True, env={**os.environ, "PYTHONPATH": paths},
        )  # fmt: skip

    process = started("toy", "slow")
    finished = out / "toy_default_flash.parquet"
    deadline = time.monotonic() + 120
    while not finished.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1)
    os.killpg(process.pid, signal.SIGINT)  # Ctrl-C goes to the whole foreground group
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert said.strip().splitlines()[-1] == (
        "simtti: error: interrupted; no journal was begun: what is already in a file of its own is kept, the rest is not"
    )
    written = finished.stat().st_mtime_ns
    process = started("toy")
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0
    assert said.strip() == f"{out}: 1 of 1 captures are there already"
    assert finished.stat().st_mtime_ns == written


def test_what_failed_is_said_at_the_end(toys, tmp_path, monkeypatch, capsys):
    from simtti.workloads import capture_many as module

    def pretend(jobs, folder, **how):
        for job in jobs:
            yield job, Failure(f"no {job.workload}")

    monkeypatch.setattr(module, "capture_many", pretend)
    with pytest.raises(SystemExit) as ended:
        main(["capture", "toy", "broken", "--device", "cpu", "-o", str(tmp_path)])
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines() == [
        "toy_default_flash.parquet: failed: no toy",
        "broken_default_flash.parquet: failed: no broken",
        f"simtti: error: 2 of 2 captures failed; the others are in {tmp_path}",
    ]


def test_a_capture_in_a_line(tmp_path):
    from simtti.workloads.capture_many import Captured

    whole = {"latency_s": 1.7543, "energy_j": 515.6, "mean_w": 293.9, "sm_clock_mhz": 1975.2, "missing": ""}
    times = {"latency_s": 2.14, "in_one_go": whole}
    found = Captured(tmp_path / "x.parquet", "sdxl", 2836, 1913, times)
    assert capture_line(found) == (
        f"{tmp_path}/x.parquet: sdxl: 2836 operators, 1913 kernels; 2.14 s step by step; 1.75 s in one go, 516 J, 294 W, "
        "1,975 MHz"
    )
    whole.update(energy_j=None, mean_w=None, sm_clock_mhz=None, missing="nvidia-ml-py is not installed")
    assert capture_line(found).endswith("1.75 s in one go; no energy: nvidia-ml-py is not installed")
    whole.update(latency_s=None, missing="it takes long")
    assert capture_line(found).endswith("2.14 s step by step; not run in one go: it takes long")
