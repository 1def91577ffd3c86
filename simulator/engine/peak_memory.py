"""Peak device memory of a trace: weights, and activations from their first to their last use."""

from __future__ import annotations

from simtti.simulator.lowering.lower import Lowered, remembered
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
            lowered = (row[1] for row in rows[first : first + len(step.operators)])
            for live, one in zip(live_bytes(step.operators), lowered, strict=True):
                if live + one.workspace_bytes > peak:
                    peak = live + one.workspace_bytes
            first += len(step.operators)
    return weights + peak


@remembered
def live_bytes(operators: tuple[Operator, ...]) -> list[int]:
    """Bytes of a step's tensors that are live while each of its operators runs: the same on every device."""
    last_use: dict[int, int] = {}
    size: dict[int, int] = {}
    live = 0
    for index, operator in enumerate(operators):
        if operator.attributes.get("device") == "cpu":
            continue
        for use in (*operator.inputs, *operator.outputs):
            if use.role == "parameter":
                continue
            if use.tensor not in size and use.role != "activation":
                live += _rounded(use.storage_bytes)  # made before the step
            size.setdefault(use.tensor, _rounded(use.storage_bytes))
            last_use[use.tensor] = index
    made_outside = {use.tensor for op in operators for use in op.inputs if use.role in ("input", "buffer")}
    dies: dict[int, list[int]] = {}
    for tensor, index in last_use.items():
        dies.setdefault(index, []).append(tensor)
    alive = set(made_outside)
    found = []
    for index, operator in enumerate(operators):
        for use in operator.outputs:
            if use.role == "activation" and use.tensor in size and use.tensor not in alive:
                alive.add(use.tensor)
                live += size[use.tensor]
        found.append(live)
        for tensor in dies.get(index, ()):
            if tensor in alive and tensor not in made_outside:
                alive.discard(tensor)
                live -= size[tensor]
    return found


def _rounded(nbytes: int) -> int:
    return -(-nbytes // ALLOCATION_BYTES) * ALLOCATION_BYTES
