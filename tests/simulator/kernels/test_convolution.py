"""Convolution: analytic counts, monotony, layouts, and the kernels measured on an H100."""

import ast
import dataclasses
import json

import numpy as np
import pandas as pd
import places
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtti.hw_configs.devices import load
from simtti.simulator.closed_form import lone_time_s
from simtti.simulator.kernels.convolution import convolution, output_size
from simtti.simulator.kernels.data_movement import copy
from simtti.simulator.kernels.layout import Operand, dense

MEASURED = places.MEASURED
H100, A100 = load("h100-sxm"), load("a100-sxm")


def conv(n, c, spatial, oc, kernel, stride=1, padding=0, groups=1, dtype="fp16", hardware=H100, **options):
    rank = len(spatial)
    return convolution(
        n,
        c,
        spatial,
        oc,
        kernel,
        (stride,) * rank,
        (padding,) * rank,
        (1,) * rank,
        groups,
        dtype,
        hardware,
        **options,
    )


def warm_us(kernels, hardware):
    """Durations as a profiler gives them: without the gap between kernels, operands that fit found in L2."""
    return (
        sum(
            lone_time_s(kernel, hardware, 0.0 if kernel.unique_bytes <= hardware.l2_usable_bytes else None)
            - hardware.launch_s
            for kernel in kernels
        )
        * 1e6
    )


def time_s(kernels, hardware):
    return sum(lone_time_s(kernel, hardware) for kernel in kernels)


def names(kernels):
    return [kernel.name.split("<")[0].split("_")[0] for kernel in kernels]


shapes = st.tuples(
    st.integers(1, 8),
    st.sampled_from([3, 4, 16, 64, 96, 320, 512]),
    st.sampled_from([(8, 8), (33, 17), (64, 64), (3, 16, 16)]),
    st.sampled_from([3, 4, 32, 64, 320, 384]),
    st.sampled_from([1, 3]),
    st.sampled_from([1, 2]),
)


def build(shape, hardware=H100, **options):
    n, c, spatial, oc, size, stride = shape
    return conv(n, c, spatial, oc, (size,) * len(spatial), stride, size // 2, hardware=hardware, **options)


@given(shapes, st.sampled_from(["nchw", "nhwc"]), st.sampled_from([H100, A100]))
@settings(deadline=None, max_examples=60)
def test_flops_and_unique_bytes_are_the_analytic_count(shape, layout, hardware):
    n, c, spatial, oc, size, stride = shape
    kernels = build(shape, hardware, layout=layout, bias=False)
    out = [output_size(each, size, stride, size // 2, 1, False) for each in spatial]
    flops = 2 * n * oc * c * size ** len(spatial) * np.prod(out)
    assert sum(kernel.flops for kernel in kernels) == pytest.approx(flops)
    read = {
        access.tensor: access.nbytes for kernel in kernels for access in kernel.reads if access.tensor >= 0
    }
    written = {
        access.tensor: access.nbytes for kernel in kernels for access in kernel.writes if access.tensor >= 0
    }
    assert read == {0: 2 * n * c * np.prod(spatial), 1: 2 * oc * c * size ** len(spatial)}
    assert written == {3: pytest.approx(2 * n * oc * np.prod(out))}
    done = sum(kernel.grid * kernel.tensor_flops for kernel in kernels)
    assert done >= flops


@given(shapes, st.sampled_from(["fp16", "fp32"]), st.sampled_from(range(4)))
@settings(deadline=None, max_examples=60)
def test_workspaces_are_written_before_they_are_read(shape, dtype, device):
    seen = set()
    for kernel in build(shape, (H100, A100, V100, B200)[device], dtype=dtype):
        assert {access.tensor for access in kernel.reads if access.tensor < 0} <= seen
        seen |= {access.tensor for access in kernel.writes}


@given(
    shapes, st.sampled_from(["hbm_bytes_per_s", "l2_bytes_per_s", "clock_hz"]), st.sampled_from([H100, A100])
)
@settings(deadline=None, max_examples=60)
def test_a_faster_device_is_never_slower(shape, field, hardware):
    faster = dataclasses.replace(hardware, **{field: getattr(hardware, field) * 1.5})
    slow, fast = time_s(build(shape, hardware), hardware), time_s(build(shape, faster), faster)
    assert fast <= slow * 1.001


@given(shapes, st.sampled_from([H100, A100]))
@settings(deadline=None, max_examples=40)
def test_the_same_kernels_are_never_slower_on_more_sms(shape, hardware):
    wider = dataclasses.replace(hardware, sm_count=hardware.sm_count * 2)
    kernels = build(shape, hardware)
    assert time_s(kernels, wider) <= time_s(kernels, hardware) * 1.001


@given(shapes.filter(lambda shape: shape[4] > 1), st.sampled_from([H100, A100]))
@settings(deadline=None, max_examples=60)
def test_nchw_is_never_faster_than_nhwc(shape, hardware):
    nchw = time_s(build(shape, hardware, layout="nchw", bias=False), hardware)
    nhwc = time_s(build(shape, hardware, layout="nhwc", bias=False), hardware)
    assert nchw >= nhwc


def test_nchw_wraps_the_tensor_core_kernel_in_conversions():
    kernels = conv(2, 320, (64, 64), 320, (3, 3), padding=1, hardware=A100)
    assert names(kernels) == [
        "nchwToNhwcKernel",
        "nchwToNhwcKernel",
        "sm80",
        "nhwcToNchwKernel",
        "elementwise",
    ]


def test_nhwc_has_only_the_bias_beside():
    kernels = conv(2, 320, (64, 64), 320, (3, 3), padding=1, hardware=A100, layout="nhwc")
    assert names(kernels) == ["sm80", "elementwise"]


def test_three_channels_are_padded_and_take_whole_k_steps():
    kernels = conv(4, 3, (224, 224), 768, (16, 16), stride=16)
    assert names(kernels)[:2] == ["Memset", "nchwToNhwcKernel"]
    assert (
        max(kernel.tensor_flops * kernel.grid / max(kernel.flops, 1) for kernel in kernels if kernel.flops)
        > 8
    )


def test_depthwise_runs_on_the_cuda_cores():
    kernels = conv(2, 256, (32, 32), 256, (3, 3), padding=1, groups=256, bias=False)
    assert [kernel.tensor_flops for kernel in kernels] == [0.0]
    assert kernels[0].flops == 2 * 2 * 256 * 32 * 32 * 9


def test_transposed_convolution_counts_each_product_once():
    kernels = conv(1, 64, (32, 32), 32, (4, 4), stride=2, padding=1, transposed=True, bias=False)
    assert sum(kernel.flops for kernel in kernels) == 2 * 32 * 32 * 16 * 64 * 32


# The SM of a V100 as far as it decides which kernels run: no TF32, little shared memory.
V100 = dataclasses.replace(
    A100, name="volta", architecture="volta", sm_count=80, clock_hz=1.53e9, tensor_fp16_flops_per_cycle_sm=1024.0,
    tensor_tf32_flops_per_cycle_sm=0.0, shared_memory_per_sm_bytes=98304, l2_capacity_bytes=6291456.0,
    l2_bytes_per_s=3.1e12, hbm_bytes_per_s=9.0e11,
)  # fmt: skip
B200 = dataclasses.replace(
    H100, name="blackwell", architecture="blackwell", sm_count=148, tensor_fp16_flops_per_cycle_sm=8192.0,
    l2_bytes_per_s=1.4e13, hbm_bytes_per_s=8.0e12,
)  # fmt: skip


def product(kernels):
    """The kernel that does the FLOPs."""
    return max(kernels, key=lambda kernel: kernel.flops)


def test_fp32_without_tf32_reads_nchw_as_it_lies():
    kernels = conv(2, 320, (64, 64), 640, (1, 1), dtype="fp32", hardware=V100, bias=False)
    assert names(kernels) == ["scudnn"]
    kernels = conv(2, 3, (224, 224), 64, (7, 7), 2, 3, dtype="fp32", hardware=V100, bias=False)
    assert names(kernels) == ["scudnn"]
    done, useful = kernels[0].grid * kernels[0].fp32_flops, kernels[0].flops
    assert done < 3 * useful  # channels are not padded to a k step per tap


def test_fp32_winograd_does_fewer_products_where_it_can():
    kernels = conv(32, 128, (28, 28), 128, (3, 3), 1, 1, dtype="fp32", hardware=V100, bias=False)
    assert any("winograd" in kernel.name for kernel in kernels)
    multiplications = sum(kernel.grid * kernel.fp32_flops for kernel in kernels)
    assert multiplications < sum(kernel.flops for kernel in kernels)
    for other in (
        conv(32, 128, (28, 28), 128, (3, 3), 2, 1, dtype="fp32", hardware=V100, bias=False),
        conv(32, 128, (28, 28), 128, (5, 5), 1, 2, dtype="fp32", hardware=V100, bias=False),
        conv(32, 128, (28, 28), 128, (3, 3), 1, 1, dtype="fp32", hardware=A100, bias=False),
        conv(32, 128, (28, 28), 128, (3, 3), 1, 1, dtype="fp16", hardware=V100, bias=False),
    ):
        assert not any("winograd" in kernel.name for kernel in other)


def test_half_precision_on_volta_writes_nchw_itself():
    assert names(conv(2, 320, (64, 64), 320, (3, 3), 1, 1, hardware=V100, bias=False))[-1] == "sm80"


def test_filters_of_one_tap_need_no_conversion():
    kernels = conv(2, 320, (64, 64), 640, (1, 1), 2, hardware=A100, bias=False)
    assert names(kernels) == ["nchwToNhwcKernel", "sm80", "nhwcToNchwKernel"]


def test_blackwell_pairs_share_their_filters():
    shape = (2, 640, (64, 64), 640, (3, 3), 1, 1)
    kernel = product(conv(*shape, hardware=B200, layout="nhwc", bias=False))
    assert kernel.name.startswith("sm100")
    assert time_s([kernel], B200) < time_s(conv(*shape, layout="nhwc", bias=False), H100)


# Kernels in microseconds. VGG-13 training in TF32 on an H100, forward (sarchlab/triosim, MIT): samples, channels, size,
# output channels, the sm90 kernel.
VGG = [
    (512, 64, 224, 64, 8803, "256x64"),
    (512, 128, 112, 128, 4864, "128x128"),
    (512, 256, 56, 256, 4228, "128x256"),
    (512, 256, 28, 512, 2110, "128x256"),
    (512, 512, 28, 512, 4064, "128x256"),
    (512, 512, 14, 512, 1033, "128x256"),
]
# ResNet-50 training in fp32 on a V100, forward (pytorch/kineto, BSD-3): channels, size, output channels, kernel, stride,
# padding, all the operator's kernels. 32 samples.
RESNET = [
    (3, 224, 64, 7, 2, 3, 606), (64, 56, 64, 1, 1, 0, 98), (64, 56, 64, 3, 1, 1, 352), (64, 56, 256, 1, 1, 0, 312),
    (256, 56, 64, 1, 1, 0, 274), (128, 56, 128, 3, 2, 1, 535), (128, 28, 512, 1, 1, 0, 378),
    (256, 56, 512, 1, 2, 0, 504), (512, 28, 128, 1, 1, 0, 364), (128, 28, 128, 3, 1, 1, 306),
    (256, 28, 256, 3, 2, 1, 642), (256, 14, 1024, 1, 1, 0, 355), (512, 28, 1024, 1, 2, 0, 720),
    (256, 14, 256, 3, 1, 1, 291), (512, 14, 512, 3, 2, 1, 896), (512, 7, 2048, 1, 1, 0, 383),
    (1024, 14, 2048, 1, 2, 0, 714), (2048, 7, 512, 1, 1, 0, 435), (512, 7, 512, 3, 1, 1, 310),
]  # fmt: skip


def test_tf32_on_hopper_takes_the_traced_tiles_and_times():
    predicted = []
    for n, c, size, oc, _, tile in VGG:
        kernel = product(conv(n, c, (size, size), oc, (3, 3), 1, 1, dtype="fp32", bias=False))
        assert f"sm90_{tile}x" in kernel.name
        predicted.append(warm_us([kernel], H100))
    error, bias = figures(predicted, [row[4] for row in VGG])
    assert error < 0.07
    assert abs(bias) < 0.05


def test_fp32_on_volta():
    predicted = [
        warm_us(conv(32, c, (size, size), oc, (k, k), s, p, dtype="fp32", hardware=V100, bias=False), V100)
        for c, size, oc, k, s, p, _ in RESNET
    ]
    error, bias = figures(predicted, [row[-1] for row in RESNET])
    assert error < 0.16
    assert abs(bias) < 0.05


def measured():
    path = MEASURED / "operators_h100.csv"
    if not path.exists():
        pytest.skip(f"{path} is not here: accuracy is checked only beside the shared measurements")
    data = pd.read_csv(path)
    return data[data.op == "aten::convolution"]


def figures(predicted, actual):
    predicted, actual = np.array(predicted), np.array(actual)
    return np.abs(predicted / actual - 1).mean(), np.exp(np.log(predicted / actual).mean()) - 1


def test_accuracy_on_h100_operators():
    """29 shapes of Wan2.1's VAE and of three vision transformers: kernel-only 6.0 %, whole operator 4.2 %."""
    whole, kernel_only, actual, actual_kernel = [], [], [], []
    for row in measured().itertuples():
        data, weight = ast.literal_eval(row.input_dims)[:2]
        stride, padding, dilation = (
            ast.literal_eval(each) for each in ast.literal_eval(row.concrete_inputs)[3:6]
        )
        bias = "CUDAFunctor_add" in row.kernels
        kernels = convolution(
            data[0],
            data[1],
            data[2:],
            weight[0],
            weight[2:],
            stride,
            padding,
            dilation,
            1,
            "bf16",
            H100,
            bias=bias,
        )
        strides = ast.literal_eval(row.input_strides)[0]
        if "direct_copy" in row.kernels:
            kernels += copy(data, Operand(0, strides, "bf16"), dense(-9, data, "bf16"), H100)
        whole.append(warm_us(kernels, H100))
        kernel_only.append(warm_us([kernel for kernel in kernels if kernel.family == "convolution"], H100))
        parts = [time for name, time in json.loads(row.kernels) if "gemm" in name or "fprop" in name]
        actual.append(row.kernel_us_mean)
        actual_kernel.append(sum(parts))
    error, bias = figures(whole, actual)
    assert error < 0.06
    assert abs(bias) < 0.03
    error, bias = figures(kernel_only, actual_kernel)
    assert error < 0.08
    assert abs(bias) < 0.03


def test_sanity_on_a100_conv3d():
    """xwang233's host timings (cuDNN 8.0, 2020): above 100 us, without those that pad to 8 channels."""
    path = MEASURED / "convolution.csv"
    if not path.exists():
        pytest.skip(f"{path} is not here: accuracy is checked only beside the shared measurements")
    hardware = load("a100-sxm-40gb")
    data = pd.read_csv(path)
    data = data[(data.gpu == "A100-SXM4-40GB") & (data.time_us > 100) & (data.c >= 8) & (data.oc >= 8)]

    def sizes(text):
        return tuple(int(each) for each in text.split("x"))

    predicted = []
    for row in data.itertuples():
        layout = "nhwc" if "channels_last" in row.layout else "nchw"
        spatial, kernel = sizes(row.input), sizes(row.kernel)
        stride, padding, dilation = sizes(row.stride), sizes(row.padding), sizes(row.dilation)
        kernels = convolution(
            row.n,
            row.c,
            spatial,
            row.oc,
            kernel,
            stride,
            padding,
            dilation,
            1,
            "fp16",
            hardware,
            layout=layout,
        )
        predicted.append(warm_us(kernels, hardware) + len(kernels) * hardware.launch_s * 1e6)
    error, bias = figures(predicted, data.time_us)
    assert error < 0.18
    assert abs(bias) < 0.12
