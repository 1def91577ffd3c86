"""Peak device memory of a trace, as PyTorch holds it.

Three figures, each the one that a tool shows: *allocated* (torch.cuda.max_memory_allocated), *reserved* (the segments the
allocator has taken for it, torch.cuda.max_memory_reserved; fewer where the device is nearly full, as it then gives back
what is free), and *device*, with the CUDA context, which is nvidia-smi's. What
counts:

- weights and buffers of all components, resident throughout, as in a pipeline moved to the device whole;
- of weights that are offloaded (`workloads.offload`) those that are on the device: from the copy that brings one to the operator
  after which it is let go of. A copy back to the host gives whole free segments to the device, as accelerate's hooks do;
- a tensor from the operator that makes it until the program lets go of it, which the recorder has seen happen; what it never
  lets go of (a VAE's cache of frames) to the end. Where a trace does not say (a sharded step, recordings of before
  2026-11-27), until its last use;
- an operator's workspaces while it runs: of a convolution, cuDNN's copies in the other layout, all at once, for cuDNN asks
  for one workspace (native/cudnn/ConvShared.cpp); elsewhere (unfused attention's scores) each from its first kernel to its
  last. A matrix product's partial sums lie in cuBLAS's workspace;
- that workspace, of one handle and stream, from the first product on (ATen/cuda/CublasHandlePool.cpp).

A phase's count of steps does not matter: a step that repeats is gone through once. Our captures of an H200 (validation/measurements/measured/h200-sxm-runs.csv) are what tests hold it to.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from simtti.hw_configs.hardware import Hardware
from simtti.simulator.engine.caching_allocator import Block, CachingAllocator
from simtti.simulator.kernels.implicit_gemm import matrix_unit
from simtti.simulator.lowering.lower import Lowered, remembered
from simtti.workloads.trace import OFFLOAD, Operator, Phase, Trace

# exact: parseChosenWorkspaceSize in ATen/cuda/CublasHandlePool.cpp: 32 MiB on sm_90 and after, else :4096:2:16:8, in KiB.
CUBLAS_WORKSPACE_BYTES = {True: 32 << 20, False: (4096 * 2 + 16 * 8) << 10}


@dataclass(frozen=True, slots=True)
class PhaseMemory:
    """A phase's fullest moment. allocated_bytes: then; operator: what runs then; workspace_bytes: of it."""

    name: str
    allocated_bytes: int
    workspace_bytes: int
    operator: Operator | None


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory of one inference, in bytes, at its fullest.

    allocated_bytes, reserved_bytes, device_bytes: as the module says. fixed_bytes: of the allocated, what does not grow with
    the batch: weights (where they are offloaded, those there then) and cuBLAS's workspace; growing_bytes: what does; both at the moment
    that leaves the batch the least room, which is the fullest where no weights come and go. context_bytes: of the device's, what no allocator of torch's sees.
    """

    allocated_bytes: int
    reserved_bytes: int
    context_bytes: int
    fixed_bytes: int
    growing_bytes: int
    phases: tuple[PhaseMemory, ...]

    @property
    def device_bytes(self) -> int:
        return self.reserved_bytes + self.context_bytes

    @property
    def growing_reserved_bytes(self) -> int:
        """growing_bytes with what the allocator has taken and nobody uses."""
        return self.growing_bytes + self.reserved_bytes - self.allocated_bytes

    @property
    def fullest(self) -> PhaseMemory:
        """The phase that needs most."""
        return max(self.phases, key=lambda phase: phase.allocated_bytes)


@dataclass(frozen=True, slots=True)
class Ledger:
    """What a trace makes and lets go of on any device.

    weights: bytes of each that is there throughout, by tensor; kept: of those, what the trace itself writes; made: (tensor, bytes) by operator, before it runs; freed: tensors,
    after it. offloaded: weights that come and go, which are made and freed again and again.
    """

    weights: dict[int, int]
    made: list[tuple[tuple[int, int], ...]]
    freed: list[tuple[int, ...]]
    offloaded: frozenset[int] = frozenset()
    kept: frozenset[int] = frozenset()


def memory(trace: Trace, rows: list[tuple[Operator, Lowered]], hardware: Hardware) -> Memory:
    """The memory of `trace`, whose operators are lowered in `rows`.

    Raises:
        ValueError: rows of another trace.
    """
    workspaces = tuple([lowered.workspace_bytes for _, lowered in rows])
    modern = matrix_unit(hardware) in _MODERN_UNITS
    room = hardware.hbm_capacity_bytes - hardware.context_bytes
    key = (id(trace.phases), hash(workspaces), modern, room)
    found = _known.get(key)
    if found is None or found[0] is not trace.phases or found[1] != workspaces:
        run = _run(trace, workspaces, CUBLAS_WORKSPACE_BYTES[modern], room)
        found = _known[key] = (trace.phases, workspaces, run)
        if len(_known) > _MOST_KNOWN:
            _known.popitem(last=False)
    allocated, reserved, fixed, growing, phases = found[2]
    return Memory(allocated, reserved, int(hardware.context_bytes), fixed, growing, phases)


def allocated_by_row(trace: Trace, rows: list[tuple[Operator, Lowered]], hardware: Hardware) -> list[int]:
    """Bytes allocated while each operator of `trace` runs, its workspace included."""
    workspaces = tuple(lowered.workspace_bytes for _, lowered in rows)
    cublas_bytes = CUBLAS_WORKSPACE_BYTES[matrix_unit(hardware) in _MODERN_UNITS]
    held: list[int] = []
    _run(trace, workspaces, cublas_bytes, hardware.hbm_capacity_bytes - hardware.context_bytes, held)
    return held


# Designs of a search mostly have the same workspaces.
_MOST_KNOWN = 16
_MODERN_UNITS = ("wgmma", "tcgen05")
_Found = tuple[int, int, int, int, tuple[PhaseMemory, ...]]
_known: OrderedDict[tuple[int, int, bool, float], tuple[tuple[Phase, ...], tuple[int, ...], _Found]] = (
    OrderedDict()
)


def _run(
    trace: Trace,
    workspaces: tuple[int, ...],
    cublas_bytes: int,
    room_bytes: float,
    held: list[int] | None = None,
) -> _Found:
    """held: where to put the bytes allocated while each operator runs."""
    ledger = _ledger(trace.phases)
    allocator = CachingAllocator(room_bytes)
    blocks = {tensor: allocator.allocate(nbytes) for tensor, nbytes in ledger.weights.items()}
    # Weights that no recorded operator reads.
    for nbytes in _unseen(trace, ledger):
        allocator.allocate(nbytes)
    allocator.allocate(cublas_bytes)
    lasting = allocator.allocated_bytes
    offloaded, tightest, at_tightest = 0, -1.0, (lasting, 0)
    phases, index = [], 0
    for phase in trace.phases:
        most = allocator.allocated_bytes
        fullest: tuple[int, Operator | None] = (0, None)
        for step in phase.steps:
            for operator in step.operators:
                if operator.category != OFFLOAD and not (
                    ledger.made[index] or ledger.freed[index] or workspaces[index]
                ):
                    index += 1  # it moves nothing
                    if held is not None:
                        held.append(allocator.allocated_bytes)
                    continue
                for tensor, nbytes in ledger.made[index]:
                    blocks[tensor] = allocator.allocate(nbytes)
                    offloaded += blocks[tensor].nbytes if tensor in ledger.offloaded else 0
                workspace: Block | None = None
                if workspaces[index]:
                    workspace = allocator.allocate(workspaces[index])
                if allocator.allocated_bytes > most:
                    most, fullest = allocator.allocated_bytes, (workspaces[index], operator)
                if held is not None:
                    held.append(allocator.allocated_bytes)
                fixed = lasting + offloaded
                growing = allocator.allocated_bytes - fixed
                if growing / max(room_bytes - fixed, 1.0) > tightest:
                    tightest, at_tightest = growing / max(room_bytes - fixed, 1.0), (fixed, growing)
                if workspace is not None:
                    allocator.free(workspace)
                for tensor in ledger.freed[index]:
                    block = blocks.pop(tensor)
                    offloaded -= block.nbytes if tensor in ledger.offloaded else 0
                    allocator.free(block)
                if _goes_to_host(operator):
                    allocator.give_back()
                index += 1
        phases.append(PhaseMemory(phase.name, most, *fullest))
    return allocator.peak_allocated_bytes, allocator.peak_reserved_bytes, *at_tightest, tuple(phases)


def _unseen(trace: Trace, ledger: Ledger) -> list[int]:
    seen = sum(nbytes for tensor, nbytes in ledger.weights.items() if tensor not in ledger.kept)
    left = sum(trace.parameter_bytes.values()) - seen
    return [left] if left > 0 else []


@remembered
def _ledger(phases: tuple[Phase, ...]) -> Ledger:
    offloaded = frozenset(
        use.tensor
        for phase in phases
        for step in phase.steps
        for operator in step.operators
        if operator.category == OFFLOAD
        for use in operator.outputs
    )
    operators: list[Operator] = []
    told: list[bool] = []  # of each: whether its step says what the program lets go of
    for phase in phases:
        for step in phase.steps:
            operators += step.operators
            lets_go = any(not offloaded.issuperset(operator.released) for operator in step.operators)
            told += [lets_go] * len(step.operators)
    made_at: dict[int, int] = {}
    weights: dict[int, int] = {}
    known: set[int] = set()
    made: list[tuple[tuple[int, int], ...]] = []
    last_use: dict[int, int] = {}
    for index, operator in enumerate(operators):
        new = []
        if operator.attributes.get("device") != "cpu":
            for use in (*operator.inputs, *operator.outputs):
                if use.tensor in offloaded:
                    continue
                last_use[use.tensor] = index
                if use.tensor in known:
                    continue
                known.add(use.tensor)
                if use.role in ("parameter", "buffer"):
                    weights[use.tensor] = use.storage_bytes
                else:
                    made_at[use.tensor] = index
                    new.append((use.tensor, use.storage_bytes))
        if operator.category == OFFLOAD:
            new += [(use.tensor, use.storage_bytes) for use in operator.outputs]
        made.append(tuple(new))
    freed: list[list[int]] = [[] for _ in operators]
    released: set[int] = set()
    present: set[int] = set()  # of the offloaded
    for index, operator in enumerate(operators):
        if operator.category == OFFLOAD:
            present.update(use.tensor for use in operator.outputs)
        for tensor in operator.released:
            if tensor in present:
                present.remove(tensor)
                freed[index].append(tensor)
            # Not what a later operator is seen to use again: a step that stands for several may begin with it.
            if tensor in known and tensor not in released and last_use[tensor] <= index:
                released.add(tensor)
                freed[index].append(tensor)
    for tensor, index in made_at.items():
        if tensor not in released and not told[index]:
            freed[last_use[tensor]].append(tensor)
    written = {
        use.tensor for one in operators if not one.is_view for use in one.outputs if use.role == "buffer"
    }
    return Ledger(weights, made, [tuple(each) for each in freed], offloaded, frozenset(written))


def _goes_to_host(operator: Operator) -> bool:
    return operator.category == OFFLOAD and bool(operator.inputs)
