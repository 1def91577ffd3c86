"""The tokens of an image or a video that GPUs share: how many a phase has, and tensors with a part of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from simtti.workloads.parallel.operands import dense, resized, stored
from simtti.workloads.trace import Operator, TensorUse


class Tokens(NamedTuple):
    """The tokens of one self-attention: of the image, and of a text that is attended to jointly, 0 where there is none."""

    image: int
    text: int = 0


def attends(operator: Operator) -> bool:
    """Self-attention over the tokens that GPUs share: all of them attend to all, not the last one to a cache."""
    attributes = operator.attributes
    return (
        operator.category == "Attention"
        and attributes.get("kind") == "self"
        and attributes.get("domain") != "text"
        and operator.inputs[0].shape[-2] == operator.inputs[1].shape[-2]
    )


def tokens_of(operators: Sequence[Operator]) -> list[Tokens]:
    """The kinds of self-attention by their tokens, each once."""
    return [
        _kind(operators, length) for length in {op.inputs[0].shape[-2] for op in operators if attends(op)}
    ]


def _kind(operators: Iterable[Operator], length: int) -> Tokens:
    for operator in operators:
        if operator.op == "aten::cat" and (parts := _parts(operator, length)):
            return Tokens(max(parts), min(parts))
    return Tokens(length)


def _parts(cat: Operator, length: int) -> tuple[int, ...]:
    """The two lengths that a concatenation to `length` tokens is of; none if it is another."""
    shapes = [use.shape for use in cat.inputs]
    whole = cat.outputs[0].shape
    for axis, size in enumerate(whole):
        if size == length and len(shapes) == 2 and all(len(shape) == len(whole) for shape in shapes):
            parts = tuple(shape[axis] for shape in shapes)
            if sum(parts) == length:
                return parts
    return ()


def local_size(size: int, lengths: Mapping[int, int]) -> int:
    """A dimension's share: of the tokens, or of the tokens of several images in one dimension. lengths: tokens that one GPU has, by
    the number that there are."""
    for length in sorted(lengths, reverse=True):
        if size % length == 0:
            return size // length * lengths[length]
    return size


def local(use: TensorUse, lengths: Mapping[int, int]) -> TensorUse:
    """The share of a tensor whose tokens are divided. The dimension that lies dense holds channels, not tokens, but where an
    image's patches come channel by channel: their shares are copied token by token."""
    if use.role == "parameter" or len(use.shape) < 2:
        return use
    shape = list(use.shape)
    by_channel = False
    for axis, (size, stride) in enumerate(zip(use.shape, use.strides, strict=True)):
        if stride == 1 and axis == len(use.shape) - 1:
            continue
        shape[axis] = local_size(size, lengths)
        by_channel |= stride == 1 and shape[axis] != size
    if tuple(shape) == use.shape:
        return use
    if by_channel:
        return stored(dataclasses.replace(use, strides=tuple(dense(shape))), shape)
    return resized(use, shape)
