"""Convolution as PyTorch runs it through cuDNN: the products (`implicit_gemm`), with what surrounds them.

As the kernels of the traces show (operators_h100.csv, TraceLens, H100 SXM bf16, 2026-11-23):

- NCHW tensors, what a pipeline has unless it asks for channels_last: `nchwToNhwcKernel` on the activations
  and, on every call, on the weights (those of a single tap lie the same in both layouts); `nhwcToNchwKernel` on
  the result, which Volta's and Turing's half-precision kernels write as NCHW themselves. They move tiles of
  32 x 32 elements, so 16-bit types use half a 128-byte line at a time, and spend about 160 instructions on a thread.
- Channels not a multiple of 8: a padded copy, cleared by a Memset first.
- 1x1, stride 1, NCHW: a plain GEMM, W[oc, c] x X[c, positions], without conversions.
- fp32 on the CUDA cores reads and writes NCHW: none of this.
- Bias: another elementwise kernel, in place, always.
- Persistent sm90 kernels with more tiles than CTAs: a Memset of their tile counter.
- Depthwise: PyTorch's own kernel on the CUDA cores (native/cuda/DepthwiseConv2d.cu).

Constants marked fitted: the H100 rows named above.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from simtti.dtypes import ITEM_BYTES
from simtti.errors import InputError
from simtti.hw_configs.hardware import Hardware
from simtti.simulator.kernel import Access, Kernel
from simtti.simulator.kernels.data_movement import memset
from simtti.simulator.kernels.elementwise import Walk, walk
from simtti.simulator.kernels.family import Cells, Column, Family, Target, Work, lowered_by, needed
from simtti.simulator.kernels.implicit_gemm import (
    SHORT_LATENCY_S,
    Problem,
    cuda_core_kernels,
    on_cuda_cores,
    tensor_core_kernels,
    writes_nchw,
)
from simtti.simulator.kernels.layout import Operand, dense
from simtti.workloads.trace import Operator

CHANNEL_ALIGNMENT = 8  # channels of a 16-byte vector in fp16; cuDNN pads to it

LAYOUT_TILE = 32  # rows and columns of a layout kernel's tile
LAYOUT_THREADS = 256
LAYOUT_SLOTS = {"nchwToNhwc": 162.0, "nhwcToNchw": 125.0}  # issue slots of a thread; fitted
LAYOUT_REGISTERS = {"nchwToNhwc": 32, "nhwcToNchw": 36}
# HBM and L2 bandwidth with 64-byte runs, a 32-element row of a 16-bit type; fitted
HALF_LINE_EFFICIENCY = 0.66
WEIGHT_PAD_LATENCY_S = 8.5e-6  # tensorTransformGeneric, which pads output channels of weights; fitted

DEPTHWISE_THREADS = 256
DEPTHWISE_TAP_SLOTS = 10.0  # issue slots of a tap: bounds, address, two loads, FMA; estimate
DEPTHWISE_SLOTS = 60.0  # issue slots of an output beside its taps: index divisions, store; estimate


def output_size(size: int, kernel: int, stride: int, padding: int, dilation: int, transposed: bool) -> int:
    """Length of one spatial dimension of the result (without output padding)."""
    reach = dilation * (kernel - 1)
    if transposed:
        return (size - 1) * stride - 2 * padding + reach + 1
    return (size + 2 * padding - reach - 1) // stride + 1


def convolution(
    n: int,
    c: int,
    spatial: Sequence[int],
    oc: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    dtype: str,
    hardware: Hardware,
    *,
    layout: str = "nchw",
    bias: bool = True,
    transposed: bool = False,
    out_spatial: Sequence[int] | None = None,
    source: int = 0,
    weight: int = 1,
    bias_tensor: int = 2,
    target: int = 3,
    workspace: int = -1,
) -> list[Kernel]:
    """The kernels of one `aten::convolution` over (h, w) or (d, h, w).

    layout: of the activations, 'nchw' (or NCDHW) or 'nhwc'. out_spatial: the result's size where it is
    known, as with output padding. Workspaces are `workspace` and the numbers below it.
    """
    out = (
        tuple(out_spatial)
        if out_spatial is not None
        else tuple(
            output_size(*each, transposed)
            for each in zip(spatial, kernel, stride, padding, dilation, strict=True)
        )
    )
    positions, in_positions, taps = math.prod(out), math.prod(spatial), math.prod(kernel)
    pointwise = taps == 1 and not any(padding) and all(step == 1 for step in stride)
    kernels: list[Kernel] = []
    if groups > 1 and groups in (c, oc) and c // groups == 1:
        kernels.append(
            _depthwise(n, c, in_positions, oc, positions, taps, dtype, hardware, source, weight, target)
        )
    else:
        kernels += _dense(
            n, c, in_positions, oc, out, kernel, stride, dilation, groups, dtype, hardware,
            nchw=layout == "nchw", pointwise=pointwise and groups == 1, transposed=transposed,
            source=source, weight=weight, target=target, workspace=workspace,
        )  # fmt: skip
    if bias:
        kernels.append(_add_bias(n, oc, positions, dtype, layout, target, bias_tensor, hardware))
    return kernels


def _dense(
    n: int,
    c: int,
    in_positions: int,
    oc: int,
    out: tuple[int, ...],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    dtype: str,
    hardware: Hardware,
    *,
    nchw: bool,
    pointwise: bool,
    transposed: bool,
    source: int,
    weight: int,
    target: int,
    workspace: int,
) -> list[Kernel]:
    """The products, between the conversions they need. pointwise: a GEMM of the tensors as they lie."""
    item, positions, taps = ITEM_BYTES[dtype], math.prod(out), math.prod(kernel)
    # A transposed convolution gathers, for each output position, the taps that fall on an input position.
    work_taps = max(1, taps // math.prod(stride)) if transposed else taps
    channels, out_channels = c // groups, oc // groups
    data = Access(source, float(n * c * in_positions * item))
    filters = Access(weight, float(oc * channels * taps * item))
    result = Access(target, float(n * oc * positions * item))
    plain_3x3 = tuple(kernel) == (3, 3) and not transposed and set(stride) | set(dilation) == {1}
    problem = Problem(
        n * positions, out_channels, channels, work_taps, groups, dtype, (data, filters), result,
        useful_flops=2.0 * n * positions * oc * channels * work_taps,
        planar=len(out) == 2, outputs_3x3=(n, out[0], out[1]) if plain_3x3 and groups == 1 else None,
    )  # fmt: skip
    if on_cuda_cores(dtype, channels, nchw, hardware):
        return cuda_core_kernels(problem, hardware, workspace - 3)
    convert = nchw and not pointwise
    padded = _aligned(c) if groups == 1 and (convert or c % CHANNEL_ALIGNMENT) else c
    before: list[Kernel] = []
    if convert or padded != c:
        data = Access(workspace, data.nbytes / c * padded)
        before += _to_nhwc(source, data, n, c, padded, in_positions, dtype, hardware)
    if padded != c or (convert and taps > 1):  # a filter of one tap lies the same in both layouts
        original, filters = filters, Access(workspace - 1, filters.nbytes / c * padded)
        if oc % CHANNEL_ALIGNMENT and groups == 1:
            before += _pad_weights(weight, original.nbytes, filters, hardware)
        else:
            before += _to_nhwc(weight, filters, oc, channels, padded // groups, taps, dtype, hardware)
    after: list[Kernel] = []
    if convert:
        out_channels = _aligned(oc) if groups == 1 else out_channels
        if not writes_nchw(dtype, hardware):
            final, result = result, Access(workspace - 2, result.nbytes / oc * out_channels * groups)
            after.append(_layout_kernel("nhwcToNchw", result, final, n, oc, positions, dtype, hardware))
    problem = replace(problem, n=out_channels, channels=padded // groups, reads=(data, filters), write=result)
    product = tensor_core_kernels(
        problem, hardware, workspace - 3, padded_channels=padded != c, plain=nchw and not convert
    )
    return [*before, *product, *after]


def _aligned(channels: int) -> int:
    return -(-channels // CHANNEL_ALIGNMENT) * CHANNEL_ALIGNMENT


def _to_nhwc(
    tensor: int,
    result: Access,
    n: int,
    c: int,
    padded: int,
    positions: int,
    dtype: str,
    hardware: Hardware,
) -> list[Kernel]:
    """Activations or weights to NHWC; a padded result is cleared first."""
    source = Access(tensor, float(n * c * positions * ITEM_BYTES[dtype]))
    kernels = [memset(result.tensor, result.nbytes, hardware)] if padded != c else []
    kernels.append(_layout_kernel("nchwToNhwc", source, result, n, c, positions, dtype, hardware))
    return kernels


def _layout_kernel(
    name: str,
    source: Access,
    target: Access,
    n: int,
    c: int,
    positions: int,
    dtype: str,
    hardware: Hardware,
) -> Kernel:
    """nchwToNhwcKernel or nhwcToNchwKernel: a CTA transposes 32 channels by 32 positions in shared memory."""
    item = ITEM_BYTES[dtype]
    grid = n * -(-c // LAYOUT_TILE) * -(-positions // LAYOUT_TILE)
    return Kernel(
        name=f"{name}Kernel",
        family="convolution_layout",
        grid=grid,
        threads=LAYOUT_THREADS,
        registers=LAYOUT_REGISTERS[name],
        shared_memory_bytes=LAYOUT_TILE * (LAYOUT_TILE + 1) * item,
        issue_slots=LAYOUT_THREADS * LAYOUT_SLOTS[name],
        l2_bytes=(source.nbytes + target.nbytes) / grid,
        latency_s=hardware.hbm_latency_s + SHORT_LATENCY_S,
        memory_efficiency=HALF_LINE_EFFICIENCY if LAYOUT_TILE * item < 128 else 1.0,
        reads=(source,),
        writes=(target,),
    )


def _pad_weights(tensor: int, nbytes: float, target: Access, hardware: Hardware) -> list[Kernel]:
    """Weights whose output channels are padded: Memset and cuDNN's generic transformation."""
    grid = max(1, math.ceil(nbytes / 1024))
    transform = Kernel(
        name="tensorTransformGeneric",
        family="convolution_layout",
        grid=grid,
        threads=256,
        registers=40,
        issue_slots=256 * LAYOUT_SLOTS["nchwToNhwc"],
        l2_bytes=2 * nbytes / grid,
        latency_s=WEIGHT_PAD_LATENCY_S,
        reads=(Access(tensor, nbytes),),
        writes=(target,),
    )
    return [memset(target.tensor, target.nbytes, hardware), transform]


def _add_bias(
    n: int,
    oc: int,
    positions: int,
    dtype: str,
    layout: str,
    target: int,
    bias_tensor: int,
    hardware: Hardware,
) -> Kernel:
    """The in-place addition of a bias that PyTorch runs after cuDNN."""
    shape = (n, oc, positions)
    result = dense(target, shape, dtype)
    if layout == "nhwc":
        result = Operand(target, (oc * positions, 1, oc), dtype)
    channel = Operand(bias_tensor, (0, 1, 0), dtype)
    return walk(Walk("add", shape, (result, channel), result, family="convolution_bias"), hardware)


def _depthwise(
    n: int,
    c: int,
    in_positions: int,
    oc: int,
    positions: int,
    taps: int,
    dtype: str,
    hardware: Hardware,
    source: int,
    weight: int,
    target: int,
) -> Kernel:
    """PyTorch's depthwise kernel: a thread an output element, its taps read one after another."""
    item = ITEM_BYTES[dtype]
    outputs = n * oc * positions
    grid = -(-outputs // DEPTHWISE_THREADS)
    return Kernel(
        name="conv_depthwise_forward_kernel",
        family="convolution",
        grid=grid,
        threads=DEPTHWISE_THREADS,
        registers=40,
        issue_slots=DEPTHWISE_THREADS * (DEPTHWISE_SLOTS + DEPTHWISE_TAP_SLOTS * taps),
        l2_bytes=(n * c * in_positions * item + outputs * item) / grid,
        latency_s=hardware.hbm_latency_s + 1.0e-6,
        reads=(
            Access(source, float(n * c * in_positions * item)),
            Access(weight, float(oc * taps * item)),
        ),
        writes=(Access(target, float(outputs * item)),),
        flops=2.0 * outputs * taps,
    )


# ---- operators of a trace


def _lower(operator: Operator, target: Target) -> list[Kernel]:
    x, weight = operator.inputs[:2]
    attributes = operator.attributes
    spatial = x.shape[2:]
    channels_last = x.channels_last or weight.channels_last
    if channels_last and x.contiguous and not x.channels_last:
        channels_last = weight.channels_last and not weight.contiguous
    transposed = bool(attributes.get("transposed", False))
    return convolution(
        x.shape[0],
        x.shape[1],
        spatial,
        operator.outputs[0].shape[1],
        weight.shape[2:],
        tuple(attributes.get("stride", [1] * len(spatial))),
        tuple(attributes.get("padding", [0] * len(spatial))),
        tuple(attributes.get("dilation", [1] * len(spatial))),
        int(attributes.get("groups", 1)),
        x.dtype,
        target.hardware,
        layout="nhwc" if channels_last else "nchw",
        bias=len(operator.inputs) > 2,
        transposed=transposed,
        out_spatial=operator.outputs[0].shape[2:],
        source=0,
        weight=1,
        bias_tensor=2,
        target=len(operator.inputs),
    )


# ---- rows of a table


def _of_row(cells: Cells, hardware: Hardware, axes: str) -> list[Kernel]:
    kernel = tuple(cells.whole(f"k{axis}") for axis in axes)
    stride, padding, layout = cells.whole("stride"), cells.whole("padding"), cells.text("layout")
    spatial = tuple(cells.whole(axis) for axis in axes)
    for axis, size, taps in zip(axes, spatial, kernel, strict=True):
        if size + 2 * padding < taps:
            raise InputError(
                f"column 'k{axis}' is {taps}; it is larger than the padded input of {size + 2 * padding}"
            )
    channels, outputs, groups = cells.whole("c"), cells.whole("oc"), cells.whole("groups")
    if channels % groups or outputs % groups:
        raise InputError(f"column 'groups' is {groups}; it must divide c, {channels}, and oc, {outputs}")
    return convolution(
        cells.whole("n"), channels, spatial, outputs, kernel, (stride,) * len(axes),
        (padding,) * len(axes), (1,) * len(axes), groups, cells.dtype, hardware,
        layout="nchw" if layout in ("nchw", "ncdhw") else "nhwc", bias=cells.flag("bias"),
    )  # fmt: skip


def _work_of_row(cells: Cells, axes: str) -> Work:
    batch, channels, out = cells.whole("n"), cells.whole("c"), cells.whole("oc")
    stride, padding = cells.whole("stride"), cells.whole("padding")
    positions = results = taps = 1
    for axis in axes:
        size, tap = cells.whole(axis), cells.whole(f"k{axis}")
        positions *= size
        taps *= tap
        results *= (size + 2 * padding - tap) // stride + 1
    depth = channels // cells.whole("groups") * taps
    flops = 2.0 * batch * results * out * depth
    return Work(flops, float(batch * channels * positions + out * depth + batch * out * results))


_OPTIONAL = (
    Column("stride", 1),
    Column("padding", 0, least=0),
    Column("groups", 1),
    Column("layout", "nchw", str, words=("nchw", "nhwc", "ncdhw", "ndhwc")),
    Column("bias", False, bool),
)
CONV2D = Family(
    op="conv2d",
    columns=(*needed("n c h w oc kh kw"), *_OPTIONAL),
    note="layout: nchw or nhwc",
    kernels=lambda cells, hardware: _of_row(cells, hardware, "hw"),
    work=lambda cells: _work_of_row(cells, "hw"),
    aten=lowered_by(_lower, "convolution _convolution"),
)
CONV3D = Family(
    op="conv3d",
    columns=(*needed("n c d h w oc kd kh kw"), *_OPTIONAL),
    kernels=lambda cells, hardware: _of_row(cells, hardware, "dhw"),
    work=lambda cells: _work_of_row(cells, "dhw"),
)
