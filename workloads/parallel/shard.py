"""The entry: from the trace of one GPU to the trace of one of several."""

from __future__ import annotations

from dataclasses import replace

from simtti.workloads.catalogue import decoded
from simtti.workloads.parallel import displaced, guidance, pipeline, sequence, tensor, vae
from simtti.workloads.parallel.degrees import Degrees
from simtti.workloads.trace import Operator, Phase, Step, Trace


def shard(trace: Trace, degrees: Degrees, stage: int | None = None) -> Trace:
    """What one GPU runs of `trace`, the busiest where they differ.

    stage: of a pipeline, whose GPU it is, from 0; the busiest if None.

    Raises:
        InputError: what the degrees would share, the workload does not have: a second half of classifier-free guidance, blocks
            whose weights can be divided, tokens of a transformer, heads enough, a UNet's rows.
    """
    if degrees.cfg > 1:
        trace = guidance.halved(trace)
    if degrees.bands > 1:
        trace = displaced.divided(trace, degrees.bands, degrees.warmup_steps)
    if degrees.tensor > 1:
        trace = tensor.divided(trace, degrees.tensor)
    kinds = pipeline.kinds_of(trace) if degrees.pipefusion > 1 else []
    if degrees.sequence > 1:
        trace = sequence.divided(trace, degrees)
    if degrees.pipefusion > 1:
        trace = pipeline.divided(trace, degrees, kinds, stage)
    if degrees.decoder > 1:
        tiled = str(decoded(trace.workload, trace.options) or "").startswith("tiled")
        trace = vae.divided(trace, degrees.decoder, tiled)
    return _beside_others(trace, degrees.gpus)


def _beside_others(trace: Trace, gpus: int) -> Trace:
    """Collectives know how many GPUs of the server exchange at once: all groups do, and share what leads through the host."""
    if all(op.attributes.get("ranks", gpus) == gpus for op in trace.operators()):
        return trace

    def told(operator: Operator) -> Operator:
        if operator.attributes.get("ranks", gpus) == gpus:
            return operator
        return replace(operator, attributes={**operator.attributes, "gpus": gpus})

    phases = tuple(
        Phase(phase.name, tuple(Step(step.count, tuple(map(told, step.operators))) for step in phase.steps))
        for phase in trace.phases
    )
    return replace(trace, phases=phases)
