"""What TorchInductor schedules: a step's operators as it decomposes them, before it fuses any.

- A convolution leaves its bias to an addition of its own, which fuses with what follows (torch/_inductor/kernel/conv.py); the
  library's kernel is left without.
- Two-dimensional convolutions run with channels last, where a step has enough of them (decide_layout_opt in
  torch/_inductor/graph.py); the kernels around them write and read that layout as they go. Weights that do not lie so are copied
  on every call, as without freezing.
- A normalisation whose row a block does not hold, GroupNorm's, is a reduction split over blocks and, once all of them are
  through, the application of what they found (`split_reduction` in torch/_inductor/ir.py). So is a reduction to fewer results than
  the device has SMs, the largest magnitude of a whole tensor: what divides by it is another kernel.
- Such a reduction works out again what it reads where that takes few reads, so that nobody waits for it to be written
  (`should_realize_on_reuse` in torch/_inductor/ir.py).
- What only changes the way a tensor is seen is no node; mean and deviation of a norm, which nobody reads, are not made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from simtti.hw_configs.hardware import Hardware
from simtti.workloads.trace import Operator, TensorUse

FUSIBLE = ("Elementwise", "LayerNorm", "GroupNorm", "Softmax", "Memory")
NORMALIZATIONS = ("LayerNorm", "GroupNorm", "Softmax")
REDUCTIONS = ("mean", "sum", "var", "var_mean", "amax", "amin", "max", "min", "linalg_vector_norm", "norm")
CONCATENATIONS = ("cat", "stack")
# exact: max_pointwise_cat_inputs in torch/_inductor/config.py
MOST_CONCATENATED = 8
# Not walked element by element, or not by Inductor: look-ups, and copies between host and device.
NOT_FUSED = ("embedding", "index", "index_select", "gather", "_local_scalar_dense")
BIAS = 2  # exact: the inputs of a convolution are data, weights and bias, in this order
_SCALE_SHIFT = ("rsqrt", "mul", "add")  # what applying a norm does to an element beside its own function
_WORKSPACES = 1000  # exact: by definition: below the numbers of kernels' own workspaces
# exact: loads of an element from which on what others read too is written (realize_reads_threshold in torch/_inductor/config.py)
MOST_LOADS = 4
NORM_LOADS = 3  # exact: what an element of a norm's result is made of
PLANAR = 4  # exact: dimensions of the data of a two-dimensional convolution
# exact: nodes to a convolution up to which channels go last (decide_layout_opt)
MOST_NODES_A_CONVOLUTION = 300


@dataclass(frozen=True, slots=True)
class Node:
    """One thing to schedule.

    operator: its position in the step. kind: 'library', 'pointwise', 'reduction' (a row a block), or 'split' (a reduction over
    several blocks, whose result waits for all of them). functions: what is done to an element, by aten's names. size: elements
    walked. run_bytes: of a reduction whose rows lie in pieces, bytes of a piece; 0 where they are whole.
    """

    operator: int
    kind: str
    functions: tuple[str, ...]
    reads: tuple[TensorUse, ...]
    writes: tuple[TensorUse, ...]
    size: int
    run_bytes: int = 0

    @property
    def is_library(self) -> bool:
        return self.kind == "library"

    @property
    def is_whole(self) -> bool:
        """Whether it reduces all of a tensor to a few results."""
        return self.kind == "split" and self.functions[-1] in REDUCTIONS

    @property
    def is_concatenation(self) -> bool:
        return self.functions[0] in CONCATENATIONS


def nodes_of(operators: Sequence[Operator], hardware: Hardware) -> list[Node]:
    """The nodes of a step, in order."""
    launched = [
        (index, operator)
        for index, operator in enumerate(operators)
        if not operator.is_view and operator.attributes.get("device") != "cpu"
    ]
    last = channels_go_last(operators)
    found: list[Node] = []
    for index, operator in launched:
        if last and goes_last(operator):
            found += _weights_copy(index, operator)
        found += _of(index, operator, hardware, last)
    return _worked_out_again(found)


def channels_go_last(operators: Sequence[Operator]) -> bool:
    """Whether a step's two-dimensional convolutions run with channels last."""
    convolutions = sum(goes_last(operator) for operator in operators)
    return 0 < len(operators) < MOST_NODES_A_CONVOLUTION * convolutions


def goes_last(operator: Operator) -> bool:
    """Whether it is a convolution that can run with channels last."""
    dense = operator.category == "Convolution" and int(operator.attributes.get("groups", 1)) == 1
    return dense and len(operator.inputs[0].shape) == PLANAR


def as_called(operator: Operator, channels_last: bool) -> Operator:
    """A library's operator as the generated code calls it: a convolution without its bias, and with channels last."""
    if leaves_bias(operator):
        operator = replace(operator, inputs=operator.inputs[:BIAS])
    if not (channels_last and goes_last(operator)):
        return operator
    return replace(
        operator,
        inputs=tuple(with_channels_last(use) for use in operator.inputs),
        outputs=tuple(with_channels_last(use) for use in operator.outputs),
    )


def with_channels_last(use: TensorUse) -> TensorUse:
    """The same tensor, dense, with channels last."""
    if len(use.shape) != PLANAR:
        return use
    _, c, h, w = use.shape
    return replace(use, strides=(c * h * w, 1, c * w, c))


def _weights_copy(index: int, operator: Operator) -> list[Node]:
    """The copy of a convolution's weights with channels last; those of a single tap lie so in any case."""
    weight = operator.inputs[1]
    if math.prod(weight.shape[2:]) == 1 or weight.channels_last:
        return []
    copy = replace(weight, tensor=-(2 * index + 2) - _WORKSPACES, role="activation")
    return [Node(index, "pointwise", ("clone",), (weight,), (copy,), weight.numel)]


def leaves_bias(operator: Operator) -> bool:
    """Whether it is a convolution whose bias another kernel adds; depthwise ones add theirs."""
    is_dense = operator.category == "Convolution" and int(operator.attributes.get("groups", 1)) == 1
    return is_dense and len(operator.inputs) > BIAS


def _of(index: int, operator: Operator, hardware: Hardware, channels_last: bool) -> list[Node]:
    name = operator.op.removeprefix("aten::").rstrip("_")
    reads = tuple(use for use in operator.inputs if use.numel)
    writes = tuple(use for use in operator.outputs if use.numel)
    size = max((use.numel for use in (*reads, *writes)), default=0)
    whole = Node(index, "library", (name,), reads, writes, size)
    if leaves_bias(operator):
        out = operator.outputs[0]
        product = replace(whole, reads=tuple(operator.inputs[:BIAS]))
        return [product, Node(index, "pointwise", ("add",), (out, operator.inputs[BIAS]), (out,), out.numel)]
    if not _is_fusible(operator, name) or not writes:
        return [whole]
    if operator.category not in NORMALIZATIONS:
        return [replace(whole, kind=_kind(name, reads, writes, hardware))]
    functions = (name, *_SCALE_SHIFT)
    row = _row(operator)
    if row <= hardware.fused.row_elements:
        return [replace(whole, kind="reduction", functions=functions, writes=writes[:1])]
    moments = _moments(index, operator, size // row)
    split = replace(
        whole, kind="split", reads=reads[:1], writes=(moments,), run_bytes=_run_bytes(operator, channels_last)
    )
    apply = Node(index, "pointwise", functions, (*reads, moments), writes[:1], size)
    return [split, apply]


def _kind(name: str, reads: tuple[TensorUse, ...], writes: tuple[TensorUse, ...], hardware: Hardware) -> str:
    """Of an operator that walks its elements."""
    if name not in REDUCTIONS:
        return "pointwise"
    results = writes[0].numel
    row = reads[0].numel // results
    return "split" if results < hardware.sm_count and row > hardware.fused.row_elements else "reduction"


def _worked_out_again(nodes: list[Node]) -> list[Node]:
    """The nodes, of which split reductions that are no normalisations' read what their inputs are made of."""
    maker: dict[int, Node] = {}
    found: list[Node] = []
    for node in nodes:
        if node.is_whole:
            node = _inlined(node, maker)
        maker.update((use.tensor, node) for use in node.writes)
        found.append(node)
    return found


def _inlined(node: Node, maker: Mapping[int, Node]) -> Node:
    """A node with the pointwise ones that make its input as part of it; the same node where they read more tensors than that, or
    where one of them works in place, whose input is no longer there."""
    found = node
    while True:
        at = next((use for use in found.reads if _is_pointwise(maker.get(use.tensor))), None)
        if at is None:
            return found
        made = maker[at.tensor]
        if at.tensor in {use.tensor for use in made.reads}:
            return node
        reads = (*(use for use in found.reads if use is not at), *made.reads)
        if sum(_loads(use, maker) for use in reads) > MOST_LOADS:
            return node
        found = replace(found, reads=reads, functions=(*made.functions, *found.functions))


def _is_pointwise(node: Node | None) -> bool:
    return node is not None and node.kind == "pointwise"


def _loads(use: TensorUse, maker: Mapping[int, Node]) -> int:
    """How many tensors an element of it is loaded from: of a norm's result the input, the mean and the deviation."""
    made = maker.get(use.tensor)
    return NORM_LOADS if made is not None and made.kind == "reduction" and len(made.functions) > 1 else 1


def _is_fusible(operator: Operator, name: str) -> bool:
    waits = operator.attributes.get("transfer") or operator.attributes.get("synchronizes")
    known = operator.category in FUSIBLE or name in REDUCTIONS
    few = name not in CONCATENATIONS or len(operator.inputs) <= MOST_CONCATENATED
    return known and few and name not in NOT_FUSED and not waits


def _row(operator: Operator) -> int:
    """Elements that are reduced to one mean and deviation."""
    x = operator.inputs[0]
    if operator.category == "GroupNorm":
        return x.numel // max(1, x.shape[0] * int(operator.attributes.get("num_groups", 1)))
    return x.shape[-1]


def _run_bytes(operator: Operator, channels_last: bool) -> int:
    """Bytes of a GroupNorm's row that lie side by side where channels come last: one group's channels."""
    x = operator.inputs[0]
    if operator.category != "GroupNorm" or not channels_last:
        return 0
    return x.nbytes // x.numel * x.shape[1] // int(operator.attributes.get("num_groups", 1))


def _moments(index: int, operator: Operator, rows: int) -> TensorUse:
    """The result of a split reduction: a mean and a deviation of each row, in a tensor that the trace has not."""
    tensor = -(2 * index + 1) - _WORKSPACES
    return TensorUse(tensor, (rows, 2), (2, 1), "fp32", rows * 2 * 4, "activation")
