"""fp32 and bf16 where tensor cores take them, may take them, do not take them."""

import pandas as pd
import pytest

import simtti
from simtti.simulator.predict import predict
from simtti.simulator.sweep import sweep

PRODUCT = {"op": "gemm", "dtype": "fp32", "m": 8192, "n": 8192, "k": 8192}
CONVOLUTION = {"op": "conv2d", "dtype": "fp32", "n": 2, "c": 320, "h": 64, "w": 64, "oc": 320, "kh": 3, "kw": 3, "padding": 1}  # fmt: skip


def test_products_are_exact_unless_rounding_is_allowed_convolutions_never():
    rows = pd.DataFrame([PRODUCT, {**PRODUCT, "tf32": True}, CONVOLUTION])
    exact, stated, convolution = predict(rows, "a100-sxm", workers=1).time_us
    rounded, same, unmoved = predict(rows, "a100-sxm", tf32=True, workers=1).time_us
    assert exact > 4 * rounded
    assert stated == rounded == same
    assert convolution == unmoved
    # 57.3 ms on A100: zzc0721/torch-performance-test-data, 19.18 TFLOP/s.
    assert exact / 1e3 == pytest.approx(57.3, rel=0.1)


def test_the_switch_of_a_run_and_of_a_sweep(tmp_path):
    options = {"steps": 1, "dtype": "fp32", "fidelity": "closed"}
    exact = simtti.run("stable-diffusion", "a100-sxm", **options)
    rounded = simtti.run("stable-diffusion", "a100-sxm", tf32=True, **options)
    assert exact.latency_s > 1.1 * rounded.latency_s
    assert rounded.to_dict()["configuration"]["tf32"] is True
    points = pd.DataFrame(
        {
            "workload": "stable-diffusion",
            "hw": "a100-sxm",
            "steps": 1,
            "dtype": "fp32",
            "tf32": ["true", None, "maybe"],
        }
    )
    table = sweep(points, tmp_path / "out.csv", workers=1)
    assert list(table.latency_s[:2]) == pytest.approx([rounded.latency_s, exact.latency_s])
    assert "'tf32'" in table.error[2]


def test_bf16_on_volta_runs_on_the_cuda_cores_and_says_so():
    rows = pd.DataFrame([{**PRODUCT, "dtype": name} for name in ("fp16", "bf16")])
    half, bf16 = predict(rows, "v100-sxm", workers=1).time_us
    assert bf16 > 5 * half
    result = simtti.run("stable-diffusion", "v100-sxm", steps=1, dtype="bf16", fidelity="closed")
    assert "do not take bf16" in result.warnings[0]
    assert not simtti.run("stable-diffusion", "v100-sxm", steps=1, fidelity="closed").warnings
