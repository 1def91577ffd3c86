"""What a study says: which designs nothing beats, how strongly each parameter acts, which matter most."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from simtti.explore.design import WHOLE
from simtti.explore.spec import OBJECTIVES, Spec
from simtti.simulator.uncertainty.draws import SURE

if TYPE_CHECKING:
    import pandas as pd

_STEP = 1.1  # a parameter is moved by a tenth up and down for its elasticity


def better_is_more(objective: str) -> bool:
    return OBJECTIVES[objective][0] if objective in OBJECTIVES else False


def values_to_minimise(spec: Spec, figures: Mapping[str, Any]) -> list[float]:
    """The objectives, negative where more is better."""
    return [float(figures[name]) * (-1 if better_is_more(name) else 1) for name in spec.objectives]


def violation(spec: Spec, figures: Mapping[str, Any]) -> float:
    """By how much the constraints are broken, as a sum of shares of the bounds; 0 for a feasible design."""
    broken = 0.0
    for name, bound in spec.constraints.items():
        value = float(figures[name])
        if bound.max is not None:
            broken += max(0.0, value - bound.max) / (abs(bound.max) or 1.0)
        if bound.min is not None:
            broken += max(0.0, bound.min - value) / (abs(bound.min) or 1.0)
    if spec.fits_memory and not figures["fits_memory"]:
        broken += 1.0
    return broken


def pareto(costs: Sequence[Sequence[float]]) -> list[int]:
    """The rows of `costs` (less is better) that no other row dominates, in order. Of equal rows the first.

    >>> pareto([[1, 4], [2, 2], [3, 3], [4, 1], [2, 2]])
    [0, 1, 3]
    """
    table = np.asarray(costs, dtype=float)
    if not len(table):
        return []
    front: list[int] = []
    # After sorting, no later row dominates an earlier one.
    for index in np.lexsort([np.arange(len(table)), *table.T[::-1]]):
        kept = table[front]
        if not len(front) or not (kept <= table[index]).all(axis=1).any():
            front.append(int(index))
    return sorted(front)


def mark(spec: Spec, rows: Sequence[Mapping[str, Any]]) -> list[tuple[bool, bool]]:
    """For each design whether it is feasible, and whether it is in the Pareto set of those that are."""
    feasible = [not row.get("error") and violation(spec, row) == 0 for row in rows]
    chosen = [index for index, good in enumerate(feasible) if good]
    front = {chosen[i] for i in pareto([values_to_minimise(spec, rows[index]) for index in chosen])}
    return [(good, index in front) for index, good in enumerate(feasible)]


def unsure(
    spec: Spec, figures: Mapping[int, Mapping[str, Any]], draws: Mapping[int, Mapping[str, Sequence[float]]]
) -> dict[int, list[int]]:
    """Of each design those whose order with it is not sure: there is an objective in which the one that is predicted to be better is so in
    less than SURE of the draws.

    figures, draws: by design, of each objective its prediction and its draws; one without draws is sure.
    """
    numbers = sorted(figures)
    values = {number: values_to_minimise(spec, figures[number]) for number in numbers}
    found: dict[int, list[int]] = {number: [] for number in numbers}
    for first, second in itertools.combinations(numbers, 2):
        for place, name in enumerate(spec.objectives):
            if name not in draws[first] or name not in draws[second]:
                continue
            sign = -1 if better_is_more(name) else 1
            ahead = sign * (np.asarray(draws[second][name]) - np.asarray(draws[first][name]))
            if values[first][place] > values[second][place]:
                ahead = -ahead
            if values[first][place] != values[second][place] and (ahead > 0).mean() < SURE:
                found[first].append(second)
                found[second].append(first)
                break
    return found


def neighbours(
    spec: Spec, middle: Mapping[str, float]
) -> dict[str, tuple[dict[str, float], dict[str, float]]]:
    """For each parameter that varies, the designs with a tenth less and a tenth more of it, formulas following."""
    found = {}
    for name in spec.varied:
        low, high = middle[name] / _STEP, middle[name] * _STEP
        if name in WHOLE:
            low, high = min(math.floor(low), middle[name] - 1), max(math.ceil(high), middle[name] + 1)
            low = max(low, 1)
        found[name] = ({**middle, name: low}, {**middle, name: high})
    return found


def elasticity(name: str, low: Mapping[str, Any], high: Mapping[str, Any], objective: str) -> float:
    """By how many per cent `objective` changes for each per cent of the parameter. Both rows hold the parameters, too."""
    if not all(row.get(objective) for row in (low, high)) or low[name] == high[name] or low[name] <= 0:
        return math.nan
    return math.log(high[objective] / low[objective]) / math.log(high[name] / low[name])


def importance(table: pd.DataFrame, parameters: Sequence[str], objective: str) -> dict[str, float]:
    """Share of the spread of log(objective) that each parameter explains in a linear fit of logs, over all designs; what
    is left to 1 is curvature and interaction. Empty where the designs are too few."""
    rows = table[table[objective].notna() & (table[objective] > 0)] if objective in table else table[:0]
    used = [name for name in parameters if rows[name].nunique() > 1 and (rows[name] > 0).all()]
    if len(rows) < len(used) + 3 or not used:
        return {}
    y = np.log(rows[objective].to_numpy(float))
    x = np.log(rows[used].to_numpy(float))
    x, y = x - x.mean(axis=0), y - y.mean()
    total = float(y @ y)
    if total == 0:
        return dict.fromkeys(used, 0.0)
    slopes = np.linalg.lstsq(x, y, rcond=None)[0]
    # Each parameter's part of the explained spread: its slope times its covariance with the objective.
    shares = slopes * (x.T @ y) / total
    return dict(sorted(zip(used, map(float, shares), strict=True), key=lambda item: -item[1]))
