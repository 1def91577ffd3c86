"""The simulation of one inference: a host issues a trace's operators, a stream runs their kernels on a device.

Host and stream are SimPy processes. Kernels of one stream run alone, so a kernel's time on the device is worked out once
for each state of L2 it meets: by fast-forwarding through its identical waves in closed form, which equals the simulation
of the waves (tests hold them together), or CTA by CTA in `cta` fidelity.
A step that repeats is simulated until the state at its end is that of the repetition before; the rest is passed over.
"""

from __future__ import annotations

import copy
from collections.abc import Generator
from typing import Any, NamedTuple

import simpy

from simtti.hw_configs.hardware import Hardware
from simtti.simulator.device import execution_time_s
from simtti.simulator.host import Host
from simtti.simulator.kernel import Kernel, lone_execution_s
from simtti.simulator.l2 import L2
from simtti.simulator.lower import Lowered, Lowering, Policy, Slots, alike
from simtti.simulator.memory import peak_memory_bytes
from simtti.simulator.result import KernelInterval, OperatorInterval, Result
from simtti.simulator.stream import Launch, Mark, Skip, Stream
from simtti.workloads.trace import Operator, Step, Trace

# Two repetitions of a step take the same time when they differ by less: rounding, not physics.
_SAME_PERIOD = 1e-9
# Launches between two comparisons of L2 with the repetition before.
_LOOK_EVERY = 64
_IDENTITIES = Slots()


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
        self.env = simpy.Environment()
        self.stream = Stream(self.env, host.queue_depth, hardware.launch_s, self._record)
        self.kernels: list[KernelInterval] = []
        self.operators: list[OperatorInterval] = []
        self._seconds: dict[tuple[int, float], float] = {}
        # Operators of the trace in order, as rows of the result; filled step by step.
        self._rows: list[tuple[Operator, Lowered]] = []
        self._repeats: dict[tuple[int, int], int] = {}

    def run(self) -> Result:
        self.env.run(until=self.env.process(self._issue()))
        return Result(
            trace=self.trace,
            hardware=self.hardware,
            host=self.host,
            policy=self.policy,
            fidelity=self.fidelity,
            latency_s=self.env.now,
            rows=self._rows,
            kernels=self.kernels,
            operators=self.operators,
            repeats=self._repeats,
            skipped=self.stream.skipped,
            phase_ends_s=[(name, _seconds(reached)) for name, reached in self._phase_ends],
            peak_memory_bytes=self._peak_memory_bytes(),
        )

    def _peak_memory_bytes(self) -> int | None:
        """None for an imported trace, which does not say which tensors are the same."""
        if self.trace.provenance.get("kind") == "imported":
            return None
        return peak_memory_bytes(self.trace, self._rows)

    # ---- the host

    def _issue(self) -> Generator[simpy.Event, Any, None]:
        """The host's process: every phase, every step, every repetition, until the device has finished."""
        reached = None
        self._phase_ends: list[tuple[str, simpy.Event]] = []
        for phase in self.trace.phases:
            for step in phase.steps:
                reached = yield from self._issue_step(step)
            if reached is not None:
                self._phase_ends.append((phase.name, reached))
        if reached is not None and not reached.processed:
            yield reached

    def _issue_step(self, step: Step) -> Generator[simpy.Event, Any, simpy.Event]:
        first = len(self._rows)
        program, traffic = self._program(step), None
        ends: list[simpy.Event] = []
        states: list[Any] = []  # of L2 at the end of each repetition
        for repetition in range(step.count):
            left = step.count - repetition
            steady = _steady_period(ends, states)
            if steady is not None:
                # Repetitions `left` more are like the last one that has ended.
                ended = sum(event.processed for event in ends) - 1
                self._repeats[first, ended] = 1 + left
                self.stream.put(Skip(left * steady, left))
                yield self.env.timeout(left * steady)
                break
            traffic = self._traffic(program, traffic)
            states.append(traffic.l2.state)
            yield from self._issue_launches(program, traffic, repetition)
            ends.append(self.env.event())
            self.stream.put(Mark(ends[-1]))
        end = self.env.event()
        self.stream.put(Mark(end))
        return end

    def _issue_launches(
        self, program: _Program, traffic: _Traffic, repetition: int
    ) -> Generator[simpy.Event, Any, None]:
        env, put = self.env, self.stream.put
        host_s = env.now  # the host's clock: it is ahead of the simulation's until something holds it up
        issued_s = []
        for row, kernel, before_s, waits, seconds, hbm_bytes in zip(
            program.rows, program.kernels, program.host_s, program.waits, traffic.seconds, traffic.hbm_bytes, strict=True
        ):  # fmt: skip
            host_s += before_s
            done = env.event() if waits else None
            room = put(Launch(row, repetition, kernel, seconds, hbm_bytes, host_s, done))
            issued_s.append(host_s)
            if room is not None:
                yield room
                host_s = max(host_s, env.now)
            if done is not None:
                yield done
                host_s = env.now
        # An operator is on the host from its call, before its first launch, until its last has been issued.
        self.operators += [
            OperatorInterval(row, repetition, issued_s[begin] - program.host_s[begin], issued_s[end - 1])
            for row, begin, end in program.spans
        ]
        host_s += program.tail_s
        if host_s > env.now:
            yield env.timeout(host_s - env.now)

    # ---- the device, in the order of the stream

    def _program(self, step: Step) -> _Program:
        """Lower the step; add its operators to the rows."""
        first = len(self._rows)
        lowered = self.lowering.lower_all(step.operators)
        self._rows.extend(zip(step.operators, lowered, strict=True))
        issue_s = self._issue_s(step.operators, lowered)
        launch_s = 0.0 if self.policy.launch == "graph" else self.host.launch_s
        program = _Program([], [], [], [], [], 0.0, [])
        spent = 0.0  # host time of operators that launch nothing, spent before the next that does
        for row, (one, slots, operator_s) in enumerate(
            zip(lowered, alike(step.operators).slots, issue_s, strict=True), first
        ):
            spent += operator_s
            if not one.kernels:
                continue
            begin = len(program.kernels)
            for kernel in one.kernels:
                program.kernels.append(kernel)
                program.slots.append(_IDENTITIES if one.by_identity else slots)
                program.rows.append(row)
                program.host_s.append(spent + launch_s)
                program.waits.append(False)
                spent = 0.0
            program.waits[-1] = one.synchronizes
            program.spans.append((row, begin, len(program.kernels)))
        return program._replace(tail_s=spent)

    def _issue_s(self, operators: tuple[Operator, ...], lowered: list[Lowered]) -> list[float]:
        """Host time of each operator of a step, without launches."""
        if self.policy.launch == "eager":
            return self.host.issue_s(operators)
        if self.policy.launch == "compiled":  # generated code: a call for each that launches something
            return [self.host.operator_s if one.kernels else 0.0 for one in lowered]
        return [0.0] * len(lowered)

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

    def _record(self, launch: Launch, free_s: float, start_s: float, end_s: float) -> None:
        self.kernels.append(
            KernelInterval(
                launch.row,
                launch.repetition,
                launch.kernel,
                max(free_s, 0.0),
                start_s,
                end_s,
                launch.hbm_bytes,
            )
        )


def _steady_period(ends: list[simpy.Event], states: list[Any]) -> float | None:
    """The period of a step whose last two repetitions ended in the same state and took the same time."""
    times = [_seconds(event) for event in ends if event.processed]
    if len(times) < 3 or states[len(times) - 1] != states[len(times) - 2]:
        return None
    last, before = times[-1] - times[-2], times[-2] - times[-3]
    return last if abs(last - before) <= _SAME_PERIOD * max(last, before) else None


def _seconds(reached: simpy.Event) -> float:
    """When a mark was reached, in seconds of the simulation."""
    at: Any = reached.value
    return float(at)
