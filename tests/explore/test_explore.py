"""Exploration: what a spec may say, that better hardware is never slower, what a search finds, what survives a kill."""

import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pandas as pd
import places
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from simtti.cli import main
from simtti.errors import InputError
from simtti.explore import analysis, formula, search, silicon
from simtti.explore.api import explore
from simtti.explore.design import device_file, make
from simtti.explore.evaluate import evaluate, limits
from simtti.explore.spec import EXAMPLES, parse, read
from simtti.hw_configs.devices import load
from simtti.hw_configs.hosts import load_host
from simtti.simulator.engine.simulation import simulate
from simtti.simulator.policy import Policy
from simtti.workloads.record import workload_trace

SPEC = {
    "base": "h100-sxm",
    "parameters": {
        "sm_count": {"values": [40, 80, 132]},
        "hbm_bytes_per_s": {"low": 1e12, "high": 4e12, "steps": 3, "scale": "log"},
    },
    "workloads": [{"workload": "stable-diffusion-1.5", "steps": 2, "launch": "graph"}],
    "objectives": ["latency_s", "area_mm2"],
}


def spec(**changes):
    return parse({**SPEC, **changes})


# ---- formulas


def test_formulas_are_arithmetic():
    values = {"sm_count": 60.0, "base.sm_count": 120.0}
    assert formula.evaluate("2 * sm_count / base.sm_count", values) == 1.0
    assert formula.evaluate("min(ceil(sm_count / 7), 8) ** 2", values) == 64.0
    assert formula.names("a + base.b * max(c, 1)") == {"a", "base.b", "c"}


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "(1).__class__",
        "sm_count.real",
        "open('x')",
        "[1][0]",
        "lambda: 1",
        "sm_count if 1 else 2",
        "9 ** 9 ** 9",
        "1 / 0",
        "1e308 * 10",
        "f'{sm_count}'",
        "sm_count +",
        "min(sm_count, key=open)",
        "1 +" * 400 + "1",
    ],
)
def test_formulas_are_nothing_but_arithmetic(text):
    with pytest.raises(InputError, match="formula"):
        formula.evaluate(text, {"sm_count": 2.0})


# ---- specs


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"base": "h100"}, ["device 'h100'", "h100-sxm"]),
        ({"objectives": ["latency"]}, ["objective 'latency'", "latency_s"]),
        ({"objectives": []}, ["objectives", "at least 1"]),
        ({"constraints": {"die": {"max": 1}}}, ["constraint 'die'"]),
        ({"workloads": [{"workload": "sdlx"}]}, ["sdlx", "sdxl"]),
        ({"workloads": [{"workload": "sdxl", "weight": -1}]}, ["workloads.0.weight", "-1"]),
        ({"workloads": [{"workload": "sdxl", "step": 1}]}, ["workloads.0.step", "did you mean 'steps'"]),
        ({"workloads": [{"workload": "sdxl"}, {"workload": "sdxl"}]}, ["two are called 'sdxl'", "name"]),
        ({"parameters": {"sm_counts": {"values": [1]}}}, ["parameter 'sm_counts'", "sm_count"]),
        ({"parameters": {"sm_count": {"low": 9, "high": 3, "steps": 2}}}, ["parameters.sm_count", "9", "3"]),
        ({"parameters": {"sm_count": {"low": 1, "high": 3}}}, ["parameters.sm_count.steps", "grid"]),
        ({"parameters": {"sm_count": {"values": [0, 3]}}}, ["'sm_count' is 0", "from 1 to"]),
        ({"parameters": {"sm_count": {"values": ["many"]}}}, ["parameters.sm_count.values.0", "many"]),
        ({"parameters": {"sm_count": {"formula": "base.sms"}}}, ["sm_count.formula", "base.sms"]),
        (
            {"parameters": {"sm_count": {"formula": "gpus"}, "gpus": {"formula": "sm_count"}}},
            ["all are formulas"],
        ),
        ({"search": {"method": "random"}}, ["search.method", "random", "nsga2"]),
        ({"compare": {"x": {"sms": 1}}}, ["parameter of compare.x 'sms'"]),
    ],
)
def test_a_faulty_spec_is_one_line_that_names_field_value_and_mend(tmp_path, change, words):
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump({**SPEC, **change}))
    shown = CliRunner().invoke(main, ["explore", str(path), "--out", str(tmp_path / "out")])
    assert shown.exit_code == 2
    assert shown.stdout == ""
    assert shown.stderr.count("\n") == 1
    for word in (path.name, *words):
        assert word in shown.stderr


def test_formulas_follow_each_other_and_not_in_a_circle():
    tied = {
        "sm_count": {"values": [66, 132]},
        "l2_capacity_bytes": {"formula": "l2_bytes_per_s / 1e5"},
        "l2_bytes_per_s": {"formula": "base.l2_bytes_per_s * sm_count / base.sm_count"},
    }
    values = spec(parameters=tied).complete({"sm_count": 66.0})
    assert values["l2_bytes_per_s"] == load("h100-sxm").l2_bytes_per_s / 2
    assert values["l2_capacity_bytes"] == values["l2_bytes_per_s"] / 1e5
    tied["l2_bytes_per_s"] = {"formula": "l2_capacity_bytes"}
    with pytest.raises(InputError, match="circle"):
        spec(parameters=tied)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_examples_are_valid_and_every_corner_can_be_built(path):
    example = read(path.stem)
    assert example.question
    search.check(example)
    for share in (0.0, 0.5, 1.0):
        make(example.base, example.complete({name: item.at(share) for name, item in example.free.items()}))
    assert len(list(EXAMPLES.glob("*.yaml"))) == 5


# ---- designs


def test_a_design_s_file_is_the_same_device(tmp_path):
    design = make("h100-sxm", {"sm_count": 99, "hbm_stacks": 6, "clock_hz": 1.5e9}, "mine")
    assert design.hardware.hbm_bytes_per_s == pytest.approx(3.35e12 * 6 / 5)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(device_file("h100-sxm", design, "a test")))
    for field in (
        "sm_count",
        "clock_hz",
        "hbm_bytes_per_s",
        "hbm_capacity_bytes",
        "static_power_w",
        "tensor_j_per_flop",
    ):
        assert getattr(load(str(path)), field) == pytest.approx(getattr(design.hardware, field))


def test_a_design_like_its_base_is_its_base():
    base, same = load("h100-sxm"), make("h100-sxm", {})
    assert replace(same.hardware, name=base.name, reported_as=base.reported_as).to_dict() == base.to_dict()
    assert same.chip.area_mm2 == pytest.approx(814)


def test_a_faster_clock_costs_energy_and_a_larger_die_leaks_more():
    base = make("h100-sxm", {}).hardware
    fast, large = make("h100-sxm", {"clock_hz": base.clock_hz * 1.1}), make("h100-sxm", {"sm_count": 150})
    assert fast.hardware.tensor_j_per_flop > base.tensor_j_per_flop
    assert fast.hardware.hbm_j_per_byte == base.hbm_j_per_byte
    assert large.hardware.static_power_w > base.static_power_w


# ---- silicon


def test_published_dies_within_15_percent_without_having_been_fitted_to():
    alone = silicon.leave_one_out()
    assert len(alone) >= 20
    assert {name: error for name, error in alone.items() if abs(error) > 0.15} == {}
    assert sum(abs(error) for error in alone.values()) / len(alone) < 0.06


def test_the_shipped_areas_are_those_of_a_fit():
    found = silicon.fit(list(silicon.published().values()))
    for name, die in silicon.published().items():
        expected = silicon.die_mm2(die, silicon.fitted())
        assert silicon.die_mm2(die, found) == pytest.approx(expected, rel=0.01), name


def test_yield_falls_with_area_and_cost_rises_faster_than_it():
    process = silicon.processes()["4N"]
    assert 1 > silicon.die_yield(100, 0, process) > silicon.die_yield(800, 0, process) > 0.3
    assert silicon.die_yield(800, 0.5, process) > silicon.die_yield(800, 0, process)
    small, large = make("h100-sxm", {"sm_count": 66}).chip, make("h100-sxm", {"sm_count": 132}).chip
    assert large.die_usd / small.die_usd > large.die_mm2 / small.die_mm2


GROWING = (
    "sm_count",
    "tensor_fp16_flops_per_cycle_sm",
    "l2_capacity_bytes",
    "link_bytes_per_s",
    "shared_memory_per_sm_bytes",
    "sfu_ops_per_cycle_sm",
)


@pytest.mark.parametrize("name", GROWING)
def test_what_is_added_takes_area(name):
    base = make("h100-sxm", {})
    assert make("h100-sxm", {name: getattr(base.hardware, name) * 2}).chip.area_mm2 > base.chip.area_mm2


# ---- evaluation

RESOURCES = (
    "sm_count", "clock_hz", "tensor_fp16_flops_per_cycle_sm", "fp32_flops_per_cycle_sm", "sfu_ops_per_cycle_sm",
    "shared_memory_bytes_per_cycle_sm", "l2_capacity_bytes", "l2_bytes_per_cycle_sm", "l2_bytes_per_s", "hbm_bytes_per_s",
)  # fmt: skip


@pytest.fixture(scope="module")
def trace():
    return workload_trace("stable-diffusion-1.5", steps=1)


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from(["h100-sxm", "a100-sxm"]),
    st.sampled_from(["eager", "graph"]),
    st.lists(st.floats(1.0, 2.5), min_size=len(RESOURCES), max_size=len(RESOURCES)),
)
def test_a_design_better_in_every_resource_is_never_slower(trace, base, launch, factors):
    host, origin = load_host("default"), load(base)
    better = {name: getattr(origin, name) * factor for name, factor in zip(RESOURCES, factors, strict=True)}
    better["sm_count"] = math.ceil(better["sm_count"])
    times = [
        simulate(trace, hardware, host, Policy(launch=launch)).latency_s
        for hardware in (origin, replace(origin, **better))
    ]
    assert times[1] <= times[0] * (1 + 1e-9)


def test_figures_follow_from_the_runs():
    asked = spec(
        workloads=[
            {"workload": "stable-diffusion-1.5", "steps": 2, "weight": 3},
            {"workload": "svd", "steps": 2, "frames_per_second": 7},
        ]
    )
    found = evaluate(asked.model_dump_json(exclude_defaults=True), {"sm_count": 132})
    image_s, video_s = found["latency_s.stable-diffusion-1.5"], found["latency_s.svd"]
    assert found["latency_s"] == pytest.approx(3 * image_s + video_s)
    frames = workload_trace("svd").options["frames"]
    assert found["throughput_per_s"] == pytest.approx((3 + frames / 7) / found["latency_s"])
    assert found["perf_per_w"] == pytest.approx(found["throughput_per_s"] / found["power_w"])
    assert found["area_mm2"] == pytest.approx(814)
    assert found["fits_memory"]


def test_named_designs_come_first_and_have_the_base_s_numbers_where_they_give_none():
    asked = spec(
        parameters={
            **SPEC["parameters"],
            "hbm_capacity_bytes": {
                "formula": "base.hbm_capacity_bytes * hbm_bytes_per_s / base.hbm_bytes_per_s"
            },
        },
        compare={"today": {}, "twice": {"hbm_bytes_per_s": 6.7e12}},
    )
    found = [values for values, _ in search.run(asked, lambda designs: [{} for _ in designs])]
    assert len(found) == 11
    base = load("h100-sxm").hbm_capacity_bytes
    assert found[0] == {"hbm_capacity_bytes": base}
    assert found[1] == {"hbm_bytes_per_s": 6.7e12, "hbm_capacity_bytes": pytest.approx(2 * base)}


MEASURED = places.MEASURED


@pytest.mark.skipif(not MEASURED.exists(), reason="needs ../shared/measured, the timings of others")
def test_the_ratio_between_measured_devices_is_right():
    """Whole inferences at batch 1, A100 against H100: within 15 % on four of five."""
    from simtti.validation.measurements import sources
    from simtti.validation.measurements import table as measured

    runs = measured.runs(sources.import_measurements("folder", str(MEASURED)).table)
    runs = runs[(runs.gpus.fillna(1) == 1) & (runs.batch == 1) & (runs.dtype == "fp16")]
    errors = {}
    for (workload, steps), rows in runs.groupby(["workload", "steps"]):
        times = rows.groupby("hw").latency_s.first()
        if not {"a100-sxm-40gb", "h100-sxm"} <= set(times.index):
            continue
        trace = workload_trace(workload, steps=int(steps), dtype="fp16")
        host = load_host("default")
        mine = {hw: simulate(trace, load(hw), host).latency_s for hw in ("a100-sxm-40gb", "h100-sxm")}
        ratio, theirs = (t["a100-sxm-40gb"] / t["h100-sxm"] for t in (mine, times))
        errors[workload] = ratio / theirs - 1
    assert len(errors) >= 4
    assert sum(abs(error) <= 0.15 for error in errors.values()) >= 0.8 * len(errors), errors


def test_the_host_and_more_gpus_are_parameters():
    text = spec(workloads=[{"workload": "wan2.1-1.3b", "steps": 2}]).model_dump_json(exclude_defaults=True)
    one, four = (evaluate(text, {"gpus": gpus}) for gpus in (1, 4))
    assert four["latency_s"] < one["latency_s"] < 4 * four["latency_s"]
    assert four["cost_usd"] == pytest.approx(4 * one["cost_usd"])
    eager = spec(workloads=[{"workload": "stable-diffusion-1.5", "steps": 2}]).model_dump_json(
        exclude_defaults=True
    )
    slow, fast = (evaluate(eager, {"host_speed": speed})["latency_s"] for speed in (0.5, 4.0))
    assert fast < slow / 2


def test_a_design_that_cannot_be_simulated_says_why():
    text = spec().model_dump_json(exclude_defaults=True)
    assert "sm_count" in evaluate(text, {"sm_count": 1e9})["error"]


def test_limits_add_up_to_the_latency_and_move_with_the_design(trace):
    host = load_host("default")
    found = {}
    for bandwidth in (0.2e12, 20e12):
        result = simulate(
            trace, replace(load("h100-sxm"), hbm_bytes_per_s=bandwidth), host, Policy(launch="graph")
        )
        seconds = limits(result)
        assert sum(seconds.values()) == pytest.approx(result.latency_s, rel=1e-6)
        found[bandwidth] = sum(s for (_, limit), s in seconds.items() if limit == "hbm") / result.latency_s
    assert found[0.2e12] > 0.5 > 0.1 > found[20e12]


# ---- searches

COSTS = st.lists(st.tuples(*[st.integers(0, 6)] * 3), max_size=40)


@given(COSTS)
def test_a_pareto_set_is_mutually_non_dominated_and_covers_the_rest(costs):
    front = analysis.pareto(costs)

    def dominates(a, b):
        return all(x <= y for x, y in zip(a, b, strict=True)) and a != b

    for a, b in itertools.permutations(front, 2):
        assert not dominates(costs[a], costs[b])
        assert costs[a] != costs[b]
    for index, cost in enumerate(costs):
        assert index in front or any(dominates(costs[f], cost) or costs[f] == cost for f in front)


def run_search(asked):
    """A search over designs really evaluated, each once."""
    text, known = asked.model_dump_json(exclude_defaults=True), {}

    def of(designs):
        for values in designs:
            known.setdefault(json.dumps(values, sort_keys=True), None)
        for key in known:
            known[key] = known[key] or evaluate(text, json.loads(key))
        return [known[json.dumps(values, sort_keys=True)] for values in designs]

    return search.run(asked, of)


def front_of(asked, found):
    marks = analysis.mark(asked, [figures for _, figures in found])
    return {
        json.dumps(values, sort_keys=True)
        for (values, _), (_, front) in zip(found, marks, strict=True)
        if front
    }


def test_nsga2_finds_the_true_front_of_a_grid():
    whole = spec(constraints={"area_mm2": {"max": 780}})
    grid = run_search(whole)
    assert len(grid) == 9
    asked = spec(
        constraints={"area_mm2": {"max": 780}},
        search={"method": "nsga2", "designs": 60, "population": 12, "seed": 3},
    )
    pytest.importorskip("optuna")
    found = run_search(asked)
    assert len(found) <= 9
    truth = front_of(whole, grid)
    assert 1 < len(truth) < 9
    assert front_of(asked, found) == truth


@pytest.mark.parametrize("method", ["grid", "sobol", "one-at-a-time"])
def test_a_search_proposes_the_same_designs_again_and_within_the_ranges(method):
    asked = spec(search={"method": method, "designs": 12, "seed": 5})
    proposed = [
        [values for values, _ in search.run(asked, lambda designs: [{} for _ in designs])] for _ in range(2)
    ]
    assert proposed[0] == proposed[1]
    assert len(proposed[0]) == (5 if method == "one-at-a-time" else 9)  # each once
    for values in proposed[0]:
        assert values["sm_count"] in (40, 80, 132)
        assert 1e12 <= values["hbm_bytes_per_s"] <= 4e12 * (1 + 1e-9)


def test_elasticity_and_importance():
    low, high = {"x": 9.0, "y": 3.0}, {"x": 11.0, "y": 3.0 * (11 / 9) ** -0.5}
    assert analysis.elasticity("x", low, high, "y") == pytest.approx(-0.5)
    rows = pd.DataFrame(
        [{"a": a, "b": b, "y": a**2.0 * b**0.1} for a in (1.0, 2.0, 4.0) for b in (1.0, 2.0, 4.0)]
    )
    shares = analysis.importance(rows, ["a", "b"], "y")
    assert list(shares) == ["a", "b"]
    assert shares["a"] == pytest.approx(4 / 4.01)
    assert sum(shares.values()) == pytest.approx(1)


# ---- studies


def write(tmp_path, content):
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    return explore(parse(SPEC), folder, workers=1, report=False), folder


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


def test_the_report_needs_nothing_else(finished):
    pytest.importorskip("plotly")
    from simtti.explore.report import html

    page = html(finished[0])
    assert page == html(finished[0])
    for title in ("Pareto set", "Parallel coordinates", "Sensitivity", "What limits it", "By category"):
        assert f"<h2>{title}</h2>" in page
    assert "<script src=" not in page
