"""Imports Kineto traces: the Chrome JSON that torch.profiler writes, as a timed Trace.

    trace = import_kineto("profile.json.gz")
    summary(trace)["kernel_time_us"]

Operators are kept at the level at which `record` sees them: composite ones (aten::linear, aten::matmul, aten::to)
give way to what they call, and what lies below the rest is part of them; scaled-dot-product attention stays whole.
A kernel belongs to the operator around the host's call that launched it, which Kineto ties to the kernel by a
correlation id. Nothing that the GPU did is dropped: a kernel whose launch lies in no operator is kept without one.

Kineto says what each argument looked like, where shapes were recorded; `simtti.workloads.kineto_calls` makes operators of it.
"""

from __future__ import annotations

import gc
import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simtti.errors import InputError
from simtti.workloads.aten import ATTENTION_BACKENDS, gives_way
from simtti.workloads.kineto_calls import Call, OperatorMaker
from simtti.workloads.kineto_file import KERNEL, LAUNCH, MEMCPY, MEMSET, MODULE, FileError, Reader
from simtti.workloads.trace import HostTime, Operator, Phase, Step, TimedKernel, Timing, Trace

# Facts of a GPU: simtti's names and Kineto's.
DEVICE_FACTS = {
    "name": "name", "sm_count": "numSms", "memory_bytes": "totalGlobalMem", "compute_major": "computeMajor",
    "compute_minor": "computeMinor", "registers_per_sm": "regsPerMultiprocessor",
    "shared_memory_per_sm_bytes": "sharedMemPerMultiprocessor", "threads_per_sm": "maxThreadsPerMultiprocessor",
}  # fmt: skip
_WAITS = re.compile(r"(cuda|hip|cu)(Stream|Device|Event|Ctx)Synchronize")
_VERSIONS = (
    "cuda_runtime_version",
    "cuda_driver_version",
    "cupti_version",
    "hip_runtime_version",
    "hip_driver_version",
)


def import_kineto(path: str | os.PathLike[str]) -> Trace:
    """The timed trace in a file written by torch.profiler: JSON, gzipped or not.

    The trace has one phase, 'profile', of one step. Raises InputError if the file is no such thing.
    """
    with _no_garbage_collection():
        return _import(path)


def _import(path: str | os.PathLike[str]) -> Trace:
    profile = read_kineto(path)
    name = Path(path).name.removesuffix(".gz").removesuffix(".json").removesuffix(".pt.trace")
    kernels = [kernel for kernel in profile.kernels if kernel.kind == "kernel"]
    on_gpu = bool(profile.kernels)
    launchers = {kernel.operator for kernel in profile.kernels}
    maker = OperatorMaker(profile.calls)
    operators = tuple(
        maker.operator(call, position, launches=position in launchers, on_gpu=on_gpu)
        for position, call in enumerate(profile.calls)
    )
    host = tuple(
        HostTime(call.start_us, call.duration_us, call.waiting_us, call.thread) for call in profile.calls
    )
    devices = Counter(kernel.device for kernel in kernels or profile.kernels)
    provenance = {
        "kind": "imported",
        "format": "kineto",
        "file": Path(path).name,
        "tensor_identities": "unknown: every operand counts as a tensor of its own",
        "dtypes_assumed": maker.dtypes_assumed,
        **{key: profile.header[key] for key in _VERSIONS if isinstance(profile.header.get(key), int)},
    }
    return Trace(
        workload=name,
        options={},
        phases=(Phase("profile", (Step(1, operators),)),),
        provenance=provenance,
        timing=Timing(profile.kernels, host, profile.device(devices.most_common(1)[0][0] if devices else 0)),
    )


def summary(trace: Trace) -> dict[str, Any]:
    """What a timed trace holds, in numbers.

    Kernels are kernels; copies and fills are copies. A kernel is 'with shapes' if its operator's arguments were
    recorded, and 'with tensors' if there are tensors among them: arange() has none, and of a list of tensors
    older versions of Kineto recorded none.
    """
    if trace.timing is None:
        raise InputError(f"the trace of {trace.workload} has no times: it was recorded, not measured")
    operators = list(trace.operators())
    kernels = [kernel for kernel in trace.timing.kernels if kernel.kind == "kernel"]
    copies = [kernel for kernel in trace.timing.kernels if kernel.kind != "kernel"]
    shaped = [k for k in kernels if k.operator is not None and has_shapes(operators[k.operator])]
    by_category: dict[str, float] = defaultdict(float)
    for kernel in kernels:
        by_category["none" if kernel.operator is None else operators[kernel.operator].category] += (
            kernel.duration_us
        )
    working = [operator for operator in operators if not operator.is_view]
    busy, span = busy_us(trace.timing.kernels)
    return {
        "workload": trace.workload,
        "device": trace.timing.device.get("name"),
        "operators": len(operators),
        "operators_with_kernels": len({k.operator for k in trace.timing.kernels if k.operator is not None}),
        "operators_without_shapes": sum(not has_shapes(operator) for operator in working),
        "operators_without_outputs": sum(not operator.outputs for operator in working),
        "kernels": len(kernels),
        "kernel_time_us": math.fsum(kernel.duration_us for kernel in kernels),
        "kernels_with_shapes": len(shaped),
        "kernel_time_with_shapes_us": math.fsum(kernel.duration_us for kernel in shaped),
        "kernels_with_tensors": sum(
            k.operator is not None and bool(operators[k.operator].inputs) for k in kernels
        ),
        "kernels_without_operator": sum(kernel.operator is None for kernel in kernels),
        "copies": len(copies),
        "copy_time_us": math.fsum(kernel.duration_us for kernel in copies),
        "gpu_span_us": span,
        "gpu_busy_us": busy,
        "gpu_idle_us": round(span - busy, 3),
        "streams": len({(kernel.device, kernel.stream) for kernel in trace.timing.kernels}),
        "kernel_time_by_category_us": dict(sorted(by_category.items(), key=lambda item: -item[1])),
    }


def has_shapes(operator: Operator) -> bool:
    """Whether what the operator worked on is known."""
    return operator.attributes.get("shapes_recorded", True) is not False


def busy_us(kernels: tuple[TimedKernel, ...]) -> tuple[float, float]:
    """How long any kernel or copy ran, counting overlapping ones once, and from the first start to the last end."""
    busy, end, first = 0.0, -math.inf, math.inf
    for kernel in sorted(kernels, key=lambda kernel: kernel.start_us):
        first = min(first, kernel.start_us)
        busy += max(kernel.end_us - max(kernel.start_us, end), 0.0)
        end = max(end, kernel.end_us)
    return (round(busy, 3), round(end - first, 3)) if kernels else (0.0, 0.0)


# ---- the file


@dataclass(slots=True)
class Profile:
    """A Kineto file: the operators that count, in order of time, and everything the GPU ran."""

    header: dict[str, Any]
    calls: list[Call]
    kernels: tuple[TimedKernel, ...]

    def device(self, number: int) -> dict[str, Any]:
        """Facts of a GPU, under simtti's names."""
        listed = self.header.get("deviceProperties")
        devices = [facts for facts in listed if isinstance(facts, dict)] if isinstance(listed, list) else []
        for facts in devices:
            # A file of one process may number its only GPU as the machine does.
            if facts.get("id") == number or len(devices) == 1:
                return {
                    ours: facts[theirs]
                    for ours, theirs in DEVICE_FACTS.items()
                    if isinstance(facts.get(theirs), (str, int))
                }
        return {}


def read_kineto(path: str | os.PathLike[str], *, may_be_empty: bool = False) -> Profile:
    """Operators and kernels of a file, tied to each other. Times count from its first event.

    may_be_empty: a file without any is one, too.
    """
    path = Path(path)
    reader = Reader(path, may_be_empty)
    try:
        events = reader.events()
        return _profile(path, reader.header, events)
    except FileError as error:
        raise InputError(f"{path} {error}") from None
    except KeyError as error:
        raise InputError(f"{path}: an event of torch.profiler's lacks the field {error.args[0]!r}") from None
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{path}: an event of torch.profiler's has a field of the wrong type: {reason}"
        ) from None


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Half the time of an import would go into looking for cycles among a million new objects that have none."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


# ---- operators and their kernels


@dataclass(slots=True)
class _Frame:
    """What the host is inside of: an operator, or a module."""

    end: float
    kind: str
    module: str
    owner: Call | None  # the operator that counts
    call: Call | None  # the innermost operator, counting or not


@dataclass(slots=True)
class _Launch:
    call: Call | None
    start: float
    duration: float


@dataclass(slots=True)
class _Nesting:
    """Which operators count, and where each launch lies."""

    kept: list[Call] = field(default_factory=list)
    launches: dict[int, _Launch] = field(default_factory=dict)
    by_external_id: dict[int, Call] = field(default_factory=dict)
    order: dict[int, int] = field(default_factory=dict)


def _profile(path: Path, header: dict[str, Any], events: list[tuple[str, dict[str, Any]]]) -> Profile:
    base = min((float(event["ts"]) for _, event in events), default=0.0)
    nesting = _Nesting()
    threads: dict[tuple[str, str], list[tuple[float, float, int, str, dict[str, Any]]]] = defaultdict(list)
    on_gpu = []
    for order, (kind, event) in enumerate(events):
        start, duration = float(event["ts"]), float(event["dur"])
        if not (math.isfinite(start) and math.isfinite(duration) and duration >= 0):
            raise ValueError(f"ts {event['ts']!r}, dur {event['dur']!r}")
        if kind in (KERNEL, MEMCPY, MEMSET):
            on_gpu.append((kind, event))
        else:
            threads[(str(event["pid"]), str(event["tid"]))].append((start, -duration, order, kind, event))
    for (_, thread), rows in threads.items():
        rows.sort(key=lambda row: row[:3])
        _walk(rows, int(thread) if thread.lstrip("-").isdigit() else 0, base, nesting)

    tied = [_tie(kind, event, base, nesting) for kind, event in on_gpu]
    rows_of = sorted(
        nesting.kept, key=lambda call: (call.start_us, -call.duration_us, nesting.order[id(call)])
    )
    for row, call in enumerate(rows_of):
        call.row = row
    tied.sort(key=lambda pair: pair[0].start_us)
    kernels = tuple(kernel if call is None else _with_operator(kernel, call.row) for kernel, call in tied)
    return Profile(header, rows_of, kernels)


def _walk(
    rows: list[tuple[float, float, int, str, dict[str, Any]]], thread: int, base: float, nesting: _Nesting
) -> None:
    """Go through what one thread did, in order, and keep the operators that count."""
    stack: list[_Frame] = []
    for start, negative, order, kind, event in rows:
        while stack and stack[-1].end <= start and (stack[-1].end < start or stack[-1].kind != MODULE):
            stack.pop()
        above = stack[-1] if stack else None
        owner = above.owner if above else None
        module = above.module if above else ""
        if kind == LAUNCH:
            arguments = event.get("args") or {}
            launch = _Launch(owner or (above.call if above else None), start, -negative)
            if "correlation" in arguments:
                nesting.launches[arguments["correlation"]] = launch
            if owner and _WAITS.match(event["name"]):
                owner.waiting_us += launch.duration
            continue
        if kind == MODULE:
            name = event["name"][len("nn.Module: ") :]
            path = f"{module}.{name}" if module else name
            stack.append(_Frame(start - negative, kind, path, owner, above.call if above else None))
            continue
        name = event["name"]
        arguments = event.get("args") or {}
        call = Call(name, round(start - base, 3), -negative, thread, module, arguments)
        nesting.order[id(call)] = order
        if owner is None and not gives_way(name):
            owner = call
            nesting.kept.append(call)
        elif owner is not None and not owner.backend and name[6:] in ATTENTION_BACKENDS:
            owner.backend = ATTENTION_BACKENDS[name[6:]]
        external = arguments.get("External id", arguments.get("external id"))
        if external is not None:
            nesting.by_external_id[external] = owner or call
        stack.append(_Frame(start - negative, kind, module, owner, call))


def _tie(kind: str, event: dict[str, Any], base: float, nesting: _Nesting) -> tuple[TimedKernel, Call | None]:
    """A kernel, and the operator that launched it. An operator that had given way counts if it launches one."""
    arguments = event.get("args") or {}
    correlation = arguments.get("correlation", 0)
    launch = nesting.launches.get(correlation) if correlation else None
    start = float(event["ts"])
    if launch is not None:
        call = launch.call
    else:
        call = nesting.by_external_id.get(arguments.get("External id", arguments.get("external id", -1)))
        if call is not None and call.start_us > start - base:
            call = None
    if call is not None and call.row == -1:
        call.row = 0  # decided: met before
        if gives_way(call.name):
            nesting.kept.append(call)
    if (
        launch is not None
        and call is not None
        and kind == MEMCPY
        and "Pageable" in event["name"]
        and "DtoH" in event["name"]
    ):
        call.waiting_us += launch.duration
    grid, block = arguments.get("grid"), arguments.get("block")
    stream = arguments.get("stream", 0)
    kernel = TimedKernel(
        name=str(event["name"]),
        start_us=round(start - base, 3),
        duration_us=float(event["dur"]),
        kind=kind,
        device=int(arguments.get("device", 0)),
        stream=int(stream) if stream not in ("", None) else 0,
        correlation=int(correlation),
        launch_us=None if launch is None else round(launch.start - base, 3),
        launch_duration_us=None if launch is None else launch.duration,
        grid=None if grid is None else (int(grid[0]), int(grid[1]), int(grid[2])),
        block=None if block is None else (int(block[0]), int(block[1]), int(block[2])),
        registers=_whole(arguments.get("registers per thread")),
        shared_memory_bytes=_whole(arguments.get("shared memory")),
        nbytes=_whole(arguments.get("bytes")),
    )
    return kernel, call


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)


def _with_operator(kernel: TimedKernel, row: int) -> TimedKernel:
    object.__setattr__(kernel, "operator", row)  # not shared yet; replace() would cost as much as the rest
    return kernel
