"""CFG parallelism: the two halves of classifier-free guidance on two groups of GPUs.

As xDiT does it (xfuser/model_executor/pipelines): each group denoises the images of one half, with the prompt or without it, and
an all-gather brings the two predictions of the noise together before each step of the sampler, which every GPU does. A trace
shows the halves in one of two ways:

    batched     the pipeline doubles the latent images (`torch.cat([latents] * 2)`), runs its denoiser once, and splits the result
    in turn     the pipeline runs its denoiser twice in a step, as for Wan

UNets are shared as transformers are: it is the batch that is halved. Text encoders and the VAE run as on one GPU.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator, Sequence

from simtti.errors import InputError
from simtti.workloads.parallel.degrees import WHOLE
from simtti.workloads.parallel.operands import (
    ALL_GATHER,
    collective,
    made,
    numbered,
    operator_like,
    renamed,
    resized,
    unused_tensors,
)
from simtti.workloads.trace import Operator, Phase, Step, TensorUse, Trace

# Two halves: with the prompt, and without it.
HALVES = 2


def halved(trace: Trace) -> Trace:
    """What a GPU of one of the two groups runs of `trace`: of two halves that differ (prompts of other lengths), the larger.

    Raises:
        InputError: no phase denoises two halves: guidance is off, or an input of the denoiser (embedded).
    """
    fresh = unused_tensors(trace)
    phases, shared = [], False
    for phase in trace.phases:
        steps = []
        for step in phase.steps:
            found = None if phase.name in WHOLE else _half(step.operators, fresh)
            shared |= found is not None
            steps.append(step if found is None else Step(step.count, numbered(found)))
        phases.append(Phase(phase.name, tuple(steps)))
    if not shared:
        raise InputError(
            f"{trace.workload} has no step that denoises with the prompt and without it (guidance is off, or embedded in the "
            "denoiser's input), whose halves two groups of GPUs could take; cfg-parallel must be 1"
        )
    return dataclasses.replace(trace, phases=tuple(phases))


def _half(operators: Sequence[Operator], fresh: Iterator[int]) -> list[Operator] | None:
    """A step's operators of one half, then the all-gather and what comes after it; None where there are not two."""
    doubled = next((at for at, operator in enumerate(operators) if _doubles(operator)), None)
    found = None if doubled is None else _half_of_batch(operators, doubled, fresh)
    return found or _half_of_turns(operators, fresh)


# ---- batched


def _doubles(operator: Operator) -> bool:
    """Whether it is a batch of images twice."""
    if operator.op != "aten::cat" or len(operator.inputs) != HALVES or not operator.inputs[0].shape:
        return False
    first, second = operator.inputs
    return (first.tensor, first.shape, first.strides) == (second.tensor, second.shape, second.strides) and (
        operator.outputs[0].shape[0] == HALVES * first.shape[0]
    )


def _splits(operator: Operator, images: int, carried: set[int]) -> bool:
    """Whether it is the denoiser's result in two: of the images with the prompt and of those without it."""
    if operator.op != "aten::split" or len(operator.outputs) != HALVES or not operator.inputs[0].shape:
        return False
    whole = operator.inputs[0]
    return (
        whole.tensor in carried
        and whole.shape[0] == images
        and all(use.shape == (images // HALVES, *whole.shape[1:]) for use in operator.outputs)
    )


def _half_of_batch(
    operators: Sequence[Operator], doubled: int, fresh: Iterator[int]
) -> list[Operator] | None:
    """The operators with half of the images between the operator that doubles them and the one that splits them; None if no
    operator does."""
    twice, once = operators[doubled].outputs[0], operators[doubled].inputs[0]
    images = twice.shape[0]
    carried: set[int] = {twice.tensor}
    known: set[int] = set()
    found = list(operators[:doubled])
    for at, operator in enumerate(operators[doubled + 1 :], doubled + 1):
        if _splits(operator, images, carried):
            gather, gathered = _gathered(
                operator, _halved(operator.inputs[0], images), operator.inputs[0], fresh
            )
            names = {operator.inputs[0].tensor: gathered.tensor}
            rest = [_renamed(later, names) for later in operators[at:]]
            # The denoiser is given the images themselves, not twice in a new tensor.
            before = [_renamed(one, {twice.tensor: once.tensor}, kept=(twice.tensor,)) for one in found]
            return [*before, *gather, *rest]
        for use in operator.inputs:
            if use.tensor not in carried | known and _holds_images(use, images):
                carried.add(use.tensor)
        of_images = any(_is_carried(use, images, carried) for use in operator.inputs)
        known.update(use.tensor for use in operator.outputs)
        if of_images or _repeats(operator, images):
            carried.update(use.tensor for use in operator.outputs)
        found.append(
            dataclasses.replace(
                operator,
                inputs=tuple(
                    _halved(use, images) if _is_carried(use, images, carried) else use
                    for use in operator.inputs
                ),
                outputs=tuple(
                    _halved(use, images) if use.tensor in carried else use for use in operator.outputs
                ),
            )
        )
    return None


def _holds_images(use: TensorUse, images: int) -> bool:
    """Of what comes from outside of the step: embeddings of each image's prompt, or of each frame of each."""
    if use.role not in ("input", "activation") or not use.shape:
        return False
    return use.shape[0] == images or (len(use.shape) > 2 and use.shape[0] % images == 0)


def _is_carried(use: TensorUse, images: int, carried: set[int]) -> bool:
    """Whether it has a part for each image: made of what has, or the same seen by each (a weight in a batched product)."""
    return use.tensor in carried or bool(use.shape and use.shape[0] == images > use.strides[0] == 0)


def _repeats(operator: Operator, images: int) -> bool:
    """Whether it gives every image the same: a timestep, a constant."""
    constant = not operator.inputs and operator.op != "aten::arange"
    repeats = constant or operator.op in ("aten::expand", "aten::repeat")
    return repeats and bool(operator.outputs) and operator.outputs[0].shape[:1] == (images,)


def _halved(use: TensorUse, images: int) -> TensorUse:
    """With half of the images, which are the outermost in memory of the dimensions that they divide: of themselves, of frames,
    heads or tokens with them."""
    if not use.shape:
        return use
    if use.strides[0] == 0 and use.shape[0] == images:  # the same for each image: one in memory
        return dataclasses.replace(use, shape=(images // HALVES, *use.shape[1:]))
    axes = [axis for axis, size in enumerate(use.shape) if size % images == 0 and use.strides[axis]]
    if not axes:
        return use
    outermost = max(axes, key=lambda axis: use.strides[axis])
    return resized(
        use, [size // HALVES if axis == outermost else size for axis, size in enumerate(use.shape)]
    )


# ---- in turn


def _half_of_turns(operators: Sequence[Operator], fresh: Iterator[int]) -> list[Operator] | None:
    """The operators without one of the denoiser's two runs, that of the smaller tensors; None if there are not two alike."""
    runs = _runs(operators)
    if runs is None:
        return None
    kept, dropped = sorted(runs, key=lambda run: -sum(_bytes_made(operators[at]) for at in run))
    results = [_results(operators, run, after=max(map(max, runs))) for run in (kept, dropped)]
    if not results[0] or len(results[0]) != len(results[1]):
        return None
    of_dropped = _made_in(operators, dropped)
    if any(use.tensor in of_dropped for at in kept for use in operators[at].inputs):
        return None
    last = max(map(max, runs))
    gone = set(dropped)
    found = [operator for at, operator in enumerate(operators[: last + 1]) if at not in gone]
    names: dict[int, int] = {}
    for own, other in zip(*results, strict=True):
        both = dataclasses.replace(own, shape=(HALVES * own.shape[0], *own.shape[1:]))
        gather, gathered = _gathered(found[-1], own, both, fresh)
        found += gather
        names |= {own.tensor: gathered.tensor, other.tensor: gathered.tensor}
    released = [tensor for at in dropped for tensor in operators[at].released if tensor not in of_dropped]
    found[-1] = dataclasses.replace(found[-1], released=(*found[-1].released, *released))
    return found + [_renamed(later, names) for later in operators[last + 1 :]]


def _runs(operators: Sequence[Operator]) -> tuple[list[int], list[int]] | None:
    """The positions of the denoiser's operators in its first and its second run, which do the same with the same weights."""
    components = Counter(
        operator.module.partition(".")[0]
        for operator in operators
        if any(use.role == "parameter" for use in operator.inputs)
    )
    if not components:
        return None
    denoiser = components.most_common(1)[0][0]
    own = [at for at, operator in enumerate(operators) if operator.module.partition(".")[0] == denoiser]
    if len(own) % HALVES:
        return None
    first, second = own[: len(own) // HALVES], own[len(own) // HALVES :]
    if [_done(operators[at]) for at in first] != [_done(operators[at]) for at in second]:
        return None
    return first, second


def _done(operator: Operator) -> tuple[str, str, tuple[int, ...]]:
    weights = tuple(use.tensor for use in operator.inputs if use.role == "parameter")
    return operator.op, operator.module, weights


def _bytes_made(operator: Operator) -> int:
    return sum(use.nbytes for use in operator.outputs)


def _made_in(operators: Sequence[Operator], run: Sequence[int]) -> set[int]:
    """Tensors that a run makes, not those that it views or writes into."""
    found: set[int] = set()
    for at in run:
        read = {use.tensor for use in operators[at].inputs}
        found.update(use.tensor for use in operators[at].outputs if use.tensor not in read)
    return found


def _results(operators: Sequence[Operator], run: Sequence[int], after: int) -> list[TensorUse]:
    """What a run makes for the operators after position `after`: each tensor as its last operator left it."""
    wanted = {use.tensor for operator in operators[after + 1 :] for use in operator.inputs}
    wanted &= _made_in(operators, run)
    left = {use.tensor: use for at in run for use in operators[at].outputs if use.tensor in wanted}
    return list(left.values())


# ---- both


def _gathered(
    like: Operator, own: TensorUse, both: TensorUse, fresh: Iterator[int]
) -> tuple[list[Operator], TensorUse]:
    """The all-gather of the two groups' predictions, and its result."""
    found = []
    pipeline = dataclasses.replace(like, module="pipeline")
    released: tuple[int, ...] = (own.tensor,)
    if not own.contiguous:
        copy = made(next(fresh), own.shape, own.dtype)
        found.append(operator_like(pipeline, "aten::clone", "Memory", (own,), (copy,)))
        own, released = copy, (own.tensor, copy.tensor)
    assert math.prod(both.shape) == HALVES * own.numel
    result = made(next(fresh), both.shape, own.dtype)
    gather = collective(pipeline, ALL_GATHER, HALVES, (own,), (result,))
    return [*found, dataclasses.replace(gather, released=released)], result


def _renamed(operator: Operator, names: dict[int, int], kept: tuple[int, ...] = ()) -> Operator:
    """With other identities for some tensors; those `kept` are not let go of, as they are not there."""
    return dataclasses.replace(
        operator,
        inputs=renamed(operator.inputs, names),
        outputs=renamed(operator.outputs, names),
        released=tuple(names.get(tensor, tensor) for tensor in operator.released if tensor not in kept),
    )
