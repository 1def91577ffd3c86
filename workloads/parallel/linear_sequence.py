"""Sequence parallelism of a transformer with linear attention: the tokens of its blocks over several GPUs.

As xDiT does it for Sana (core/long_ctx_attention): Ulysses exchanges heads for tokens of queries, keys, values and the result as for any
attention; a ring passes on keys and values, and each GPU multiplies what it has of them by its queries, and adds up. A convolution of a
block has the rows beyond a GPU's borders from its neighbours (`borders`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from simtti.errors import InputError
from simtti.workloads.parallel.borders import convolved, keeps_size, overlaps
from simtti.workloads.parallel.degrees import Degrees
from simtti.workloads.parallel.exchange import Exchange
from simtti.workloads.parallel.linear import Summed, summed
from simtti.workloads.parallel.operands import SEND_RECEIVE, made, operator_like, resized
from simtti.workloads.parallel.patches import Cut, cut_of
from simtti.workloads.parallel.tokens import Tokens
from simtti.workloads.trace import Operator, TensorUse


def shared(
    workload: str, operators: Sequence[Operator], tokens: int, degrees: Degrees, fresh: Iterator[int]
) -> list[Operator]:
    """What one of the GPUs that share a step's tokens runs of it.

    Raises:
        InputError: a convolution that reaches over borders in another way than between rows; fewer heads than the Ulysses degree.
    """
    cut = cut_of(operators, [Tokens(tokens)], Degrees(patches=degrees.sequence))
    found = summed(operators)
    share = _Share(workload, operators, tokens, degrees, cut, found, fresh)
    for at, operator in enumerate(operators):
        share.add(at, operator)
    # What the program lets go of is not known of the exchanges.
    return [dataclasses.replace(operator, released=()) for operator in share.found]


class _Share:
    def __init__(
        self,
        workload: str,
        operators: Sequence[Operator],
        tokens: int,
        degrees: Degrees,
        cut: Cut,
        sums: Summed,
        fresh: Iterator[int],
    ) -> None:
        self.workload, self.operators, self.tokens, self.degrees = workload, operators, tokens, degrees
        self.cut, self.sums, self.fresh = cut, sums, fresh
        self.found: list[Operator] = []
        self.ends = dict(_spans(operators, sums))  # the last operator of each attention by its first
        self.end = -1

    def add(self, at: int, operator: Operator) -> None:
        if at <= self.end:
            return
        if at in self.ends:
            self.end = self.ends[at]
            self._attend(at, self.end)
        elif operator.category == "Convolution" and overlaps(operator):
            self._convolve(operator)
        else:
            self.found.append(
                dataclasses.replace(
                    operator,
                    inputs=tuple(map(self.cut.use, operator.inputs)),
                    outputs=tuple(map(self.cut.use, operator.outputs)),
                )
            )

    def _convolve(self, operator: Operator) -> None:
        image, result = operator.inputs[0], operator.outputs[0]
        if not self.cut.is_image(image) or not keeps_size(operator):
            raise InputError(
                f"{self.workload}: a convolution of {operator.module} reaches over the borders between GPUs; only the tokens of "
                "a transformer can be shared"
            )

        def sent(rows: TensorUse) -> tuple[list[Operator], TensorUse]:
            own, theirs = (made(next(self.fresh), rows.shape, rows.dtype) for _ in range(2))
            copy = operator_like(operator, "aten::clone", "Memory", (rows,), (own,))
            exchange = operator_like(
                operator, SEND_RECEIVE, "Communication", (own,), (theirs,), {"ranks": self.degrees.gpus}
            )
            return [copy, exchange], theirs

        self.found += convolved(operator, self.cut.use(image), self.cut.use(result), sent, self.fresh)

    def _attend(self, begin: int, end: int) -> None:
        """Linear attention, from its first operator to its last."""
        operators = self.operators[begin : end + 1]
        inner = _Inner(self.workload, operators, self.tokens, self.degrees)
        made_here = {
            use.tensor
            for op in operators
            for use in op.outputs
            if use.tensor not in {one.tensor for one in op.inputs}
        }
        names: dict[int, int] = {}
        target = inner.by_heads(self.cut.use(operators[-1].outputs[0], True), inner.local)
        attention = operator_like(_outside(operators[0]), "aten::bmm", "Linear", (target,), (target,))
        exchange = Exchange(self.workload, attention, self.degrees, self.fresh, 0)
        for op in operators:
            for use in op.inputs:
                if use.role == "activation" and use.tensor not in made_here and use.tensor not in names:
                    brought, whole = exchange.gather(inner.by_heads(self.cut.use(use), inner.local))
                    self.found += brought
                    names[use.tensor] = whole.tensor
        pair = [names[use] for use in names if use in self.sums.sources]
        local = [inner.renamed(op, names) for op in operators]
        sums = [local[at - begin] for at in range(begin, end + 1) if at in self.sums.operators]
        product = next(op for op in local[local.index(sums[-1]) + 1 :] if op.op == "aten::bmm")
        at = local.index(product)
        received = [
            dict[int, int](),
            *({each: next(self.fresh) for each in pair} for _ in range(1, self.degrees.ring)),
        ]
        parts: list[Operator] = []
        for step, their in enumerate(received):
            if step + 1 < self.degrees.ring:
                self._pass_on(operators[0], inner, pair, their, received[step + 1], local)
            if step:
                parts += self._again([*sums, product], their, product)
        self.found += [*local[: at + 1], *parts, *local[at + 1 :]]
        last = local[-1].outputs[0]
        result = dataclasses.replace(inner.by_heads(last, inner.ring), tensor=next(self.fresh))
        self.found[-1] = dataclasses.replace(
            local[-1], outputs=(dataclasses.replace(last, tensor=result.tensor), *local[-1].outputs[1:])
        )
        self.found += exchange.scatter(result)

    def _pass_on(
        self,
        like: Operator,
        inner: _Inner,
        pair: Sequence[int],
        their: dict[int, int],
        nexts: dict[int, int],
        local: Sequence[Operator],
    ) -> None:
        """Send on what a GPU has of keys and values while it works on them."""
        uses = {use.tensor: use for op in reversed(local) for use in op.inputs if use.tensor in pair}
        sent = [inner.by_heads(uses[each], inner.ring) for each in pair]
        self.found.append(
            operator_like(
                _outside(like),
                SEND_RECEIVE,
                "Communication",
                tuple(
                    dataclasses.replace(use, tensor=their.get(each, each))
                    for each, use in zip(pair, sent, strict=True)
                ),
                tuple(
                    dataclasses.replace(use, tensor=nexts[each]) for each, use in zip(pair, sent, strict=True)
                ),
                {"overlapped": True, "ranks": self.degrees.gpus},
            )
        )

    def _again(
        self, operators: Sequence[Operator], names: dict[int, int], product: Operator
    ) -> list[Operator]:
        """The products with the keys and values of another GPU, added to the result."""
        names = dict(names)
        for op in operators:
            for use in op.outputs:
                if not op.is_view and use.tensor not in names:
                    names[use.tensor] = next(self.fresh)
        again = [_renamed(op, names) for op in operators]
        result, part = product.outputs[0], again[-1].outputs[0]
        return [*again, operator_like(product, "aten::add_", "Elementwise", (result, part), (result,))]


def _outside(operator: Operator) -> Operator:
    """Where an exchange is: beside the attention's own operators."""
    return dataclasses.replace(operator, module=f"{operator.module}.exchange")


def _spans(operators: Sequence[Operator], sums: Summed) -> Iterator[tuple[int, int]]:
    """The first and the last operator of each linear attention."""
    at = 0
    while at < len(operators):
        module = operators[at].module
        end = at
        while end + 1 < len(operators) and operators[end + 1].module == module:
            end += 1
        if module in sums.modules and any(one in sums.operators for one in range(at, end + 1)):
            yield at, end
        at = end + 1


class _Inner:
    """Sizes of what one GPU has within an attention: `ring` tokens, of so many GPUs as share the heads, which have `local` each; a part of
    the heads."""

    def __init__(self, workload: str, operators: Sequence[Operator], tokens: int, degrees: Degrees) -> None:
        (total,) = {use.shape[0] for op in operators if op.op == "aten::bmm" for use in op.outputs}
        seen = [use.shape for op in operators for use in op.inputs if len(use.shape) == 4]
        self.batch, self.heads = seen[0][0], seen[0][1]
        if total != self.batch * self.heads:
            raise InputError(
                f"{workload}: linear attention in {operators[0].module} in a form that is not known; ulysses and ring must be 1"
            )
        width = next(
            size
            for op in operators
            for use in op.inputs
            if len(use.shape) == 3
            for size in use.shape[1:]
            if size != tokens and size % self.heads == 0
        )
        own = -(-self.heads // degrees.ulysses)
        self.width = width // self.heads
        self.local = -(-tokens // degrees.sequence)
        self.ring = self.local * degrees.ulysses
        self.sizes = {
            tokens: self.ring, total: self.batch * own, self.heads: own, width: own * self.width,
        }  # fmt: skip

    def use(self, use: TensorUse) -> TensorUse:
        if use.role == "parameter":
            return use
        return resized(use, [self.sizes.get(size, size) for size in use.shape])

    def renamed(self, operator: Operator, names: dict[int, int]) -> Operator:
        own = dataclasses.replace(
            operator,
            inputs=tuple(map(self.use, operator.inputs)),
            outputs=tuple(map(self.use, operator.outputs)),
        )
        return _renamed(own, names)

    def by_heads(self, use: TensorUse, tokens: int) -> TensorUse:
        """(batch, heads, tokens, width) of what has heads and widths in one dimension."""
        heads = use.numel // (self.batch * tokens * self.width)
        return dataclasses.replace(
            use,
            shape=(self.batch, heads, tokens, self.width),
            strides=(tokens * heads * self.width, self.width, heads * self.width, 1),
        )


def _renamed(operator: Operator, names: dict[int, int]) -> Operator:
    def named(use: TensorUse) -> TensorUse:
        return dataclasses.replace(use, tensor=names[use.tensor]) if use.tensor in names else use

    return dataclasses.replace(
        operator, inputs=tuple(map(named, operator.inputs)), outputs=tuple(map(named, operator.outputs))
    )
