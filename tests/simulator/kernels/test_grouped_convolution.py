"""Grouped and depthwise convolutions: which kernels, closed forms, and those of Sana measured on our own H100."""

import dataclasses

import pytest
from convolutions import A100, H100, conv, figures, names, product

from simtti.hw_configs.devices import load
from simtti.hw_configs.hardware import with_pytorch
from simtti.simulator.closed_form import lone_execution_s
from simtti.validation.judge.prediction import warm_time_s

H200, NEW_H100 = load("h200-sxm"), with_pytorch(H100, "2.11")
LAST = {"layout": "nhwc", "dtype": "bf16"}

# Sana's decoder and denoiser, workloads/traces/measured/h100-sxm/sana-1.6b.parquet: samples, channels, side, size of the filter,
# groups, medians of all the operator's kernels but the bias's, in us.
GROUPED = [(1, 3072, 32, 1, 96, 521.5), (1, 3072, 64, 1, 96, 741.7), (1, 1536, 128, 1, 48, 512.8)]
DEPTHWISE = [
    (2, 11200, 32, 3, 11200, 69.9), (1, 8192, 32, 3, 8192, 24.6), (1, 8192, 64, 3, 8192, 95.6), (1, 4096, 128, 3, 4096, 178.7),
    (1, 3072, 32, 5, 3072, 26.6), (1, 3072, 64, 5, 3072, 89.5), (1, 1536, 128, 5, 1536, 165.4),
]  # fmt: skip


def build(row, hardware=NEW_H100, **options):
    n, c, side, size, groups = row[:5]
    options = {**LAST, "bias": False, **options}
    return conv(
        n, c, (side, side), c, (size, size), 1, size // 2, groups=groups, hardware=hardware, **options
    )


def time_us(kernels, hardware=NEW_H100):
    return sum(warm_time_s(kernel, hardware) for kernel in kernels) * 1e6


def test_groups_of_channels_last_tensors_come_one_after_another():
    kernels = build(GROUPED[0])
    assert names(kernels) == ["nhwcSliceCKernel", "cutlass", "nhwcSliceCKernel"] * 96
    assert sum(kernel.flops for kernel in kernels) == 2 * 32 * 32 * 3072 * 32
    taken, multiplied, put_back = kernels[:3]
    assert taken.grid == put_back.grid == 32 * 1024 // 512
    assert taken.writes[0] in multiplied.reads
    assert multiplied.writes == put_back.reads
    assert sum(kernel.reads[0].nbytes for kernel in kernels[::3]) == 2 * 3072 * 1024
    assert sum(kernel.writes[0].nbytes for kernel in kernels[2::3]) == 2 * 3072 * 1024


@pytest.mark.parametrize("options", [{"layout": "nchw"}, {"dtype": "fp32"}, {"hardware": H100}])
def test_other_groups_are_one_kernels(options):
    assert not any("SliceC" in kernel.name for kernel in build(GROUPED[0], **options))


def test_few_channels_of_a_group_are_no_vectors_and_stay_one_kernels():
    kernels = conv(1, 96, (32, 32), 96, (1, 1), groups=32, hardware=NEW_H100, bias=False, **LAST)
    assert not any("SliceC" in kernel.name for kernel in kernels)


def test_enough_positions_take_the_tall_tile():
    assert [product(build(row)).grid for row in GROUPED] == [1024 // 64, 4096 // 256, 16384 // 256]


def test_grouped_times_of_sana():
    error, bias = figures([time_us(build(row)) for row in GROUPED], [row[-1] for row in GROUPED])
    assert error < 0.06
    assert abs(bias) < 0.04


@pytest.mark.parametrize("hardware", [A100, H200, NEW_H100])
def test_channels_last_depthwise_is_cudnns_and_its_bias_another_kernel(hardware):
    row = DEPTHWISE[1]
    kernels = build(row, hardware, bias=True)
    assert [kernel.name.split("<")[0] for kernel in kernels] == ["conv2d_c1_k1_nhwc", "elementwise_kernel"]
    assert kernels[0].grid == 8192 * 32 * 32 // 1024
    assert kernels[0].flops == 2 * 8192 * 32 * 32 * 9
    assert names(build(row, hardware, layout="nchw", bias=True)) == ["conv"]


@pytest.mark.parametrize(("size", "registers"), [(3, 40), (5, 80), (7, 128)])
def test_registers_of_depthwise_filters_as_captured(size, registers):
    assert registers - 8 < build((1, 64, 32, size, 64))[0].registers <= registers


def test_depthwise_times_of_sana():
    error, bias = figures([time_us(build(row)) for row in DEPTHWISE], [row[-1] for row in DEPTHWISE])
    assert error < 0.07
    assert abs(bias) < 0.03


@pytest.mark.parametrize("field", ["sm_count", "clock_hz", "hbm_bytes_per_s", "l2_bytes_per_s"])
def test_never_slower_on_more_of_anything(field):
    larger = dataclasses.replace(NEW_H100, **{field: 2 * getattr(NEW_H100, field)})
    for row in (*GROUPED[:1], *DEPTHWISE):
        kernels = build(row)
        slow, fast = (sum(lone_execution_s(each, hw) for each in kernels) for hw in (NEW_H100, larger))
        assert fast <= slow * 1.001
