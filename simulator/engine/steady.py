"""When a step that repeats goes on as it went, so that the rest of its repetitions can be passed over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

# Two repetitions of a step take the same time when they differ by less: rounding, not physics.
SAME_PERIOD = 1e-9


class End(NamedTuple):
    """The end of a repetition: when the host has issued it, when the streams have run it, and L2's state."""

    host_s: float
    stream_s: float
    l2: Any


class Period(NamedTuple):
    """What a repetition adds to the time of the host and to that of the streams."""

    host_s: float
    stream_s: float


def steady(ends: Sequence[End]) -> Period | None:
    """The period of a step once it goes on as it went: the last two repetitions found L2 in the same state and took the streams
    the same time, and the host does not fall behind."""
    if len(ends) < 4 or not ends[-1].l2 == ends[-2].l2 == ends[-3].l2:
        return None
    (_, first_s, _), (host_s, second_s, _), last = ends[-3:]
    period_s, before_s = last.stream_s - second_s, second_s - first_s
    same = abs(period_s - before_s) <= SAME_PERIOD * period_s
    keeps_up = last.host_s - host_s <= period_s * (1 + SAME_PERIOD)
    return Period(last.host_s - host_s, period_s) if same and keeps_up else None
