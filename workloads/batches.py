"""Traces of other batches, from the one that ships: what depends on the batch, found at build time from recordings, as numbers a + b x batch.

    fit(one, two, three)               # from recordings at batch 1, 2 and 3: a Batches, or NotAffine says why there is none
    Batches.load(path).trace(one, 16)  # the trace at batch 16, equal to its recording

Of a step whose operators are the same ones at batch 1 and above, only what changes is stored: each layout's shape, strides and bytes,
each attribute. A step that is another one at batch 1 (a VAE's decoder, whose layouts change where the batch is 1) is stored in full.
What does not fit into this is not scaled but recorded. Every file was checked: what it gives at batches that it was not made from is
equal to recordings there (`build_batches`). Needs no torch.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa

from simtti.errors import InputError
from simtti.files import replacing
from simtti.workloads.trace import Operator, Phase, Step, TensorUse, Trace, row_major

VERSION = 1
_PER_IMAGE = "per image"
_LEVEL = 19  # of zstd's compression
# A number that is the same at every batch, or [at batch 0, for each image].
Number: TypeAlias = "int | list[int]"


class NotAffine(Exception):  # noqa: N818
    """What depends on the batch does so in another way than a + b x batch."""


@dataclass(frozen=True)
class Batches:
    """What a trace at batch 1 becomes at larger ones.

    content: of: the hash of the trace's file. largest: the largest batch that was checked. layouts, attributes: those at batch b. of_layouts, of_attributes: for each
    distinct one at batch 1, in the order in which they are met, the number of its counterpart; but_layouts, but_attributes: where
    it is another, by the place among operands and operators of the steps that are the same. ids: [from, shift] of tensors, ascending.
    phases: a list of steps each: [count, None], or [count, rows] in full.
    """

    content: dict[str, Any]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it; the same gives the same bytes."""
        text = json.dumps(self.content, sort_keys=True, separators=(",", ":")).encode()
        with replacing(path) as partial:
            partial.write_bytes(pa.Codec("zstd", compression_level=_LEVEL).compress(text, asbytes=True))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Batches:
        """Read what `save` wrote.

        Raises:
            InputError: no such file, or it is damaged or of another version.
        """
        try:
            with pa.input_stream(os.fspath(path), compression="zstd") as stream:
                content = json.loads(stream.read())
        except (OSError, pa.ArrowException, ValueError) as error:
            raise InputError(f"{path}: not readable: {error}") from None
        if content.get("version") != VERSION:
            raise InputError(f"{path}: version {content.get('version')!r}; this simtti reads {VERSION}")
        return cls(content)

    def reaches(self, batch: int, file: Path) -> bool:
        """Whether it gives this batch, and was made for the trace in this file, not for one that shipped before."""
        return 1 < batch <= self.content["largest"] and self.content["of"] == hash_of(file)

    def made_for(self, file: Path, largest: int) -> Batches:
        """The same, said to be for the trace in this file and to have been checked up to a batch."""
        return Batches({**self.content, "of": hash_of(file), "largest": largest})

    def trace(self, one: Trace, batch: int) -> Trace:
        """The trace at `batch`, from the one at batch 1 that it was made for, with that one's steps."""
        content = self.content
        reader = _Reader(content, batch)
        phases = []
        for phase, steps in zip(one.phases, content["phases"], strict=True):
            found: list[Step] = []
            for step, (count, rows) in zip(phase.steps, steps, strict=True):
                number = len(found)
                operators = (
                    reader.same(step.operators) if rows is None else reader.own(phase.name, number, rows)
                )
                found.append(Step(_at(count, batch), tuple(operators)))
            phases.append(Phase(phase.name, tuple(found)))
        return replace(one, phases=tuple(phases), options={**one.options, "batch": batch})


def fit(one: Trace, two: Trace, three: Trace) -> Batches:
    """What becomes of a trace at batch 1 at larger ones, from recordings at batch 1, 2 and 3.

    Raises:
        NotAffine: they differ in another way.
    """
    for name in ("parameters", "parameter_bytes", "schedule", "provenance"):
        _alike(name, *(getattr(trace, name) for trace in (one, two, three)))
    _alike(
        "phases", *([(phase.name, len(phase.steps)) for phase in trace.phases] for trace in (one, two, three))
    )
    writer = _Writer()
    phases = [
        [
            [_number(b.count, c.count), writer.step(a.operators, b.operators, c.operators)]
            for a, b, c in zip(*(phase.steps for phase in same), strict=True)
        ]
        for same in zip(one.phases, two.phases, three.phases, strict=True)
    ]
    return Batches({"version": VERSION, "workload": one.workload, "phases": phases, **writer.tables()})


def hash_of(file: Path) -> str:
    """Of what is in a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


# ---- numbers


def _number(two: int, three: int) -> Number:
    return two if two == three else [two - 2 * (three - two), three - two]


def _at(number: Number, batch: int) -> int:
    return number if isinstance(number, int) else number[0] + number[1] * batch


def _value(two: Any, three: Any) -> Any:
    """An attribute at any batch, from those at 2 and 3."""
    if type(two) is int and type(three) is int and two != three:
        return {_PER_IMAGE: _number(two, three)}
    if isinstance(two, list) and isinstance(three, list) and len(two) == len(three):
        return [_value(a, b) for a, b in zip(two, three, strict=True)]
    _alike("attributes", two, three)
    return two


def _value_at(value: Any, batch: int) -> Any:
    if isinstance(value, dict):
        return _at(value[_PER_IMAGE], batch)
    return [_value_at(each, batch) for each in value] if isinstance(value, list) else value


def _alike(what: str, *values: Any) -> None:
    if any(value != values[0] for value in values[1:]):
        raise NotAffine(f"{what} differ: {str(values)[:200]}")


# ---- writing


class _Numbers:
    """Distinct things, numbered as they are met."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def of(self, thing: Any) -> int:
        return self.known.setdefault(_text(thing), len(self.known))

    def things(self) -> list[Any]:
        return [json.loads(text) for text in self.known]


def _text(thing: Any) -> str:
    return json.dumps(thing, sort_keys=True)


class _Writer:
    """Goes through the steps of three recordings side by side."""

    def __init__(self) -> None:
        self.layouts, self.attributes = _Numbers(), _Numbers()
        self.ids: dict[int, int] = {}
        # Of the steps that are the same: (the one at batch 1, its counterpart's number).
        self.same_layouts: list[tuple[str, int]] = []
        self.same_attributes: list[tuple[str, int]] = []

    def step(
        self, one: Sequence[Operator], two: Sequence[Operator], three: Sequence[Operator]
    ) -> list[Any] | None:
        """None for a step that is the same at batch 1, else its rows."""
        _alike("operators", [_structure(each) for each in two], [_structure(each) for each in three])
        ids = self._same(one, two)
        if ids is None:
            return [self._row(b, c) for b, c in zip(two, three, strict=True)]
        self.ids.update(ids)
        for a, b, c in zip(one, two, three, strict=True):
            self.same_attributes.append((_text(a.attributes), self._attributes(b, c)))
            for use, *others in zip(_uses(a), _uses(b), _uses(c), strict=True):
                self.same_layouts.append((_text(_layout(use)), self._layout(*others)))
        return None

    def _same(self, one: Sequence[Operator], two: Sequence[Operator]) -> dict[int, int] | None:
        """The tensors of a step at batch 1 and those at 2; None where the operators are not the same."""
        if len(one) != len(two):
            return None
        ids: dict[int, int] = {}
        for a, b in zip(one, two, strict=True):
            if _kind(a) != _kind(b):
                return None
            mine = [use.tensor for use in _uses(a)], [use.tensor for use in _uses(b)]
            for first, second in (*zip(*mine, strict=True), *zip(a.released, b.released, strict=True)):
                known = self.ids.get(first, ids.get(first))
                if known is not None and known != second:
                    return None
                ids[first] = second
        return ids

    def _row(self, two: Operator, three: Operator) -> list[Any]:
        uses = [
            [[use.tensor, self._layout(use, other)] for use, other in zip(*pair, strict=True)]
            for pair in ((two.inputs, three.inputs), (two.outputs, three.outputs))
        ]
        return [
            two.module, two.op, two.category, *uses, self._attributes(two, three), int(two.is_view), list(two.released),
        ]  # fmt: skip

    def _attributes(self, two: Operator, three: Operator) -> int:
        return self.attributes.of(
            {name: _value(value, three.attributes[name]) for name, value in two.attributes.items()}
        )

    def _layout(self, two: TensorUse, three: TensorUse) -> int:
        plain = all(use.strides == row_major(use.shape) for use in (two, three))
        return self.layouts.of(
            [
                two.dtype,
                [_number(*pair) for pair in zip(two.shape, three.shape, strict=True)],
                None if plain else [_number(*pair) for pair in zip(two.strides, three.strides, strict=True)],
                _number(two.storage_bytes, three.storage_bytes),
                two.role,
            ]
        )

    def tables(self) -> dict[str, Any]:
        of_layouts, but_layouts = _mostly(self.same_layouts)
        of_attributes, but_attributes = _mostly(self.same_attributes)
        shifts: list[list[int]] = []
        for first, second in sorted(self.ids.items()):
            if not shifts or shifts[-1][1] != second - first:
                shifts.append([first, second - first])
        return {
            "layouts": self.layouts.things(), "attributes": self.attributes.things(), "ids": shifts,
            "of_layouts": of_layouts, "but_layouts": but_layouts,
            "of_attributes": of_attributes, "but_attributes": but_attributes,
        }  # fmt: skip


def _mostly(pairs: Sequence[tuple[str, int]]) -> tuple[list[int], list[list[int]]]:
    """The most frequent counterpart of each thing, in the order in which they are met, and [place, counterpart] of the others."""
    counts: dict[str, Counter[int]] = {}
    for thing, number in pairs:
        counts.setdefault(thing, Counter())[number] += 1
    usual = {thing: found.most_common(1)[0][0] for thing, found in counts.items()}
    others = [[place, number] for place, (thing, number) in enumerate(pairs) if usual[thing] != number]
    return list(usual.values()), others


def _uses(operator: Operator) -> tuple[TensorUse, ...]:
    return (*operator.inputs, *operator.outputs)


def _kind(operator: Operator) -> tuple[Any, ...]:
    """What must be the same for two operators to be counterparts, but for the identities of tensors."""
    return (
        operator.module, operator.op, operator.category, operator.is_view, len(operator.inputs), len(operator.released),
        [(use.dtype, use.role, len(use.shape)) for use in _uses(operator)], sorted(operator.attributes),
    )  # fmt: skip


def _structure(operator: Operator) -> tuple[Any, ...]:
    return (*_kind(operator), [use.tensor for use in _uses(operator)], operator.released)


def _layout(use: TensorUse) -> list[Any]:
    return [use.dtype, use.shape, use.strides, use.storage_bytes, use.role]


# ---- reading


class _Reader:
    """Goes through the steps of a trace at batch 1 and gives those at another."""

    def __init__(self, content: dict[str, Any], batch: int) -> None:
        self.batch = batch
        self.layouts = [self._layout(each) for each in content["layouts"]]
        self.attributes = [
            {name: _value_at(value, batch) for name, value in each.items()} for each in content["attributes"]
        ]
        self.shifts = content["ids"]
        self.layout_of = _Counterparts(content["of_layouts"], content["but_layouts"])
        self.attributes_of = _Counterparts(content["of_attributes"], content["but_attributes"])
        self._ids: dict[int, int] = {}
        self._uses: dict[tuple[int, int], TensorUse] = {}

    def _layout(self, stored: list[Any]) -> tuple[Any, ...]:
        dtype, shape, strides, nbytes, role = stored
        sizes = tuple(_at(each, self.batch) for each in shape)
        steps = row_major(sizes) if strides is None else tuple(_at(each, self.batch) for each in strides)
        return sizes, steps, dtype, _at(nbytes, self.batch), role

    def same(self, operators: Iterable[Operator]) -> Iterator[Operator]:
        for operator in operators:
            attributes = self.attributes[self.attributes_of.next(_text(operator.attributes))]
            inputs, outputs = (
                tuple(
                    self._use(self._id(use.tensor), self.layout_of.next(_text(_layout(use)))) for use in uses
                )
                for uses in (operator.inputs, operator.outputs)
            )
            yield replace(
                operator, inputs=inputs, outputs=outputs, attributes=attributes,
                released=tuple(self._id(each) for each in operator.released),
            )  # fmt: skip

    def own(self, phase: str, step: int, rows: Iterable[list[Any]]) -> Iterator[Operator]:
        for position, (module, op, category, inputs, outputs, attributes, is_view, released) in enumerate(
            rows
        ):
            yield Operator(
                phase, step, position, module, op, category,
                tuple(self._use(*each) for each in inputs), tuple(self._use(*each) for each in outputs),
                self.attributes[attributes], bool(is_view), tuple(released),
            )  # fmt: skip

    def _use(self, tensor: int, layout: int) -> TensorUse:
        key = tensor, layout
        if key not in self._uses:
            self._uses[key] = TensorUse(tensor, *self.layouts[layout])
        return self._uses[key]

    def _id(self, first: int) -> int:
        if first not in self._ids:
            shift = next((shift for begin, shift in reversed(self.shifts) if begin <= first), 0)
            self._ids[first] = first + shift
        return self._ids[first]


class _Counterparts:
    """The counterpart of each thing in turn."""

    def __init__(self, usual: list[int], others: list[list[int]]) -> None:
        self.usual, self.others = usual, {place: number for place, number in others}
        self.numbers: dict[str, int] = {}
        self.place = -1

    def next(self, thing: str) -> int:
        self.place += 1
        number = self.numbers.setdefault(thing, len(self.numbers))
        return self.others.get(self.place, self.usual[number])


def path_beside(trace: Path) -> Path:
    """Where what becomes of a shipped trace at other batches is kept."""
    return trace.with_suffix(".batches")
