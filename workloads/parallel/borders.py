"""A convolution on a part of an image's rows: on it as if there were zeros around it, then what the rows beyond its borders add to
those at them (xfuser/model_executor/layers, GLUMBConv)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

from simtti.workloads.parallel.operands import made, operator_like
from simtti.workloads.trace import Operator, TensorUse

BORDER = "border"  # an attribute of convolutions of the rows beyond a border


def overlaps(operator: Operator) -> bool:
    """Whether a convolution's results share what they read."""
    taps = operator.inputs[1].shape[2:]
    strides = operator.attributes.get("stride", [1] * len(taps))
    return any(tap > stride for tap, stride in zip(taps, strides, strict=True))


def keeps_size(operator: Operator) -> bool:
    """Whether a convolution of an image makes one of the same size, row by row."""
    image, result = operator.inputs[0], operator.outputs[0]
    return (
        len(image.shape) == 4
        and image.shape[-2:] == result.shape[-2:]
        and operator.attributes["stride"][-2] == 1
    )


def convolved(
    operator: Operator,
    own: TensorUse,
    result: TensorUse,
    beyond: Callable[[TensorUse], tuple[list[Operator], TensorUse]],
    fresh: Iterator[int],
) -> list[Operator]:
    """The operators.

    own, result: the part, and what is made of it. beyond: the operators that bring the rows beyond a border, given those at it, and
    these rows.
    """
    weight = operator.inputs[1]
    found = [dataclasses.replace(operator, inputs=(own, *operator.inputs[1:]), outputs=(result,))]
    reach = weight.shape[-2] // 2
    for _ in ("above", "below"):
        brought, rows = beyond(part_of(own, 2, reach))
        wide = with_rows(own, 3 * reach, next(fresh))
        added = with_rows(result, 3 * reach, next(fresh))
        border = part_of(result, 2, reach)
        found += [
            *brought,
            operator_like(operator, "aten::constant_pad_nd", "Memory", (rows,), (wide,)),
            dataclasses.replace(
                operator,
                inputs=(wide, weight),
                outputs=(added,),
                attributes={**operator.attributes, BORDER: True},
                released=(),
            ),
            operator_like(
                operator, "aten::add_", "Elementwise", (border, part_of(added, 2, reach)), (border,)
            ),
        ]
    return found


def with_rows(like: TensorUse, rows: int, tensor: int) -> TensorUse:
    """An image of so many rows, dense."""
    return made(tensor, (*like.shape[:-2], rows, like.shape[-1]), like.dtype)


def part_of(use: TensorUse, axis: int, size: int) -> TensorUse:
    """A part of a tensor along a dimension, in its storage."""
    shape: Sequence[int] = [size if here == axis else each for here, each in enumerate(use.shape)]
    return dataclasses.replace(use, shape=tuple(shape))
