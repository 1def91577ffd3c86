"""A call into torch's operator library, as a trace tells of it: the operator, its tensors, its other arguments."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from simtti.errors import InputError
from simtti.workloads.aten import AtenOperator, operator

DTYPE_NAMES = {
    torch.float64: "fp64", torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16",
    torch.float8_e4m3fn: "fp8_e4m3", torch.float8_e5m2: "fp8_e5m2",
    torch.complex64: "complex64", torch.complex128: "complex128",
    torch.int64: "int64", torch.int32: "int32", torch.int16: "int16", torch.int8: "int8", torch.uint8: "uint8",
    torch.bool: "bool",
}  # fmt: skip
TORCH_DTYPES = {name: dtype for dtype, name in DTYPE_NAMES.items()}


def dtype_name(dtype: torch.dtype) -> str:
    """What a trace calls a dtype.

    Raises:
        InputError: a trace has no name for it.
    """
    if dtype not in DTYPE_NAMES:
        raise InputError(
            f"a tensor has the dtype {dtype}, which traces do not know; they know {', '.join(TORCH_DTYPES)}"
        )
    return DTYPE_NAMES[dtype]


@dataclass(frozen=True)
class Signature:
    """What recording needs of an aten operator: its row of the table, and its arguments' names and defaults."""

    op: str
    known: AtenOperator
    category: str
    mutates: bool
    arguments: tuple[tuple[str, Any], ...]


@cache
def signature(func: Any) -> Signature:
    """Of an overload of torch.ops.aten, or of a custom operator, whose name begins with its library's: 'flash_attn::fwd'."""
    op = str(func._schema.name)
    known = operator(op)
    # The recorder tells a view by the storage it shares. One in place (squeeze_) counts as a write, like any other.
    category = "Other" if known.is_view else known.category
    if category == "Other" and torch.Tag.pointwise in func.tags:
        category = "Elementwise"
    arguments = tuple(
        (argument.name, argument.default_value if argument.has_default_value() else None)
        for argument in func._schema.arguments
    )
    return Signature(op, known, category, func._schema.is_mutable, arguments)


def bind(
    found: Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[list[torch.Tensor], dict[str, Any]]:
    """A call's tensors in order, and its other arguments by name, defaults included, as JSON values."""
    among: list[torch.Tensor] = []
    attributes: dict[str, Any] = {}
    for i, (name, default) in enumerate(found.arguments):
        value = args[i] if i < len(args) else kwargs.get(name, default)
        given = tensors(value)
        if given:
            among += given
        elif value is not None and (ours := found.known.argument(name)):
            attributes[ours] = _json_value(value)
    return among, attributes


def tensors(value: Any) -> list[torch.Tensor]:
    """The tensors in a value, a list or lists of lists."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in tensors(item)]
    return []


def _json_value(value: Any) -> Any:
    if isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_json_value(item) for item in value]
    if isinstance(value, torch.dtype):
        return dtype_name(value)
    return str(value).removeprefix("torch.")
