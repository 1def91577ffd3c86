"""Boards of the same chips beside each other, and beside rates that others measured on them."""

import pandas as pd
import pytest

from simtti.hw_configs import devices
from simtti.simulator.predict import predict


def tflops(hw, size, dtype="bf16", tf32=False):
    row = {"op": "gemm", "dtype": dtype, "m": size, "n": size, "k": size}
    return 2 * size**3 / predict(pd.DataFrame([row]), hw, tf32=tf32)["time_us"].iloc[0] / 1e6


# torch.matmul of 8,192 cubed, TFLOP/s: zzc0721/torch-performance-test-data, its issues 77, 78, 96, 104, 107, 120 and database.
# bf16 and, without TF32, fp32. H20 and A800 set no parameter.
PRODUCTS = {
    "rtx-5090": (234.9, 65.9),
    "rtx-5080": (102.9, 33.1),
    "rtx-4090": (160.2, 53.4),
    "rtx-3090": (76.6, 24.8),
    "rtx-a6000": (123.3, 23.9),
    "rtx-pro-6000": (409.0, 77.0),
    "rtx-pro-6000-workstation": (418.0, 77.2),
    "l20": (114.1, 35.9),
    "l4": (59.4, None),  # in fp32 at 72 W too fast by four fifths: not understood
    "h20": (138.6, 32.0),
    "a800-sxm": (266.5, 19.1),
}


@pytest.mark.parametrize("name", sorted(PRODUCTS))
def test_large_products_run_at_the_rates_that_others_measured(name):
    bf16, fp32 = PRODUCTS[name]
    assert tflops(name, 8192) == pytest.approx(bf16, rel=0.12)
    if fp32 is not None:
        assert tflops(name, 8192, "fp32") == pytest.approx(fp32, rel=0.20)


def test_what_has_more_of_everything_is_faster():
    """Large products and long streams; a chip that is cut for export is slower than the whole one."""
    for slower, faster in (
        ("rtx-3090", "rtx-4090"),
        ("rtx-4090", "rtx-5090"),
        ("rtx-5080", "rtx-5090"),
        ("rtx-5090", "rtx-pro-6000"),
        ("rtx-pro-6000", "rtx-pro-6000-workstation"),
        ("l4", "l20"),
        ("l20", "l40"),
        ("l40", "l40s"),
        ("a10g", "a10"),
        ("a100-pcie-40gb", "a100-sxm-40gb"),
        ("h20", "h100-pcie"),
        ("h100-pcie", "h100-nvl"),
        ("h100-nvl", "h100-sxm"),
        ("h200-nvl", "h200-sxm"),
        ("rtx-6000-ada", "l40s"),
    ):
        assert tflops(slower, 4096) < tflops(faster, 4096) * 1.001, (slower, faster)


def test_export_boards_are_the_whole_ones_but_for_their_links():
    row = pd.DataFrame([{"op": "gemm", "dtype": "bf16", "m": 4096, "n": 4096, "k": 4096}])
    for cut, whole in (("a800-sxm", "a100-sxm"), ("h800-sxm", "h100-sxm")):
        assert predict(row, cut)["time_us"].iloc[0] == predict(row, whole)["time_us"].iloc[0]
        assert devices.load(cut).link_bytes_per_s == 2.0e11 < devices.load(whole).link_bytes_per_s


def test_flash_attention_on_boards_of_half_the_tensor_rate():
    """RTX 4090: FlashAttention-2 at four head dims (TVM TileLang documents; batch and heads not said). RTX 5090: PyTorch's own
    at 400 W (gau-nernst, Writing Speed-of-Light Flash Attention for 5090), 187 TFLOP/s, which set nothing."""
    heads = {32: 32, 64: 32, 128: 16, 256: 8}
    measured = {32: 159.8, 64: 168.9, 128: 169.3, 256: 156.2}
    shape = {"op": "attention", "dtype": "fp16", "batch": 64, "q_len": 2048, "kv_len": 2048}
    rows = [shape | {"heads": heads[dim], "head_dim": dim, "kernel": "flash-attention-2"} for dim in heads]
    times_us = predict(pd.DataFrame(rows), "rtx-4090")["time_us"]
    for row, time_us in zip(rows, times_us, strict=True):
        flops = 4 * 64 * row["heads"] * 2048**2 * row["head_dim"]
        assert flops / time_us / 1e6 == pytest.approx(measured[row["head_dim"]], rel=0.10)
    row = shape | {"dtype": "bf16", "batch": 1, "heads": 8, "q_len": 4096, "kv_len": 8192, "head_dim": 128}
    time_us = predict(pd.DataFrame([row]), "rtx-5090")["time_us"].iloc[0]
    assert 4 * 8 * 4096 * 8192 * 128 / time_us / 1e6 == pytest.approx(186.7, rel=0.12)
