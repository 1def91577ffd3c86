"""What a kernel's time is made of by cause, by asking the model: slow one resource by a tenth and see how much the time grows.

A resource whose slowing by 10 % makes the kernel 10 % slower causes all of its time. That needs no second copy of the
kernel's formula, names both of two pipes that are in balance, tells a partial wave from latency, and follows the model
wherever it goes; `simtti validate kernels` explains errors with it. It is not what `kernel.bottleneck` says: that names
the resource that a kernel of a simulated inference kept busiest, in a twentieth of the time, for `simtti run`, `compare`
and `explore`. On whole inferences the two agree for about four fifths of the time; where they differ, a kernel waits for
its waves, or for latency, behind a resource that is busy for more than half of it.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from simtti.hw_configs.hardware import Hardware
from simtti.simulator.closed_form import lone_time_s, repeated_hbm_bytes
from simtti.simulator.kernel import Kernel, ctas_per_sm
from simtti.validation.judge.prediction import warm_hbm_bytes

SLOWER = 1.1
PARTIAL_WAVE = "partial wave"
LATENCY = "launch and latency"
_RATES = {
    "tensor cores": (
        "tensor_fp16_flops_per_cycle_sm", "tensor_tf32_flops_per_cycle_sm", "tensor_fp8_flops_per_cycle_sm",
        "tensor_fp4_flops_per_cycle_sm", "tensor_int8_flops_per_cycle_sm", "tensor_int4_flops_per_cycle_sm",
    ),
    "FP32": ("fp32_flops_per_cycle_sm",),
    "SFU": ("sfu_ops_per_cycle_sm",),
    "shared memory": ("shared_memory_bytes_per_cycle_sm",),
    "L2": ("l2_bytes_per_cycle_sm", "l2_bytes_per_s"),
    "HBM": ("hbm_bytes_per_s",),
}  # fmt: skip
_TIMES = ("launch_s", "start_s", "dispatch_s", "hbm_latency_s")
CAUSES = (*_RATES, LATENCY, PARTIAL_WAVE)


class Causes(NamedTuple):
    """What the time of an operator's kernels is made of.

    bottleneck: the cause with the largest share of the time, and bottleneck_share that share.
    partial_wave_share: of the time, lost to SMs that have no CTA while others finish.
    last_wave_fill: share of the CTA slots filled in the last wave of the longest kernel.
    waves: of the longest kernel.
    tile_padding: tensor-core FLOPs issued over useful ones; 1 where there are none.
    launch_share: of the time, launches and starts that pass whatever the shape.
    boost_us: the time at the boost clock, of which these are shares; a prediction that is longer met the power limit.
    """

    bottleneck: str
    bottleneck_share: float
    partial_wave_share: float
    last_wave_fill: float
    waves: int
    tile_padding: float
    launch_share: float
    boost_us: float


def causes(kernels: list[Kernel], hardware: Hardware, warm: bool = False) -> Causes:
    """What the time of `kernels` one after another is made of.

    warm: operands in L2 where they fit and no launch gaps (see prediction).
    """
    device = _without_launch(hardware) if warm else hardware
    times: dict[str, float] = dict.fromkeys(CAUSES, 0.0)
    total_s, longest, longest_s = 0.0, kernels[0], -1.0
    for kernel in kernels:
        hbm_bytes = warm_hbm_bytes(kernel, hardware) if warm else None
        moved = repeated_hbm_bytes(kernel) if hbm_bytes is None else hbm_bytes
        time_s = lone_time_s(kernel, device, moved)
        lost_s = _partial_wave_s(kernel, device, moved, time_s)
        times[PARTIAL_WAVE] += lost_s
        for cause, slowed in _slowed(device):
            slow = replace(kernel, latency_s=kernel.latency_s * SLOWER) if cause == LATENCY else kernel
            grown = (lone_time_s(slow, slowed, moved) / time_s - 1) / (SLOWER - 1)
            times[cause] += max(grown, 0.0) * (time_s - lost_s)
        total_s += time_s
        if time_s > longest_s:
            longest, longest_s = kernel, time_s
    bottleneck = max(CAUSES, key=lambda cause: times[cause])
    slots = ctas_per_sm(longest, device) * device.sm_count
    waves = -(-longest.grid // slots)
    issued = sum(kernel.tensor_flops * kernel.grid for kernel in kernels)
    useful = sum(kernel.flops for kernel in kernels if kernel.tensor_flops)
    return Causes(
        bottleneck=bottleneck,
        bottleneck_share=times[bottleneck] / total_s,
        partial_wave_share=times[PARTIAL_WAVE] / total_s,
        last_wave_fill=(longest.grid - (waves - 1) * slots) / slots,
        waves=waves,
        tile_padding=issued / useful if issued and useful else 1.0,
        launch_share=sum(device.launch_s + kernel.started_s(device) for kernel in kernels) / total_s,
        boost_us=total_s * 1e6,
    )


def _partial_wave_s(kernel: Kernel, hardware: Hardware, hbm_bytes: float, time_s: float) -> float:
    """Seconds beyond the straight line through whole waves: one and two times the waves that the grid rounds up to."""
    slots = ctas_per_sm(kernel, hardware) * hardware.sm_count
    whole = -(-kernel.grid // slots) * slots
    if whole == kernel.grid:
        return 0.0
    once, twice = (
        lone_time_s(replace(kernel, grid=grid), hardware, hbm_bytes * grid / kernel.grid)
        for grid in (whole, 2 * whole)
    )
    line = (2 * once - twice) + (twice - once) * kernel.grid / whole
    return min(max(time_s - line, 0.0), time_s)


@lru_cache(maxsize=8)
def _without_launch(hardware: Hardware) -> Hardware:
    return replace(hardware, launch_s=0.0)


@lru_cache(maxsize=8)
def _slowed(hardware: Hardware) -> tuple[tuple[str, Hardware], ...]:
    """`hardware` with each resource slowed."""
    found = [
        (cause, replace(hardware, **{name: getattr(hardware, name) / SLOWER for name in names}))
        for cause, names in _RATES.items()
    ]
    found.append((LATENCY, replace(hardware, **{name: getattr(hardware, name) * SLOWER for name in _TIMES})))
    return tuple(found)
