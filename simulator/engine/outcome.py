"""What became of an inference's launches, whichever way time was let pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

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

    def kernels(self) -> Iterator[KernelInterval]:
        ran = self.ran
        for row, launched, clock, free_s, start_s, end_s, stream in zip(
            self.rows,
            self.launches,
            self.governed.clocks,
            ran.free_s,
            ran.start_s,
            ran.end_s,
            self.streams,
            strict=True,
        ):
            yield KernelInterval(
                row, self.number, launched.kernel, free_s, start_s, end_s, launched.hbm_bytes, clock,
                launched.busy if clock == 1.0 else launched.busy.at(clock), stream,
            )  # fmt: skip

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


def operator_seconds(repetitions: Sequence[Repetition]) -> list[list[float]]:
    """Of each repetition the seconds of each operator's kernels, gaps between them left out, in the order of its spans."""
    known: dict[tuple[int, int], list[float]] = {}  # repetitions that are alike share their times
    found = []
    for item in repetitions:
        key = (id(item.governed), id(item.spans))
        if key not in known:
            seconds = item.governed.seconds
            known[key] = [sum(seconds[begin:end]) for _, begin, end in item.spans]
        found.append(known[key])
    return found
