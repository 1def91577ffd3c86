"""The kernels that TorchInductor generates: what a group of nodes reads, writes and computes.

What lives only inside a kernel is never written; an input is read once. Triton tiles a transposed operand through shared memory
and works offsets out once a block, so that kernels count as dense. A split reduction needs a second, small kernel for its parts.
What was judged of these kernels stands in hw_configs/families/fusion.yaml.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from simtti.hw_configs.hardware import Hardware
from simtti.simulator.kernel import Access, Kernel
from simtti.simulator.kernels.elementwise import SPECIAL_FUNCTIONS, function_slots
from simtti.simulator.kernels.machine import SECTOR_BYTES
from simtti.simulator.lowering.nodes import Node
from simtti.workloads.trace import TensorUse

# exact: XBLOCK of 1,024 elements, the most, 256 of them a warp (pointwise in torch/_inductor/runtime/triton_heuristics.py)
THREADS, THREAD_ELEMENTS = 128, 8
# Cost no instruction of their own: a register holds the value already.
_FREE = (
    "copy",
    "clone",
    "contiguous",
    "_to_copy",
    "to",
    "cat",
    "stack",
    "repeat",
    "expand",
    "constant_pad_nd",
)


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a group moves: the use of each tensor that it reads from, and writes to, memory."""

    reads: dict[int, TensorUse]
    writes: dict[int, TensorUse]


Readers = Mapping[int, Sequence[int]]  # of each tensor the numbers of the nodes that read it


def readers_of(nodes: Sequence[Node]) -> Readers:
    """The numbers of the nodes that read each tensor, ascending."""
    found: dict[int, list[int]] = {}
    for number, node in enumerate(nodes):
        for use in node.reads:
            found.setdefault(use.tensor, []).append(number)
    return found


def traffic_of(nodes: Sequence[Node], members: Sequence[int], readers: Readers) -> Traffic:
    """What the kernel of `members` moves.

    Written: what a node outside reads later, what nobody reads (the step's result), and what is no activation.
    """
    inside, made = set(members), set[int]()
    reads: dict[int, TensorUse] = {}
    writes: dict[int, TensorUse] = {}
    for number in members:
        node = nodes[number]
        for use in node.reads:
            kept = reads.get(use.tensor)
            if use.tensor not in made and (kept is None or use.nbytes > kept.nbytes):
                reads[use.tensor] = use
        for use in node.writes:
            later = [reader for reader in readers.get(use.tensor, ()) if reader > number]
            outside = any(reader not in inside for reader in later)
            if outside or not later or use.role != "activation":
                writes[use.tensor] = use
        made.update(use.tensor for use in node.writes)
    return Traffic(reads, writes)


def kernels_of(
    nodes: Sequence[Node], members: Sequence[int], readers: Readers, hardware: Hardware
) -> list[Kernel]:
    """The kernels of a group, their tensors by their identity in the trace; none where nothing is computed."""
    parts = [nodes[number] for number in members]
    elements = max(node.size for node in parts)
    if not elements:
        return []
    traffic, style = traffic_of(nodes, members, readers), hardware.fused
    read = tuple(Access(t, float(min(use.nbytes, use.storage_bytes))) for t, use in traffic.reads.items())
    written = tuple(Access(t, float(use.nbytes)) for t, use in traffic.writes.items())
    grid = -(-elements // (THREADS * THREAD_ELEMENTS))
    passes = _passes(nodes, members)
    names = [(name, node.size) for node in parts for name in node.functions]
    counted = [(name, size) for name, size in names if name not in _FREE]
    slots = style.element_slots * elements * passes
    slots += sum((style.operator_slots + function_slots(name, hardware)) * size for name, size in counted)
    special = sum(SPECIAL_FUNCTIONS.get(name, 0) * size for name, size in counted)
    moved = passes * sum(a.nbytes for a in read) + hardware.l2_costs.write * sum(a.nbytes for a in written)
    moved += sum(_scattered_bytes(node) for node in parts)
    reductions = sum(node.kind != "pointwise" for node in parts)
    kernel = Kernel(
        name=f"triton_fused<{len(parts)}>",
        family="fused",
        grid=grid,
        threads=THREADS,
        registers=round(style.registers),
        issue_slots=THREADS * hardware.elementwise.thread_slots + slots / grid,
        sfu_ops=special / grid,
        l2_bytes=moved / grid,
        latency_s=hardware.hbm_latency_s * (1 + reductions),
        reads=read,
        writes=written,
        hbm_reread_bytes=(passes - 1) * sum(a.nbytes for a in read if a.nbytes > hardware.l2_usable_bytes),
        flops=float(sum(size for _, size in counted)),
    )
    return [kernel, *(_combine(node, hardware) for node in parts if node.kind == "split")]


def _passes(nodes: Sequence[Node], members: Sequence[int]) -> int:
    """How often inputs are read: twice where rows are reduced whose elements a concatenation then mixes with others', so that
    they are no longer in the registers that reduced them."""
    reduced = False
    for at, number in enumerate(members):
        node = nodes[number]
        reduced = reduced or node.kind == "reduction"
        if reduced and node.is_concatenation and at + 1 < len(members):
            return 2
    return 1


def _scattered_bytes(node: Node) -> float:
    """L2 bandwidth that rows in pieces cost beside their bytes: whole sectors."""
    if not node.run_bytes:
        return 0.0
    sectors = 1 + (node.run_bytes - 1) / SECTOR_BYTES
    return node.reads[0].nbytes * max(0.0, sectors * SECTOR_BYTES / node.run_bytes - 1.0)


def _combine(node: Node, hardware: Hardware) -> Kernel:
    """The kernel that brings the parts of a split reduction together: a warp a row."""
    result = node.writes[0]
    rows = result.shape[0]
    return Kernel(
        name="triton_combine",
        family="fused",
        grid=-(-rows // 4),
        threads=THREADS,
        registers=round(hardware.fused.registers),
        issue_slots=THREADS * hardware.elementwise.thread_slots,
        latency_s=hardware.hbm_latency_s,
        writes=(Access(result.tensor, float(result.nbytes)),),
    )
