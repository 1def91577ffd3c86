"""The timeline of a Result in the Chrome trace event format, which ui.perfetto.dev opens.

Tracks: phases, the host's operators, each stream's kernels; counters: tensor cores and HBM in use. Times are in
microseconds, as the format asks. A step that repeats is drawn as often as it was simulated; the rest is one slice.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from simtti.simulator.engine.program import MAIN

if TYPE_CHECKING:
    from simtti.simulator.result import Result  # circle: a type only

_DEVICE, _HOST = 0, 1
_PHASES, _STREAM, _THREAD = 1, 7, 2


def chrome_trace(result: Result) -> str:
    """The timeline as JSON text."""
    events = [*_names(result), *_phases(result), *_host(result), *_device(result), *_passed_over(result)]
    named = [event for event in events if event["ph"] == "M"]
    timed = sorted(
        (event for event in events if event["ph"] != "M"),
        key=lambda event: (event["ts"], -event.get("dur", 0)),
    )
    content = {
        "schemaVersion": 1,
        "displayTimeUnit": "ms",
        "deviceProperties": [{"id": 0, "name": result.hardware.name, "numSms": result.hardware.sm_count}],
        "traceName": f"simtti run {result.trace.workload} --hw {result.hardware.name}",
        "traceEvents": [*named, *timed],
    }
    return json.dumps(content, separators=(",", ":"))


def _names(result: Result) -> list[dict[str, Any]]:
    def name(kind: str, pid: int, tid: int, text: str) -> dict[str, Any]:
        return {"ph": "M", "name": kind, "pid": pid, "tid": tid, "ts": 0, "args": {"name": text}}

    return [
        name("process_name", _HOST, 0, "Host"),
        name("thread_name", _HOST, _PHASES, "phases"),
        name("thread_name", _HOST, _THREAD, "operators"),
        name("process_name", _DEVICE, 0, "GPU 0"),
        *(
            name("thread_name", _DEVICE, stream, f"stream {stream}")
            for stream in sorted({_STREAM + interval.stream for interval in result.kernels} or {_STREAM})
        ),
    ]


def _slice(
    name: str, kind: str, place: tuple[int, int], start_s: float, end_s: float, **args: Any
) -> dict[str, Any]:
    return {
        "ph": "X",
        "name": name,
        "cat": kind,
        "pid": place[0],
        "tid": place[1],
        "ts": round(start_s * 1e6, 4),
        "dur": round((end_s - start_s) * 1e6, 4),
        "args": args,
    }


def _phases(result: Result) -> list[dict[str, Any]]:
    events, start = [], 0.0
    for phase in result.phases:
        end = start + phase.latency_s
        events.append(_slice(phase.name, "phase", (_HOST, _PHASES), start, end, steps=phase.steps))
        start = end
    return events


def _host(result: Result) -> list[dict[str, Any]]:
    events = []
    for interval in result.operators:
        operator = result.rows[interval.operator][0]
        place = (_HOST, _THREAD)
        events.append(
            _slice(operator.op, "cpu_op", place, interval.start_s, interval.end_s, module=operator.module)
        )
    return events


def _device(result: Result) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    previous_end = 0.0
    for interval in result.kernels:
        operator, kernel = result.rows[interval.operator][0], interval.kernel
        tensor_share = interval.busy.tensor / interval.duration_s
        events.append(
            _slice(
                kernel.name,
                "kernel",
                (_DEVICE, _STREAM + interval.stream),
                interval.start_s,
                interval.end_s,
                stream=_STREAM + interval.stream,
                device=0,
                operator=operator.op,
                module=operator.module,
                category=operator.category,
                grid=[kernel.grid, 1, 1],
                block=[kernel.threads, 1, 1],
                flops=kernel.flops,
                hbm_bytes=interval.hbm_bytes,
                link_bytes=kernel.link_bytes,
            )
        )
        if interval.stream != MAIN:
            continue
        if interval.start_s > previous_end:
            events.append(_counter("HBM GB/s", previous_end, 0.0))
            events.append(_counter("tensor cores %", previous_end, 0.0))
        events.append(_counter("HBM GB/s", interval.start_s, interval.hbm_bytes / interval.duration_s / 1e9))
        events.append(_counter("tensor cores %", interval.start_s, 100 * tensor_share))
        previous_end = interval.end_s
    events.append(_counter("HBM GB/s", previous_end, 0.0))
    events.append(_counter("tensor cores %", previous_end, 0.0))
    return events


def _counter(name: str, at_s: float, value: float) -> dict[str, Any]:
    return {
        "ph": "C",
        "name": name,
        "pid": _DEVICE,
        "tid": 0,
        "ts": round(at_s * 1e6, 4),
        "args": {"value": round(value, 3)},
    }


def _passed_over(result: Result) -> list[dict[str, Any]]:
    """The time of repetitions that were not simulated, where the stream shows nothing."""
    return [
        _slice(f"{repetitions} repetitions like those before", "repeats", (_HOST, _PHASES), start, end)
        for start, end, repetitions in result.outcome.skipped
    ]
