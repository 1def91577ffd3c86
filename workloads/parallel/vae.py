"""A VAE's decoder on several GPUs: each decodes a band of the image's rows, as DistVAE does it for xDiT.

A convolution gets the rows beyond its band's borders from the neighbours, and what it makes of them is cut off again
(distvae/models/layers/conv2d.py). A group norm adds up its groups' sums, then their squared deviations, over all GPUs, and is done
operator by operator (layers/normalization.py). Attention sees the whole: a video's decoder gathers what goes into it and does it on
every GPU (adapters/layers/attn_adapters.py), an image's is done on every GPU up to the end of the block with its last attention, and
cut from there on (models/vae.py). At the end the bands are gathered. A decoder that works tile by tile deals out whole tiles instead
(vae/tile_parallel.py).

What is given is the share of a GPU with two neighbours and the larger of two bands.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from simtti.errors import InputError
from simtti.workloads.parallel.linear import contracts_tokens
from simtti.workloads.parallel.operands import (
    ALL_GATHER,
    ALL_REDUCE,
    SEND_RECEIVE,
    collective,
    made,
    numbered,
    operator_like,
    renamed,
    resized,
    unused_tensors,
)
from simtti.workloads.trace import Operator, Phase, Step, TensorUse, Trace

DECODER = "decoder"
_FLOAT = "fp32"


def divided(trace: Trace, ranks: int, tiled: bool = False) -> Trace:
    """What one of `ranks` GPUs that share the decoder runs of `trace`.

    tiled: it decodes tile by tile, each a step of the trace.

    Raises:
        InputError: no decoder with convolutions; fewer rows, or tiles, than GPUs; a convolution that shares rows in another way.
    """
    fresh = unused_tensors(trace)
    phases, shared = [], False
    for phase in trace.phases:
        steps = phase.steps
        if phase.name == DECODER and any(_decodes(op) for step in steps for op in step.operators):
            shared = True
            if tiled:
                steps = tuple(_dealt(step, ranks, fresh) for step in steps)
            else:
                steps = tuple(
                    Step(step.count, numbered(_banded(trace.workload, step.operators, ranks, fresh)))
                    for step in steps
                )
        phases.append(Phase(phase.name, steps))
    if not shared:
        raise InputError(
            f"{trace.workload} has no phase {DECODER} with convolutions, whose rows GPUs could share; leave parallel-vae out"
        )
    return dataclasses.replace(trace, phases=tuple(phases))


def _decodes(operator: Operator) -> bool:
    return operator.category == "Convolution" and DECODER in operator.module.split(".")


def _within(operator: Operator) -> bool:
    return DECODER in operator.module.split(".")


# ---- tiles


def _dealt(step: Step, ranks: int, fresh: Iterator[int]) -> Step:
    """A tile's step, as often as the GPU with most of them has it; those of others come to it after each."""
    if not any(map(_decodes, step.operators)) or step.count == 1:
        return step
    last = next(operator for operator in reversed(step.operators) if _within(operator) and operator.outputs)
    (tile,) = last.outputs[:1]
    every = made(next(fresh), (ranks, *tile.shape), tile.dtype)
    gather = collective(last, ALL_GATHER, ranks, (tile,), (every,))
    gather = dataclasses.replace(gather, released=(every.tensor,))
    return Step(-(-step.count // ranks), numbered((*step.operators, gather)))


# ---- bands


class _Bands(NamedTuple):
    """rows, columns: of what is cut first; own: the rows of it that a GPU has, of `ranks`."""

    workload: str
    ranks: int
    rows: int
    columns: int
    own: int

    def axis(self, use: TensorUse) -> int | None:
        """The dimension of an image's rows: that before its columns, in whatever scale; None of what is no image."""
        if use.role == "parameter" or len(use.shape) < 4:
            return None
        pairs = [
            (first, second)
            for second in range(len(use.shape) - 1, 0, -1)
            for first in range(second - 1, -1, -1)
        ]
        pairs.sort(key=lambda pair: pair[1] - pair[0])
        return next(
            (first for first, second in pairs if self._is_image(use.shape[first], use.shape[second])), None
        )

    def _is_image(self, rows: int, columns: int) -> bool:
        return rows % self.rows == 0 and rows // self.rows * self.columns == columns

    def band(self, use: TensorUse, beyond: int = 0) -> TensorUse:
        """A band of an image, with so many rows beyond its borders in all."""
        axis = self.axis(use)
        if axis is None:
            return use
        own = use.shape[axis] // self.rows * self.own + beyond
        return resized(use, [own if here == axis else size for here, size in enumerate(use.shape)])


def _banded(workload: str, operators: Sequence[Operator], ranks: int, fresh: Iterator[int]) -> list[Operator]:
    inside = [at for at, operator in enumerate(operators) if _within(operator)]
    if not inside:
        return list(operators)
    video = any(_decodes(op) and len(op.outputs[0].shape) == 5 for op in operators)
    attended = [
        at for at in inside if operators[at].category == "Attention" or contracts_tokens(operators[at])
    ]
    begin, end = inside[0], inside[-1] + 1
    if attended and not video:
        block = _block(operators[attended[-1]])
        begin = 1 + max(at for at in inside if _block(operators[at]) == block)
    first = next(
        (use for at in range(begin, end) for use in operators[at].inputs if _is_rows(use)),
        None,
    )
    if first is None:
        return list(operators)
    rows, columns = first.shape[-2:]
    if rows < ranks:
        raise InputError(f"{workload} decodes {rows} rows, fewer than the {ranks} GPUs of parallel-vae")
    share = _Share(_Bands(workload, ranks, rows, columns, -(-rows // ranks)), fresh)
    regions = {operators[at].module for at in attended} if video else set()
    for at in range(begin, end):
        share.add(operators[at], regions)
    found = [*operators[:begin], *share.found, *operators[end:]]
    return found[: begin + len(share.found)] + share.gathered(found[begin + len(share.found) :])


def _is_rows(use: TensorUse) -> bool:
    return use.role != "parameter" and len(use.shape) in (4, 5) and min(use.shape[-2:]) > 1


def _block(operator: Operator) -> str:
    """The path of the decoder's block that an operator is in: a part of it, or one of a list of parts."""
    parts = operator.module.split(".")
    at = parts.index(DECODER) + 2
    return ".".join(parts[: at + 1 if parts[at : at + 1] and parts[at].isdigit() else at])


class _Share:
    """The operators of one GPU, in order. padded: by tensor, the rows that it has beyond its borders in all."""

    def __init__(self, bands: _Bands, fresh: Iterator[int]) -> None:
        self.bands, self.fresh = bands, fresh
        self.found: list[Operator] = []
        self.padded: set[int] = set()
        self.whole: dict[int, int] = {}  # what attention sees, by what it is of
        self.last: tuple[Operator, TensorUse] | None = None

    def add(self, operator: Operator, regions: set[str]) -> None:
        if any(operator.module == one or operator.module.startswith(one + ".") for one in regions):
            self._attend(operator)
            return
        self.whole.clear()
        if operator.category == "Convolution":
            self._convolve(operator)
        elif operator.op == "aten::native_group_norm":
            self._normalize(operator)
        elif "_pad" in operator.op and self._adds_rows(operator):
            self._pad(operator)
        else:
            self._put(operator, operator.inputs)
        for use in operator.outputs:
            if self.bands.axis(use) is not None:
                self.last = operator, self.bands.band(use)

    def _put(self, operator: Operator, inputs: Sequence[TensorUse]) -> None:
        self.found.append(
            dataclasses.replace(
                operator,
                inputs=tuple(map(self.bands.band, inputs)),
                outputs=tuple(map(self.bands.band, operator.outputs)),
            )
        )

    def _convolve(self, operator: Operator) -> None:
        image, weight, *rest = operator.inputs
        taps, reach = weight.shape[-2], operator.attributes["padding"][-2]
        if image.tensor in self.padded:  # with its borders already
            own = self.bands.band(operator.outputs[0])
            image = _with_rows(image, own.shape[-2] + taps - 1)
            self.found.append(dataclasses.replace(operator, inputs=(image, weight, *rest), outputs=(own,)))
            return
        if taps == 1 or self.bands.axis(image) is None:
            self._put(operator, operator.inputs)
            return
        strides = operator.attributes["stride"]
        if strides[-2] != 1 or operator.attributes.get("transposed") or 2 * reach != taps - 1:
            raise InputError(
                f"{self.bands.workload}: a convolution of {operator.module} with stride {strides} and padding "
                f"{operator.attributes['padding']} shares rows in a way that parallel-vae does not know; leave it out"
            )
        wide = self._with_borders(operator, image, taps - 1)
        own = self.bands.band(operator.outputs[0])
        result = self._made(_with_rows(own, own.shape[-2] + taps - 1))
        self._operator(dataclasses.replace(operator, released=()), (wide, weight, *rest), (result,))
        seen = dataclasses.replace(result, shape=own.shape)
        self._operator(
            operator_like(operator, "aten::clone", "Memory", (), ()),
            (seen,),
            (own,),
            (*operator.released, wide.tensor, result.tensor),
        )

    def _with_borders(self, like: Operator, image: TensorUse, rows: int) -> TensorUse:
        """A band with the neighbours' rows on both sides, so many in all."""
        own = self.bands.band(image)
        borders = [_with_rows(own, each) for each in (-(-rows // 2), rows // 2) if each]
        received = [self._made(use) for use in borders]
        wide = self._made(_with_rows(own, own.shape[-2] + rows))
        exchange = operator_like(like, SEND_RECEIVE, "Communication", (), (), {"ranks": self.bands.ranks})
        sent = [self._made(use) for use in borders]
        for border, copy in zip(borders, sent, strict=True):
            self._operator(operator_like(like, "aten::clone", "Memory", (), ()), (border,), (copy,))
        self._operator(exchange, tuple(sent), tuple(received), tuple(use.tensor for use in sent))
        cat = operator_like(like, "aten::cat", "Memory", (), (), {"dim": len(own.shape) - 2})
        self._operator(cat, (received[0], own, *received[1:]), (wide,), tuple(use.tensor for use in received))
        return wide

    def _adds_rows(self, operator: Operator) -> bool:
        before, after = operator.inputs[0], operator.outputs[0]
        return self.bands.axis(before) == len(before.shape) - 2 and before.shape[-2] != after.shape[-2]

    def _pad(self, operator: Operator) -> None:
        """What pads an image before a convolution: the rows are the neighbours', the columns as they were."""
        image, result = operator.inputs[0], operator.outputs[0]
        rows = result.shape[-2] - image.shape[-2]
        wide = self._with_borders(operator, image, rows)
        padded = _with_rows(result, wide.shape[-2])
        self._operator(operator, (wide, *operator.inputs[1:]), (padded,), (*operator.released, wide.tensor))
        self.padded.add(padded.tensor)

    def _normalize(self, operator: Operator) -> None:
        """Group norm: sums over the groups here and on the others, as operators of their own."""
        image, *affine = operator.inputs
        own, result = self.bands.band(image), self.bands.band(operator.outputs[0])
        groups = int(operator.attributes["num_groups"])
        split = [own.shape[0], groups, own.shape[1] // groups, *own.shape[2:]]
        inner = [own.strides[0], own.strides[1] * split[2], own.strides[1], *own.strides[2:]]
        seen = dataclasses.replace(own, shape=tuple(split), strides=tuple(inner))
        one = (split[0], groups, *(1 for _ in split[2:]))
        reduced = {"dim": list(range(2, len(split))), "keepdim": True}

        def parts(op: str, inputs: tuple[TensorUse, ...], shape: Sequence[int], dtype: str) -> TensorUse:
            out = made(next(self.fresh), shape, dtype)
            kind = "Other" if op == "aten::sum" else "Elementwise"
            like = operator_like(operator, op, kind, (), (), reduced if op == "aten::sum" else {})
            gone = tuple(use.tensor for use in inputs if use.tensor in temporaries)
            self._operator(like, inputs, (out,), gone)
            temporaries.add(out.tensor)
            return out

        temporaries: set[int] = set()
        mean = parts("aten::sum", (seen,), one, _FLOAT)
        self._reduce(operator, mean)
        mean = parts("aten::div", (mean,), one, own.dtype)
        temporaries.discard(mean.tensor)  # needed twice
        deviation = parts("aten::sub", (seen, mean), split, own.dtype)
        squares = parts("aten::pow", (deviation,), split, own.dtype)
        variance = parts("aten::sum", (squares,), one, _FLOAT)
        self._reduce(operator, variance)
        variance = parts("aten::div", (variance,), one, own.dtype)
        scale = parts("aten::sqrt", (variance,), one, own.dtype)
        temporaries.add(mean.tensor)
        deviation = parts("aten::sub", (seen, mean), split, own.dtype)
        normal = parts("aten::div", (deviation, scale), split, own.dtype)
        normal = dataclasses.replace(made(normal.tensor, own.shape, own.dtype))
        row = (1, own.shape[1], *(1 for _ in own.shape[2:]))
        weights = [
            dataclasses.replace(use, shape=row, strides=(own.shape[1], 1, *(1 for _ in own.shape[2:])))
            for use in affine
            if use.shape
        ]
        for number, weight in enumerate(weights):
            op = ("aten::mul", "aten::add")[number]
            last = number == len(weights) - 1
            like = operator_like(operator, op, "Elementwise", (), ())
            out = result if last else self._made(own)
            gone = (normal.tensor, *(operator.released if last else ()))
            self._operator(like, (normal, weight), (out,), gone)
            normal = out

    def _reduce(self, like: Operator, use: TensorUse) -> None:
        self.found.append(collective(like, ALL_REDUCE, self.bands.ranks, (use,), (use,)))

    def _attend(self, operator: Operator) -> None:
        """In an attention's module: on the whole image, which is gathered at its first operator."""
        if not self.whole:
            source = next(use for use in operator.inputs if use.role != "parameter")
            band = self._made(self.bands.band(source))
            if self.bands.axis(source) is None:  # seen as tokens
                band = made(source.tensor, (-(-source.numel // self.bands.ranks),), source.dtype)
            own = dataclasses.replace(band, tensor=source.tensor)
            bands = made(next(self.fresh), (self.bands.ranks, *own.shape), own.dtype)
            whole = made(next(self.fresh), source.shape, source.dtype)
            gather = operator_like(operator, ALL_GATHER, "Communication", (), (), {"ranks": self.bands.ranks})
            self._operator(gather, (own,), (bands,))
            self._operator(
                operator_like(operator, "aten::clone", "Memory", (), ()),
                (dataclasses.replace(bands, shape=whole.shape, strides=whole.strides),),
                (whole,),
                (bands.tensor,),
            )
            self.whole = {source.tensor: whole.tensor}
        self.found.append(
            dataclasses.replace(
                operator,
                inputs=renamed(operator.inputs, self.whole),
                outputs=renamed(operator.outputs, self.whole) if operator.is_view else operator.outputs,
            )
        )

    def gathered(self, after: Sequence[Operator]) -> list[Operator]:
        """The bands of all GPUs together, then the operators that follow."""
        if self.last is None:
            return list(after)
        like, band = self.last
        bands = made(next(self.fresh), (self.bands.ranks, *band.shape), band.dtype)
        whole = made(next(self.fresh), _with_rows(band, self.bands.ranks * band.shape[-2]).shape, band.dtype)
        gather = dataclasses.replace(
            collective(
                like, ALL_GATHER, self.bands.ranks, (made(band.tensor, band.shape, band.dtype),), (bands,)
            ),
            released=(band.tensor,),
        )
        seen = dataclasses.replace(bands, shape=whole.shape, strides=whole.strides)
        join = operator_like(like, "aten::cat", "Memory", (seen,), (whole,), {"dim": len(whole.shape) - 2})
        names = {band.tensor: whole.tensor}
        rest = [
            dataclasses.replace(
                operator,
                inputs=renamed(operator.inputs, names),
                outputs=renamed(operator.outputs, names),
                released=tuple(names.get(tensor, tensor) for tensor in operator.released),
            )
            for operator in after
        ]
        return [gather, dataclasses.replace(join, released=(bands.tensor,)), *rest]

    def _made(self, like: TensorUse) -> TensorUse:
        return made(next(self.fresh), like.shape, like.dtype)

    def _operator(
        self,
        like: Operator,
        inputs: tuple[TensorUse, ...],
        outputs: tuple[TensorUse, ...],
        released: tuple[int, ...] = (),
    ) -> None:
        self.found.append(dataclasses.replace(like, inputs=inputs, outputs=outputs, released=released))


def _with_rows(use: TensorUse, rows: int) -> TensorUse:
    """The use with so many rows, its dimension before the last."""
    return resized(use, (*use.shape[:-2], rows, use.shape[-1]))
