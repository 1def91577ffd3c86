"""GroupNorm, LayerNorm and RMSNorm: kernels, and times that others measured."""

import pytest
from streams import A100, cold_s, pointwise

from simtti.hw_configs.devices import load
from simtti.simulator.closed_form import lone_execution_s
from simtti.simulator.kernels import layout
from simtti.simulator.kernels.normalization import GroupNorm, RowNorm, group_norm, layer_norm


def test_group_norm_of_a_vae_is_bound_by_32_ctas():
    """sgl-project/sglang#26045: GroupNorm(32) and SiLU of 1x512x16x90x160 take 3,468 us on Hopper."""
    hardware = load("h200-sxm")
    shape = (1, 512, 16 * 90 * 160)
    silu = pointwise(
        "silu", shape, [layout.dense(1, shape, "bf16")], layout.dense(4, shape, "bf16"), hardware
    )
    kernels = group_norm(GroupNorm(1, 512, shape[2], 32, "bf16"), hardware)
    assert [kernel.grid for kernel in kernels][:2] == [32, 2]
    assert cold_s([*kernels, *silu], hardware) == pytest.approx(3468e-6, rel=0.15)


def test_rms_norm_of_short_rows():
    """sgl-project/sglang#20632: PyTorch's RMSNorm of 4608x48 and 27030x24 rows of 128 takes 144 and 403 us on Hopper."""
    for rows, microseconds in ((4608 * 48, 144), (27030 * 24, 403)):
        kernels = layer_norm(RowNorm(rows, 128, "bf16", rms=True, parameters=(2,)), load("h200-sxm"))
        assert cold_s(kernels, load("h200-sxm")) == pytest.approx(microseconds * 1e-6, rel=0.15)


def test_layer_norm_reads_twice_what_l2_does_not_hold():
    short = layer_norm(RowNorm(4096, 4096, "fp16"), A100)[0]
    long = layer_norm(RowNorm(4096, 32768, "fp16"), A100)[0]
    assert short.hbm_reread_bytes == 0
    assert 0 < long.hbm_reread_bytes < long.reads[0].nbytes


def test_group_norm_of_channels_last_copies_first():
    nchw = group_norm(GroupNorm(2, 320, 4096, 32, "fp16"), A100)
    nhwc = group_norm(GroupNorm(2, 320, 4096, 32, "fp16", channels_last=True), A100)
    assert len(nhwc) == len(nchw) + 1
    assert cold_s(nhwc, A100) > cold_s(nchw, A100)


def test_moments_wait_for_l2_or_for_memory():
    """A chain of loads: on our own H200 warm moments of 512x128x128 take 120 us, by way of HBM 223."""
    h200 = load("h200-sxm")
    moments, *_ = group_norm(GroupNorm(1, 512, 128 * 128, 32, "fp16"), h200)
    warm, half, cold = (
        lone_execution_s(moments, h200, share * moments.unique_bytes) * 1e6 for share in (0.0, 0.5, 1.0)
    )
    assert warm == pytest.approx(120, rel=0.1)
    assert cold == pytest.approx(223, rel=0.1)
    assert warm < half < cold
