"""A CUDA stream behind its launch queue: kernels run one after another, each at the earliest one launch gap after the last.

The queue has a finite depth: the host waits while it is full, the stream while it is empty. Both are first in, first out, and how
long a kernel takes alone on the device is known, so what the host issues without looking at the clock can be run in one go:
nothing that happens in between could change it. `processes` has the same as SimPy processes, which may contend.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from typing import NamedTuple

from simtti.simulator.engine.program import Program


class Ran(NamedTuple):
    """What became of launches, in seconds of the simulation.

    issued_s, free_s, start_s, end_s: for each launch when the host issued it, when the stream had done with the kernel
    before it, and its kernel's start and end. host_s: when the host could go on.
    """

    issued_s: list[float]
    free_s: list[float]
    start_s: list[float]
    end_s: list[float]
    host_s: float


class Stream:
    """Runs launches in order. `ended_s` is when the last of them ends."""

    def __init__(self, queue_depth: int, gap_s: float) -> None:
        self.gap_s = gap_s
        self.ended_s = float("-inf")
        self.skipped: list[tuple[float, float, int]] = []  # start, end, repetitions
        # When the stream took each of the last `queue_depth` launches out of the queue.
        self._taken = deque([float("-inf")] * queue_depth, maxlen=queue_depth)

    def run(
        self,
        launches: Iterable[tuple[float, float, bool]],
        host_s: float,
        gaps_s: Sequence[float] | None = None,
    ) -> Ran:
        """Issue launches from `host_s` on.

        launches: of each the host's seconds before it, its kernel's seconds, and whether the host waits for its end. gaps_s: the
        least time between the kernel before and each, where it differs.
        """
        issued, starts, ends = [], [], []
        ended_s, taken = self.ended_s, self._taken
        first_free_s = ended_s if ended_s > 0 else 0.0
        gaps = repeat(self.gap_s) if gaps_s is None else gaps_s
        for (before_s, seconds, waits), gap_s in zip(launches, gaps, strict=False):
            host_s += before_s
            issued.append(host_s)
            took_s = host_s if host_s > ended_s else ended_s
            taken.append(took_s)
            start_s = took_s if took_s > ended_s + gap_s else ended_s + gap_s
            starts.append(start_s)
            ended_s = start_s + seconds
            ends.append(ended_s)
            if waits:
                host_s = ended_s
            elif taken[0] > host_s:  # the queue is full until then
                host_s = taken[0]
        self.ended_s = ended_s
        free = [first_free_s, *ends[:-1]] if ends else []
        return Ran(issued, free, starts, ends, host_s)

    def skip(self, seconds: float, repetitions: int, host_s: float) -> float:
        """Let `repetitions` of a step pass that take `seconds` together. host_s: when the host would have issued them if the
        queue had no end; returns when it has."""
        self.skipped.append((self.ended_s, self.ended_s + seconds, repetitions))
        self.ended_s += seconds
        self._taken = deque((took_s + seconds for took_s in self._taken), maxlen=self._taken.maxlen)
        return max(host_s, self._taken[0])

    def take(self, launched_s: float, after_s: float, seconds: float) -> tuple[float, float, float, float]:
        """Run one kernel that waits for others until `after_s`. Returns when the stream had done with the one before, the kernel's
        start and end, and the earliest that the host may go on."""
        free_s = self.ended_s if self.ended_s > 0 else 0.0
        took_s = max(launched_s, self.ended_s)
        self._taken.append(took_s)
        start_s = max(took_s, self.ended_s + self.gap_s, after_s)
        self.ended_s = start_s + seconds
        return free_s, start_s, self.ended_s, self._taken[0]


def run_together(
    streams: Mapping[int, Stream], program: Program, seconds: Sequence[float], host_s: float
) -> Ran:
    """Issue a step's launches to several streams, whose kernels wait for each other where `program.after` says so."""
    issued: list[float] = []
    free: list[float] = []
    starts: list[float] = []
    ends: list[float] = []
    for launch, before_s in enumerate(program.host_s):
        host_s += before_s
        issued.append(host_s)
        after_s = max((ends[other] for other in program.after.get(launch, ())), default=0.0)
        stream = streams[program.streams[launch]]
        free_s, start_s, end_s, room_s = stream.take(host_s, after_s, seconds[launch])
        free.append(free_s)
        starts.append(start_s)
        ends.append(end_s)
        host_s = end_s if program.waits[launch] else max(host_s, room_s)
    return Ran(issued, free, starts, ends, host_s)
