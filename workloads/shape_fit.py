"""A scope (`shapes`) from recordings at several of its shapes: what they have in common, and their numbers as expressions.

Where a step, or an operator's operands, are more at one shape than at another, something in them is done once for each frame or image: what
the longest repeats more often than the shortest.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from simtti.workloads.expressions import Basis, Expression, NotExact
from simtti.workloads.shapes import INDEX, NUMBER, NUMBERS, Ages, Scope, Variable, values_of, volume
from simtti.workloads.side_by_side import OtherOperators, Stretch, Table, must_be_alike, stretches
from simtti.workloads.trace import Operator, Phase, Step, TensorUse, Trace, row_major

_MOST_OPERANDS = 4  # that one operator has more of with every frame or image, one after the other
_MOST_TIMES = 3  # that these are there for each


def fit(
    traces: Sequence[Trace],
    variables: Sequence[Variable],
    beside: tuple[str, ...] = (),
    full: bool | None = None,
) -> Scope:
    """The scope of several recordings of a workload, in which these options are free. beside: what expressions see besides; full: as `Scope` has it.

    Raises:
        NotExact: they are not made of the same operators, or a number of theirs follows in no known way.
    """
    for name in ("workload", "parameters", "parameter_bytes", "schedule", "provenance"):
        must_be_alike(name, [getattr(trace, name) for trace in traces])
    names = [one.name for one in variables]
    fixed = {name: value for name, value in traces[0].options.items() if name not in names}
    for trace in traces[1:]:
        must_be_alike("options", [fixed, {name: trace.options.get(name) for name in fixed}])
    seen = [values_of(variables, trace.options, beside) for trace in traces]
    content = _Writer([*seen[0]], [tuple(each.values()) for each in seen]).content(traces)
    return Scope(
        fixed, tuple(variables), max(volume(trace.options) for trace in traces), content, beside, full
    )


def alike(traces: Sequence[Trace]) -> None:
    """Whether recordings are made of the same operators, whatever their operands and numbers.

    Raises:
        OtherOperators: they are not; the message says which differ.
    """
    for same in _side_by_side(traces):
        for steps in zip(*(phase.steps for phase in same), strict=True):
            stretches([step.operators for step in steps], _look)


def _side_by_side(traces: Sequence[Trace]) -> list[tuple[Phase, ...]]:
    must_be_alike("phases", [[(phase.name, len(phase.steps)) for phase in trace.phases] for trace in traces])
    return list(zip(*(trace.phases for trace in traces), strict=True))


@dataclass(frozen=True)
class _Aged:
    """An operator with its tensors' ages."""

    operator: Operator
    inputs: tuple[tuple[int, TensorUse], ...]
    outputs: tuple[tuple[int, TensorUse], ...]
    released: tuple[int, ...]


_Operands: TypeAlias = "Sequence[tuple[int, TensorUse | None]]"


class _Writer:
    """Goes through several recordings side by side."""

    def __init__(self, names: Sequence[str], points: Sequence[tuple[int, ...]]) -> None:
        self.names, self.points = (*names, INDEX), points
        self.once = Basis(self.names, [(*point, 0) for point in points])
        self.bases: dict[tuple[int, ...], Basis] = {}
        self.modules, self.kinds, self.layouts, self.rows = Table(), Table(), Table(), Table()
        self.of_layouts: dict[Any, int] = {}

    def content(self, traces: Sequence[Trace]) -> dict[str, Any]:
        ages = [Ages() for _ in traces]
        phases = [
            [same[0].name, [self._step(steps, ages) for steps in zip(*(p.steps for p in same), strict=True)]]
            for same in _side_by_side(traces)
        ]
        tables = {"modules": self.modules, "kinds": self.kinds, "layouts": self.layouts, "rows": self.rows}
        return {"phases": phases, **{name: table.things() for name, table in tables.items()}}

    def _basis(self, stretch: Stretch) -> Basis:
        if stretch.times is None:
            return self.once
        key = tuple(stretch.times)
        if key not in self.bases:
            points = [
                (*point, index)
                for point, times in zip(self.points, key, strict=True)
                for index in range(times)
            ]
            self.bases[key] = Basis(self.names, points)
        return self.bases[key]

    def _step(self, steps: Sequence[Step], ages: Sequence[Ages]) -> list[Any]:
        aged = [
            [_aged(operator, of) for operator in step.operators] for step, of in zip(steps, ages, strict=True)
        ]
        count = self.once.fit([step.count for step in steps])
        tables = (
            self.modules.numbers,
            self.kinds.numbers,
            self.layouts.numbers,
            self.rows.numbers,
            self.of_layouts,
        )
        known = [len(table) for table in tables]
        # The last turn of what repeats may be unlike the others: tensors end with it.
        for last in (0, 1):
            try:
                return [
                    count,
                    [self._written(each) for each in stretches(aged, lambda one: _look(one.operator), last)],
                ]
            except NotExact as reason:
                failed = reason
                for table, length in zip(tables, known, strict=True):
                    while len(table) > length:
                        table.popitem()
        raise failed

    def _written(self, stretch: Stretch) -> list[Any]:
        basis = self._basis(stretch)
        modules = [self.modules.of(same[0].operator.module) for same in stretch.places]
        return [self._times(stretch), modules, [self._row(same, basis) for same in stretch.places]]

    def _times(self, stretch: Stretch) -> Expression:
        return 1 if stretch.times is None else self.once.fit(stretch.times)

    def _row(self, same: Sequence[_Aged], basis: Basis) -> int:
        operators = [one.operator for one in same]
        lists = len({*map(_counts, operators)}) > 1
        numbers = [_numbers(operator.attributes, lists) for operator in operators]
        entries = [
            self._entries([getattr(one, name) for one in same], basis) for name in ("inputs", "outputs")
        ]
        released = self._entries([[(age, None) for age in one.released] for one in same], basis)
        return self.rows.of(
            [
                self.kinds.of(_kind(operators[0], lists)[1:]),
                [self._attribute(each, basis) for each in zip(*numbers, strict=True)],
                *entries,
                released,
            ]
        )

    def _attribute(self, same: Sequence[Any], basis: Basis) -> Any:
        if isinstance(same[0], int):
            return basis.fit(same)
        return self._entries([[(each, None) for each in numbers] for numbers in same], basis)

    def _entries(self, lists: Sequence[Sequence[tuple[int, TensorUse | None]]], basis: Basis) -> list[Any]:
        """Operands as [age, layout], or only ages. Where some are more than others, a few stand for several, at whatever place fits."""
        fewest = min(map(len, lists))
        more = [len(each) - fewest for each in lists]
        if not any(more):
            return [self._entry(same, basis) for same in zip(*lists, strict=True)]
        if basis is not self.once:
            raise OtherOperators("what is done once a frame has as many operands as frames")
        unit = math.gcd(*more)
        return self._groups(lists, [0] * len(lists), [each // unit for each in more])

    def _groups(self, lists: Sequence[_Operands], starts: Sequence[int], more: Sequence[int]) -> list[Any]:
        """Operands from a place on. more: how many times as much of what repeats each has more of than the one with the fewest."""
        found: list[Any] = []
        failed: NotExact | None = None
        left = [len(each) - start for each, start in zip(lists, starts, strict=True)]
        while len(found) < min(left):
            try:
                found.append(
                    self._entry(
                        [each[start + len(found)] for each, start in zip(lists, starts, strict=True)],
                        self.once,
                    )
                )
            except NotExact as reason:
                failed = reason
                break
        if len(found) == max(left):
            return found
        for place in range(len(found), -1, -1):
            for period, often in itertools.product(range(1, _MOST_OPERANDS + 1), range(1, _MOST_TIMES + 1)):
                several = Stretch([], [often * each for each in more])
                ends = [
                    start + place + period * often * each for start, each in zip(starts, more, strict=True)
                ]
                after = [len(each) - end for each, end in zip(lists, ends, strict=True)]
                if not _goes_on(after, more):
                    continue
                basis = self._basis(several)
                turns = [
                    [
                        entry
                        for one, start, end in zip(lists, starts, ends, strict=True)
                        for entry in one[start + place + offset : end : period]
                    ]
                    for offset in range(period)
                ]
                try:
                    group = {
                        "each": [self._entry(each, basis) for each in turns],
                        "times": self._times(several),
                    }
                    return [*found[:place], group, *self._groups(lists, ends, more)]
                except NotExact as reason:
                    failed = reason
        assert failed is not None
        raise failed

    def _entry(self, same: Sequence[tuple[int, TensorUse | None]], basis: Basis) -> Any:
        age = basis.fit([each[0] for each in same])
        uses = [each[1] for each in same if each[1] is not None]
        return [age, self._layout(uses, basis)] if uses else age

    def _layout(self, uses: Sequence[TensorUse], basis: Basis) -> int:
        must_be_alike("operands", [(use.dtype, use.role, len(use.shape)) for use in uses])
        key = (
            id(basis),
            tuple((use.shape, use.strides, use.storage_bytes, use.dtype, use.role) for use in uses),
        )
        if key not in self.of_layouts:
            plain = all(use.strides == row_major(use.shape) for use in uses)
            shape, strides = (
                [basis.fit(each) for each in zip(*numbers, strict=True)]
                for numbers in ([use.shape for use in uses], [use.strides for use in uses])
            )
            nbytes = basis.fit([use.storage_bytes for use in uses])
            self.of_layouts[key] = self.layouts.of(
                [uses[0].dtype, shape, None if plain else strides, nbytes, uses[0].role]
            )
        return self.of_layouts[key]


def _goes_on(left: Sequence[int], more: Sequence[int]) -> bool:
    """Whether so many operands may be some that each has and some that some have so many times more of."""
    fewest = min(left)
    times = {(each - fewest) / of for each, of in zip(left, more, strict=True) if of}
    return fewest >= 0 and len(times) == 1 and times.pop().is_integer()


# ---- an operator's parts


def _aged(operator: Operator, ages: Ages) -> _Aged:
    inputs, outputs = (
        tuple((ages.of(use.tensor), use) for use in uses) for uses in (operator.inputs, operator.outputs)
    )
    return _Aged(operator, inputs, outputs, tuple(ages.of(each) for each in operator.released))


def _kind(operator: Operator, lists: bool) -> list[Any]:
    """What must be the same for operators to be counterparts, but for their operands. lists: of numbers may be of any length."""
    return [
        operator.module, operator.op, operator.category, operator.is_view, _skeleton(operator.attributes, lists)
    ]  # fmt: skip


def _look(operator: Operator) -> list[Any]:
    """The same with what its operands are, of which there may be more."""
    uses = {(use.dtype, use.role, len(use.shape)) for use in (*operator.inputs, *operator.outputs)}
    return [*_kind(operator, True), *sorted(uses)]


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(each) is int for each in value)


def _skeleton(value: Any, lists: bool) -> Any:
    """An attribute with its whole numbers left out."""
    if isinstance(value, dict):
        return {name: _skeleton(each, lists) for name, each in value.items()}
    if lists and _is_numbers(value):
        return NUMBERS
    if isinstance(value, list):
        return [_skeleton(each, lists) for each in value]
    return NUMBER if type(value) is int else value


def _numbers(value: Any, lists: bool) -> list[Any]:
    """The whole numbers of an attribute, or lists of them, in the order in which they are filled in again."""
    if isinstance(value, dict):
        value = [value[name] for name in sorted(value)]
    elif lists and _is_numbers(value):
        return [value]
    if isinstance(value, list):
        return [number for each in value for number in _numbers(each, lists)]
    return [value] if type(value) is int else []


def _counts(operator: Operator) -> int:
    """How many whole numbers its attributes hold."""
    return len(_numbers(operator.attributes, False))
