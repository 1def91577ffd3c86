"""Several GPUs that share the tokens of one inference: a first, crude estimate from the simulation of one.

Sequence parallelism as xDiT does it: every GPU holds all weights and 1/N of the tokens of the denoiser; text encoders and
the VAE run as on one GPU. Ulysses exchanges heads for tokens around each self-attention (all-to-all of queries, keys,
values and output), ring passes keys and values on N - 1 times. What is crude: a kernel takes 1/N of its time, but not less
than an empty one; communication is added, never hidden; collectives take a fixed latency and the link's bandwidth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from simtti.errors import InputError
from simtti.simulator.result import Result
from simtti.workloads.trace import Operator

# Start and synchronisation of one collective of a few GPUs in a server; uncalibrated: NCCL's small messages take 10-20 us
# on the device, and the eager call as much on the host.
COLLECTIVE_LATENCY_S = 20e-6
# Share of a link's bandwidth that large messages attain (NCCL's bus bandwidth over NVLink's rate); uncalibrated.
LINK_EFFICIENCY = 0.8


@dataclass(frozen=True, slots=True)
class SeveralGPUs:
    """The estimate: seconds, joules of all GPUs, bytes on each, and how long of the latency is communication."""

    gpus: int
    ulysses: int
    ring: int
    latency_s: float
    energy_j: float
    peak_memory_bytes: int | None
    communication_s: float
    one_gpu_s: float

    def to_dict(self) -> dict[str, Any]:
        """As `simtti run --gpus N --json` adds it."""
        return {name: getattr(self, name) for name in self.__slots__}


def several_gpus(
    result: Result, gpus: int, ulysses: int | None = None, ring: int | None = None
) -> SeveralGPUs:
    """Estimate `result`'s inference on `gpus` GPUs.

    Args:
        ulysses, ring: degrees; their product must be gpus. With neither given, ulysses is gpus.

    Raises:
        InputError: degrees that do not multiply to gpus, or a device without a link.
    """
    ring = ring if ring is not None else (gpus // ulysses if ulysses else 1)
    ulysses = ulysses if ulysses is not None else gpus // max(ring, 1)
    if min(gpus, ulysses, ring) < 1 or ulysses * ring != gpus:
        raise InputError(f"ulysses {ulysses} times ring {ring} is {ulysses * ring}; it must be gpus, {gpus}")
    link = result.hardware.link_bytes_per_s * LINK_EFFICIENCY
    if gpus > 1 and not link:
        raise InputError(f"{result.hardware.name} has no link between GPUs; use 1 of it")
    shared = {phase.name for phase in result.trace.phases if sum(step.count for step in phase.steps) > 1}
    shared -= {"decoder", "text_encoder", "image_encoder"}
    floor_s = result.hardware.start_s + result.hardware.dispatch_s
    latency_s = communication_s = 0.0
    for phase in result.phases:
        if phase.name not in shared or gpus == 1:
            latency_s += phase.latency_s
            continue
        gpu_s = moved_s = 0.0
        for interval, times in result.weighted_kernels():
            operator = result.rows[interval.operator][0]
            if operator.phase == phase.name:
                gap_s = min(interval.start_s - interval.free_s, result.hardware.launch_s)
                gpu_s += times * (gap_s + max(interval.duration_s / gpus, min(floor_s, interval.duration_s)))
        host_s = 0.0
        for step in next(item for item in result.trace.phases if item.name == phase.name).steps:
            attentions = [op for op in step.operators if _shares_tokens(op)]
            moved_s += step.count * sum(_exchange_s(op, gpus, ulysses, ring, link) for op in attentions)
            host_s += step.count * _host_s(step.operators, result)
            host_s += step.count * len(attentions) * COLLECTIVE_LATENCY_S * (4 * (ulysses > 1) + ring - 1)
        communication_s += moved_s
        eager = result.policy.launch == "eager"
        latency_s += max(gpu_s + moved_s, host_s if eager else 0.0)
    busy_j = result.energy_j - result.hardware.static_power_w * result.latency_s
    energy_j = busy_j + gpus * result.hardware.static_power_w * latency_s
    return SeveralGPUs(
        gpus, ulysses, ring, latency_s, energy_j, result.peak_memory_bytes, communication_s, result.latency_s
    )


def _shares_tokens(operator: Operator) -> bool:
    return operator.category == "Attention" and operator.attributes.get("kind") == "self"


def _exchange_s(operator: Operator, gpus: int, ulysses: int, ring: int, link: float) -> float:
    """Seconds of communication around one self-attention."""
    local = operator.inputs[0].nbytes / gpus
    seconds = 0.0
    if ulysses > 1:
        seconds += 4 * (COLLECTIVE_LATENCY_S + local * (ulysses - 1) / ulysses / link)
    if ring > 1:
        seconds += (ring - 1) * (COLLECTIVE_LATENCY_S + 2 * local / link)
    return seconds


def _host_s(operators: tuple[Operator, ...], result: Result) -> float:
    launches = sum(not operator.is_view for operator in operators)
    return sum(result.host.issue_s(operators)) + launches * result.host.launch_s
