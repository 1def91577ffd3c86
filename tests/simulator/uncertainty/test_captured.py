"""Intervals of captured kernel times: on the capture's own device, scaled to another, replayed from a file."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

import simtti
from simtti.commands.simulate import run
from simtti.errors import InputError
from simtti.hw_configs.devices import load
from simtti.simulator.engine.replay import replay
from simtti.simulator.uncertainty import captured
from simtti.simulator.uncertainty.captured import ALIKE, OTHER, SAME, captured_residuals, relation
from simtti.simulator.uncertainty.draws import draws, shares
from simtti.simulator.uncertainty.families import FAMILIES, SIZES, STANDINGS
from simtti.simulator.uncertainty.of_replay import replay_draws
from simtti.simulator.uncertainty.outside import of_run
from simtti.simulator.uncertainty.residuals import LEVELS, NAMES, shipped
from simtti.workloads.measured import captured_trace

WORKLOAD = "stable-diffusion-2.1"
OPTIONS = {"steps": 2, "launch": "graph", "fidelity": "closed"}
KERNELS_ALONE = replace(shares(), host_sd=0.0, captured_scale=0.0, whole_scale=dict.fromkeys(STANDINGS, 0.0))


def shipped_rows():
    with captured.SHIPPED.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def runs():
    asked = (("h200-sxm", "measured"), ("h200-sxm", "hybrid"), ("h100-sxm", "hybrid"), ("a100-sxm", "hybrid"))
    return {
        **{pair: simtti.run(WORKLOAD, pair[0], timing=pair[1], **OPTIONS) for pair in asked},
        ("h200-sxm", "model"): simtti.run(WORKLOAD, "h200-sxm", pytorch="2.11", **OPTIONS),
    }


def width(latency_s):
    return np.ptp(np.quantile(np.log(latency_s), (0.05, 0.95)))


def test_only_noise_is_left_where_the_kernels_were_captured_and_scaling_adds_the_ratios_error(runs):
    """Of the kernels alone: their own noise averages out; a device of another architecture is known less well than a sister."""
    alone = {pair: width(draws(each, shipped(), KERNELS_ALONE).latency_s) for pair, each in runs.items()}
    assert 0 < alone["h200-sxm", "measured"] < 0.3 * alone["h200-sxm", "model"]
    assert alone["h200-sxm", "hybrid"] == alone["h200-sxm", "measured"]
    assert alone["h200-sxm", "measured"] < alone["h100-sxm", "hybrid"] < alone["a100-sxm", "hybrid"]
    # and the whole: software and machine are those of the capture
    assert width(runs["h200-sxm", "measured"].draws.latency_s) < 0.8 * width(
        runs["h200-sxm", "model"].draws.latency_s
    )


def test_a_run_says_whose_kernels_it_has(runs):
    assert of_run(runs["h200-sxm", "measured"]) == of_run(runs["h200-sxm", "hybrid"]) == ()
    assert any("scaled from h200-sxm" in text for text in of_run(runs["a100-sxm", "hybrid"]))
    mistaken = simtti.run(WORKLOAD, "a100-sxm", timing="measured", **OPTIONS)
    assert "the kernels take what they took on h200-sxm" in of_run(mistaken)[0]
    said = runs["a100-sxm", "hybrid"].to_dict()
    assert (said["configuration"]["timing"], said["configuration"]["captured_on"]) == ("hybrid", "h200-sxm")
    assert said["interval"]["p05_s"] < said["latency_s"] < said["interval"]["p95_s"]


def test_operators_without_a_model_are_named_and_have_an_interval_of_their_own():
    trace = captured_trace(WORKLOAD)
    operators = list(trace.operators())
    unknown = max(
        (each for each in operators if each.category == "Linear"), key=lambda each: each.inputs[0].nbytes
    ).op
    phases = tuple(
        replace(phase, steps=tuple(
            replace(step, operators=tuple(
                replace(each, op="mine::secret", attributes={}) if each.op == unknown else each
                for each in step.operators))
            for step in phase.steps))
        for phase in trace.phases
    )  # fmt: skip
    result = simtti.run(replace(trace, phases=phases), "h100-sxm", timing="hybrid", partial=True, **OPTIONS)
    assert any("of operators that the model does not cover" in text for text in of_run(result))
    assert "is scaled by the model of its own operator" in result.coverage.sentence("hybrid")


@pytest.mark.parametrize(("timing", "hw"), [("measured", "h200-sxm"), ("hybrid", "a100-sxm")])
def test_a_replays_draws_are_its_latency_where_nothing_is_uncertain(monkeypatch, timing, hw):
    trace = captured_trace(WORKLOAD)
    found = replay(trace, load(hw), timing, load("h200-sxm"))
    zero = captured_residuals([{**row, **dict.fromkeys(NAMES, 0.0)} for row in shipped_rows()], "zero")
    interval = found.interval
    assert interval.p05 < interval.p25 <= found.latency_s <= interval.p75 < interval.p95
    monkeypatch.setattr(captured, "shipped", lambda: zero)
    drawn = replay_draws(found, shipped(), KERNELS_ALONE, 8)
    assert drawn == pytest.approx(np.full(8, found.latency_s), rel=1e-12)


def test_the_command_says_the_interval_of_a_replay_and_leaves_it_out_when_asked(tmp_path):
    trace = tmp_path / "captured.parquet"
    captured_trace(WORKLOAD).save(trace)
    options = ["--trace", str(trace), "--hw", "h100-sxm", "--timing", "hybrid"]
    text, without, found, bare = (
        CliRunner().invoke(run, [*options, *more], catch_exceptions=False).stdout
        for more in ([], ["--no-interval"], ["--json", "-"], ["--json", "-", "--no-interval"])
    )
    assert "in 9 of 10" in text
    assert "in 9 of 10" not in without
    assert list(json.loads(found)["interval"]) == ["p05_s", "p25_s", "p75_s", "p95_s"]
    assert "interval" not in json.loads(bare)


def test_devices_are_the_same_alike_or_other():
    h200 = load("h200-sxm")
    assert relation(h200, load("h200-sxm")) == SAME
    assert relation(h200.replace(hbm_bytes_per_s="1.1x"), h200) == ALIKE
    assert relation(load("h100-sxm"), h200) == ALIKE
    assert relation(load("a100-sxm"), h200) == OTHER


def test_ratios_of_sisters_are_known_better_than_times_and_those_of_strangers_less_well():
    known, of_model = captured.shipped(), shipped()
    ends = LEVELS.index(0.05), LEVELS.index(0.95)
    for family in ("gemm", "attention"):
        own = np.ptp(of_model.of_standing(family, "calibrated", SIZES[2], "")[list(ends)])
        alike, other = (
            np.ptp(known.quantiles[family, each, "calibrated", SIZES[2]][list(ends)])
            for each in (ALIKE, OTHER)
        )
        assert alike < own < other
    for family in FAMILIES:  # a launch alone is known better than the model knows it
        noise = np.ptp(known.noise(family, SIZES[0])[list(ends)])
        assert noise < np.ptp(of_model.of_standing(family, "calibrated", SIZES[0], "")[list(ends)])


def test_a_damaged_table_is_refused():
    rows = shipped_rows()
    with pytest.raises(InputError, match="no row of "):
        captured_residuals(rows[1:], "table")
    with pytest.raises(InputError, match=r"row 1: .*no such family, relation"):
        captured_residuals([rows[0] | {"relation": "near"}], "table")
    with pytest.raises(InputError, match="row 1: q01 to q99"):
        captured_residuals([rows[0] | {"q50": "9"}, *rows[1:]], "table")
