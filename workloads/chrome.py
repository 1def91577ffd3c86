"""A timed trace as Chrome trace events: what ui.perfetto.dev opens and tools made for Kineto's files read.

Tracks: the phases, the host's threads with operators and the calls that launched kernels, and the GPU's streams.
Names, categories and arguments are Kineto's, so that HolisticTraceAnalysis finds the same kernels, kernel time and
idle time as `simtti.workloads.kineto.summary`. It rounds times to whole microseconds, in Kineto's own files too,
unless HTA_DISABLE_NS_ROUNDING=1 is set. Where a GPU began a kernel before the one
before it on its stream had ended, so do the slices here, of which Perfetto leaves out the later one.
"""

from __future__ import annotations

from simtti.errors import InputError
from simtti.files import finite
from simtti.workloads.chrome_events import Event, Events, Track
from simtti.workloads.kineto import DEVICE_FACTS
from simtti.workloads.kineto_calls import KINETO_DTYPES
from simtti.workloads.trace import HostTime, Operator, Step, TimedKernel, Timing, Trace

# Kineto numbers processes as the system does and GPUs from 0.
_HOST = 1 << 16
_PHASES = 0
_CATEGORIES = {"kernel": "kernel", "memcpy": "gpu_memcpy", "memset": "gpu_memset"}
_LAUNCHES = {"kernel": "cudaLaunchKernel", "memcpy": "cudaMemcpyAsync", "memset": "cudaMemsetAsync"}


def trace_to_chrome(trace: Trace) -> str:
    """The trace as JSON text.

    Raises InputError if the trace holds no times.
    """
    if trace.timing is None:
        raise InputError(
            f"the trace of {trace.workload} has no times: it was recorded, not measured; "
            "simtti run --timeline draws the simulated ones"
        )
    timing, events = trace.timing, Events()
    _names(events, timing)
    _phases(events, trace, timing)
    _operators(events, trace, timing)
    _launches(events, timing)
    _kernels(events, timing)
    facts = {theirs: timing.device[ours] for ours, theirs in DEVICE_FACTS.items() if ours in timing.device}
    return events.text(
        deviceProperties=[{"id": number, **facts} for number in sorted({k.device for k in timing.kernels})],
        distributedInfo={"rank": 0},
        traceName=trace.workload,
    )


def _names(events: Events, timing: Timing) -> None:
    events.process(_HOST, "Host", -1)
    events.thread(Track(_HOST, _PHASES), "phases")
    for thread in sorted({time.thread for time in timing.host if time is not None}):
        events.thread(Track(_HOST, _thread(thread)), f"thread {thread}")
    for device in sorted({kernel.device for kernel in timing.kernels}):
        events.process(device, f"GPU {device}")
    for device, stream in sorted({(kernel.device, kernel.stream) for kernel in timing.kernels}):
        events.thread(Track(device, stream), f"stream {stream}")


def _thread(number: int) -> int:
    """The track of a host thread: never the phases'."""
    return number if number != _PHASES else 1


def _ns(time_us: float) -> int:
    return round(time_us * 1e3)


def _phases(events: Events, trace: Trace, timing: Timing) -> None:
    """One slice a step, from its first operator's call to its last one's return. Steps may share a thread's time."""
    at, end = 0, 0.0
    for name, step in [(phase.name, step) for phase in trace.phases for step in phase.steps]:
        interval = _span(timing.host[at : at + len(step.operators)])
        at += len(step.operators)
        if interval is None:
            continue
        start = max(interval[0], end)  # slices of one track do not overlap
        end = max(interval[1], start)
        events.slice(Track(_HOST, _PHASES), name, "user_annotation", _ns(start), _ns(end), _step_facts(step))


def _step_facts(step: Step) -> Event:
    return {"repeats": step.count, "operators": len(step.operators)}


def _span(times: tuple[HostTime | None, ...]) -> tuple[float, float] | None:
    known = [time for time in times if time is not None]
    if not known:
        return None
    return min(time.start_us for time in known), max(time.start_us + time.duration_us for time in known)


def _operators(events: Events, trace: Trace, timing: Timing) -> None:
    for row, (operator, time) in enumerate(zip(trace.operators(), timing.host, strict=True)):
        if time is not None:
            track = Track(_HOST, _thread(time.thread))
            end_us = time.start_us + time.duration_us
            args = _arguments(row, operator)
            events.slice(track, operator.op, "cpu_op", _ns(time.start_us), _ns(end_us), args)


def _arguments(row: int, operator: Operator) -> Event:
    args: Event = {
        "External id": row + 1,
        "module": operator.module,
        "category": operator.category,
        "attributes": finite(operator.attributes),
    }
    if operator.attributes.get("shapes_recorded", True):
        args["Input Dims"] = [use.shape for use in operator.inputs]
        args["Input Strides"] = [use.strides for use in operator.inputs]
        args["Input type"] = [KINETO_DTYPES[use.dtype] for use in operator.inputs]
    return args


def _launches(events: Events, timing: Timing) -> None:
    """The host's calls, one a correlation, each with an arrow to what it started: the launch of a CUDA graph has many kernels."""
    for kernels in _by_call(timing).values():
        first = kernels[0]
        assert first.launch_us is not None
        name = _LAUNCHES[first.kind] if len(kernels) == 1 else "cudaGraphLaunch"
        args = {**_external(first), "correlation": first.correlation}
        track = Track(_HOST, _launching_thread(timing, first))
        end_us = first.launch_us + (first.launch_duration_us or 0.0)
        events.slice(track, name, "cuda_runtime", _ns(first.launch_us), _ns(end_us), args, depth=1)
        for kernel in kernels:
            stream = Track(kernel.device, kernel.stream)
            events.arrow(track, _ns(first.launch_us), stream, _ns(kernel.start_us))


def _by_call(timing: Timing) -> dict[tuple[int, float], list[TimedKernel]]:
    calls: dict[tuple[int, float], list[TimedKernel]] = {}
    for kernel in timing.kernels:
        if kernel.launch_us is not None:
            calls.setdefault((kernel.correlation, kernel.launch_us), []).append(kernel)
    return calls


def _launching_thread(timing: Timing, kernel: TimedKernel) -> int:
    time = None if kernel.operator is None else timing.host[kernel.operator]
    if time is None:  # an operator that was not seen: the thread of the first that was
        time = next((other for other in timing.host if other is not None), None)
    return _thread(time.thread if time is not None else 1)


def _external(kernel: TimedKernel) -> Event:
    return {} if kernel.operator is None else {"External id": kernel.operator + 1}


def _kernels(events: Events, timing: Timing) -> None:
    for kernel in timing.kernels:
        args = {
            **_external(kernel),
            "device": kernel.device,
            "context": 1,
            "stream": kernel.stream,
            "correlation": kernel.correlation,
            "grid": kernel.grid,
            "block": kernel.block,
            "registers per thread": kernel.registers,
            "shared memory": kernel.shared_memory_bytes,
            "bytes": kernel.nbytes,
        }
        known = {name: value for name, value in args.items() if value is not None}
        track, end_us = Track(kernel.device, kernel.stream), kernel.start_us + kernel.duration_us
        events.slice(track, kernel.name, _CATEGORIES[kernel.kind], _ns(kernel.start_us), _ns(end_us), known)
