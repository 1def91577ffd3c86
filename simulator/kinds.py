"""What is alike in a run: a long video's hundred thousand operators are some thousand kinds, and what is asked of each need be asked
of its kind alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from simtti.simulator.engine.outcome import KernelInterval, Repetition
from simtti.simulator.lowering.lower import Lowered
from simtti.workloads.trace import Operator


class Kinds(NamedTuple):
    """Operators that launch the same kernels and take as long, gaps between these left out.

    operators: the first of each kind, with its kernels. seconds: of its kernels. times: how many there are over the inference.
    of_spans: for each repetition the kind of each of its spans; for repetitions that are alike one list.
    """

    operators: list[tuple[Operator, Lowered]]
    seconds: list[float]
    times: list[int]
    of_spans: list[list[int]]


def kinds(rows: Sequence[tuple[Operator, Lowered]], repetitions: Sequence[Repetition]) -> Kinds:
    """The kinds of a run's operators, in the order in which they are met."""
    found = Kinds([], [], [], [])
    numbers: dict[tuple[int, str, float], int] = {}
    known: dict[tuple[int, int], list[int]] = {}  # repetitions that are alike share their times
    for item in repetitions:
        key = (id(item.governed), id(item.spans))
        mine = known.get(key)
        if mine is None:
            mine = known[key] = []
            seconds = item.governed.seconds
            for row, begin, end in item.spans:
                operator, lowered = rows[row]
                taken_s = seconds[begin] if end == begin + 1 else sum(seconds[begin:end])
                kind = (id(lowered), operator.category, taken_s)
                number = numbers.setdefault(kind, len(numbers))
                if number == len(found.seconds):
                    found.operators.append((operator, lowered))
                    found.seconds.append(taken_s)
                    found.times.append(0)
                mine.append(number)
        for number in mine:
            found.times[number] += item.times
        found.of_spans.append(mine)
    return found


def distinct_kernels(repetitions: Sequence[Repetition]) -> list[tuple[KernelInterval, int]]:
    """One interval for each kernel, number of bytes it moves and clock, with how often it runs over the inference."""
    first: dict[tuple[int, float], KernelInterval] = {}
    times: Counter[tuple[int, float]] = Counter()
    for item in repetitions:
        keys = list(
            zip(map(id, item.launches), item.governed.clocks, strict=True)
        )  # launches that are alike are one object
        at = dict(zip(reversed(keys), reversed(range(len(keys))), strict=True))  # the first of each
        for key, often in Counter(keys).items():
            if key not in first:
                first[key] = item.kernel(at[key])
            times[key] += often * item.times
    return [(interval, times[key]) for key, interval in first.items()]
