"""Classifier-free guidance as it is run: at every step, at none, in some, in one batch of two or in two passes.

    guided_trace("sdxl", "interval:0.2-0.8", steps=30)

Whether a pipeline takes both predictions in one batch or one after the other is what its recording shows. Without guidance the
denoiser sees another batch, which follows from no recording of the other: both are recorded, which needs torch. Models that are
distilled from guidance (FLUX.1-dev) see each image once whatever the scale; there is nothing to turn off.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from simtti.errors import InputError, unknown
from simtti.workloads.flops import flops
from simtti.workloads.named import is_file
from simtti.workloads.record import workload_trace
from simtti.workloads.rewriting import (
    Writer,
    let_go_after_last_use,
    made_within,
    renumbered,
    with_identities,
)
from simtti.workloads.trace import Operator, Phase, Step, TensorUse, Trace

FORMS = ("on", "off", "in-turn", "interval:A-B")
# A denoiser that sees every image twice does twice the work but for what is done once (a text's projection).
_TWICE = 1.5


def guided_trace(workload: str, given: str, **options: Any) -> Trace:
    """The trace of a workload whose guidance runs as given.

    Args:
        given: 'on', as the workload runs it; 'off'; 'in-turn', two passes instead of a batch of two; 'interval:A-B', guidance
            in the steps from the share A of them to B.
        options: of `record`.

    Raises:
        InputError: none of these; a workload without guidance, or that sees each image once anyhow; torch is missing.
    """
    share = _interval(given)
    if given == "on":
        return workload_trace(workload, **options)
    if is_file(workload):
        raise InputError(
            f"guidance is {given!r}, which {workload} has or has not as it was recorded; leave it out"
        )
    guided = workload_trace(workload, **options)
    if guided.options.get("guidance", 0) <= 1:
        raise InputError(
            f"guidance is {given!r}, but {guided.workload} runs without guidance; leave --guidance out"
        )
    unguided = workload_trace(workload, guidance=1.0, **options)
    form = form_of(guided, unguided)
    if form == "embedded":
        raise InputError(
            f"guidance is {given!r}, but {guided.workload} is distilled from guidance and sees each image once at any scale; "
            "leave --guidance out"
        )
    if given == "off":
        return unguided
    if given == "in-turn":
        return guided if form == "in-turn" else in_turn(guided, unguided)
    assert share is not None
    return within(guided, unguided, *share, given)


def _interval(given: str) -> tuple[float, float] | None:
    name, colon, rest = given.partition(":")
    if not colon and name in FORMS:
        return None
    if name != "interval":
        raise unknown("guidance", given, FORMS)
    first, _, last = rest.partition("-")
    try:
        begin, end = float(first), float(last)
    except ValueError:
        begin = end = float("nan")
    if not 0 <= begin < end <= 1:
        raise InputError(
            f"guidance is {given!r}; it must name shares of the steps from 0 to 1, the smaller first, as interval:0.2-0.8"
        )
    return begin, end


def form_of(guided: Trace, unguided: Trace) -> str:
    """How the denoiser sees an image twice: 'batched', 'in-turn', or 'embedded' where it does not."""
    with_it, without = (_denoising(trace).steps[0].operators for trace in (guided, unguided))
    if sum(map(flops, with_it)) < _TWICE * sum(map(flops, without)):
        return "embedded"
    return "in-turn" if len(with_it) > _TWICE * len(without) else "batched"


def within(guided: Trace, unguided: Trace, begin: float, end: float, given: str) -> Trace:
    """`guided` with guidance in the steps from the share `begin` to `end` alone; text encoders run for both prompts.

    Steps that do the same are stored once, with their count, in the order in which they first occur.
    """
    phase, other = _denoising(guided), _denoising(unguided)
    count = phase.steps[0].count
    on = [begin * count <= number < end * count for number in range(count)]
    if not any(on):
        raise InputError(f"guidance is {given!r}, but none of {count} steps is in it; widen it")
    operators = {
        True: list(phase.steps[0].operators),
        False: _into(guided, unguided, Writer(guided), other.steps[0].operators),
    }
    steps = tuple(
        Step(on.count(kind), renumbered(operators[kind], number))
        for number, kind in enumerate(dict.fromkeys(on))
    )
    return _with(guided, Phase(phase.name, steps), given)


def in_turn(guided: Trace, unguided: Trace) -> Trace:
    """`guided`, whose denoiser sees a batch of two, with two passes over the batch instead, and the pipelines' combination:
    unconditional + scale * (conditional - unconditional)."""
    writer = Writer(guided)
    phase = _denoising(guided)
    operators = _into(guided, unguided, writer, _denoising(unguided).steps[0].operators)
    ours = [at for at, one in enumerate(operators) if one.module.partition(".")[0] in guided.parameters]
    begin, end = ours[0], ours[-1] + 1
    first = operators[begin:end]
    second = with_identities(first, {tensor: writer.identity() for tensor in made_within(first)})
    made = made_within(first)
    negative = next(use for one in operators[end:] for use in one.inputs if use.tensor in made)
    at = next(
        (number, slot)
        for number, one in reversed(list(enumerate(first)))
        for slot, use in enumerate(one.outputs)
        if use.tensor == negative.tensor
    )
    positive = replace(negative, tensor=second[at[0]].outputs[at[1]].tensor)
    writer.phase, writer.module = phase.name, "pipeline"
    difference, scaled, noise = (writer.like(negative) for _ in range(3))
    combined = [
        writer.call("sub", (positive, negative), (difference,), released=(positive,)),
        writer.call("mul", (difference,), (scaled,), released=(difference,)),
        writer.call("add", (negative, scaled), (noise,), released=(negative, scaled)),
    ]
    after = with_identities(operators[end:], {negative.tensor: noise.tensor})
    step = let_go_after_last_use([*operators[:begin], *first, *second, *combined, *after])
    return _with(guided, Phase(phase.name, (Step(phase.steps[0].count, renumbered(step, 0)),)), "in-turn")


# ---- one trace's step among another's tensors


def _into(guided: Trace, unguided: Trace, writer: Writer, operators: Sequence[Operator]) -> list[Operator]:
    """A step of `unguided` with the weights, inputs and results of `guided`'s."""
    ours = _denoising(guided).steps[0].operators
    identities = dict(zip(_weights(operators), _weights(ours), strict=False))
    if _sizes(operators) != _sizes(ours):
        raise InputError(f"{guided.workload}: steps with and without guidance use different weights")
    for theirs, own in ((_given(operators), _given(ours)), (_results(unguided), _results(guided))):
        if len(theirs) == len(own):
            identities.update(zip(theirs, own, strict=True))
    known = {use.tensor for one in operators for use in (*one.inputs, *one.outputs)}
    identities.update({tensor: writer.identity() for tensor in sorted(known - identities.keys())})
    return with_identities(operators, identities)


def _weights(operators: Iterable[Operator]) -> list[int]:
    """In the order in which they are first read."""
    return list(
        dict.fromkeys(
            use.tensor for one in operators for use in one.inputs if use.role in ("parameter", "buffer")
        )
    )


def _sizes(operators: Iterable[Operator]) -> list[int]:
    found: dict[int, int] = {}
    for one in operators:
        for use in one.inputs:
            if use.role in ("parameter", "buffer"):
                found.setdefault(use.tensor, use.storage_bytes)
    return list(found.values())


def _given(operators: Sequence[Operator]) -> list[int]:
    """Tensors that a step is given, in the order in which it first reads them."""
    made = made_within(operators)
    uses: list[TensorUse] = [use for one in operators for use in one.inputs]
    return list(
        dict.fromkeys(
            use.tensor for use in uses if use.role not in ("parameter", "buffer") and use.tensor not in made
        )
    )


def _results(trace: Trace) -> list[int]:
    """Tensors that the denoising step makes and later phases read."""
    phase = _denoising(trace)
    made = made_within(phase.steps[0].operators)
    after = trace.phases[trace.phases.index(phase) + 1 :]
    reads = (
        use.tensor for later in after for step in later.steps for one in step.operators for use in one.inputs
    )
    return list(dict.fromkeys(tensor for tensor in reads if tensor in made))


def _denoising(trace: Trace) -> Phase:
    """The one phase whose steps can be set.

    Raises:
        InputError: it has none, several, or steps that are stored one by one.
    """
    found = [phase for phase in trace.phases if phase.name in trace.schedule]
    if len(found) != 1 or len(found[0].steps) != 1:
        raise InputError(
            f"guidance: {trace.workload} has {len(found)} phases whose steps repeat; it can be changed where there is one"
        )
    return found[0]


def _with(trace: Trace, phase: Phase, given: str) -> Trace:
    phases = tuple(phase if one.name == phase.name else one for one in trace.phases)
    return replace(trace, phases=phases, options={**trace.options, "guided": given})
