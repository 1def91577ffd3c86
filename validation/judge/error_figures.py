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
