"""Captures a workload's trace with times: the modules that `record` runs on the meta device, on a real one.

    trace = capture("stable-diffusion-1.5", device="cuda", batch=2)
    trace.timing.kernels[0].duration_us

Weights are random, which changes no shape and hardly a time. The workload's builder runs several times: once to warm
up, then for clean times without a profiler (`timing.end_to_end`), and once with each step under torch.profiler. The
operators are those that `record` gives; what the profiler saw is laid beside them in order, and
`provenance["capture"]` counts what found its place. Where something did not, its kernels are kept without an operator.

Of steps that are alike one is run and kept with its count, as in a recording; with `all_steps` each is run, on what the
one before left, and is a step of its own: every denoising step, every token with its own length of the cache, every tile
and chunk of frames in its turn. All denoising steps are of the sampler's steady state, as the recorded one is: a multistep
sampler's first and last ones, which have a few elementwise operators less, are left out. So the operators are those of a
recording, each step as often as it counts; only where a recording lets one length stand for a block of them (Parti,
LLaMA2) has each its own. Steps that do the same share their operands, so that a file hardly grows but for the times.

Tried: on a CPU, where there are host times and no kernels. Of Stable Diffusion 1.5 (64x64, fp32, torch 2.13) all 2,846
operators that ran are recorded ones; 12 of the 2,858 recorded did not run: a CPU does not copy the prompts to itself,
and its GroupNorm takes channels_last as it is. Not yet tried on a GPU: reading kernels is tested with profiles that
other people made on H100, A100, B200 and V100, but CUDA events and the choice of attention kernels are not. Each clean
time is of another run of the builder. Each step is under a profile of its own, and the next one's times begin where it
ends: what a profiler takes to start and to write its file is not in the trace.
"""

from __future__ import annotations

import dataclasses
import gc
import os
import statistics
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Any

from simtti.errors import InputError, unknown
from simtti.workloads.catalogue import Options, Workload, find
from simtti.workloads.device_run import DeviceRun, StepRun, Watch, profiled, timed, torch_profiler, unwatched
from simtti.workloads.kineto import Profile
from simtti.workloads.kineto_calls import Call
from simtti.workloads.record import quiet, record
from simtti.workloads.trace import HostTime, Phase, TimedKernel, Timing, Trace

DEVICES = ("cuda", "cpu")
# torch's backends of scaled-dot-product attention, in order; MATH where no fused kernel takes the operands.
ATTENTION = {
    "flash": ("FLASH_ATTENTION", "EFFICIENT_ATTENTION", "MATH"),
    "efficient": ("EFFICIENT_ATTENTION", "MATH"),
    "math": ("MATH",),
}


def capture(
    name: str,
    *,
    device: str = "cuda",
    attention: str = "flash",
    all_steps: bool = False,
    repeats: int = 5,
    **options: Any,
) -> Trace:
    """Run a workload on a device and return its trace with times. Options are those of `record`.

    attention: the kernels of scaled-dot-product attention: 'flash', 'efficient', or 'math' with the score matrix in
        memory, in fp32.
    all_steps: run every step, not one of those that are alike.
    repeats: how many clean times to take; their median counts.

    Raises:
        InputError: no such workload, device or option; no torch or no GPU; not enough memory.
    """
    workload = find(name)
    chosen = workload.options(**options)
    if device not in DEVICES:
        raise unknown("device to capture on", device, DEVICES)
    if attention not in ATTENTION:
        raise unknown("attention", attention, ATTENTION)
    if repeats < 1:
        raise InputError(f"repeats is {repeats!r}; it must be a whole number of at least 1")
    _check_device(workload, device)
    recorded = record(name, all_steps=all_steps, **options)
    with quiet():
        runs = _runs(workload, chosen, device, attention, all_steps, repeats)
    return _timed(recorded, runs, device, attention)


def _check_device(workload: Workload, device: str) -> None:
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # torch reads it when loaded: no log lines on the terminal
    try:
        import torch
    except ImportError:
        return  # record() says how to install it
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError(
            f"capturing {workload.name} needs a CUDA GPU, and torch {torch.__version__} finds none here "
            "(--device cpu captures host times alone; simtti record needs no GPU)"
        )


# ---- running


@dataclass
class _Runs:
    clean: list[DeviceRun]
    profiled: DeviceRun


def _runs(
    workload: Workload, options: Options, device: str, attention: str, all_steps: bool, repeats: int
) -> _Runs:
    """Warm up, time, profile."""
    import torch

    def run(watch: Watch) -> DeviceRun:
        return _run(workload, options, DeviceRun(device, watch, all_steps=all_steps), attention)

    try:
        run(unwatched)
        clean = [run(timed) for _ in range(repeats)]
        with torch_profiler(device):  # the first one loads CUPTI, which takes seconds
            torch.zeros(1, device=device)
        return _Runs(clean, run(profiled))
    except torch.cuda.OutOfMemoryError as error:
        reason = str(error).partition(". ")[0]
        raise InputError(f"capturing {workload.name} ran out of the GPU's memory: {reason}") from None


def _run(workload: Workload, options: Options, run: DeviceRun, attention: str) -> DeviceRun:
    """Run the builder once on a device."""
    import torch

    gc.collect()  # the run before may have left its weights in cycles
    on_gpu = run.device.type == "cuda"
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    with _attention_kernels(attention):
        workload.builder(options, run)
    if on_gpu:
        run.peak_memory_bytes = torch.cuda.max_memory_allocated()
    return run


@contextmanager
def _attention_kernels(attention: str) -> Iterator[None]:
    """The kernels of torch's scaled-dot-product attention; unfused ones multiply in the operands' own dtype, not in fp32."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    settings = torch.backends.cuda
    allow = getattr(settings, "allow_fp16_bf16_reduction_math_sdp", None)  # since torch 2.5
    before = allow is not None and settings.fp16_bf16_reduction_math_sdp_allowed()
    with ExitStack() as stack:
        if allow is not None:
            stack.callback(allow, before)
            allow(True)
        stack.enter_context(sdpa_kernel([getattr(SDPBackend, backend) for backend in ATTENTION[attention]]))
        yield


# ---- laying times beside operators


def _timed(recorded: Trace, runs: _Runs, device: str, attention: str) -> Trace:
    """The recorded trace with the times of the runs."""
    watched: dict[str, list[StepRun]] = defaultdict(list)
    for run_step in runs.profiled.done:
        watched[run_step.phase].append(run_step)
    pairs = [pair for phase in recorded.phases for pair in zip_longest(phase.steps, watched[phase.name])]
    host: list[HostTime | None] = []
    kernels: list[TimedKernel] = []
    counts = {"operators": 0, "profiled": 0, "matched": 0}
    shifts = _shifts_us([run_step.profile for run_step in runs.profiled.done if run_step.profile])
    for step, watched_step in pairs:
        operators = step.operators if step else ()
        first = len(host)
        host += [None] * len(operators)
        counts["operators"] += len(operators)
        profile = watched_step.profile if watched_step else None
        if profile is None:
            continue
        shift = shifts[id(profile)]
        rows = match([operator.op for operator in operators], [call.name for call in profile.calls])
        counts["profiled"] += len(profile.calls)
        counts["matched"] += len(rows)
        for number, call in enumerate(profile.calls):
            if number in rows:
                start = round(call.start_us + shift, 3)
                host[first + rows[number]] = HostTime(start, call.duration_us, call.waiting_us, call.thread)
        for kernel in profile.kernels:
            row = rows.get(kernel.operator) if kernel.operator is not None else None
            kernels.append(
                dataclasses.replace(
                    kernel,
                    operator=None if row is None else first + row,
                    start_us=round(kernel.start_us + shift, 3),
                    launch_us=None if kernel.launch_us is None else round(kernel.launch_us + shift, 3),
                )
            )
    kernels.sort(key=lambda kernel: kernel.start_us)
    return dataclasses.replace(
        recorded,
        timing=Timing(tuple(kernels), tuple(host), _facts(device), _end_to_end(recorded.phases, runs)),
        provenance={
            **recorded.provenance,
            "kind": "measured",
            "device": device,
            "attention": attention,
            "date": datetime.now(timezone.utc).date().isoformat(),
            "capture": counts,
        },
    )


def match(recorded: list[str], profiled: list[str]) -> dict[int, int]:
    """Which recorded operator each profiled one is: both are in order, and mostly the same.

    >>> match(["aten::view", "aten::addmm", "aten::relu"], ["aten::view", "aten::zeros", "aten::addmm", "aten::relu_"])
    {0: 0, 2: 1, 3: 2}
    """
    recorded, profiled = [_alike(name) for name in recorded], [_alike(name) for name in profiled]
    if recorded == profiled:
        return {i: i for i in range(len(recorded))}
    blocks = SequenceMatcher(None, recorded, profiled, autojunk=False).get_matching_blocks()
    return {block.b + i: block.a + i for block in blocks for i in range(block.size)}


def _alike(name: str) -> str:
    """A name for what is the same work: under a recorder, torch avoids in-place forms and this view's own name."""
    return "aten::view" if name == "aten::_reshape_alias" else name.rstrip("_")


def _shifts_us(profiles: list[Profile]) -> dict[int, float]:
    """By the id of each profile what to add to its times, so that each begins where the one before ends."""
    shifts: dict[int, float] = {}
    now_us = 0.0
    for profile in profiles:
        events: list[Call | TimedKernel] = [*profile.calls, *profile.kernels]
        first_us = min((event.start_us for event in events), default=0.0)
        shifts[id(profile)] = now_us - first_us
        now_us += max((event.start_us + event.duration_us for event in events), default=0.0) - first_us
    return shifts


def _end_to_end(phases: tuple[Phase, ...], runs: _Runs) -> dict[str, Any]:
    """Times without the profiler, a step and in all, and with it, so that its overhead is known."""
    steps: list[dict[str, Any]] = []
    for number, under in enumerate(runs.profiled.done):
        clean = [run.done[number] for run in runs.clean]
        seconds = [step.seconds for step in clean]
        steps.append(
            {
                "phase": under.phase,
                "count": under.count,
                "clean_s": statistics.median(seconds),
                "clean_min_s": min(seconds),
                "clean_max_s": max(seconds),
                "host_s": statistics.median(step.host_seconds for step in clean),
                "profiled_s": under.seconds,
            }
        )
    counts = [step.count for phase in phases for step in phase.steps]
    if len(counts) == len(steps):  # a count may be known only after the step: of tiles that turn out alike
        order = {phase.name: number for number, phase in enumerate(phases)}
        steps.sort(key=lambda step: order[step["phase"]])
        for step, count in zip(steps, counts, strict=True):
            step["count"] = count
    return {
        "latency_s": sum(step["clean_s"] * step["count"] for step in steps),
        "peak_memory_bytes": max(run.peak_memory_bytes for run in runs.clean),
        "repeats": len(runs.clean),
        "steps": steps,
    }


def _facts(device: str) -> dict[str, Any]:
    """Facts of the device, with the versions that made its kernels."""
    import platform

    import torch

    if device == "cpu":
        return {"name": platform.processor() or platform.machine(), "torch": torch.__version__}
    found = torch.cuda.get_device_properties(0)
    facts = {
        "name": found.name,
        "sm_count": found.multi_processor_count,
        "memory_bytes": found.total_memory,
        "compute_major": found.major,
        "compute_minor": found.minor,
        "l2_bytes": getattr(found, "L2_cache_size", None),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "host": platform.processor() or platform.machine(),
    }
    return {name: value for name, value in facts.items() if value is not None}
