"""Displaced patches: a UNet's image in bands of rows, one on each GPU, as DistriFusion has it (arXiv 2402.19481, mit-han-lab/distrifuser).

What works on each row or token alone works on the band. A convolution reads rows beyond its borders, a group norm the means of all bands,
self-attention the keys and values of all tokens. In the first steps each waits for an all-gather of these. In later steps it takes what
the others had in the step before, its own fresh, and puts its own where an all-gather beside the computation takes it for the next
step: one for so many of them (`CHECKPOINT`), the last at the beginning of the next step. The first convolution is given the whole
image (that of a ControlNet too), and the predicted noise is gathered in every step.

Which dimension of a tensor is the rows' is followed from the first convolution on, storage by storage (`rows`).

Text is taken to be projected to keys and values in every step, which distrifuser does once.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from simtti.errors import InputError
from simtti.workloads.parallel.borders import overlaps, part_of, with_rows
from simtti.workloads.parallel.degrees import WHOLE
from simtti.workloads.parallel.operands import (
    ALL_GATHER,
    collective,
    made,
    numbered,
    operator_like,
    renamed,
    unused_tensors,
)
from simtti.workloads.parallel.rows import Rows
from simtti.workloads.trace import ITEM_BYTES, Operator, Phase, Step, TensorUse, Trace

CHECKPOINT = 60  # layers whose parts go together (distrifuser/utils.py, comm_checkpoint)


def divided(trace: Trace, ranks: int, warmup_steps: int) -> Trace:
    """What one of `ranks` GPUs that have a band of the image each runs of `trace`.

    warmup_steps: the first steps, which wait for the others' rows of the same step.

    Raises:
        InputError: no convolutions of an image whose results share what they read; rows that ranks does not divide; operators that
            need several bands in a way that is not known.
    """
    fresh = unused_tensors(trace)
    kept = [_Kept(next(fresh), next(fresh)) for _ in range(_layers(trace) // CHECKPOINT + 1)]
    phases, shared = [], False
    for phase in trace.phases:
        steps, warm = [], warmup_steps
        for step in phase.steps:
            first = None if phase.name in WHOLE else _first(step.operators)
            if first is None:
                steps.append(step)
                continue
            shared = True
            count = min(warm, step.count)
            warm -= count
            for times, synchronous in ((count, True), (step.count - count, False)):
                if not times:
                    continue
                bands = _Bands(trace.workload, ranks, synchronous, kept, fresh)
                found = bands.operators(step.operators, first)
                if synchronous and times < step.count:
                    found = _anew(found, fresh)
                steps.append(Step(times, numbered(found)))
        phases.append(Phase(phase.name, tuple(steps)))
    if not shared:
        raise InputError(
            f"{trace.workload} has no UNet, whose image GPUs could have in bands: its denoiser's convolutions share no rows; patches "
            "must be 1"
        )
    return dataclasses.replace(trace, phases=tuple(phases))


def _first(operators: Sequence[Operator]) -> int | None:
    """The position of the first convolution that reads rows of several bands."""
    return next(
        (at for at, op in enumerate(operators) if op.category == "Convolution" and overlaps(op)), None
    )


def _anew(operators: Sequence[Operator], fresh: Iterator[int]) -> list[Operator]:
    """With identities of its own for what a step makes, which else is there until another step that makes it is over."""
    names: dict[int, int] = {}
    known: set[int] = set()
    for operator in operators:
        known |= {use.tensor for use in operator.inputs}
        for use in operator.outputs:
            if use.tensor not in known and use.role == "activation":
                names[use.tensor] = next(fresh)
            known.add(use.tensor)
    return [
        dataclasses.replace(
            operator,
            inputs=renamed(operator.inputs, names),
            outputs=renamed(operator.outputs, names),
            released=tuple(names.get(tensor, tensor) for tensor in operator.released),
        )
        for operator in operators
    ]


def _component(operator: Operator) -> str:
    return operator.module.partition(".")[0]


def _layers(trace: Trace) -> int:
    """No fewer than have parts to send in a step."""
    sends = ("Convolution", "GroupNorm", "Attention")
    return max(
        sum(op.category in sends for op in step.operators) for phase in trace.phases for step in phase.steps
    )


class _Kept(NamedTuple):
    """The storages of layers whose parts go together: of this GPU's parts, and of all GPUs'."""

    own: int
    every: int


class _Bands:
    """The operators of one GPU in a step.

    kept: storages that stay from step to step. temporaries: storages of the step. bytes: of this GPU's parts so far, by its storage of
    `kept`. layers: that have sent one.
    """

    def __init__(
        self, workload: str, ranks: int, synchronous: bool, kept: Sequence[_Kept], fresh: Iterator[int]
    ) -> None:
        self.ranks, self.synchronous, self.kept, self.fresh = ranks, synchronous, kept, fresh
        self.rows = Rows(workload, ranks)
        self.temporaries: set[int] = set()
        self.bytes: Counter[int] = Counter()
        self.layers = 0
        self.found: list[Operator] = []

    def operators(self, operators: Sequence[Operator], first: int) -> list[Operator]:
        networks = {_component(op) for op in operators if op.category == "Convolution"}
        end = 1 + max(at for at, op in enumerate(operators) if _component(op) in networks)
        for operator in operators[first:end]:
            self._add(operator)
        result = operators[end - 1].outputs[0]
        if result not in self.rows:
            raise self.rows.unknown(operators[end - 1])
        for operator in operators[end:]:
            if any(use in self.rows and use.tensor != result.tensor for use in operator.inputs):
                raise self.rows.unknown(operator)
        if not self.synchronous:
            dtype = result.dtype
            begun, left = divmod(self.layers, CHECKPOINT)
            if left:  # goes as the next step begins
                self.found.insert(0, self._exchange(operators[first], self.kept[begun], dtype))
        gather, whole = self._gathered(operators[end - 1], result)
        rest = [
            dataclasses.replace(
                operator,
                inputs=renamed(operator.inputs, {result.tensor: whole.tensor}),
                outputs=renamed(operator.outputs, {result.tensor: whole.tensor}),
                released=tuple(whole.tensor if one == result.tensor else one for one in operator.released),
            )
            for operator in operators[end:]
        ]
        return [*operators[:first], *self._let_go(map(self._sized, self.found)), *gather, *rest]

    def _sized(self, operator: Operator) -> Operator:
        """With the sizes of what is kept, which are known when all layers are."""
        total = {one.own: self.bytes[one.own] for one in self.kept}
        total |= {one.every: self.ranks * self.bytes[one.own] for one in self.kept}

        def sized(use: TensorUse) -> TensorUse:
            if use.tensor not in total:
                return use
            return dataclasses.replace(use, storage_bytes=total[use.tensor], role="buffer")

        return dataclasses.replace(
            operator,
            inputs=tuple(map(sized, operator.inputs)),
            outputs=tuple(map(sized, operator.outputs)),
        )

    def _let_go(self, operators: Iterable[Operator]) -> list[Operator]:
        """With the step's own storages let go of after their last use."""
        found = list(operators)
        last = {use.tensor: at for at, op in enumerate(found) for use in (*op.inputs, *op.outputs)}
        gone: dict[int, list[int]] = {}
        for tensor in sorted(self.temporaries & last.keys()):
            gone.setdefault(last[tensor], []).append(tensor)
        for at, tensors in gone.items():
            found[at] = dataclasses.replace(found[at], released=(*found[at].released, *tensors))
        return found

    def _new(self) -> int:
        tensor = next(self.fresh)
        self.temporaries.add(tensor)
        return tensor

    # ---- operators

    def _add(self, operator: Operator) -> None:
        divided = [(use, self.rows.axis(use)) for use in operator.inputs if use in self.rows]
        if not divided and operator.category == "Convolution" and overlaps(operator):
            self._begin(operator)
        elif not divided:
            self.found.append(operator)
        elif any(axis is None for _, axis in divided):
            raise self.rows.unknown(operator)
        elif operator.category == "Convolution":
            self._convolve(operator)
        elif operator.op == "aten::native_group_norm":
            self._normalize(operator)
        elif operator.category == "Attention":
            self._attend(operator)
        else:
            self.rows.follow(operator, [(use, axis) for use, axis in divided if axis is not None])
            self.found.append(self.rows.share(operator))

    def _begin(self, operator: Operator) -> None:
        """The first convolution of a network: its rows of the whole image, with those beyond its borders."""
        image, result = operator.inputs[0], operator.outputs[0]
        self.rows.begin(operator, result)
        if image.shape[-2] % self.ranks:
            raise self.rows.unknown(operator)
        reach = operator.attributes["padding"][-2]
        rows = image.shape[-2] // self.ranks + 2 * reach
        wide = with_rows(image, rows, self._new())
        self._make(operator, "aten::constant_pad_nd", (part_of(image, 2, rows),), wide)
        self._convolved(operator, wide)

    def _convolved(self, operator: Operator, wide: TensorUse) -> None:
        """On rows that have those beyond the borders already."""
        padding = [0, *operator.attributes["padding"][1:]]
        self.found.append(
            dataclasses.replace(
                operator,
                inputs=(wide, *operator.inputs[1:]),
                outputs=(self.rows.band(operator.outputs[0]),),
                attributes={**operator.attributes, "padding": padding},
            )
        )

    def _convolve(self, operator: Operator) -> None:
        image = operator.inputs[0]
        if self.rows.axis(image) != 2 or operator.attributes.get("transposed"):
            raise self.rows.unknown(operator)
        self.rows.begin(operator, operator.outputs[0])
        if not overlaps(operator):
            self.found.append(self.rows.share(operator))
            return
        reach = operator.attributes["padding"][-2]
        own = self.rows.band(image)
        border = part_of(own, 2, reach)
        borders = made(self._new(), (2, *border.shape), own.dtype)
        self._make(operator, "aten::stack", (border, border), borders, {"dim": 0})
        every = self._shared(operator, borders)
        wide = with_rows(own, own.shape[2] + 2 * reach, self._new())
        other = made(every.tensor, border.shape, own.dtype)
        self._make(operator, "aten::cat", (other, own, other), wide, {"dim": 2})
        self._convolved(operator, wide)
        self._sent(operator, borders)

    def _attend(self, operator: Operator) -> None:
        """The band's queries, and all keys and values: of an image gathered, of a text as they are."""
        query, key, value, *masks = operator.inputs
        axes = [self.rows.axis(use) for use in (query, key, value)]
        tokens = len(query.shape) - 2
        if axes not in ([tokens] * 3, [tokens, None, None]) or any(
            use in self.rows or use.shape[-2:-1] not in ((), (1,)) for use in masks
        ):
            raise self.rows.unknown(operator)
        inputs = (self.rows.band(query), key, value, *masks)
        if axes[1] is not None:
            pair = [self._flat(self.rows.band(use)) for use in (key, value)]
            both = made(self._new(), (sum(use.numel for use in pair),), key.dtype)
            self._make(operator, "aten::cat", tuple(pair), both, {"dim": 0})
            every = self._shared(operator, both)
            whole = []
            for own, use in zip(pair, (key, value), strict=True):
                others = made(every.tensor, ((self.ranks - 1) * own.numel,), own.dtype)
                whole.append(dataclasses.replace(use, tensor=self._new(), storage_bytes=use.nbytes))
                self._make(operator, "aten::cat", (others, own), self._flat(whole[-1]), {"dim": 0})
            inputs = (inputs[0], *whole, *masks)
            self._sent(operator, both)
        self.rows.divide(query, tokens, operator.outputs[0], len(operator.outputs[0].shape) - 2)
        self.found.append(
            dataclasses.replace(operator, inputs=inputs, outputs=tuple(map(self.rows.band, operator.outputs)))
        )

    @staticmethod
    def _flat(use: TensorUse) -> TensorUse:
        return dataclasses.replace(use, shape=(use.numel,), strides=(1,))

    def _normalize(self, operator: Operator) -> None:
        """Group norm by means of values and squares, those of the step before put right by how far its own have moved since
        (distrifuser/modules/pp/groupnorm.py, corrected_async_gn)."""
        image, *affine = operator.inputs
        if self.rows.axis(image) != 2:
            raise self.rows.unknown(operator)
        self.rows.divide(image, 2, operator.outputs[0], 2)
        own, result = self.rows.band(image), self.rows.band(operator.outputs[0])
        groups = int(operator.attributes["num_groups"])
        shape = (own.shape[0], groups, own.shape[1] // groups, *own.shape[2:])
        strides = (own.strides[0], own.strides[1] * shape[2], own.strides[1], *own.strides[2:])
        seen = dataclasses.replace(own, shape=shape, strides=strides)
        one = (shape[0], groups, 1, 1, 1)

        def put(op: str, *inputs: TensorUse, size: Sequence[int] = one) -> TensorUse:
            out = made(self._new(), size, own.dtype)
            reduces = op == "aten::mean"
            attributes = {"dim": [2, 3, 4], "keepdim": True} if reduces else {}
            kind = "Other" if reduces else "Memory" if op == "aten::stack" else "Elementwise"
            self._make(operator, op, inputs, out, attributes, kind)
            return out

        squares = put("aten::pow", seen, size=shape)
        means = put("aten::stack", put("aten::mean", seen), put("aten::mean", squares), size=(2, *one))
        other = made(self._shared(operator, means).tensor, means.shape, own.dtype)
        total = other
        for _ in range(self.ranks - 1):
            total = put("aten::add", total, other, size=means.shape)
        total = put("aten::div", total, size=means.shape)
        if not self.synchronous:
            moved = put("aten::sub", means, other, size=means.shape)
            total = put("aten::add", total, moved, size=means.shape)
        self._sent(operator, means)
        mean = made(total.tensor, one, own.dtype)
        variance = put("aten::sub", mean, put("aten::pow", mean))
        here = put("aten::sub", mean, put("aten::pow", mean))
        variance = put("aten::where", put("aten::lt", variance), here, variance)
        deviation = put("aten::sqrt", put("aten::add", put("aten::mul", variance)))
        normal = put("aten::div", put("aten::sub", seen, mean, size=shape), deviation, size=shape)
        normal = made(normal.tensor, own.shape, own.dtype)
        row = (1, own.shape[1], 1, 1)
        scaled = [dataclasses.replace(use, shape=row, strides=(own.shape[1], 1, 1, 1)) for use in affine]
        for op, weight in zip(("aten::mul", "aten::add"), scaled, strict=False):
            normal = put(op, normal, weight, size=own.shape)
        last = self.found.pop()
        self.found.append(
            dataclasses.replace(last, outputs=(result,), released=(*last.released, *operator.released))
        )

    # ---- what goes between GPUs

    def _shared(self, like: Operator, part: TensorUse) -> TensorUse:
        """All bands' parts, in memory that is kept: as an all-gather brings them now, or as the last step's did."""
        every = made(self._place.every, (self.ranks, *part.shape), part.dtype)
        if self.synchronous:
            self.found.append(collective(like, ALL_GATHER, self.ranks, (part,), (every,)))
        return every

    def _sent(self, like: Operator, part: TensorUse) -> None:
        """Put a part where it will be sent from, for the next step."""
        place = self._place
        self.bytes[place.own] += part.nbytes
        self.layers += 1
        if self.synchronous:
            return
        own = made(place.own, part.shape, part.dtype)
        self._make(like, "aten::copy_", (own, part), own)
        if self.layers % CHECKPOINT == 0:
            self.found.append(self._exchange(like, place, part.dtype))

    @property
    def _place(self) -> _Kept:
        return self.kept[self.layers // CHECKPOINT]

    def _exchange(self, like: Operator, place: _Kept, dtype: str) -> Operator:
        """An all-gather, beside the computation, of the parts that are there to be sent."""
        size = self.bytes[place.own] // ITEM_BYTES[dtype]
        part, every = made(place.own, (size,), dtype), made(place.every, (self.ranks, size), dtype)
        gather = collective(like, ALL_GATHER, self.ranks, (part,), (every,))
        return dataclasses.replace(gather, attributes={**gather.attributes, "overlapped": True}, released=())

    def _gathered(self, like: Operator, result: TensorUse) -> tuple[list[Operator], TensorUse]:
        """The predicted noise of all bands in one."""
        band = self.rows.band(result)
        bands = made(next(self.fresh), (self.ranks, *band.shape), band.dtype)
        whole = made(next(self.fresh), result.shape, result.dtype)
        seen = dataclasses.replace(bands, shape=whole.shape, strides=whole.strides)
        gather = collective(like, ALL_GATHER, self.ranks, (band,), (bands,))
        join = operator_like(like, "aten::cat", "Memory", (seen,), (whole,), {"dim": 2})
        return [
            dataclasses.replace(gather, released=(band.tensor,)),
            dataclasses.replace(join, released=(bands.tensor,)),
        ], whole

    def _make(
        self,
        like: Operator,
        op: str,
        inputs: tuple[TensorUse, ...],
        out: TensorUse,
        attributes: dict[str, object] | None = None,
        category: str = "Memory",
    ) -> None:
        self.found.append(operator_like(like, op, category, inputs, (out,), attributes))
