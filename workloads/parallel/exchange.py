"""The exchanges around and within an attention whose tokens GPUs share."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from simtti.errors import InputError
from simtti.workloads.parallel.degrees import Degrees
from simtti.workloads.parallel.operands import (
    ALL_TO_ALL,
    SEND_RECEIVE,
    collective,
    made,
    operator_like,
)
from simtti.workloads.trace import Operator, TensorUse

# Of attention: what each part of a ring, and each patch, has another share of.
PARTS_UNLIKE = frozenset(("sequences", "window", "block_share"))


class Exchange:
    """The operators around and of one self-attention whose tokens are shared. Shapes are (batch, heads, tokens, width).

    Where the Ulysses degree does not divide the heads, some GPUs get one more than others, as all-to-all with sizes of its own
    for each rank does it; what is given is the share of one that has more, for which the others wait.

    repeated: of its tokens, those that every GPU has; their keys and values are attended to once, in the ring's last step.
    """

    def __init__(
        self, workload: str, attention: Operator, degrees: Degrees, fresh: Iterator[int], repeated: int
    ) -> None:
        self.attention, self.degrees, self.fresh, self.repeated = attention, degrees, fresh, repeated
        heads = attention.inputs[0].shape[-3]
        if degrees.ring > 1 and (unlike := PARTS_UNLIKE & attention.attributes.keys()):
            raise InputError(
                f"{workload} attends with {', '.join(sorted(unlike))}, of which each part of a ring sees another share: give the degree as ulysses"
            )
        if heads < degrees.ulysses:
            raise InputError(
                f"{workload} has {heads} attention heads on a GPU, fewer than ulysses {degrees.ulysses}; give the rest as ring"
            )

    def operators(self) -> list[Operator]:
        found: list[Operator] = []
        gathered = []
        for use, without in zip(self.attention.inputs[:3], (0, self.repeated, self.repeated), strict=True):
            operators, own = self.gather(_shorter(use, without))
            found += operators
            gathered.append(own)
        query, key, value = gathered
        result = self._made(query.shape, query.dtype)
        for step in range(self.degrees.ring):
            received = None
            if step + 1 < self.degrees.ring:
                received = tuple(self._made(use.shape, use.dtype) for use in (key, value))
                found.append(
                    self._operator(
                        SEND_RECEIVE,
                        "Communication",
                        (key, value),
                        received,
                        {"overlapped": True, "ranks": self.degrees.gpus},
                    )
                )
            elif self.repeated:
                operators, (key, value) = self._with_repeated((key, value))
                found += operators
            part = self._made(query.shape, query.dtype)
            attributes = self.attention.attributes
            if self.degrees.ring > 1 and "hidden_keys" in attributes:  # of all parts' keys together
                attributes = {**attributes, "hidden_keys": attributes["hidden_keys"] / self.degrees.ring}
            inputs = (query, key, value, *self.attention.inputs[3:])
            found.append(
                dataclasses.replace(self.attention, inputs=inputs, outputs=(part,), attributes=attributes)
            )
            if received is not None:
                key, value = received
            if self.degrees.ring == 1:
                result = part
            else:
                operators, result = self._merge(part, result if step else None)
                found += operators
        if self.degrees.ring > 1:
            whole = self._made(query.shape, query.dtype)
            found.append(self._operator("aten::_to_copy", "Memory", (result,), (whole,)))
            result = whole
        return found + self.scatter(result)

    def _with_repeated(self, uses: tuple[TensorUse, ...]) -> tuple[list[Operator], list[TensorUse]]:
        """Keys and values with those that every GPU has."""
        operators, found = [], []
        for use in uses:
            text = self._made((*use.shape[:-2], self.repeated, use.shape[-1]), use.dtype)
            both = self._made((*use.shape[:-2], use.shape[-2] + self.repeated, use.shape[-1]), use.dtype)
            operators.append(self._operator("aten::cat", "Memory", (use, text), (both,)))
            found.append(both)
        return operators, found

    def gather(self, use: TensorUse) -> tuple[list[Operator], TensorUse]:
        """All tokens of the group, of a part of the heads."""
        ranks = self.degrees.ulysses
        if ranks == 1:
            return [], use
        batch, heads, tokens, width = _four(use.shape)
        by_batch, by_head, by_token, by_width = _four(use.strides)
        own = -(-heads // ranks)
        # What goes to each is of one size or, where it is not, written in one piece.
        parts, of_part = (ranks, own) if heads % ranks == 0 else (1, heads)
        sent = self._made((parts, tokens, batch, of_part, width), use.dtype)
        source = dataclasses.replace(
            use, shape=sent.shape, strides=(by_head * of_part, by_token, by_batch, by_head, by_width)
        )
        arrived = self._made((ranks, tokens, batch, own, width), use.dtype)
        return self._all_to_all(
            source,
            sent,
            arrived,
            (batch, own, ranks * tokens, width),
            (own * width, width, batch * own * width, 1),
        )

    def scatter(self, use: TensorUse) -> list[Operator]:
        """The tokens of one GPU again, of all heads, into the attention's own result."""
        ranks = self.degrees.ulysses
        target = self.attention.outputs[0]
        if ranks == 1:
            return [self._operator("aten::view", "View", (use,), (target,), is_view=True)]
        batch, own, tokens, width = _four(use.shape)
        by_batch, by_head, by_token, by_width = _four(use.strides)
        heads = _four(target.shape)[1]
        local = tokens // ranks
        sent = self._made((ranks, own, local, batch, width), use.dtype)
        source = dataclasses.replace(
            use, shape=sent.shape, strides=(by_token * local, by_head, by_token, by_batch, by_width)
        )
        arrived = self._made((heads, local, batch, width), use.dtype)
        operators, received = self._all_to_all(
            source,
            sent,
            arrived,
            (batch, heads, local, width),
            (width, local * batch * width, batch * width, 1),
        )
        return [*operators, self._operator("aten::view", "View", (received,), (target,), is_view=True)]

    def _all_to_all(
        self,
        source: TensorUse,
        sent: TensorUse,
        arrived: TensorUse,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
    ) -> tuple[list[Operator], TensorUse]:
        """Copy what goes to one rank together, exchange, copy into order."""
        ordered = self._made(shape, sent.dtype)
        seen = dataclasses.replace(arrived, shape=shape, strides=strides)
        return [
            self._operator("aten::view", "View", (source,), (source,), is_view=True),
            self._operator("aten::clone", "Memory", (source,), (sent,)),
            collective(self.attention, ALL_TO_ALL, self.degrees.ulysses, (sent,), (arrived,)),
            self._operator("aten::view", "View", (arrived,), (seen,), is_view=True),
            self._operator("aten::clone", "Memory", (seen,), (ordered,)),
        ], ordered

    def _merge(self, part: TensorUse, before: TensorUse | None) -> tuple[list[Operator], TensorUse]:
        """Add a part of the keys to the result so far, both in fp32: out - sigmoid(lse - lse') (out - part)."""
        single = self._made(part.shape, "fp32")
        operators = [self._operator("aten::_to_copy", "Memory", (part,), (single,))]
        if before is None:
            return operators, single
        row = (*part.shape[:-1], 1)
        logs = [self._made(row, "fp32") for _ in range(6)]
        difference, scaled, merged = (self._made(part.shape, "fp32") for _ in range(3))
        operators += [
            self._operator("aten::sub", "Elementwise", (logs[0], logs[1]), (logs[2],)),
            self._operator("aten::sigmoid", "Elementwise", (logs[2],), (logs[3],)),
            self._operator("aten::sub", "Elementwise", (before, single), (difference,)),
            self._operator("aten::mul", "Elementwise", (logs[3], difference), (scaled,)),
            self._operator("aten::sub", "Elementwise", (before, scaled), (merged,)),
            self._operator("aten::log_sigmoid_forward", "Elementwise", (logs[2],), (logs[4],)),
            self._operator("aten::sub", "Elementwise", (logs[0], logs[4]), (logs[5],)),
        ]
        return operators, merged

    def _made(self, shape: Sequence[int], dtype: str) -> TensorUse:
        return made(next(self.fresh), shape, dtype)

    def _operator(
        self,
        op: str,
        category: str,
        inputs: tuple[TensorUse, ...],
        outputs: tuple[TensorUse, ...],
        attributes: dict[str, Any] | None = None,
        is_view: bool = False,
    ) -> Operator:
        return operator_like(self.attention, op, category, inputs, outputs, attributes, is_view)


def _shorter(use: TensorUse, tokens: int) -> TensorUse:
    """Without the last `tokens` tokens."""
    shape = (*use.shape[:-2], use.shape[-2] - tokens, use.shape[-1])
    return dataclasses.replace(use, shape=shape)


def _four(sizes: Sequence[int]) -> tuple[int, int, int, int]:
    """(batch, heads, tokens, width) of attention's operands, where there is one image or one head."""
    found = (*(1,) * (4 - len(sizes)), *sizes)
    return found[0], found[1], found[2], found[3]
