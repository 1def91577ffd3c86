"""A step for one patch of the image: what a stage of PipeFusion's pipeline does while the others work on other patches.

As xDiT does it: everything that works on each token alone works on the patch's. Attention's queries are the patch's; its keys and
values are copied into those that were kept of the step before, of all tokens, and it attends to all (core/cache_manager); a text that
is attended to jointly goes along with each patch, and is put before the keys that were kept. Linear attention sums over all keys and
values that were kept. Of a convolution that reaches over a patch's borders the rows at them are kept, and convolved by themselves
(layers/conv.py, GLUMBConv). Ring attention passes on what was kept of a GPU's tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from simtti.errors import InputError
from simtti.workloads.parallel.borders import BORDER, convolved, keeps_size, overlaps, part_of, with_rows
from simtti.workloads.parallel.degrees import Degrees
from simtti.workloads.parallel.exchange import PARTS_UNLIKE
from simtti.workloads.parallel.linear import summed
from simtti.workloads.parallel.operands import SEND_RECEIVE, made, operator_like, resized
from simtti.workloads.parallel.tokens import Tokens, local
from simtti.workloads.trace import Operator, TensorUse


class Cut(NamedTuple):
    """How the image is cut into patches.

    lengths: tokens of the largest patch, with the text's beside them, by the number of all that a GPU has. texts: of those, the
    text's. grids: heights and widths of images that are cut along their height, of so many rows and columns as there are tokens or
    elements that become one. patches: their number.
    """

    lengths: Mapping[int, int]
    texts: Mapping[int, int]
    grids: frozenset[tuple[int, ...]]
    patches: int

    def use(self, use: TensorUse, dense_tokens: bool = False) -> TensorUse:
        """A patch's part of a tensor. dense_tokens: tokens may lie dense, as linear attention's do."""
        if use.role in ("parameter", "buffer"):
            return use
        if dense_tokens and use.shape and use.strides[-1] == 1 and use.shape[-1] in self.lengths:
            return resized(use, (*use.shape[:-1], self.lengths[use.shape[-1]]))
        found = local(use, self.lengths)
        if found is use and self.is_image(use):
            return resized(use, (*use.shape[:-2], -(-use.shape[-2] // self.patches), use.shape[-1]))
        return found

    def is_image(self, use: TensorUse) -> bool:
        return len(use.shape) == 4 and use.shape[-2:] in self.grids

    def has_tokens(self, use: TensorUse) -> bool:
        """Whether a tensor is cut."""
        return self.use(use).shape != use.shape


def cut_of(operators: Sequence[Operator], kinds: Sequence[Tokens], degrees: Degrees) -> Cut:
    """How what a GPU has of a phase is cut. kinds: of the phase's attention on one GPU; degrees: GPUs that share the tokens, and
    patches."""
    lengths: dict[int, int] = {}
    texts: dict[int, int] = {}
    for image, text in kinds:
        own = -(-image // degrees.sequence)
        own_text = text // degrees.sequence if text % degrees.sequence == 0 else text
        patch = -(-own // degrees.patches)
        for gathered in {1, degrees.ulysses}:
            beside = gathered * own_text
            for words in {0, beside, own_text}:
                lengths[gathered * own + words] = gathered * patch + words
                texts[gathered * own + words] = words
    images = {length for image, _ in kinds for length in (image, -(-image // degrees.sequence))}
    grids: set[tuple[int, ...]] = set()
    for operator in operators:
        if operator.category == "Convolution" and len(operator.outputs[0].shape) == 4:
            height, width = operator.outputs[0].shape[-2:]
            if height * width in images:
                grids |= {(height, width), operator.inputs[0].shape[-2:]}
    return Cut(lengths, texts, frozenset(grids), degrees.patches)


class Patch:
    """The operators of a stage for one patch. fresh: identities that no tensor has.

    What is kept between steps has the role of a buffer, and the same identity for each patch of a step.
    """

    def __init__(self, workload: str, operators: Sequence[Operator], cut: Cut, fresh: Iterator[int]) -> None:
        self.workload, self.cut, self.fresh = workload, cut, fresh
        self.whole: dict[int, int] = {}  # tensors of all tokens, by that of the patch's
        self.summed = summed(operators)
        self.found: list[Operator] = []
        for at, operator in enumerate(operators):
            self._add(at, operator)

    def _add(self, at: int, operator: Operator) -> None:
        if at in self.summed.operators:
            self._sum(at, operator)
        elif operator.op == SEND_RECEIVE and all(map(self._has_tokens, operator.inputs)):
            self._send_kept(operator)
        elif _self_attention(operator) and operator.inputs[1].shape[-2] in self.cut.lengths:
            self._attend(operator)
        elif operator.category == "Convolution" and overlaps(operator) and BORDER not in operator.attributes:
            self._convolve(operator)
        elif any(use.tensor in self.whole for use in operator.inputs):  # a text beside what a ring passes on
            self.found.append(dataclasses.replace(operator, inputs=self._kept(operator.inputs)))
            self.whole.update((use.tensor, use.tensor) for use in operator.outputs)
        else:
            dense = operator.module in self.summed.modules
            self.found.append(
                dataclasses.replace(
                    operator,
                    inputs=tuple(self.cut.use(use, dense) for use in operator.inputs),
                    outputs=tuple(self.cut.use(use, dense) for use in operator.outputs),
                )
            )

    def _has_tokens(self, use: TensorUse) -> bool:
        return any(size in self.cut.lengths for size in use.shape)

    def _attend(self, operator: Operator) -> None:
        if unlike := PARTS_UNLIKE & operator.attributes.keys():
            raise InputError(
                f"{self.workload} attends with {', '.join(sorted(unlike))}, of which each patch sees another share: pipefusion must be 1"
            )
        query, *pair = operator.inputs[:3]
        masks = [
            self.cut.use(use) if use.shape[-2:-1] == query.shape[-2:-1] else use
            for use in operator.inputs[3:]
        ]
        kept = [
            dataclasses.replace(use, tensor=self.whole[use.tensor])
            if use.tensor in self.whole
            else self._keep(operator, use)
            for use in pair
        ]
        outputs = tuple(self.cut.use(use) for use in operator.outputs)
        inputs = (self.cut.use(query), *kept, *masks)
        self.found.append(dataclasses.replace(operator, inputs=inputs, outputs=outputs))

    def _send_kept(self, operator: Operator) -> None:
        """A ring passes on the keys and values of all its GPU's tokens."""
        self._keep_all(operator, operator.inputs)
        self.found.append(dataclasses.replace(operator, inputs=self._kept(operator.inputs)))
        self.whole.update((use.tensor, use.tensor) for use in operator.outputs)

    def _sum(self, at: int, operator: Operator) -> None:
        """Linear attention on all keys and values: what was made outside of it is kept."""
        self._keep_all(operator, [use for use in operator.inputs if use.tensor in self.summed.sources])
        inputs, outputs = self._kept(operator.inputs), operator.outputs
        if operator.is_view:
            outputs = self._kept(outputs)
        self.found.append(dataclasses.replace(operator, inputs=inputs, outputs=outputs))

    def _convolve(self, operator: Operator) -> None:
        """With what is kept of the rows beyond the patch's borders."""
        image, result = operator.inputs[0], operator.outputs[0]
        if not self.cut.is_image(image) or not keeps_size(operator):
            raise InputError(
                f"{self.workload}: a convolution of {operator.module} reaches over the borders between patches in a way that is not "
                "known; pipefusion must be 1"
            )

        def kept(rows: TensorUse) -> tuple[list[Operator], TensorUse]:
            every = with_rows(rows, rows.shape[-2] * self.cut.patches, next(self.fresh))
            row = part_of(dataclasses.replace(every, role="buffer"), 2, rows.shape[-2])
            return [operator_like(operator, "aten::copy_", "Memory", (row, rows), (row,))], row

        self.found += convolved(operator, self.cut.use(image), self.cut.use(result), kept, self.fresh)

    def _keep_all(self, like: Operator, uses: Sequence[TensorUse]) -> None:
        for use in uses:
            if use.tensor not in self.whole and use.role == "activation":
                self.whole[use.tensor] = self._keep(like, use).tensor

    def _keep(self, like: Operator, use: TensorUse) -> TensorUse:
        """Copy the patch's part into what is kept, and put a text before that."""
        axis = next(axis for axis, size in enumerate(use.shape) if size in self.cut.lengths)
        own, words = self.cut.use(use), self.cut.texts[use.shape[axis]]
        image = [size - words if here == axis else size for here, size in enumerate(use.shape)]
        kept = dataclasses.replace(_dense_like(use, image, next(self.fresh)), role="buffer")
        rows = part_of(kept, axis, own.shape[axis] - words)
        part = part_of(own, axis, own.shape[axis] - words)
        self.found.append(operator_like(like, "aten::copy_", "Memory", (rows, part), (rows,)))
        if not words:
            return kept
        both = _dense_like(use, use.shape, next(self.fresh))
        text = part_of(own, axis, words)
        self.found.append(operator_like(like, "aten::cat", "Memory", (text, kept), (both,)))
        return both

    def _kept(self, uses: Sequence[TensorUse]) -> tuple[TensorUse, ...]:
        """Those of all tokens in place of the patch's."""
        return tuple(
            dataclasses.replace(use, tensor=self.whole[use.tensor]) if use.tensor in self.whole else use
            for use in uses
        )


def _dense_like(use: TensorUse, shape: Sequence[int], tensor: int) -> TensorUse:
    """A tensor without gaps, its dimensions in memory in the order of another's."""
    strides, step = [0] * len(shape), 1
    for axis in sorted(range(len(shape)), key=lambda axis: (use.strides[axis], -axis)):
        strides[axis] = step
        step *= shape[axis]
    return dataclasses.replace(made(tensor, shape, use.dtype), strides=tuple(strides))


def _self_attention(operator: Operator) -> bool:
    attributes = operator.attributes
    return (
        operator.category == "Attention"
        and attributes.get("kind") == "self"
        and attributes.get("domain") != "text"
    )
