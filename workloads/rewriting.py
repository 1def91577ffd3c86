"""What passes over a trace share: new tensors and operators beside the recorded ones.

A pass is a pure function from a Trace to a Trace; what it adds has identities that no tensor of the trace has.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from simtti.workloads.aten import operator as known_operator
from simtti.workloads.trace import ITEM_BYTES, Operator, TensorUse, Trace, row_major


class Writer:
    """Makes tensors and operators. phase, step, module: of the operators that are made next."""

    def __init__(self, trace: Trace) -> None:
        used = (use.tensor for op in trace.operators() for use in (*op.inputs, *op.outputs))
        self._fresh = itertools.count(max(used, default=-1) + 1)
        self.phase, self.step, self.module = "", 0, ""

    def identity(self) -> int:
        """An identity that no tensor has."""
        return next(self._fresh)

    def made(self, shape: Sequence[int], dtype: str, role: str = "activation") -> TensorUse:
        """A new dense tensor, row after row."""
        sizes = tuple(shape)
        return TensorUse(
            self.identity(), sizes, row_major(sizes), dtype, math.prod(sizes) * ITEM_BYTES[dtype], role
        )

    def like(self, use: TensorUse) -> TensorUse:
        """A new dense tensor of that shape and dtype."""
        return self.made(use.shape, use.dtype)

    def call(
        self,
        name: str,
        inputs: Sequence[TensorUse],
        outputs: Sequence[TensorUse],
        attributes: Mapping[str, Any] | None = None,
        released: Iterable[TensorUse] = (),
    ) -> Operator:
        """aten::NAME. released: what the program lets go of right after it."""
        known = known_operator(name)
        return Operator(
            self.phase, self.step, 0, self.module, f"aten::{name}", "View" if known.is_view else known.category,
            tuple(inputs), tuple(outputs), dict(attributes or {}), known.is_view,
            tuple(use.tensor for use in released),
        )  # fmt: skip


def renumbered(operators: Iterable[Operator], step: int) -> tuple[Operator, ...]:
    """The operators of a step, with their numbers in it and its own."""
    return tuple(replace(operator, step=step, position=at) for at, operator in enumerate(operators))


def made_within(operators: Iterable[Operator]) -> set[int]:
    """Storages that these operators make: activations that are first met as a result."""
    met: set[int] = set()
    made: set[int] = set()
    for operator in operators:
        met.update(use.tensor for use in operator.inputs)
        for use in operator.outputs:
            if use.tensor not in met and use.role == "activation":
                made.add(use.tensor)
            met.add(use.tensor)
    return made


def with_identities(operators: Iterable[Operator], identities: Mapping[int, int]) -> list[Operator]:
    """The operators with other identities for the tensors named, old to new."""
    uses: dict[TensorUse, TensorUse] = {}

    def renamed(use: TensorUse) -> TensorUse:
        if use.tensor not in identities:
            return use
        if use not in uses:
            uses[use] = replace(use, tensor=identities[use.tensor])
        return uses[use]

    return [
        replace(
            operator,
            inputs=tuple(map(renamed, operator.inputs)),
            outputs=tuple(map(renamed, operator.outputs)),
            released=tuple(identities.get(tensor, tensor) for tensor in operator.released),
        )
        for operator in operators
    ]


def let_go_after_last_use(operators: list[Operator]) -> list[Operator]:
    """The operators, where nothing is let go of before its last use."""
    last_use = {use.tensor: at for at, one in enumerate(operators) for use in (*one.inputs, *one.outputs)}
    released: dict[int, dict[int, None]] = {}
    for at, operator in enumerate(operators):
        for tensor in operator.released:
            released.setdefault(max(last_use.get(tensor, at), at), {})[tensor] = None
    return [replace(one, released=tuple(released.get(at, ()))) for at, one in enumerate(operators)]
