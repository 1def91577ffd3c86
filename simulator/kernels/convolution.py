"""Convolution as PyTorch runs it through cuDNN: the products (`implicit_gemm`), with what surrounds them.

As the kernels of the traces show (operators_h100.csv, TraceLens, H100 SXM bf16, 2026-11-23):

- NCHW tensors, what a pipeline has unless it asks for channels_last: `nchwToNhwcKernel` on the activations
  and, on every call, on the weights (those of a single tap lie the same in both layouts); `nhwcToNchwKernel` on
  the result, which Volta's and Turing's half-precision kernels write as NCHW themselves (`convolution_layout`).
- Channels not a multiple of 8: a padded copy, cleared by a Memset first.
- 1x1, stride 1: a plain GEMM of the tensors as they lie, W[oc, c] x X[c, positions] for each sample in NCHW, without
  conversions; on Hopper cuBLAS's (nvjet, our own H200).
- fp32 on the CUDA cores reads and writes NCHW: none of this (`cuda_core_convolution`).
- Bias: another elementwise kernel, in place.
- Persistent sm90 kernels with more tiles than CTAs: a Memset of their tile counter.
- Depthwise: a kernel on the CUDA cores (`depthwise_convolution`).
- Groups of channels-last tensors: one after another, on Hopper's cuDNN (`grouped_convolution`).
- What one kernel has written, the next finds in L2 as far as it fits.

What is fitted stands in hw_configs/families/convolution.yaml.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, replace

from simtti.dtypes import HALF_TYPES, ITEM_BYTES
from simtti.errors import InputError
from simtti.hw_configs.hardware import Hardware
from simtti.simulator.kernel import Access, Kernel
from simtti.simulator.kernels.convolution_layout import (
    CHANNEL_ALIGNMENT,
    PART_ALIGNMENT,
    Conversion,
    aligned,
    in_a_row,
    pad_weights,
    to_nchw,
    to_nhwc,
)
from simtti.simulator.kernels.cuda_core_convolution import cuda_core_kernels, direct_kernel, on_cuda_cores
from simtti.simulator.kernels.data_movement import copy
from simtti.simulator.kernels.depthwise_convolution import Depthwise, cudnn_depthwise, pytorch_depthwise
from simtti.simulator.kernels.elementwise import Walk, walk
from simtti.simulator.kernels.family import Cells, Column, Family, Target, Work, lowered_by, needed
from simtti.simulator.kernels.gemm import Gemm, gemm
from simtti.simulator.kernels.grouped_convolution import grouped_kernels, in_turn
from simtti.simulator.kernels.implicit_gemm import Problem, matrix_unit, writes_nchw
from simtti.simulator.kernels.implicit_gemm_choice import tensor_core_kernels
from simtti.simulator.kernels.layout import Operand, as_it_lies, dense, dense_strides
from simtti.workloads.trace import Operator, TensorUse

RANK_3D = 3  # exact: dimensions of a video
TEMPORAL = "temporal_conv"  # exact: our own name of a 3-D convolution as UNets' temporal layers have it
RESULT_SLOT = 3  # exact: the tensors of the operator are input, weights, bias and result, in this order
SQUARE_3X3 = (3, 3)  # exact: the filters that Winograd's kernels are made for


def output_size(size: int, kernel: int, stride: int, padding: int, dilation: int, transposed: bool) -> int:
    """Length of one spatial dimension of the result (without output padding)."""
    reach = dilation * (kernel - 1)
    if transposed:
        return (size - 1) * stride - 2 * padding + reach + 1
    return (size + 2 * padding - reach - 1) // stride + 1


@dataclass(frozen=True, slots=True)
class Convolution:
    """An `aten::convolution` over (h, w) or (d, h, w).

    n, c, spatial: samples, channels and size of the input. oc: channels of the result. kernel, stride, padding, dilation: as
    long as spatial. layout: of the activations, 'nchw' (or NCDHW) or 'nhwc'. out_spatial: the result's size where it is known,
    as with output padding; None works it out.

    source, weight, bias_tensor, target: slots of the tensors. workspace: slot of the first workspace; others are the numbers
    below it.
    """

    n: int
    c: int
    spatial: tuple[int, ...]
    oc: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    dtype: str
    layout: str = "nchw"
    bias: bool = True
    transposed: bool = False
    out_spatial: tuple[int, ...] | None = None
    source: int = 0
    weight: int = 1
    bias_tensor: int = 2
    target: int = RESULT_SLOT
    workspace: int = -1

    @property
    def out(self) -> tuple[int, ...]:
        """The result's size."""
        if self.out_spatial is not None:
            return self.out_spatial
        each = zip(self.spatial, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        return tuple(output_size(*dimension, self.transposed) for dimension in each)

    @property
    def positions(self) -> int:
        """Elements of a channel of the result."""
        return math.prod(self.out)

    @property
    def in_positions(self) -> int:
        """Elements of a channel of the input."""
        return math.prod(self.spatial)

    @property
    def taps(self) -> int:
        return math.prod(self.kernel)

    @property
    def work_taps(self) -> int:
        """Taps of an output position. A transposed convolution gathers, for each of them, the taps that fall on an input
        position."""
        return max(1, self.taps // math.prod(self.stride)) if self.transposed else self.taps

    @property
    def item_bytes(self) -> int:
        return ITEM_BYTES[self.dtype]

    @property
    def is_pointwise(self) -> bool:
        """Whether a GEMM of the tensors as they lie does it."""
        steps = all(step == 1 for step in self.stride)
        return self.groups == 1 and self.taps == 1 and steps and not any(self.padding)

    @property
    def is_depthwise(self) -> bool:
        return self.groups > 1 and self.groups in (self.c, self.oc) and self.c // self.groups == 1

    @property
    def is_winograd(self) -> bool:
        """Whether it is a 3x3 convolution with stride 1, which Winograd can do."""
        steps = {*self.stride, *self.dilation} == {1}
        return self.kernel == SQUARE_3X3 and steps and self.groups == 1 and not self.transposed

    @property
    def data(self) -> Access:
        """The input."""
        return Access(self.source, float(self.n * self.c * self.in_positions * self.item_bytes))

    @property
    def filters(self) -> Access:
        """The weights."""
        nbytes = self.oc * (self.c // self.groups) * self.taps * self.item_bytes
        return Access(self.weight, float(nbytes))

    @property
    def result(self) -> Access:
        return Access(self.target, float(self.n * self.oc * self.positions * self.item_bytes))


def convolution(problem: Convolution, hardware: Hardware) -> list[Kernel]:
    """The kernels of one `aten::convolution`."""
    if problem.is_depthwise:
        return _depthwise(problem, hardware)
    kernels = _dense(problem, hardware)
    if problem.bias:
        kernels.append(_add_bias(problem, hardware))
    return in_a_row(kernels, hardware)


def _dense(conv: Convolution, hardware: Hardware) -> list[Kernel]:
    """The products, between the conversions they need."""
    products, nchw = _products(conv), conv.layout == "nchw"
    if on_cuda_cores(products, nchw, hardware):
        return cuda_core_kernels(products, hardware)
    if conv.is_pointwise and matrix_unit(hardware) == "wgmma":
        return _pointwise(conv, products, hardware)
    if _is_direct(conv, hardware):
        return [direct_kernel(products, conv.layout == "nchw", hardware)]
    if not nchw and in_turn(products, hardware):
        return grouped_kernels(products, hardware)
    return _converted(conv, products, hardware)


def _is_direct(conv: Convolution, hardware: Hardware) -> bool:
    """Whether cuDNN's direct kernel does it: a few channels in 16 bits, on Hopper's cuDNN."""
    few = conv.groups == 1 and max(conv.c, conv.oc) <= PART_ALIGNMENT
    return few and conv.dtype in HALF_TYPES and len(conv.out) < RANK_3D and matrix_unit(hardware) == "wgmma"


def _pointwise(conv: Convolution, products: Problem, hardware: Hardware) -> list[Kernel]:
    """cuBLAS's GEMM: of all positions at once, in NCHW of each sample's; or, in an older cuDNN, its own kernels."""
    if not hardware.conv_choice.pointwise_gemm:
        return _converted(conv, products, hardware)
    nchw = conv.layout == "nchw"
    rows, batch = (conv.positions, conv.n) if nchw else (conv.n * conv.positions, 1)
    problem = Gemm(
        rows, conv.oc, conv.c, batch, conv.dtype, (conv.data, conv.filters), (conv.result,),
        workspace=_workspaces(conv)[-1] - 1, name="conv_gemm", family="convolution",
    )  # fmt: skip
    return gemm(problem, hardware)


def _converted(conv: Convolution, products: Problem, hardware: Hardware) -> list[Kernel]:
    """Tensor cores' products, between the conversions they need."""
    nchw = conv.layout == "nchw"
    convert = nchw and not conv.is_pointwise
    alignment = CHANNEL_ALIGNMENT if convert or matrix_unit(hardware) != "wgmma" else PART_ALIGNMENT
    may_pad = conv.groups == 1 and (convert or conv.c % alignment)
    padded = aligned(conv.c) if may_pad else conv.c
    data, data_kernels = _input(conv, padded, convert, hardware)
    filters, filter_kernels = _filters(conv, padded, convert, hardware)
    out_channels = aligned(conv.oc) if convert and conv.groups == 1 else products.n
    result, result_kernels = _result(conv, out_channels, convert, hardware)
    products = replace(
        products, n=out_channels, channels=padded // conv.groups, reads=(data, filters), write=result,
        padded=padded != conv.c, plain=nchw and not convert,
    )  # fmt: skip
    return [*data_kernels, *filter_kernels, *tensor_core_kernels(products, hardware), *result_kernels]


def _products(conv: Convolution) -> Problem:
    """The products of the tensors as they lie. Their workspaces come after three for converted tensors."""
    out, channels = conv.out, conv.c // conv.groups
    return Problem(
        m=conv.n * conv.positions, n=conv.oc // conv.groups, channels=channels, taps=conv.work_taps, groups=conv.groups,
        dtype=conv.dtype, reads=(conv.data, conv.filters), write=conv.result,
        useful_flops=2.0 * conv.n * conv.positions * conv.oc * channels * conv.work_taps,
        filters=_kind(conv.kernel, conv.dtype), frames=out[0] if len(out) == RANK_3D else 1, outputs_3x3=(conv.n, out[0], out[1]) if conv.is_winograd else None,
        workspace=_workspaces(conv)[-1] - 1,
    )  # fmt: skip


def _kind(kernel: tuple[int, ...], dtype: str) -> str:
    """What the filters extend over, as `Problem.filters` has it."""
    if dtype not in HALF_TYPES:
        return "other"
    if len(kernel) < RANK_3D:
        return "planar"
    if kernel[0] == 1:
        return "frames"
    return "temporal" if max(kernel[1:]) == 1 else "spatial"


def _workspaces(conv: Convolution) -> tuple[int, int, int]:
    """Slots of the input, the filters and the result in the other layout."""
    return conv.workspace, conv.workspace - 1, conv.workspace - 2


def _input(conv: Convolution, padded: int, convert: bool, hardware: Hardware) -> tuple[Access, list[Kernel]]:
    """The input as the products read it, `padded` channels of it, and the kernels that make it so."""
    if not convert and padded == conv.c:
        return conv.data, []
    copy = Access(_workspaces(conv)[0], conv.data.nbytes / conv.c * padded)
    conversion = Conversion(conv.n, conv.c, conv.in_positions, conv.dtype, conv.data, copy, padded != conv.c)
    return copy, to_nhwc(conversion, hardware)


def _filters(
    conv: Convolution, padded: int, convert: bool, hardware: Hardware
) -> tuple[Access, list[Kernel]]:
    """The same of the filters, those of one tap lying the same in both layouts."""
    if padded == conv.c and not (convert and conv.taps > 1):
        return conv.filters, []
    copy = Access(_workspaces(conv)[1], conv.filters.nbytes / conv.c * padded)
    if conv.oc % CHANNEL_ALIGNMENT and conv.groups == 1:
        return copy, pad_weights(conv.filters, copy, hardware)
    channels = conv.c // conv.groups
    conversion = Conversion(conv.oc, channels, conv.taps, conv.dtype, conv.filters, copy, padded != conv.c)
    return copy, to_nhwc(conversion, hardware)


def _result(
    conv: Convolution, out_channels: int, convert: bool, hardware: Hardware
) -> tuple[Access, list[Kernel]]:
    """The result as the products write it, `out_channels` of each group, and the kernel that makes NCHW of it."""
    if not convert or writes_nchw(conv.dtype, hardware):
        return conv.result, []
    copy = Access(_workspaces(conv)[2], conv.result.nbytes / conv.oc * out_channels * conv.groups)
    conversion = Conversion(conv.n, conv.oc, conv.positions, conv.dtype, copy, conv.result)
    return copy, [to_nchw(conversion, hardware)]


def _add_bias(conv: Convolution, hardware: Hardware) -> Kernel:
    """The in-place addition of a bias that PyTorch runs after cuDNN."""
    shape = (conv.n, conv.oc, conv.positions)
    result = dense(conv.target, shape, conv.dtype)
    if conv.layout == "nhwc":
        result = Operand(conv.target, (conv.oc * conv.positions, 1, conv.oc), conv.dtype)
    channel = Operand(conv.bias_tensor, (0, 1, 0), conv.dtype)
    return walk(Walk("add", shape, (result, channel), result, family="convolution_bias"), hardware)


def _depthwise(conv: Convolution, hardware: Hardware) -> list[Kernel]:
    """PyTorch's kernel, which adds the bias, or, of channels-last tensors, cuDNN's and the bias's."""
    outputs = conv.n * conv.oc * conv.positions
    problem = Depthwise(outputs, conv.taps, conv.kernel[0], (conv.data, conv.filters), conv.result)
    planar = len(conv.out) < RANK_3D and not conv.transposed
    if not (conv.layout == "nhwc" and planar and conv.dtype in HALF_TYPES):
        return [pytorch_depthwise(problem, hardware)]
    bias = [_add_bias(conv, hardware)] if conv.bias else []
    return in_a_row([cudnn_depthwise(problem, hardware), *bias], hardware)


# ---- operators of a trace


def _lower(operator: Operator, target: Target) -> list[Kernel]:
    x, weight = operator.inputs[:2]
    attributes = operator.attributes
    spatial = x.shape[2:]
    channels_last = x.channels_last or weight.channels_last
    if channels_last and x.contiguous and not x.channels_last:
        channels_last = weight.channels_last and not weight.contiguous
    problem = Convolution(
        n=x.shape[0],
        c=x.shape[1],
        spatial=spatial,
        oc=operator.outputs[0].shape[1],
        kernel=weight.shape[2:],
        stride=tuple(attributes.get("stride", [1] * len(spatial))),
        padding=tuple(attributes.get("padding", [0] * len(spatial))),
        dilation=tuple(attributes.get("dilation", [1] * len(spatial))),
        groups=int(attributes.get("groups", 1)),
        dtype=x.dtype,
        layout="nhwc" if channels_last else "nchw",
        bias=len(operator.inputs) > 2,
        transposed=bool(attributes.get("transposed", False)),
        out_spatial=operator.outputs[0].shape[2:],
        target=len(operator.inputs),
    )
    if x.channels_last if channels_last else x.contiguous:
        return convolution(problem, target.hardware)
    copied = _in_order(x, channels_last)
    return [
        *copy(x.shape, as_it_lies(x, problem.source), copied, target.hardware),
        *convolution(dataclasses.replace(problem, source=copied.tensor), target.hardware),
    ]


# exact: identity of our own, below all other workspaces, of an input that PyTorch puts in order first.
IN_ORDER = -20


def _in_order(x: TensorUse, channels_last: bool) -> Operand:
    """Where `contiguous` copies an input to that lies in neither order (cudnn_convolution in native/cudnn/ConvShared.cpp)."""
    if not channels_last:
        return dense(IN_ORDER, x.shape, x.dtype)
    n, c, *spatial = x.shape
    batch, *steps, channel = dense_strides((n, *spatial, c))
    return Operand(IN_ORDER, (batch, channel, *steps), x.dtype)


# ---- rows of a table


def _paddings(cells: Cells, axes: str) -> tuple[int, ...]:
    """Of each axis; a temporal convolution pads in time alone."""
    if cells.row["op"] == TEMPORAL:
        return (cells.whole("kd") // 2, 0, 0)
    return (cells.whole("padding"),) * len(axes)


def _of_row(cells: Cells, hardware: Hardware, axes: str) -> list[Kernel]:
    kernel = tuple(cells.whole(f"k{axis}") for axis in axes)
    stride, layout, paddings = cells.whole("stride"), cells.text("layout"), _paddings(cells, axes)
    spatial = tuple(cells.whole(axis) for axis in axes)
    for axis, size, taps, padding in zip(axes, spatial, kernel, paddings, strict=True):
        if size + 2 * padding < taps:
            raise InputError(
                f"column 'k{axis}' is {taps}; it is larger than the padded input of {size + 2 * padding}"
            )
    channels, outputs, groups = cells.whole("c"), cells.whole("oc"), cells.whole("groups")
    if channels % groups or outputs % groups:
        raise InputError(f"column 'groups' is {groups}; it must divide c, {channels}, and oc, {outputs}")
    problem = Convolution(
        cells.whole("n"), channels, spatial, outputs, kernel, (stride,) * len(axes),
        paddings, (1,) * len(axes), groups, cells.dtype,
        layout="nchw" if layout in ("nchw", "ncdhw") else "nhwc", bias=cells.flag("bias"),
    )  # fmt: skip
    return convolution(problem, hardware)


def _work_of_row(cells: Cells, axes: str) -> Work:
    batch, channels, out = cells.whole("n"), cells.whole("c"), cells.whole("oc")
    stride = cells.whole("stride")
    positions = results = taps = 1
    for axis, padding in zip(axes, _paddings(cells, axes), strict=True):
        size, tap = cells.whole(axis), cells.whole(f"k{axis}")
        positions *= size
        taps *= tap
        results *= (size + 2 * padding - tap) // stride + 1
    depth = channels // cells.whole("groups") * taps
    flops = 2.0 * batch * results * out * depth
    return Work(flops, float(batch * channels * positions + out * depth + batch * out * results))


_PADDING = Column("padding", 0, least=0)
_OPTIONAL = (
    Column("stride", 1),
    Column("groups", 1),
    Column("layout", "nchw", str, words=("nchw", "nhwc", "ncdhw", "ndhwc")),
    Column("bias", False, bool),
)
CONV2D = Family(
    op="conv2d",
    columns=(*needed("n c h w oc kh kw"), _PADDING, *_OPTIONAL),
    note="layout: nchw or nhwc",
    kernels=lambda cells, hardware: _of_row(cells, hardware, "hw"),
    work=lambda cells: _work_of_row(cells, "hw"),
    aten=lowered_by(_lower, "convolution _convolution"),
)
CONV3D = Family(
    op="conv3d",
    columns=(*needed("n c d h w oc kd kh kw"), _PADDING, *_OPTIONAL),
    kernels=lambda cells, hardware: _of_row(cells, hardware, "dhw"),
    work=lambda cells: _work_of_row(cells, "dhw"),
)
TEMPORAL_CONV = Family(
    op=TEMPORAL,
    columns=(*needed("n c d h w oc kd kh kw"), *_OPTIONAL),
    note="as conv3d, padded in time alone, by kd // 2",
    kernels=lambda cells, hardware: _of_row(cells, hardware, "dhw"),
    work=lambda cells: _work_of_row(cells, "dhw"),
)
