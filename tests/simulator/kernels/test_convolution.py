"""Convolution: analytic counts, monotony, layouts, fitted parameters, and the operators measured on an H100."""

import ast
import dataclasses
import itertools
import json

import numpy as np
import pandas as pd
import places
import pytest
from convolutions import A100, B200, H100, V100, conv, figures, names, time_s, warm_us
from hypothesis import given, settings
from hypothesis import strategies as st

from simtti.hw_configs.devices import load
from simtti.hw_configs.hardware import parameter, with_parameters, with_pytorch
from simtti.hw_configs.schema import calibration
from simtti.simulator.kernels.convolution import convolution
from simtti.simulator.kernels.convolution_problem import Convolution, output_size
from simtti.simulator.kernels.data_movement import copy
from simtti.simulator.kernels.layout import Operand, dense
from simtti.simulator.lowering.registry import kernels_of
from simtti.validation.judge.prediction import warm_time_s

MEASURED = places.MEASURED


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
    assert done >= flops * (1 - 1e-12) or kernels[-1].name == "conv2d_grouped_direct_kernel"


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


H200 = load("h200-sxm")


@given(
    shapes,
    st.sampled_from(["sm_count", "clock_hz", "hbm_bytes_per_s"]),
    st.sampled_from([1.04, 1.5, 2.0]),
    st.sampled_from(["nchw", "nhwc"]),
)
@settings(deadline=None, max_examples=60)
def test_the_same_kernels_are_never_slower_on_a_larger_h200(shape, field, factor, layout):
    kernels = build(shape, H200, layout=layout)
    more = getattr(H200, field) * factor
    larger = dataclasses.replace(H200, **{field: round(more) if field == "sm_count" else more})
    assert time_s(kernels, larger) <= time_s(kernels, H200) * 1.01  # SMs more at once stall the others


def test_a_larger_convolution_takes_longer_on_h200():
    """Within what a preferred but slower tile makes of it; samples, sides and channels double."""
    for n, c, size, oc in ((1, 64, 16, 64), (2, 320, 32, 320), (4, 640, 32, 640), (1, 1280, 16, 1280)):
        base = time_s(build((n, c, (size, size), oc, 3, 1), H200), H200)
        for larger in (
            (2 * n, c, size, oc),
            (n, 2 * c, size, oc),
            (n, c, 2 * size, oc),
            (n, c, size, 2 * oc),
        ):
            n2, c2, size2, oc2 = larger
            assert time_s(build((n2, c2, (size2, size2), oc2, 3, 1), H200), H200) > 0.95 * base


def test_neither_channels_nor_sms_make_a_step_on_h200():
    """Once 57.6 us at 264 output channels and 36.7 at 256 and 512; 2.4 times slower with 4 SMs more."""
    times = [time_s(build((2, 320, (64, 64), oc, 3, 1), H200), H200) for oc in range(128, 521, 8)]
    assert all(later > 0.8 * earlier for earlier, later in itertools.pairwise(times))
    assert all(later < 1.5 * earlier for earlier, later in itertools.pairwise(times))
    base = time_s(build((2, 320, (64, 64), 320, 3, 1), H200), H200)
    for sm_count in range(124, 145, 2):
        device = dataclasses.replace(H200, sm_count=sm_count)
        assert 0.7 * base < time_s(build((2, 320, (64, 64), 320, 3, 1), device), device) < 1.4 * base


def test_a_temporal_convolution_pads_time_alone():
    row = {"op": "temporal_conv", "dtype": "fp16", "n": 2, "c": 320, "d": 16, "h": 32, "w": 32, "oc": 320, "kd": 3, "kh": 1,
           "kw": 1, "layout": "ncdhw"}  # fmt: skip
    (found,) = (kernel for kernel in kernels_of(row, H200) if kernel.flops)
    assert found.flops == 2 * 2 * 16 * 32 * 32 * 320 * 320 * 3


def test_an_operator_finds_in_l2_what_it_has_just_written():
    first, *_, bias = build((1, 64, (64, 64), 64, 3, 1), H200)
    assert first.repeated_hbm_bytes == first.unique_bytes
    assert bias.repeated_hbm_bytes < 0.01 * bias.unique_bytes
    *_, bias = build((64, 64, (256, 256), 64, 3, 1), H200)
    assert bias.repeated_hbm_bytes == pytest.approx(bias.unique_bytes, rel=0.01)


@given(shapes.filter(lambda shape: shape[4] > 1), st.sampled_from([H100, A100]))
@settings(deadline=None, max_examples=60)
def test_nchw_is_never_faster_than_nhwc(shape, hardware):
    """But for a handful of channels, where it was measured so: cuDNN's direct kernel."""
    if max(shape[1], shape[3]) <= 4:
        return
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


def test_half_precision_on_volta_writes_nchw_itself():
    assert names(conv(2, 320, (64, 64), 320, (3, 3), 1, 1, hardware=V100, bias=False))[-1] == "sm80"


def test_filters_of_one_tap_need_no_conversion():
    kernels = conv(2, 320, (64, 64), 640, (1, 1), 2, hardware=A100, bias=False)
    assert names(kernels) == ["nchwToNhwcKernel", "sm80", "nhwcToNchwKernel"]


# 1x1 convolutions of 4 channels in NCHW (Kandinsky 3's decoder in fp16, workloads/traces/measured/h100-sxm/kandinsky-3.parquet):
# side, output channels, the product in us.
FOUR_CHANNELS = [
    (128, 1024, 19.4), (256, 512, 37.3), (256, 1024, 72.0), (512, 512, 141.5), (1024, 256, 289.1), (1024, 512, 557.6)
]  # fmt: skip


def test_products_of_4_channels_store_whole_rows():
    device = with_pytorch(H100, "2.11")
    predicted = []
    for side, oc, _ in FOUR_CHANNELS:
        kernels = conv(1, 4, (side, side), oc, (1, 1), hardware=device, bias=False)
        predicted.append(warm_time_s(kernels[-1], device) * 1e6)
        assert predicted[-1] >= 2 * oc * side**2 / device.hbm_bytes_per_s * 1e6 or oc * side**2 < 2**25
    error, bias = figures(predicted, [row[-1] for row in FOUR_CHANNELS])
    assert error < 0.13
    assert abs(bias) < 0.13


# Convolutions that between them take every kind of kernel: device, arguments and options of `conv`.
KINDS = (
    ("a100-sxm", (2, 320, (64, 64), 320, (3, 3), 1, 1), {}),
    ("a100-sxm", (1, 512, (8, 8), 512, (3, 3), 1, 1), {}),  # split-K
    ("a100-sxm", (2, 320, (64, 64), 4, (3, 3), 1, 1), {}),  # padded output channels
    ("a100-sxm", (2, 256, (32, 32), 256, (3, 3), 1, 1, 256), {}),  # depthwise
    ("a100-sxm", (2, 256, (32, 32), 256, (3, 3), 1, 1, 256), {"layout": "nhwc"}),
    ("h200-sxm", (1, 256, (32, 32), 256, (1, 1), 1, 0, 8), {"layout": "nhwc"}),  # groups in turn
    ("v100-sxm", (2, 320, (64, 64), 320, (3, 3), 1, 1), {}),
    ("v100-sxm", (1, 64, (14, 32), 512, (3, 3), 1, 1), {"dtype": "fp32"}),  # Winograd F(2x2)
    ("v100-sxm", (32, 128, (28, 28), 128, (3, 3), 1, 1), {"dtype": "fp32"}),  # Winograd F(4x4)
    ("v100-sxm", (32, 256, (56, 56), 64, (1, 1)), {"dtype": "fp32"}),
    *(
        (device, (n, c, (size, size), oc, (3, 3), 1, 1), {"dtype": dtype})
        for device in ("h100-sxm", "b200-sxm")
        for dtype in ("fp16", "fp32")
        for n, c, size, oc in (
            (2, 3, 224, 64), (2, 4, 64, 320), (2, 128, 56, 128), (2, 192, 64, 192), (2, 320, 64, 320), (16, 512, 28, 512),
            (8, 128, 112, 128), (16, 64, 112, 64), (16, 64, 224, 256), (16, 16, 32, 320),
            (1, 1280, 16, 1280), (4, 256, 32, 256),
        )
    ),
    *(
        (device, (1, c, (frames, 16, 16), c, kernel), {})
        for device in ("h100-sxm", "h200-sxm", "b200-sxm")
        for c in (64, 320)
        for frames in (4, 16)
        for kernel in ((3, 3, 3), (1, 3, 3), (3, 1, 1))
    ),
    ("h100-sxm", (2, 320, (32, 32), 320, (1, 1)), {}),
    ("h200-sxm", (2, 320, (128, 128), 320, (3, 3), 1, 1), {"layout": "nhwc"}),  # five columns of 64
    ("h200-sxm", (1, 96, (6, 128, 128), 96, (3, 3, 3)), {}),  # columns of 32
    ("h200-sxm", (2, 960, (48, 48), 640, (3, 3), 1, 1), {"layout": "nhwc"}),  # the tiles of 4096 rows for 4608
    ("h100-sxm", (4, 4, (64, 64), 4, (3, 3), 1, 1), {}),
    ("h100-sxm", (4, 4, (64, 64), 4, (3, 3), 1, 1), {"layout": "nhwc"}),
)  # fmt: skip
# Of these the other value that shows whether the choice listens to them; others are made a tenth less.
OTHER = {
    "conv_choice.cuda_core_channels": 0.0, "conv_choice.few_frames": 64.0, "conv_choice.planar_channels": 1024.0, "conv_choice.pointwise_gemm": 1.0, "conv_choice.tuned_rows": 0.0, "conv_choice.sm80_256x32_spatial_preference": -3.0,
    "conv_split_k.min_steps": 256.0, "conv_split_k.max_share": 0.0, "conv_tcgen05.tile_latency_s": 1e-6,
    "conv_mma.flops_per_cycle": 512.0, "conv_mma_registers.flops_per_cycle": 256.0, "conv_depthwise.registers": 200.0,
    "conv_layout.to_nchw_in_flight": 500.0, "conv_layout.to_nchw_stall": 0.5, "conv_mma.row_bytes": 256.0, "conv_mma_registers.row_bytes": 256.0, "conv_groups.in_turn": 0.0, "conv_groups.tall_ctas": 1.0,
    "conv_layout.pad_cta_bytes": 256.0, "conv_layout.pad_threads": 512.0, "conv_layout.pad_registers": 255.0,
}  # fmt: skip


PREFERENCES = ("planar", "spatial", "frames", "temporal", "other")


def where_it_counts(hw, name):
    """The device with the tile of the parameter taken wherever it can be, for no trace has all of them; of a preference or a
    group without tiles the device as it is."""
    group, _, field = name.partition(".")
    tile = group.removeprefix("conv_")
    device = load(hw)
    if field.endswith("preference") or not (tile.startswith("sm90_") or group == "conv_warpgroups"):
        return device
    wanted = {
        "cooperative_tile_latency_s": "sm90_256x128",
        "segment_latency_s": "sm90_segmented_128x128",
        "five_share": "sm90_256x64",
    }
    if group == "conv_warpgroups":
        tile = wanted.get(field, "sm90_segmented_256x128")
    return with_parameters(device, {f"conv_{tile}.{each}_preference": 3.0 for each in PREFERENCES})


def another(device, name):
    """Another value of a parameter."""
    value = parameter(device, name)
    if name.endswith("preference"):
        return OTHER.get(name, 3.0 if value < 1.0 else -3.0)
    return OTHER.get(name, 0.9 * value)


@pytest.mark.parametrize("name", [name for name in calibration() if name.startswith("conv_")])
def test_every_parameter_moves_a_kind_of_convolution(name):
    for hw, shape, options in KINDS:
        device = where_it_counts(hw, name)
        before = conv(*shape, hardware=device, **options)
        changed = with_parameters(device, {name: another(device, name)})
        if conv(*shape, hardware=changed, **options) != before:
            return
    pytest.fail(f"{name} moves none of them")


def measured():
    path = MEASURED / "operators_h100.csv"
    if not path.exists():
        pytest.skip(f"{path} is not here: accuracy is checked only beside the shared measurements")
    data = pd.read_csv(path)
    return data[data.op == "aten::convolution"]


def test_accuracy_on_h100_operators():
    """29 shapes of Wan2.1's VAE and of three vision transformers, of an older cuDNN: kernel-only 13 %, whole operator 9 %. With
    rules by channels and waves, made for these shapes, it was 6 and 4 %; preferences cannot tell 128x64 and 128x128 apart there."""
    whole, kernel_only, actual, actual_kernel = [], [], [], []
    for row in measured().itertuples():
        data, weight = ast.literal_eval(row.input_dims)[:2]
        stride, padding, dilation = (
            ast.literal_eval(each) for each in ast.literal_eval(row.concrete_inputs)[3:6]
        )
        bias = "CUDAFunctor_add" in row.kernels
        problem = Convolution(
            data[0], data[1], data[2:], weight[0], weight[2:], tuple(stride), tuple(padding), tuple(dilation), 1, "bf16",
            bias=bias,
        )  # fmt: skip
        kernels = convolution(problem, H100)
        strides = ast.literal_eval(row.input_strides)[0]
        if "direct_copy" in row.kernels:
            kernels += copy(data, Operand(0, strides, "bf16"), dense(-9, data, "bf16"), H100)
        whole.append(warm_us(kernels, H100))
        kernel_only.append(warm_us([kernel for kernel in kernels if kernel.family == "convolution"], H100))
        parts = [time for name, time in json.loads(row.kernels) if "gemm" in name or "fprop" in name]
        actual.append(row.kernel_us_mean)
        actual_kernel.append(sum(parts))
    error, bias = figures(whole, actual)
    assert error < 0.09
    assert abs(bias) < 0.03
    error, bias = figures(kernel_only, actual_kernel)
    assert error < 0.14
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
        problem = Convolution(
            row.n, row.c, spatial, row.oc, kernel, stride, padding, dilation, 1, "fp16", layout=layout
        )
        kernels = convolution(problem, hardware)
        predicted.append(warm_us(kernels, hardware) + len(kernels) * hardware.launch_s * 1e6)
    error, bias = figures(predicted, data.time_us)
    assert error < 0.18
    assert abs(bias) < 0.12
