"""Intervals of whole runs: the walk, how residuals add up, and what `run`, `sweep` and `compare` say."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import simtti
from simtti.commands.simulate import run
from simtti.hw_configs.devices import load
from simtti.simulator.compare import certain, compare
from simtti.simulator.sweep import sweep
from simtti.simulator.uncertainty.draws import (
    COLUMNS,
    Normals,
    Shares,
    draws,
    factors,
    run_intervals,
)
from simtti.simulator.uncertainty.families import FAMILIES, SIZES, STANDINGS
from simtti.simulator.uncertainty.outside import of_run
from simtti.simulator.uncertainty.residuals import LEVELS, NORMAL, Interval, Residuals

FEW = {"steps": 4, "fidelity": "closed"}
NOTHING = dict.fromkeys(STANDINGS, 0.0)
EXACT = Shares(0.0, 0.0, 0.0, NOTHING, NOTHING)


def table(quantiles):
    """The same residuals of everything."""
    cells = {
        (family, standing, size, ""): np.asarray(quantiles, float)
        for family in FAMILIES for standing in STANDINGS for size in SIZES
    }  # fmt: skip
    return Residuals(cells, {}, {})


@pytest.mark.parametrize(
    ("workload", "hw", "options"),
    [
        ("stable-diffusion", "h100-sxm", {"steps": 8}),  # waits for the host in part
        ("stable-diffusion", "h100-sxm", {"steps": 8, "fidelity": "closed", "launch": "graph"}),
        ("muse", "a100-sxm", {"fidelity": "closed"}),  # steps that differ, and waits for the device
        ("svd", "l40s", {"steps": 3, "fidelity": "closed"}),
    ],
)
def test_without_residuals_every_draw_is_the_prediction(workload, hw, options):
    result = simtti.run(workload, hw, **options)
    latency_s, energy_j, phases_s = draws(result, table(np.zeros(len(LEVELS))), EXACT)
    assert latency_s == pytest.approx(np.full(200, result.latency_s), rel=1e-12)
    assert energy_j == pytest.approx(np.full(200, result.energy_j), rel=1e-12)
    assert list(phases_s) == [phase.name for phase in result.phases]
    for phase in result.phases:
        assert phases_s[phase.name] == pytest.approx(np.full(200, phase.latency_s), rel=1e-12)


def test_a_run_that_the_gpu_bounds_scales_with_its_kernels_and_one_that_the_host_bounds_with_the_host():
    """All kernels a tenth slower, and the host a tenth slower, each alone."""
    slower = table(np.full(len(LEVELS), np.log(1.1)))
    gpu, host = (
        simtti.run("stable-diffusion", "h100-sxm", batch=batch, launch=launch, **FEW)
        for batch, launch in ((1, "graph"), (1, "eager"))
    )
    assert draws(gpu, slower, EXACT)[0].mean() / gpu.latency_s == pytest.approx(1.1, abs=0.02)
    assert draws(host, slower, EXACT)[0].mean() / host.latency_s < 1.06
    swings = replace(EXACT, host_sd=0.1)
    still = table(np.zeros(len(LEVELS)))
    assert np.std(np.log(draws(host, still, swings)[0])) > 0.04
    assert np.std(np.log(draws(gpu, still, swings)[0])) < 0.005


def test_correlated_residuals_make_a_wider_sum_than_independent_ones():
    cells = [("gemm", SIZES[1])] * 60 + [("convolution", SIZES[2])] * 60
    width = {}
    for shared, family in ((0.0, 0.0), (0.0, 0.3), (0.3, 0.3), (1.0, 0.0)):
        drawn = factors(
            cells, load("h100-sxm"), table(0.1 * NORMAL), Shares(shared, family, 0, {}, {}), Normals(400, 5)
        )
        low, high = np.quantile(np.log(drawn.mean(axis=0)), (0.05, 0.95))
        width[shared, family] = high - low
    assert width[0.0, 0.0] < width[0.0, 0.3] < width[0.3, 0.3] < width[1.0, 0.0]
    assert width[1.0, 0.0] == pytest.approx(0.1 * 2 * 1.645, rel=0.02)  # all of one residual's own width


@pytest.mark.parametrize("shared", [(0.0, 0.0), (0.2, 0.5)])
def test_each_residual_alone_is_distributed_as_it_was_measured(shared):
    """Coverage: drawn again and again, a kernel's factor is below each quantile as often as the level says."""
    quantiles = np.array([-0.4, -0.2, -0.15, -0.05, 0.02, 0.1, 0.12, 0.3, 0.5])
    drawn = np.log(
        factors(
            [("gemm", SIZES[0])] * 50,
            load("h100-sxm"),
            table(quantiles),
            Shares(*shared, 0, {}, {}),
            Normals(2000, 3),
        )
    )
    for level, quantile in list(zip(LEVELS, quantiles, strict=True))[
        1:-1
    ]:  # beyond the outermost there is nothing
        assert (drawn <= quantile + 1e-12).mean() == pytest.approx(level, abs=0.04 if any(shared) else 0.01)


def test_an_operators_residual_goes_with_its_own_on_a_device_alike_whatever_else_there_is():
    """Its place in the trace decides, not which of the others there are: a sister of the device may run other kernels."""
    common = Shares(0.0, 0.0, 0.0, NOTHING, NOTHING, alike=0.6)
    cells = [("gemm", SIZES[1])] * 3

    def drawn(hw, rows):
        return np.log(
            factors(cells[: len(rows)], load(hw), table(0.1 * NORMAL), common, Normals(2000, 1), rows)
        )

    here, there, far = drawn("h200-sxm", [3, 70, 900]), drawn("h100-sxm", [70, 900]), drawn("l40s", [70, 900])
    assert np.corrcoef(here[1], there[0])[0, 1] == pytest.approx(0.6, abs=0.05)
    assert np.corrcoef(here[2], there[1])[0, 1] == pytest.approx(0.6, abs=0.05)
    assert abs(np.corrcoef(here[2], there[0])[0, 1]) < 0.1
    assert abs(np.corrcoef(here[1], far[0])[0, 1]) < 0.1


def test_the_intervals_are_in_order_hold_the_prediction_and_are_the_same_again():
    result = simtti.run("stable-diffusion", "h100-sxm", **FEW)
    again = simtti.run("stable-diffusion", "h100-sxm", **FEW)
    for found, value in zip(result.interval, (result.latency_s, result.energy_j), strict=True):
        assert found.p05 < found.p25 <= value <= found.p75 < found.p95
    assert result.interval == again.interval == run_intervals(result)


def test_on_several_gpus_the_interval_is_that_of_all_of_them():
    result = simtti.run("pixart-sigma", "h100-sxm", gpus=2, steps=2, fidelity="closed")
    latency, energy = result.interval
    assert latency.p05 < result.several_gpus.latency_s < latency.p95
    assert energy.p05 < result.several_gpus.energy_j < energy.p95


def test_a_device_that_nobody_measured_is_wider_and_says_so():
    known, unknown = (simtti.run("sdxl", hw, launch="graph", **FEW) for hw in ("h200-sxm", "rtx-5090"))
    wide, narrow = (
        np.log(each.interval.latency_s.p95 / each.interval.latency_s.p05) for each in (unknown, known)
    )
    assert wide > 1.3 * narrow
    assert "no kernel timed on a GPU like rtx-5090 set a parameter" in of_run(unknown)[0]
    assert not any("GPU like" in text for text in of_run(known))
    assert unknown.to_dict()["warnings"] == [*unknown.warnings, *of_run(unknown)]


def test_the_command_prints_and_writes_the_intervals_and_leaves_them_out_when_asked():
    options = ["stable-diffusion", "--hw", "h100-sxm", "--steps", "4", "--fidelity", "closed"]
    texts = [
        CliRunner().invoke(run, [*options, *more], catch_exceptions=False).stdout
        for more in ([], ["--no-interval"], ["--json", "-"], ["--json", "-", "--no-interval"])
    ]
    assert ["in 9 of 10" in text for text in texts[:2]] == [True, False]
    found, without = map(json.loads, texts[2:])
    assert list(found["interval"]) == ["p05_s", "p25_s", "p75_s", "p95_s"]
    assert list(found["energy_interval"]) == ["p05_j", "p25_j", "p75_j", "p95_j"]
    assert found["interval"]["p05_s"] < found["latency_s"] < found["interval"]["p95_s"]
    assert "interval" not in without
    assert without["latency_s"] == found["latency_s"]


def test_a_sweep_has_them_as_columns(tmp_path):
    points = pd.DataFrame({"workload": ["stable-diffusion"], "hw": ["h100-sxm"], "steps": [4]})
    done = sweep(points.copy(), tmp_path / "with.csv", workers=1)
    result = simtti.run("stable-diffusion", "h100-sxm", **FEW)
    assert {name: done[name].iloc[0] for name in COLUMNS} == pytest.approx(result.interval.columns())
    without = sweep(points, tmp_path / "without.csv", interval=False, workers=1)
    assert not set(COLUMNS) & set(without.columns)
    assert without.latency_s.iloc[0] == done.latency_s.iloc[0]


def test_what_two_devices_have_in_common_cancels_in_their_ratio():
    base = simtti.run("stable-diffusion", "h100-sxm", **FEW)
    faster = load("h100-sxm").replace(hbm_bytes_per_s="1.2x")
    near = simtti.run("stable-diffusion", faster, **FEW)
    far = simtti.run("stable-diffusion", "a100-sxm", **FEW)

    def width(latency_s):
        return np.ptp(np.quantile(np.log(latency_s), (0.05, 0.95)))

    own, ratio = width(near.draws.latency_s), width(near.draws.latency_s / base.draws.latency_s)
    assert 0 < ratio < own / 3
    # Of devices of other kinds only the host is common.
    assert own / 2 < width(far.draws.latency_s / base.draws.latency_s) < 2 * own
    assert np.array_equal(
        base.draws.latency_s, simtti.run("stable-diffusion", "h100-sxm", **FEW).draws.latency_s
    )


def test_a_comparison_says_in_how_many_draws_the_fastest_is_so():
    found = compare(
        "stable-diffusion", ["a100-sxm", "h100-sxm", "a100-sxm+hbm_bytes_per_s=0.99x"], workers=1, **FEW
    )
    assert found.fastest_in.sum() == pytest.approx(1)
    assert (found.latency_x_p05 <= found.latency_x).all()
    assert (found.latency_x <= found.latency_x_p95).all()
    assert (found.latency_x_p05[0], found.latency_x_p95[0]) == (1, 1)
    assert found.frugal_in.sum() == pytest.approx(1)
    assert ((found.energy_x_p05 <= found.energy_x) & (found.energy_x <= found.energy_x_p95)).all()
    assert (found.energy_x_p05[0], found.energy_x_p95[0]) == (1, 1)
    nearly = found.iloc[2]
    assert nearly.latency_x_p95 - nearly.latency_x_p05 < 0.05
    assert nearly.latency_p95_s / nearly.latency_p05_s > 1.3
    told = found.assign(fastest_in=[0.02, 0.98, 0.0])
    assert certain(told) == ["h100-sxm is fastest for sure: in 98 of 100 draws"]
    assert certain(told.assign(fastest_in=[0.3, 0.7, 0.0])) == [
        "h100-sxm is fastest in 70 of 100 draws: not for sure"
    ]


def test_an_interval_takes_the_prediction_in():
    assert Interval(1.1, 1.2, 1.3, 1.4).around(1.0) == Interval(1.0, 1.0, 1.3, 1.4)


def test_an_engine_that_nobody_traced_and_more_gpus_are_known_less_well():
    def width(**options):
        latency = simtti.run("pixart-sigma", "h100-sxm", launch="graph", **FEW, **options).interval.latency_s
        return np.log(latency.p95 / latency.p05)

    assert width(engine="xdit") > 1.5 * width()
    assert width(gpus=4) > 1.05 * width(gpus=2) > width()
