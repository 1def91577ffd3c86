"""Linear layers of a trace, and what replaces them: the machinery under `quantization`, whose schemes say what a layer becomes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from simtti.workloads.aten import operator as known_operator
from simtti.workloads.parallel.degrees import CONTROL
from simtti.workloads.trace import ITEM_BYTES, Operator, Step, TensorUse, Trace, row_major

PRODUCTS = ("aten::mm", "aten::addmm", "aten::linear")
HALVES = ("bf16", "fp16")
RANK = 32  # exact: of SVDQuant's low-rank branch (Li et al., SVDQuant, 2024)


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear layer's call: its operator in the trace, input, weight, bias (or None) and result."""

    operator: Operator
    x: TensorUse
    weight: TensorUse
    bias: TensorUse | None

    @property
    def out(self) -> TensorUse:
        return self.operator.outputs[0]

    @property
    def n(self) -> int:
        return self.out.shape[-1]

    @property
    def k(self) -> int:
        return self.x.shape[-1]

    @property
    def m(self) -> int:
        return self.x.numel // self.k


@dataclass(frozen=True, slots=True)
class Scheme:
    """How a configuration changes linear layers.

    dtype: of the weights. multiplies: the type that tensor cores multiply, '' where it is the model's own. numbers: in an item of
    the weight. divides: what n and k have to be multiples of. scales: how many a weight of n x k has, and bytes of each. makes: the
    operators in place of a call. in_blocks: only layers of numbered blocks, not those before and after them.
    """

    dtype: str
    multiplies: str
    divides: int
    scales: Callable[[int, int], int]
    scale_dtype: str
    makes: Callable[[Maker, Linear], list[Operator]]
    numbers: int = 1
    more_inputs_than: int = 0
    in_blocks: bool = False

    def takes(self, linear: Linear) -> bool:
        """Whether the library quantises this layer."""
        if linear.operator.module.partition(".")[0] == CONTROL:
            return False
        fits = linear.n % self.divides == 0 and linear.k % self.divides == 0
        if self.in_blocks and not any(part.isdigit() for part in linear.operator.module.split(".")):
            return False
        return fits and linear.k > self.more_inputs_than and linear.x.dtype in HALVES


class Maker:
    """Rewrites steps. weights: the quantised ones by tensor. saved_bytes: of memory, by component."""

    def __init__(self, trace: Trace, scheme: Scheme, compiled: bool) -> None:
        self.scheme, self.compiled = scheme, compiled
        self.weights: dict[int, TensorUse] = {}
        self.scales: dict[int, TensorUse] = {}
        self.saved_bytes: dict[str, int] = {}
        used = (use.tensor for op in trace.operators() for use in (*op.inputs, *op.outputs))
        self._fresh = itertools.count(max(used, default=-1) + 1)
        self._factors: dict[int, tuple[TensorUse, TensorUse]] = {}
        self._mine: set[int] = set()  # activations that the pass makes
        self._ready: dict[object, tuple[TensorUse, ...]] = {}  # inputs that are quantised already

    def step(self, step: Step) -> Step:
        """A step with its linear layers replaced."""
        self._ready.clear()
        operators = [made for one in step.operators for made in self._replaced(one)]
        seen = [self._seen(one) for one in operators]
        if any(one.released for one in step.operators):
            seen = self._let_go(seen)
        return Step(step.count, tuple(replace(one, position=at) for at, one in enumerate(seen)))

    def _replaced(self, operator: Operator) -> list[Operator]:
        linear = linear_of(operator)
        if linear is not None and self.scheme.takes(linear):
            self._quantize(linear)
            *before, last = self.scheme.makes(self, linear)
            return [*before, replace(last, released=operator.released)]
        if not operator.is_view:
            written = {use.tensor for use in operator.outputs}
            for key in [key for key, made in self._ready.items() if made[0].tensor in written]:
                del self._ready[key]
        return [operator]

    def _let_go(self, operators: list[Operator]) -> list[Operator]:
        """The operators, each of which lets go of what was made here and is not used after it, as well as of what it did before."""
        last_use = {
            use.tensor: at
            for at, one in enumerate(operators)
            for use in (*one.inputs, *one.outputs)
            if use.tensor in self._mine
        }
        gone: dict[int, list[int]] = {}
        for tensor, at in last_use.items():
            gone.setdefault(at, []).append(tensor)
        return [
            replace(one, released=(*one.released, *gone[at])) if at in gone else one
            for at, one in enumerate(operators)
        ]

    def _seen(self, operator: Operator) -> Operator:
        """An operator that looks at a quantised weight (its transpose) sees the new one."""
        if not operator.is_view or not any(use.tensor in self.weights for use in operator.inputs):
            return operator
        inputs, outputs = (
            tuple(self._as_stored(use) for use in uses) for uses in (operator.inputs, operator.outputs)
        )
        return replace(operator, inputs=inputs, outputs=outputs)

    def _as_stored(self, use: TensorUse) -> TensorUse:
        stored = self.weights.get(use.tensor)
        if stored is None:
            return use
        shape = stored.shape if use.shape[-1] * self.scheme.numbers == stored.shape[-1] else use.shape
        return replace(use, shape=shape, dtype=stored.dtype, storage_bytes=stored.storage_bytes)

    def _quantize(self, linear: Linear) -> None:
        """The layer's weight and its scales, once."""
        old = linear.weight
        if old.tensor in self.weights:
            return
        scheme, n, k = self.scheme, linear.n, linear.k
        nbytes = n * k // scheme.numbers * ITEM_BYTES[scheme.dtype]
        # k x n, column after column, as _scaled_mm and _int_mm take it
        shape = (k // scheme.numbers, n)
        self.weights[old.tensor] = replace(
            old, shape=shape, strides=(1, shape[0]), dtype=scheme.dtype, storage_bytes=nbytes
        )
        scales = self.made((scheme.scales(n, k),), scheme.scale_dtype, "parameter")
        self.scales[old.tensor] = scales
        component = linear.operator.module.partition(".")[0]
        saved = old.storage_bytes - nbytes - scales.storage_bytes
        self.saved_bytes[component] = self.saved_bytes.get(component, 0) + saved

    def low_rank(self, linear: Linear) -> tuple[TensorUse, TensorUse]:
        """The two factors of the layer's low-rank branch, k x RANK and n x RANK."""
        key = linear.weight.tensor
        if key not in self._factors:
            half = linear.x.dtype
            made = tuple(self.made((size, RANK), half, "parameter") for size in (linear.k, linear.n))
            self._factors[key] = (made[0], made[1])
            component = linear.operator.module.partition(".")[0]
            self.saved_bytes[component] -= sum(use.storage_bytes for use in made)
        return self._factors[key]

    def made(
        self,
        shape: Sequence[int],
        dtype: str,
        role: str = "activation",
        strides: tuple[int, ...] = (),
    ) -> TensorUse:
        """A new dense tensor, row after row where no strides are given."""
        sizes = tuple(shape)
        nbytes = math.prod(sizes) * ITEM_BYTES[dtype]
        tensor = next(self._fresh)
        if role == "activation":
            self._mine.add(tensor)
        return TensorUse(tensor, sizes, strides or row_major(sizes), dtype, nbytes, role)

    def once(
        self,
        linear: Linear,
        make: Callable[[], tuple[list[Operator], tuple[TensorUse, ...]]],
        always: bool = False,
    ) -> tuple[list[Operator], tuple[TensorUse, ...]]:
        """What `make` does to the layer's input: operators and results; no operators where torch.compile has the results of another layer
        that reads the same. always: so does the library without it. Parts of a tensor may lie anywhere in it, so that only whole ones count as the same."""
        x = linear.x
        key = (x.tensor, x.shape, x.strides)
        if not (self.compiled or always) or x.nbytes != x.storage_bytes:
            return make()
        if key in self._ready:
            return [], self._ready[key][1:]
        operators, results = make()
        self._ready[key] = (x, *results)
        return operators, results


def linear_of(operator: Operator) -> Linear | None:
    """The linear layer that an operator is, None where it is none: a product with a parameter of two dimensions."""
    if operator.op not in PRODUCTS or not operator.outputs:
        return None
    if operator.op == "aten::linear":
        x, weight, *rest = operator.inputs
        bias = rest[0] if rest else None
    else:
        *rest, x, weight = operator.inputs
        bias = rest[0] if rest else None
    if weight.role != "parameter" or len(weight.shape) != 2:
        return None
    return Linear(operator, x, weight, bias)


class Calls:
    """Operators one after another, under a layer's module."""

    def __init__(self, maker: Maker, linear: Linear) -> None:
        self.maker, self.linear = maker, linear
        self.operators: list[Operator] = []

    def call(
        self,
        name: str,
        inputs: Sequence[TensorUse],
        out: TensorUse | tuple[TensorUse, ...],
        category: str = "Elementwise",
        on_host: bool = False,
        **attributes: object,
    ) -> TensorUse:
        """One more; its (first) result. category: of an operator that is not aten's. on_host: it asks nothing of the device."""
        outputs = out if isinstance(out, tuple) else (out,)
        full = name if "::" in name else f"aten::{name}"
        category = category if "::" in name else known_operator(full).category
        made = replace(self.linear.operator, op=full, category=category, is_view=on_host, released=())
        self.operators.append(replace(made, inputs=tuple(inputs), outputs=outputs, attributes=attributes))
        return outputs[0] if outputs else inputs[0]

    def each(self, name: str, x: TensorUse, dtype: str = "", *others: TensorUse) -> TensorUse:
        """An elementwise operator on all of x."""
        made = self.maker.made(x.shape, dtype or x.dtype, strides=x.strides)
        return self.call(name, (x, *others), made)
