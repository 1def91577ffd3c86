"""Host and streams in closed form: what the host issues without looking at the clock is run in one go.

Kernels of different streams run side by side as if each had the device to itself; where they contend, `processes` knows better.
"""

from __future__ import annotations

from simtti.simulator.engine.outcome import Outcome, Repetition
from simtti.simulator.engine.preparation import Preparation, Traffic
from simtti.simulator.engine.program import MAIN, Program
from simtti.simulator.engine.steady import End, steady
from simtti.simulator.engine.stream import Ran, Stream, run_together
from simtti.workloads.trace import Step, Trace


def run_in_one_go(trace: Trace, prepared: Preparation) -> Outcome:
    """When everything of an inference happens."""
    return _Inference(prepared).run(trace)


class _Inference:
    def __init__(self, prepared: Preparation) -> None:
        self.prepared = prepared
        self.host_s = 0.0
        self.streams: dict[int, Stream] = {}
        self.main = self._stream(MAIN)
        self.repetitions: list[Repetition] = []

    def run(self, trace: Trace) -> Outcome:
        phase_ends_s = []
        for phase in trace.phases:
            for step in phase.steps:
                self._step(step)
            if self.repetitions:
                phase_ends_s.append((phase.name, self._ended_s()))
        latency_s = max(self.host_s, self._ended_s()) if self.repetitions else self.host_s
        return Outcome(
            latency_s, self.repetitions, self.main.skipped, phase_ends_s, events=0, processes=0, contended=0
        )

    def _stream(self, number: int) -> Stream:
        if number not in self.streams:
            hardware, host = self.prepared.hardware, self.prepared.host
            self.streams[number] = Stream(host.queue_depth, hardware.launch_s)
        return self.streams[number]

    def _ended_s(self) -> float:
        return max(stream.ended_s for stream in self.streams.values())

    def _step(self, step: Step) -> None:
        program = self.prepared.program(step)
        traffic: Traffic | None = None
        ends = [End(self.host_s, self._ended_s(), None)]
        for number in range(step.count):
            left = step.count - number
            period = steady(ends)
            if period is not None:
                # Those left are like the last one.
                self.repetitions[-1] = self.repetitions[-1]._replace(times=1 + left)
                self.host_s = self.main.skip(left * period.stream_s, left, self.host_s + left * period.host_s)
                break
            traffic = self.prepared.traffic(program, traffic)
            if program.kernels:
                self._repetition(number, program, traffic)
            ends.append(End(self.host_s, self._ended_s(), traffic.l2.state))

    def _repetition(self, number: int, program: Program, traffic: Traffic) -> None:
        seconds = traffic.governed.seconds
        if program.is_plain:
            ran: Ran = self.main.run(
                zip(program.host_s, seconds, program.waits, strict=True), self.host_s, traffic.gaps_s
            )
        else:
            for stream in set(program.streams):
                self._stream(stream)
            ran = run_together(self.streams, program, seconds, self.host_s)
        self.repetitions.append(
            Repetition(
                number,
                1,
                program.rows,
                program.spans,
                program.host_s,
                program.streams,
                traffic.launches,
                traffic.governed,
                ran,
                program.tail_s,
            )
        )
        self.host_s = max(ran.host_s + program.tail_s, self.host_s)
