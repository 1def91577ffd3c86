"""Spans of time: their union, and what of one others cover."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

Span = tuple[float, float]


def union(spans: Iterable[Span]) -> list[Span]:
    """The spans in order, those that touch as one."""
    found: list[Span] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def overlap_s(span: Span, covered: Sequence[Span]) -> float:
    """Seconds of `span` that lie in `covered`, a union."""
    start_s, end_s = span
    at = max(bisect_right(covered, (start_s, float("inf"))) - 1, 0)
    total = 0.0
    while at < len(covered) and covered[at][0] < end_s:
        total += max(min(end_s, covered[at][1]) - max(start_s, covered[at][0]), 0.0)
        at += 1
    return total
