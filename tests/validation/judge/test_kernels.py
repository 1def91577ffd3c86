"""What is said of the model's error on kernels: the split, the baseline, the noise, the bottleneck."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import yaml

from simtti.errors import InputError
from simtti.hw_configs.devices import load
from simtti.simulator.closed_form import lone_time_s
from simtti.simulator.kernel import Kernel, ctas_per_sm
from simtti.simulator.lowering.registry import FAMILIES, kernels_of
from simtti.simulator.predict import predict
from simtti.validation.fit.calibrate import calibrate
from simtti.validation.fit.families import in_training
from simtti.validation.judge.causes import LATENCY, PARTIAL_WAVE, causes
from simtti.validation.judge.kernels import SIZES, evaluate, explain, size_class, size_order
from simtti.validation.judge.prediction import predicted_us, time_us, times_us
from simtti.validation.judge.roofline import roofline_s
from simtti.validation.measurements.check import check
from simtti.validation.measurements.table import shape_of

H100 = load("h100-sxm")
GEMM = {"op": "gemm", "dtype": "bf16", "m": 4096, "n": 4096, "k": 4096}


def measurements(*rows, **everywhere):
    common = {"hw": "h100-sxm", "source": "one", "what_is_timed": "back-to-back", "time_us": 10.0}
    return check(pd.DataFrame([{**common, **GEMM, **row, **everywhere} for row in rows]), "a test")


def causes_of(hardware=H100, **row):
    return causes(kernels_of({**GEMM, **row}, hardware), hardware)


def test_what_is_timed_decides_what_is_predicted():
    shape = {"m": 16, "n": 4096, "k": 2048}
    rows = measurements(shape, {**shape, "what_is_timed": "kernels"}, {**shape, "what_is_timed": "wall"})
    launched, kernels, wall = predicted_us(rows, H100)
    assert launched == pytest.approx(predict(rows.iloc[:1], H100).time_us[0])
    # No launch gap, and 17 MB of operands come from L2.
    assert kernels < launched - 1e6 * H100.launch_s
    assert wall == launched


def test_operands_too_large_for_l2_come_from_hbm_in_a_profile_too():
    large = {"op": "copy", "numel": 1 << 28, "m": None, "n": None, "k": None}
    launched, kernels = predicted_us(measurements(large, {**large, "what_is_timed": "kernels"}), H100)
    assert launched - kernels == pytest.approx(1e6 * H100.launch_s, abs=0.01)


def test_roofline_is_the_datasheet_and_nothing_else():
    flops = 2 * 4096**3 / H100.peak_flops("bf16")
    assert roofline_s(GEMM, H100) == pytest.approx(flops)
    copy = {"op": "copy", "dtype": "fp32", "numel": 10**9}
    assert roofline_s(copy, H100) == pytest.approx(8e9 / 3.35e12)
    convolution = {"op": "conv2d", "dtype": "fp16", "n": 2, "c": 64, "h": 32, "w": 32, "oc": 64, "kh": 3, "kw": 3,
                   "padding": 1}  # fmt: skip
    cat = {"op": "cat", "dtype": "fp16", "n": 2, "c": 3, "c2": 5, "spatial": 10**8}
    assert roofline_s(cat, H100) == pytest.approx(2 * 2 * 2 * 8 * 1e8 / 3.35e12)
    elements = 2 * (2 * 64 * 32 * 32) + 64 * 64 * 9
    assert roofline_s(convolution, H100) == pytest.approx(2 * elements / 3.35e12)
    half = replace(H100, tensor_efficiency=0.5)
    assert roofline_s(GEMM, half) == pytest.approx(flops)


@pytest.mark.parametrize(
    ("row", "bottleneck"),
    [
        ({"m": 8192, "n": 8448, "k": 8192}, "tensor cores"),
        ({"m": 1, "n": 16384, "k": 16384}, "HBM"),
        ({"m": 16, "n": 64, "k": 64}, LATENCY),
        ({"op": "copy", "numel": 1 << 28}, "HBM"),
    ],
)
def test_the_bottleneck_of_kernels_that_have_an_obvious_one(row, bottleneck):
    assert causes_of(**row).bottleneck == bottleneck


def test_one_cta_more_than_a_wave_is_a_partial_wave():
    kernel = Kernel("made", "gemm", grid=1, tensor_flops=1e9, shared_memory_bytes=200_000)
    slots = ctas_per_sm(kernel, H100) * H100.sm_count
    full = causes([replace(kernel, grid=slots)], H100)
    over = causes([replace(kernel, grid=slots + 1)], H100)
    assert full.partial_wave_share == 0
    assert over.partial_wave_share == pytest.approx(0.5, abs=0.05)
    assert causes([kernel], H100).bottleneck == PARTIAL_WAVE  # one CTA, the other SMs idle
    assert (over.waves, over.last_wave_fill) == (2, pytest.approx(1 / slots))


def test_launch_share_is_of_the_kernels_own_time():
    (kernel,) = kernels_of({**GEMM, "m": 16, "n": 64, "k": 64}, H100)
    fixed = H100.launch_s + H100.start_s
    assert causes([kernel], H100).launch_share == pytest.approx(fixed / lone_time_s(kernel, H100))


def test_rows_of_no_family_get_the_name_of_their_op_and_wall_times_are_not_scored():
    softmax = {"op": "softmax", "rows": 1024, "cols": 1024, "m": None, "n": None, "k": None}
    found = evaluate("h100-sxm", measurements({}, softmax, {"what_is_timed": "wall"}), workers=1)
    assert found.table.family.tolist() == ["gemm", "softmax", "gemm"]
    assert (len(found.scored), len(found.shown_apart)) == (2, 1)
    gemm, softmax_split, _ = found.table.split
    assert softmax_split == "unseen"
    assert gemm in ("train", "test"), "the device's file says that GEMMs were fitted"


def test_only_families_whose_fit_the_device_file_records_have_a_split(tmp_path):
    shapes = [{"m": m, "n": n} for m in (64, 128, 256, 512) for n in (128, 384, 1024, 4096)]
    softmax = {"op": "softmax", "rows": 1024, "cols": 1024, "m": None, "n": None, "k": None}
    table = measurements(*shapes, softmax)
    fit = {"used_rows": 1, "train_rows": 1, "test_rows": 1, "train_mape": 0.1, "test_mape": 0.1, "test_bias": 0.0,
           "data_sha256": "0"}  # fmt: skip
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"base": "h100-sxm", "name": "mine", "fits": {"gemm": fit}}))
    found = evaluate(str(path), table, workers=1)
    assert found.measured_as == "h100-sxm"  # the same datasheet
    gemm = found.table[found.table.family == "gemm"]
    assert set(gemm.split) == {"train", "test"}
    assert (gemm.split == "train").tolist() == in_training(table[table.op == "gemm"]).tolist()
    assert found.table[found.table.family == "softmax"].split.tolist() == ["unseen"]


def test_the_split_of_a_shape_does_not_depend_on_what_else_the_table_holds():
    gemms = measurements(*({"m": m} for m in range(1, 60)))
    alone = gemms[["op", "dtype", "m", "n", "k", "hw", "time_us", "source", "what_is_timed"]]
    assert (in_training(gemms) == in_training(alone)).all()
    assert 0.2 < in_training(alone).mean() < 0.8


def test_wall_times_do_not_take_part_in_a_fit():
    with pytest.raises(InputError, match="no measurement of h100-sxm belongs to"):
        calibrate("h100-sxm", measurements({"m": 64}, {"m": 128}, what_is_timed="wall"), workers=1)


def test_noise_is_between_sources_of_the_same_call_on_the_same_device():
    table = measurements(
        {"time_us": 10.0},
        {"time_us": 12.0, "source": "two"},
        {"time_us": 11.0},  # the same source again: no second opinion
        {"time_us": 5.0, "source": "two", "m": 64},
        {"time_us": 7.0, "source": "two", "what_is_timed": "kernels"},
        {"time_us": 20.0, "source": "two", "hw": "a100-sxm"},
    )
    other = evaluate("h100-sxm", table, workers=1).table.other_us.to_numpy()
    assert other[:3] == pytest.approx([12.0, np.sqrt(10 * 11), 12.0])
    assert np.isnan(other[3:]).all()


def test_a_size_class_goes_by_the_measured_time():
    classes = [size_class(time) for time in (0.5, 9.99, 10.0, 99.9, 100.0, 2e5)]
    assert classes == [name for name in SIZES for _ in range(2)]
    assert [size_order(name) for name in SIZES] == [0, 1, 2]


def test_a_row_is_shown_under_its_group_and_split_by_its_fit(tmp_path):
    fit = {"used_rows": 1, "train_rows": 1, "test_rows": 1, "train_mape": 0.1, "test_mape": 0.1, "test_bias": 0.0,
           "data_sha256": "0"}  # fmt: skip
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"base": "h100-sxm", "name": "mine", "fits": {"gemm": fit}}))
    softmax = {"op": "softmax", "rows": 1024, "cols": 1024, "m": None, "n": None, "k": None}
    table = measurements({"group": "attention_parts"}, {}, {**softmax, "group": "attention_parts"})
    found = evaluate(str(path), table, workers=1).table
    assert found.family.tolist() == ["attention_parts", "gemm", "attention_parts"]
    assert found.fit.tolist() == ["gemm", "gemm", "softmax"]
    assert found.split[0] == found.split[1] != "unseen"
    assert found.split[2] == "unseen"


def test_explanations_name_what_is_unusual_about_a_row():
    rows = [{"m": 1024, "n": 1024, "k": k} for k in (512, 1024, 2048)] * 20
    table = evaluate(
        "h100-sxm",
        measurements(
            *rows, {"m": 16, "n": 321, "k": 64, "time_us": 0.2}, {"m": 300, "n": 512, "time_us": 1.0}
        ),
        workers=1,
    ).table
    odd, quick = (explain(row, table) for row in table.iloc[-2:].to_dict("records"))
    for text in (
        "launch",
        "below the launch floor",
        "n 321 is no multiple of 8",
        "m 16 is among the smallest",
    ):
        assert text in odd
    assert "measured faster than the roofline" in quick


def test_a_row_without_a_prediction_keeps_its_place_and_its_reason():
    found = evaluate(
        "h100-sxm", measurements({}, {"batch": 0.5 + 0.5}, {"dtype": ""} | {"dtype": "fp16"}), workers=1
    )
    assert (found.table.error == "").all()
    row = found.table.iloc[0].to_dict() | {"error": "column 'm' is empty"}
    assert explain(row, found.table) == "no prediction: column 'm' is empty"


def test_a_device_that_nobody_measured_is_an_error():
    with pytest.raises(InputError, match=r"no measurement of a kernel on a100-sxm; the table has: h100-sxm"):
        evaluate("a100-sxm", measurements({}))


def test_every_op_that_predict_knows_can_be_measured_and_has_a_roofline():
    for op, family in FAMILIES.items():
        dtype = "fp16" if not family.dtypes or "fp16" in family.dtypes else family.dtypes[0]
        row = {"op": op, "dtype": dtype, **dict.fromkeys(shape_of(op).needed, 64)}
        assert roofline_s(row, H100) > 0


def test_predictions_key_on_no_row_of_the_data():
    """Labels and order change nothing, and a shape one larger takes about as long, but at the edges of tiles and waves."""
    import numpy as np
    import pandas as pd

    from simtti.simulator.predict import predict

    generator = np.random.default_rng(5)
    shapes = (
        pd.DataFrame(2 ** generator.uniform(5, 13, (150, 3)), columns=["m", "n", "k"]).round().astype(int)
    )
    shapes[["n", "k"]] = (shapes[["n", "k"]] + 7) // 8 * 8  # rows of whole 16 bytes, as all in the data
    rows = shapes.assign(op="gemm", dtype="bf16", hw="h100-sxm", source="one")
    times = predict(rows, "h100-sxm", workers=1).time_us
    mixed = rows.sample(frac=1, random_state=3).assign(hw="a100-sxm", source="another")
    shuffled = predict(mixed, "h100-sxm", workers=1).time_us
    assert (shuffled.sort_index() == times).all()
    larger = predict(rows.assign(m=rows.m + 1), "h100-sxm", workers=1).time_us
    steps = np.abs(np.log(larger / times))
    assert steps.median() < 0.01
    assert steps.quantile(0.9) < 0.1
    assert steps.max() < 0.5


def test_rows_in_columns_take_what_each_takes_alone():
    sizes = [(1 + 37 * n, 64 * n + 64, 8 * n + 8) for n in range(60)]
    rows = [
        {"op": "gemm", "dtype": "fp16", "m": m, "n": n, "k": k, "what_is_timed": what}
        for m, n, k in sizes
        for what in ("back-to-back", "kernels")
    ]
    rows[0] |= {"m": -1}
    rows[2] |= {"pytorch": "none such"}
    device = load("h200-sxm")
    found = times_us(rows, device)
    assert list(map(repr, found)) == [repr(time_us(row, device)) for row in rows]
    assert sum(math.isnan(each) for each in found) == 2
