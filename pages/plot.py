"""The plot of one run: what `simtti.plot` gives."""

from __future__ import annotations

import functools
import io
from typing import TYPE_CHECKING, Any

from simtti.pages.drawing import Plot, check_available, style
from simtti.pages.run_plots import bars_by_phase
from simtti.simulator.result import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH_IN, _ROW_IN, _REST_IN = 8.0, 0.55, 1.5


def plot(result: Result) -> Figure:
    """Time of each phase by category, in shares of the phase's.

    Returns:
        A matplotlib Figure, 8 inches wide, which pyplot does not know of. A notebook shows it; `savefig` writes it.

    Raises:
        InputError: matplotlib is not installed.
    """
    check_available()
    with style():
        figure: Figure = _shown()(
            figsize=(_WIDTH_IN, _REST_IN + _ROW_IN * len(result.phases)), layout="constrained"
        )
        bars_by_phase(result)(Plot(figure, narrow=False))
    return figure


@functools.cache
def _shown() -> Any:
    """Figure as notebooks show it: without pyplot they have no picture of a plain one."""
    from matplotlib.figure import Figure

    class Shown(Figure):
        def _repr_png_(self) -> bytes:
            made = io.BytesIO()
            self.savefig(made, format="png", dpi=100)
            return made.getvalue()

    return Shown
