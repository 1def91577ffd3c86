"""torch.compile: chains of elementwise operators, and the normalisations among them, become one kernel each.

What is assumed of TorchInductor (its default mode; pytorch/torch/_inductor, scheduler.py and codegen/triton.py):

- operators between two library kernels (matrix products, convolutions, attention) are fused while they walk over the same
  number of elements, or reduce or broadcast along it; LayerNorm, RMSNorm, softmax and GroupNorm are such operators once
  they are decomposed. What lives only inside a chain is never written; an input is read once;
- the kernel is dense: Triton tiles a transposed operand through shared memory and works offsets out once a block;
- a row longer than a block holds (GroupNorm's) is read again for the second pass;
- matrix products, convolutions and attention stay the library's; their epilogues are not fused;
- the host runs generated code: no modules, no dispatch, one short call a kernel.
Compilation itself, and guards that fail, take no time here. What was judged stands in hw_configs/families/fusion.yaml.
"""

from __future__ import annotations

from collections.abc import Sequence

from simtti.hw_configs.hardware import Hardware
from simtti.simulator.kernel import Access, Kernel
from simtti.simulator.kernels.elementwise import SPECIAL_FUNCTIONS, function_slots
from simtti.workloads.trace import Operator, TensorUse

FUSIBLE = ("Elementwise", "LayerNorm", "GroupNorm", "Softmax", "Memory")
# Not walked element by element, or not by Inductor: look-ups, and copies between host and device.
NOT_FUSED = (
    "aten::embedding",
    "aten::index",
    "aten::index_select",
    "aten::gather",
    "aten::_local_scalar_dense",
)
NORMALIZATIONS = ("LayerNorm", "GroupNorm", "Softmax")
# exact: XBLOCK of 1,024 elements, the most, 256 of them a warp (pointwise in torch/_inductor/runtime/triton_heuristics.py)
THREADS, THREAD_ELEMENTS = 128, 8

Chain = tuple[int, ...]  # positions of the operators that become one kernel


def chains(operators: Sequence[Operator]) -> list[Chain]:
    """Which operators of a step are fused, in order; each chain runs at its last operator's place."""
    found: list[Chain] = []
    open_chain: list[int] = []
    size = 0
    for index, operator in enumerate(operators):
        if operator.is_view or operator.attributes.get("device") == "cpu":
            continue
        walked = _elements(operator)
        if open_chain and (walked != size or not _fusible(operator)):
            found.append(tuple(open_chain))
            open_chain = []
        if _fusible(operator):
            open_chain.append(index)
            size = walked
    if open_chain:
        found.append(tuple(open_chain))
    return found


def _fusible(operator: Operator) -> bool:
    waits = operator.attributes.get("transfer") or operator.attributes.get("synchronizes")
    return operator.category in FUSIBLE and operator.op not in NOT_FUSED and not waits


def _elements(operator: Operator) -> int:
    return max((use.numel for use in (*operator.inputs, *operator.outputs)), default=0)


def fused_kernel(operators: Sequence[Operator], chain: Chain, hardware: Hardware) -> Kernel | None:
    """The kernel of a chain, its tensors by their identity in the trace; None where nothing is computed."""
    members = [operators[index] for index in chain]
    made = {use.tensor for operator in members for use in operator.outputs}
    written_so_far: set[int] = set()
    reads: dict[int, TensorUse] = {}
    writes: dict[int, TensorUse] = {}
    for operator in members:
        for use in operator.inputs:
            if use.tensor not in written_so_far and use.numel:
                kept = reads.get(use.tensor)
                reads[use.tensor] = use if kept is None or use.nbytes > kept.nbytes else kept
        for use in operator.outputs:
            if use.numel:
                writes[use.tensor] = use
        written_so_far.update(use.tensor for use in operator.outputs)
    later = {use.tensor for operator in operators[chain[-1] + 1 :] for use in operator.inputs}
    inside = {use.tensor for operator in members for use in operator.inputs}
    # Written: what someone reads later, what nobody reads (the step's result), and storage made before the chain.
    kept_writes = {
        tensor: use
        for tensor, use in writes.items()
        if tensor in later or tensor not in inside or tensor in reads or use.role != "activation"
    }
    assert made >= set(kept_writes)
    elements = max(_elements(operator) for operator in members)
    if not elements:
        return None
    passes = 1
    for operator in members:
        if operator.category == "GroupNorm":
            x = operator.inputs[0]
            row = x.numel // max(1, x.shape[0] * int(operator.attributes.get("num_groups", 1)))
            passes = max(passes, 1 + (row > hardware.fused.row_elements))
    read = tuple(Access(tensor, float(min(use.nbytes, use.storage_bytes))) for tensor, use in reads.items())
    written = tuple(Access(tensor, float(use.nbytes)) for tensor, use in kept_writes.items())
    names = [operator.op.removeprefix("aten::").rstrip("_") for operator in members]
    slots = hardware.fused.element_slots + hardware.fused.operator_slots * len(members)
    slots += sum(function_slots(name, hardware) for name in names)
    grid = -(-elements // (THREADS * THREAD_ELEMENTS))
    moved = passes * sum(a.nbytes for a in read) + hardware.l2_costs.write * sum(a.nbytes for a in written)
    norms = sum(operator.category in NORMALIZATIONS for operator in members)
    return Kernel(
        name=f"triton_fused<{len(members)}>",
        family="fused",
        grid=grid,
        threads=THREADS,
        registers=round(hardware.fused.registers),
        issue_slots=THREADS * (hardware.elementwise.thread_slots + THREAD_ELEMENTS * slots * passes),
        sfu_ops=float(sum(SPECIAL_FUNCTIONS.get(name, 0) for name in names)) * THREADS * THREAD_ELEMENTS,
        l2_bytes=moved / grid,
        latency_s=hardware.hbm_latency_s * (1 + norms),
        reads=read,
        writes=written,
        hbm_reread_bytes=(passes - 1) * sum(a.nbytes for a in read if a.nbytes > hardware.l2_usable_bytes),
        flops=float(elements * len(members)),
    )
