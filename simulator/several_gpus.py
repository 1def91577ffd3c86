"""Several GPUs that share the tokens of one inference: the simulation of one of them, which waits for the others' data.

Every GPU holds all weights and its share of the tokens (`workloads.shard`). All do the same, so one is simulated, with what
it sends and receives. Text encoders run on every GPU, the VAE on one, while the others wait.
"""

from __future__ import annotations

from simtti.errors import InputError
from simtti.hw_configs.hardware import Hardware
from simtti.hw_configs.hosts import Host
from simtti.simulator.engine.measured_kernels import Measured
from simtti.simulator.engine.preparation import Progress, no_progress
from simtti.simulator.engine.simulation import simulate
from simtti.simulator.policy import Policy
from simtti.simulator.result import Result, SeveralGPUs
from simtti.workloads.shard import Degrees, shard
from simtti.workloads.trace import Trace

ON_ONE_GPU = ("decoder",)


def degrees_of(gpus: int, ulysses: int | None, ring: int | None, hardware: Hardware) -> Degrees:
    """Degrees of sequence parallelism for `gpus` GPUs; with neither given, ulysses is gpus.

    Raises:
        InputError: degrees that do not multiply to gpus, or a device without a link.
    """
    ring = ring if ring is not None else (gpus // ulysses if ulysses else 1)
    ulysses = ulysses if ulysses is not None else gpus // max(ring, 1)
    if min(gpus, ulysses, ring) < 1 or ulysses * ring != gpus:
        raise InputError(f"ulysses {ulysses} times ring {ring} is {ulysses * ring}; it must be gpus, {gpus}")
    if gpus > 1 and not hardware.link_bytes_per_s:
        raise InputError(f"{hardware.name} has no link between GPUs; use 1 of it")
    return Degrees(ulysses, ring)


def simulate_on(
    degrees: Degrees,
    trace: Trace,
    hardware: Hardware,
    host: Host,
    policy: Policy,
    fidelity: str = "wave",
    progress: Progress = no_progress,
    measured: Measured | None = None,
) -> Result:
    """Simulate `trace` on degrees.gpus GPUs: the Result of one of them, with what all make of it in `several_gpus`.

    Raises:
        InputError: tokens or heads that cannot be shared; measured kernels, which are those of one GPU.
    """
    if measured is not None and degrees.gpus > 1:
        raise InputError(
            f"gpus is {degrees.gpus}, but measured kernels are those of one GPU; use timing model"
        )
    one = simulate(trace, hardware, host, policy, fidelity, progress, measured)
    if degrees.gpus == 1:
        return one
    share = simulate(shard(trace, degrees), hardware, host, policy, fidelity)
    alone_j = sum(phase_energy_j(share, name) for name in ON_ONE_GPU)
    energy_j = degrees.gpus * (share.energy_j - alone_j) + alone_j
    share.several_gpus = SeveralGPUs(
        degrees.gpus, degrees.ulysses, degrees.ring, share.latency_s, energy_j, share.peak_memory_bytes,
        share.breakdown.get("Communication", 0.0), one.latency_s,
    )  # fmt: skip
    return share


def phase_energy_j(result: Result, phase: str) -> float:
    """What a phase's kernels add to the board's static power."""
    return sum(
        item.governed.energy_j * item.times
        for item in result.repetitions
        if result.rows[item.rows[0]][0].phase == phase
    )
