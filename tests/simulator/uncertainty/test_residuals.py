"""The table of residuals: quantiles that cover, standings, and what `predict` makes of them."""

import csv

import numpy as np
import pandas as pd
import pytest

import simtti
from simtti.errors import InputError
from simtti.hw_configs.devices import load
from simtti.simulator.predict import INTERVAL_COLUMNS, predict
from simtti.simulator.uncertainty.draws import family_seconds
from simtti.simulator.uncertainty.families import (
    BLOCK_SCALED,
    CALIBRATED,
    CARRIED,
    FAMILIES,
    NEVER_MEASURED,
    OPS,
    SCALED,
    SIZES,
    STANDINGS,
    UNFUSED,
    family_of_row,
)
from simtti.simulator.uncertainty.residuals import (
    LEVELS,
    NAMES,
    SHIPPED,
    Interval,
    conformal_quantiles,
    residuals,
    shipped,
)

ROWS = pd.DataFrame(
    {
        "op": ["gemm", "gemm", "group_norm", "gemm"],
        "dtype": ["fp16", "fp16", "fp16", "fp16"],
        "m": [4096, 16, None, None],
        "n": [4096, 1280, 2, 64],
        "k": [4096, 1280, None, 64],
        "c": [None, None, 320, None],
        "spatial": [None, None, 4096, None],
        "groups": [None, None, 32, None],
    }
)


def row(family="gemm", standing=CALIBRATED, size=SIZES[0], device="", quantiles=None, **others):
    values = np.zeros(len(LEVELS)) if quantiles is None else quantiles
    return {
        "family": family, "standing": standing, "size": size, "device": device, "rows": 100, "units": "hopper/wgmma",
        "least_us": "1", "most_us": "1000", **dict(zip(NAMES, values, strict=True)), **others,
    }  # fmt: skip


@pytest.mark.parametrize("count", [25, 80, 400])
def test_conformal_quantiles_cover_the_next_residual_as_often_as_they_say(count):
    """Over many samples of a skewed distribution: at least the share that each interval is for, and not much more."""
    random = np.random.RandomState(1)
    inside = {0.9: 0, 0.5: 0}
    for _ in range(2000):
        sample = random.gamma(2.0, 0.05, count) - 0.08
        found = dict(zip(LEVELS, conformal_quantiles(sample), strict=True))
        new = random.gamma(2.0, 0.05) - 0.08
        inside[0.9] += found[0.05] <= new <= found[0.95]
        inside[0.5] += found[0.25] <= new <= found[0.75]
    assert 0.88 < inside[0.9] / 2000 < 0.97
    assert 0.46 < inside[0.5] / 2000 < 0.58


def test_the_shipped_table_has_a_row_of_everything():
    known = shipped()
    for family in FAMILIES:
        for standing in STANDINGS:
            for size in SIZES:
                assert len(known.of_standing(family, standing, size, "nothing")) == len(LEVELS)
    assert set(OPS.values()) < set(FAMILIES)
    with SHIPPED.open() as file:
        assert sum(int(each["rows"]) for each in csv.DictReader(file)) > 5000


def test_a_family_stands_as_its_device_was_measured():
    known = shipped()
    assert known.standing(load("h200-sxm"), "convolution") == CALIBRATED
    assert known.standing(load("h100-sxm"), "convolution") == CARRIED  # H200's, the same architecture
    assert known.standing(load("a100-sxm"), "convolution") == NEVER_MEASURED
    assert known.standing(load("l40s"), "gemm") == CALIBRATED
    assert known.standing(load("l40"), "gemm") == CARRIED
    assert (
        known.standing(load("rtx-5090"), "gemm") == NEVER_MEASURED
    )  # of B200's name, not of its tensor cores
    assert known.standing(load("t4"), "attention") == NEVER_MEASURED


def test_a_file_with_a_base_was_not_measured_itself(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("base: h200-sxm\nname: mine\n")
    assert shipped().standing(load(str(path)), "gemm") == CARRIED


def test_a_devices_own_residuals_come_before_those_of_all():
    known = residuals(
        [row(quantiles=np.linspace(-1, 1, 9)), row(device="h100-sxm", quantiles=np.linspace(-0.1, 0.1, 9))],
        "table",
    )
    own, all_of_them = (known.factors(load(name), "gemm", 5.0) for name in ("h100-sxm", "h200-sxm"))
    assert own.p95 == pytest.approx(np.exp(0.075))
    assert all_of_them.p95 == pytest.approx(np.exp(0.75))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"standing": "guessed"}, "standing 'guessed'"),
        ({"q50": 3.0}, "do not fall"),
        ({"q01": "x"}, "numbers"),
    ],
)
def test_a_damaged_table_is_refused_with_the_row(changes, said):
    with pytest.raises(InputError, match=f"row 1: .*{said}"):
        residuals([row() | changes], "table")


def test_predict_has_the_columns_in_order_and_the_prediction_within():
    table = predict(ROWS, "h200-sxm", workers=1)
    done = table[table.error == ""]
    assert len(done) == 3
    p05, p25, p75, p95 = (done[f"{name}_us"] for name in Interval._fields)
    assert ((p05 < p25) & (p25 <= done.time_us) & (done.time_us <= p75) & (p75 < p95)).all()
    assert table[list(INTERVAL_COLUMNS[:4])].iloc[3].isna().all()  # the row without m
    pd.testing.assert_frame_equal(predict(ROWS, "h200-sxm", workers=1), table)
    without = predict(table, "h200-sxm", workers=1, interval=False)
    assert not set(INTERVAL_COLUMNS) & set(without.columns)
    assert list(without.time_us.dropna()) == list(done.time_us)


def test_a_worse_standing_is_a_wider_interval_and_says_so():
    tables = {name: predict(ROWS[:1], name, workers=1).iloc[0] for name in ("l40s", "rtx-5090", "h200-sxm")}
    width = {name: np.log(found.p95_us / found.p05_us) for name, found in tables.items()}
    assert width["h200-sxm"] < width["rtx-5090"]
    assert tables["rtx-5090"].warnings.startswith("no gemm timed on a GPU like rtx-5090 set a parameter")
    assert tables["h200-sxm"].warnings == tables["l40s"].warnings == ""


def test_attention_that_keeps_its_scores_in_memory_and_scales_by_blocks_are_families_of_their_own():
    assert (
        family_of_row("attention", "fp16", "baseline") == family_of_row("math_attention", "fp16") == UNFUSED
    )
    assert family_of_row("attention", "fp16", "flash-attention-2") == "attention"
    assert family_of_row("gemm", "fp8") == SCALED
    assert family_of_row("gemm", "nvfp4") == BLOCK_SCALED
    flash, math = (
        simtti.run("stable-diffusion", "h100-sxm", steps=2, fidelity="closed", attention=name)
        for name in ("flash", "math")
    )
    found = [{family for family, _ in family_seconds(each)} for each in (flash, math)]
    assert "attention" in found[0]
    assert UNFUSED not in found[0]
    assert UNFUSED in found[1]
    quantized = simtti.run("flux-dev", "b200-sxm", steps=1, fidelity="closed", quantization="mxfp8")
    assert BLOCK_SCALED in {family for family, _ in family_seconds(quantized)}


def test_a_shape_beyond_the_measured_ones_is_said_to_be():
    huge = ROWS[2:3].assign(c=4096, spatial=4_000_000)
    assert "outside" in predict(huge, "h200-sxm", workers=1).warnings.iloc[0]
