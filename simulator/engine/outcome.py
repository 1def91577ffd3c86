"""What became of an inference's launches, whichever way time was let pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from simtti.simulator.closed_form import Busy
from simtti.simulator.engine.governor import Governed, Launched
from simtti.simulator.engine.stream import Ran
from simtti.simulator.kernel import Kernel


class KernelInterval(NamedTuple):
    """A kernel on its stream. It could have started at free_s; operator is a row of the trace.

    busy: seconds for which it kept each resource busy, at its clock.
    """

    operator: int
    repetition: int
    kernel: Kernel
    free_s: float
    start_s: float
    end_s: float
    hbm_bytes: float
    clock: float  # share of the boost clock, below 1 under the power limit
    busy: Busy
    stream: int = 0

    @property
    def duration_s(self) -> float:
        return self.end_s - self.start_s


class OperatorInterval(NamedTuple):
    """An operator on the host, from its first launch to its last: for so long it keeps the host busy."""

    operator: int
    repetition: int
    start_s: float
    end_s: float


class Repetition(NamedTuple):
    """A repetition of a step that was simulated, launch by launch.

    number: which one it is. times: how many it stands for, itself and those passed over that are like it. rows: the operator
    of each launch, as a row of the trace. spans: of each operator its row, its first launch and the one after its last.
    host_s: what the host spends before each launch; tail_s after the last. streams: where each runs. launches, governed, ran: what they move, their
    times and clocks, and when they ran.
    """

    number: int
    times: int
    rows: list[int]
    spans: list[tuple[int, int, int]]
    host_s: list[float]
    streams: list[int]
    launches: list[Launched]
    governed: Governed
    ran: Ran
    tail_s: float = 0.0

    @property
    def is_plain(self) -> bool:
        """Whether everything ran on one stream."""
        return not any(self.streams)

    def kernel(self, launch: int) -> KernelInterval:
        """What became of a launch."""
        launched, clock, ran = self.launches[launch], self.governed.clocks[launch], self.ran
        return KernelInterval(
            self.rows[launch], self.number, launched.kernel, ran.free_s[launch], ran.start_s[launch], ran.end_s[launch],
            launched.hbm_bytes, clock, launched.busy if clock == 1.0 else launched.busy.at(clock), self.streams[launch],
        )  # fmt: skip

    def kernels(self) -> Iterator[KernelInterval]:
        return map(self.kernel, range(len(self.launches)))

    @property
    def lasted_s(self) -> np.ndarray:
        """Seconds of each launch's kernel, from its start to its end."""
        return np.subtract(self.ran.end_s, self.ran.start_s)

    def operators(self) -> Iterator[OperatorInterval]:
        """An operator is on the host from its call, before its first launch, until its last has been issued."""
        issued_s = self.ran.issued_s
        for row, begin, end in self.spans:
            yield OperatorInterval(row, self.number, issued_s[begin] - self.host_s[begin], issued_s[end - 1])


class Outcome(NamedTuple):
    """latency_s: of the inference. repetitions: what was simulated, in order. skipped: (start_s, end_s, repetitions) of what was
    passed over. phase_ends_s: (phase, seconds). events, processes: of SimPy. contended: kernels that had company on the device."""

    latency_s: float
    repetitions: list[Repetition]
    skipped: list[tuple[float, float, int]]
    phase_ends_s: list[tuple[str, float]]
    events: int
    processes: int
    contended: int


@dataclass(frozen=True)
class PhaseTime:
    """A phase of the inference: its steps (count), its time and the time of one step, in seconds."""

    name: str
    steps: int
    latency_s: float

    @property
    def step_s(self) -> float:
        return self.latency_s / self.steps
