"""One design, evaluated in full: every workload of the mix simulated, and the figures that follow."""

from __future__ import annotations

import functools
import gc
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from simtti.errors import InputError
from simtti.explore.design import Design, make
from simtti.explore.spec import Spec, Workload, parse
from simtti.hw_configs.hosts import load_host
from simtti.simulator.closed_form import RESOURCES, bottleneck
from simtti.simulator.engine.simulation import simulate_many
from simtti.simulator.policy import Policy
from simtti.simulator.result import Result
from simtti.simulator.several_gpus import degrees_of, simulate_on
from simtti.simulator.time_of_run import HOST_IDLE, LAUNCH_GAP
from simtti.simulator.uncertainty.draws import Draws
from simtti.workloads.record import workload_trace
from simtti.workloads.trace import Trace

# What time can be limited by, as `limits` names it.
FIDELITY = "closed"  # designs are many, and nothing overlaps on one GPU
LIMITS = (*RESOURCES, "latency", LAUNCH_GAP, HOST_IDLE)


def evaluate(spec_json: str, values: Mapping[str, float], with_limits: bool = False) -> dict[str, Any]:
    """The figures of the design with `values`; `error`, the reason, where it has none.

    spec_json: the spec; what a process reads for it is kept, so that the next design of it costs the simulation only.
    with_limits: add `limits`, seconds by (workload, category, what limits them), and `draws`, what each objective may turn out as:
    draws of designs of one spec go together (`simulator.uncertainty.draws`). An objective that is sure (area, cost) has none.
    """
    (found,) = evaluate_many(spec_json, [values], with_limits)
    return found


def evaluate_many(
    spec_json: str, each: Sequence[Mapping[str, float]], with_limits: bool = False
) -> list[dict[str, Any]]:
    """`evaluate` of several designs side by side, which takes less."""
    spec, traces = _prepared(spec_json)
    designs = [_made(spec, values) for values in each]
    sound = [design for design in designs if isinstance(design, Design)]
    runs: list[list[_Ran | InputError]] = [[] for _ in sound]
    for item, trace in zip(spec.workloads, traces, strict=True):
        for number, result in _run(sound, item, trace):
            runs[number].append(result if isinstance(result, InputError) else _ran(result, with_limits))
    runs_of = iter(runs)
    return [
        {"error": str(design)}
        if isinstance(design, InputError)
        else _found(spec, traces, design, next(runs_of))
        for design in designs
    ]


def _made(spec: Spec, values: Mapping[str, float]) -> Design | InputError:
    try:
        return make(spec.base, values)
    except InputError as error:
        return error


class _Ran(NamedTuple):
    """What is kept of a workload's result; the last two are asked for with the limits."""

    figures: Mapping[str, Any]
    limits: Mapping[tuple[str, str], float] | None
    draws: Draws | None


def _ran(result: Result, with_limits: bool) -> _Ran:
    return _Ran(result.figures(), *((limits(result), result.draws) if with_limits else (None, None)))


def _found(
    spec: Spec, traces: Sequence[Trace], design: Design, runs: Sequence[_Ran | InputError]
) -> dict[str, Any]:
    ran = [each for each in runs if isinstance(each, _Ran)]
    try:
        if len(ran) < len(runs):
            raise next(each for each in runs if isinstance(each, InputError))
        found = _figures(design, spec, traces, ran)
    except InputError as error:
        return {"error": str(error)}
    if ran[0].limits is not None:
        found["limits"] = [
            [item.label, category, limit, seconds]
            for item, one in zip(spec.workloads, ran, strict=True)
            for (category, limit), seconds in sorted((one.limits or {}).items())
        ]
        drawn = _drawn(spec, [one.draws for one in ran if one.draws], found)
        found["draws"] = {name: drawn[name].tolist() for name in spec.objectives if name in drawn}
    return found


@functools.lru_cache(maxsize=4)
def _prepared(spec_json: str) -> tuple[Spec, list[Trace]]:
    import json

    spec = parse(json.loads(spec_json))
    traces = [_trace(item) for item in spec.workloads]
    collect_seldom()
    return spec, traces


# New objects before Python looks through them for cycles: a design makes fewer, nearly all of which are gone when it is done.
_NEW_OBJECTS = 200_000


def collect_seldom() -> None:
    """Have Python look for cycles of objects seldom, and not among those that are there: traces are large and stay, and a design leaves
    no cycles behind. By default the search takes a sixth of a design's time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, 50, 100)


def _trace(item: Workload) -> Trace:
    options = {
        name: getattr(item, name)
        for name in ("batch", "steps", "height", "width", "frames", "prompt_tokens", "dtype")
        if getattr(item, name) is not None
    }
    return workload_trace(item.workload, **options)


def _run(
    designs: Sequence[Design], item: Workload, trace: Trace
) -> Iterator[tuple[int, Result | InputError]]:
    """A workload on each design: the design's number, and what became of it."""
    policy = Policy(attention=item.attention, launch=item.launch)
    hosts = [load_host(item.host).faster(design.host_speed) for design in designs]
    alone = [number for number, design in enumerate(designs) if design.gpus == 1]
    devices = [designs[number].hardware for number in alone]
    for at, result in simulate_many(trace, devices, [hosts[number] for number in alone], policy, FIDELITY):
        yield alone[at], result
    for number, (design, host) in enumerate(zip(designs, hosts, strict=True)):
        if design.gpus > 1:
            try:
                degrees = degrees_of(design.gpus, None, None, design.hardware)
                yield number, simulate_on(degrees, trace, design.hardware, host, policy, FIDELITY)
            except InputError as error:
                yield number, error


def _figures(design: Design, spec: Spec, traces: Sequence[Trace], runs: Sequence[_Ran]) -> dict[str, Any]:
    latency_s = energy_j = outputs = power_w = 0.0
    peak, fits = 0, True
    found: dict[str, Any] = {}
    for item, trace, (figures, *_) in zip(spec.workloads, traces, runs, strict=True):
        found[f"latency_s.{item.label}"] = figures["latency_s"]
        latency_s += item.weight * figures["latency_s"]
        energy_j += item.weight * figures["energy_j"]
        outputs += item.weight * _outputs(item, trace)
        power_w = max(power_w, figures["average_w"])
        peak = max(peak, figures["peak_memory_bytes"] or 0)
        fits = fits and figures["fits"] is not False
    throughput = outputs / latency_s
    area_mm2, cost_usd = design.chip.area_mm2 * design.gpus, design.chip.cost_usd * design.gpus
    return {
        "latency_s": latency_s,
        "throughput_per_s": throughput,
        "energy_j": energy_j,
        "energy_j_per_output": energy_j / outputs,
        "power_w": power_w,
        "area_mm2": area_mm2,
        "die_mm2": design.chip.die_mm2,
        "cost_usd": cost_usd,
        "die_yield": design.chip.yielded,
        "peak_memory_bytes": peak,
        "perf_per_w": throughput / power_w,
        "perf_per_mm2": throughput / area_mm2,
        "perf_per_usd": throughput / cost_usd,
        **found,
        "fits_memory": fits,
    }


def _drawn(spec: Spec, draws: Sequence[Draws], figures: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The figures of a design that are not sure, by draw. power_w: the prediction's, in proportion to energy over time."""
    each = {f"latency_s.{item.label}": own.latency_s for item, own in zip(spec.workloads, draws, strict=True)}
    latency_s = sum(item.weight * each[f"latency_s.{item.label}"] for item in spec.workloads)
    energy_j = sum(item.weight * own.energy_j for item, own in zip(spec.workloads, draws, strict=True))
    slower, hungrier = latency_s / figures["latency_s"], energy_j / figures["energy_j"]
    hotter = hungrier / slower
    by = {
        "latency_s": slower, "energy_j": hungrier, "energy_j_per_output": hungrier, "power_w": hotter, "throughput_per_s": 1 / slower,
        "perf_per_mm2": 1 / slower, "perf_per_usd": 1 / slower, "perf_per_w": 1 / (slower * hotter),
    }  # fmt: skip
    return each | {name: figures[name] * factor for name, factor in by.items()}


def _outputs(item: Workload, trace: Trace) -> float:
    """Images, videos, or seconds of video of one inference."""
    batch = float(trace.options.get("batch") or 1)
    if item.frames_per_second is None:
        return batch
    frames = trace.options.get("frames")
    if not frames:
        raise InputError(f"workload {item.label!r} makes no video; it has no frames_per_second")
    return batch * float(frames) / item.frames_per_second


def limits(result: Result) -> dict[tuple[str, str], float]:
    """Seconds of an inference by category and by what limits them (`kernel.bottleneck`); launches and the host are their
    own."""
    seconds: dict[tuple[str, str], float] = defaultdict(float)
    for interval, times in result.distinct_kernels:
        limit = bottleneck(interval.busy, interval.duration_s)
        seconds[result.rows[interval.operator][0].category, limit] += interval.duration_s * times
    for category in (LAUNCH_GAP, HOST_IDLE):
        if result.breakdown.get(category):
            seconds[category, category] = result.breakdown[category]
    return dict(seconds)
