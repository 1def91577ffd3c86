"""What is recorded is kept: once for each workload and shape, for all processes, and for as long as it is what would be recorded."""

import json
import multiprocessing
import os

import pytest
from click.testing import CliRunner
from small_traces import small_trace

from simtti import cli
from simtti.errors import InputError
from simtti.workloads import record, trace_cache

OPTIONS = {"batch": 2, "steps": 50}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv(trace_cache.VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def never():
    raise AssertionError("recorded although it is kept")


def test_it_is_recorded_once(place):
    assert trace_cache.kept("tiny", OPTIONS, small_trace) == small_trace()
    assert trace_cache.kept("tiny", OPTIONS, never) == small_trace()
    (path,) = place.iterdir()  # and no lock is left
    assert path == trace_cache.path_of("tiny", OPTIONS)
    (entry,) = trace_cache.entries()
    assert (entry.workload, entry.nbytes, entry.stale) == ("tiny", path.stat().st_size, False)


def test_another_shape_other_versions_and_other_code_are_others(monkeypatch):
    path = trace_cache.path_of("tiny", OPTIONS)
    assert trace_cache.path_of("tiny", {**OPTIONS, "batch": 3}) != path
    assert trace_cache.path_of("tiny", {"steps": 50, "batch": 2}) == path
    of_today = trace_cache.recorder_hash()
    monkeypatch.setattr(trace_cache, "_version", lambda library: "9.9")
    trace_cache.recorder_hash.cache_clear()
    try:
        assert trace_cache.recorder_hash() != of_today
        assert trace_cache.path_of("tiny", OPTIONS) != path
    finally:
        monkeypatch.undo()
        trace_cache.recorder_hash.cache_clear()


def test_stale_ones_are_told_and_taken_away(place, monkeypatch):
    trace_cache.kept("tiny", OPTIONS, small_trace)
    path = trace_cache.path_of("tiny", OPTIONS)
    old = path.with_name(f"tiny-{'0' * 16}-{'0' * 16}.parquet")
    small_trace().save(old)
    assert [(entry.path, entry.stale) for entry in trace_cache.entries()] == [(old, True), (path, False)]
    assert trace_cache.clear(only_stale=True) == 1
    assert list(place.iterdir()) == [path]
    assert trace_cache.clear() == 1
    assert trace_cache.entries() == []


def test_a_damaged_file_is_recorded_anew():
    trace_cache.kept("tiny", OPTIONS, small_trace)
    path = trace_cache.path_of("tiny", OPTIONS)
    path.write_bytes(path.read_bytes()[:100])
    assert trace_cache.kept("tiny", OPTIONS, small_trace) == small_trace()
    assert trace_cache.kept("tiny", OPTIONS, never) == small_trace()


def test_without_a_folder_it_is_recorded_each_time(place):
    place.write_text("a file in the folder's place")
    for _ in range(2):
        assert trace_cache.kept("tiny", OPTIONS, small_trace) == small_trace()


def test_a_recording_that_fails_leaves_nothing(place):
    def fails():
        raise InputError("no torch")

    with pytest.raises(InputError, match="no torch"):
        trace_cache.kept("tiny", OPTIONS, fails)
    assert list(place.iterdir()) == []


def _keep(path, barrier):
    def slowly():
        with open(path, "a") as file:
            file.write("recorded\n")
        return small_trace()

    barrier.wait()
    assert trace_cache.kept("tiny", OPTIONS, slowly) == small_trace()


def test_processes_that_want_the_same_wait_for_the_one_that_records_it(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    workers = [context.Process(target=_keep, args=(str(tmp_path / "log"), barrier)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert (tmp_path / "log").read_text() == "recorded\n"


def test_a_shape_of_a_workload_is_kept(place, monkeypatch):
    pytest.importorskip("torch")
    shape = {"height": 64, "width": 64}
    first = record.workload_trace("stable-diffusion-1.5", **shape)
    monkeypatch.setattr(record, "record_workload", never)
    assert record.workload_trace("stable-diffusion", **shape) == first
    assert record.workload_trace("stable-diffusion-1.5").options["height"] == 512  # which ships
    (path,) = place.iterdir()
    assert path.name.startswith("stable-diffusion-1.5-")


def test_where_it_is(monkeypatch, tmp_path):
    monkeypatch.delenv(trace_cache.VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert trace_cache.folder() == tmp_path / "simtti"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert trace_cache.folder() == tmp_path / ".cache" / "simtti"


def test_the_command_shows_and_clears_it(place):
    trace_cache.kept("tiny", OPTIONS, small_trace)
    shown = CliRunner().invoke(cli.main, ["cache"])
    assert "tiny" in shown.output
    assert "1 traces" in shown.output
    listed = json.loads(CliRunner().invoke(cli.main, ["cache", "--json"]).output)
    assert listed["folder"] == os.fspath(place)
    assert [each["options"] for each in listed["traces"]] == [small_trace().options]
    assert CliRunner().invoke(cli.main, ["cache", "--clear"]).exit_code == 0
    assert trace_cache.entries() == []
