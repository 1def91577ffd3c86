"""The table for captured times from measurements: what two devices have wrong alike cancels, and launches that are alike give the noise."""

import numpy as np
import pandas as pd
import pytest

from simtti.simulator.predict import predict
from simtti.simulator.uncertainty.captured import ALIKE, COLUMNS, OTHER, SAME, captured_residuals
from simtti.simulator.uncertainty.families import CALIBRATED, CARRIED, NEVER_MEASURED, SIZES
from simtti.simulator.uncertainty.residuals import SHIPPED
from simtti.validation.fit.families import in_training
from simtti.validation.judge import captured_residuals as judged
from simtti.validation.measurements.check import check
from simtti.workloads.measured import capture_named

COMMON, OWN = 0.3, 0.05
SHAPES = 240


@pytest.fixture(scope="module")
def measured():
    """Products on three devices that take the time predicted for them, times what all have in common, times a device's own."""
    random = np.random.RandomState(5)
    rows = pd.DataFrame({"op": "gemm", "dtype": "bf16", "batch": 1}, index=range(SHAPES)).assign(
        **{name: random.randint(1, 64, SHAPES) * 64 for name in "mnk"}
    )
    common = COMMON * random.standard_normal(SHAPES)
    parts = []
    for hw in ("h100-sxm", "h200-sxm", "a100-sxm"):
        us = predict(rows, hw, interval=False, workers=1).time_us
        took = us * np.exp(common + OWN * random.standard_normal(SHAPES))
        parts.append(rows.assign(hw=hw, time_us=took, source="made up", what_is_timed="back-to-back"))
    return check(pd.concat(parts, ignore_index=True), "made up")


@pytest.fixture(scope="module")
def ratios(measured):
    return judged.ratio_residuals(measured, most_rows=SHAPES, workers=1)


def test_what_two_devices_have_in_common_cancels_and_only_held_out_shapes_count(measured, ratios):
    held = int((~in_training(measured[measured.hw == "h100-sxm"])).sum())
    own = ratios[ratios.standing == CALIBRATED]
    assert own.groupby("pair").size().to_dict() == {
        f"{one}>{other}": held
        for one in ("h100-sxm", "h200-sxm", "a100-sxm")
        for other in ("h100-sxm", "h200-sxm", "a100-sxm")
        if one != other
    }
    alike = own[own.relation == ALIKE]
    assert set(alike.pair) == {"h100-sxm>h200-sxm", "h200-sxm>h100-sxm"}
    assert alike.log_ratio.std() == pytest.approx(OWN * 2**0.5, rel=0.15)
    assert set(ratios[ratios.relation == OTHER].standing) == {CALIBRATED, CARRIED}


def test_the_table_holds_one_half_by_the_other_and_names_its_rules(ratios):
    of_model = pd.read_csv(SHIPPED, keep_default_na=False)
    noise = ratios[:200].assign(
        relation=SAME, standing="", size=np.resize(SIZES, 200), half=np.repeat([0, 1], 100), log_ratio=0.0
    )
    both = pd.concat([noise, ratios], ignore_index=True)
    made = judged.table(both, of_model)
    assert list(made.columns) == list(COLUMNS)
    captured_residuals(made.to_dict("records"), "made")  # every row is there
    cell = made[
        (made.family == "gemm")
        & (made.relation == ALIKE)
        & (made.standing == CALIBRATED)
        & (made["size"] == SIZES[1])
    ].iloc[0]
    assert cell.basis == "measured"
    assert cell.q95 == pytest.approx(1.645 * OWN * 2**0.5, rel=0.3)
    rule = made[
        (made.family == "memory") & (made.relation == ALIKE) & (made.standing == NEVER_MEASURED)
    ].iloc[0]
    times = float(rule.basis.removeprefix("the model's, times "))
    assert 0 < times < 1  # ratios were known better than times
    model = of_model[(of_model.family == "memory") & (of_model.standing == NEVER_MEASURED)].iloc[0]
    assert rule.q95 - rule.q05 == pytest.approx(times * (model.q95 - model.q05), abs=2e-3)
    scores = judged.cross_cover(both, of_model).set_index(["relation", "standing"])
    assert 0.84 < scores.loc[(ALIKE, CALIBRATED)].nine_of_ten < 0.97


def test_noise_is_how_far_launches_that_are_alike_lie_apart(monkeypatch):
    monkeypatch.setattr(judged, "captures", lambda: (capture_named("h200-sxm/stable-diffusion-1.5"),))
    found = judged.launch_noise(most_rows=10_000, workers=1)
    assert (found.relation == SAME).all()
    assert set(found.pair) == {"h200-sxm"}
    assert found.log_ratio.median() == pytest.approx(0, abs=1e-3)
    width = found.groupby("size").log_ratio.quantile(0.95) - found.groupby("size").log_ratio.quantile(0.05)
    assert 0.01 < width[SIZES[1]] < width[SIZES[0]] < 0.4  # short kernels are noisier
    assert {"convolution", "normalization", "gemm"} <= set(found.family)
