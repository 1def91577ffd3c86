"""The campaign: which traces it takes, how it packs them, and that it runs from a checkout alone."""

import subprocess
import sys
import tarfile

import pytest

from simtti.validation.measurements import campaign
from simtti.validation.measurements.bench import measure
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
    assert half.arguments("cuda", "x.parquet") == ["capture", "stable-diffusion-1.5", "--device", "cuda", "--attention", "flash",
                                                   "--height", "256", "--width", "256", "-o", "x.parquet"]  # fmt: skip


def _pretend(size, fail=()):
    """A run of `simtti capture` that writes a file of that size, or fails."""
    asked = []

    def run(arguments, seconds):
        asked.append(arguments)
        if arguments[1] in fail:
            return subprocess.CompletedProcess(arguments, 2, "", "simtti: error: out of memory\n")
        with open(arguments[-1], "wb") as file:
            file.write(b"x" * size)
        return subprocess.CompletedProcess(arguments, 0, "", "")

    return run, asked


def test_traces_are_packed_into_few_files_and_not_taken_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(campaign, "MAX_FILE_BYTES", 100_000)
    jobs = [campaign.Job(f"w{number}", (), "flash") for number in range(6)]
    run, asked = _pretend(20_000, fail=("w1",))
    end = campaign.time.monotonic() + 100
    assert campaign.take_traces(jobs, tmp_path, set(), end, "cpu", run) == 0
    archives = sorted(tmp_path.glob("*.tar"))
    names = []
    for archive in archives:
        with tarfile.open(archive) as opened:
            names += opened.getnames()
    assert names == [job.name for job in jobs if job.workload != "w1"]
    assert len(archives) > 1
    assert all(archive.stat().st_size <= 100_000 for archive in archives)
    assert campaign.already_taken(tmp_path) == {job.name for job in jobs}
    assert campaign.take_traces(jobs, tmp_path, campaign.already_taken(tmp_path), end, "cpu", run) == 0
    assert len(asked) == len(jobs)


def test_a_piece_stops_when_its_files_are_full_or_its_time_is_up(tmp_path, monkeypatch):
    monkeypatch.setattr(campaign, "MAX_FILE_BYTES", 60_000)
    monkeypatch.setattr(campaign, "MAX_ARCHIVES", 2)
    jobs = [campaign.Job(f"w{number}", (), "flash") for number in range(9)]
    run, asked = _pretend(20_000)
    campaign.take_traces(jobs, tmp_path, set(), campaign.time.monotonic() + 100, "cpu", run)
    assert len(list(tmp_path.iterdir())) <= 4
    assert len(campaign.already_taken(tmp_path)) < len(jobs)
    asked.clear()
    campaign.take_traces(jobs, tmp_path, set(), campaign.time.monotonic() + 1, "cpu", run)
    assert not asked


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
