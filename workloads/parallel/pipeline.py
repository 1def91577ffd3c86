"""PipeFusion: a transformer's blocks on several GPUs, which the image passes patch by patch (arXiv 2405.07719), as xDiT does it.

A step of the warm-up goes through the stages one after another, the image in one piece: each GPU works while the others wait. After
it the image is cut into patches. A GPU works on one patch with what it kept of the others from the step before, while the stages
before and after it work on other patches, of the next step and of the last: none waits but for what has not come yet. What goes from
stage to stage goes on beside the computation.

What a GPU waits for is not known of a trace: operators RECEIVE, of nothing, stand where it does, and `waiting` gives them their
seconds. There are three: before its part of a warm-up step, for the other stages'; once as the pipeline fills and empties; and before a
step, for the first patch to come back through all stages, where there are few patches.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from simtti.errors import InputError
from simtti.workloads.flops import flops
from simtti.workloads.parallel.degrees import WHOLE, Degrees
from simtti.workloads.parallel.linear import sums_of
from simtti.workloads.parallel.operands import (
    RECEIVE,
    SEND_RECEIVE,
    made,
    numbered,
    operator_like,
    unused_tensors,
)
from simtti.workloads.parallel.patches import Cut, Patch, cut_of
from simtti.workloads.parallel.stages import EVERY, Staged, block_of, blocks_of, staged
from simtti.workloads.parallel.tokens import Tokens, tokens_of
from simtti.workloads.trace import Operator, Phase, Step, TensorUse, Trace

WARM_UP, FILL, RETURN = "warm-up", "fill", "return"


def kinds_of(trace: Trace) -> list[list[Tokens]]:
    """The kinds of self-attention of each phase; none of a phase that no GPU gets a share of."""
    found = []
    for phase in trace.phases:
        operators = [] if phase.name in WHOLE else [op for step in phase.steps for op in step.operators]
        found.append([*tokens_of(operators), *map(Tokens, sorted(sums_of(operators)))])
    return found


def divided(
    trace: Trace, degrees: Degrees, kinds: Sequence[Sequence[Tokens]], stage: int | None = None
) -> Trace:
    """What the GPU of a stage runs of `trace`.

    Args:
        kinds: of the whole trace's attention, by phase (`kinds_of`); the trace may be one GPU's share of the tokens.
        stage: which, from 0; that with most FLOPs if None, as the slowest decides how fast patches pass.

    Raises:
        InputError: a denoiser without blocks of a transformer, or with fewer than stages; more patches than tokens.
    """
    fresh = unused_tensors(trace)
    plans = [_plan(trace.workload, *each, degrees) for each in zip(trace.phases, kinds, strict=True)]
    if not any(plans):
        raise InputError(
            f"{trace.workload} has no phase of several steps in which a transformer's blocks attend to an image or a video, whose "
            "blocks GPUs could share; pipefusion must be 1"
        )
    if stage is None:
        stage = max(range(degrees.pipefusion), key=lambda each: (_flops(plans, each), each))
    phases, gone = [], _Weights()
    for phase, plan in zip(trace.phases, plans, strict=True):
        steps = phase.steps
        if plan is not None:
            steps = tuple(_steps(trace.workload, plan, degrees, stage, fresh))
            gone.see(plan, stage)
        phases.append(Phase(phase.name, steps))
    kept = {
        use.tensor for phase in phases for step in phase.steps for op in step.operators for use in op.inputs
    }
    return dataclasses.replace(
        trace,
        phases=tuple(phases),
        parameters=gone.less(trace.parameters, kept, 1),
        parameter_bytes=gone.less(trace.parameter_bytes, kept, 0),
    )


class _Plan(NamedTuple):
    """A phase whose blocks are shared: how it is cut, and each of its steps in stages."""

    phase: Phase
    cut: Cut
    blocks: Mapping[str, int]
    steps: list[Staged]


def _plan(workload: str, phase: Phase, kinds: Sequence[Tokens], degrees: Degrees) -> _Plan | None:
    operators = [op for step in phase.steps for op in step.operators]
    if not kinds or sum(step.count for step in phase.steps) < 2:
        return None
    # What refines a text by itself attends to no more tokens than stand beside the image.
    kinds = [kind for kind in kinds if kind.image > max(text for _, text in kinds)]
    images = {image for image, _ in kinds}
    if len(images) > 1:
        sizes = ", ".join(map(str, sorted(images)))
        raise InputError(
            f"{workload} attends to images of {sizes} tokens, as a UNet does; pipefusion cuts the blocks of a transformer, whose "
            "tokens are as many in each: it must be 1"
        )
    (tokens,) = images
    if degrees.patches > -(-tokens // degrees.sequence):
        raise InputError(
            f"{workload} has {-(-tokens // degrees.sequence)} tokens of its image on a GPU, fewer than pipefusion-patches "
            f"{degrees.patches}"
        )
    cut = cut_of(operators, kinds, degrees)
    blocks = blocks_of(workload, operators, degrees.pipefusion, cut.lengths)
    if not blocks:
        return None
    return _Plan(
        phase,
        cut,
        blocks,
        [staged(workload, step.operators, blocks, cut.has_tokens) for step in phase.steps],
    )


def _flops(plans: Sequence[_Plan | None], stage: int) -> int:
    """What a stage does that not every one does."""
    return sum(
        step.count * flops(operator)
        for plan in plans
        if plan is not None
        for step, parts in zip(plan.phase.steps, plan.steps, strict=True)
        for operator, of in zip(step.operators, parts.of, strict=True)
        if of == stage
    )


def _steps(workload: str, plan: _Plan, degrees: Degrees, stage: int, fresh: Iterator[int]) -> Iterator[Step]:
    """The steps of one stage's GPU: those of the warm-up, the filling of the pipeline, the others patch by patch."""
    warm, filled = degrees.warmup_steps, False
    for step, parts in zip(plan.phase.steps, plan.steps, strict=True):
        own = [op for op, of in zip(step.operators, parts.of, strict=True) if of in (stage, EVERY)]
        if not any(of == stage for of in parts.of):
            yield Step(step.count, step.operators)
            continue
        last = degrees.pipefusion - 1
        received = parts.sent[stage - 1] if stage else parts.latents
        sent = parts.sent[stage] if stage < last else parts.latents
        count = min(warm, step.count)
        warm -= count
        if count:
            yield Step(count, numbered(_whole(own, received, sent, degrees, fresh, stage)))
        if step.count > count:
            if not filled:
                yield Step(1, (_receive(own[0], FILL, degrees),))
            filled = True
            passes = _passes(workload, plan.cut, own, received, sent, degrees, fresh, stage)
            yield Step(step.count - count, numbered(passes))


def _whole(
    own: Sequence[Operator],
    received: Sequence[TensorUse],
    sent: Sequence[TensorUse],
    degrees: Degrees,
    fresh: Iterator[int],
    stage: int,
) -> list[Operator]:
    """A step that the image passes in one piece."""
    names = _names(own, received, stage)
    exchange = _exchange(own[0], sent, received, degrees, fresh, names, overlapped=False)
    return [_receive(own[0], WARM_UP, degrees), exchange, *(_told_nothing(op) for op in own)]


def _names(own: Sequence[Operator], received: Sequence[TensorUse], stage: int) -> set[int]:
    """Identities that what comes and goes has in a stage's operators. What the last stage sends to the first, the latents, every GPU
    has of its own."""
    seen = {use.tensor for operator in own for use in (*operator.inputs, *operator.outputs)}
    return seen if stage else seen - {use.tensor for use in received}


def _exchange(
    like: Operator,
    sent: Sequence[TensorUse],
    received: Sequence[TensorUse],
    degrees: Degrees,
    fresh: Iterator[int],
    names: set[int],
    overlapped: bool,
) -> Operator:
    """What goes to the next stage and what comes from the one before; dense, under other identities where the stage has none."""

    def dense(use: TensorUse) -> TensorUse:
        return made(use.tensor if use.tensor in names else next(fresh), use.shape, use.dtype)

    attributes = {"ranks": degrees.gpus, "stages": degrees.pipefusion} | (
        {"overlapped": True} if overlapped else {}
    )
    return operator_like(
        like, SEND_RECEIVE, "Communication", tuple(map(dense, sent)), tuple(map(dense, received)), attributes
    )


def _receive(like: Operator, what: str, degrees: Degrees) -> Operator:
    attributes = {"ranks": degrees.gpus, "waits_for": what}
    return operator_like(like, RECEIVE, "Communication", (), (), attributes)


def _told_nothing(operator: Operator) -> Operator:
    """What the program lets go of is not known of what is kept and sent."""
    return dataclasses.replace(operator, released=()) if operator.released else operator


def _passes(
    workload: str,
    cut: Cut,
    own: Sequence[Operator],
    received: Sequence[TensorUse],
    sent: Sequence[TensorUse],
    degrees: Degrees,
    fresh: Iterator[int],
    stage: int,
) -> list[Operator]:
    """A step, patch by patch. While a patch is worked on, the one before it goes to the next stage, and the one after it comes. A
    text goes along once a step."""
    patch = [_told_nothing(op) for op in Patch(workload, own, cut, fresh).found]
    read = {use.tensor for op in patch for use in op.inputs}
    outside = {use.tensor for op in patch for use in op.inputs if use.role != "activation"}
    of_patch = {use.tensor for op in patch for use in op.outputs if use.role == "activation"} - outside
    coming = [use for use in received if cut.has_tokens(use)]
    if stage:
        of_patch |= {use.tensor for use in coming if use.tensor in read}
    names = [{tensor: next(fresh) for tensor in of_patch} for _ in range(degrees.patches)]
    known = _names(patch, received, stage)
    found = [_receive(own[0], RETURN, degrees)]
    for at, renames in enumerate(names):
        # The text of the next step comes as the first patch of it does.
        before, after = names[at - 1], names[(at + 1) % degrees.patches]
        leaves = [
            _named(cut.use(use), before) for use in sent if at == 1 % degrees.patches or cut.has_tokens(use)
        ]
        comes = [
            _named(cut.use(use), after)
            for use in received
            if at == degrees.patches - 1 or cut.has_tokens(use)
        ]
        there = known | set(before.values()) | set(after.values())
        exchange = _exchange(own[0], leaves, comes, degrees, fresh, there, overlapped=True)
        works = [_renamed(operator, renames) for operator in patch]
        begin = 0 if at else next(number for number, op in enumerate(works) if op.category == "Linear") + 1
        if not at:  # what it sends is of the step before: not until the GPU is through with that
            begun = works[begin - 1].outputs[0]
            mark = dataclasses.replace(begun, shape=(0,), strides=(1,))
            exchange = dataclasses.replace(exchange, inputs=(*exchange.inputs, mark))
        found += [*works[:begin], exchange, *works[begin:]]
    return found


def _named(use: TensorUse, names: Mapping[int, int]) -> TensorUse:
    return dataclasses.replace(use, tensor=names[use.tensor]) if use.tensor in names else use


def _renamed(operator: Operator, names: Mapping[int, int]) -> Operator:
    if not names:
        return operator
    return dataclasses.replace(
        operator,
        inputs=tuple(_named(use, names) for use in operator.inputs),
        outputs=tuple(_named(use, names) for use in operator.outputs),
    )


def between_stages(operator: Operator) -> bool:
    """Whether it sends to the next stage or waits for one, rather than exchanges within a stage."""
    return operator.op == RECEIVE or "stages" in operator.attributes


def waiting_steps(trace: Trace) -> Iterator[tuple[str, Step]]:
    """The steps of a stage's trace with what it waits for before them, WARM_UP or RETURN."""
    for phase in trace.phases:
        for step in phase.steps:
            for operator in step.operators[:1]:
                if operator.op == RECEIVE and operator.attributes["waits_for"] != FILL:
                    yield operator.attributes["waits_for"], step


def waiting(trace: Trace, seconds: Mapping[str, float]) -> Trace:
    """A stage's trace with how long it waits each time: seconds by WARM_UP, FILL and RETURN."""

    def timed(operator: Operator) -> Operator:
        if operator.op != RECEIVE:
            return operator
        attributes = {**operator.attributes, "wait_s": seconds[operator.attributes["waits_for"]]}
        return dataclasses.replace(operator, attributes=attributes)

    phases = tuple(
        Phase(phase.name, tuple(Step(step.count, tuple(map(timed, step.operators))) for step in phase.steps))
        for phase in trace.phases
    )
    return dataclasses.replace(trace, phases=phases)


class _Weights:
    """Weights of the blocks of other stages: by tensor its bytes, numbers and component."""

    def __init__(self) -> None:
        self._found: dict[int, tuple[int, int, str]] = {}

    def see(self, plan: _Plan, stage: int) -> None:
        for step, parts in zip(plan.phase.steps, plan.steps, strict=True):
            for operator, of in zip(step.operators, parts.of, strict=True):
                if of in (stage, EVERY) or block_of(operator) not in plan.blocks:
                    continue
                for use in operator.inputs:
                    if use.role == "parameter":
                        numbers = use.numel // use.shape[0] if 0 in use.strides else use.numel
                        component = operator.module.partition(".")[0]
                        self._found.setdefault(use.tensor, (use.storage_bytes, numbers, component))

    def less(self, whole: Mapping[str, int], kept: set[int], what: int) -> dict[str, int]:
        """whole: bytes or numbers of each component, without those of weights that are not kept."""
        gone: Counter[str] = Counter()
        for tensor, weight in self._found.items():
            if tensor not in kept:
                gone[weight[2]] += int(weight[what])
        return {name: size - gone[name] for name, size in whole.items()}
