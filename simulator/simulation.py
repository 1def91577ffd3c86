"""The simulation of one inference: a host issues a trace's operators, a stream runs their kernels on a device.

Kernels of one stream run alone, so a kernel's time on the device is simulated once for each state of L2 it meets.
A step that repeats is simulated until the state at its end is that of the repetition before; the rest is passed over.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import simpy

from simtti.hw_configs.hardware import Hardware
from simtti.simulator.device import execution_time_s
from simtti.simulator.host import Host
from simtti.simulator.kernel import Kernel
from simtti.simulator.l2 import L2
from simtti.simulator.lower import Lowered, Lowering, Policy
from simtti.simulator.memory import peak_memory_bytes
from simtti.simulator.result import KernelInterval, OperatorInterval, Result
from simtti.simulator.stream import Launch, Mark, Skip, Stream
from simtti.workloads.trace import Operator, Step, Trace

# Two repetitions of a step take the same time when they differ by less: rounding, not physics.
_SAME_PERIOD = 1e-9


def simulate(
    trace: Trace, hardware: Hardware, host: Host, policy: Policy | None = None, fidelity: str = "wave"
) -> Result:
    """Run `trace` on `hardware`.

    Args:
        policy: how operators become kernels (attention implementation, eager launches or a CUDA graph).
        fidelity: 'wave' moves CTAs that start together as one, 'cta' simulates each.
    """
    return _Inference(trace, hardware, host, policy or Policy(), fidelity).run()


class _Inference:
    def __init__(self, trace: Trace, hardware: Hardware, host: Host, policy: Policy, fidelity: str) -> None:
        self.trace, self.hardware, self.host, self.policy, self.fidelity = (
            trace,
            hardware,
            host,
            policy,
            fidelity,
        )
        self.env = simpy.Environment()
        self.l2 = L2(hardware.l2_usable_bytes)
        self.lowering = Lowering(hardware, policy)
        self.stream = Stream(self.env, host.queue_depth, hardware.launch_s, self._execute, self._record)
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
        work = list(zip(step.operators, self.lowering.lower_step(step.operators), strict=True))
        issue_s = self._issue_s(work)
        self._rows.extend(work)
        ends: list[simpy.Event] = []
        states: list[Any] = []
        for repetition in range(step.count):
            left = step.count - repetition
            steady = self._steady_period(ends, states)
            if steady is not None:
                # Repetitions `left` more are like the last one that has ended.
                ended = sum(event.processed for event in ends) - 1
                self._repeats[first, ended] = 1 + left
                yield self.stream.queue.put(Skip(left * steady, left))
                yield self.env.timeout(left * steady)
                break
            yield from self._issue_operators(first, work, issue_s, repetition)
            reached = self.env.event()
            ends.append(reached)
            reached.callbacks.append(lambda _: states.append(self.l2.state))
            yield self.stream.queue.put(Mark(reached))
        end = self.env.event()
        yield self.stream.queue.put(Mark(end))
        return end

    def _issue_s(self, work: list[tuple[Operator, Lowered]]) -> list[float]:
        """Host time of each operator of a step, without launches."""
        if self.policy.launch == "eager":
            return self.host.issue_s([operator for operator, _ in work])
        if self.policy.launch == "compiled":  # generated code: a call for each that launches something
            return [self.host.operator_s if lowered.kernels else 0.0 for _, lowered in work]
        return [0.0] * len(work)

    def _steady_period(self, ends: list[simpy.Event], states: list[Any]) -> float | None:
        """The period of a step whose last two repetitions ended in the same state and took the same time."""
        times = [_seconds(event) for event in ends if event.processed]
        if len(times) < 3 or len(states) < 2 or states[-1] != states[-2]:
            return None
        last, before = times[-1] - times[-2], times[-2] - times[-3]
        return last if abs(last - before) <= _SAME_PERIOD * max(last, before) else None

    def _issue_operators(
        self, first: int, work: list[tuple[Operator, Lowered]], issue_s: list[float], repetition: int
    ) -> Generator[simpy.Event, Any, None]:
        env, queue = self.env, self.stream.queue
        launch_s = 0.0 if self.policy.launch == "graph" else self.host.launch_s
        waited = 0.0  # host time of operators that launch nothing, spent before the next that does
        for index, (_, lowered) in enumerate(work):
            waited += issue_s[index]
            if not lowered.kernels:
                continue
            start = env.now
            for kernel in lowered.kernels:
                waited += launch_s
                if waited > 0:
                    yield env.timeout(waited)
                    waited = 0.0
                yield queue.put(Launch(kernel, first + index, repetition, lowered.tensor_of))
            if lowered.synchronizes:
                reached = env.event()
                yield queue.put(Mark(reached))
                yield reached
            self.operators.append(OperatorInterval(first + index, repetition, start, env.now))
        if waited > 0:
            yield env.timeout(waited)

    # ---- the device, as the stream sees it

    def _execute(self, launch: Launch) -> tuple[float, float]:
        hbm_bytes = self.l2.touch(launch.kernel, launch.tensor_of)
        return self._execution_time_s(launch.kernel, hbm_bytes), hbm_bytes

    def _execution_time_s(self, kernel: Kernel, hbm_bytes: float) -> float:
        key = (id(kernel), round(hbm_bytes))
        seconds = self._seconds.get(key)
        if seconds is None:
            seconds = self._seconds[key] = execution_time_s(kernel, self.hardware, hbm_bytes, self.fidelity)
        return seconds

    def _record(self, launch: Launch, free_s: float, start_s: float, end_s: float, hbm_bytes: float) -> None:
        self.kernels.append(
            KernelInterval(
                launch.operator, launch.repetition, launch.kernel, max(free_s, 0.0), start_s, end_s, hbm_bytes
            )
        )


def _seconds(reached: simpy.Event) -> float:
    """When a mark was reached, in seconds of the simulation."""
    at: Any = reached.value
    return float(at)
