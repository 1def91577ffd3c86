"""What a simulation found: kernel and operator intervals, and what follows from them.

Everything printed, plotted or written comes from here. Tables are pandas DataFrames, made when asked for.
"""

from __future__ import annotations

import itertools
import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simtti.errors import InputError
from simtti.files import json_text, write_text
from simtti.hw_configs.engines import Engine
from simtti.hw_configs.hardware import Hardware
from simtti.hw_configs.hosts import Host
from simtti.simulator.as_dict import as_dict
from simtti.simulator.as_html import as_html
from simtti.simulator.attention_of_run import AttentionKernels, attention_kernels, by_kind, sequence_lengths
from simtti.simulator.closed_form import RESOURCES, bottleneck
from simtti.simulator.coverage import Coverage, without_model
from simtti.simulator.engine.outcome import (
    KernelInterval,
    OperatorInterval,
    Outcome,
    PhaseTime,
    Repetition,
)
from simtti.simulator.engine.peak_memory import Memory
from simtti.simulator.kernel_table import kernel_table
from simtti.simulator.kinds import Kinds, distinct_kernels, kinds
from simtti.simulator.lowering.lower import Lowered
from simtti.simulator.policy import Policy
from simtti.simulator.power_of_run import power_figures
from simtti.simulator.share import SeveralGPUs
from simtti.simulator.time_of_run import HOST_IDLE, LAUNCH_GAP, exposed_s, ran_by_phase, row_seconds
from simtti.simulator.timeline import chrome_trace
from simtti.simulator.uncertainty.draws import Draws, RunIntervals, run_draws, run_intervals
from simtti.workloads.trace import Operator, Trace

if TYPE_CHECKING:
    import pandas as pd


_TEXT_ENCODER, _DENOISING, _DECODER = "text_encoder", "denoising", "decoder"  # stages of an inference
_PIXELS = 64  # every model's sizes are multiples of at most this


@dataclass(eq=False, repr=False)
class Result:
    """The outcome of one simulated inference.

    On several GPUs it is that of one of them, and `several_gpus` says what all make of it.

    outcome: what happened when. rows: the trace's operators with their kernels, in order; intervals refer to them by number.
    coverage: of a measured trace, what the model stands for.
    """

    trace: Trace
    hardware: Hardware
    host: Host
    policy: Policy
    fidelity: str
    outcome: Outcome
    rows: list[tuple[Operator, Lowered]]
    memory: Memory | None
    wall_s: float = 0.0
    several_gpus: SeveralGPUs | None = None
    latency_by_host: dict[str, float] = field(default_factory=dict)  # see by_host
    coverage: Coverage | None = None
    engine: Engine | None = None  # who runs it; None: as the trace has it
    timing: str = "model"  # or 'measured', 'hybrid': whose times the kernels have (see run)
    captured_on: Hardware | None = None  # the device of the capture that they are of

    # ---- time

    @property
    def latency_s(self) -> float:
        """Seconds of the whole inference."""
        return self.outcome.latency_s

    @property
    def repetitions(self) -> list[Repetition]:
        """What was simulated, in order."""
        return self.outcome.repetitions

    @cached_property
    def phases(self) -> list[PhaseTime]:
        """Latency of each phase, from the end of the one before it on the device."""
        times, before = [], 0.0
        steps = {
            phase.name: sum(step.count for step in phase.steps if step.is_of_the_model)
            for phase in self.trace.phases
        }
        for name, end_s in self.outcome.phase_ends_s:
            times.append(PhaseTime(name, steps[name], end_s - before))
            before = end_s
        return times

    @cached_property
    def stages(self) -> dict[str, float]:
        """Seconds of text encoders (`text_encoder_s`), of the phases whose steps can be set (`denoising_s`), and of the decoder
        (`decoder_s`), 0 where there is none."""
        latency_s = {phase.name: phase.latency_s for phase in self.phases}
        return {
            name: float(sum(latency_s[phase] for phase in phases))
            for name, phases in self.phases_of_stages.items()
        }

    @property
    def phases_of_stages(self) -> dict[str, list[str]]:
        """The names of the phases that each of `stages` is made of."""
        found: dict[str, list[str]] = {f"{name}_s": [] for name in (_TEXT_ENCODER, _DENOISING, _DECODER)}
        for phase in self.phases:
            name = _DENOISING if phase.name in self.trace.schedule else phase.name
            if f"{name}_s" in found:
                found[f"{name}_s"].append(phase.name)
        return found

    @property
    def step_s(self) -> float | None:
        """Seconds of a step of denoising, on average; None where there is none."""
        steps = sum(phase.steps for phase in self.phases if phase.name in self.trace.schedule)
        return self.stages[f"{_DENOISING}_s"] / steps if steps else None

    @cached_property
    def kernels(self) -> list[KernelInterval]:
        """Every kernel that was simulated, in order."""
        return [interval for repetition in self.repetitions for interval in repetition.kernels()]

    @cached_property
    def operators(self) -> list[OperatorInterval]:
        """Every operator that was simulated and launches something, in order."""
        return [interval for repetition in self.repetitions for interval in repetition.operators()]

    @cached_property
    def kinds(self) -> Kinds:
        """What is alike among the operators that were simulated."""
        return kinds(self.rows, self.repetitions)

    def weighted_kernels(self) -> Iterator[tuple[KernelInterval, int]]:
        """Each kernel interval with how many repetitions of its step it stands for."""
        times = (itertools.repeat(item.times, len(item.launches)) for item in self.repetitions)
        return zip(self.kernels, itertools.chain.from_iterable(times), strict=True)

    @cached_property
    def breakdown(self) -> dict[str, float]:
        """Seconds by category, largest first. The kernels' time, gaps between them, and waiting for the host: the sum
        is the latency. Of kernels that run side by side the one on the lower stream counts: what communication hides behind
        computation takes no time."""
        seconds: dict[str, float] = defaultdict(float)
        for parts in self._ran_by_phase.values():
            for category, spent_s in parts.items():
                seconds[category] += spent_s
        seconds[HOST_IDLE] = max(0.0, self.latency_s - sum(seconds.values()))
        return dict(sorted(seconds.items(), key=lambda item: -item[1]))

    @cached_property
    def breakdown_by_phase(self) -> dict[str, dict[str, float]]:
        """The same of each phase: the sum is the phase's latency, where phases do not overlap."""
        found = {}
        for phase in self.phases:
            parts = dict(self._ran_by_phase.get(phase.name, {}))
            parts[HOST_IDLE] = max(0.0, phase.latency_s - sum(parts.values()))
            found[phase.name] = dict(sorted(parts.items(), key=lambda item: -item[1]))
        return found

    @cached_property
    def _ran_by_phase(self) -> dict[str, dict[str, float]]:
        """Seconds by phase and category of kernels and the gaps between them."""
        return ran_by_phase(self)

    @cached_property
    def exposed_s(self) -> list[np.ndarray]:
        """Of each repetition that was simulated, the seconds of each launch's kernel in which no kernel of a lower stream runs."""
        return exposed_s(self.repetitions)

    @property
    def _exposed_s(self) -> float:
        """Seconds of the inference in which a kernel runs."""
        each = zip(self.repetitions, self.exposed_s, strict=True)
        return sum(float(exposed.sum()) * item.times for item, exposed in each)

    @cached_property
    def row_seconds(self) -> np.ndarray:
        """Of each of the trace's operators the seconds of its kernels over the whole inference, gaps between them left out."""
        return row_seconds(self.repetitions, len(self.rows))

    @cached_property
    def bottlenecks(self) -> dict[str, float]:
        """Seconds by what held the inference back, largest first: 'host', 'launch', 'latency', or the busiest of
        kernel.RESOURCES while each kernel ran; the sum is the latency."""
        seconds: dict[str, float] = defaultdict(float)
        for item, exposed in zip(self.repetitions, self.exposed_s, strict=True):
            for interval, each_s in zip(item.kernels(), exposed.tolist(), strict=True):
                seconds[bottleneck(interval.busy, interval.duration_s)] += each_s * item.times
        seconds["launch"] = self.breakdown[LAUNCH_GAP]
        seconds["host"] = self.breakdown[HOST_IDLE]
        return dict(sorted(seconds.items(), key=lambda item: -item[1]))

    @property
    def host_bound_share(self) -> float:
        """Share of the latency in which the GPU waited for the host."""
        return self.breakdown[HOST_IDLE] / self.latency_s

    @cached_property
    def attention(self) -> dict[str, dict[str, float]]:
        """Time and FLOPs of attention by kind: self or cross, and the domain it works in (spatial, temporal)."""
        return by_kind(self)

    @cached_property
    def attention_kernels(self) -> list[AttentionKernels]:
        """What answered the calls of attention, most time first: the library asked for, which ran, and why where it is another."""
        return attention_kernels(self)

    @cached_property
    def sequence_lengths(self) -> list[int]:
        """Query length of every self-attention call over one step, in order, of the phase that attends most in all its steps."""
        return sequence_lengths(self.trace)

    # ---- work

    @cached_property
    def distinct_kernels(self) -> list[tuple[KernelInterval, int]]:
        """One interval for each kernel, number of bytes it moves and clock, with how often it runs: they all take as long."""
        return distinct_kernels(self.repetitions)

    @cached_property
    def totals(self) -> dict[str, float]:
        """FLOPs, HBM and L2 bytes, kernels launched, and busy seconds of the tensor cores, over the whole inference."""
        sums: dict[str, float] = defaultdict(float)
        for interval, times in self.distinct_kernels:
            kernel = interval.kernel
            sums["flops"] += kernel.flops * times
            sums["hbm_bytes"] += interval.hbm_bytes * times
            sums["l2_bytes"] += kernel.l2_bytes * kernel.grid * times
            sums["kernels"] += times
            sums["kernel_s"] += interval.duration_s * times
            sums["tensor_busy_s"] += interval.busy.tensor * times
        return dict(sums)

    @cached_property
    def busy(self) -> dict[str, float]:
        """Seconds for which each resource was busy over the whole inference: those of closed_form.RESOURCES, and the host."""
        sums = dict.fromkeys(RESOURCES, 0.0)
        for interval, times in self.distinct_kernels:
            for name, seconds in zip(RESOURCES, interval.busy, strict=True):
                sums[name] += seconds * times
        host_s = sum(sum(item.host_s) * item.times for item in self.repetitions)
        return {**sums, "host": host_s}

    def figures(self) -> dict[str, Any]:
        """A run's figures, as JSON, `sweep`, `compare` and `explore` give them: seconds, joules, watts, bytes, shares. On several
        GPUs latency, energy and power are those of all of them."""
        whole = self.several_gpus or self
        return {
            "latency_s": whole.latency_s,
            "energy_j": whole.energy_j,
            "average_w": whole.energy_j / whole.latency_s,
            "peak_memory_bytes": self.peak_memory_bytes,
            "reserved_memory_bytes": self.memory.reserved_bytes if self.memory else None,
            "device_memory_bytes": self.memory.device_bytes if self.memory else None,
            "fits": self.fits,
            "largest_batch": self.largest_batch,
            "host_bound_share": self.host_bound_share,
            **self.stages,
            "step_s": self.step_s,
        }

    def __repr__(self) -> str:
        """A few lines: what was run, the figures, where the time goes."""
        options = ", ".join(f"{name} {value}" for name, value in self.trace.options.items())
        largest = ", ".join(
            f"{name} {seconds / self.latency_s:.0%}" for name, seconds in list(self.breakdown.items())[:4]
        )
        memory = f", {self.peak_memory_bytes:,} bytes" if self.peak_memory_bytes is not None else ""
        return (
            f"<Result {self.trace.workload} on {self.hardware.name} ({options})\n"
            f" {self.latency_s:.6g} s, {self.figures()['energy_j']:.6g} J{memory}; attention {self.policy.attention}, "
            f"launch {self.policy.launch}, fidelity {self.fidelity}\n"
            f" {largest}; {len(self.rows):,} operators>"
        )

    @cached_property
    def utilisation(self) -> dict[str, float]:
        """Shares of the latency: tensor cores and HBM busy, a kernel running at all; and FLOP/s over the peak."""
        totals, hardware = self.totals, self.hardware
        return {
            "kernel": self._exposed_s / self.latency_s,
            "tensor_cores": totals["tensor_busy_s"] / self.latency_s,
            "hbm": totals["hbm_bytes"] / hardware.hbm_bytes_per_s / self.latency_s,
            "peak_flops": totals["flops"] / self.latency_s / hardware.peak_flops(),
        }

    @cached_property
    def energy_j(self) -> float:
        """Energy of the board: static power over the latency plus what each kernel adds at its clock."""
        joules = sum(item.governed.energy_j * item.times for item in self.repetitions)
        return self.hardware.static_power_w * self.latency_s + joules

    @cached_property
    def power(self) -> dict[str, float]:
        """Board power in watts, on average and over the most demanding window; and the mean clock of kernels as a share of the boost
        clock. A window is what the limit is held over: launches of `power.RESPONSE_S`, or so many short steps."""
        return power_figures(self)

    @cached_property
    def unlowered(self) -> dict[str, float]:
        """Operators without a kernel model, with their share of all bytes that operators touch. They are timed as
        a stream of those bytes."""
        return without_model(self.rows)

    @property
    def warnings(self) -> list[str]:
        """What one should know of the result, a sentence each."""
        dtype = str(self.trace.options.get("dtype"))
        if dtype != "bf16" or self.hardware.multiplies(dtype):
            return []
        return [
            f"the tensor cores of {self.hardware.name} do not take bf16: its products run on the CUDA cores (try fp16)"
        ]

    @property
    def speed(self) -> float:
        """Simulated seconds per second of wall-clock time."""
        return self.latency_s / self.wall_s if self.wall_s else float("inf")

    @property
    def peak_memory_bytes(self) -> int | None:
        """Bytes allocated at the fullest moment, as torch.cuda.max_memory_allocated counts them; None where not known."""
        return self.memory.allocated_bytes if self.memory else None

    @property
    def fits(self) -> bool | None:
        """Whether the device has room for what it would hold, the CUDA context included; None where it is not known."""
        if self.memory is None:
            return None
        return self.memory.device_bytes <= self.hardware.hbm_capacity_bytes

    @property
    def largest_batch(self) -> int | None:
        """The batch that would fit, 0 where none does; None where it is not known. Activations grow with the batch,
        weights do not: an estimate, for another batch can take other kernels and other workspaces."""
        batch = self.trace.options.get("batch")
        if self.memory is None or not batch:
            return None
        return max(0, int(batch * self._room_for_activations))

    @property
    def largest_size(self) -> tuple[int, int] | None:
        """Height and width, in pixels, that would fit at this batch where the trace's do not; None where these do, where
        nothing would, or where there is no such size. Activations grow with the pixels, scores in memory with their square: an
        estimate, rounded down to 64 pixels."""
        options = self.trace.options
        height, width = options.get("height"), options.get("width")
        if self.memory is None or self.fits or not height or not width:
            return None
        operator = self.memory.fullest.operator
        scores = operator is not None and operator.category == "Attention"
        scale = max(0.0, self._room_for_activations) ** (0.25 if scores else 0.5)
        found = int(height * scale) // _PIXELS * _PIXELS, int(width * scale) // _PIXELS * _PIXELS
        return found if min(found) > 0 else None

    @property
    def _room_for_activations(self) -> float:
        """What the device has room for beside what does not grow, over what grows."""
        assert self.memory is not None
        fixed = self.memory.fixed_bytes + self.memory.context_bytes
        return (self.hardware.hbm_capacity_bytes - fixed) / max(1, self.memory.growing_reserved_bytes)

    # ---- tables

    @cached_property
    def intervals(self) -> pd.DataFrame:
        """One row a simulated kernel. `repeats` says how many repetitions of its step it stands for."""
        return kernel_table(self)

    @cached_property
    def breakdown_table(self) -> pd.DataFrame:
        """Seconds and share of the latency by category."""
        import pandas as pd

        table = pd.DataFrame({"category": list(self.breakdown), "time_s": list(self.breakdown.values())})
        return table.assign(share=table.time_s / self.latency_s)

    @cached_property
    def draws(self) -> Draws:
        """What such a prediction may turn out as; the same inference's on another device go with them, one by one."""
        return run_draws(self)

    @cached_property
    def interval(self) -> RunIntervals:
        """Between what latency and energy lie in half of such predictions, and in 9 of 10 (docs/accuracy.md)."""
        return run_intervals(self)

    def to_dict(self, interval: bool = True) -> dict[str, Any]:
        """The result as `simtti run --json` writes it, with the intervals or without."""
        return as_dict(self, interval)

    # ---- files

    def save(self, path: str | os.PathLike[str], *, interval: bool = True) -> None:
        """Write `to_dict` as JSON, which `simtti diff` compares with another's. A page of the run is `simtti.report`.

        Raises:
            InputError: the file cannot be written, or is no .json.
        """
        if Path(path).suffix != ".json":
            raise InputError(f"{path}: a result is kept as .json; simtti.report(result, path) writes a page")
        write_text(path, json_text(self.to_dict(interval)))

    def timeline(self, path: str | os.PathLike[str]) -> None:
        """Write what ran when as a Chrome trace, which ui.perfetto.dev opens; compressed where the name ends in .gz.

        Raises:
            InputError: the file cannot be written.
        """
        write_text(path, chrome_trace(self))

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return as_html(self)
