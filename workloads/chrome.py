"""A timed trace as Chrome trace events: what ui.perfetto.dev opens and tools made for Kineto's files read.

Tracks: the phases, the host's threads with operators and the calls that launched kernels, and the GPU's streams.
Names, categories and arguments are Kineto's, so that HolisticTraceAnalysis finds the same kernels, kernel time and
idle time as `simtti.workloads.kineto.summary`. It rounds times to whole microseconds, in Kineto's own files too,
unless HTA_DISABLE_NS_ROUNDING=1 is set.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from simtti.errors import InputError
from simtti.workloads.kineto import DEVICE_FACTS
from simtti.workloads.kineto_calls import KINETO_DTYPES
from simtti.workloads.trace import HostTime, Operator, Step, TimedKernel, Timing, Trace

Event = dict[str, Any]
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
    timing = trace.timing
    timed = [
        *_phases(trace, timing),
        *_operators(trace, timing),
        *_launches(timing),
        *_kernels(timing),
        *_flows(timing),
    ]
    timed.sort(key=lambda event: (event["ts"], -event.get("dur", 0.0)))
    facts = {theirs: timing.device[ours] for ours, theirs in DEVICE_FACTS.items() if ours in timing.device}
    content = {
        "schemaVersion": 1,
        "deviceProperties": [
            {"id": number, **facts} for number in sorted({k.device for k in timing.kernels})
        ],
        "distributedInfo": {"rank": 0},
        "displayTimeUnit": "ms",
        "traceName": trace.workload,
        "traceEvents": [*_names(timing), *timed],
    }
    return json.dumps(content, separators=(",", ":"))


def _names(timing: Timing) -> Iterator[Event]:
    def named(kind: str, process: int, thread: int, **what: Any) -> Event:
        return {"ph": "M", "name": kind, "pid": process, "tid": thread, "ts": 0.0, "args": what}

    threads = sorted({time.thread for time in timing.host if time is not None})
    yield named("process_name", _HOST, 0, name="Host")
    yield named("process_sort_index", _HOST, 0, sort_index=-1)
    yield named("thread_name", _HOST, _PHASES, name="phases")
    for thread in threads:
        yield named("thread_name", _HOST, _thread(thread), name=f"thread {thread}")
    for device in sorted({kernel.device for kernel in timing.kernels}):
        yield named("process_name", device, 0, name=f"GPU {device}")
    for device, stream in sorted({(kernel.device, kernel.stream) for kernel in timing.kernels}):
        yield named("thread_name", device, stream, name=f"stream {stream}")


def _thread(number: int) -> int:
    """The track of a host thread: never the phases'."""
    return number if number != _PHASES else 1


def _slice(
    name: str, category: str, place: tuple[int, int], start_us: float, duration_us: float, args: Event
) -> Event:
    return {
        "ph": "X", "cat": category, "name": name, "pid": place[0], "tid": place[1], "ts": start_us, "dur": duration_us,
        "args": args,
    }  # fmt: skip


def _phases(trace: Trace, timing: Timing) -> Iterator[Event]:
    """One slice a step, from its first operator's call to its last one's return. Steps may share a thread's time."""
    at, end = 0, 0.0
    for name, step in [(phase.name, step) for phase in trace.phases for step in phase.steps]:
        interval = _span(timing.host[at : at + len(step.operators)])
        at += len(step.operators)
        if interval is None:
            continue
        start = max(interval[0], end)  # slices of one track do not overlap
        end = max(interval[1], start)
        yield _slice(
            name, "user_annotation", (_HOST, _PHASES), start, round(end - start, 3), _step_facts(step)
        )


def _step_facts(step: Step) -> Event:
    return {"repeats": step.count, "operators": len(step.operators)}


def _span(times: tuple[HostTime | None, ...]) -> tuple[float, float] | None:
    known = [time for time in times if time is not None]
    if not known:
        return None
    return min(time.start_us for time in known), max(time.start_us + time.duration_us for time in known)


def _operators(trace: Trace, timing: Timing) -> Iterator[Event]:
    for row, (operator, time) in enumerate(zip(trace.operators(), timing.host, strict=True)):
        if time is not None:
            place = (_HOST, _thread(time.thread))
            args = _arguments(row, operator)
            yield _slice(operator.op, "cpu_op", place, time.start_us, time.duration_us, args)


def _arguments(row: int, operator: Operator) -> Event:
    args: Event = {
        "External id": row + 1,
        "module": operator.module,
        "category": operator.category,
        "attributes": operator.attributes,
    }
    if operator.attributes.get("shapes_recorded", True):
        args["Input Dims"] = [use.shape for use in operator.inputs]
        args["Input Strides"] = [use.strides for use in operator.inputs]
        args["Input type"] = [KINETO_DTYPES[use.dtype] for use in operator.inputs]
    return args


def _launches(timing: Timing) -> Iterator[Event]:
    """The host's calls, one a correlation: the launch of a CUDA graph has many kernels."""
    for kernels in _by_call(timing).values():
        first = kernels[0]
        assert first.launch_us is not None
        name = _LAUNCHES[first.kind] if len(kernels) == 1 else "cudaGraphLaunch"
        args = {**_external(first), "correlation": first.correlation}
        place = (_HOST, _launching_thread(timing, first))
        yield _slice(name, "cuda_runtime", place, first.launch_us, first.launch_duration_us or 0.0, args)


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


def _kernels(timing: Timing) -> Iterator[Event]:
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
        place = (kernel.device, kernel.stream)
        yield _slice(kernel.name, _CATEGORIES[kernel.kind], place, kernel.start_us, kernel.duration_us, known)


def _flows(timing: Timing) -> Iterator[Event]:
    """Arrows from each launch to the kernels it started."""
    number = 0
    for kernels in _by_call(timing).values():
        for kernel in kernels:
            number += 1
            arrow = {"cat": "ac2g", "name": "ac2g", "id": number}
            thread = _launching_thread(timing, kernel)
            yield {"ph": "s", **arrow, "pid": _HOST, "tid": thread, "ts": kernel.launch_us}
            yield {
                "ph": "f",
                "bp": "e",
                **arrow,
                "pid": kernel.device,
                "tid": kernel.stream,
                "ts": kernel.start_us,
            }
