"""Stages of a pipeline: which GPU of several runs which operators of a transformer that is cut between its blocks, and what goes from
one to the next.

The blocks are those of the lists of modules in which something attends to an image or a video, in the order in which they run; each
stage has as many, rounded up, the last what is left (xfuser/model_executor/models/transformers/base_transformer.py). What comes before
them is the first stage's as far as the image is embedded; embeddings of the timestep and the text are made on every GPU. What comes
after them, the guidance and the sampler's step included, is the last stage's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Mapping, Sequence
from typing import NamedTuple

from simtti.errors import InputError
from simtti.workloads.parallel.linear import contracts_tokens
from simtti.workloads.trace import Operator, TensorUse

EVERY = -1  # the stage of what every GPU does


class Staged(NamedTuple):
    """A step's operators in stages.

    of: of each operator its stage, or EVERY. sent: by stage, what goes from it to the next: tensors that it or one before it made for
    one after it, as the next sees them. latents: what the last stage sends to the first, the image that the next step begins with.
    """

    of: list[int]
    sent: list[list[TensorUse]]
    latents: list[TensorUse]


def blocks_of(
    workload: str, operators: Sequence[Operator], ranks: int, lengths: Container[int]
) -> dict[str, int]:
    """The stage of each block by its module's path; empty if nothing attends to an image in a list of modules.

    lengths: tokens of the image, with a text's beside them or without.

    Raises:
        InputError: fewer blocks than leave each stage some.
    """
    attending = {
        block.rpartition(".")[0]
        for operator in operators
        if (block := block_of(operator)) and _attends(operator, lengths)
    }
    found: dict[str, dict[str, None]] = {}  # by component
    for operator in operators:
        block = block_of(operator)
        if block and block.rpartition(".")[0] in attending:
            found.setdefault(block.partition(".")[0], {})[block] = None
    stages: dict[str, int] = {}
    for blocks in found.values():
        each = -(-len(blocks) // ranks)
        if -(-len(blocks) // each) < ranks:
            raise InputError(
                f"{workload} has {len(blocks)} blocks, {each} on a GPU, which leaves some of pipefusion {ranks} without; give "
                f"{-(-len(blocks) // each)} or less"
            )
        stages |= {block: number // each for number, block in enumerate(blocks)}
    return stages


def block_of(operator: Operator) -> str:
    """The path of the block that an operator is in: to the first number; '' if there is none."""
    parts = operator.module.split(".")
    at = next((at for at, part in enumerate(parts) if part.isdigit()), None)
    return "" if at is None else ".".join(parts[: at + 1])


def _attends(operator: Operator, lengths: Container[int]) -> bool:
    if contracts_tokens(operator):
        return operator.inputs[0].shape[-1] in lengths
    attributes = operator.attributes
    return (
        operator.category == "Attention"
        and attributes.get("kind") == "self"
        and attributes.get("domain") != "text"
        and operator.inputs[0].shape[-2] in lengths
    )


def staged(
    workload: str,
    operators: Sequence[Operator],
    blocks: Mapping[str, int],
    is_cut: Callable[[TensorUse], bool],
) -> Staged:
    """A step's operators in stages.

    Args:
        blocks: the stage of each block (`blocks_of`).
        is_cut: whether a tensor has the image's tokens.

    Raises:
        InputError: the step runs the denoiser twice, or its blocks in another order.
    """
    within = [at for at, operator in enumerate(operators) if block_of(operator) in blocks]
    last = max(blocks.values())
    of = [EVERY] * len(operators)
    for at in within:
        of[at] = blocks[block_of(operators[at])]
    if any(of[at] > of[after] for at, after in itertools.pairwise(within)):
        raise InputError(
            f"{workload} goes through its blocks twice in a step, with the prompt and without it; pipefusion needs cfg-parallel 2, "
            "or guidance off"
        )
    latents: list[TensorUse] = []
    if within:
        following = of[within[0]]
        for at in range(within[-1], within[0] - 1, -1):  # between two blocks: with the one that follows
            following = of[at] = following if of[at] == EVERY else of[at]
        embedding, latents = _embedding(operators[: within[0]], is_cut)
        for at in embedding:
            of[at] = 0
        of[within[-1] + 1 :] = [last] * (len(operators) - within[-1] - 1)
    return Staged(of, _sent(operators, of, last), latents)


def _embedding(
    before: Sequence[Operator], is_cut: Callable[[TensorUse], bool]
) -> tuple[set[int], list[TensorUse]]:
    """Of the operators before the first block, those that the image goes through; and the image that they begin with."""
    found = {
        at
        for at, operator in enumerate(before)
        if operator.category == "Convolution"
        or (operator.category == "Linear" and any(map(is_cut, operator.outputs)))
    }
    made: set[int] = set()
    for at, operator in enumerate(before):
        if at in found or any(use.tensor in made for use in operator.inputs):
            found.add(at)
            made.update(use.tensor for use in operator.outputs)
    wanted: dict[int, TensorUse] = {}
    for at in range(len(before) - 1, -1, -1):
        operator = before[at]
        outputs = {use.tensor for use in operator.outputs}
        if at in found and operator.category in ("Convolution", "Linear"):
            wanted |= {use.tensor: use for use in operator.inputs[-3:] if use.role in ("input", "activation")}
        elif outputs & set(wanted):
            found.add(at)
            read = {use.tensor: use for use in operator.inputs if use.role in ("input", "activation")}
            wanted = {tensor: use for tensor, use in wanted.items() if tensor not in outputs - set(read)}
            wanted |= read
    return found, [use for tensor, use in wanted.items() if tensor not in made]


def _sent(operators: Sequence[Operator], of: Sequence[int], last: int) -> list[list[TensorUse]]:
    """What crosses each boundary, by the parts that are read of it: the image and the text where they lie in one tensor."""
    made: dict[
        int, tuple[int, int]
    ] = {}  # by tensor, the stage that makes it, EVERY of what is everywhere; its elements
    sent: list[dict[tuple[int, tuple[int, ...]], TensorUse]] = [{} for _ in range(last)]
    for operator, stage in zip(operators, of, strict=True):
        for use in operator.inputs:
            maker, elements = made.setdefault(use.tensor, (EVERY, 0))
            if EVERY in (maker, stage):
                continue
            for boundary in range(maker, stage):
                parts = sent[boundary]
                before = sum(part.numel for (tensor, _), part in parts.items() if tensor == use.tensor)
                if (use.tensor, use.shape) not in parts and before + use.numel <= elements:
                    parts[use.tensor, use.shape] = use
        for use in operator.outputs:
            made.setdefault(use.tensor, (stage, use.numel))
    return [list(each.values()) for each in sent]
