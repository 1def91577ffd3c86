"""A CUDA stream: runs its kernels one after another, each at the earliest one launch gap after the last."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import simpy

from simtti.simulator.kernel import Kernel


@dataclass(frozen=True, slots=True)
class Launch:
    """A kernel in the launch queue, with the operator that issued it and its tensors by slot."""

    kernel: Kernel
    operator: int
    repetition: int
    tensor_of: Callable[[int], int]


@dataclass(frozen=True, slots=True)
class Mark:
    """Reached when everything queued before it has run."""

    reached: simpy.Event


@dataclass(frozen=True, slots=True)
class Skip:
    """Time that passes without being simulated: `repetitions` of a step known to take the same time."""

    seconds: float
    repetitions: int


class Stream:
    """Takes Launch, Mark and Skip items from `queue` in order; reports each kernel through `record`."""

    def __init__(
        self,
        env: simpy.Environment,
        queue_depth: int,
        gap_s: float,
        execute: Callable[[Launch], tuple[float, float]],
        record: Callable[[Launch, float, float, float, float], None],
    ) -> None:
        """execute(launch) gives the kernel's (seconds, HBM bytes); record(launch, ready, start, end, hbm_bytes) keeps it."""
        self.env, self.gap_s, self.execute, self.record = env, gap_s, execute, record
        self.queue: simpy.Store = simpy.Store(env, capacity=queue_depth)
        self.ended_s = float("-inf")
        self.skipped: list[tuple[float, float, int]] = []  # start, end, repetitions
        env.process(self.run())

    def run(self) -> Generator[simpy.Event, Any, None]:
        env, queue = self.env, self.queue
        while True:
            item = yield queue.get()
            if isinstance(item, Launch):
                free_s = self.ended_s
                gap = free_s + self.gap_s - env.now
                if gap > 0:
                    yield env.timeout(gap)
                start = env.now
                seconds, hbm_bytes = self.execute(item)
                yield env.timeout(seconds)
                self.ended_s = env.now
                self.record(item, free_s, start, env.now, hbm_bytes)
            elif isinstance(item, Mark):
                item.reached.succeed(env.now)
            else:
                self.skipped.append((env.now, env.now + item.seconds, item.repetitions))
                yield env.timeout(item.seconds)
                self.ended_s += item.seconds
