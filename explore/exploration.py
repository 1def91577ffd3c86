"""What an exploration found, in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from simtti.explore.silicon import MASK_MM2
from simtti.explore.spec import Spec

if TYPE_CHECKING:
    import pandas as pd

_MOST_NAMED = 12


class Exploration(NamedTuple):
    """What `explore` wrote, in memory.

    table: one row a design, in the order proposed: its number, every parameter and figure, `feasible`, `pareto`, `error`; of the Pareto
    set between what each objective lies in half of such predictions and in 9 of 10 (NAME.p05 to NAME.p95), and `unsure`: the designs
    whose order with it the errors leave open.
    sensitivity: elasticity of each objective to each parameter about the middle of the space or the base (`about`), and importance over all.
    limits: seconds by design, workload, category and limit, of the designs around the middle, of the Pareto set and of the base.
    base: parameters and figures of the base device itself, `error` where it has none.
    """

    spec: Spec
    table: pd.DataFrame
    sensitivity: pd.DataFrame
    limits: pd.DataFrame
    evaluated: int
    base: Mapping[str, Any]

    @property
    def about(self) -> str:
        """Where sensitivities are taken, in words."""
        return "the base" if self.spec.search.method == "one-at-a-time" else "the middle of the space"

    @property
    def warnings(self) -> list[str]:
        """What one should know of the Pareto set, a sentence each."""
        front = self.table[self.table.pareto]
        large = front.design[front.die_mm2 > MASK_MM2].tolist() if "die_mm2" in front else []
        if not large:
            return []
        named = ", ".join(map(str, large[:_MOST_NAMED])) + (" and others" if len(large) > _MOST_NAMED else "")
        return [
            f"a die larger than a mask can hold, {MASK_MM2:g} mm²: design {named}; a constraint on die_mm2 leaves such out"
        ]
