"""Figures of error: what is said of a set of predictions beside their measurements, everywhere in the same words."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Figures(NamedTuple):
    """rows and, of them, missing (no prediction); mape = mean |predicted / measured - 1|, its median and 90th percentile;
    bias = exp(mean log(predicted / measured)) - 1. A missing prediction counts as an error of 100 %."""

    rows: int
    missing: int
    mape: float
    median: float
    p90: float
    bias: float


class Cover(NamedTuple):
    """Shares of the measurements that lie within the prediction's intervals: those meant for half of them, and for 9 of 10. A missing
    prediction covers nothing."""

    half: float
    nine_of_ten: float


def cover(measured: Any, intervals: Any) -> Cover:
    """measured: a sequence. intervals: of each the values at 5, 25, 75 and 95 %, in the same unit.

    >>> cover([1.0, 1.3], [(0.8, 0.9, 1.1, 1.2), (0.9, 1.0, 1.2, 1.4)])
    Cover(half=0.5, nine_of_ten=1.0)
    """
    seen = np.asarray(measured, float)
    p05, p25, p75, p95 = np.asarray(intervals, float).reshape(len(seen), 4).T
    if not len(seen):
        return Cover(float("nan"), float("nan"))
    return Cover(float(((p25 <= seen) & (seen <= p75)).mean()), float(((p05 <= seen) & (seen <= p95)).mean()))


def figures(predicted: Any, measured: Any) -> Figures:
    """Figures of two sequences of equal length, in any one unit.

    >>> figures([1.1, 0.9], [1.0, 1.0]).mape
    0.1
    """
    ratio = np.asarray(predicted, float) / np.asarray(measured, float)
    error = np.abs(ratio - 1)
    error = np.where(np.isfinite(error), error, 1.0)
    seen = np.isfinite(ratio) & (ratio > 0)
    if not len(error):
        return Figures(0, 0, *[float("nan")] * 4)
    bias = float(np.exp(np.log(ratio[seen]).mean()) - 1) if seen.any() else float("nan")
    return Figures(
        len(error),
        int((~seen).sum()),
        round(float(error.mean()), 6),
        round(float(np.median(error)), 6),
        round(float(np.quantile(error, 0.9)), 6),
        round(bias, 6),
    )
