"""Imports Kineto traces: the Chrome JSON that torch.profiler writes, as a timed Trace.

    trace = import_kineto("profile.json.gz")
    summary(trace)["kernel_time_us"]

Operators are kept at the level at which `record` sees them: composite ones (aten::linear, aten::matmul, aten::to)
give way to what they call, and what lies below the rest is part of them; scaled-dot-product attention stays whole.
A kernel belongs to the operator around the host's call that launched it, which Kineto ties to the kernel by a
correlation id. Nothing that the GPU did is dropped: a kernel whose launch lies in no operator is kept without one.

A file may hold several iterations and several GPUs (`kineto_parts`): a trace is one iteration on one of them. What of a file makes
no sense is left out, counted, and said in the trace's provenance.

Kineto says what each argument looked like, where shapes were recorded; `simtti.workloads.kineto_calls` makes operators of it.
"""

from __future__ import annotations

import gc
import math
import os
import re
import sys
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from simtti.errors import InputError
from simtti.words import plain
from simtti.workloads.aten import ATTENTION_BACKENDS, gives_way
from simtti.workloads.kineto_calls import Call, OperatorMaker
from simtti.workloads.kineto_events import LAUNCH, MEMCPY, MODULE, ON_GPU, STEP, Events
from simtti.workloads.kineto_fields import extent, size, whole
from simtti.workloads.kineto_file import STEP_NAME, FileError, Progress, Reader, in_time
from simtti.workloads.kineto_parts import Iteration, Launches, chosen
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


def import_kineto(
    path: str | os.PathLike[str],
    *,
    device: int | None = None,
    step: int | str | None = None,
    progress: Progress = lambda done, total: None,
) -> Trace:
    """The timed trace in a file written by torch.profiler: JSON, as it is or packed.

    The trace has one phase, 'profile', of one step. Its provenance says what was left out of the file (`left_out`, counts by
    reason), mended (`remarks`), and which of its iterations it is (`profiler_step` of `profiler_steps`).

    Args:
        device: the GPU, by its number; needed where the file holds several.
        step: the number of a ProfilerStep, or 'all' for everything in the file as one inference; where the file holds several, the
            last of those with the usual number of kernels if None.
        progress: called with (bytes read, bytes of the file).

    Raises:
        InputError: no such file, none of torch.profiler's, no such step or GPU, or several GPUs and none chosen.
    """
    with _no_garbage_collection():
        return _import(path, device, step, progress)


def _import(
    path: str | os.PathLike[str], device: int | None, step: int | str | None, progress: Progress
) -> Trace:
    profile = read_kineto(path, progress=progress)
    try:
        part = chosen(profile.calls, profile.kernels, profile.processes, profile.iterations, device, step)
    except FileError as error:
        raise InputError(f"{path} {error}") from None
    calls, timed = part.calls, part.kernels
    name = plain(Path(path).name).removesuffix(".gz").removesuffix(".json").removesuffix(".pt.trace")
    kernels = [kernel for kernel in timed if kernel.kind == "kernel"]
    on_gpu = bool(timed)
    launchers = {kernel.operator for kernel in timed}
    maker = OperatorMaker(calls)
    operators = tuple(
        maker.operator(call, position, launches=position in launchers, on_gpu=on_gpu)
        for position, call in enumerate(calls)
    )
    host = tuple(HostTime(call.start_us, call.duration_us, call.waiting_us, call.thread) for call in calls)
    devices = Counter(kernel.device for kernel in kernels or timed)
    provenance = {
        "kind": "imported",
        "format": "kineto",
        "file": plain(Path(path).name),
        "tensor_identities": "unknown: every operand counts as a tensor of its own",
        "dtypes_assumed": maker.dtypes_assumed,
        **{key: profile.header[key] for key in _VERSIONS if isinstance(profile.header.get(key), int)},
        "left_out": {**profile.left_out, **maker.left_out},
        "remarks": [*profile.remarks, *part.remarks],
        **part.facts,
    }
    return Trace(
        workload=name,
        options={},
        phases=(Phase("profile", (Step(1, operators),)),),
        provenance=provenance,
        timing=Timing(timed, host, profile.device(devices.most_common(1)[0][0] if devices else 0)),
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
        "profiler_step": trace.provenance.get("profiler_step"),
        "profiler_steps": trace.provenance.get("profiler_steps"),
        "left_out": trace.provenance.get("left_out", {}),
        "remarks": trace.provenance.get("remarks", []),
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
    """A Kineto file: the operators that count, in order of time, and everything the GPU ran.

    processes: of each kernel, the host process that launched it; None where that is not known. iterations: the profiler's steps.
    left_out, remarks: see `kineto_file.Reader`.
    """

    header: dict[str, Any]
    calls: list[Call]
    kernels: tuple[TimedKernel, ...]
    processes: tuple[str | None, ...] = ()
    iterations: tuple[Iteration, ...] = ()
    left_out: dict[str, int] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

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


def read_kineto(
    path: str | os.PathLike[str],
    *,
    may_be_empty: bool = False,
    progress: Progress = lambda done, total: None,
) -> Profile:
    """Operators and kernels of a file, tied to each other. Times count from its first event.

    may_be_empty: a file without any is one, too.

    Raises:
        InputError: no such file, or none of torch.profiler's.
    """
    path = Path(path)
    reader = Reader(path, may_be_empty, progress)
    try:
        events = in_time(reader.events(), reader.left_out)
        if not len(events) and not may_be_empty:
            raise FileError("holds no event with a time")
        return _profile(events, reader)
    except FileError as error:
        raise InputError(f"{path} {error}") from None


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


class _Launch(NamedTuple):
    call: Call | None
    start: float
    duration: float
    process: str
    order: int


@dataclass(slots=True)
class _Nesting:
    """Which operators count, and where each launch lies. External ids and correlations count within a process; only those that
    something on a GPU has are looked for, `externals` and `correlations`."""

    externals: frozenset[int]
    correlations: frozenset[int]
    kept: list[Call] = field(default_factory=list)
    launches: Launches[_Launch] = field(default_factory=lambda: Launches[_Launch]())
    by_external_id: dict[int, dict[str, Call]] = field(default_factory=dict)

    def with_external_id(self, number: int, process: str | None) -> Call | None:
        """The operator of that external id: of the process, or the only one where the process is not known."""
        found = self.by_external_id.get(number, {})
        if process is None and len(found) == 1:
            return next(iter(found.values()))
        return found.get(process or "")


def _profile(events: Events, reader: Reader) -> Profile:
    base = min(events.start, default=0.0)
    threads: dict[tuple[str, str], array[int]] = defaultdict(lambda: array("q"))
    on_gpu, iterations = array("q"), []
    for number in range(len(events)):
        kind = events.kind(number)
        if kind in ON_GPU:
            on_gpu.append(number)
        elif kind == STEP:
            name = events.name(number)[len(STEP_NAME) :]
            if name.isdecimal() and events.duration[number] > 0:
                start = round(events.start[number] - base, 3)
                end = start + events.duration[number]
                iterations.append(Iteration(int(name), start, end, events.place(number)[0]))
        else:
            threads[events.place(number)].append(number)
    nesting = _Nesting(
        frozenset(each for number in on_gpu if (each := events.external(number)) is not None),
        frozenset(each for number in on_gpu if (each := events.correlation(number)) is not None),
    )
    for numbers in threads.values():
        _walk(events, numbers, base, nesting)
    nesting.launches.settle(
        (_gpu(events, number), events.correlation(number) or 0, events.start[number], number)
        for number in on_gpu
    )
    renumbered: dict[int, int] = {}
    tied = [_tie(events, number, base, nesting, renumbered) for number in on_gpu]
    # In order of start, then the longer first, then as in the file: sorted by one after another, which needs no key of all three.
    calls = nesting.kept
    for key in (attrgetter("order"), lambda call: -call.duration_us, attrgetter("start_us")):
        calls.sort(key=key)
    for at, call in enumerate(calls):
        call.row = at
    tied.sort(key=lambda each: each[0].start_us)
    kernels = tuple(kernel if call is None else _with_operator(kernel, call.row) for kernel, call, _ in tied)
    processes = tuple(process for _, _, process in tied)
    return Profile(
        reader.header, calls, kernels, processes, tuple(iterations), dict(reader.left_out), reader.remarks
    )


def _walk(events: Events, numbers: array[int], base: float, nesting: _Nesting) -> None:
    """Go through what one thread did, in order of time, and keep the operators that count."""
    process, name = events.place(numbers[0])
    thread = int(name) if name.lstrip("-").isdecimal() and len(name) < 19 else 0
    stack: list[_Frame] = []
    in_order = sorted(numbers, key=lambda number: -events.duration[number])
    in_order.sort(key=events.start.__getitem__)
    for number in in_order:
        start, duration, kind = events.start[number], events.duration[number], events.kind(number)
        while stack and stack[-1].end <= start and (stack[-1].end < start or stack[-1].kind != MODULE):
            stack.pop()
        above = stack[-1] if stack else None
        owner = above.owner if above else None
        module = above.module if above else ""
        name = events.name(number)
        if kind == LAUNCH:
            correlation = events.correlation(number)
            if correlation is not None:
                nesting.launches.processes.add(process)
            if correlation in nesting.correlations:
                call = owner or (above.call if above else None)
                nesting.launches.add(correlation, _Launch(call, start, duration, process, number))
            if owner and _WAITS.match(name):
                owner.waiting_us += duration
            continue
        if kind == MODULE:
            name = name[len("nn.Module: ") :]
            path = sys.intern(f"{module}.{name}" if module else name)
            stack.append(_Frame(start + duration, kind, path, owner, above.call if above else None))
            continue
        call = Call(
            name, round(start - base, 3), duration, thread, module, events.arguments(number), process=process, order=number
        )  # fmt: skip
        if owner is None and not gives_way(name):
            owner = call
            nesting.kept.append(call)
        elif owner is not None and not owner.backend and name[6:] in ATTENTION_BACKENDS:
            owner.backend = ATTENTION_BACKENDS[name[6:]]
        external = events.external(number)
        if external in nesting.externals:
            nesting.by_external_id.setdefault(external, {})[process] = owner or call
        stack.append(_Frame(start + duration, kind, module, owner, call))


def _gpu(events: Events, number: int) -> tuple[str, int]:
    """Where a kernel ran: Kineto's process (the GPU, or what a merge of several ranks made of it) and the GPU's number."""
    return events.place(number)[0], whole(events.arguments(number).get("device"), 31) or 0


def _tie(
    events: Events, number: int, base: float, nesting: _Nesting, renumbered: dict[int, int]
) -> tuple[TimedKernel, Call | None, str | None]:
    """A kernel, the operator that launched it, and the process. An operator that had given way counts if it launches one."""
    kind, name, arguments = events.kind(number), events.name(number), events.arguments(number)
    correlation, start, gpu = events.correlation(number) or 0, events.start[number], _gpu(events, number)
    launch = nesting.launches.of(gpu, correlation, start, number) if correlation else None
    process = launch.process if launch is not None else nesting.launches.process_of(gpu)
    call = launch.call if launch is not None else None
    if call is None:  # a launch whose thread is not known, or that the file lacks
        external = events.external(number)
        call = nesting.with_external_id(external, process) if external is not None else None
        if call is not None and call.start_us > start - base:
            call = None
    if call is not None and call.row == -1:
        call.row = 0  # decided: met before
        if gives_way(call.name):
            nesting.kept.append(call)
    waited = launch is not None and kind == MEMCPY and "Pageable" in name and "DtoH" in name
    if waited and launch is not None and call is not None:
        call.waiting_us += launch.duration
    if not -(2**63) <= correlation < 2**63:  # beyond what a trace file holds: a number of our own
        correlation = renumbered.setdefault(correlation, -1 - len(renumbered))
    kernel = TimedKernel(
        name=name,
        start_us=round(start - base, 3),
        duration_us=events.duration[number],
        kind=kind,
        device=gpu[1],
        stream=whole(arguments.get("stream"), 63) or 0,
        correlation=correlation,
        launch_us=None if launch is None else round(launch.start - base, 3),
        launch_duration_us=None if launch is None else launch.duration,
        grid=extent(arguments.get("grid")),
        block=extent(arguments.get("block")),
        registers=size(arguments.get("registers per thread"), 31),
        shared_memory_bytes=size(arguments.get("shared memory"), 63),
        nbytes=size(arguments.get("bytes"), 63),
    )
    return kernel, call, process


def _with_operator(kernel: TimedKernel, row: int) -> TimedKernel:
    object.__setattr__(kernel, "operator", row)  # not shared yet; replace() would cost as much as the rest
    return kernel
