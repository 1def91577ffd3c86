"""A CUDA stream as a SimPy process: runs its kernels one after another, each at the earliest one launch gap after the last.

The launch queue before it has a finite depth: the host waits while it is full, the stream while it is empty. Neither
costs an event unless one of them really waits. Nothing but the queue and a result it asks for can hold up the host, so it
may run ahead of the simulation's clock between them and says with each launch when it issued it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import simpy

from simtti.simulator.governor import Launched


class Launch(NamedTuple):
    """A kernel in the launch queue: the operator (row of the trace) and repetition it belongs to, its work, how long it
    runs and at which share of the boost clock, and when the host issues it, which may lie ahead. `done`, where given, is
    reached at its end."""

    row: int
    repetition: int
    launched: Launched
    seconds: float
    clock: float = 1.0
    issued_s: float = 0.0
    done: simpy.Event | None = None


class Mark(NamedTuple):
    """Reached, with the time, when everything queued before it has run."""

    reached: simpy.Event


class Skip(NamedTuple):
    """Time that passes without being simulated: `repetitions` of a step known to take the same time."""

    seconds: float
    repetitions: int


class Stream:
    """Takes Launch, Mark and Skip items from its queue in order; reports each kernel through `record`."""

    def __init__(
        self,
        env: simpy.Environment,
        queue_depth: int,
        gap_s: float,
        record: Callable[[Launch, float, float, float], None],
    ) -> None:
        """record(launch, free_s, start_s, end_s): the stream was free from the kernel before at free_s."""
        self.env, self.queue_depth, self.gap_s, self.record = env, queue_depth, gap_s, record
        self.ended_s = float("-inf")
        self.skipped: list[tuple[float, float, int]] = []  # start, end, repetitions
        self._queue: deque[Launch | Mark | Skip] = deque()
        self._arrival: simpy.Event | None = None
        self._room: simpy.Event | None = None
        env.process(self._run())

    def put(self, item: Launch | Mark | Skip) -> simpy.Event | None:
        """Queue `item`. The event to wait for before the next one, if the queue is full now; a host that is further ahead than
        that need not wait longer."""
        self._queue.append(item)
        if self._arrival is not None:
            self._arrival.succeed()
            self._arrival = None
        if len(self._queue) < self.queue_depth:
            return None
        self._room = self.env.event()
        return self._room

    def _run(self) -> Generator[simpy.Event, Any, None]:
        env, queue, gap_s = self.env, self._queue, self.gap_s
        while True:
            while not queue:
                self._arrival = env.event()
                yield self._arrival
            item = queue.popleft()
            if self._room is not None:
                self._room.succeed()
                self._room = None
            if isinstance(item, Launch):
                free_s = self.ended_s
                start_s = max(env.now, item.issued_s, free_s + gap_s)
                yield env.timeout(start_s + item.seconds - env.now)
                self.ended_s = env.now
                self.record(item, free_s, start_s, env.now)
                if item.done is not None:
                    item.done.succeed()
            elif isinstance(item, Mark):
                item.reached.succeed(env.now)
            else:
                self.skipped.append((env.now, env.now + item.seconds, item.repetitions))
                yield env.timeout(item.seconds)
                self.ended_s += item.seconds
