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

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from simtti.dtypes import HALF_TYPES
from simtti.errors import InputError
from simtti.hw_configs.hardware import Hardware
from simtti.simulator.designs import Designs
from simtti.simulator.kernel import Access, Kernel, check
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
from simtti.simulator.kernels.convolution_problem import Convolution
from simtti.simulator.kernels.cuda_core_convolution import cuda_core_kernels, direct_kernel, on_cuda_cores
from simtti.simulator.kernels.data_movement import copy
from simtti.simulator.kernels.depthwise_convolution import Depthwise, cudnn_depthwise, pytorch_depthwise
from simtti.simulator.kernels.elementwise import Walk, walk
from simtti.simulator.kernels.family import Cells, Column, Family, Target, Work, needed
from simtti.simulator.kernels.gemm import Gemm, gemm, prepare_products
from simtti.simulator.kernels.grouped_convolution import grouped_kernels, in_turn
from simtti.simulator.kernels.implicit_gemm import Problem, matrix_unit, writes_nchw
from simtti.simulator.kernels.implicit_gemm_choice import Candidates, candidates_for, choose, prepare_on_each
from simtti.simulator.kernels.layout import Operand, as_it_lies, dense, dense_strides
from simtti.simulator.kernels.reuse import by_what_it_reads
from simtti.simulator.lanes import along_paths
from simtti.simulator.policy import Policy
from simtti.workloads.trace import Operator, TensorUse

RANK_3D = 3  # exact: dimensions of a video
TEMPORAL = "temporal_conv"  # exact: our own name of a 3-D convolution as UNets' temporal layers have it


class Stages(NamedTuple):
    """A convolution's kernels: those before its products; of these what comes into question, or how they are made; those after; and
    whether another adds its bias.

    Nothing of it but the products and the bias depends on how fast a device is, how many SMs or how large an L2 it has.
    """

    problem: Convolution
    before: tuple[Kernel, ...]
    products: Candidates | Gemm | Callable[[Hardware], list[Kernel]]
    after: tuple[Kernel, ...] = ()
    adds_bias: bool = False


def convolution(problem: Convolution, hardware: Hardware) -> list[Kernel]:
    """The kernels of one `aten::convolution`."""
    return _kernels(stages(problem, hardware), hardware)


def _kernels(found: Stages, hardware: Hardware) -> list[Kernel]:
    (products,) = _products_of([found], hardware)
    bias = [_add_bias(found.problem, hardware)] if found.adds_bias else []
    return in_a_row([*found.before, *products, *found.after, *bias], hardware)


def stages(conv: Convolution, hardware: Hardware) -> Stages:
    """The products, between the conversions they need, and the bias behind them."""
    if conv.is_depthwise:
        return _depthwise(conv)
    return _dense(conv, hardware)._replace(adds_bias=conv.bias)


def _dense(conv: Convolution, hardware: Hardware) -> Stages:
    products, nchw = _products(conv), conv.layout == "nchw"
    if on_cuda_cores(products, nchw, hardware):
        return Stages(conv, (), partial(cuda_core_kernels, products))
    if conv.is_pointwise and matrix_unit(hardware) == "wgmma":
        if hardware.conv_choice.pointwise_gemm:
            return Stages(conv, (), _pointwise(conv))
        return _converted(conv, products, hardware)  # in an older cuDNN its own kernels
    if _is_direct(conv, hardware):
        return Stages(conv, (direct_kernel(products, conv.layout == "nchw", hardware),), _none)
    if not nchw and in_turn(products, hardware):
        return Stages(conv, (), partial(grouped_kernels, products))
    return _converted(conv, products, hardware)


def _none(hardware: Hardware) -> list[Kernel]:
    return []


def _products_of(each_of: Sequence[Stages], hardware: Hardware) -> list[list[Kernel]]:
    """The kernels of the products of several convolutions, the tiles for all of them chosen side by side."""
    prepare_products([each.products for each in each_of if isinstance(each.products, Gemm)], hardware)
    asked = [each.products for each in each_of if isinstance(each.products, Candidates)]
    ways = iter(choose(asked, hardware) if asked else ())
    found = []
    for products in [each.products for each in each_of]:
        if isinstance(products, Candidates):
            found.append(next(ways).kernels(products.problem, hardware))
        else:
            found.append(gemm(products, hardware) if isinstance(products, Gemm) else products(hardware))
    return found


def _is_direct(conv: Convolution, hardware: Hardware) -> bool:
    """Whether cuDNN's direct kernel does it: a few channels in 16 bits, on Hopper's cuDNN."""
    few = conv.groups == 1 and max(conv.c, conv.oc) <= PART_ALIGNMENT
    return few and conv.dtype in HALF_TYPES and len(conv.out) < RANK_3D and matrix_unit(hardware) == "wgmma"


def _pointwise(conv: Convolution) -> Gemm:
    """cuBLAS's GEMM: of all positions at once, in NCHW of each sample's."""
    nchw = conv.layout == "nchw"
    rows, batch = (conv.positions, conv.n) if nchw else (conv.n * conv.positions, 1)
    return Gemm(
        rows, conv.oc, conv.c, batch, conv.dtype, (conv.data, conv.filters), (conv.result,),
        workspace=_workspaces(conv)[-1] - 1, name="conv_gemm", family="convolution",
    )  # fmt: skip


def _converted(conv: Convolution, products: Problem, hardware: Hardware) -> Stages:
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
    before = (*data_kernels, *filter_kernels)
    return Stages(conv, before, candidates_for(products, hardware), tuple(result_kernels))


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


def _depthwise(conv: Convolution) -> Stages:
    """PyTorch's kernel, which adds the bias, or, of channels-last tensors, cuDNN's and the bias's."""
    outputs = conv.n * conv.oc * conv.positions
    problem = Depthwise(outputs, conv.taps, conv.kernel[0], (conv.data, conv.filters), conv.result)
    planar = len(conv.out) < RANK_3D and not conv.transposed
    if not (conv.layout == "nhwc" and planar and conv.dtype in HALF_TYPES):
        return Stages(conv, (), lambda hardware: [pytorch_depthwise(problem, hardware)])
    return Stages(conv, (), lambda hardware: [cudnn_depthwise(problem, hardware)], adds_bias=conv.bias)


# ---- operators of a trace

OPS = ("aten::convolution", "aten::_convolution")  # exact: aten's names


def _lower(operator: Operator, target: Target) -> list[Kernel]:
    copies, found = _of_operator(operator, target)
    return [*copies, *_kernels(found, target.hardware)]


def _lower_together(operators: Sequence[Operator], target: Target) -> list[list[Kernel]]:
    """As they come in a step: nothing is said of what a benchmark that repeated one of them would move."""
    each_of = [_checked_stages(operator, target) for operator in operators]
    products = _products_of([found for _, found in each_of], target.hardware)
    kernels = []
    for (copies, found), own in zip(each_of, products, strict=True):
        for kernel in own:
            check(kernel, target.hardware)
        bias = _checked_bias(found.problem, target) if found.adds_bias else ()
        kernels.append([*copies, *found.before, *own, *found.after, *bias])
    return kernels


def _prepare(operators: Sequence[Operator], target: Target) -> None:
    """On several devices side by side, choose at once the tiles that they will be asked for; alone, `_lower_together` does."""
    designs = target.hardware
    if not isinstance(designs, Designs):
        return
    found = []
    for operator in operators:
        if operator.op in OPS:
            stages_on = partial(_stages_on, operator, designs, target.policy)
            found += [stages.products for _, stages in along_paths(stages_on, len(designs.each))]
    prepare_on_each([each for each in found if isinstance(each, Candidates)], target.hardware)
    prepare_products([each for each in found if isinstance(each, Gemm)], target.hardware)


def _stages_on(operator: Operator, designs: Designs, policy: Policy) -> Stages:
    return _checked_stages(operator, Target(designs.again(), policy))[1]


def _of_operator(operator: Operator, target: Target) -> tuple[list[Kernel], Stages]:
    """What puts an input in order first, and the stages of the convolution."""
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
        return [], stages(problem, target.hardware)
    copied = _in_order(x, channels_last)
    copies = copy(x.shape, as_it_lies(x, problem.source), copied, target.hardware)
    return copies, stages(replace(problem, source=copied.tensor), target.hardware)


@by_what_it_reads
def _checked_stages(operator: Operator, target: Target) -> tuple[list[Kernel], Stages]:
    """`_of_operator`, its kernels checked but for the products."""
    copies, found = _of_operator(operator, target)
    for kernel in (*copies, *found.before, *found.after):
        check(kernel, target.hardware)
    return copies, found


@by_what_it_reads
def _checked_bias(problem: Convolution, target: Target) -> tuple[Kernel]:
    kernel = _add_bias(problem, target.hardware)
    check(kernel, target.hardware)
    return (kernel,)


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
    aten=dict.fromkeys(OPS, _lower),
    together=_lower_together,
    prepare=_prepare,
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
