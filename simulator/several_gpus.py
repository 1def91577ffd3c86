"""Several GPUs that share one inference: the simulation of one of them, which waits for the others' data.

`workloads.parallel` says what it runs. All do the same, or no more, so one is simulated, with what it sends and receives. Text
encoders run on every GPU, the VAE on one, while the others wait.
"""

from __future__ import annotations

from collections.abc import Callable

from simtti.errors import InputError
from simtti.hw_configs.hardware import Hardware
from simtti.hw_configs.hosts import Host
from simtti.simulator.engine.measured_kernels import Measured
from simtti.simulator.engine.preparation import Progress, no_progress
from simtti.simulator.engine.simulation import simulate
from simtti.simulator.policy import Policy
from simtti.simulator.result import Result, SeveralGPUs
from simtti.workloads.parallel.degrees import Degrees
from simtti.workloads.parallel.guidance import HALVES
from simtti.workloads.parallel.shard import shard
from simtti.workloads.trace import Trace

ON_ONE_GPU = ("decoder", "audio_decoder")


def degrees_of(
    gpus: int,
    ulysses: int | None,
    ring: int | None,
    hardware: Hardware,
    cfg_parallel: int = 1,
    tensor: int = 1,
) -> Degrees:
    """Degrees of parallelism for `gpus` GPUs; with neither ulysses nor ring given, ulysses is what the others leave.

    Raises:
        InputError: degrees that do not multiply to gpus, groups that guidance has no halves for, or a device without a link.
    """
    if cfg_parallel not in (1, HALVES):
        raise InputError(f"cfg-parallel is {cfg_parallel}; guidance has {HALVES} halves: give 1 or {HALVES}")
    left = gpus // max(cfg_parallel * tensor, 1)
    ring = ring if ring is not None else (left // ulysses if ulysses else 1)
    ulysses = ulysses if ulysses is not None else max(left // max(ring, 1), 1)
    found = Degrees(ulysses, ring, cfg_parallel, tensor)
    if min(gpus, *found) < 1 or found.gpus != gpus:
        others = "".join(
            f"{name} {degree} times "
            for name, degree in (("cfg-parallel", cfg_parallel), ("tensor", tensor))
            if degree != 1
        )
        raise InputError(
            f"{others}ulysses {ulysses} times ring {ring} is {found.gpus}; it must be gpus, {gpus}"
        )
    if gpus > 1 and not hardware.link_bytes_per_s:
        raise InputError(f"{hardware.name} has no link between GPUs; use 1 of it")
    return found


def simulate_on(
    degrees: Degrees,
    trace: Trace,
    hardware: Hardware,
    host: Host,
    policy: Policy,
    fidelity: str = "wave",
    progress: Progress = no_progress,
    measured: Measured | None = None,
    rewrite: Callable[[Trace], Trace] = lambda trace: trace,
) -> Result:
    """Simulate `trace` on degrees.gpus GPUs: the Result of one of them, with what all make of it in `several_gpus`.

    rewrite: what is done to what a GPU runs, after the GPUs have shared it, as frameworks quantise each GPU's share.

    Raises:
        InputError: what cannot be shared (see `shard`); measured kernels, which are those of one GPU.
    """
    if measured is not None and degrees.gpus > 1:
        raise InputError(
            f"gpus is {degrees.gpus}, but measured kernels are those of one GPU; use timing model"
        )
    one = simulate(rewrite(trace), hardware, host, policy, fidelity, progress, measured)
    if degrees.gpus == 1:
        return one
    share = simulate(rewrite(shard(trace, degrees)), hardware, host, policy, fidelity)
    alone_j = sum(phase_energy_j(share, name) for name in ON_ONE_GPU)
    energy_j = degrees.gpus * (share.energy_j - alone_j) + alone_j
    share.several_gpus = SeveralGPUs(
        degrees.gpus, degrees.ulysses, degrees.ring, share.latency_s, energy_j, share.peak_memory_bytes,
        share.breakdown.get("Communication", 0.0), one.latency_s, degrees.cfg, degrees.tensor,
    )  # fmt: skip
    return share


def phase_energy_j(result: Result, phase: str) -> float:
    """What a phase's kernels add to the board's static power."""
    return sum(
        item.governed.energy_j * item.times
        for item in result.repetitions
        if result.rows[item.rows[0]][0].phase == phase
    )
