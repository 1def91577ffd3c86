"""Sequence parallelism: the trace of one of several GPUs that share the tokens of a transformer.

As xDiT does it (xfuser/model_executor/layers/usp.py): every GPU holds all weights and its share of the tokens, of what is
elementwise, normalised or multiplied by weights; around self-attention Ulysses exchanges heads for tokens, an all-to-all of
queries, keys, values and result with a copy on either side of each, and a ring passes keys and values on while the scores
with those at hand are computed, merging partial results in fp32. Tokens of a text that are attended to jointly are shared
where their number divides, else every GPU has all of them. Text encoders and the VAE run as on one GPU. `exchange` has what goes on
around attention, `linear_sequence` transformers with linear attention.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from simtti.errors import InputError
from simtti.workloads.parallel import linear_sequence
from simtti.workloads.parallel.borders import overlaps
from simtti.workloads.parallel.degrees import WHOLE, Degrees
from simtti.workloads.parallel.exchange import Exchange
from simtti.workloads.parallel.linear import sums_of
from simtti.workloads.parallel.operands import numbered, unused_tensors
from simtti.workloads.parallel.tokens import attends, local, tokens_of
from simtti.workloads.trace import Operator, Phase, Step, Trace


def divided(trace: Trace, degrees: Degrees) -> Trace:
    """What one of the GPUs that share the tokens runs of `trace`.

    Raises:
        InputError: a denoiser whose tokens cannot be shared: a UNet, or one without self-attention; fewer heads than the Ulysses
            degree.
    """
    fresh = unused_tensors(trace)
    phases = []
    shared = False
    for phase in trace.phases:
        steps = phase.steps
        if is_shared(phase):
            steps = _shard_steps(trace.workload, steps, degrees, fresh)
            shared = True
        phases.append(Phase(phase.name, steps))
    if not shared:
        raise InputError(
            f"{trace.workload} has no phase of several steps with self-attention over an image or a video, whose "
            "tokens GPUs could share"
        )
    return dataclasses.replace(trace, phases=tuple(phases))


def is_shared(phase: Phase) -> bool:
    """Whether GPUs share the tokens of a phase: it has several steps, and attends to an image or a video."""
    if phase.name in WHOLE or sum(step.count for step in phase.steps) < 2:
        return False
    operators = [op for step in phase.steps for op in step.operators]
    return any(map(attends, operators)) or len(sums_of(operators)) == 1


def _shard_steps(
    workload: str, steps: Sequence[Step], degrees: Degrees, fresh: Iterator[int]
) -> tuple[Step, ...]:
    # Of the whole phase: a step that skips its attention has the same tokens.
    operators = [op for step in steps for op in step.operators]
    if any(map(attends, operators)):
        lengths = _local_lengths(operators, degrees.sequence)
        shares = [_shard_step(workload, step.operators, degrees, fresh, lengths) for step in steps]
    else:
        (tokens,) = sums_of(operators)
        shares = [
            numbered(linear_sequence.shared(workload, step.operators, tokens, degrees, fresh))
            for step in steps
        ]
    return tuple(Step(step.count, share) for step, share in zip(steps, shares, strict=True))


def _shard_step(
    workload: str,
    operators: Sequence[Operator],
    degrees: Degrees,
    fresh: Iterator[int],
    shares: tuple[dict[int, int], dict[int, int]],
) -> tuple[Operator, ...]:
    """fresh: identities that no tensor of the trace has. shares: of the phase (`_local_lengths`)."""
    for operator in operators:
        if operator.category == "Convolution" and overlaps(operator):
            raise InputError(
                f"{workload}: a convolution of {operator.module} reaches over the borders between GPUs; only the tokens of "
                "a transformer can be shared"
            )
    lengths, repeated = shares
    found: list[Operator] = []
    for operator in operators:
        share = dataclasses.replace(
            operator,
            inputs=tuple(local(use, lengths) for use in operator.inputs),
            outputs=tuple(local(use, lengths) for use in operator.outputs),
        )
        if attends(operator):
            of_text = repeated.get(operator.inputs[0].shape[-2], 0)
            found += Exchange(workload, share, degrees, fresh, of_text).operators()
        else:
            found.append(share)
    # What the program lets go of is not known of the exchanges.
    return tuple(dataclasses.replace(op, position=at, released=()) for at, op in enumerate(found))


# ---- shapes


def _local_lengths(operators: Sequence[Operator], gpus: int) -> tuple[dict[int, int], dict[int, int]]:
    """Tokens that one GPU has, by the number that there are: of the image, of a text attended to jointly, of both. And of
    those both, the text's where every GPU has all of it."""
    found: dict[int, int] = {}
    repeated: dict[int, int] = {}
    for image, text in tokens_of(operators):
        own_text = text // gpus if text % gpus == 0 else text
        found[image] = -(-image // gpus)
        if text:
            found[text] = own_text
            found[image + text] = found[image] + own_text
            if own_text == text:
                repeated[image + text] = text
    return found, repeated
