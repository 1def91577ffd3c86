"""Several GPUs that share one inference: the simulation of one of them, which waits for the others' data.

`workloads.parallel` says what it runs. All do the same, or no more, so one is simulated, with what it sends and receives. Text
encoders run on every GPU, the VAE on one, while the others wait, unless they share it.

Of a pipeline it is the GPU of the slowest stage, and how long it waits for the others follows from its own seconds: they take as
long, or less. With N stages, M patches, g_w and g_p seconds of a stage on the GPU for the whole image and for a patch, h_w and h_p
for what goes from one to the next:

    before its part of a step of the warm-up        (N - 1) (g_w + h_w)
    once, as the pipeline fills and empties         (N - 1) (g_p + h_p)
    before a step, for its first patch to be back   max(0, N (g_p + h_p) - M g_p)

What a patch's send takes beside the computation is in the simulation itself; so is a host that is too slow for either.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from simtti.errors import InputError
from simtti.hw_configs.hardware import Hardware
from simtti.hw_configs.hosts import Host
from simtti.simulator.engine.measured_kernels import Measured
from simtti.simulator.engine.preparation import Progress, no_progress
from simtti.simulator.engine.simulation import simulate
from simtti.simulator.policy import COMPILED, Policy
from simtti.simulator.result import Result
from simtti.simulator.share import ON_ONE_GPU, SeveralGPUs
from simtti.workloads.parallel import pipeline
from simtti.workloads.parallel.degrees import Degrees
from simtti.workloads.parallel.guidance import HALVES
from simtti.workloads.parallel.operands import SEND_RECEIVE
from simtti.workloads.parallel.shard import shard
from simtti.workloads.trace import Operator, Phase, Step, Trace

# Steps that a UNet's patches wait for each other in: distrifuser's warmup_steps, 4, come after the first.
WARMUP_OF_PATCHES = 5


def degrees_of(
    gpus: int,
    ulysses: int | None,
    ring: int | None,
    hardware: Hardware,
    cfg_parallel: int = 1,
    tensor: int = 1,
    pipefusion: int = 1,
    pipefusion_patches: int | None = None,
    warmup_steps: int | None = None,
    parallel_vae: bool = False,
    patches: int = 1,
) -> Degrees:
    """Degrees of parallelism for `gpus` GPUs; with neither ulysses nor ring given, ulysses is what the others leave.

    Raises:
        InputError: degrees that do not multiply to gpus, groups that guidance has no halves for, a pipeline's patches or warm-up
            without a pipeline, a UNet's patches beside what transformers share, a VAE to share on one GPU, or a device without a link.
    """
    of_pipeline = _patches(pipefusion, pipefusion_patches, warmup_steps, patches)
    if cfg_parallel not in (1, HALVES):
        raise InputError(f"cfg-parallel is {cfg_parallel}; guidance has {HALVES} halves: give 1 or {HALVES}")
    if parallel_vae and gpus == 1:
        raise InputError("parallel-vae is given, but gpus is 1; give 2 or more")
    left = gpus // max(cfg_parallel * tensor * pipefusion * patches, 1)
    ring = ring if ring is not None else (left // ulysses if ulysses else 1)
    ulysses = ulysses if ulysses is not None else max(left // max(ring, 1), 1)
    if warmup_steps is None:
        warmup_steps = WARMUP_OF_PATCHES if patches > 1 else 1
    found = Degrees(
        ulysses, ring, cfg_parallel, tensor, pipefusion, of_pipeline, warmup_steps, gpus if parallel_vae else 1, patches,
    )  # fmt: skip
    if min(gpus, ulysses, ring, cfg_parallel, tensor, pipefusion, patches) < 1 or found.gpus != gpus:
        others = "".join(
            f"{name} {degree} times "
            for name, degree in (
                ("cfg-parallel", cfg_parallel),
                ("tensor", tensor),
                ("pipefusion", pipefusion),
                ("patches", patches),
            )
            if degree != 1
        )
        raise InputError(
            f"{others}ulysses {ulysses} times ring {ring} is {found.gpus}; it must be gpus, {gpus}"
        )
    if patches > 1 and found.gpus != cfg_parallel * patches:
        raise InputError(
            f"patches is {patches}, of a UNet's image; beside it GPUs share no more than the halves of guidance: give "
            f"{gpus // cfg_parallel}"
        )
    if gpus > 1 and not hardware.link_bytes_per_s:
        raise InputError(f"{hardware.name} has no link between GPUs; use 1 of it")
    return found


def _patches(pipefusion: int, patches: int | None, warmup_steps: int | None, bands: int) -> int:
    """As many patches as stages, as xDiT has it, where nothing else is asked for. bands: a UNet's patches, which warm up too."""
    for name, value, least in (("pipefusion-patches", patches, 1), ("warmup-steps", warmup_steps, 0)):
        if value is not None and pipefusion == 1 and (bands == 1 or name == "pipefusion-patches"):
            raise InputError(f"{name} is {value}, but there is no pipeline; give pipefusion 2 or more")
        if value is not None and value < least:
            raise InputError(f"{name} is {value}; it must be at least {least}")
    return max(pipefusion, 1) if patches is None else patches


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
    shared = rewrite(shard(trace, degrees))
    if degrees.pipefusion > 1:
        shared = pipeline.waiting(shared, _waits(shared, degrees, hardware, host, policy))
    share = simulate(shared, hardware, host, policy, fidelity)
    alone_j = sum(phase_energy_j(share, name) for name in ON_ONE_GPU) if degrees.decoder == 1 else 0.0
    energy_j = degrees.gpus * (share.energy_j - alone_j) + alone_j
    share.several_gpus = SeveralGPUs(
        degrees.gpus, degrees.ulysses, degrees.ring, share.latency_s, energy_j, share.peak_memory_bytes,
        share.breakdown.get("Communication", 0.0), one.latency_s, degrees.cfg, degrees.tensor, degrees.pipefusion,
        degrees.patches, degrees.warmup_steps, degrees.decoder > 1, degrees.bands,
    )  # fmt: skip
    return share


def _waits(
    trace: Trace, degrees: Degrees, hardware: Hardware, host: Host, policy: Policy
) -> dict[str, float]:
    """Seconds that the slowest stage of a pipeline waits for the others, of each kind (see above)."""

    def gpu_s(*operators: Operator) -> float:
        """Alone, with the host's work done."""
        if not operators:
            return 0.0
        alone = dataclasses.replace(trace, phases=(Phase(operators[0].phase, (Step(1, operators),)),))
        return simulate(alone, hardware, host, in_graphs, "closed").latency_s

    in_graphs = dataclasses.replace(policy, launch="compiled-graph" if policy.launch in COMPILED else "graph")
    found = dict.fromkeys((pipeline.WARM_UP, pipeline.FILL, pipeline.RETURN), 0.0)
    for what, step in pipeline.waiting_steps(trace):
        others = [op for op in step.operators if not pipeline.between_stages(op)]
        sends = [op for op in step.operators if pipeline.between_stages(op) and op.op == SEND_RECEIVE]
        sent_s = max(gpu_s(dataclasses.replace(op, attributes={"ranks": degrees.gpus})) for op in sends)
        stages, whole_s = degrees.pipefusion, gpu_s(*others)
        if what == pipeline.WARM_UP:
            found[what] = max(found[what], (stages - 1) * (whole_s + sent_s))
        else:
            patch_s = whole_s / degrees.patches
            fill_s = (stages - 1) * (patch_s + sent_s)
            back_s = stages * (patch_s + sent_s) - whole_s
            found[pipeline.FILL] = max(found[pipeline.FILL], fill_s)
            found[pipeline.RETURN] = max(found[pipeline.RETURN], back_s)
    return found


def phase_energy_j(result: Result, phase: str) -> float:
    """What a phase's kernels add to the board's static power."""
    return sum(
        item.governed.energy_j * item.times
        for item in result.repetitions
        if result.rows[item.rows[0]][0].phase == phase
    )
