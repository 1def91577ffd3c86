"""What an aten operator is, by name: its category, its arguments, its result; and an Operator made from a call.

A call is what a profiler saw: name, and of each argument the shape, strides and dtype, or the value. That leaves
open what it returned and which tensor is which: results are given where the operator makes them certain, and every
operand counts as a tensor of its own. Needs no torch.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from simtti.workloads.trace import ITEM_BYTES, Operator, TensorUse, row_major


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Names without 'aten::' and without the '_' of the in-place form. Composite: what torch takes apart into others
# before any backend sees it (CompositeImplicitAutograd), so that a recording holds the others.
COMPOSITE = _names(
    "_batch_norm_impl_index _cast_Float _cast_Half _cast_Long _convolution_mode _pad_circular _pad_enum "
    "_weight_norm adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d alpha_dropout arctan2 "
    "argsort atleast_1d atleast_2d atleast_3d batch_norm bilinear broadcast_tensors broadcast_to chunk "
    "clip column_stack concat concatenate conj contiguous conv1d conv2d conv3d conv_transpose1d "
    "conv_transpose2d conv_transpose3d cosine_similarity cross_entropy_loss diff divide dropout dsplit "
    "dstack einsum embedding_backward embedding_bag expand_as feature_dropout fix flatten fliplr flipud "
    "float_power greater greater_equal grid_sampler group_norm gru hsplit hstack inner instance_norm "
    "is_nonzero isfinite item kron layer_norm less less_equal linear log_sigmoid log_softmax lstm matmul "
    "matrix_power max_pool1d max_pool2d max_pool3d meshgrid moveaxis movedim multiply narrow negative "
    "nll_loss nll_loss2d nll_loss_nd not_equal numpy_T one_hot outer pad pad_sequence pairwise_distance "
    "prelu ravel relu6 reshape reshape_as resolve_conj resolve_neg rms_norm selu softmax square subtract "
    "sum_to_size swapaxes swapdims take_along_dim tensor_split tensordot tile to true_divide type_as "
    "unflatten unsafe_chunk view_as vsplit vstack"
)
_ATTENTION = "scaled_dot_product_attention"
# As the recorder sorts them; the rest is what only runs outside an inference recording.
CATEGORY_OF = {
    name: category
    for category, names in {
        "Convolution": "convolution _convolution _slow_conv2d_forward conv_depthwise3d _conv_depthwise2d",
        "Linear": "mm addmm bmm baddbmm addbmm mv addmv dot linear _addmm_activation _scaled_mm _int_mm",
        "Attention": "scaled_dot_product_attention",
        "GroupNorm": "native_group_norm",
        "LayerNorm": "native_layer_norm _fused_rms_norm rms_norm",
        "Softmax": "_softmax _log_softmax _safe_softmax",
        "Elementwise": "randn rand randint normal uniform bernoulli native_dropout "
        "abs add addcdiv addcmul atan2 bitwise_and bitwise_not bitwise_or bitwise_xor ceil clamp clamp_max clamp_min "
        "cos cosh div elu eq erf exp exp2 expm1 floor fmod gelu gelu_backward ge gt hardsigmoid hardswish "
        "hardtanh isinf isnan le leaky_relu lerp log log10 log1p log2 logical_and logical_not logical_or lt maximum "
        "minimum mish mul nan_to_num ne neg pow reciprocal relu remainder round rsqrt rsub sgn sigmoid "
        "sigmoid_backward sign silu silu_backward sin sinh softplus sqrt sub tan tanh tanh_backward "
        "threshold threshold_backward trunc where xlogy isneginf isposinf fmax fmin",
        "Memory": "clone copy _to_copy cat stack repeat constant_pad_nd reflection_pad2d replication_pad2d "
        "replication_pad3d upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact2d "
        "upsample_bilinear2d upsample_bicubic2d pixel_shuffle pixel_unshuffle index index_select index_put gather "
        "scatter embedding masked_fill roll flip arange zeros ones full zeros_like ones_like full_like zero fill "
        "new_zeros new_ones new_full scalar_tensor eye linspace tril triu slice_scatter select_scatter "
        "_local_scalar_dense _index_put_impl",
    }.items()
    for name in names.split()
}  # fmt: skip
_COMPARISONS = _names("eq ge gt isinf isnan isneginf isposinf le logical_and logical_not logical_or lt ne")
ELEMENTWISE = frozenset(name for name, category in CATEGORY_OF.items() if category == "Elementwise") - {
    "randn", "rand", "randint", "normal", "uniform", "bernoulli", "native_dropout", "where",
}  # fmt: skip
_VIEWS = _names(
    "_conj _reshape_alias _unsafe_split _unsafe_view alias as_strided detach diagonal empty empty_like "
    "empty_permuted empty_strided expand imag lift_fresh new_empty new_empty_strided numpy_T permute real "
    "resize select set slice split split_with_sizes squeeze t transpose unbind unfold unsqueeze view "
    "view_as_complex view_as_real"
)
# The names of arguments that change the work, by position; '' for those that do not.
_ARGUMENTS = {
    name: tuple(argument.strip("-") for argument in arguments.split())
    for name, arguments in {
        "convolution": "input weight bias stride padding dilation transposed output_padding groups",
        "_convolution": "input weight bias stride padding dilation transposed output_padding groups",
        "native_group_norm": "input weight bias N C HxW num_groups eps",
        "native_layer_norm": "input normalized_shape weight bias eps",
        "_softmax": "self dim half_to_float",
        "_log_softmax": "self dim half_to_float",
        "_safe_softmax": "self dim dtype",
        "addmm": "self mat1 mat2 beta alpha",
        "baddbmm": "self batch1 batch2 beta alpha",
        "cat": "tensors dim",
        "stack": "tensors dim",
        "_to_copy": "self dtype - - - - memory_format",
        "clone": "self memory_format",
        "copy": "self src -",
        "gelu": "self approximate",
        "embedding": "weight indices padding_idx scale_grad_by_freq sparse",
        "mean": "self dim keepdim dtype",
        "sum": "self dim keepdim dtype",
        "amax": "self dim keepdim",
        "all": "self dim keepdim",
        "any": "self dim keepdim",
        "argmax": "self dim keepdim",
        "argmin": "self dim keepdim",
        "amin": "self dim keepdim",
        _ATTENTION: "query key value attn_mask dropout_p causal scale enable_gqa",
        "upsample_nearest1d": "self output_size scales",
        "upsample_nearest2d": "self output_size scales",
        "upsample_nearest3d": "self output_size scales",
        "repeat": "self repeats",
        "constant_pad_nd": "self pad value",
        "pow": "self exponent",
        "add": "self other alpha",
        "sub": "self other alpha",
        "rsub": "self other alpha",
        "mul": "self other",
        "div": "self other rounding_mode",
        "clamp": "self min max",
        "view": "self size",
        "_unsafe_view": "self size",
        "expand": "self size implicit",
        "transpose": "self dim0 dim1",
        "permute": "self dims",
        "unsqueeze": "self dim",
        "squeeze": "self dim",
        "slice": "self dim start end step",
        "select": "self dim index",
        "split": "self split_size dim",
        "split_with_sizes": "self split_sizes dim",
        "index_select": "self dim index",
        "zeros": "size dtype - - -",
        "ones": "size dtype - - -",
        "full": "size fill_value dtype - - -",
        "empty": "size dtype - - - memory_format",
        "max_pool2d_with_indices": "self kernel_size stride padding dilation ceil_mode",
    }.items()
}
_DTYPES = {
    "float": "fp32", "double": "fp64", "c10::Half": "fp16", "c10::BFloat16": "bf16",
    "c10::Float8_e4m3fn": "fp8_e4m3", "c10::Float8_e5m2": "fp8_e5m2",
    "c10::complex<float>": "complex64", "c10::complex<double>": "complex128",
    "long int": "int64", "long": "int64", "int": "int32", "short int": "int16", "short": "int16",
    "signed char": "int8", "unsigned char": "uint8", "bool": "bool",
}  # fmt: skip
KINETO_DTYPES = {ours: theirs for theirs, ours in reversed(_DTYPES.items())}
# c10::ScalarType and c10::MemoryFormat, which Kineto writes as numbers.
_SCALAR_TYPES = {
    0: "uint8", 1: "int8", 2: "int16", 3: "int32", 4: "int64", 5: "fp16", 6: "fp32", 7: "fp64",
    9: "complex64", 10: "complex128", 11: "bool", 15: "bf16", 23: "fp8_e5m2", 24: "fp8_e4m3",
}  # fmt: skip
_MEMORY_FORMATS = ("contiguous_format", "preserve_format", "channels_last", "channels_last_3d")
_FLOATS = ("fp64", "fp32", "bf16", "fp16")  # what type promotion prefers, widest first
ATTENTION_BACKENDS = {
    "_scaled_dot_product_flash_attention": "flash", "_scaled_dot_product_efficient_attention": "efficient",
    "_scaled_dot_product_cudnn_attention": "cudnn", "_scaled_dot_product_attention_math": "math",
    "_scaled_dot_product_flash_attention_for_cpu": "flash", "_scaled_dot_product_fused_attention_overrideable": "fused",
}  # fmt: skip


@dataclass(slots=True)
class Call:
    """An operator as the host called it: Kineto's name and arguments."""

    name: str
    start_us: float
    duration_us: float
    thread: int
    module: str
    arguments: dict[str, Any]
    waiting_us: float = 0.0
    backend: str = ""
    row: int = -1


@lru_cache(maxsize=4096)
def category_of(name: str, base: str) -> str:
    if base in CATEGORY_OF:
        return CATEGORY_OF[base]
    if "convolution" in base:
        return "Convolution"
    return "Attention" if re.search(r"attention|flash_attn|::fmha", name) else "Other"


@lru_cache(maxsize=4096)
def gives_way(name: str) -> bool:
    """Whether what an operator calls counts in its place: composites, autograd nodes, annotations."""
    if name.startswith("aten::"):
        base = _base(name)
        return base in COMPOSITE
    return "::" not in name or name.startswith("autograd::")


def _base(name: str) -> str:
    name = name.removeprefix("aten::")
    return name if name.startswith("_") else name.rstrip("_")


class OperatorMaker:
    """Turns calls into operators, numbering operands as they come."""

    def __init__(self, calls: list[Call]):
        self.dtypes_assumed = 0
        self._tensors = 0
        found = Counter(
            _DTYPES[name]
            for call in calls
            for name in call.arguments.get("Input type", ())
            if isinstance(name, str) and _DTYPES.get(name) in _FLOATS
        )
        self._usual_dtype = found.most_common(1)[0][0] if found else "fp32"

    def operator(self, call: Call, position: int, *, launches: bool, on_gpu: bool) -> Operator:
        """The operator of a call. On a trace with kernels, one that launched none and is no view was the host's."""
        base = _base(call.name) if call.name.startswith("aten::") else ""
        positions = self._operands(call)
        attributes = _attributes(base, call, positions)
        inputs = tuple(use for _, uses in positions for use in uses)
        in_place = bool(base) and call.name.endswith("_") and not call.name.startswith("aten::_")
        category = category_of(call.name, base)
        if base in _VIEWS:
            is_view, category = not launches, "Memory" if launches else "View"
        else:
            is_view = on_gpu and not launches
            if is_view:
                category, attributes = "Other", {**attributes, "device": "cpu"}
        if "Input Dims" not in call.arguments:
            attributes = {**attributes, "shapes_recorded": False}
        outputs: tuple[TensorUse, ...] = ()
        if inputs or base in ("zeros", "ones", "full", "empty"):
            if in_place or base == "copy":
                outputs = inputs[:1]
            else:
                with suppress(
                    LookupError, TypeError, ValueError
                ):  # arguments that are not what the name promises
                    outputs = self._outputs(base, call, dict(positions), inputs, attributes)
        return Operator(
            "profile", 0, position, call.module, call.name, category, inputs, outputs, attributes, is_view
        )

    def _operands(self, call: Call) -> list[tuple[int, list[TensorUse]]]:
        """The tensors among the arguments, by the arguments' positions."""
        arguments = call.arguments
        dims, types = arguments.get("Input Dims"), arguments.get("Input type")
        if not dims or not types:
            return []
        strides = arguments.get("Input Strides") or ()
        found: list[tuple[int, list[TensorUse]]] = []
        for i, (shape, name) in enumerate(zip(dims, types, strict=False)):
            if name in _DTYPES:
                found.append(
                    (i, [self._use(tuple(shape), strides[i] if i < len(strides) else None, _DTYPES[name])])
                )
            elif name in ("TensorList", "GenericList") and shape and isinstance(shape[0], list):
                # Kineto does not say of what type a list's tensors are.
                dtype = next((uses[0].dtype for _, uses in found), self._usual_dtype)
                self.dtypes_assumed += 1
                laid_out = (
                    strides[i] if i < len(strides) and len(strides[i]) == len(shape) else [None] * len(shape)
                )
                uses = [self._use(tuple(item), how, dtype) for item, how in zip(shape, laid_out, strict=True)]
                found.append((i, uses))
        return found

    def _use(self, shape: tuple[int, ...], strides: Any, dtype: str, role: str = "input") -> TensorUse:
        laid_out = tuple(strides) if strides is not None and len(strides) == len(shape) else row_major(shape)
        extent = 0 if 0 in shape else 1 + sum((n - 1) * step for n, step in zip(shape, laid_out, strict=True))
        self._tensors += 1
        return TensorUse(self._tensors - 1, shape, laid_out, dtype, extent * ITEM_BYTES[dtype], role)

    def _outputs(
        self,
        base: str,
        call: Call,
        by_position: dict[int, list[TensorUse]],
        inputs: tuple[TensorUse, ...],
        attributes: dict[str, Any],
    ) -> tuple[TensorUse, ...]:
        """What an operator made, where its inputs and attributes leave no doubt."""
        if base in ELEMENTWISE:
            shape, dtype = _broadcast([use.shape for use in inputs]), _promoted(inputs)
            dtype = "bool" if base in _COMPARISONS else dtype
            alike = next((use.strides for use in inputs if use.shape == shape and _dense(use)), None)
            return (self._use(shape, alike, dtype, "activation"),)
        rule = _RESULTS.get(base)
        if rule is None or (
            "Concrete Inputs" not in call.arguments and (rule not in _BY_SHAPES or base == "_to_copy")
        ):
            return ()
        found = rule(by_position, inputs, attributes)
        return () if found is None else (self._use(*found, "activation"),)


def _attributes(base: str, call: Call, operands: list[tuple[int, list[TensorUse]]]) -> dict[str, Any]:
    """A call's arguments that are not tensors, named as the recorder names them, where the file has them."""
    given = call.arguments.get("Concrete Inputs") or ()
    tensors = {i for i, _ in operands}
    values = {
        i: value for i, text in enumerate(given) if i not in tensors and (value := _parsed(text)) is not None
    }
    names = _ARGUMENTS.get(base)
    if names is None:
        return {"arguments": list(values.values())} if values else {}
    attributes = {names[i]: value for i, value in values.items() if i < len(names) and names[i]}
    if "dtype" in attributes:
        attributes["dtype"] = _SCALAR_TYPES.get(attributes["dtype"], str(attributes["dtype"]))
    number = attributes.get("memory_format")
    if isinstance(number, int) and 0 <= number < len(_MEMORY_FORMATS):
        attributes["memory_format"] = _MEMORY_FORMATS[number]
    if base == _ATTENTION and len(operands) >= 3:
        query, key = operands[0][1][0], operands[1][1][0]
        attributes.setdefault("scale", 1 / math.sqrt(query.shape[-1]))
        attributes.setdefault("causal", False)
        attributes.setdefault("dropout_p", 0.0)
        attributes.setdefault("enable_gqa", False)
        attributes["has_mask"] = 3 in tensors
        attributes["kind"] = "self" if query.shape[-2] == key.shape[-2] else "cross"
        attributes["domain"] = "unknown"
        if call.backend:
            attributes["backend"] = call.backend
    return attributes


@lru_cache(maxsize=4096)
def _parsed(text: Any) -> Any:
    """A concrete argument: a number, a truth value, a list of them or a text; None where there is none."""
    if not isinstance(text, str) or text in ("", "None"):
        return None
    if text in ("True", "False"):
        return text == "True"
    try:
        return json.loads(re.sub(r"(\d)\.(?!\d)", r"\1.0", text))  # C++ writes 2. for 2.0
    except ValueError:
        return text


def _broadcast(shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    rank = max(map(len, shapes))
    columns = zip(*([1] * (rank - len(shape)) + list(shape) for shape in shapes), strict=True)
    return tuple(0 if 0 in sizes else max(sizes) for sizes in columns)


def _promoted(inputs: tuple[TensorUse, ...]) -> str:
    """The dtype of an elementwise result: a tensor with dimensions outweighs one without, within its kind."""
    with_dims = [use.dtype for use in inputs if use.shape] or [use.dtype for use in inputs]
    floats = {dtype for dtype in with_dims if dtype in _FLOATS}
    if not floats:
        scalars = [use.dtype for use in inputs if use.dtype in _FLOATS]
        return scalars[0] if scalars else max(with_dims, key=ITEM_BYTES.__getitem__)
    return "fp32" if floats == {"bf16", "fp16"} else min(floats, key=_FLOATS.index)


def _dense(use: TensorUse) -> bool:
    return use.numel * ITEM_BYTES[use.dtype] == use.storage_bytes


Operands = dict[int, list[TensorUse]]
Found = tuple[tuple[int, ...], Any, str] | None  # shape, strides (None: row-major), dtype


def _product(operands: Operands, inputs: tuple[TensorUse, ...], attributes: dict[str, Any]) -> Found:
    a, b = inputs[-2:]
    return (
        ((*a.shape[:-1], b.shape[-1]), None, a.dtype) if len(b.shape) > 1 else (a.shape[:-1], None, a.dtype)
    )


def _convolved(operands: Operands, inputs: tuple[TensorUse, ...], attributes: dict[str, Any]) -> Found:
    image, weight = inputs[:2]
    dims = len(image.shape) - 2

    def each(name: str) -> list[int]:
        value = attributes[name]
        return list(value) * dims if len(value) == 1 else list(value)

    sizes = zip(
        image.shape[2:], weight.shape[2:], each("stride"), each("padding"), each("dilation"), strict=True
    )
    if attributes["transposed"]:
        spatial = [
            (n - 1) * s - 2 * p + d * (k - 1) + 1 + extra
            for (n, k, s, p, d), extra in zip(sizes, each("output_padding"), strict=True)
        ]
        channels = weight.shape[1] * attributes["groups"]
    else:
        spatial = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sizes]
        channels = weight.shape[0]
    shape = (image.shape[0], channels, *spatial)
    last = any(use.channels_last and not use.contiguous for use in (image, weight))
    return shape, _channels_last(shape) if last else None, image.dtype


def _channels_last(shape: tuple[int, ...]) -> tuple[int, ...]:
    n, c, *spatial = shape
    batch, *inner = row_major((n, *spatial, c))
    return batch, 1, *inner[:-1]


def _attended(operands: Operands, inputs: tuple[TensorUse, ...], attributes: dict[str, Any]) -> Found:
    query, _, value = inputs[:3]
    shape = (*query.shape[:-1], value.shape[-1])
    if len(shape) != 4:
        return shape, None, query.dtype
    _, heads, length, width = shape  # laid out (batch, length, heads, width), as the fused kernels write it
    return shape, (length * heads * width, width, heads * width, 1), query.dtype


def _alike(operands: Operands, inputs: tuple[TensorUse, ...], attributes: dict[str, Any]) -> Found:
    use = inputs[0]
    dtype = "fp32" if attributes.get("half_to_float") else attributes.get("dtype", use.dtype)
    how = attributes.get("memory_format", "preserve_format")
    keeps = _dense(use) and how == "preserve_format"
    return use.shape, use.strides if keeps else _channels_last(use.shape) if "last" in how else None, dtype


def _joined(operands: Operands, inputs: tuple[TensorUse, ...], attributes: dict[str, Any]) -> Found:
    uses = [use for use in operands[0] if use.shape != (0,)]
    dim = attributes["dim"] % len(uses[0].shape)
    shape = list(uses[0].shape)
    shape[dim] = sum(use.shape[dim] for use in uses)
    return tuple(shape), None, uses[0].dtype


def _reduced(operands: Operands, inputs: tuple[TensorUse, ...], attributes: dict[str, Any]) -> Found:
    shape = inputs[0].shape
    over = attributes.get("dim", [])
    gone = {dim % len(shape) for dim in (over if isinstance(over, list) else [over])} or set(
        range(len(shape))
    )
    kept = attributes.get("keepdim", False)
    sizes = tuple(1 if i in gone else n for i, n in enumerate(shape) if kept or i not in gone)
    return sizes, None, attributes.get("dtype", inputs[0].dtype)


def _tested(operands: Operands, inputs: tuple[TensorUse, ...], attributes: dict[str, Any]) -> Found:
    return _reduced(operands, inputs, {**attributes, "dtype": "bool"})


def _placed(operands: Operands, inputs: tuple[TensorUse, ...], attributes: dict[str, Any]) -> Found:
    return _reduced(operands, inputs, {**attributes, "dtype": "int64"})


def _embedded(operands: Operands, inputs: tuple[TensorUse, ...], attributes: dict[str, Any]) -> Found:
    weight, indices = inputs
    return (*indices.shape, weight.shape[1]), None, weight.dtype


def _resized(operands: Operands, inputs: tuple[TensorUse, ...], attributes: dict[str, Any]) -> Found:
    image = inputs[0]
    if "output_size" in attributes:
        size = tuple(attributes["output_size"])
    else:
        size = tuple(int(n * scale) for n, scale in zip(image.shape[2:], attributes["scales"], strict=True))
    shape = (*image.shape[:2], *size)
    return shape, _channels_last(shape) if image.channels_last and not image.contiguous else None, image.dtype


def _padded(operands: Operands, inputs: tuple[TensorUse, ...], attributes: dict[str, Any]) -> Found:
    shape, pad = list(inputs[0].shape), attributes["pad"]
    for i in range(len(pad) // 2):
        shape[-1 - i] += pad[2 * i] + pad[2 * i + 1]
    return tuple(shape), None, inputs[0].dtype


def _repeated(operands: Operands, inputs: tuple[TensorUse, ...], attributes: dict[str, Any]) -> Found:
    times, shape = attributes["repeats"], inputs[0].shape
    shape = (1,) * (len(times) - len(shape)) + shape
    return tuple(n * count for n, count in zip(shape, times, strict=True)), None, inputs[0].dtype


def _chosen(operands: Operands, inputs: tuple[TensorUse, ...], attributes: dict[str, Any]) -> Found:
    return _broadcast([use.shape for use in inputs]), None, _promoted(inputs[1:])


def _made(operands: Operands, inputs: tuple[TensorUse, ...], attributes: dict[str, Any]) -> Found:
    return tuple(attributes["size"]), None, attributes.get("dtype", "fp32")


_RESULTS: dict[str, Callable[[Operands, tuple[TensorUse, ...], dict[str, Any]], Found]] = {
    **dict.fromkeys(("mm", "addmm", "bmm", "baddbmm", "mv"), _product),
    **dict.fromkeys(("convolution", "_convolution"), _convolved),
    **dict.fromkeys(
        ("native_group_norm", "native_layer_norm", "_softmax", "_log_softmax", "_safe_softmax", "clone", "_to_copy",
         "masked_fill", "native_dropout", "tril", "triu", "zeros_like", "ones_like", "cumsum", "_fused_rms_norm"),
        _alike,
    ),
    **dict.fromkeys(("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d"), _resized),
    **dict.fromkeys(("all", "any"), _tested),
    **dict.fromkeys(("argmax", "argmin"), _placed),
    **dict.fromkeys(("mean", "sum", "amax", "amin"), _reduced),
    **dict.fromkeys(("zeros", "ones", "full", "empty"), _made),
    _ATTENTION: _attended, "cat": _joined, "embedding": _embedded, "repeat": _repeated, "where": _chosen, "constant_pad_nd": _padded,
}  # fmt: skip
# Rules that hold without knowing the arguments that are no tensors: old versions of Kineto do not record those.
_BY_SHAPES = (_product, _attended, _alike, _embedded, _chosen)
