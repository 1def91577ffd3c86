"""A trace file, or a function in a file, wherever a workload's name goes."""

import pandas as pd
import pytest
from click.testing import CliRunner
from explored import SPEC
from small_traces import small_trace

import simtti
from simtti import cli
from simtti.errors import InputError
from simtti.explore.evaluate import evaluate
from simtti.explore.spec import parse
from simtti.simulator.sweep import sweep
from simtti.workloads import named
from simtti.workloads.record import workload_trace


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "tiny.parquet"
    small_trace().save(path)
    return path


def seconds(steps=None):
    return simtti.run(small_trace(), "h100-sxm", steps=steps).latency_s


def test_run_takes_a_file(file):
    assert simtti.run(file, "h100-sxm").latency_s == seconds()
    assert simtti.run(str(file), "h100-sxm", steps=7).latency_s == seconds(7) < seconds()
    assert workload_trace(str(file)) == small_trace()


def test_compare_and_sweep_take_a_file(file, tmp_path):
    (row,) = simtti.compare(str(file), ["h100-sxm"], workers=1).to_dict("records")
    assert (row["latency_s"], row["error"]) == (seconds(), "")
    points = pd.DataFrame([{"workload": str(file), "hw": "h100-sxm", "steps": steps} for steps in (3, 9)])
    found = sweep(points, tmp_path / "out.csv", workers=1)
    assert list(found.error.fillna("")) == ["", ""]
    assert found.latency_s[0] == pytest.approx(seconds(3))
    assert found.latency_s[1] == pytest.approx(seconds(9))


def test_a_sweep_knows_a_file_by_what_is_in_it(file):
    from simtti.simulator.sweep import Keys

    row = {"workload": str(file), "hw": "h100-sxm"}
    before = Keys()(row)
    small_trace(schedule={}).save(file)
    assert Keys()(row) != before


def test_explore_takes_a_file(file):
    mix = [{"workload": str(file), "steps": 7, "launch": "graph"}]
    spec = parse({**SPEC, "workloads": mix})
    found = evaluate(spec.model_dump_json(), {"sm_count": 132, "hbm_bytes_per_s": 3e12})
    assert found["latency_s"] == found["latency_s.tiny"] > 0
    before = spec.identity()
    small_trace(schedule={}).save(file)
    assert parse({**SPEC, "workloads": mix}).identity() != before


def test_the_commands_take_a_file(file):
    for command in (
        ["run", str(file), "--hw", "a100-sxm"],
        ["compare", str(file), "--hw", "a100-sxm"],
        ["profile", str(file)],
    ):
        done = CliRunner().invoke(cli.main, command)
        assert done.exit_code == 0, done.output
        assert "tiny" in done.output


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda file: simtti.run(file, "h100-sxm", batch=2), "--batch cannot change a recorded trace"),
        (lambda file: simtti.run(file, "h100-sxm", trace=file), "two traces are given"),
        (lambda file: simtti.run(file.with_name("no.parquet"), "h100-sxm"), "there is no trace file"),
        (lambda file: simtti.run(str(file), "h100-sxm", guidance="off"), "--guidance cannot change"),
        (lambda file: workload_trace("none.py:model"), "there is no file none.py"),
        (lambda file: parse({**SPEC, "workloads": [{"workload": "no.parquet"}]}), "there is no trace file"),
        (lambda file: simtti.compare(str(file), ["h100-sxm"], [1, 2], workers=1), "--batch cannot change"),
    ],
)
def test_what_cannot_be_is_said(file, call, said):
    with pytest.raises(InputError, match=said):
        call(file)


def test_what_is_a_file_and_what_a_name():
    assert named.is_trace_file("my.parquet")
    assert named.is_trace_file("folder/trace")
    assert not named.is_trace_file("sdxl")
    assert not named.is_trace_file("folder/mine.py:model")
    assert named.is_file("folder/mine.py:model")
    assert not named.is_file("stable-diffusion-1.5")
    assert [named.label_of(what) for what in ("sdxl", "a/b.parquet", "a/c.py:model")] == [
        "sdxl",
        "b",
        "model",
    ]
