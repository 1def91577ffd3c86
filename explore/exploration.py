"""What an exploration found, in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from simtti.explore.spec import Spec

if TYPE_CHECKING:
    import pandas as pd


class Exploration(NamedTuple):
    """What `explore` wrote, in memory.

    table: one row a design, in the order proposed: its number, every parameter and figure, `feasible`, `pareto`, `error`; of the Pareto
    set between what each objective lies in half of such predictions and in 9 of 10 (NAME.p05 to NAME.p95), and `unsure`: the designs
    whose order with it the errors leave open.
    sensitivity: elasticity of each objective to each parameter about the middle of the space, and importance over all.
    limits: seconds by design, workload, category and limit, of the designs around the middle, of the Pareto set and of the base.
    base: parameters and figures of the base device itself, `error` where it has none.
    """

    spec: Spec
    table: pd.DataFrame
    sensitivity: pd.DataFrame
    limits: pd.DataFrame
    evaluated: int
    base: Mapping[str, Any]
