"""Several sequences side by side: what all have, and what some repeat more often than others."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from simtti.workloads.expressions import NotExact

_LONGEST_TURN = 60  # operators that are done together once a frame


class OtherOperators(NotExact):
    """At one of the shapes a trace is made of other operators than at another."""


def must_be_alike(what: str, values: Sequence[Any]) -> None:
    for value in values[1:]:
        if value != values[0]:
            raise OtherOperators(f"{what} differ: {str(values[0])[:300]} and {str(value)[:300]}")


@dataclass(frozen=True)
class Stretch:
    """Part of several sequences: what each has the same number of, or is so many turns of something.

    places: of each element of a turn, what stands there: of each sequence and turn. times: turns of each sequence; None where it is one.
    """

    places: list[list[Any]]
    times: list[int] | None = None


class Table:
    """Distinct things, numbered as they are met."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def of(self, thing: Any) -> int:
        return self.numbers.setdefault(json.dumps(thing, sort_keys=True), len(self.numbers))

    def things(self) -> list[Any]:
        return [json.loads(text) for text in self.numbers]


def stretches(sequences: Sequence[Sequence[Any]], kind: Callable[[Any], Any], last: int = 0) -> list[Stretch]:
    """Sequences side by side; those of other lengths by what the longest repeats more often than the shortest. last: turns at the end
    of what repeats that are kept apart, where there are as many.

    Raises:
        OtherOperators: they are not the same.
    """
    going = _Along(sequences, kind)
    once = [1] * len(sequences)
    shortest = min(going.kinds, key=len)
    found = []
    at = apart = 0
    for length, pattern in _more(shortest, max(going.kinds, key=len)):
        at += length
        kept = last * len(pattern)
        if kept > length + apart or shortest[at - kept : at] != [*pattern] * last:
            kept = 0
        found.append(Stretch(going.take(length + apart - kept, once)))
        apart = kept
        if pattern:
            times = [turns - (last if kept else 0) for turns in going.turns(pattern)]
            found.append(Stretch(going.take(len(pattern), times), times))
    going.end()
    return [stretch for stretch in found if stretch.places]


class _Along:
    """Goes along several sequences at once."""

    def __init__(self, sequences: Sequence[Sequence[Any]], kind: Callable[[Any], Any]) -> None:
        names = Table()
        self.sequences, self.kind = sequences, kind
        self.kinds = [[names.of(kind(each)) for each in sequence] for sequence in sequences]
        self.starts = [0] * len(sequences)

    def turns(self, pattern: Sequence[int]) -> list[int]:
        """How often each goes on with it."""
        return [_turns(kinds, start, pattern) for kinds, start in zip(self.kinds, self.starts, strict=True)]

    def take(self, length: int, times: Sequence[int]) -> list[list[Any]]:
        """So many turns of so many elements of each: of each element of a turn, what stands there."""
        ends = [start + length * count for start, count in zip(self.starts, times, strict=True)]
        if any(end > len(kinds) for end, kinds in zip(ends, self.kinds, strict=True)):
            raise OtherOperators(f"operators end: {[len(kinds) for kinds in self.kinds]}")
        found = []
        for offset in range(length):
            spots = [
                (number, place)
                for number, (start, end) in enumerate(zip(self.starts, ends, strict=True))
                for place in range(start + offset, end, length)
            ]
            same = [self.sequences[number][place] for number, place in spots]
            if len({self.kinds[number][place] for number, place in spots}) > 1:
                must_be_alike(f"operators {spots[0][1]}", [self.kind(each) for each in same])
            found.append(same)
        self.starts = ends
        return found

    def end(self) -> None:
        if self.starts != [len(kinds) for kinds in self.kinds]:
            raise OtherOperators(
                f"operators differ: {self.starts} of {[len(kinds) for kinds in self.kinds]} are the same"
            )


def _more(short: Sequence[int], long: Sequence[int]) -> list[tuple[int, Sequence[int]]]:
    """How many are the same in both, and what the longer one repeats then; and so on."""
    if len(short) == len(long):
        return [(len(short), [])]
    found: list[tuple[int, Sequence[int]]] = []
    at = ahead = since = 0
    while True:
        at += _same(short, at, long, at + ahead)
        if at == len(short) and at + ahead == len(long):
            return [*found, (at - since, [])]
        place = at + ahead
        best, period, turns = max(
            (
                (_same(short, at, long, place + turns * period), -period, turns)
                for period in range(1, min(_LONGEST_TURN, len(long) - place) + 1)
                if (turns := _turns(long, place, long[place : place + period])) > 1
                or long[max(place - period, 0) : place] == long[place : place + period]
            ),
            default=(0, 0, 0),
        )
        if not turns or (not best and at < len(short)):
            raise OtherOperators(f"operators differ at {at} of {len(short)}")
        found.append((at - since, long[place : place - period]))
        ahead -= turns * period
        since = at


def _same(one: Sequence[int], place: int, other: Sequence[int], there: int) -> int:
    """How many are the same in both from these places on."""
    return next(
        (n for n, (a, b) in enumerate(zip(one[place:], other[there:], strict=False)) if a != b),
        min(len(one) - place, len(other) - there),
    )


def _turns(kinds: Sequence[int], place: int, pattern: Sequence[int]) -> int:
    """How often a pattern follows itself from a place."""
    turns = 0
    while pattern and kinds[place : place + len(pattern)] == pattern:
        turns += 1
        place += len(pattern)
    return turns
