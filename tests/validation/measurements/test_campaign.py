"""The campaign: which traces it takes, how it packs them, and that it runs from a checkout alone."""

import subprocess
import sys
import tarfile

import pytest

from simtti.jobs import Failure
from simtti.validation.measurements import campaign
from simtti.validation.measurements.bench import measure
from simtti.workloads.capture_many import Job
from simtti.workloads.catalogue import WORKLOADS


def test_the_campaign_traces_every_workload_at_two_shapes_and_both_attentions():
    jobs = campaign.trace_jobs(WORKLOADS)
    assert len({job.name for job in jobs}) == len(jobs) == 4 * len(WORKLOADS)
    assert [job.workload for job in jobs[:2]] == ["stable-diffusion-1.5", "modelscope-t2v"]
    assert {job.attention for job in jobs[: len(WORKLOADS)]} == {"flash"}
    assert not any(job.options for job in jobs[: 2 * len(WORKLOADS)])
    for job in jobs:
        WORKLOADS[job.workload].options(**dict(job.options))
    half = next(job for job in jobs if job.options)
    assert half.name == "stable-diffusion-1.5_height256_width256_flash.parquet"


def _pretend(size, fail=()):
    """Captures that are files of that size, or fail."""
    asked = []

    def take_all(jobs, folder, device, end):
        for job in jobs:
            if campaign.time.monotonic() > end:
                return
            asked.append(job)
            if job.workload in fail:
                yield job, Failure("out of memory")
            else:
                (folder / job.name).write_bytes(b"x" * size)
                yield job, None

    return take_all, asked


def test_traces_are_packed_into_few_files_and_not_taken_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(campaign, "MAX_FILE_BYTES", 100_000)
    jobs = [Job(f"w{number}") for number in range(6)]
    take_all, asked = _pretend(20_000, fail=("w1",))
    end = campaign.time.monotonic() + 100
    assert campaign.take_traces(jobs, tmp_path, set(), end, "cpu", take_all) == 0
    archives = sorted(tmp_path.glob("*.tar"))
    names = []
    for archive in archives:
        with tarfile.open(archive) as opened:
            names += opened.getnames()
    assert names == [job.name for job in jobs if job.workload != "w1"]
    assert len(archives) > 1
    assert all(archive.stat().st_size <= 100_000 for archive in archives)
    assert campaign.already_taken(tmp_path) == {job.name for job in jobs}
    assert campaign.take_traces(jobs, tmp_path, campaign.already_taken(tmp_path), end, "cpu", take_all) == 0
    assert len(asked) == len(jobs)


def test_a_piece_stops_when_its_files_are_full_or_its_time_is_up(tmp_path, monkeypatch):
    monkeypatch.setattr(campaign, "MAX_FILE_BYTES", 60_000)
    monkeypatch.setattr(campaign, "MAX_ARCHIVES", 2)
    jobs = [Job(f"w{number}") for number in range(9)]
    take_all, asked = _pretend(20_000)
    campaign.take_traces(jobs, tmp_path, set(), campaign.time.monotonic() + 100, "cpu", take_all)
    assert len(list(tmp_path.iterdir())) <= 4
    assert len(campaign.already_taken(tmp_path)) < len(jobs)
    asked.clear()
    campaign.take_traces(jobs, tmp_path, set(), campaign.time.monotonic() + 1, "cpu", take_all)
    assert not asked


def test_a_day_is_traces_kernels_and_counters_within_its_time(tmp_path, monkeypatch):
    asked = []

    def run(arguments, seconds):
        asked.append((arguments[1], "--counters" in arguments, seconds))
        return subprocess.CompletedProcess(arguments, 2 if "--counters" in arguments else 0, "", "")

    def traces(out, results, end, device, run):
        asked.append(("traces", False, end - campaign.time.monotonic()))
        return 0

    monkeypatch.setattr(campaign, "traces", traces)
    assert campaign.day(tmp_path, None, campaign.time.monotonic() + 900, "cpu", run) == 0
    assert [words[:2] for words in asked] == [("traces", False), ("kernels", False), ("kernels", True)]
    assert [seconds for *_, seconds in asked] == pytest.approx([495, 835, 900], abs=5)


def test_the_campaign_runs_from_a_checkout_that_is_not_installed(tmp_path):
    """`check` on what a CPU measured, through the script itself."""
    pytest.importorskip("torch")
    script = campaign.ROOT / "validation" / "measurements" / "campaign.py"
    measure.measure_suite("cpu", tmp_path / "kernels-1.parquet", budget_s=20, families=["launch"])
    done = subprocess.run(
        [sys.executable, str(script), "check", "--results", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    assert "12 rows of 1 families" in done.stdout
    (tmp_path / "kernels-2.parquet").write_bytes(b"cut short")
    done = subprocess.run(
        [sys.executable, str(script), "check", "--results", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "PROBLEM" in done.stdout
