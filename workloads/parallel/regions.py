"""Where the channels of a denoiser can be divided: regions of operators that work on each channel, or each head, alone.

A region begins at linear layers, whose output features are divided, and ends at others, whose input features are. Layers of a block
are followed, operator by operator, along the dimension that their outputs are divided in; where an operator needs all channels at
once (a norm, a sum with the residual stream, a layer that cannot be one that ends a region), the layers that led there are not
divided. What they led to may then be free of it, so it is done anew until nothing changes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from simtti.workloads.parallel.operands import stored
from simtti.workloads.quantized_layers import Linear, linear_of
from simtti.workloads.trace import ITEM_BYTES, Operator, TensorUse

_ADDS = ("aten::add", "aten::sub")
_REDUCES = ("aten::mean", "aten::sum")


class Cut(NamedTuple):
    """The dimension that a storage is divided in: its stride and what it spans, in bytes, which views as another type (pairs of
    numbers as complex ones) share. Views of it have the dimension elsewhere, the outer part of it (heads of channels), a part
    (of what one layer makes, side by side: halves; queries, keys and values and an MLP's), or the outer part of a part."""

    stride: int
    span: int

    def axis(self, use: TensorUse) -> int | None:
        """Where `use` has it, the outermost of the dimensions that lie within it; None if it does not."""
        item = ITEM_BYTES[use.dtype]
        within = [
            (stride, axis)
            for axis, (size, stride) in enumerate(zip(use.shape, use.strides, strict=True))
            if size > 1 and self.stride < stride * item * size and stride * item < self.span
        ]
        return max(within)[1] if within else None

    def share(self, use: TensorUse, axis: int, ranks: int) -> TensorUse:
        """One of `ranks` equal parts of `use` along `axis`; what lies outside of the dimension moves together."""
        item = ITEM_BYTES[use.dtype]
        strides = tuple(stride // ranks if stride * item >= self.span else stride for stride in use.strides)
        shape = [size // ranks if here == axis else size for here, size in enumerate(use.shape)]
        return stored(dataclasses.replace(use, strides=strides), shape)


def cut_of(use: TensorUse, axis: int) -> Cut:
    """Of a use that is divided along `axis`."""
    stride = use.strides[axis] * ITEM_BYTES[use.dtype]
    return Cut(stride, stride * use.shape[axis])


@dataclass(frozen=True)
class Regions:
    """cuts: by storage, what is divided and how. partial: positions of operators of whose result each GPU has a part of a sum.
    heads: positions of attention, whose mask may have the heads as a dimension of its own."""

    cuts: dict[int, Cut] = field(default_factory=dict)
    partial: frozenset[int] = frozenset()
    heads: frozenset[int] = frozenset()

    def masks(self, at: int, use: TensorUse) -> int | None:
        """The axis of heads of the attention's mask, None for any other operand."""
        if at not in self.heads or use.role == "parameter" or len(use.shape) < 3 or use.shape[-3] == 1:
            return None
        return len(use.shape) - 3


class _WholeNeededError(Exception):
    """The operator needs the whole of what would be divided."""


def find(operators: Sequence[Operator], images: int) -> Regions:
    """The regions of a step. images: no more rows than that are a vector for each image (a modulation), not tokens: their layers
    are too small to be worth an all-reduce."""
    layers = {
        at: linear
        for at, operator in enumerate(operators)
        if (linear := _layer(operator)) is not None and _in_block(operator) and linear.m > images
    }
    whole: set[int] = set()
    while True:
        followed = _Followed(operators, layers, whole)
        if not followed.failed:
            return followed.regions()
        whole |= followed.failed


def _layer(operator: Operator) -> Linear | None:
    """The linear layer that an operator is; that of a batched product too, whose weight is the same for each image, or of one image."""
    if operator.op == "aten::bmm":
        x, weight = operator.inputs
        same = weight.role == "parameter" and (weight.strides[0] == 0 or weight.shape[0] == 1)
        return Linear(operator, x, weight, None) if same else None
    return linear_of(operator)


def _in_block(operator: Operator) -> bool:
    """Whether its module is in a list of modules: blocks are, embeddings mostly are not."""
    return any(part.isdigit() for part in operator.module.split("."))


class _Followed:
    """One pass over a step: from the layers that may begin a region to those that end it.

    failed: layers whose output something needs whole.
    """

    def __init__(self, operators: Sequence[Operator], layers: dict[int, Linear], whole: set[int]) -> None:
        self.layers = layers
        self.cuts: dict[int, Cut] = {}
        self.of: dict[int, int] = {}  # the layer that a divided storage comes from
        self.begins: dict[int, int] = {}  # layers that begin a region: the one that stands for the region
        self.ends: dict[int, int] = {}  # layers that end one: a layer that begins it
        self.sums: dict[int, int] = {}  # reductions over what is divided, likewise
        self.attends: dict[int, int] = {}
        self.failed: set[int] = set()
        bad: set[int] = set()
        for at, operator in enumerate(operators):
            divided = [use for use in operator.inputs if use.tensor in self.cuts]
            try:
                if at in layers and not divided:
                    if at not in whole:
                        self._begin(at, layers[at])
                elif divided:
                    self._pass(at, operator, divided)
            except _WholeNeededError:
                bad.update(self._root(self.of[use.tensor]) for use in divided)
        ended = {self._root(layer) for layer in self.ends.values()}
        for layer in self.begins:
            if self._root(layer) in bad or self._root(layer) not in ended:
                self.failed.add(layer)
        if not self.failed:
            self._cut_weights()

    def regions(self) -> Regions:
        return Regions(self.cuts, frozenset((*self.ends, *self.sums)), frozenset(self.attends))

    def _root(self, layer: int) -> int:
        while self.begins[layer] != layer:
            layer = self.begins[layer]
        return layer

    def _join(self, uses: Iterable[TensorUse]) -> int:
        """One region of those that the uses are of."""
        roots = [self._root(self.of[use.tensor]) for use in uses]
        for root in roots[1:]:
            self.begins[root] = roots[0]
            roots[0] = self._root(roots[0])
        return roots[0]

    def _begin(self, at: int, layer: Linear) -> None:
        self.begins[at] = at
        out = layer.out
        self._divide((out,), len(out.shape) - 1, at)

    def _divide(self, uses: Iterable[TensorUse], axis: int, layer: int) -> None:
        for use in uses:
            if use.shape[axis] > 1:
                self.cuts[use.tensor], self.of[use.tensor] = cut_of(use, axis), layer

    def _pass(self, at: int, operator: Operator, divided: list[TensorUse]) -> None:
        axes = [self._axis(use) for use in divided]
        outside = [
            use for use in operator.outputs if use.tensor not in {one.tensor for one in operator.inputs}
        ]
        if operator.is_view:
            if outside:  # as large as what it is made after (`empty_like`)
                self._same_shape(operator, divided, axes, outside)
            elif any(self.cuts[divided[0].tensor].axis(use) is None for use in operator.outputs):
                raise _WholeNeededError
        elif at in self.layers:
            self._end(at, self.layers[at], divided, axes)
        elif operator.category == "Attention":
            self._attention(at, operator, divided, axes)
        elif operator.op in _REDUCES:
            self._reduce(at, operator, divided[0], axes[0])
        elif operator.op in ("aten::cat", "aten::stack"):
            self._concatenate(operator, divided, axes)
        elif operator.op == "aten::bmm":
            if len(divided) != 2 or axes != [0, 0]:
                raise _WholeNeededError
            self._divide(operator.outputs, 0, self._join(divided))
        elif operator.op == "aten::native_layer_norm":
            if axes[0] >= len(divided[0].shape) - len(operator.attributes["normalized_shape"]):
                raise _WholeNeededError
            self._divide(operator.outputs, axes[0], self._join(divided))
        elif operator.category in ("Elementwise", "Memory"):
            self._each(operator, divided, axes)
        else:
            raise _WholeNeededError

    def _axis(self, use: TensorUse) -> int:
        axis = self.cuts[use.tensor].axis(use)
        if axis is None:
            raise _WholeNeededError
        return axis

    def _end(self, at: int, layer: Linear, divided: list[TensorUse], axes: list[int]) -> None:
        x = layer.x
        if len(divided) != 1 or divided[0] is not x or axes[0] != len(x.shape) - 1:
            raise _WholeNeededError
        self.ends[at] = self.of[x.tensor]

    def _attention(self, at: int, operator: Operator, divided: list[TensorUse], axes: list[int]) -> None:
        """Of queries, keys and values the heads are divided; a mask is the same for all heads, or seen in part."""
        operands = operator.inputs[:3]
        heads = [len(use.shape) - 3 for use in operands]
        if len(divided) != 3 or any(use not in operands for use in divided) or axes != heads or heads[0] < 0:
            raise _WholeNeededError
        self.attends[at] = self._join(divided)
        self._divide(operator.outputs[:1], heads[0], self.attends[at])

    def _reduce(self, at: int, operator: Operator, use: TensorUse, axis: int) -> None:
        rank = len(use.shape)
        dims = {dim % rank for dim in operator.attributes.get("dim") or range(rank)}
        if axis in dims:
            self.sums[at] = self.of[use.tensor]
        else:
            gone = 0 if operator.attributes.get("keepdim") else sum(dim < axis for dim in dims)
            self._divide(operator.outputs, axis - gone, self.of[use.tensor])

    def _concatenate(self, operator: Operator, divided: list[TensorUse], axes: list[int]) -> None:
        if len(divided) != len(operator.inputs) or len(set(axes)) > 1:
            raise _WholeNeededError
        axis = axes[0]
        if operator.op == "aten::stack":
            dim = operator.attributes.get("dim", 0) % len(operator.outputs[0].shape)
            axis += dim <= axis
        self._divide(operator.outputs, axis, self._join(divided))

    def _same_shape(
        self, operator: Operator, divided: list[TensorUse], axes: list[int], outside: list[TensorUse]
    ) -> None:
        if any(use.shape != divided[0].shape for use in outside):
            raise _WholeNeededError
        self._divide(outside, axes[0], self._join(divided))

    def _each(self, operator: Operator, divided: list[TensorUse], axes: list[int]) -> None:
        """Elementwise: operands aligned at their last dimension; those that are not divided are the same for all channels, or
        parameters of each."""
        from_end = {axis - len(use.shape) for use, axis in zip(divided, axes, strict=True)}
        if len(from_end) > 1 or not operator.outputs:
            raise _WholeNeededError
        back = from_end.pop()
        if operator.op.rstrip("_") in _ADDS and len({self._root(self.of[use.tensor]) for use in divided}) > 1:
            raise _WholeNeededError  # the sum of two layers' results: the residual stream
        for use in operator.inputs:
            if use.tensor not in self.cuts and len(use.shape) >= -back and use.shape[back] > 1:
                if use.role != "parameter":
                    raise _WholeNeededError
                self.cuts[use.tensor] = cut_of(use, len(use.shape) + back)
                self.of[use.tensor] = self.of[divided[0].tensor]
        layer = self._join(divided)
        for use in operator.outputs:
            if len(use.shape) < -back:
                raise _WholeNeededError
            self._divide((use,), len(use.shape) + back, layer)

    def _cut_weights(self) -> None:
        for at in self.begins:
            layer = self.layers[at]
            features = 0 if layer.operator.op == "aten::linear" else len(layer.weight.shape) - 1
            self._cut_weight(layer.weight, features)
            if layer.bias is not None:
                self._cut_weight(layer.bias, len(layer.bias.shape) - 1)
        for at in self.ends:
            layer = self.layers[at]
            features = 1 if layer.operator.op == "aten::linear" else len(layer.weight.shape) - 2
            self._cut_weight(layer.weight, features)

    def _cut_weight(self, weight: TensorUse, axis: int) -> None:
        self.cuts[weight.tensor] = cut_of(weight, axis)
