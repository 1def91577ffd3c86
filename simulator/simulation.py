"""The simulation of one inference: a host issues a trace's operators, a stream runs their kernels on a device.

Kernels of one stream run alone, so a kernel's time on the device is worked out once for each state of L2 it meets: in
closed form, which the simulation of its waves equals, or CTA by CTA in `cta` fidelity.
A step that repeats is simulated until the state at its end is that of the repetition before; the rest is passed over.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

from simtti.hw_configs.hardware import Hardware
from simtti.simulator.device import execution_time_s
from simtti.simulator.host import Host
from simtti.simulator.kernel import Kernel, lone_execution_s
from simtti.simulator.l2 import L2
from simtti.simulator.lower import Lowered, Lowering, Policy, Slots, alike
from simtti.simulator.memory import peak_memory_bytes
from simtti.simulator.result import KernelInterval, OperatorInterval, Result
from simtti.simulator.stream import Stream
from simtti.workloads.trace import Operator, Step, Trace

# Two repetitions of a step take the same time when they differ by less: rounding, not physics.
_SAME_PERIOD = 1e-9
# Launches between two comparisons of L2 with the repetition before.
_LOOK_EVERY = 64


def simulate(
    trace: Trace, hardware: Hardware, host: Host, policy: Policy | None = None, fidelity: str = "wave"
) -> Result:
    """Run `trace` on `hardware`.

    Args:
        policy: how operators become kernels (attention implementation, eager launches or a CUDA graph).
        fidelity: 'wave' moves CTAs that start together as one, 'cta' simulates each.
    """
    return _Inference(trace, hardware, host, policy or Policy(), fidelity).run()


class _Program(NamedTuple):
    """A step's launches in order, for one device.

    kernels, slots: what runs on which tensors. rows: of which operator of the trace. host_s: what the host spends before
    each. waits: whether it waits for its end. tail_s: host time after the last. spans: for each operator that launches,
    its row, first launch and the one after its last.
    """

    kernels: list[Kernel]
    slots: list[Slots]
    rows: list[int]
    host_s: list[float]
    waits: list[bool]
    tail_s: float
    spans: list[tuple[int, int, int]]


class _Traffic(NamedTuple):
    """What a repetition of a step moves to and from HBM and how long its kernels take, launch by launch; the states of L2
    every _LOOK_EVERY launches; L2 at its end."""

    hbm_bytes: list[float]
    seconds: list[float]
    states: list[Any]
    l2: L2


class _Inference:
    def __init__(self, trace: Trace, hardware: Hardware, host: Host, policy: Policy, fidelity: str) -> None:
        self.trace, self.hardware, self.host, self.policy, self.fidelity = (
            trace,
            hardware,
            host,
            policy,
            fidelity,
        )
        self.l2 = L2(hardware.l2_usable_bytes)
        self.lowering = Lowering(hardware, policy)
        self.stream = Stream(host.queue_depth, hardware.launch_s)
        self.kernels: list[KernelInterval] = []
        self.operators: list[OperatorInterval] = []
        self._seconds: dict[tuple[int, float], float] = {}
        # Operators of the trace in order, as rows of the result; filled step by step.
        self._rows: list[tuple[Operator, Lowered]] = []
        self._repeats: dict[tuple[int, int], int] = {}
        self._skipped: list[tuple[float, float, int]] = []

    def run(self) -> Result:
        phase_ends_s = []
        for phase in self.trace.phases:
            for step in phase.steps:
                self._run_step(step)
            phase_ends_s.append((phase.name, self._reached_s))
        return Result(
            trace=self.trace,
            hardware=self.hardware,
            host=self.host,
            policy=self.policy,
            fidelity=self.fidelity,
            latency_s=self._reached_s,
            rows=self._rows,
            kernels=self.kernels,
            operators=self.operators,
            repeats=self._repeats,
            skipped=self._skipped,
            phase_ends_s=phase_ends_s,
            peak_memory_bytes=self._peak_memory_bytes(),
        )

    @property
    def _reached_s(self) -> float:
        """When host and stream have both done all they were given."""
        return max(self.stream.host_s, self.stream.ended_s)

    def _peak_memory_bytes(self) -> int | None:
        """None for an imported trace, which does not say which tensors are the same."""
        if self.trace.provenance.get("kind") == "imported":
            return None
        return peak_memory_bytes(self.trace, self._rows)

    def _run_step(self, step: Step) -> None:
        first = len(self._rows)
        program = self._program(step)
        stream, before = self.stream, None
        ends: list[tuple[float, float]] = []  # of the repetitions: the stream's clock, and the host's
        for repetition in range(step.count):
            traffic = self._traffic(program, before)
            intervals = stream.run(zip(program.host_s, traffic.seconds, program.waits, strict=True))
            stream.host_s += program.tail_s
            ends.append((self._reached_s, stream.host_s))
            self._record(program, repetition, traffic, intervals)
            left = step.count - repetition - 1
            same = before is not None and traffic.l2.state == before.l2.state
            if left and intervals and same and _steady(ends):
                period_s, host_period_s = (now - then for now, then in zip(ends[-1], ends[-2], strict=True))
                stream.pass_over(len(intervals), left, period_s, host_period_s)
                self._repeats[first, repetition] = 1 + left
                self._skipped.append((ends[-1][0], ends[-1][0] + left * period_s, left))
                break
            before = traffic

    def _program(self, step: Step) -> _Program:
        """Lower the step; add its operators to the rows."""
        first = len(self._rows)
        lowered = self.lowering.lower_all(step.operators)
        self._rows.extend(zip(step.operators, lowered, strict=True))
        eager = self.policy.launch == "eager"
        operator_s, view_s, launch_s = (
            (self.host.operator_s, self.host.view_s, self.host.launch_s) if eager else (0.0, 0.0, 0.0)
        )
        program = _Program([], [], [], [], [], 0.0, [])
        spent = 0.0  # host time of operators that launch nothing, spent before the next that does
        for row, (one, slots) in enumerate(zip(lowered, alike(step.operators).slots, strict=True), first):
            spent += view_s if one.is_view else operator_s
            if not one.kernels:
                continue
            begin = len(program.kernels)
            for kernel in one.kernels:
                program.kernels.append(kernel)
                program.slots.append(slots)
                program.rows.append(row)
                program.host_s.append(spent + launch_s)
                program.waits.append(False)
                spent = 0.0
            program.waits[-1] = one.synchronizes
            program.spans.append((row, begin, len(program.kernels)))
        return program._replace(tail_s=spent)

    def _traffic(self, program: _Program, before: _Traffic | None) -> _Traffic:
        """Run a repetition's kernels through L2. From where L2 is in the state of the repetition before, all is as then."""
        l2 = copy.deepcopy(self.l2)
        hbm_bytes: list[float] = []
        seconds: list[float] = []
        states: list[Any] = []
        for at, (kernel, slots) in enumerate(zip(program.kernels, program.slots, strict=True)):
            if at % _LOOK_EVERY == 0:
                states.append(l2.state)
                if before is not None and before.states[at // _LOOK_EVERY] == states[-1]:
                    hbm_bytes += before.hbm_bytes[at:]
                    seconds += before.seconds[at:]
                    states += before.states[at // _LOOK_EVERY + 1 :]
                    l2 = before.l2
                    break
            moved = l2.touch(kernel, slots.__getitem__)
            hbm_bytes.append(moved)
            seconds.append(self._execution_s(kernel, moved))
        self.l2 = l2
        return _Traffic(hbm_bytes, seconds, states, l2)

    def _execution_s(self, kernel: Kernel, hbm_bytes: float) -> float:
        key = (id(kernel), round(hbm_bytes))
        seconds = self._seconds.get(key)
        if seconds is None:
            if self.fidelity == "wave":
                seconds = lone_execution_s(kernel, self.hardware, hbm_bytes)
            else:
                seconds = execution_time_s(kernel, self.hardware, hbm_bytes, self.fidelity)
            self._seconds[key] = seconds
        return seconds

    def _record(self, program: _Program, repetition: int, traffic: _Traffic, intervals: list[Any]) -> None:
        self.kernels += [
            KernelInterval(row, repetition, kernel, max(free_s, 0.0), start_s, end_s, hbm_bytes)
            for row, kernel, hbm_bytes, (_, free_s, start_s, end_s) in zip(
                program.rows, program.kernels, traffic.hbm_bytes, intervals, strict=True
            )
        ]
        # An operator is on the host from its call, before its first launch, until its last has been issued.
        self.operators += [
            OperatorInterval(
                row,
                repetition,
                intervals[begin].issued_s - program.host_s[begin],
                intervals[end - 1].issued_s,
            )
            for row, begin, end in program.spans
        ]


def _steady(ends: list[tuple[float, float]]) -> bool:
    """Whether the last two repetitions took the same time and the host does not fall behind the stream."""
    if len(ends) < 3:
        return False
    (before, _), (then, then_host), (now, now_host) = ends[-3:]
    period, last = now - then, then - before
    same = abs(period - last) <= _SAME_PERIOD * max(period, last)
    return same and now_host - then_host <= period * (1 + _SAME_PERIOD)
