"""Sequence parallelism: the trace of one of several GPUs that share the tokens of a transformer.

As xDiT does it (xfuser/model_executor/layers/usp.py): every GPU holds all weights and its share of the tokens, of what is
elementwise, normalised or multiplied by weights; around self-attention Ulysses exchanges heads for tokens, an all-to-all of
queries, keys, values and result with a copy on either side of each, and a ring passes keys and values on while the scores
with those at hand are computed, merging partial results in fp32. Tokens of a text that are attended to jointly are shared
where their number divides, else every GPU has all of them. Text encoders and the VAE run as on one GPU.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from simtti.errors import InputError
from simtti.workloads.parallel.degrees import WHOLE, Degrees
from simtti.workloads.parallel.operands import (
    ALL_TO_ALL,
    SEND_RECEIVE,
    collective,
    made,
    operator_like,
    unused_tensors,
)
from simtti.workloads.parallel.tokens import attends, local, tokens_of
from simtti.workloads.trace import Operator, Phase, Step, TensorUse, Trace

# Of attention: what each part of a ring has another share of.
_PARTS_UNLIKE = frozenset(("sequences", "window", "block_share"))


def divided(trace: Trace, degrees: Degrees) -> Trace:
    """What one of the GPUs that share the tokens runs of `trace`.

    Raises:
        InputError: a denoiser whose tokens cannot be shared: a UNet, or one without self-attention; fewer heads than the Ulysses
            degree.
    """
    fresh = unused_tensors(trace)
    phases = []
    shared = False
    for phase in trace.phases:
        steps = phase.steps
        if is_shared(phase):
            # Of the whole phase: a step that skips its attention has the same tokens.
            lengths = _local_lengths([op for step in steps for op in step.operators], degrees.sequence)
            steps = tuple(
                Step(step.count, _shard_step(trace.workload, step.operators, degrees, fresh, lengths))
                for step in steps
            )
            shared = True
        phases.append(Phase(phase.name, steps))
    if not shared:
        raise InputError(
            f"{trace.workload} has no phase of several steps with self-attention over an image or a video, whose "
            "tokens GPUs could share"
        )
    return dataclasses.replace(trace, phases=tuple(phases))


def is_shared(phase: Phase) -> bool:
    """Whether GPUs share the tokens of a phase: it has several steps, and attends to an image or a video."""
    several = sum(step.count for step in phase.steps) > 1
    return (
        several
        and phase.name not in WHOLE
        and any(attends(op) for step in phase.steps for op in step.operators)
    )


def _shard_step(
    workload: str,
    operators: Sequence[Operator],
    degrees: Degrees,
    fresh: Iterator[int],
    shares: tuple[dict[int, int], dict[int, int]],
) -> tuple[Operator, ...]:
    """fresh: identities that no tensor of the trace has. shares: of the phase (`_local_lengths`)."""
    for operator in operators:
        if operator.category == "Convolution" and _overlaps(operator):
            raise InputError(
                f"{workload}: a convolution of {operator.module} reaches over the borders between GPUs; only the tokens of "
                "a transformer can be shared"
            )
    lengths, repeated = shares
    found: list[Operator] = []
    for operator in operators:
        share = dataclasses.replace(
            operator,
            inputs=tuple(local(use, lengths) for use in operator.inputs),
            outputs=tuple(local(use, lengths) for use in operator.outputs),
        )
        if attends(operator):
            of_text = repeated.get(operator.inputs[0].shape[-2], 0)
            found += _Exchange(workload, share, degrees, fresh, of_text).operators()
        else:
            found.append(share)
    # What the program lets go of is not known of the exchanges.
    return tuple(dataclasses.replace(op, position=at, released=()) for at, op in enumerate(found))


def _overlaps(operator: Operator) -> bool:
    taps = operator.inputs[1].shape[2:]
    strides = operator.attributes.get("stride", [1] * len(taps))
    return any(tap > stride for tap, stride in zip(taps, strides, strict=True))


# ---- shapes


def _local_lengths(operators: Sequence[Operator], gpus: int) -> tuple[dict[int, int], dict[int, int]]:
    """Tokens that one GPU has, by the number that there are: of the image, of a text attended to jointly, of both. And of
    those both, the text's where every GPU has all of it."""
    found: dict[int, int] = {}
    repeated: dict[int, int] = {}
    for image, text in tokens_of(operators):
        own_text = text // gpus if text % gpus == 0 else text
        found[image] = -(-image // gpus)
        if text:
            found[text] = own_text
            found[image + text] = found[image] + own_text
            if own_text == text:
                repeated[image + text] = text
    return found, repeated


# ---- attention


class _Exchange:
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
        if degrees.ring > 1 and (unlike := _PARTS_UNLIKE & attention.attributes.keys()):
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
            operators, own = self._gather(_shorter(use, without))
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
        return found + self._scatter(result)

    def _with_repeated(self, uses: tuple[TensorUse, ...]) -> tuple[list[Operator], list[TensorUse]]:
        """Keys and values with those that every GPU has."""
        operators, found = [], []
        for use in uses:
            text = self._made((*use.shape[:-2], self.repeated, use.shape[-1]), use.dtype)
            both = self._made((*use.shape[:-2], use.shape[-2] + self.repeated, use.shape[-1]), use.dtype)
            operators.append(self._operator("aten::cat", "Memory", (use, text), (both,)))
            found.append(both)
        return operators, found

    def _gather(self, use: TensorUse) -> tuple[list[Operator], TensorUse]:
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

    def _scatter(self, use: TensorUse) -> list[Operator]:
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
