"""A whole study: its files, and what survives a kill."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner
from explored import SPEC
from parsed_page import check

from simtti.cli import main
from simtti.commands.terminal import print_exploration
from simtti.errors import InputError
from simtti.explore.analysis import unsure
from simtti.explore.api import explore
from simtti.explore.spec import parse
from simtti.hw_configs.devices import load
from simtti.hw_configs.hosts import load_host
from simtti.simulator.engine.simulation import simulate
from simtti.simulator.policy import Policy
from simtti.workloads.record import workload_trace


def write(tmp_path, content):
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    return explore(parse(SPEC), folder, workers=1, report=False), folder


def test_without_the_plots_library_a_study_has_no_page_and_says_so(finished, tmp_path, monkeypatch):
    folder = shutil.copytree(finished[1], tmp_path / "study")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    command = ["explore", str(write(tmp_path, SPEC)), "--out", str(folder), "--workers", "1"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    assert "no report.html: plots need matplotlib; run: pip install 'simtti[report]'" in done.stderr
    assert not (folder / "report.html").exists()
    refused = CliRunner().invoke(main, [*command, "--report"])
    assert refused.exit_code == 2
    assert "plots need matplotlib" in refused.stderr


def test_a_study_writes_its_results_and_devices_to_run(finished):
    result, folder = finished
    table = pd.read_parquet(folder / "results.parquet")
    assert len(table) == 9
    assert list(table.columns[:3]) == ["design", "sm_count", "hbm_bytes_per_s"]
    assert {"latency_s", "energy_j", "area_mm2", "cost_usd", "feasible", "pareto", "error"} <= set(
        table.columns
    )
    fastest = table.loc[table.latency_s.idxmin()]
    assert fastest.pareto
    device = load(str(folder / "designs" / f"{fastest.design}.yaml"))
    run = simulate(
        workload_trace("stable-diffusion-1.5", steps=2), device, load_host("default"), Policy(launch="graph")
    )
    assert run.latency_s == pytest.approx(fastest.latency_s, rel=1e-12)
    assert (
        9 + 5 <= result.evaluated <= 9 + 5 + int(table.pareto.sum())
    )  # the grid; limits of middle and front
    acts = result.sensitivity.set_index(["parameter", "objective"]).elasticity
    assert acts["sm_count", "latency_s"] < -0.2
    assert acts["sm_count", "area_mm2"] > 0.2
    assert set(result.limits.workload) == {"stable-diffusion-1.5"}


def test_the_front_has_intervals_and_says_whose_order_is_not_sure(finished):
    result, folder = finished
    table = result.table
    front = table[table.pareto]
    assert (front["latency_s.p05"] < front.latency_s).all()
    assert (front.latency_s < front["latency_s.p95"]).all()
    assert table[~table.pareto]["latency_s.p05"].isna().all()
    assert "area_mm2.p05" not in table  # what silicon takes is no prediction of a time
    kept = pd.read_csv(folder / "pareto.csv")
    assert {"latency_s.p25", "unsure"} <= set(kept.columns)
    # Errors in common cancel: bars of neighbours overlap, and yet the order of most is sure.
    ordered = front.sort_values("latency_s")
    assert (ordered["latency_s.p95"].to_numpy()[:-1] > ordered["latency_s.p05"].to_numpy()[1:]).any()
    pairs = {
        tuple(sorted((number, int(other))))
        for number, row in front.iterrows()
        for other in filter(None, row.unsure.split(","))
    }
    assert len(pairs) < len(front) * (len(front) - 1) / 4


def test_designs_are_unsure_where_an_objective_is():
    asked = parse(SPEC)
    figures = {
        0: {"latency_s": 1.0, "area_mm2": 9.0},
        3: {"latency_s": 1.1, "area_mm2": 8.0},
        5: {"latency_s": 2.0, "area_mm2": 7.0},
    }
    swing = np.linspace(0.8, 1.2, 50)
    draws = {0: {"latency_s": swing}, 3: {"latency_s": 1.1 * swing[::-1]}, 5: {"latency_s": 2 * swing}}
    assert unsure(asked, figures, draws) == {0: [3], 3: [0], 5: []}
    together = draws | {3: {"latency_s": 1.1 * swing}}
    assert unsure(asked, figures, together) == {0: [], 3: [], 5: []}


def test_a_finished_study_is_not_evaluated_again_and_a_new_question_is(finished, tmp_path):
    _, folder = finished
    before = (folder / "results.parquet").read_bytes()
    assert explore(parse(SPEC), folder, workers=1, report=False).evaluated == 0
    assert (folder / "results.parquet").read_bytes() == before
    other = parse(
        {**SPEC, "workloads": [{"workload": "stable-diffusion-1.5", "steps": 3, "launch": "graph"}]}
    )
    (tmp_path / "study.jsonl").write_bytes((folder / "study.jsonl").read_bytes())
    assert explore(other, tmp_path, workers=1, report=False).evaluated > 9


def test_a_folder_is_one_question_s(finished, tmp_path):
    """Another spec is refused before anything is overwritten; a longer search, or another wording, goes on."""
    folder = shutil.copytree(finished[1], tmp_path / "study")
    before = (folder / "results.parquet").read_bytes()
    other = parse({**SPEC, "objectives": ["energy_j", "area_mm2"], "constraints": {"area_mm2": {"max": 800}}})
    with pytest.raises(
        InputError, match="another spec, in which objectives and constraints differ; give another --out"
    ):
        explore(other, folder, workers=1, report=False)
    assert (folder / "results.parquet").read_bytes() == before
    assert (
        explore(parse({**SPEC, "question": "Other words?"}), folder, workers=1, report=False).evaluated == 0
    )


def test_a_die_larger_than_a_mask_can_hold_is_told_of(tmp_path, capsys):
    asked = parse({**SPEC, "parameters": {"sm_count": {"values": [100, 300]}}})
    result = explore(asked, tmp_path, workers=1, report=False)
    large = result.table[result.table.die_mm2 > 858]
    assert len(large) == 1
    (warning,) = result.warnings
    assert f"design {large.design.iloc[0]};" in warning
    print_exploration(result)
    assert "larger than a mask can hold" in " ".join(capsys.readouterr().out.split())


SLOW = {
    **SPEC,
    "parameters": {"sm_count": {"low": 20, "high": 200}, "l2_capacity_bytes": {"low": 1e7, "high": 1e8}},
    "search": {"method": "sobol", "designs": 32, "seed": 1},
}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_study_goes_on_and_ends_in_the_same_bytes(tmp_path, how):
    path = write(tmp_path, SLOW)
    whole = tmp_path / "whole"
    explore(str(path), whole, workers=1, report=False)
    cut = tmp_path / "cut"
    command = [
        sys.executable,
        "-m",
        "simtti.cli",
        "explore",
        str(path),
        "--out",
        str(cut),
        "--workers",
        "1",
        "--no-report",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    journal = cut / "study.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and (not journal.exists() or journal.read_bytes().count(b"\n") < 6):
        time.sleep(0.02)
    os.kill(process.pid, how)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == (-9 if how == signal.SIGKILL else 2)
    if how == signal.SIGINT:
        assert "interrupted" in said
    kept = sum('"key"' in line for line in journal.read_text().splitlines())
    assert kept >= 4
    with journal.open("a") as file:
        file.write('{"study": "half a li')  # as a kill in the midst of a write leaves it
    result = explore(str(path), cut, workers=1, report=False)
    assert result.evaluated <= 32 + 5 + int(result.table.pareto.sum()) - kept + 1
    for name in ("results.parquet", "pareto.csv", "sensitivity.csv"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()


def test_two_processes_share_a_study(tmp_path):
    path = write(tmp_path, {**SLOW, "search": {"method": "sobol", "designs": 90, "seed": 2}})
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "simtti.cli",
        "explore",
        str(path),
        "--out",
        str(out),
        "--workers",
        "1",
        "--no-report",
    ]
    both = [
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in both:
        assert process.communicate(timeout=240)[1].count("error") == 0
        assert process.returncode == 0
    entries = [json.loads(line) for line in (out / "study.jsonl").read_text().splitlines()]
    done = [entry["key"] for entry in entries if "key" in entry]
    assert len(done) == len(set(done))
    assert len({entry["owner"] for entry in entries if "owner" in entry}) == 2
    assert len(pd.read_parquet(out / "results.parquet")) == 90


def test_the_report_needs_nothing_else_and_marks_the_base(finished):
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    from simtti.explore.report import html

    text = html(finished[0])
    assert text == html(finished[0])
    page = check(text)
    for title in ("Pareto set", "Parallel coordinates", "Sensitivity", "What limits it", "By category"):
        assert title in page.heads
    assert sum(tip.startswith("base, h100-sxm; ") for tip in page.tips) == 4  # two plots, wide and narrow
    assert "base device" in page.drawn
    assert "Latency, s" in page.drawn
    limits = set(finished[0].limits[finished[0].limits.seconds > 0].limit)
    assert "link" not in limits
    assert "link" not in page.drawn  # what is not used has no place in a legend
