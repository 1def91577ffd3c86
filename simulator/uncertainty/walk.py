"""A run's host and stream for all draws at once.

The walk is the one of `engine.stream`: a kernel starts when the host has issued it and the one before it has ended. It takes the launch
queue's depth once a step, and kernels of several streams by the time in which each step has none beside it.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simtti.simulator.engine.outcome import Repetition

if TYPE_CHECKING:
    from simtti.simulator.result import Result  # circle: a type only

_LEAST_S = 1e-12
_AT_ONCE = 128  # launches, by draw: what a core's own cache holds


class Times(NamedTuple):
    """latency_s: of the inference, by draw. phases_s: of each phase, from the end of the one before on the device."""

    latency_s: np.ndarray
    phases_s: dict[str, np.ndarray]


class Factors(NamedTuple):
    """factors: a row for each operator that differs, by draw. of_kinds: the row in it of each of the run's `kinds`."""

    factors: np.ndarray
    of_kinds: np.ndarray


class _Stretch(NamedTuple):
    """Launches between two waits of the host, by draw, in seconds: what they take back to back, gaps included; how much later than the
    host's start the last ends if nothing but the host holds them up; what the host spends, and whether it then waits for the last."""

    busy_s: np.ndarray
    late_s: np.ndarray
    host_s: np.ndarray
    waits: bool


def walk(result: Result, factors: Factors, host: np.ndarray) -> Times:
    """The times of a run. host: of each draw, the factor of the host's times."""
    gap_s, depth = result.hardware.launch_s, result.host.queue_depth
    known: dict[tuple[int, int, int], list[_Stretch]] = {}
    ended_s = np.full(len(host), -gap_s)
    host_s = np.zeros(len(host))
    phases_s: dict[str, np.ndarray] = {}
    before_s = np.zeros(len(host))
    for item, of_spans in zip(result.repetitions, result.kinds.of_spans, strict=True):
        key = (id(item.governed), id(item.host_s), id(item.rows))
        if key not in known:
            known[key] = _stretches(result, item, factors.of_kinds[of_spans], factors.factors, host, gap_s)
        start_s, host_began_s = ended_s, host_s
        for stretch in known[key]:
            ended_s = np.maximum(ended_s + stretch.busy_s, host_s + stretch.late_s)
            host_s = ended_s if stretch.waits else host_s + stretch.host_s
        host_s = host_s + item.tail_s * host
        period_s, host_period_s = ended_s - start_s, host_s - host_began_s
        ended_s = ended_s + (item.times - 1) * period_s
        # The host is at most the queue's depth ahead.
        ahead_s = period_s * min(1.0, depth / len(item.launches))
        host_s = np.maximum(host_s + (item.times - 1) * host_period_s, ended_s - ahead_s)
        phase = result.rows[item.spans[0][0]][0].phase if item.spans else ""
        phases_s[phase] = phases_s.get(phase, 0.0) + (ended_s - before_s)
        before_s = ended_s
    return Times(np.maximum(ended_s, host_s) if len(result.repetitions) else host_s, phases_s)


def _stretches(
    result: Result,
    item: Repetition,
    of_spans: np.ndarray,
    factors: np.ndarray,
    host: np.ndarray,
    gap_s: float,
) -> list[_Stretch]:
    """The stretches of a repetition. of_spans: the row of `factors` of each of its spans."""
    seconds = np.array(item.governed.seconds)
    if not item.is_plain:
        # What runs beside the main stream's kernels counts by what the step takes longer for it.
        took_s = item.ran.end_s[-1] - item.ran.start_s[0] + gap_s
        seconds = seconds * (max(took_s - gap_s * len(seconds), 0.0) / max(float(seconds.sum()), _LEAST_S))
    which = np.repeat(of_spans, [end - begin for _, begin, end in item.spans])
    issue_s = np.array(item.host_s)
    waits = _waits(result, item)
    bounds = list(dict.fromkeys([0, *waits, len(seconds)]))
    return [
        _stretch(seconds[begin:end], which[begin:end], issue_s[begin:end], factors, host, gap_s, end in waits)
        for begin, end in itertools.pairwise(bounds)
    ]


def _stretch(
    seconds: np.ndarray,
    which: np.ndarray,
    issue_s: np.ndarray,
    factors: np.ndarray,
    host: np.ndarray,
    gap_s: float,
    waits: bool,
) -> _Stretch:
    """Launches between two waits, some at a time: arrays of all of them by draw would go through memory again and again."""
    ended_s = np.zeros(len(host))
    latest_s = np.full(len(host), -np.inf)  # of max_i below, so far
    issued_s = np.cumsum(issue_s)
    for begin in range(0, len(seconds), _AT_ONCE):
        some = slice(begin, begin + _AT_ONCE)
        # C_i: the end of launch i if the first starts at 0 and none waits for the host.
        ends_s = factors[which[some]]
        ends_s *= seconds[some, None]
        ends_s += gap_s
        ends_s[0] += ended_s
        np.cumsum(ends_s, axis=0, out=ends_s)
        # end_n = C_n + max(end before, max_i (issued_i - C_{i-1} - gap))
        lead_s = issued_s[some, None] * host
        lead_s[0] -= ended_s
        lead_s[1:] -= ends_s[:-1]
        np.maximum(latest_s, lead_s.max(axis=0), out=latest_s)
        ended_s = ends_s[-1]
    return _Stretch(ended_s, ended_s + (latest_s - gap_s), issued_s[-1] * host, waits)


def _waits(result: Result, item: Repetition) -> list[int]:
    """The launches after which the host waits for the end: it goes on with the next."""
    return [end for row, _, end in item.spans if result.rows[row][1].synchronizes]
