"""The transformer blocks of a denoiser's step: which operators are whose, and what each hands to the next.

A block is a member of a list that stands directly under a component ('transformer.transformer_blocks.0'), as diffusers' caches
find them (hooks/_common.py). A step may pass through them more than once: guidance in turn does twice.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from simtti.workloads.trace import Operator, TensorUse

LISTS = ("transformer_blocks", "single_transformer_blocks", "blocks")
_BLOCK = re.compile(rf"^(\w+\.(?:{'|'.join(LISTS)}))\.(\d+)(?:\.|$)")


@dataclass(frozen=True, slots=True)
class Blocks:
    """One pass of a step through its blocks.

    lists: the lists in order, each with how many blocks it has. begins, ends: for each block the position of its first
    operator, and of the one after its last. states[b]: what is handed to block b, the hidden states first, then the text's
    where the blocks carry those too; None where a stream is not found; the last is what comes out of the last block.
    """

    lists: tuple[tuple[str, int], ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]
    states: tuple[tuple[TensorUse | None, ...], ...]

    def __len__(self) -> int:
        return len(self.begins)


def block_of(module: str) -> tuple[str, int] | None:
    """The list and the number of the block that a module is in, None if it is in none.

    >>> block_of("transformer.single_transformer_blocks.7.attn.to_q")
    ('transformer.single_transformer_blocks', 7)
    >>> block_of("unet.down_blocks.0.attentions.0.transformer_blocks.0") is None
    True
    """
    found = _BLOCK.match(module)
    return (found[1], int(found[2])) if found else None


def passes(operators: Sequence[Operator]) -> list[Blocks]:
    """The passes of a step through its blocks; none where it has no blocks."""
    found: list[list[tuple[tuple[str, int], int, int]]] = []
    for at, operator in enumerate(operators):
        block = block_of(operator.module)
        if block is None:
            continue
        current = found[-1] if found else []
        if current and current[-1][0] == block:
            current[-1] = (block, current[-1][1], at + 1)
        elif not current or block in [known for known, _, _ in current]:
            found.append([(block, at, at + 1)])
        else:
            current.append((block, at, at + 1))
    return [_blocks(operators, one) for one in found]


def _blocks(operators: Sequence[Operator], spans: list[tuple[tuple[str, int], int, int]]) -> Blocks:
    counts: dict[str, int] = {}
    for (name, _), _, _ in spans:
        counts[name] = counts.get(name, 0) + 1
    begins = tuple(begin for _, begin, _ in spans)
    ends = tuple(end for _, _, end in spans)
    return Blocks(tuple(counts.items()), begins, ends, _states(operators, begins, ends))


def _states(
    operators: Sequence[Operator], begins: Sequence[int], ends: Sequence[int]
) -> tuple[tuple[TensorUse | None, ...], ...]:
    """What goes from block to block. Blocks hand on what they take: the shapes after the first are those everywhere. What the
    first makes for all (a table of sines) was not handed to it."""
    after_first = _read_later(operators, begins[0], ends[0])
    largest_first = sorted(after_first, key=lambda use: use.numel, reverse=True)
    taken = [(use, _handed(operators, begins[0], ends[0], use)) for use in largest_first]
    streams = [(use, handed) for use, handed in taken if handed is not None]
    found: list[tuple[TensorUse | None, ...]] = [tuple(handed for _, handed in streams)]
    for begin, end in zip(begins, ends, strict=True):
        carried = {use.tensor for use in _read_later(operators, begin, end)}
        found.append(tuple(_left(operators, begin, end, carried, stream) for stream, _ in streams))
    return tuple(found)


def _read_later(operators: Sequence[Operator], begin: int, end: int) -> list[TensorUse]:
    """The tensors that operators from `begin` to `end` make and later ones read, as the first of those sees each."""
    made = {
        use.tensor
        for operator in operators[begin:end]
        for use in operator.outputs
        if use.role == "activation"
    } - {use.tensor for operator in operators[:begin] for use in operator.outputs}
    found: dict[int, TensorUse] = {}
    for operator in operators[end:]:
        for use in operator.inputs:
            if use.tensor in made:
                found.setdefault(use.tensor, use)
    return list(found.values())


def _handed(operators: Sequence[Operator], begin: int, end: int, stream: TensorUse) -> TensorUse | None:
    """What the first block is given of a stream: of what was there before, the last of its shape that it reads."""
    before = {use.tensor for operator in operators[:begin] for use in (*operator.inputs, *operator.outputs)}
    found = None
    for operator in operators[begin:end]:
        for use in operator.inputs:
            if use.tensor in before and use.shape == stream.shape:
                found = use
    return found


def _left(
    operators: Sequence[Operator], begin: int, end: int, carried: set[int], stream: TensorUse
) -> TensorUse | None:
    """What a block leaves of a stream: the last result of that shape in a tensor that is read later."""
    for operator in reversed(operators[begin:end]):
        for use in operator.outputs:
            if use.tensor in carried and use.shape == stream.shape:
                return use
    return None
