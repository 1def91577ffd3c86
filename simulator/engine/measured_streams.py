"""On which streams a timed trace ran its operators, and which of them had to wait for which.

An imported trace does not say which tensors are the same, nor which events streams waited for. What it says is what overlapped: a
kernel that started after another stream's kernel had ended may have waited for it, and is taken to have; those that ran side by
side did not.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from simtti.workloads.trace import Trace


class Streams(NamedTuple):
    """of: row of an operator -> its stream, 0 for the one with the most kernels. after: row -> rows of operators on other streams
    that had ended when it started, the last of each stream."""

    of: dict[int, int]
    after: dict[int, list[int]]


def measured_streams(trace: Trace) -> Streams | None:
    """The streams of a trace with measured kernels on several of one device; None for any other."""
    if trace.timing is None:
        return None
    kernels = [kernel for kernel in trace.timing.kernels if kernel.operator is not None]
    used = Counter((kernel.device, kernel.stream) for kernel in kernels)
    if len(used) < 2 or len({device for device, _ in used}) > 1:
        return None
    numbers = {place: number for number, (place, _) in enumerate(used.most_common())}
    of: dict[int, int] = {}
    begun: dict[int, float] = {}
    ended: dict[int, float] = {}
    for kernel in kernels:
        row = kernel.operator
        assert row is not None
        of.setdefault(row, numbers[kernel.device, kernel.stream])
        begun[row] = min(begun.get(row, kernel.start_us), kernel.start_us)
        ended[row] = max(ended.get(row, kernel.end_us), kernel.end_us)
    after: dict[int, list[int]] = {}
    last: dict[int, int] = {}
    for row in sorted(of):  # in the order in which the host issued them
        before = [other for stream, other in last.items() if stream != of[row] and ended[other] <= begun[row]]
        if before:
            after[row] = before
        last[of[row]] = row
    return Streams(of, after)
