"""The table of residuals from measurements: which rows count, under which standing, and that its quantiles are theirs."""

import numpy as np
import pandas as pd
import pytest

from simtti.hw_configs.devices import load
from simtti.simulator.predict import predict
from simtti.simulator.uncertainty.families import (
    CALIBRATED,
    CARRIED,
    FAMILIES,
    NEVER_MEASURED,
    SIZES,
    STANDINGS,
)
from simtti.simulator.uncertainty.residuals import conformal_quantiles
from simtti.validation.fit.families import in_training
from simtti.validation.judge.error_figures import cover
from simtti.validation.judge.residuals import (
    cross_cover,
    left_out,
    log_ratios,
    table,
    with_parameters_of,
)
from simtti.validation.measurements.check import check

SPREAD = 0.1


def measured(device, seed, spread=SPREAD):
    """Products that take the time predicted for them times a log-normal factor."""
    random = np.random.RandomState(seed)
    rows = pd.DataFrame({"op": "gemm", "dtype": "bf16", "batch": 1}, index=range(700)).assign(
        m=random.randint(1, 64, 700) * 64,
        n=random.randint(1, 64, 700) * 64,
        k=random.randint(1, 64, 700) * 64,
    )
    took = predict(rows, device, interval=False, workers=1).time_us * np.exp(
        spread * random.standard_normal(700)
    )
    return rows.assign(hw=device, time_us=took, source="made up", what_is_timed="back-to-back")


@pytest.fixture(scope="module")
def found():
    rows = pd.concat(
        [measured("h100-sxm", 1), measured("h200-sxm", 2), measured("l20", 3)], ignore_index=True
    )
    return log_ratios(check(rows, "made up"), most_rows=10_000, workers=1)


def test_the_half_that_sets_parameters_does_not_count(found):
    own = found[(found.device == "h100-sxm") & (found.standing == CALIBRATED)]
    held = ~in_training(check(measured("h100-sxm", 1), "made up"))
    assert len(own) == held.sum() < 500
    assert own.log_ratio.std() == pytest.approx(SPREAD, rel=0.15)


def test_a_device_is_predicted_as_another_of_its_kind_would_have_it(found):
    counts = found.groupby(["device", "standing"]).size()
    assert counts["h100-sxm", CARRIED] == counts["h100-sxm", CALIBRATED]  # by H200's parameters
    assert ("h100-sxm", NEVER_MEASURED) not in counts
    assert (
        counts["l20", CARRIED] == 700
    )  # L40S's parameters, as its file has them; no fit of its own, so all rows


def test_another_devices_parameters_leave_the_datasheet():
    swapped = with_parameters_of(load("h200-sxm"), load("h100-sxm"))
    assert swapped.hbm_bytes_per_s == load("h200-sxm").hbm_bytes_per_s
    assert swapped.start_s == load("h100-sxm").start_s
    assert swapped.parameters == load("h100-sxm").parameters
    assert not swapped.fitted


def test_the_tables_quantiles_are_those_of_the_residuals_and_every_row_is_there(found):
    made = table(found)
    pd.testing.assert_frame_equal(table(found), made)
    pooled = made[made.device == ""]
    assert len(pooled) == len(FAMILIES) * len(STANDINGS) * len(SIZES)
    measured_row = pooled[
        (pooled.family == "gemm") & (pooled.standing == CALIBRATED) & (pooled["size"] == SIZES[1])
    ]
    assert measured_row.basis.item().startswith("measured")
    assert measured_row.q95.item() == pytest.approx(1.645 * SPREAD, rel=0.2)
    assert measured_row.q05.item() == pytest.approx(-1.645 * SPREAD, rel=0.2)
    # Where nothing was measured, the calibrated ones stand in, never narrower.
    none = pooled[(pooled.family == "convolution") & (pooled.standing == NEVER_MEASURED)]
    assert none.basis.str.startswith("calibrated").all()
    assert (none.rows == 0).all()


def test_a_device_unlike_the_others_widens_what_holds_for_one_that_is_not_among_them(found):
    """Three devices of equal errors need next to nothing; one whose errors are three times as large needs more."""
    assert left_out(found[found.standing == CALIBRATED], CALIBRATED) < 1.15
    worse = found.assign(log_ratio=found.log_ratio * np.where(found.device == "h100-sxm", 3, 1))
    times = left_out(worse, CALIBRATED)
    assert times > 1.3
    made = table(worse)
    cell = made[
        (made.family == "gemm") & (made.standing == CALIBRATED) & (made["size"] == SIZES[1])
    ].set_index("device")
    own = worse[(worse.device == "h100-sxm") & (worse.standing == CALIBRATED) & (worse["size"] == SIZES[1])]
    assert cell.basis[""] == f"measured, times {times:g}"
    assert cell.basis["h100-sxm"] == "measured"  # its own are as they are
    assert cell.q95["h100-sxm"] == pytest.approx(own.log_ratio.quantile(0.95), abs=0.06)
    # The sum of what is inside and out, by hand: 9 of 10 on average over the devices.
    held = []
    for device, part in worse[(worse.standing == CALIBRATED)].groupby("device"):
        inside = []
        for size, mine in part.groupby("size"):
            others = worse[
                (worse.standing == CALIBRATED) & (worse["size"] == size) & (worse.device != device)
            ].log_ratio
            low, middle, high = (conformal_quantiles(others.to_numpy())[at] for at in (1, 4, 7))
            inside.append(
                mine.log_ratio.between(middle - times * (middle - low), middle + times * (high - middle))
            )
        held.append(pd.concat(inside).mean())
    assert np.mean(held) == pytest.approx(0.9, abs=0.01)


def test_each_halfs_intervals_cover_the_other(found):
    scores = cross_cover(found).set_index(["family", "standing"])
    row = scores.loc["gemm", CALIBRATED]
    assert 0.86 < row.nine_of_ten < 0.95
    assert 0.45 < row.half < 0.58
    assert row.half_width == pytest.approx(1.645 * SPREAD, rel=0.2)


def test_cover_counts_what_lies_within():
    assert cover([1.0, 1.3], [(0.8, 0.9, 1.1, 1.2), (0.9, 1.0, 1.2, 1.4)]) == (0.5, 1.0)
    assert cover([1.0], [(np.nan,) * 4]) == (0.0, 0.0)
