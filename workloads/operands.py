"""What an operator of a trace must hold for its kernels to be known: operands, their ranks, attributes.

Traces come from files of others. `problem_of` is asked where one is read, so that what no operator of torch's could be is said
there, by its place in the file, and everything behind may rely on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from simtti.workloads import aten_results
from simtti.workloads.aten import OPERATORS
from simtti.workloads.trace import Operator, TensorUse

_MOST_ELEMENTS = 2**48  # of a tensor: beyond any memory


def problem_of(operator: Operator) -> str:
    """What is wrong with an operator's operands or attributes, in a few words; '' where nothing is.

    A view, and an operator of which no results are known, launch nothing that is modelled and hold what they may.
    """
    if operator.is_view or not operator.outputs:
        return ""
    for use in (*operator.inputs, *operator.outputs):
        if use.numel > _MOST_ELEMENTS or use.storage_bytes > 8 * _MOST_ELEMENTS:
            return f"a tensor of shape {list(use.shape)} fits into no memory"
    if not all(use.numel for use in operator.outputs):
        return ""  # an empty result launches nothing
    name = operator.op.removeprefix("aten::")
    name = name.rstrip("_") if "::" not in name else name
    return _CHECKS[name](operator) if name in _CHECKS else ""


def _needs(operator: Operator, inputs: int, least_rank: int = 0) -> str:
    if len(operator.inputs) < inputs:
        return f"it has {len(operator.inputs)} tensors; it takes at least {inputs}"
    for use in operator.inputs[:inputs]:
        if len(use.shape) < least_rank:
            return f"an operand of shape {list(use.shape)} has fewer than {least_rank} dimensions"
    return ""


def _whole(value: Any, least: int) -> bool:
    return type(value) is int and value >= least


def _listed(operator: Operator, name: str, least: int, length: int) -> str:
    """Whether an attribute that may be missing is a list of so many whole numbers."""
    value = operator.attributes.get(name)
    if value is None:
        return ""
    if isinstance(value, list) and len(value) in (1, length) and all(_whole(each, least) for each in value):
        return ""
    return f"attribute {name} is {value!r}; it must be {length} whole numbers of at least {least}"


def _matrices(a: TensorUse, b: TensorUse) -> str:
    if min(len(a.shape), len(b.shape)) < 2 or a.shape[-1] != b.shape[-2] or not a.shape[-1]:
        return f"matrices of shapes {list(a.shape)} and {list(b.shape)} have no product"
    return ""


def _product(operator: Operator) -> str:
    return _needs(operator, 2) or _matrices(*operator.inputs[-2:])


def _scaled_product(operator: Operator) -> str:
    return _needs(operator, 2) or _matrices(*operator.inputs[:2])


def _linear(operator: Operator) -> str:
    problem = _needs(operator, 2, 1)
    if problem:
        return problem
    x, weight = operator.inputs[:2]
    if len(weight.shape) != 2 or x.shape[-1] != weight.shape[1] or not weight.shape[1]:
        return f"a weight of shape {list(weight.shape)} does not fit {list(x.shape)}"
    return ""


def _convolution(operator: Operator) -> str:
    problem = _needs(operator, 2, 3)
    if problem:
        return problem
    image, weight = operator.inputs[:2]
    result = operator.outputs[0]
    rank, attributes = len(image.shape), operator.attributes
    if not rank == len(weight.shape) == len(result.shape) <= 5 or 0 in (*image.shape, *weight.shape):
        return f"filters of shape {list(weight.shape)} do not fit an image of {list(image.shape)}"
    for name, least in (("stride", 1), ("padding", 0), ("dilation", 1), ("output_padding", 0)):
        problem = problem or _listed(operator, name, least, rank - 2)
    groups = attributes.get("groups", 1)
    if not _whole(groups, 1) or image.shape[1] % groups or result.shape[1] % groups:
        return f"attribute groups is {groups!r}; it must divide the channels"
    return problem


def _group_norm(operator: Operator) -> str:
    groups: Any = operator.attributes.get("num_groups")
    problem = _needs(operator, 1, 2)
    if problem or (
        _whole(groups, 1) and operator.inputs[0].shape[1] % groups == 0 and operator.inputs[0].numel
    ):
        return problem
    return f"attribute num_groups is {groups!r}; it must be a whole number that divides the channels"


def _row_norm(operator: Operator) -> str:
    problem = _needs(operator, 1, 1)
    if problem:
        return problem
    shape, columns = operator.inputs[0].shape, operator.attributes.get("normalized_shape")
    last = list(shape[-len(columns) :]) if isinstance(columns, list) and columns else None
    if last is None or columns != last or not math.prod(last):
        return f"attribute normalized_shape is {columns!r}; it must be the last dimensions of {list(shape)}"
    return ""


def _attention(operator: Operator) -> str:
    problem = _needs(operator, 3, 2)
    if problem:
        return problem
    query, key, value = operator.inputs[:3]
    if (
        query.shape[-1] != key.shape[-1]
        or key.shape[-2] != value.shape[-2]
        or not (query.numel and key.numel)
    ):
        return f"queries, keys and values of shapes {', '.join(str(list(use.shape)) for use in operator.inputs[:3])} do not fit"
    return ""


def _along(operator: Operator) -> str:
    """A softmax: along a dimension of its operand."""
    problem = _needs(operator, 1, 1)
    if problem:
        return problem
    dim, rank = operator.attributes.get("dim", -1), len(operator.inputs[0].shape)
    return (
        "" if type(dim) is int and -rank <= dim < rank else f"attribute dim is {dim!r} of {rank} dimensions"
    )


def _reduced(operator: Operator) -> str:
    problem = _needs(operator, 1)
    if problem:
        return problem
    dims, rank = operator.attributes.get("dim"), max(len(operator.inputs[0].shape), 1)
    listed = dims if isinstance(dims, list) else [] if dims is None else [dims]
    if not all(type(dim) is int and -rank <= dim < rank for dim in listed):
        return f"attribute dim is {dims!r} of {rank} dimensions"
    return "" if operator.inputs[0].numel else "it reduces an empty tensor"


def _joined(operator: Operator) -> str:
    """cat and stack."""
    problem = _needs(operator, 1)
    if problem:
        return problem
    dim, rank = operator.attributes.get("dim", 0), len(operator.outputs[0].shape)
    return (
        "" if type(dim) is int and -rank <= dim < rank else f"attribute dim is {dim!r} of {rank} dimensions"
    )


def _one(operator: Operator) -> str:
    return _needs(operator, 1)


def _spread(operator: Operator) -> str:
    """Elementwise: every operand is repeated to the result's shape, by NumPy's rules."""
    shape = operator.outputs[0].shape
    for use in operator.inputs:
        seen = (1,) * (len(shape) - len(use.shape)) + use.shape
        if use.numel and (
            len(seen) != len(shape) or any(n not in (1, whole) for n, whole in zip(seen, shape, strict=True))
        ):
            return f"an operand of shape {list(use.shape)} does not fit a result of {list(shape)}"
    return ""


def _copied(operator: Operator) -> str:
    if operator.attributes.get("transfer"):
        return ""
    return _needs(operator, 1) or _spread(replace(operator, inputs=operator.inputs[-1:]))


_SPREAD = (aten_results.broadcast, aten_results.compared, aten_results.chosen)
_CHECKS: dict[str, Callable[[Operator], str]] = {
    **{name: _spread for name, found in OPERATORS.items() if found.result in _SPREAD},
    **dict.fromkeys(["copy", "clone", "_to_copy"], _copied),
    **dict.fromkeys(["mm", "bmm", "addmm", "baddbmm", "addbmm"], _product),
    "_scaled_mm": _scaled_product,
    "linear": _linear,
    **dict.fromkeys(["convolution", "_convolution", "cudnn_convolution"], _convolution),
    "native_group_norm": _group_norm,
    **dict.fromkeys(["native_layer_norm", "_fused_rms_norm", "rms_norm"], _row_norm),
    "scaled_dot_product_attention": _attention,
    **dict.fromkeys(["_softmax", "_log_softmax", "_safe_softmax"], _along),
    **dict.fromkeys(
        [
            "mean",
            "sum",
            "amax",
            "amin",
            "all",
            "any",
            "argmax",
            "argmin",
            "max",
            "min",
            "prod",
            "std",
            "var",
            "norm",
            "linalg_vector_norm",
            "cumsum",
        ],
        _reduced,
    ),
    **dict.fromkeys(["cat", "stack"], _joined),
    **dict.fromkeys(
        [
            "embedding",
            "gather",
            "index",
            "index_select",
            "upsample_nearest1d",
            "upsample_nearest2d",
            "upsample_nearest3d",
            "upsample_bicubic2d",
            "_upsample_nearest_exact2d",
            "upsample_bilinear2d",
            "pixel_shuffle",
            "pixel_unshuffle",
            "reflection_pad1d",
            "reflection_pad2d",
            "replication_pad1d",
            "replication_pad2d",
            "replication_pad3d",
            "avg_pool2d",
            "_adaptive_avg_pool2d",
            "repeat",
            "constant_pad_nd",
            "contiguous",
            "flip",
            "roll",
        ],
        _one,
    ),
}
