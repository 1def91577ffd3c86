"""Robust least squares: the parameters with which a model comes nearest to its measurements.

The sum of soft-L1 losses of log(predicted / measured) is made small over the rows; a weak pull towards the values it
started from holds what the data say nothing about.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np

from simtti.errors import library
from simtti.hw_configs.hardware import Hardware, parameter, with_parameters
from simtti.hw_configs.schema import calibration
from simtti.validation.fit.families import FitFamily

# Log ratio beyond which a residual counts linearly, not squared: about the noise between two measurements of a call.
SOFT_L1_LOG_RATIO = 0.05
# Relative step of the finite differences: wide enough to see past a change of tile.
DIFFERENCE_STEP = 0.02
MOST_EVALUATIONS = 12
# The residual of a row that parameters under trial make unpredictable: as if its time were a hundred times too long, so
# that no search goes there.
UNPREDICTED_LOG_RATIO = math.log(100)
STRONG_CORRELATION = 0.95
SIGNIFICANT_DIGITS = 4


class Model(Protocol):
    """Measured rows whose predictions follow from a device."""

    def log_ratios(self, hardware: Hardware) -> np.ndarray:
        """log(predicted / measured) of each row; NaN where there is no prediction."""


class Solution(NamedTuple):
    """Values of the parameters that were asked for; of those that the data touch the 95 % intervals, and the pairs that
    trade off. unpredicted: rows that had no prediction to begin with and took no part."""

    values: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    correlations: tuple[tuple[str, str, float], ...]
    unpredicted: int


def solve(
    model: Model,
    hardware: Hardware,
    family: FitFamily,
    wanted: tuple[str, ...],
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Solution:
    """Parameters of `hardware` with which the model is nearest to its measurements, searched from those it has.

    A row that has no prediction with those is left out. One that loses its prediction on the way counts as off by
    UNPREDICTED_LOG_RATIO: to make rows unpredictable never pays.
    """
    least_squares = library("scipy.optimize", "fit").least_squares

    values = {name: parameter(hardware, name) for name in wanted}
    start = model.log_ratios(hardware)
    known = np.isfinite(start)
    unpredicted = int((~known).sum())

    def log_ratios(device: Hardware) -> np.ndarray:
        logs = model.log_ratios(device)[known]
        return np.where(np.isfinite(logs), logs, UNPREDICTED_LOG_RATIO)

    touched = _touched(log_ratios, start[known], hardware, values) if known.any() else []
    if not touched:
        return Solution(values, {}, (), unpredicted)
    scale = np.array([_scale(name, values[name]) for name in touched])
    x0 = np.array([values[name] for name in touched]) / scale
    low = np.array([calibration()[name][1] for name in touched]) / scale
    high = np.array([calibration()[name][2] for name in touched]) / scale
    done = 0

    def residuals(x: np.ndarray) -> np.ndarray:
        nonlocal done
        done += 1
        progress(family.name, done, MOST_EVALUATIONS * (1 + len(touched)))
        tried = dict(zip(touched, (x * scale).tolist(), strict=True))
        logs = log_ratios(with_parameters(hardware, tried))
        pull = (x - x0) * family.pull
        return np.concatenate([logs, pull])

    found = least_squares(
        residuals,
        np.clip(x0, low + 1e-6, high - 1e-6),
        bounds=(low, high),
        loss="soft_l1",
        f_scale=SOFT_L1_LOG_RATIO,
        diff_step=DIFFERENCE_STEP,
        max_nfev=MOST_EVALUATIONS,
        xtol=1e-4,
        ftol=1e-4,
    )
    values |= dict(zip(touched, (_rounded(v) for v in np.clip(found.x, low, high) * scale), strict=True))
    deviations, correlations = _uncertainty(found.jac, found.fun, touched)
    intervals = {}
    for name, size, unit in zip(touched, deviations, scale, strict=True):
        half = 1.96 * float(size * unit)
        intervals[name] = (
            _rounded(max(values[name] - half, calibration()[name][1])),
            _rounded(min(values[name] + half, calibration()[name][2])),
        )
    return Solution(values, intervals, correlations, unpredicted)


def _scale(name: str, value: float) -> float:
    """What one unit of the fit's variable is: the value it starts from, or where that is 0 a tenth of its range."""
    return value or 0.1 * (calibration()[name][2] - calibration()[name][1])


def _touched(
    log_ratios: Callable[[Hardware], np.ndarray],
    base: np.ndarray,
    hardware: Hardware,
    values: dict[str, float],
) -> list[str]:
    """The parameters that change any prediction at all. base: the log ratios with the values as they are."""
    found = []
    for name, value in values.items():
        low, high = calibration()[name][1:3]
        step = DIFFERENCE_STEP * _scale(name, value)
        moved = value + step if value + step <= high else max(value - step, low)
        if np.any(log_ratios(with_parameters(hardware, {name: moved})) != base):
            found.append(name)
    return found


def _uncertainty(
    jacobian: np.ndarray, residuals: np.ndarray, names: list[str]
) -> tuple[np.ndarray, tuple[tuple[str, str, float], ...]]:
    """Standard deviations in the fit's units and the strong correlations, from rows whose errors are independent.

    The larger of two estimates: the usual one, which grows without limit (but for the pull's) where the data say nothing,
    and the sandwich, which holds where rows differ in the size of their errors.
    """
    bread = np.linalg.inv(jacobian.T @ jacobian + 1e-12 * np.eye(len(names)))
    # scipy scales row i of the Jacobian by (1 + z)^-3/4, z = (residual / soft limit)^2; the gradient of the soft-L1 loss
    # is the unscaled row times the residual times (1 + z)^-1/2.
    z = (residuals / SOFT_L1_LOG_RATIO) ** 2
    scores = jacobian * (residuals * (1 + z) ** 0.25)[:, None]
    sandwich = bread @ (scores.T @ scores) @ bread
    usual = bread * float(np.mean(residuals**2 / np.sqrt(1 + z)))
    deviations = np.sqrt(np.maximum(np.diag(usual), np.diag(sandwich)))
    sizes = np.sqrt(np.diag(usual))
    matrix = usual / np.outer(sizes, sizes)
    pairs = [
        (names[i], names[j], round(float(matrix[i, j]), 3))
        for i in range(len(names))
        for j in range(i)
        if abs(matrix[i, j]) > STRONG_CORRELATION
    ]
    return deviations, tuple(sorted(pairs, key=lambda pair: -abs(pair[2])))


def _rounded(value: float) -> float:
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")
