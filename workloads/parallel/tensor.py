"""Tensor parallelism: the weights of a transformer's blocks over several GPUs, as Megatron-LM divides them (arXiv 1909.08053).

Of two linear layers with nothing between them but what works on each channel or head alone, the first has its rows divided, the
output features, and the second its columns, the input features; an all-reduce adds up what the second makes of its part. So for
queries, keys and values with the output projection behind attention, and for the layers of an MLP, gated or not; where one layer
makes both and one ends both, side by side, each part of it is divided by itself, and one all-reduce will do. Which layers of a
trace are such follows from its dataflow: `regions` are the operators between two layers, followed from each layer of a block.
What is normalised over all of a region's channels (queries before they are heads) needs an all-reduce of each token's mean.
Everything else, norms, modulations, embeddings and convolutions, every GPU does in full, as it does text encoders and the VAE.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence

from simtti.errors import InputError
from simtti.workloads.parallel import regions
from simtti.workloads.parallel.degrees import WHOLE
from simtti.workloads.parallel.operands import ALL_REDUCE, collective, numbered, resized
from simtti.workloads.parallel.regions import Cut, Regions
from simtti.workloads.trace import Operator, Phase, Step, TensorUse, Trace


def divided(trace: Trace, ranks: int) -> Trace:
    """What one of `ranks` GPUs that share the weights runs of `trace`.

    Raises:
        InputError: no linear layers that could be divided, or fewer than hold half of the denoiser's weights; heads or channels
            that the degree does not divide.
    """
    images = 2 * int(trace.options.get("batch", 1))
    phases, weights = [], _Weights()
    for phase in trace.phases:
        steps = phase.steps
        if phase.name not in WHOLE and any(_attends(op) for step in steps for op in step.operators):
            steps = tuple(
                Step(step.count, _step(trace.workload, step.operators, ranks, images, weights))
                for step in steps
            )
        phases.append(Phase(phase.name, steps))
    if weights.cut_bytes <= weights.all_bytes / 2:
        share = weights.cut_bytes / max(weights.all_bytes, 1)
        raise InputError(
            f"{trace.workload} cannot be divided by tensor {ranks}: {share:.0%} of its denoiser's weights are in blocks of a "
            "transformer, in linear layers with attention or an activation between them; tensor must be 1"
        )
    return dataclasses.replace(
        trace,
        phases=tuple(phases),
        parameters=_less(trace.parameters, weights.saved_numbers(ranks)),
        parameter_bytes=_less(trace.parameter_bytes, weights.saved_bytes(ranks)),
    )


def _attends(operator: Operator) -> bool:
    return operator.category == "Attention" and operator.attributes.get("domain") != "text"


def _less(whole: dict[str, int], saved: Counter[str]) -> dict[str, int]:
    return {name: size - saved[name] for name, size in whole.items()}


class _Weights:
    """The denoiser's weights, by tensor: bytes, numbers, component; and those that are divided."""

    def __init__(self) -> None:
        self._all: dict[int, tuple[int, int, str]] = {}
        self._cut: set[int] = set()

    def see(self, operators: Sequence[Operator], cuts: dict[int, Cut]) -> None:
        for operator in operators:
            component = operator.module.partition(".")[0]
            for use in operator.inputs:
                if use.role == "parameter":
                    numbers = use.numel if use.tensor not in self._all else self._all[use.tensor][1]
                    if 0 in use.strides:  # a weight that a batched product sees several times
                        numbers = use.numel // use.shape[0]
                    self._all.setdefault(use.tensor, (use.storage_bytes, numbers, component))
                    if use.tensor in cuts:
                        self._cut.add(use.tensor)

    @property
    def all_bytes(self) -> int:
        return sum(nbytes for nbytes, _, _ in self._all.values())

    @property
    def cut_bytes(self) -> int:
        return sum(self._all[tensor][0] for tensor in self._cut)

    def saved_bytes(self, ranks: int) -> Counter[str]:
        return self._saved(0, ranks)

    def saved_numbers(self, ranks: int) -> Counter[str]:
        return self._saved(1, ranks)

    def _saved(self, what: int, ranks: int) -> Counter[str]:
        found: Counter[str] = Counter()
        for tensor in self._cut:
            size, component = int(self._all[tensor][what]), self._all[tensor][2]
            found[component] += size - size // ranks
        return found


def _step(
    workload: str, operators: Sequence[Operator], ranks: int, images: int, weights: _Weights
) -> tuple[Operator, ...]:
    found = regions.find(operators, images)
    weights.see(operators, found.cuts)
    for at in found.heads:
        _check_heads(workload, operators[at], ranks)
    made = [
        one for at, operator in enumerate(operators) for one in _local(workload, operator, at, found, ranks)
    ]
    return numbered(made)


def _check_heads(workload: str, attention: Operator, ranks: int) -> None:
    heads = attention.inputs[0].shape[-3]
    if heads % ranks:
        raise InputError(
            f"{workload} has {heads} attention heads in {attention.module}, which tensor {ranks} does not divide"
        )


def _local(workload: str, operator: Operator, at: int, found: Regions, ranks: int) -> Iterator[Operator]:
    """One GPU's share of an operator, and the all-reduce of what each has a part of."""

    def local(use: TensorUse) -> TensorUse:
        cut = found.cuts.get(use.tensor)
        axis = cut.axis(use) if cut else found.masks(at, use)
        if axis is None:
            return use
        if use.shape[axis] % ranks:
            raise InputError(
                f"{workload}: {operator.module} has {use.shape[axis]} channels, which tensor {ranks} does not divide"
            )
        if cut:
            return cut.share(use, axis, ranks)
        return resized(use, [size // ranks if here == axis else size for here, size in enumerate(use.shape)])

    own = dataclasses.replace(
        operator,
        inputs=tuple(local(use) for use in operator.inputs),
        outputs=tuple(local(use) for use in operator.outputs),
    )
    yield own
    if at in found.partial:
        result = own.outputs[0]
        yield collective(own, ALL_REDUCE, ranks, (result,), (result,))
