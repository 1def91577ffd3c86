"""Products in fewer bits: work counted right, formats' rates and bytes, tiles by the libraries' rules, accurate on measured rows."""

import numpy as np
import pandas as pd
import places
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simtti
from simtti.errors import InputError
from simtti.hw_configs import devices
from simtti.hw_configs.hardware import with_pytorch
from simtti.simulator.closed_form import lone_time_s
from simtti.simulator.kernel import ctas_per_sm
from simtti.simulator.kernels.quantize import Quantize, quantize
from simtti.simulator.kernels.scaled_gemm import ScaledGemm, scaled_gemm, tiles_of_format
from simtti.simulator.lowering.registry import kernels_of
from simtti.simulator.predict import operator_time_s, predict_rows
from simtti.validation.fit.families import in_training
from simtti.validation.judge.prediction import predicted_us

H100, B200, L40S, A100 = (devices.load(name) for name in ("h100-sxm", "b200-sxm", "l40s", "a100-sxm"))
GEMMS, QUANTIZED = (places.MEASURED / name for name in ("gemm_low_precision.parquet", "quantize.parquet"))
FORMATS = {
    H100: ("fp8", "fp8_block"),
    B200: ("fp8", "fp8_block", "mxfp8", "nvfp4"),
    L40S: ("fp8", "fp8_block", "int4"),
}
cases = st.sampled_from([(device, dtype) for device, dtypes in FORMATS.items() for dtype in dtypes])
sides = st.integers(1, 256).map(lambda count: 128 * count)
some = settings(max_examples=60, deadline=None, derandomize=True)


def product(m, n, k, dtype, device):
    return scaled_gemm(ScaledGemm(m, n, k, dtype), device)[-1]


@some
@given(st.integers(1, 9000), sides, sides, cases)
def test_work_is_the_problems_and_the_kernel_fits(m, n, k, case):
    device, dtype = case
    kernel = product(m, n, k, dtype, device)
    assert kernel.flops == 2 * m * n * k
    assert kernel.grid * kernel.tensor_flops >= kernel.flops
    assert ctas_per_sm(kernel, device) >= 1
    per_number = {
        "fp8": 1.0,
        "fp8_block": 1 + 4 / 128,
        "int4": 0.5 + 2 / 64,
        "mxfp8": 1 + 1 / 32,
        "nvfp4": 0.5 + 1 / 16,
    }[dtype]
    assert kernel.read_bytes == pytest.approx((m + n) * k * per_number)
    assert kernel.written_bytes == 2 * m * n
    assert kernel.flops / lone_time_s(kernel, device) < device.peak_flops(dtype)


def test_twice_the_rate_shows_on_large_products():
    times = {dtype: lone_time_s(product(8192, 8192, 8192, dtype, B200), B200) for dtype in ("fp8", "nvfp4")}
    assert 1.5 < times["fp8"] / times["nvfp4"] < 2.2
    half = kernels_of({"op": "gemm", "dtype": "bf16", "m": 8192, "n": 8192, "k": 8192}, H100)
    fp8 = lone_time_s(product(8192, 8192, 8192, "fp8", H100), H100)
    assert 1.3 < sum(lone_time_s(kernel, H100) for kernel in half) / fp8 < 2.2


@pytest.mark.parametrize(
    ("m", "n", "k", "tile"),
    [
        (16, 4096, 4096, (16, 64)),
        (64, 1280, 4096, (16, 64)),
        (64, 4096, 4096, (64, 64)),
        (128, 4096, 4096, (64, 128)),
        (4096, 4096, 4096, (128, 128)),
        (8192, 4096, 6144, (256, 128)),
    ],
)
def test_tiles_on_hopper_are_those_of_vllms_dispatch(m, n, k, tile):
    (found,) = tiles_of_format(m, n, k, "fp8", H100)
    assert (found.m, found.n) == tile


def test_scales_by_blocks_are_promoted_where_tensor_cores_cannot_apply_them():
    assert product(4096, 4096, 4096, "fp8_block", H100).issue_slots > 0
    assert product(4096, 4096, 4096, "fp8_block", B200).issue_slots == 0
    assert product(4096, 4096, 4096, "fp8", H100).issue_slots == 0


def test_a_layer_quantises_its_input_first_and_no_call_is_shorter_than_the_host():
    row = {"op": "gemm", "dtype": "fp8", "m": 4096, "n": 64, "k": 64}
    quantising, multiplying = kernels_of(row, H100)
    assert lone_time_s(quantising, H100) > lone_time_s(multiplying, H100)
    small = kernels_of({**row, "dtype": "fp8_block", "n": 128, "k": 128}, H100)
    assert operator_time_s(small, H100) == H100.scaled_host.blocks_s
    (alone,) = kernels_of({**row, "pytorch": "2.11"}, H100)
    assert alone.tensor_dtype == "fp8"


@pytest.mark.parametrize(
    ("device", "dtype"),
    [(A100, "fp8"), (A100, "fp8_block"), (H100, "nvfp4"), (H100, "mxfp8"), (L40S, "nvfp4"), (B200, "int4")],
)
def test_a_device_without_the_format_says_what_it_has(device, dtype):
    row = {"op": "gemm", "dtype": dtype, "m": 64, "n": 128, "k": 128}
    with pytest.raises(InputError, match=rf"no tensor-core path for dtype '{dtype}' \(it has: fp32, bf16"):
        kernels_of(row, device)
    (found,) = predict_rows([row], device)
    assert np.isnan(found.time_us)
    assert dtype in found.error


def test_energy_of_a_flop_falls_with_the_rate_and_fp16_stays():
    assert H100.tensor_j("bf16") == H100.tensor_j_per_flop
    assert H100.tensor_j("fp32") == H100.tensor_j_per_flop
    assert H100.tensor_j("fp8") == H100.tensor_j_per_flop / 2
    assert B200.tensor_j("nvfp4") == B200.tensor_j_per_flop / 4


@pytest.mark.parametrize("op", ["scale_matrix", "computescale"])
def test_quantisation_takes_no_less_for_more(op):
    rows = [{"op": op, "dtype": "fp8", "m": m, "k": k} for m in (1, 512, 16384) for k in (512, 8192, 65536)]
    times = np.array([found.time_us for found in predict_rows(rows, B200)]).reshape(3, 3)
    assert (times > 0).all()
    assert (np.diff(times, axis=0) > -0.3).all()
    assert (np.diff(times, axis=1) > 0).all()


def test_a_difference_is_of_the_two_kernels():
    row = {"dtype": "fp8", "m": 4096, "k": 8192}
    static, more = (
        predict_rows([{**row, "op": op}], H100)[0].time_us for op in ("scale_matrix", "computescale")
    )
    today = with_pytorch(H100, "2.11")
    dynamic = operator_time_s(kernels_of({**row, "op": "computescale"}, today), today) * 1e6
    assert static + more == pytest.approx(dynamic)


def test_short_rows_cost_their_share_of_an_sms_threads():
    """Two warps and more wait for each other's largest magnitude, one for nobody."""
    rows = [{"op": "computescale", "dtype": "fp8", "m": 8192, "k": k} for k in (32, 128, 256)]
    warp, four, eight = (found.time_us for found in predict_rows(rows, H100))
    assert warp < 1
    assert 3 * warp < four < 0.6 * eight


def quantised(device, m, k, passes):
    rows = Quantize(m, k, passes=passes, scale_every=k, strided=True)
    return quantize(rows, device.quantize_token if passes > 1 else device.quantize_static, device)


def test_a_row_is_read_again_from_l1_where_the_rows_of_an_sm_fit():
    once, fits, outgrows = (quantised(H100, 8192, k, 2) for k in (8192, 16384, 16400))
    assert once.l2_bytes == 3 * 8192 + 4  # two bytes of a number in, one out, and a scale
    assert fits.l2_bytes == 3 * 16384 + 4
    assert outgrows.l2_bytes == 5 * 16400 + 4


def test_the_first_wave_reads_before_it_divides_and_later_ones_do_both_at_once():
    short = quantised(H100, 1024, 8192, 2)  # in L2, in part: there is less to wait for
    long, longer = (quantised(H100, m, 8192, 2) for m in (8192, 16384))
    assert H100.quantize_token.start_share * H100.start_s < short.start_s < long.start_s
    assert long.start_s == pytest.approx(longer.start_s)
    assert quantised(H100, 16384, 8192, 1).start_s == H100.quantize_static.start_share * H100.start_s


@pytest.mark.skipif(not QUANTIZED.exists(), reason=f"no {QUANTIZED}")
@pytest.mark.parametrize(
    ("hw", "most"), [("h100-sxm", 0.15), ("h200-sxm", 0.14), ("b200-sxm", 0.2), ("l40s", 0.25)]
)
def test_measured_scales_of_the_held_out_half(hw, most):
    table = pd.read_parquet(QUANTIZED)
    table = table[(table.hw == hw) & (table.op == "computescale") & (table.time_us > 0)]
    table = table[~in_training(table)]
    error = np.abs(predicted_us(table, devices.load(hw), 1) / table.time_us - 1)
    assert error.mean() < most


@pytest.mark.skipif(not GEMMS.exists(), reason=f"no {GEMMS}")
@pytest.mark.parametrize(
    ("hw", "dtype", "most"),
    [
        ("h100-sxm", "fp8", 0.105), ("h100-sxm", "fp8_block", 0.085), ("h200-sxm", "fp8", 0.095),
        ("h200-sxm", "fp8_block", 0.08), ("b200-sxm", "fp8", 0.135), ("b200-sxm", "fp8_block", 0.065),
        ("b200-sxm", "nvfp4", 0.12), ("l40s", "fp8", 0.15), ("l40s", "fp8_block", 0.09),
    ],
)  # fmt: skip
def test_measured_products_of_the_held_out_half(hw, dtype, most):
    table = pd.read_parquet(GEMMS).assign(op="gemm")
    table = table[(table.hw == hw) & (table.dtype == dtype)].sample(800, random_state=1)
    table = table[~in_training(table)]
    error = np.abs(predicted_us(table, devices.load(hw), 1) / table.time_us - 1)
    assert error.mean() < most


@pytest.mark.skipif(not QUANTIZED.exists(), reason=f"no {QUANTIZED}")
@pytest.mark.parametrize(
    ("hw", "most"), [("h100-sxm", 0.04), ("h200-sxm", 0.04), ("b200-sxm", 0.055), ("l40s", 0.075)]
)
def test_measured_quantisation(hw, most):
    table = pd.read_parquet(QUANTIZED)
    table = table[(table.hw == hw) & (table.op == "scale_matrix")]
    table = table[~in_training(table)]
    error = np.abs(predicted_us(table, devices.load(hw), 1) / table.time_us - 1)
    assert error.mean() < most


def test_predict_answers_a_table_of_formats(tmp_path):
    rows = pd.DataFrame({"op": "gemm", "dtype": ["fp8", "fp8_block", "nvfp4"], "m": 256, "n": 512, "k": 1024})
    table = simtti.predict(rows, "b200-sxm", tmp_path / "out.csv", workers=1)
    assert (table.error == "").all()
    assert (table.time_us > 0).all()
