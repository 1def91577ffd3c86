"""Calibration: it finds the parameters that made the data, says what the data cannot tell, and writes the same bytes."""

import numpy as np
import pandas as pd
import pytest
import yaml

from simtti.errors import InputError
from simtti.hw_configs import devices
from simtti.hw_configs.devices import load
from simtti.hw_configs.hardware import parameter, with_parameters
from simtti.validation.fit.calibrate import calibrate, write
from simtti.validation.fit.families import FitFamily, families, in_training
from simtti.validation.fit.solve import solve
from simtti.validation.judge.prediction import predicted_us

GEMMS = pd.DataFrame(
    [
        {"op": "gemm", "dtype": "bf16", "m": m, "n": n, "k": k, "hw": "h100-sxm", "source": "made"}
        for m in (16, 128, 600, 2048, 8192)
        for n in (512, 1280, 4096, 10240)
        for k in (320, 1280, 4096)
    ]
)


def made_on(device, noise=0.0):
    """GEMMS with the times that the model gives on `device`."""
    rows = GEMMS.assign(time_us=1.0)
    times = predicted_us(rows, device, workers=1)
    return rows.assign(time_us=times * np.exp(noise * np.sin(np.arange(len(rows)))))


@pytest.fixture(scope="module")
def changed():
    return with_parameters(load("h100-sxm"), {"hbm_efficiency": 0.7, "gemm_wgmma.setup_cycles": 1200.0})


def test_it_finds_the_parameters_that_made_the_data(changed):
    found = calibrate(
        "h100-sxm",
        made_on(changed),
        parameters=("hbm_efficiency", "gemm_wgmma.setup_cycles"),
        workers=1,
    )
    assert parameter(found.hardware, "hbm_efficiency") == pytest.approx(0.7, rel=0.02)
    assert parameter(found.hardware, "gemm_wgmma.setup_cycles") == pytest.approx(1200.0, rel=0.05)
    (fit,) = found.fits
    assert fit.test.mape < 0.01 < fit.before.mape


def test_what_the_data_do_not_touch_stays_and_has_no_interval(changed):
    found = calibrate("h100-sxm", made_on(changed), parameters=("hbm_efficiency", "gemm_mma.*"), workers=1)
    untouched = {item.name: item for item in found.fits[0].parameters if item.name.startswith("gemm_mma.")}
    assert untouched
    assert all(item.interval is None and item.value == item.before for item in untouched.values())


def test_to_keep_a_device_is_to_say_how_far_off_it_is(tmp_path, changed):
    found = calibrate("h100-sxm", made_on(changed), keep=True, workers=1)
    assert found.hardware.parameters == load("h100-sxm").parameters
    (fit,) = found.fits
    assert fit.parameters == ()
    assert fit.test.mape == fit.before.mape > 0.01
    write(found, tmp_path / "kept.yaml")
    kept = yaml.safe_load((tmp_path / "kept.yaml").read_text())
    assert "calibration" not in kept
    assert kept["fits"]["gemm"]["test_mape"] == fit.test.mape


def test_parameters_that_trade_off_are_named():
    # Time before the first byte and a CTA's prologue add up in every row of one wave.
    small = made_on(load("h100-sxm"), noise=0.03)
    small = small[(small.m <= 128) & (small.n <= 1280)]
    (fit,) = calibrate("h100-sxm", small, parameters=("start_s", "gemm_wgmma.setup_cycles"), workers=1).fits
    assert any("cannot be told apart" in text or "hardly identify" in text for text in fit.warnings())


def test_a_row_without_a_prediction_takes_no_part_and_is_counted(changed):
    rows = made_on(changed)
    # No m: the model has no time for them, whatever the parameters.
    lost = rows.iloc[:8].assign(m=0, k=range(100, 108), time_us=5.0)
    both = pd.concat([rows, lost], ignore_index=True)
    counted = int(in_training(both)[both.m == 0].sum())
    assert 0 < counted < 8
    (fit,) = calibrate("h100-sxm", both, parameters=("hbm_efficiency",), workers=1).fits
    (without,) = calibrate("h100-sxm", rows, parameters=("hbm_efficiency",), workers=1).fits
    assert fit.parameters == without.parameters
    assert (fit.unpredicted_rows, fit.used_rows) == (counted, without.used_rows)
    assert (fit.train.missing, fit.test.missing) == (counted, 8 - counted)
    said = f"training rows without a prediction, which took no part: {counted}"
    assert any(said in text for text in fit.warnings())
    assert not any("without a prediction" in text for text in without.warnings())


class LosesARow:
    """Rows of which one is far off and comes nearer with a lower hbm_efficiency, until below 0.6 it has no prediction."""

    def log_ratios(self, device):
        value = device.hbm_efficiency
        return np.array([0.02 * (value - 0.8)] * 8 + [value if value >= 0.6 else np.nan])


def test_parameters_do_not_gain_by_making_a_row_unpredictable():
    family = FitFamily("made", {}, ("hbm_efficiency",))
    start = with_parameters(load("h100-sxm"), {"hbm_efficiency": 0.8})
    found = solve(LosesARow(), start, family, ("hbm_efficiency",))
    assert found.unpredicted == 0
    assert 0.6 <= found.values["hbm_efficiency"] < 0.8


def test_the_same_data_give_the_same_file_and_it_loads(tmp_path, changed):
    texts = []
    for name in ("one", "two"):
        found = calibrate(
            "h100-sxm", made_on(changed), parameters=("hbm_efficiency",), workers=1 if name == "one" else 2
        )
        write(found, tmp_path / f"{name}.yaml")
        texts.append((tmp_path / f"{name}.yaml").read_text().replace(name, ""))
    assert texts[0] == texts[1]
    assert load(str(tmp_path / "one.yaml")).hbm_efficiency == found.hardware.hbm_efficiency


def test_an_existing_device_file_keeps_what_was_not_fitted(tmp_path, changed):
    path = tmp_path / "chip.yaml"
    path.write_text(
        "# A chip of mine\nbase: h100-sxm\nname: chip\ndatasheet:\n"
        "  sm_count:\n    value: 200\n    source: what if\n"
    )
    write(calibrate("h100-sxm", made_on(changed), parameters=("hbm_efficiency",), workers=1), path)
    assert path.read_text().startswith("# A chip of mine\n")
    assert load(str(path)).sm_count == 200
    entry = yaml.safe_load(path.read_text())["calibration"]["hbm_efficiency"]
    assert entry["status"] == "fitted"
    assert entry["interval"][0] <= entry["value"] <= entry["interval"][1]


def test_the_split_is_by_shape_not_by_device_or_order():
    rows = GEMMS.assign(time_us=1.0)
    split = in_training(rows)
    other = in_training(rows.iloc[::-1].assign(hw="a100-sxm", source="another", time_us=2.0))
    assert (split == other.sort_index()).all()
    assert 0.3 < split.mean() < 0.7


def test_no_measurement_of_the_device_is_an_error():
    with pytest.raises(InputError, match=r"no measurement of a100-sxm .*h100-sxm"):
        calibrate("a100-sxm", GEMMS.assign(time_us=1.0))
    with pytest.raises(InputError, match="unknown family 'gem'"):
        calibrate("h100-sxm", GEMMS.assign(time_us=1.0), only=("gem",))


def test_a_family_file_with_an_unknown_parameter_is_refused(tmp_path):
    path = tmp_path / "families.yaml"
    path.write_text("gemm: {rows: {op: gemm}, parameters: [hbm_eficiency]}\n")
    with pytest.raises(InputError, match=r"hbm_eficiency.*'hbm_efficiency'"):
        families(path)


def test_every_parameter_of_a_family_exists_on_every_device():
    for family in families():
        for name in family.parameters:
            for device in devices.names():
                assert parameter(load(device), name) >= 0
