"""Linear attention in a trace: products that sum over all tokens what keys and values make of each, and what leads there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from simtti.workloads.trace import Operator


def contracts_tokens(operator: Operator) -> bool:
    """A product that sums over all tokens, of keys and values in linear attention: the dimension that goes is the longest."""
    if operator.op != "aten::bmm" or any(use.role == "parameter" for use in operator.inputs):
        return False
    left, right = operator.inputs
    return left.shape[-1] > max(left.shape[-2], right.shape[-1])


def sums_of(operators: Sequence[Operator]) -> set[int]:
    """The numbers of tokens that products in a list of modules sum over."""
    return {
        operator.inputs[0].shape[-1]
        for operator in operators
        if contracts_tokens(operator) and any(part.isdigit() for part in operator.module.split("."))
    }


class Summed(NamedTuple):
    """Linear attention's operators on all keys and values, by position; what they read that was made outside of it; its modules."""

    operators: frozenset[int]
    sources: frozenset[int]
    modules: frozenset[str]


def summed(operators: Sequence[Operator]) -> Summed:
    found: set[int] = set()
    sources: set[int] = set()
    sums = [at for at, operator in enumerate(operators) if contracts_tokens(operator)]
    for at in sums:
        module = operators[at].module
        wanted = {use.tensor for use in operators[at].inputs}
        for before in range(at - 1, -1, -1):
            operator = operators[before]
            outputs = {use.tensor for use in operator.outputs}
            if not wanted & outputs:
                continue
            if operator.module != module:
                sources |= wanted & outputs
                wanted -= outputs
            else:
                found.add(before)
                read = {use.tensor for use in operator.inputs if use.role != "parameter"}
                wanted = wanted - (outputs - read) | read
            if not wanted:
                break
        found.add(at)
    return Summed(frozenset(found), frozenset(sources), frozenset(operators[at].module for at in sums))
