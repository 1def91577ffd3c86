"""Traces of other shapes from what ships beside the default one: each number of a trace as an expression of batch, size and frames.

    fit(traces, variables)                       # a Scope, from recordings at several shapes of the same operators
    Shapes.load(path).trace(default, options)    # the trace at that shape, equal to its recording; None where it must be recorded

A scope is a range of shapes at which a workload issues the same operators: batches of one image and larger ones mostly differ, as layouts
do. What stands in it: the operators, their tensors as how many tensors ago they were met (so that blocks of a model are alike), and each
size, stride, byte count, attribute and count of a step as an expression (`expressions`). Every scope was checked at recordings that it was
not made from, its corners among them (`build_shapes`). Needs no torch.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from simtti.errors import InputError
from simtti.files import replacing
from simtti.workloads.expressions import Basis, Expression, NotExact, at, powers
from simtti.workloads.trace import Operator, Phase, Step, TensorUse, Trace, row_major

VERSION = 1
_LEVEL = 19  # of zstd's compression
_NUMBER = "#"  # stands in attributes where a number does


@dataclass(frozen=True)
class Variable:
    """One option that a scope leaves free: `least` to `most`, in steps of `unit` from `origin`. An expression sees the steps.

    >>> Variable("frames", 5, 81, unit=4, origin=1).value(81)
    20
    """

    name: str
    least: int
    most: int
    unit: int = 1
    origin: int = 0

    def admits(self, option: int) -> bool:
        return self.least <= option <= self.most and (option - self.origin) % self.unit == 0

    def value(self, option: int) -> int:
        return (option - self.origin) // self.unit


@dataclass(frozen=True)
class Scope:
    """The shapes at which a trace is made of the same operators, and those.

    options: those that are fixed. largest: batch x height x width x frames as far as was checked. content: what `_Writer` made.
    """

    options: dict[str, Any]
    variables: tuple[Variable, ...]
    largest: int
    content: dict[str, Any]

    def admits(self, options: Mapping[str, Any]) -> bool:
        """Whether it has the trace of these options, the number of steps aside."""
        free = {one.name: one for one in self.variables}
        return (
            {*options} == {*self.options, *free}
            and all(options[name] == value for name, value in self.options.items() if name != "steps")
            and all(one.admits(options[name]) for name, one in free.items())
            and volume(options) <= self.largest
        )

    def trace(self, default: Trace, options: Mapping[str, Any]) -> Trace:
        """The trace at these options, with the default one's steps. Its name, weights and versions are the default trace's."""
        names = [one.name for one in self.variables]
        values = powers(names, [one.value(options[one.name]) for one in self.variables])
        shape = {name: options[name] for name in names}
        return replace(
            default,
            options={**default.options, **shape},
            phases=tuple(_Reader(self.content, values).phases()),
        )


@dataclass(frozen=True)
class Shapes:
    """What ships beside a workload's default trace. of: the hash of that trace's file."""

    of: str
    scopes: tuple[Scope, ...]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it; the same gives the same bytes."""
        content = {"version": VERSION, "of": self.of, "scopes": [asdict(scope) for scope in self.scopes]}
        text = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
        with replacing(path) as partial:
            partial.write_bytes(pa.Codec("zstd", compression_level=_LEVEL).compress(text, asbytes=True))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Shapes:
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
        scopes = [
            Scope(**{**each, "variables": tuple(Variable(**one) for one in each["variables"])})
            for each in content["scopes"]
        ]
        return cls(content["of"], tuple(scopes))

    def scope_of(self, options: Mapping[str, Any], file: Path) -> Scope | None:
        """The scope that has these options; None where there is none, or where this was made for another trace than that file's."""
        if self.of != hash_of(file):
            return None
        return next((scope for scope in self.scopes if scope.admits(options)), None)


def volume(options: Mapping[str, Any]) -> int:
    """Images or videos x pixels x frames."""
    found = 1
    for name in ("batch", "height", "width", "frames"):
        found *= options.get(name, 1)
    return found


def hash_of(file: Path) -> str:
    """Of what is in a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def path_beside(trace: Path) -> Path:
    """Where what becomes of a shipped trace at other shapes is kept."""
    return trace.with_suffix(".shapes")


def fit(traces: Sequence[Trace], variables: Sequence[Variable]) -> Scope:
    """The scope of several recordings of a workload, in which these options are free.

    Raises:
        NotExact: they are not made of the same operators, or a number of theirs follows in no known way.
    """
    for name in ("workload", "parameters", "parameter_bytes", "schedule", "provenance"):
        _alike(name, [getattr(trace, name) for trace in traces])
    names = [one.name for one in variables]
    fixed = {name: value for name, value in traces[0].options.items() if name not in names}
    for trace in traces[1:]:
        _alike("options", [fixed, {name: trace.options.get(name) for name in fixed}])
    points = [[one.value(trace.options[one.name]) for one in variables] for trace in traces]
    content = _Writer(Basis(names, points)).content(traces)
    return Scope(fixed, tuple(variables), max(volume(trace.options) for trace in traces), content)


def _alike(what: str, values: Sequence[Any]) -> None:
    for value in values[1:]:
        if value != values[0]:
            raise NotExact(f"{what} differ: {str(values[0])[:200]} and {str(value)[:200]}")


# ---- writing


class _Ages:
    """Names tensors by how many were met since: the first time a tensor is met it is 0."""

    def __init__(self) -> None:
        self.next = 0

    def of(self, tensor: int) -> int:
        age = self.next - tensor
        self.next = max(self.next, tensor + 1)
        return age

    def tensor(self, age: int) -> int:
        tensor = self.next - age
        self.next = max(self.next, tensor + 1)
        return tensor


class _Table:
    """Distinct things, numbered as they are met."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def of(self, thing: Any) -> int:
        return self.numbers.setdefault(json.dumps(thing, sort_keys=True), len(self.numbers))

    def things(self) -> list[Any]:
        return [json.loads(text) for text in self.numbers]


class _Writer:
    """Goes through several recordings side by side."""

    def __init__(self, basis: Basis) -> None:
        self.basis = basis
        self.modules, self.kinds, self.layouts, self.rows = _Table(), _Table(), _Table(), _Table()
        self.of_layouts: dict[tuple[tuple[Any, ...], ...], int] = {}

    def content(self, traces: Sequence[Trace]) -> dict[str, Any]:
        _alike(
            "phases", [[(phase.name, len(phase.steps)) for phase in trace.phases] for trace in traces]
        )
        ages = [_Ages() for _ in traces]
        phases = [
            [same[0].name, [self._step(steps, ages) for steps in zip(*(p.steps for p in same), strict=True)]]
            for same in zip(*(trace.phases for trace in traces), strict=True)
        ]
        tables = {"modules": self.modules, "kinds": self.kinds, "layouts": self.layouts, "rows": self.rows}
        return {"phases": phases, **{name: table.things() for name, table in tables.items()}}

    def _step(self, steps: Sequence[Step], ages: Sequence[_Ages]) -> list[Any]:
        _alike("operators of a step", [len(step.operators) for step in steps])
        modules, rows = [], []
        for same in zip(*(step.operators for step in steps), strict=True):
            modules.append(self.modules.of(same[0].module))
            rows.append(self._row(same, ages))
        return [self.basis.fit([step.count for step in steps]), modules, rows]

    def _row(self, same: Sequence[Operator], ages: Sequence[_Ages]) -> int:
        kinds = [_kind(operator, age) for operator, age in zip(same, ages, strict=True)]
        _alike("operators", kinds)
        numbers = [_numbers(operator.attributes) for operator in same]
        layouts = [
            self._layout(uses) for uses in zip(*((*one.inputs, *one.outputs) for one in same), strict=True)
        ]
        return self.rows.of(
            [self.kinds.of(kinds[0][1:]), [self.basis.fit(each) for each in zip(*numbers, strict=True)], layouts]
        )

    def _layout(self, uses: Sequence[TensorUse]) -> int:
        key = tuple((use.shape, use.strides, use.storage_bytes, use.dtype, use.role) for use in uses)
        if key not in self.of_layouts:
            plain = all(use.strides == row_major(use.shape) for use in uses)
            shape, strides = (
                [self.basis.fit(each) for each in zip(*numbers, strict=True)]
                for numbers in ([use.shape for use in uses], [use.strides for use in uses])
            )
            nbytes = self.basis.fit([use.storage_bytes for use in uses])
            self.of_layouts[key] = self.layouts.of(
                [uses[0].dtype, shape, None if plain else strides, nbytes, uses[0].role]
            )
        return self.of_layouts[key]


def _kind(operator: Operator, ages: _Ages) -> list[Any]:
    """All of an operator but its numbers."""
    inputs, outputs = (
        [[ages.of(use.tensor), use.dtype, use.role, len(use.shape)] for use in uses]
        for uses in (operator.inputs, operator.outputs)
    )
    return [
        operator.module, operator.op, operator.category, operator.is_view, _skeleton(operator.attributes),
        [use[0] for use in inputs], [use[0] for use in outputs], [ages.of(each) for each in operator.released],
        [use[1:] for use in (*inputs, *outputs)],
    ]  # fmt: skip


def _skeleton(value: Any) -> Any:
    """An attribute with its whole numbers left out."""
    if isinstance(value, dict):
        return {name: _skeleton(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_skeleton(each) for each in value]
    return _NUMBER if type(value) is int else value


def _numbers(value: Any) -> list[int]:
    """The whole numbers of an attribute, in the order in which `_filled` takes them."""
    if isinstance(value, dict):
        value = [value[name] for name in sorted(value)]
    if isinstance(value, list):
        return [number for each in value for number in _numbers(each)]
    return [value] if type(value) is int else []


# ---- reading


def _filled(skeleton: Any, numbers: Iterator[int]) -> Any:
    if isinstance(skeleton, dict):
        return {name: _filled(skeleton[name], numbers) for name in sorted(skeleton)}
    if isinstance(skeleton, list):
        return [_filled(each, numbers) for each in skeleton]
    return next(numbers) if skeleton == _NUMBER else skeleton


class _Reader:
    """Makes a scope's operators where the monomials have these values."""

    def __init__(self, content: Mapping[str, Any], values: Sequence[int]) -> None:
        self.content, self.values = content, values
        self.layouts = [self._layout(each) for each in content["layouts"]]
        self.rows = [self._row(*each) for each in content["rows"]]
        self.uses: dict[tuple[int, int], TensorUse] = {}
        self.ages = _Ages()

    def phases(self) -> Iterator[Phase]:
        for name, steps in self.content["phases"]:
            found = []
            for number, (count, modules, rows) in enumerate(steps):
                operators = tuple(self._operators(name, number, modules, rows))
                found.append(Step(at(count, self.values), operators))
            yield Phase(name, tuple(found))

    def _operators(self, phase: str, step: int, modules: list[int], rows: list[int]) -> Iterator[Operator]:
        names = self.content["modules"]
        for position, (module, number) in enumerate(zip(modules, rows, strict=True)):
            (op, category, is_view, _, inputs, outputs, released, _), attributes, layouts = self.rows[number]
            uses = [self._use(age, layout) for age, layout in zip((*inputs, *outputs), layouts, strict=True)]
            yield Operator(
                phase, step, position, names[module], op, category, tuple(uses[: len(inputs)]),
                tuple(uses[len(inputs) :]), attributes, is_view, tuple(self.ages.tensor(age) for age in released),
            )  # fmt: skip

    def _use(self, age: int, layout: int) -> TensorUse:
        key = self.ages.tensor(age), layout
        if key not in self.uses:
            self.uses[key] = TensorUse(key[0], *self.layouts[layout])
        return self.uses[key]

    def _row(self, kind: int, numbers: list[Expression], layouts: list[int]) -> tuple[Any, Any, list[int]]:
        found = self.content["kinds"][kind]
        return found, _filled(found[3], iter([at(each, self.values) for each in numbers])), layouts

    def _layout(self, stored: list[Any]) -> tuple[Any, ...]:
        dtype, shape, strides, nbytes, role = stored
        sizes = tuple(at(each, self.values) for each in shape)
        steps = row_major(sizes) if strides is None else tuple(at(each, self.values) for each in strides)
        return sizes, steps, dtype, at(nbytes, self.values), role
