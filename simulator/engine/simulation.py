"""The simulation of one inference: a host issues a trace's operators, a stream runs their kernels on a device.

The host is a SimPy process that issues a step's launches and meets the stream where it waits for it. Kernels of one stream
run alone, so a kernel's time on the device is worked out once for each state of L2 it meets: by fast-forwarding through its
identical waves in closed form, which equals the simulation of the waves (tests hold them together), or CTA by CTA in `cta`
fidelity.
A step that repeats is simulated until one repetition goes like the one before; the rest is passed over.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple

import simpy

from simtti.hw_configs.hardware import Hardware
from simtti.hw_configs.hosts import Host
from simtti.simulator.closed_form import lone_execution_s
from simtti.simulator.engine import power
from simtti.simulator.engine.device import execution_time_s
from simtti.simulator.engine.governor import Governed, Launched, govern
from simtti.simulator.engine.l2 import L2
from simtti.simulator.engine.peak_memory import peak_memory_bytes
from simtti.simulator.engine.stream import Stream
from simtti.simulator.kernel import Kernel
from simtti.simulator.lowering.lower import Lowered, Lowering, Slots, alike
from simtti.simulator.policy import Policy
from simtti.simulator.result import Repetition, Result
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
    """A repetition of a step: each launch with what it moves to and from HBM; times and clocks under the power limit; the
    states of L2 every _LOOK_EVERY launches; L2 at its end."""

    launches: list[Launched]
    governed: Governed
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
        self.stream = Stream(host.queue_depth, hardware.launch_s)
        self._known: dict[tuple[int, int], Launched] = {}
        # Operators of the trace in order, as rows of the result; filled step by step.
        self._rows: list[tuple[Operator, Lowered]] = []
        self._repetitions: list[Repetition] = []
        self._phase_ends_s: list[tuple[str, float]] = []

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
            repetitions=self._repetitions,
            skipped=self.stream.skipped,
            phase_ends_s=self._phase_ends_s,
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
        env, stream = self.env, self.stream
        for phase in self.trace.phases:
            for step in phase.steps:
                yield from self._issue_step(step)
            if self._repetitions:
                self._phase_ends_s.append((phase.name, stream.ended_s))
        if stream.ended_s > env.now:
            yield env.timeout(stream.ended_s - env.now)

    def _issue_step(self, step: Step) -> Generator[simpy.Event, Any, None]:
        env, stream = self.env, self.stream
        program, traffic = self._program(step), None
        ends = [_End(env.now, stream.ended_s, None)]
        for repetition in range(step.count):
            left = step.count - repetition
            steady = _steady(ends)
            if steady is not None:
                # Those left are like the last one.
                self._repetitions[-1] = self._repetitions[-1]._replace(times=1 + left)
                host_s = stream.skip(left * steady.stream_s, left, env.now + left * steady.host_s)
                yield env.timeout(host_s - env.now)
                break
            traffic = self._traffic(program, traffic)
            yield from self._issue_launches(program, traffic, repetition)
            ends.append(_End(env.now, stream.ended_s, traffic.l2.state))

    def _issue_launches(
        self, program: _Program, traffic: _Traffic, repetition: int
    ) -> Generator[simpy.Event, Any, None]:
        if not program.kernels:
            return
        env = self.env
        launches = zip(program.host_s, traffic.governed.seconds, program.waits, strict=True)
        ran = self.stream.run(launches, env.now)
        self._repetitions.append(
            Repetition(
                repetition,
                1,
                program.rows,
                program.spans,
                program.host_s,
                traffic.launches,
                traffic.governed,
                ran,
            )
        )
        host_s = ran.host_s + program.tail_s
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
        l2 = self.l2.copy()
        launches: list[Launched] = []
        states: list[Any] = []
        for at, (kernel, slots) in enumerate(zip(program.kernels, program.slots, strict=True)):
            if at % _LOOK_EVERY == 0:
                states.append(l2.state)
                if before is not None and before.states[at // _LOOK_EVERY] == states[-1]:
                    launches += before.launches[at:]
                    states += before.states[at // _LOOK_EVERY + 1 :]
                    l2 = before.l2
                    break
            launches.append(self._launched(kernel, l2.touch(kernel, slots)))
        self.l2 = l2
        if before is not None and launches == before.launches:
            governed = before.governed
        else:
            governed = govern(launches, program.host_s, self.hardware)
        return _Traffic(launches, governed, states, l2)

    def _launched(self, kernel: Kernel, hbm_bytes: float) -> Launched:
        """A kernel at the boost clock; to the byte, those that move as much are the same."""
        key = (id(kernel), int(hbm_bytes))
        known = self._known.get(key)
        if known is None:
            if self.fidelity == "wave":
                seconds = lone_execution_s(kernel, self.hardware, hbm_bytes)
            else:
                seconds = execution_time_s(kernel, self.hardware, hbm_bytes, self.fidelity)
            energy = power.energy(kernel, hbm_bytes, self.hardware)
            known = self._known[key] = Launched(kernel, hbm_bytes, seconds, energy)
        return known


class _End(NamedTuple):
    """The end of a repetition: when the host has issued it, when the stream has run it, and L2's state."""

    host_s: float
    stream_s: float
    l2: Any


class _Period(NamedTuple):
    """What a repetition adds to the time of the host and to that of the stream."""

    host_s: float
    stream_s: float


def _steady(ends: list[_End]) -> _Period | None:
    """The period of a step once it goes on as it went: the last two repetitions found L2 in the same state and took the stream
    the same time, and the host does not fall behind."""
    if len(ends) < 4 or not ends[-1].l2 == ends[-2].l2 == ends[-3].l2:
        return None
    (_, first_s, _), (host_s, second_s, _), last = ends[-3:]
    period_s, before_s = last.stream_s - second_s, second_s - first_s
    same = abs(period_s - before_s) <= _SAME_PERIOD * period_s
    keeps_up = last.host_s - host_s <= period_s * (1 + _SAME_PERIOD)
    return _Period(last.host_s - host_s, period_s) if same and keeps_up else None
