"""Which kernel family an operator belongs to: by aten name for a trace, by `op` for a table of single kernels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from simtti.errors import InputError
from simtti.hw_configs.hardware import Hardware
from simtti.simulator.kernel import Access, Kernel
from simtti.simulator.kernels.attention import KERNELS as ATTENTION_KERNELS
from simtti.simulator.kernels.attention import attention
from simtti.simulator.kernels.communication import all_to_all
from simtti.simulator.kernels.convolution import convolution
from simtti.simulator.kernels.elementwise import COST, Operand, broadcast, dense, elementwise
from simtti.simulator.kernels.gemm import gemm
from simtti.simulator.kernels.memory import cat, constant_pad, copy, embedding, fill, upsample_nearest
from simtti.simulator.kernels.normalization import group_norm, layer_norm, reduce, rms_norm, softmax
from simtti.workloads.shard import ALL_TO_ALL, SEND_RECEIVE
from simtti.workloads.trace import Operator, TensorUse

if TYPE_CHECKING:
    from simtti.simulator.predict import Cells

Lower = Callable[[Operator, Hardware, str], list[Kernel]]


# ---- operators of a trace. Tensors are slots: the inputs in order, then the outputs.


def _operand(use: TensorUse, slot: int, walk: tuple[int, ...]) -> Operand:
    """`use` as a kernel sees it that walks over the shape `walk`."""
    return broadcast(slot, use.shape, use.strides, use.dtype, walk)


def _reads(operator: Operator) -> tuple[Access, ...]:
    """Unique bytes of each input: an expanded weight is no larger than its storage."""
    return tuple(
        Access(slot, float(min(use.nbytes, use.storage_bytes))) for slot, use in enumerate(operator.inputs)
    )


def _writes(operator: Operator) -> tuple[Access, ...]:
    return tuple(
        Access(len(operator.inputs) + slot, float(use.nbytes)) for slot, use in enumerate(operator.outputs)
    )


def _matrix_product(operator: Operator, hardware: Hardware, attention_policy: str) -> list[Kernel]:
    """mm, bmm, addmm, baddbmm: the two matrices are the last inputs; a bias before them goes into the epilogue."""
    a, b = operator.inputs[-2:]
    batch = math.prod(a.shape[:-2])
    if batch > 1 and not b.strides[0]:  # one matrix for all: the rows stand in one taller product
        m, batch = a.shape[-2] * batch, 1
    else:
        m = a.shape[-2]
    return gemm(
        m,
        b.shape[-1],
        a.shape[-1],
        batch,
        a.dtype,
        hardware,
        reads=_reads(operator),
        writes=_writes(operator),
    )


def _linear(operator: Operator, hardware: Hardware, attention_policy: str) -> list[Kernel]:
    x, weight = operator.inputs[:2]
    rows = math.prod(x.shape[:-1])
    return gemm(
        rows,
        weight.shape[0],
        weight.shape[1],
        1,
        x.dtype,
        hardware,
        reads=_reads(operator),
        writes=_writes(operator),
    )


def _convolution(operator: Operator, hardware: Hardware, attention_policy: str) -> list[Kernel]:
    x, weight = operator.inputs[:2]
    attributes = operator.attributes
    spatial = x.shape[2:]
    channels_last = x.channels_last or weight.channels_last
    if channels_last and (x.contiguous and not _lies_both_ways(x)):
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
        hardware,
        layout="nhwc" if channels_last else "nchw",
        bias=len(operator.inputs) > 2,
        transposed=transposed,
        out_spatial=operator.outputs[0].shape[2:],
        source=0,
        weight=1,
        bias_tensor=2,
        target=len(operator.inputs),
    )


def _lies_both_ways(use: TensorUse) -> bool:
    return use.contiguous and use.channels_last


def _attention(operator: Operator, hardware: Hardware, attention_policy: str) -> list[Kernel]:
    query, key, _ = operator.inputs[:3]
    batch, heads = math.prod(query.shape[:-3]), query.shape[-3] if len(query.shape) > 2 else 1
    kernel = None if attention_policy == "flash" else attention_policy
    if kernel is None and operator.attributes.get("has_mask"):
        kernel = "efficient"  # PyTorch's flash kernel takes no mask (native/transformers/cuda/sdp_utils.cpp)
    slots = [0, 1, 2, len(operator.inputs)]
    before: list[Kernel] = []
    after: list[Kernel] = []
    if kernel == "baseline":
        slots, before, after = _made_dense(operator, hardware)
    q, k, v, out = slots
    found = attention(
        batch, heads, query.shape[-2], key.shape[-2], query.shape[-1], bool(operator.attributes.get("causal")),
        query.dtype, hardware, kernel, q=q, k=k, v=v, out=out,
    )  # fmt: skip
    received = operator.attributes.get("receives_bytes")
    if received:  # the ring's next keys and values arrive while these are attended to
        main = max(range(len(found)), key=lambda index: found[index].flops)
        found[main] = replace(found[main], link_bytes=float(received))
    return [*before, *found, *after]


def _all_to_all(operator: Operator, hardware: Hardware, attention_policy: str) -> list[Kernel]:
    return all_to_all(float(operator.inputs[0].nbytes), int(operator.attributes["ranks"]), 0, 1, hardware)


def _overlapped(operator: Operator, hardware: Hardware, attention_policy: str) -> list[Kernel]:
    """Sends and receives on a stream of their own: what they hold up is in the kernel they run beside (`receives_bytes`)."""
    return []


def _made_dense(operator: Operator, hardware: Hardware) -> tuple[list[int], list[Kernel], list[Kernel]]:
    """What unfused attention copies before its batched products and after: one stride has to count batches and heads
    (aten::bmm takes three dimensions), and the result comes out by batch and head, where the trace's lies by token.

    Returns the slots of queries, keys, values and result as the products see them, and the copies on either side.
    """
    slots: list[int] = []
    before: list[Kernel] = []
    after: list[Kernel] = []
    for slot, use in enumerate((*operator.inputs[:3], operator.outputs[0])):
        is_result = slot == 3
        own = len(operator.inputs) if is_result else slot
        if batches_count_as_one(use):
            slots.append(own)
            continue
        lies, workspace = Operand(own, use.strides, use.dtype), dense(-20 - slot, use.shape, use.dtype)
        slots.append(workspace.tensor)
        if is_result:
            after += copy(use.shape, workspace, lies, hardware)
        else:
            before += copy(use.shape, lies, workspace, hardware)
    return slots, before, after


def batches_count_as_one(use: TensorUse) -> bool:
    """Whether a single stride steps through all dimensions before the last two."""
    outer = [(size, step) for size, step in zip(use.shape[:-2], use.strides[:-2], strict=True) if size > 1]
    return all(step == size * inner for (_, step), (size, inner) in itertools.pairwise(outer))


def _group_norm(operator: Operator, hardware: Hardware, attention_policy: str) -> list[Kernel]:
    x = operator.inputs[0]
    spatial = math.prod(x.shape[2:])
    return group_norm(
        x.shape[0], x.shape[1], spatial, int(operator.attributes["num_groups"]), x.dtype, hardware,
        channels_last=x.channels_last and not x.contiguous, affine=len(operator.inputs) > 1, source=0, weight=1,
        bias=2, target=len(operator.inputs),
    )  # fmt: skip


def _layer_norm(operator: Operator, hardware: Hardware, attention_policy: str) -> list[Kernel]:
    x = operator.inputs[0]
    columns = math.prod(operator.attributes["normalized_shape"])
    slots: dict[str, Any] = {
        "weight": 1,
        "bias": 2 if len(operator.inputs) > 2 else None,
        "target": len(operator.inputs),
        "affine": len(operator.inputs) > 1,
        "rms": "rms_norm" in operator.op,
    }
    if x.contiguous:
        return layer_norm(x.numel // columns, columns, x.dtype, hardware, source=0, **slots)
    # Strided input is made contiguous below the aten level (native/layer_norm.cpp).
    dense_copy = copy(x.shape, Operand(0, x.strides, x.dtype), dense(-9, x.shape, x.dtype), hardware)
    return dense_copy + layer_norm(x.numel // columns, columns, x.dtype, hardware, source=-9, **slots)


def _softmax(operator: Operator, hardware: Hardware, attention_policy: str) -> list[Kernel]:
    x = operator.inputs[0]
    columns = x.shape[int(operator.attributes.get("dim", -1))]
    return softmax(x.numel // columns, columns, x.dtype, hardware, source=0, target=1)


def _reduction(operator: Operator, hardware: Hardware, attention_policy: str) -> list[Kernel]:
    x, y = operator.inputs[0], operator.outputs[0]
    dims = operator.attributes.get("dim")
    dims = [dims] if isinstance(dims, int) else dims
    inner = not dims or (len(x.shape) - 1) in [dim % len(x.shape) for dim in dims]
    outputs = max(y.numel, 1)
    name = operator.op.removeprefix("aten::")
    return reduce(
        outputs,
        x.numel // outputs,
        x.dtype,
        hardware,
        inner=inner,
        name=name,
        source=0,
        target=len(operator.inputs),
    )


def _elementwise(operator: Operator, hardware: Hardware, attention_policy: str) -> list[Kernel]:
    out = operator.outputs[0]
    inputs = [
        _operand(use, slot, out.shape)
        for slot, use in enumerate(operator.inputs)
        if use.numel and not _is_python_number(use, out)
    ]
    name = operator.op.removeprefix("aten::").rstrip("_")
    return elementwise(name, out.shape, inputs, _operand(out, len(operator.inputs), out.shape), hardware)


def _is_python_number(use: TensorUse, out: TensorUse) -> bool:
    """An imported trace lists a Python number among the tensors, without dimensions and in double precision; it is a
    parameter of the launch. (A recorded trace leaves it out.)"""
    return not use.shape and use.dtype in ("fp64", "int64") and use.dtype != out.dtype


def _copy(operator: Operator, hardware: Hardware, attention_policy: str) -> list[Kernel]:
    if operator.attributes.get("transfer"):
        return [_host_copy(operator, hardware)]
    # copy_(target, source) has two inputs; clone, _to_copy and the like one.
    source, out = operator.inputs[-1], operator.outputs[0]
    target = _operand(out, len(operator.inputs), out.shape)
    return copy(out.shape, _operand(source, len(operator.inputs) - 1, out.shape), target, hardware)


def _host_copy(operator: Operator, hardware: Hardware) -> Kernel:
    """A copy between host and device, by a copy engine: no SM works, the host's pageable memory is the limit."""
    nbytes = float(sum(use.nbytes for use in operator.inputs or operator.outputs))
    reads = tuple(Access(slot, float(use.nbytes)) for slot, use in enumerate(operator.inputs))
    latency_s = nbytes / hardware.host_copy_bytes_per_s
    return Kernel("Memcpy host", "memory", 1, threads=32, latency_s=latency_s, reads=reads)


def _cat(operator: Operator, hardware: Hardware, attention_policy: str) -> list[Kernel]:
    out = operator.outputs[0]
    shapes = [use.shape for use in operator.inputs]
    if operator.op == "aten::stack":
        dim = int(operator.attributes.get("dim", 0)) % len(out.shape)
        shapes = [(*shape[:dim], 1, *shape[dim:]) for shape in shapes]
        inputs = [
            Operand(slot, (*use.strides[:dim], 0, *use.strides[dim:]), use.dtype)
            for slot, use in enumerate(operator.inputs)
        ]
    else:
        inputs = [Operand(slot, use.strides, use.dtype) for slot, use in enumerate(operator.inputs)]
    return cat(shapes, inputs, Operand(len(operator.inputs), out.strides, out.dtype), hardware)


def _upsample(operator: Operator, hardware: Hardware, attention_policy: str) -> list[Kernel]:
    x, out = operator.inputs[0], operator.outputs[0]
    return upsample_nearest(x.numel, out.numel, x.dtype, hardware, source=0, target=len(operator.inputs))


def _embedding(operator: Operator, hardware: Hardware, attention_policy: str) -> list[Kernel]:
    table, out = operator.inputs[0], operator.outputs[0]
    columns = min(table.shape[-1] if len(table.shape) > 1 else 1, out.numel)
    rows = -(-out.numel // columns)
    return embedding(rows, columns, table.shape[0], out.dtype, hardware, table=0, target=len(operator.inputs))


def _pad(operator: Operator, hardware: Hardware, attention_policy: str) -> list[Kernel]:
    x, out = operator.inputs[0], operator.outputs[0]
    return constant_pad(
        x.shape, Operand(0, x.strides, x.dtype), out.shape, Operand(1, out.strides, out.dtype), hardware
    )


def _fill(operator: Operator, hardware: Hardware, attention_policy: str) -> list[Kernel]:
    slot = len(operator.inputs)
    return [
        kernel
        for index, out in enumerate(operator.outputs)
        for kernel in fill(out.shape, Operand(slot + index, out.strides, out.dtype), hardware)
    ]


def _scalar_to_host(operator: Operator, hardware: Hardware, attention_policy: str) -> list[Kernel]:
    return [_host_copy(operator, hardware)]


def unknown_operator(operator: Operator, hardware: Hardware, attention_policy: str) -> list[Kernel]:
    """An operator without a model of its own: a stream over all it reads and writes; nothing where that is not known."""
    uses = [*operator.inputs, *operator.outputs]
    streams = [(slot, use) for slot, use in enumerate(uses) if use.numel]
    return [
        kernel
        for slot, use in streams
        for kernel in elementwise("unknown", use.shape, [], dense(slot, use.shape, use.dtype), hardware)
    ]


_POINTWISE = [
    "abs",
    "add",
    "addcmul",
    "addcdiv",
    "clamp",
    "clamp_min",
    "clamp_max",
    "cos",
    "div",
    "eq",
    "erf",
    "exp",
    "floor",
    "ge",
    "gelu",
    "gt",
    "le",
    "lerp",
    "log",
    "logical_and",
    "logical_not",
    "logical_or",
    "lt",
    "masked_fill",
    "maximum",
    "minimum",
    "mul",
    "ne",
    "neg",
    "pow",
    "reciprocal",
    "relu",
    "leaky_relu",
    "rsqrt",
    "rsub",
    "rand",
    "randn",
    "randint",
    "rand_like",
    "randn_like",
    "squeeze",
    "normal",
    "uniform",
    "sigmoid",
    "sign",
    "silu",
    "sin",
    "softplus",
    "sqrt",
    "sub",
    "tanh",
    "where",
    "hardswish",
    "mish",
    "elu",
    "bitwise_not",
    "bitwise_and",
    "bitwise_or",
    "round",
    "ceil",
    "trunc",
    "fmod",
    "remainder",
    "isnan",
    "isinf",
    "nan_to_num",
    "glu",
]
_COPIES = "clone copy _to_copy contiguous repeat roll flip"
_FILLS = "arange zeros ones full zeros_like ones_like full_like zero fill new_zeros new_ones new_full scalar_tensor linspace eye"
# A thread finds its output's source by division: upsampling, padding by neighbours, shuffling pixels.
_ONE_THREAD_AN_OUTPUT = """upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact2d
replication_pad1d replication_pad2d replication_pad3d reflection_pad1d reflection_pad2d pixel_shuffle pixel_unshuffle
avg_pool2d _adaptive_avg_pool2d upsample_bilinear2d upsample_bicubic2d"""
_REDUCTIONS = "mean sum amax amin max min argmax argmin any all var std linalg_vector_norm norm prod cumsum"

LOWERINGS: dict[str, Lower] = {
    f"aten::{name}{suffix}": lower
    for names, lower in (
        ("mm bmm addmm baddbmm addbmm", _matrix_product),
        ("linear", _linear),
        ("convolution _convolution", _convolution),
        ("scaled_dot_product_attention", _attention),
        ("native_group_norm", _group_norm),
        ("native_layer_norm rms_norm _fused_rms_norm", _layer_norm),
        ("_softmax _safe_softmax", _softmax),
        (_REDUCTIONS, _reduction),
        (" ".join(_POINTWISE), _elementwise),
        (_COPIES, _copy),
        ("cat stack", _cat),
        (_ONE_THREAD_AN_OUTPUT, _upsample),
        ("embedding index index_select gather", _embedding),
        ("constant_pad_nd", _pad),
        (_FILLS, _fill),
        ("_local_scalar_dense", _scalar_to_host),
    )
    for name in names.split()
    for suffix in ("", "_")
}
LOWERINGS |= {ALL_TO_ALL: _all_to_all, SEND_RECEIVE: _overlapped}


# ---- rows of a table


def _table_gemm(cells: Cells, hardware: Hardware) -> list[Kernel]:
    return gemm(
        cells.whole("m"), cells.whole("n"), cells.whole("k"), cells.whole("batch", 1), cells.dtype, hardware
    )


def _table_attention(cells: Cells, hardware: Hardware) -> list[Kernel]:
    return attention(
        cells.whole("batch", 1), cells.whole("heads"), cells.whole("q_len"), cells.whole("kv_len"),
        cells.whole("head_dim"), cells.flag("causal"), cells.dtype, hardware,
        cells.text("kernel", None, ATTENTION_KERNELS),
    )  # fmt: skip


def _table_convolution(cells: Cells, hardware: Hardware, axes: str) -> list[Kernel]:
    kernel = tuple(cells.whole(f"k{axis}") for axis in axes)
    stride, padding, layout = (
        cells.whole("stride", 1),
        cells.whole("padding", 0, 0),
        cells.text("layout", "nchw"),
    )
    if layout not in ("nchw", "nhwc", "ncdhw", "ndhwc"):
        raise InputError(f"column 'layout' is {layout!r}; it must be nchw or nhwc")
    spatial = tuple(cells.whole(axis) for axis in axes)
    for axis, size, taps in zip(axes, spatial, kernel, strict=True):
        if size + 2 * padding < taps:
            raise InputError(
                f"column 'k{axis}' is {taps}; it is larger than the padded input of {size + 2 * padding}"
            )
    channels, outputs, groups = cells.whole("c"), cells.whole("oc"), cells.whole("groups", 1)
    if channels % groups or outputs % groups:
        raise InputError(f"column 'groups' is {groups}; it must divide c, {channels}, and oc, {outputs}")
    return convolution(
        cells.whole("n"), channels, spatial, outputs, kernel, (stride,) * len(axes),
        (padding,) * len(axes), (1,) * len(axes), groups, cells.dtype, hardware,
        layout="nchw" if layout in ("nchw", "ncdhw") else "nhwc", bias=cells.flag("bias"),
    )  # fmt: skip


def _table_conv2d(cells: Cells, hardware: Hardware) -> list[Kernel]:
    return _table_convolution(cells, hardware, "hw")


def _table_conv3d(cells: Cells, hardware: Hardware) -> list[Kernel]:
    return _table_convolution(cells, hardware, "dhw")


def _table_group_norm(cells: Cells, hardware: Hardware) -> list[Kernel]:
    channels, groups = cells.whole("c"), cells.whole("groups", 32)
    if channels % groups:
        raise InputError(f"column 'groups' is {groups}; it must divide c, {channels}")
    channels_last = cells.text("layout", "nchw", ("nchw", "nhwc")) == "nhwc"
    return group_norm(
        cells.whole("n"), channels, cells.whole("spatial"), groups, cells.dtype, hardware,
        channels_last=channels_last,
    )  # fmt: skip


def _table_layer_norm(cells: Cells, hardware: Hardware) -> list[Kernel]:
    return layer_norm(cells.whole("rows"), cells.whole("cols"), cells.dtype, hardware)


def _table_rms_norm(cells: Cells, hardware: Hardware) -> list[Kernel]:
    return rms_norm(cells.whole("rows"), cells.whole("cols"), cells.dtype, hardware)


def _table_softmax(cells: Cells, hardware: Hardware) -> list[Kernel]:
    return softmax(cells.whole("rows"), cells.whole("cols"), cells.dtype, hardware)


# Functions of one instruction an element.
_PLAIN_FUNCTIONS = ("add", "mul", "mul_scalar", "fill")


def _table_elementwise(cells: Cells, hardware: Hardware) -> list[Kernel]:
    shape = (cells.whole("numel"),)
    count = cells.whole("inputs", 1, 0)
    inputs = [dense(slot, shape, cells.dtype) for slot in range(count)]
    function = cells.text("function", "add", (*_PLAIN_FUNCTIONS, *COST, "gelu_tanh")) or "add"
    function = (
        "gelu" if function == "gelu_tanh" else function
    )  # as many special functions and about as many instructions
    return elementwise(function, shape, inputs, dense(count, shape, cells.dtype), hardware)


def _table_copy(cells: Cells, hardware: Hardware) -> list[Kernel]:
    shape = (cells.whole("numel"),)
    return copy(shape, dense(0, shape, cells.dtype), dense(1, shape, cells.dtype), hardware)


def _table_permute(cells: Cells, hardware: Hardware) -> list[Kernel]:
    """(batch, rows, cols, inner) to (batch, cols, rows, inner)."""
    batch, rows, cols, inner = (
        cells.whole("batch", 1), cells.whole("rows"), cells.whole("cols"), cells.whole("inner", 1),
    )  # fmt: skip
    shape = (batch, cols, rows, inner)
    source = Operand(0, (rows * cols * inner, inner, cols * inner, 1), cells.dtype)
    return copy(shape, source, dense(1, shape, cells.dtype), hardware)


def _table_cat(cells: Cells, hardware: Hardware) -> list[Kernel]:
    """(n, c, spatial) and (n, c2, spatial) to (n, c + c2, spatial); spatial may be given as h and w."""
    n = cells.whole("n")
    spatial = cells.whole("spatial", cells.whole("h", 1) * cells.whole("w", 1))
    shapes = [(n, cells.whole(column), spatial) for column in ("c", "c2")]
    inputs = [dense(slot, shape, cells.dtype) for slot, shape in enumerate(shapes)]
    out = (n, shapes[0][1] + shapes[1][1], spatial)
    return cat(shapes, inputs, dense(2, out, cells.dtype), hardware)


def _table_embedding(cells: Cells, hardware: Hardware) -> list[Kernel]:
    return embedding(
        cells.whole("rows"), cells.whole("cols"), cells.whole("table_rows", 49408), cells.dtype, hardware
    )


def _table_upsample(cells: Cells, hardware: Hardware) -> list[Kernel]:
    numel = cells.whole("n") * cells.whole("c") * cells.whole("h") * cells.whole("w")
    return upsample_nearest(numel, numel * cells.whole("scale", 2) ** 2, cells.dtype, hardware)


FAMILIES: dict[str, Callable[[Cells, Hardware], list[Kernel]]] = {
    "gemm": _table_gemm,
    "attention": _table_attention,
    "conv2d": _table_conv2d,
    "conv3d": _table_conv3d,
    "group_norm": _table_group_norm,
    "layer_norm": _table_layer_norm,
    "rms_norm": _table_rms_norm,
    "softmax": _table_softmax,
    "elementwise": _table_elementwise,
    "copy": _table_copy,
    "permute": _table_permute,
    "cat": _table_cat,
    "embedding": _table_embedding,
    "upsample": _table_upsample,
}
