"""The simulations the study consists of. Each is a point: a name and options in, plain data out, in any process."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from simtti.errors import InputError
from simtti.hw_configs.devices import load
from simtti.hw_configs.hardware import Hardware
from simtti.hw_configs.hosts import load_host
from simtti.simulator.engine.measured_kernels import measured_kernels
from simtti.simulator.engine.simulation import simulate
from simtti.simulator.policy import Policy, captured_with
from simtti.validation.study.accounting import account
from simtti.workloads.catalogue import find
from simtti.workloads.measured import capture_named
from simtti.workloads.profile import AttentionCall, attention_calls, main_phase, scaling
from simtti.workloads.trace import Trace

POLICIES = ("flash", "baseline")
DENOISER = "make-a-video-decoder"


class Point(NamedTuple):
    """kind: 'run', a workload's whole inference; 'denoiser', one pass of Make-A-Video's decoder alone; 'whole', its whole
    inference with other levels attending; 'caches', the hit rates of its attention; 'capture', a measured inference, by its name
    in place of a workload's. options: of the workload, or of the denoiser, sorted by name."""

    kind: str
    workload: str
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def key(self) -> str:
        return json.dumps(self)

    @property
    def label(self) -> str:
        options = dict(self.options)
        size = (
            [f"{options.pop('height')}x{options.pop('width')}"] if {"height", "width"} <= set(options) else []
        )
        return " ".join([self.workload, *size, *(f"{name} {value}" for name, value in options.items())])


def point(kind: str, workload: str, **options: Any) -> Point:
    return Point(
        kind, workload, tuple(sorted((name, value) for name, value in options.items() if value is not None))
    )


def measure(asked: Point, hardware: Hardware) -> dict[str, Any]:
    """What came out of a point, and the processor's time for it in seconds as cpu_s; {'error': reason} where it cannot
    be run here (a shape to record, and no torch)."""
    began_s = time.process_time()
    try:
        found = KINDS[asked.kind](asked, hardware)
    except InputError as error:
        return {"error": str(error)}
    return {**found, "cpu_s": time.process_time() - began_s}


def _run(asked: Point, hardware: Hardware) -> dict[str, Any]:
    from simtti.workloads.record import workload_trace

    return _both(workload_trace(asked.workload, **dict(asked.options)), hardware)


def _whole(asked: Point, hardware: Hardware) -> dict[str, Any]:
    return _both(attending_trace(asked.workload, dict(asked.options)["levels"]), hardware)


def attending_trace(name: str, levels: Sequence[int]) -> Trace:
    """Make-A-Video's whole inference at its default shape, decoder and interpolation attending at these levels."""
    from simtti.validation.study.denoiser import record_attending
    from simtti.workloads.record import recorded

    workload = find(name)
    options = {**workload.defaults.given(), "levels": list(levels)}
    return recorded(
        partial(record_attending, levels=tuple(levels)), workload.defaults,
        what=f"{workload.name} attending at levels {tuple(levels)}", name=workload.name, options=options,
    )  # fmt: skip


def _capture(asked: Point, hardware: Hardware) -> dict[str, Any]:
    """A measured inference, and the simulator's prediction of the same operators on the same device, whatever the study's own:
    both are accounts of kernels at the boost clock, at which a capture's single pass runs; a pass stands for its repetitions.

    baseline: with Flash Attention, what is predicted with the study's baseline in its place. unattributed: the share of the measured kernels' time, of one pass, that no operator is known to have launched.
    """
    capture = capture_named(asked.workload)
    trace = Trace.load(capture.path)
    assert trace.timing is not None
    device = replace(load(capture.device), power_limit_w=math.inf)
    host, policy = load_host("default"), captured_with(trace)
    kernels = trace.timing.kernels
    unfused = {}
    if policy.attention == "flash":
        unfused["baseline"] = account(simulate(trace, device, host, replace(policy, attention="baseline")))
    stray_us = sum(kernel.duration_us for kernel in kernels if kernel.operator is None)
    defaults = find(capture.workload).defaults.given()
    differs = {name: value for name, value in capture.options.items() if defaults.get(name) != value}
    measured = measured_kernels(trace, "measured", device, None)
    return {
        "device": capture.device,
        "model": capture.workload,
        "label": Point("run", capture.workload, tuple(sorted(differs.items()))).label,
        "options": capture.options,
        "attention": policy.attention,
        "main_phase": main_phase(trace),
        "calls": [_plain(call) for call in attention_calls(trace)],
        "unattributed": stray_us / sum(kernel.duration_us for kernel in kernels),
        "measured": account(simulate(trace, device, host, policy, measured=measured)),
        "predicted": account(simulate(trace, device, host, policy)),
        **unfused,
    }


def _denoiser(asked: Point, hardware: Hardware) -> dict[str, Any]:
    return _both(denoiser_trace(**dict(asked.options)), hardware)


def _both(trace: Trace, hardware: Hardware) -> dict[str, Any]:
    """A trace under both attention policies, and what is known of it before any hardware."""
    phase = main_phase(trace)
    host = load_host("default")
    return {
        "options": trace.options,
        "main_phase": phase,
        "calls": [_plain(call) for call in attention_calls(trace)],
        "scaling": scaling([(0, trace)])[0],
        **{name: account(simulate(trace, hardware, host, Policy(name))) for name in POLICIES},
    }


def _plain(call: AttentionCall) -> dict[str, Any]:
    return {name: getattr(call, name) for name in AttentionCall.__slots__}


def denoiser_trace(
    side: int = 64,
    frames: int = 16,
    widths: Sequence[int] = (512, 1024, 1536, 2048),
    levels: Sequence[int] = (1, 2, 3),
    batch: int = 1,
) -> Trace:
    """One pass of Make-A-Video's decoder; levels: those that attend, counted from the largest image as 0."""
    from simtti.validation.study.denoiser import record
    from simtti.workloads.record import recorded

    options = {"side": side, "frames": frames, "widths": list(widths), "levels": list(levels), "batch": batch}
    what = f"Make-A-Video's decoder ({options})"
    return recorded(record, options, what=what, name=DENOISER, options=options)


def _caches(asked: Point, hardware: Hardware) -> dict[str, Any]:
    from simtti.validation.study.l1.hit_rates import hit_rates
    from simtti.workloads.record import workload_trace

    options = dict(asked.options)
    trace = (
        denoiser_trace(**options) if asked.workload == DENOISER else workload_trace(asked.workload, **options)
    )
    return {"rows": hit_rates(trace, hardware)}


KINDS: dict[str, Callable[[Point, Hardware], dict[str, Any]]] = {
    "run": _run,
    "denoiser": _denoiser,
    "whole": _whole,
    "capture": _capture,
    "caches": _caches,
}
