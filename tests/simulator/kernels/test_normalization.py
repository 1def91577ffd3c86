"""GroupNorm, LayerNorm and RMSNorm: kernels, and times that others measured."""

import pytest
from streams import A100, cold_s, pointwise, warm_us

from simtti.hw_configs.devices import load
from simtti.hw_configs.hardware import with_pytorch
from simtti.simulator.closed_form import lone_execution_s
from simtti.simulator.kernel import ctas_per_sm
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
    short = layer_norm(RowNorm(4096, 2048, "fp16"), A100)[0]
    long = layer_norm(RowNorm(4096, 8192, "fp16"), A100)[0]
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


# LayerNorms of fp32 in captures (torch 2.11): device, rows, columns, us.
WIDE = [("h200-sxm", 32760, 1536, 131.0), ("h100-sxm", 11440, 3072, 122.0)]


@pytest.mark.parametrize(("name", "rows", "columns", "us"), WIDE)
def test_layer_norm_of_fp32_waits_for_memory(name, rows, columns, us):
    """Wan 2.1 and 2.2: 39 registers a thread leave an SM 12 rows, not 16, and their loads wait for each other at HBM."""
    hardware = with_pytorch(load(name), "2.11")
    (wide,) = layer_norm(RowNorm(rows, columns, "fp32"), hardware)
    (half,) = layer_norm(RowNorm(rows, columns, "fp16"), hardware)
    assert (ctas_per_sm(wide, hardware), ctas_per_sm(half, hardware)) == (12, 16)
    assert warm_us([wide], hardware) == pytest.approx(us, rel=0.1)
    assert wide.unique_bytes / warm_us([wide], hardware) < 0.9e-6 * hardware.hbm_attained_bytes_per_s


def test_rows_in_flight_are_lost_before_their_second_pass():
    """RMSNorm of 5,120 columns, of which our own H100 holds fewer rows than our own H200, whose L2 is larger (torch 2.11)."""
    for name, us in (("h100-sxm", 317.3), ("h200-sxm", 199.3)):
        hardware = with_pytorch(load(name), "2.11")
        row = RowNorm(32768, 5120, "fp16", rms=True, cold=True, parameters=(2,))
        (kernel,) = layer_norm(row, hardware)
        assert cold_s([kernel], hardware) * 1e6 == pytest.approx(us, rel=0.12)
        (first,) = layer_norm(RowNorm(2048, 5120, "fp16", rms=True, cold=True, parameters=(2,)), hardware)
        assert kernel.hbm_reread_bytes > first.hbm_reread_bytes == 0


def test_weights_and_biases_cost_instructions():
    h100 = with_pytorch(load("h100-sxm"), "2.11")
    slots = [
        layer_norm(RowNorm(4096, 3072, "bf16", parameters=(1, 2)[:count]), h100)[0].issue_slots
        for count in range(3)
    ]
    assert slots[0] < slots[1] < slots[2]
    assert slots[2] - slots[1] == pytest.approx(slots[1] - slots[0])
