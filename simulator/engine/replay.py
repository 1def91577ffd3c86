"""Replay of a timed trace: kernels take measured times, or measured times scaled to another device.

Host, streams and their overlap are simulated: the host issues each launch as long after its last work as it did when
the trace was taken, and waits where it waited; a stream runs its kernels in order. With measured times on the same
device the measured span must come out again; scaled ones say what another device would make of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import simpy

from simtti.errors import InputError
from simtti.hw_configs.devices import no_device_file
from simtti.hw_configs.hardware import Hardware
from simtti.simulator.coverage import check_coverage
from simtti.simulator.engine.device import execution_time_s
from simtti.simulator.engine.measured_kernels import TIMINGS
from simtti.simulator.lowering.lower import Lowering
from simtti.simulator.policy import captured_with
from simtti.simulator.time_of_run import HOST_IDLE
from simtti.workloads.trace import Operator, TimedKernel, Trace

if TYPE_CHECKING:
    import pandas as pd

    from simtti.simulator.uncertainty.residuals import Interval


@dataclass(frozen=True, slots=True)
class ReplayedKernel:
    """A kernel of the trace as it ran in the replay, in seconds from the first launch."""

    kernel: TimedKernel
    category: str
    start_s: float
    duration_s: float
    scale: float


@dataclass(eq=False)
class Replay:
    """What a replay found.

    measured_s: the span from the first launch (or kernel) to the last kernel's end, as measured.
    unscaled_s: measured time of the kernels that no operator with shapes explains; scaled by the mean of the others.
    scaled_from: the device whose measured times were scaled to this one; None where they are as measured. without_model: rows of
    operators of which the model has no ratio.
    """

    trace: Trace
    hardware: Hardware
    timing: str
    kernels: list[ReplayedKernel]
    latency_s: float
    measured_s: float
    unscaled_s: float
    scaled_from: Hardware | None = None
    without_model: frozenset[int] = frozenset()

    @cached_property
    def breakdown(self) -> dict[str, float]:
        """Seconds by category, and the time in which no kernel ran; the sum is the latency. Of kernels that ran side by side the
        first counts."""
        seconds: dict[str, float] = defaultdict(float)
        reached_s = busy_s = 0.0
        for item in sorted(self.kernels, key=lambda each: each.start_s):
            end_s = item.start_s + item.duration_s
            alone_s = max(0.0, end_s - max(item.start_s, reached_s))
            seconds[item.category] += alone_s
            busy_s += alone_s
            reached_s = max(reached_s, end_s)
        seconds[HOST_IDLE] = max(0.0, self.latency_s - busy_s)
        return dict(sorted(seconds.items(), key=lambda entry: -entry[1]))

    @cached_property
    def intervals(self) -> pd.DataFrame:
        """One row a kernel: where it ran in the replay and in the measurement."""
        import pandas as pd

        return pd.DataFrame(
            {
                "kernel": item.kernel.name,
                "category": item.category,
                "stream": item.kernel.stream,
                "start_s": item.start_s,
                "duration_s": item.duration_s,
                "measured_start_s": item.kernel.start_us / 1e6,
                "measured_duration_s": item.kernel.duration_us / 1e6,
                "scale": item.scale,
            }
            for item in self.kernels
        )

    @cached_property
    def interval(self) -> Interval:
        """Between what the latency lies in half of such replays, and in 9 of 10, in seconds (docs/accuracy.md)."""
        from simtti.simulator.uncertainty.of_replay import replay_interval  # circle: it walks a replay

        return replay_interval(self)

    def to_dict(self, interval: bool = True) -> dict[str, Any]:
        """The replay as `simtti run --timing ... --json` writes it, with the interval or without."""
        return {
            "latency_s": self.latency_s,
            **({"interval": self.interval.in_seconds()} if interval else {}),
            "measured_s": self.measured_s,
            "breakdown": self.breakdown,
            "kernels": len(self.kernels),
            "kernel_s": sum(item.duration_s for item in self.kernels),
            "unscaled_share": self.unscaled_s
            / max(sum(k.kernel.duration_us for k in self.kernels) / 1e6, 1e-12),
            "configuration": {
                "workload": self.trace.workload,
                "hw": self.hardware.name,
                "timing": self.timing,
                "trace": self.trace.provenance,
            },
        }


def replay(
    trace: Trace,
    hardware: Hardware,
    timing: str,
    captured_on: Hardware | None = None,
    partial: bool = False,
) -> Replay:
    """Run a timed trace with measured kernel times ('measured') or with those scaled to `hardware` ('hybrid').

    captured_on: the device the trace was taken on; hybrid needs it to scale by the model's ratio between the two. partial: go on
    though the model has no ratio for most of the time.

    Raises:
        InputError: the trace has no times, or an unknown timing; hybrid, and too little of the trace has a model.
    """
    if timing not in TIMINGS:
        raise InputError(f"timing is {timing!r}; it must be one of model, {', '.join(TIMINGS)}")
    if trace.timing is None or not trace.timing.kernels:
        raise InputError(
            f"the trace of {trace.workload} holds no measured kernels; --timing {timing} needs them"
        )
    if not any(kernel.duration_us > 0 for kernel in trace.timing.kernels):
        raise InputError(
            f"the kernels of the trace of {trace.workload} took no time: it holds nothing to replay"
        )
    if timing == "hybrid" and captured_on is not None:
        check_coverage(trace, timing, partial)
    scales, unscaled_us = _scales(trace, hardware, captured_on) if timing == "hybrid" else ({}, 0.0)
    launches = in_order(trace)
    run = _Run(trace, launches, scales)
    first_us = launch_us(launches[0])
    measured_us = max(kernel.end_us for kernel in launches) - first_us
    launched = {kernel.operator for kernel in launches if kernel.operator is not None}
    scaled_from = captured_on if timing == "hybrid" else None
    without_model = frozenset(launched - set(scales)) if scales else frozenset()
    return Replay(
        trace, hardware, timing, run.finished, run.env.now, measured_us / 1e6, unscaled_us / 1e6, scaled_from, without_model
    )  # fmt: skip


def in_order(trace: Trace) -> list[TimedKernel]:
    """A trace's kernels in the order in which they were launched."""
    kernels = trace.timing.kernels if trace.timing is not None else ()
    return sorted(kernels, key=lambda kernel: (launch_us(kernel), kernel.start_us))


def launch_us(kernel: TimedKernel) -> float:
    """When the host launched a kernel, in us; when it started, where that is not known."""
    return kernel.start_us if kernel.launch_us is None else min(kernel.launch_us, kernel.start_us)


def _scales(trace: Trace, hardware: Hardware, captured_on: Hardware | None) -> tuple[dict[int, float], float]:
    """Operator row -> ratio of the model's times on the two devices; row -1 is the ratio for all others."""
    if captured_on is None:
        raise no_device_file(str(trace.timing.device.get("name", "")) if trace.timing else "")
    devices = tuple(Lowering(device, captured_with(trace)) for device in (captured_on, hardware))
    scales: dict[int, float] = {}
    sums = [0.0, 0.0]
    operators = list(trace.operators())
    assert trace.timing is not None
    launched = {kernel.operator for kernel in trace.timing.kernels if kernel.operator is not None}
    for row in sorted(launched):
        times = [_model_s(lowering, operators[row]) for lowering in devices]
        if times[0] > 0 and times[1] > 0:
            scales[row] = times[1] / times[0]
            sums[0] += times[0]
            sums[1] += times[1]
    scales[-1] = sums[1] / sums[0] if sums[0] else captured_on.hbm_bytes_per_s / hardware.hbm_bytes_per_s
    unscaled_us = sum(k.duration_us for k in trace.timing.kernels if k.operator not in scales)
    return scales, unscaled_us


def _model_s(lowering: Lowering, operator: Operator) -> float:
    """Execution time of an operator's kernels, launch gaps not counted, 0 where its shapes are not known."""
    lowered = lowering.lower(operator)
    return sum(execution_time_s(kernel, lowering.hardware) for kernel in lowered.kernels)


class _Run:
    """The SimPy processes of a replay: one host, a stream for each of the trace's."""

    def __init__(self, trace: Trace, launches: list[TimedKernel], scales: dict[int, float]) -> None:
        assert trace.timing is not None
        self.env = simpy.Environment()
        self.trace, self.launches, self.scales = trace, launches, scales
        self.finished: list[ReplayedKernel] = []
        self.operators = list(trace.operators())
        self.queues: dict[tuple[int, int], simpy.Store] = {}
        self.gap_s, self.latency_s = device_gaps(launches)
        self.left = len(launches)
        self.all_done = self.env.event()
        self.env.process(self._host())
        self.env.run(until=self.all_done)

    def _host(self) -> Generator[simpy.Event, Any, None]:
        """Issue launches with the measured time between them; where the host waited for the GPU, wait for it."""
        previous_us = launch_us(self.launches[0])
        ended: dict[tuple[int, int], simpy.Event] = {}  # the last kernel of each stream
        measured_end_us = previous_us
        for at_us, kernel in host_events(self.trace, self.launches):
            if kernel is None:
                if measured_end_us > at_us:
                    continue  # it waited for something else: time passes as measured
                for done in ended.values():
                    if not done.processed:
                        yield done
                previous_us = max(previous_us, measured_end_us)
            wait_s = (at_us - previous_us) / 1e6
            if wait_s > 0:
                yield self.env.timeout(wait_s)
            previous_us = at_us
            if kernel is None:
                continue
            done = self.env.event()
            ended[kernel.device, kernel.stream] = done
            measured_end_us = max(measured_end_us, kernel.end_us)
            yield self._queue(kernel).put((kernel, self.env.now, done))

    def _queue(self, kernel: TimedKernel) -> simpy.Store:
        key = (kernel.device, kernel.stream)
        if key not in self.queues:
            self.queues[key] = simpy.Store(self.env)
            self.env.process(self._stream(self.queues[key]))
        return self.queues[key]

    def _stream(self, queue: simpy.Store) -> Generator[simpy.Event, Any, None]:
        env, ended_s = self.env, float("-inf")
        while True:
            kernel, launched_s, done = yield queue.get()
            own_latency_s = 0.0  # one whose launch is not known was issued when it started
            if kernel.launch_us is not None:
                own_latency_s = min(self.latency_s, (kernel.start_us - launch_us(kernel)) / 1e6)
            start_s = max(launched_s + own_latency_s, ended_s + self.gap_s)
            if start_s > env.now:
                yield env.timeout(start_s - env.now)
            scale = self.scales.get(kernel.operator, self.scales.get(-1, 1.0))
            duration_s = kernel.duration_us / 1e6 * scale
            begun_s = env.now
            yield env.timeout(duration_s)
            ended_s = env.now
            category = self.operators[kernel.operator].category if kernel.operator is not None else "Other"
            self.finished.append(ReplayedKernel(kernel, category, begun_s, duration_s, scale))
            done.succeed()
            self.left -= 1
            if not self.left:
                self.all_done.succeed()


def host_events(trace: Trace, launches: list[TimedKernel]) -> list[tuple[float, TimedKernel | None]]:
    """What the host did, in order: (time in us, kernel launched), or None where it had waited for the GPU until then."""
    assert trace.timing is not None
    events: list[tuple[float, TimedKernel | None]] = [(launch_us(kernel), kernel) for kernel in launches]
    for host in trace.timing.host:
        if host is not None and host.waiting_us > 0:
            events.append((host.start_us + host.duration_us, None))
    return sorted(events, key=lambda event: event[0])


def device_gaps(launches: list[TimedKernel]) -> tuple[float, float]:
    """Seconds between two kernels that were both ready, and from a launch to its start on an idle stream: the median
    of the shortest tenth, as they were measured."""
    gaps, latencies = [], []
    before: dict[tuple[int, int], TimedKernel] = {}
    for kernel in launches:
        last = before.get((kernel.device, kernel.stream))
        if last is not None:
            gaps.append(max(0.0, kernel.start_us - last.end_us))
        if kernel.launch_us is not None:
            latencies.append(max(0.0, kernel.start_us - kernel.launch_us))
        before[kernel.device, kernel.stream] = kernel
    return _low(gaps) / 1e6, _low(latencies) / 1e6


def _low(values: list[float]) -> float:
    return sorted(values)[len(values) // 20] if values else 0.0
