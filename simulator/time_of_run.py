"""Where a run's time goes, launch by launch, as arrays: a long video has a hundred thousand of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from simtti.simulator.engine.intervals import Span, overlap_s, union
from simtti.simulator.engine.outcome import Repetition
from simtti.simulator.engine.program import MAIN

if TYPE_CHECKING:
    from simtti.simulator.result import Result  # circle: a type only

# Time of the stream that no kernel fills.
HOST_IDLE = "Host-idle"  # the GPU waited for the host
LAUNCH_GAP = "Launch"  # between two kernels that were both ready


def exposed_s(repetitions: Sequence[Repetition]) -> list[np.ndarray]:
    """Of each repetition the seconds of each launch's kernel in which no kernel of a lower stream runs."""
    found = [item.lasted_s for item in repetitions]
    if all(item.is_plain for item in repetitions):
        return found
    covered: list[Span] = []
    for stream in sorted({stream for item in repetitions for stream in item.streams}):
        mine: list[Span] = []
        for item, seconds in zip(repetitions, found, strict=True):
            for launch in np.flatnonzero(np.equal(item.streams, stream)):
                span = item.ran.start_s[launch], item.ran.end_s[launch]
                seconds[launch] -= overlap_s(span, covered)
                mine.append(span)
        covered = union([*covered, *mine])
    return found


def row_seconds(repetitions: Sequence[Repetition], rows: int) -> np.ndarray:
    """Of each of a trace's `rows` operators the seconds of its kernels, gaps between them left out."""
    found = np.zeros(rows)
    for item in repetitions:
        first, last = item.rows[0], item.rows[-1]
        mine = np.bincount(np.subtract(item.rows, first), item.lasted_s, last + 1 - first)
        found[first : last + 1] += mine * item.times
    return found


def ran_by_phase(result: Result) -> dict[str, dict[str, float]]:
    """Seconds by phase and category of kernels and of the gaps between them, LAUNCH_GAP."""
    numbers: dict[tuple[str, str], int] = {}
    which, spent_s, between_s = [np.zeros(0, int)], [np.zeros(0)], [np.zeros(0)]
    for item, exposed in zip(result.repetitions, result.exposed_s, strict=True):
        of_spans = [
            numbers.setdefault((operator.phase, operator.category), len(numbers))
            for operator, _ in (result.rows[row] for row, _, _ in item.spans)
        ]
        which.append(np.repeat(of_spans, [end - begin for _, begin, end in item.spans]))
        spent_s.append(exposed * item.times)
        gaps_s = np.minimum(np.subtract(item.ran.start_s, item.ran.free_s), result.hardware.launch_s)
        gaps_s[np.not_equal(item.streams, MAIN)] = 0.0
        between_s.append(gaps_s * item.times)
    each, found = np.concatenate(which), dict[str, dict[str, float]]()
    sums = (np.bincount(each, np.concatenate(seconds)).tolist() for seconds in (spent_s, between_s))
    for (phase, category), seconds, gap_s in zip(numbers, *sums, strict=True):
        parts = found.setdefault(phase, {})
        parts[category] = seconds
        parts[LAUNCH_GAP] = parts.get(LAUNCH_GAP, 0.0) + gap_s
    return found
