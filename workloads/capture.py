"""Captures a workload's trace with times: the modules that `record` runs on the meta device, on a real one.

    trace = capture("stable-diffusion-1.5", device="cuda", batch=2)
    trace.timing.kernels[0].duration_us

Weights are random, which changes no shape and hardly a time. The workload's builder runs several times, its modules built
once: to warm up, then for clean times without a profiler (`timing.end_to_end`), once with each step under torch.profiler, and
at last in one go, without a wait after each step, for latency, energy, power and clock (`end_to_end["in_one_go"]`; NVML is
optional: `pip install 'simtti[nvml]'`). The operators are those that `record` gives; what the profiler saw is laid beside them in order, and
`provenance["capture"]` counts what found its place. Where something did not, its kernels are kept without an operator.

Of steps that are alike one is run and kept with its count, as in a recording; with `all_steps` each is run, on what the
one before left, and is a step of its own: every denoising step, every token with its own length of the cache, every tile
and chunk of frames in its turn. All denoising steps are of the sampler's steady state, as the recorded one is: a multistep
sampler's first and last ones, which have a few elementwise operators less, are left out. So the operators are those of a
recording, each step as often as it counts; only where a recording lets one length stand for a block of them (Parti,
LLaMA2) has each its own. Steps that do the same share their operands, so that a file hardly grows but for the times.

Tried on a CPU, where there are host times and no kernels, and every workload on torch's meta device, where nothing is
computed. Of Stable Diffusion 1.5 (64x64, fp32, torch 2.13) all 2,846 operators that ran are recorded ones; 12 of the 2,858
recorded did not run: a CPU does not copy the prompts to itself, and its GroupNorm takes channels_last as it is. What ships in
traces/measured was taken on an H200 with an earlier form of this, and on an H100 with this. Each clean time is of another run of the builder. Each step
is under a profile of its own, and the next one's times begin where it ends: what a profiler takes to start and to write its
file is not in the trace.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
import tempfile
from collections import defaultdict
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timezone
from difflib import SequenceMatcher
from itertools import zip_longest
from pathlib import Path
from typing import Any

from simtti.errors import InputError, unknown
from simtti.workloads.catalogue import Options, Workload, find
from simtti.workloads.device_passes import ATTENTION, UNFUSED, Found, Passes, Whole
from simtti.workloads.device_run import StepRun
from simtti.workloads.kineto import Profile
from simtti.workloads.kineto_calls import Call
from simtti.workloads.launched import check_launch
from simtti.workloads.power_meter import PowerMeter
from simtti.workloads.record import quiet, record
from simtti.workloads.trace import HostTime, Phase, TimedKernel, Timing, Trace

DEVICES = ("cuda", "cpu")
# Longer ones are not run in one go as well, unless asked for: a quarter of an hour on a GPU is short.
LONGEST_S = 30.0


def capture(
    name: str,
    *,
    device: str = "cuda",
    attention: str = "flash",
    all_steps: bool = False,
    repeats: int = 5,
    longest_s: float = LONGEST_S,
    launch: str = "eager",
    meter: PowerMeter | None = None,
    alone: AbstractContextManager[Any] | None = None,
    warms_beside: bool = False,
    **options: Any,
) -> Trace:
    """Run a workload on a device and return its trace with times. Options are those of `record`.

    attention: the kernels of scaled-dot-product attention: 'flash', 'efficient', 'baseline' (unfused, with the score matrix in
        memory, in the model's dtype), or 'math' (PyTorch's own unfused one, which computes halves in fp32).
    all_steps: run every step, not one of those that are alike.
    repeats: how many clean times to take; their median counts.
    longest_s: an inference of at most so many seconds is run in one go as well, every step of it, for its latency, energy,
        power and clock; 0: none.
    launch: how the model in the denoising loop is launched (launched.LAUNCH): 'eager', 'graph', 'compiled', 'compiled-graph'.
    meter: of power; NVML's if None.
    alone: is entered while the device is needed, and not for recording or for reading profiles: a lock on it.
    warms_beside: enter it only once the models are there, warm and compiled, which takes a minute: for where nothing is measured
        beside.

    Raises:
        InputError: no such workload, device or option; no torch or no GPU; not enough memory.
    """
    workload = find(name)
    chosen = checked(workload, device, attention, repeats, options, launch)
    check_device(device, workload.name)
    recorded = record(name, all_steps=all_steps, **options)
    passes = Passes(workload, chosen, device, attention, all_steps=all_steps, launch=launch, meter=meter)
    lock = alone or nullcontext()
    first, later = (nullcontext(), lock) if warms_beside else (lock, nullcontext())
    with quiet(), tempfile.TemporaryDirectory() as folder:
        with first:
            found = passes.run(Path(folder), repeats=repeats, longest_s=longest_s, measuring=later)
            facts = _facts(device)
        found.read()
    return laid_beside(recorded, found, facts, device, attention, launch)


def checked(
    workload: Workload,
    device: str,
    attention: str,
    repeats: int,
    options: dict[str, Any],
    launch: str = "eager",
) -> Options:
    """The options of a capture, with the defaults.

    Raises:
        InputError: as `capture`, as far as it can be known without torch.
    """
    chosen = workload.options(**options)
    if device not in DEVICES:
        raise unknown("device to capture on", device, DEVICES)
    if attention not in ATTENTION:
        raise unknown("attention", attention, ATTENTION)
    check_launch(launch)
    if repeats < 1:
        raise InputError(f"repeats is {repeats!r}; it must be a whole number of at least 1")
    return chosen


def check_device(device: str, what: str) -> None:
    """Fail before the work, not after it, where there is no GPU. what: is to be captured.

    Raises:
        InputError: there is none.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # torch reads it when loaded: no log lines on the terminal
    try:
        import torch
    except ImportError:
        return  # record() says how to install it
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError(
            f"capturing {what} needs a CUDA GPU, and torch {torch.__version__} finds none here "
            "(--device cpu captures host times alone; simtti record needs no GPU)"
        )


def has_cuda() -> bool:
    """Whether torch finds a GPU."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")
    try:
        import torch
    except ImportError:
        return False
    return bool(torch.cuda.is_available())


# ---- laying times beside operators


def laid_beside(
    recorded: Trace, found: Found, facts: dict[str, Any], device: str, attention: str, launch: str = "eager"
) -> Trace:
    """The recorded trace with the times of the passes, whose profiles have been read."""
    watched: dict[str, list[StepRun]] = defaultdict(list)
    under = found.profiled.done if found.profiled else []
    for run_step in under:
        watched[run_step.phase].append(run_step)
    pairs = [pair for phase in recorded.phases for pair in zip_longest(phase.steps, watched[phase.name])]
    host: list[HostTime | None] = []
    kernels: list[TimedKernel] = []
    counts = {"operators": 0, "profiled": 0, "matched": 0}
    shifts = _shifts_us([run_step.profile for run_step in under if run_step.profile])
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
        timing=Timing(tuple(kernels), tuple(host), facts, _end_to_end(recorded.phases, found, under)),
        provenance={
            **recorded.provenance,
            "kind": "measured",
            "device": device,
            "attention": attention,
            **({"launch": launch} if launch != "eager" else {}),
            # Says what 'baseline' means here: captures without it have PyTorch's math backend under that name.
            **({"scores": _scores_dtype(recorded, attention)} if attention in UNFUSED else {}),
            "date": datetime.now(timezone.utc).date().isoformat(),
            "capture": counts,
        },
    )


def _scores_dtype(recorded: Trace, attention: str) -> str:
    """What unfused attention keeps its score matrix in."""
    return "fp32" if attention == "math" else str(recorded.options["dtype"])


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


def _end_to_end(phases: tuple[Phase, ...], found: Found, profiled: list[StepRun]) -> dict[str, Any]:
    """Times without the profiler, a step and in all, and with it, so that its overhead is known; and the run in one go."""
    steps: list[dict[str, Any]] = []
    for number, under in enumerate(profiled):
        clean = [run.done[number] for run in found.clean]
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
        "peak_memory_bytes": max(run.peak_memory_bytes for run in found.clean),
        "repeats": len(found.clean),
        "steps": steps,
        "in_one_go": _in_one_go(found.whole),
    }


def _in_one_go(whole: Whole) -> dict[str, Any]:
    """Every step without a wait in between: one inference's latency and energy, with what the GPU said of power and clock.

    None where it was not measured; `missing` says why. energy_s: how long the counter was read over, all goes together.
    """
    draw = whole.draw
    return {
        "latency_s": whole.latency_s if draw else None,
        "outside_s": whole.outside_s if draw else None,
        "steps": whole.steps,
        "goes": whole.goes,
        "energy_j": draw.energy_j / whole.goes if draw and draw.energy_j is not None else None,
        "energy_s": draw.seconds if draw and draw.energy_j is not None else None,
        "mean_w": draw.mean_w if draw else None,
        "sm_clock_mhz": draw.sm_clock_mhz if draw else None,
        "sm_clock_min_mhz": draw.sm_clock_min_mhz if draw else None,
        "missing": draw.missing if draw else whole.missing,
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
