"""A CUDA stream and the host thread that fills it, as two clocks joined by a launch queue of finite depth.

They touch nowhere else: the host waits while the queue is full or where it asks for a result, the stream waits while the
queue is empty, and the kernels of one stream run one after another, each at the earliest one launch gap after the last.
So the event that wakes either is known when a launch is issued, and no event loop has to look for it. A SimPy model of
the same host, queue and stream gives the same times (a test says so).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple


class Interval(NamedTuple):
    """A kernel's way: issued by the host, the stream free from the one before it, started, ended; seconds."""

    issued_s: float
    free_s: float
    start_s: float
    end_s: float


class Stream:
    """host_s is the host's clock, ended_s the end of the last kernel. Both start at 0, the device idle."""

    def __init__(self, queue_depth: int, gap_s: float) -> None:
        self.gap_s = gap_s
        self.host_s = 0.0
        self.ended_s = float("-inf")
        # When the stream took each of the last launches out of the queue: of those it may hold, and one more.
        self._taken = deque([float("-inf")] * (queue_depth + 1), maxlen=queue_depth + 1)

    def run(self, launches: Iterable[tuple[float, float, bool]]) -> list[Interval]:
        """Issue and run kernels in order. Of each: what the host spends before it issues it, its own seconds, and whether
        the host waits for its end."""
        host_s, ended_s, gap_s, taken = self.host_s, self.ended_s, self.gap_s, self._taken
        done = []
        for before_s, seconds, waits in launches:
            host_s += before_s
            if taken[1] > host_s:  # the queue is full until then
                host_s = taken[1]
            took_s = max(host_s, ended_s)
            taken.append(took_s)
            free_s = ended_s
            start_s = max(took_s, ended_s + gap_s)
            ended_s = start_s + seconds
            done.append(Interval(host_s, free_s, start_s, ended_s))
            if waits:
                host_s = ended_s
        self.host_s, self.ended_s = host_s, ended_s
        return done

    def pass_over(self, launches: int, repetitions: int, period_s: float, host_period_s: float) -> None:
        """Let `repetitions` of the last `launches` go by: the stream takes `period_s` for each, and the host
        `host_period_s` or as long as the queue holds it up."""
        last = list(self._taken)[-launches:]
        filling = -(-len(self._taken) // launches)  # repetitions whose launches the queue can still hold
        for repetition in range(max(repetitions - filling, 0) + 1, repetitions + 1):
            self._taken.extend(at_s + repetition * period_s for at_s in last)
        self.ended_s += repetitions * period_s
        self.host_s = max(self.host_s + repetitions * host_period_s, self._taken[0])
