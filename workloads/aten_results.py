"""What an operator makes of its operands, where shapes and arguments leave no doubt: one rule a kind of operator.

A rule takes the operands by their position among the arguments, the same in one row, and the arguments that are no
tensors by name. It returns shape, strides (None: row-major) and dtype of the result, or None.
A call whose arguments are not what its name promises ends in a LookupError, TypeError or ValueError.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from simtti.workloads.trace import ITEM_BYTES, TensorUse, row_major

Operands = dict[int, list[TensorUse]]
Found = tuple[tuple[int, ...], Any, str] | None
Rule = Callable[[Operands, tuple[TensorUse, ...], dict[str, Any]], Found]
FLOATS = ("fp64", "fp32", "bf16", "fp16")  # what type promotion prefers, widest first


def broadcast(operands: Operands, inputs: tuple[TensorUse, ...], attributes: dict[str, Any]) -> Found:
    """An elementwise result: of all shapes together, laid out as the first operand of that shape."""
    shape = _broadcast([use.shape for use in inputs])
    alike = next((use.strides for use in inputs if use.shape == shape and _dense(use)), None)
    return shape, alike, _promoted(inputs)


def compared(operands: Operands, inputs: tuple[TensorUse, ...], attributes: dict[str, Any]) -> Found:
    """The same, of truth values."""
    found = broadcast(operands, inputs, attributes)
    return None if found is None else (*found[:2], "bool")


def product(operands: Operands, inputs: tuple[TensorUse, ...], attributes: dict[str, Any]) -> Found:
    a, b = inputs[-2:]
    return (
        ((*a.shape[:-1], b.shape[-1]), None, a.dtype) if len(b.shape) > 1 else (a.shape[:-1], None, a.dtype)
    )


def scaled_product(operands: Operands, inputs: tuple[TensorUse, ...], attributes: dict[str, Any]) -> Found:
    """_scaled_mm: of eight-bit matrices, each with a scale (or one a row); the result in the type asked for, else the matrices'."""
    a, b = operands[0][0], operands[1][0]
    return (a.shape[0], b.shape[1]), None, attributes.get("dtype", a.dtype)


def convolved(operands: Operands, inputs: tuple[TensorUse, ...], attributes: dict[str, Any]) -> Found:
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


def attended(operands: Operands, inputs: tuple[TensorUse, ...], attributes: dict[str, Any]) -> Found:
    query, _, value = inputs[:3]
    shape = (*query.shape[:-1], value.shape[-1])
    if len(shape) != 4:
        return shape, None, query.dtype
    _, heads, length, width = shape  # laid out (batch, length, heads, width), as the fused kernels write it
    return shape, (length * heads * width, width, heads * width, 1), query.dtype


def alike(operands: Operands, inputs: tuple[TensorUse, ...], attributes: dict[str, Any]) -> Found:
    use = inputs[0]
    dtype = "fp32" if attributes.get("half_to_float") else attributes.get("dtype", use.dtype)
    how = attributes.get("memory_format", "preserve_format")
    keeps = _dense(use) and how == "preserve_format"
    return use.shape, use.strides if keeps else _channels_last(use.shape) if "last" in how else None, dtype


def joined(operands: Operands, inputs: tuple[TensorUse, ...], attributes: dict[str, Any]) -> Found:
    uses = [use for use in operands[0] if use.shape != (0,)]
    dim = attributes["dim"] % len(uses[0].shape)
    shape = list(uses[0].shape)
    shape[dim] = sum(use.shape[dim] for use in uses)
    return tuple(shape), None, uses[0].dtype


def reduced(operands: Operands, inputs: tuple[TensorUse, ...], attributes: dict[str, Any]) -> Found:
    shape = inputs[0].shape
    over = attributes.get("dim", [])
    gone = {dim % len(shape) for dim in (over if isinstance(over, list) else [over])} or set(
        range(len(shape))
    )
    kept = attributes.get("keepdim", False)
    sizes = tuple(1 if i in gone else n for i, n in enumerate(shape) if kept or i not in gone)
    return sizes, None, attributes.get("dtype", inputs[0].dtype)


def tested(operands: Operands, inputs: tuple[TensorUse, ...], attributes: dict[str, Any]) -> Found:
    return reduced(operands, inputs, {**attributes, "dtype": "bool"})


def placed(operands: Operands, inputs: tuple[TensorUse, ...], attributes: dict[str, Any]) -> Found:
    return reduced(operands, inputs, {**attributes, "dtype": "int64"})


def embedded(operands: Operands, inputs: tuple[TensorUse, ...], attributes: dict[str, Any]) -> Found:
    weight, indices = inputs
    return (*indices.shape, weight.shape[1]), None, weight.dtype


def resized(operands: Operands, inputs: tuple[TensorUse, ...], attributes: dict[str, Any]) -> Found:
    image = inputs[0]
    if "output_size" in attributes:
        size = tuple(attributes["output_size"])
    else:
        size = tuple(int(n * scale) for n, scale in zip(image.shape[2:], attributes["scales"], strict=True))
    shape = (*image.shape[:2], *size)
    return shape, _channels_last(shape) if image.channels_last and not image.contiguous else None, image.dtype


def padded(operands: Operands, inputs: tuple[TensorUse, ...], attributes: dict[str, Any]) -> Found:
    shape, pad = list(inputs[0].shape), attributes["pad"]
    for i in range(len(pad) // 2):
        shape[-1 - i] += pad[2 * i] + pad[2 * i + 1]
    return tuple(shape), None, inputs[0].dtype


def repeated(operands: Operands, inputs: tuple[TensorUse, ...], attributes: dict[str, Any]) -> Found:
    times, shape = attributes["repeats"], inputs[0].shape
    shape = (1,) * (len(times) - len(shape)) + shape
    return tuple(n * count for n, count in zip(shape, times, strict=True)), None, inputs[0].dtype


def chosen(operands: Operands, inputs: tuple[TensorUse, ...], attributes: dict[str, Any]) -> Found:
    return _broadcast([use.shape for use in inputs]), None, _promoted(inputs[1:])


def made(operands: Operands, inputs: tuple[TensorUse, ...], attributes: dict[str, Any]) -> Found:
    return tuple(attributes["size"]), None, attributes.get("dtype", "fp32")


def _broadcast(shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    rank = max(map(len, shapes))
    columns = zip(*([1] * (rank - len(shape)) + list(shape) for shape in shapes), strict=True)
    return tuple(0 if 0 in sizes else max(sizes) for sizes in columns)


def _promoted(inputs: tuple[TensorUse, ...]) -> str:
    """The dtype of an elementwise result: a tensor with dimensions outweighs one without, within its kind."""
    with_dims = [use.dtype for use in inputs if use.shape] or [use.dtype for use in inputs]
    floats = {dtype for dtype in with_dims if dtype in FLOATS}
    if not floats:
        scalars = [use.dtype for use in inputs if use.dtype in FLOATS]
        return scalars[0] if scalars else max(with_dims, key=ITEM_BYTES.__getitem__)
    return "fp32" if floats == {"bf16", "fp16"} else min(floats, key=FLOATS.index)


def _dense(use: TensorUse) -> bool:
    return use.numel * ITEM_BYTES[use.dtype] == use.storage_bytes
