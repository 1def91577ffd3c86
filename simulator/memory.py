"""Peak device memory of a trace: weights, and activations from their first to their last use."""

from __future__ import annotations

from simtti.simulator.lower import Lowered
from simtti.workloads.trace import Operator, Trace

# PyTorch's caching allocator hands out multiples of 512 bytes (c10/cuda/CUDACachingAllocator.cpp, kMinBlockSize).
ALLOCATION_BYTES = 512


def peak_memory_bytes(trace: Trace, rows: list[tuple[Operator, Lowered]]) -> int:
    """Bytes at the fullest moment: all weights, the live activations of the step, and the operator's workspace.

    Weights are resident throughout, as in a pipeline moved to the device whole; a step's inputs live as long as the
    step. The allocator's fragmentation is not modelled.
    """
    weights = sum(trace.parameter_bytes.values())
    peak = 0
    first = 0
    for phase in trace.phases:
        for step in phase.steps:
            peak = max(peak, _step_peak(rows[first : first + len(step.operators)]))
            first += len(step.operators)
    return weights + peak


def _step_peak(rows: list[tuple[Operator, Lowered]]) -> int:
    last_use: dict[int, int] = {}
    size: dict[int, int] = {}
    live = 0
    for index, (operator, _) in enumerate(rows):
        if operator.attributes.get("device") == "cpu":
            continue
        for use in (*operator.inputs, *operator.outputs):
            if use.role == "parameter":
                continue
            if use.tensor not in size and use.role != "activation":
                live += _rounded(use.storage_bytes)  # made before the step
            size.setdefault(use.tensor, _rounded(use.storage_bytes))
            last_use[use.tensor] = index
    made_outside = {use.tensor for op, _ in rows for use in op.inputs if use.role in ("input", "buffer")}
    dies: dict[int, list[int]] = {}
    for tensor, index in last_use.items():
        dies.setdefault(index, []).append(tensor)
    alive = set(made_outside)
    peak = live
    for index, (operator, lowered) in enumerate(rows):
        for use in operator.outputs:
            if use.role == "activation" and use.tensor in size and use.tensor not in alive:
                alive.add(use.tensor)
                live += size[use.tensor]
        peak = max(peak, live + lowered.workspace_bytes)
        for tensor in dies.get(index, ()):
            if tensor in alive and tensor not in made_outside:
                alive.discard(tensor)
                live -= size[tensor]
    return peak


def _rounded(nbytes: int) -> int:
    return -(-nbytes // ALLOCATION_BYTES) * ALLOCATION_BYTES
