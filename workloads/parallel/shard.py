"""The entry: from the trace of one GPU to the trace of one of several."""

from __future__ import annotations

from simtti.workloads.parallel import guidance, sequence, tensor
from simtti.workloads.parallel.degrees import Degrees
from simtti.workloads.trace import Trace


def shard(trace: Trace, degrees: Degrees) -> Trace:
    """What one GPU runs of `trace`, the busiest where they differ.

    Raises:
        InputError: what the degrees would share, the workload does not have: a second half of classifier-free guidance, blocks
            whose weights can be divided, tokens of a transformer, heads enough.
    """
    if degrees.cfg > 1:
        trace = guidance.halved(trace)
    if degrees.tensor > 1:
        trace = tensor.divided(trace, degrees.tensor)
    if degrees.sequence > 1:
        trace = sequence.divided(trace, degrees)
    return trace
