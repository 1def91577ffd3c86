"""Colours of every page and plot, light and dark: one for each category of operators and for each thing that time is limited by.

PALETTE: Okabe and Ito's colours (Color Universal Design, 2008) that are not too bright on white, and others as far from them as a
search found: for people who see all colours, and by Machado, Oliveira and Fernandes' matrices (IEEE TVCG 15(6), 2009, severity 1) for
those who lack red or green. tests/pages/test_colours.py holds them apart. The dark of each is of a hue near its light one's.
"""

from __future__ import annotations

from typing import NamedTuple

from simtti.simulator.closed_form import RESOURCES
from simtti.simulator.time_of_run import HOST_IDLE, LAUNCH_GAP
from simtti.workloads.trace import CATEGORIES


class Colour(NamedTuple):
    """#rrggbb on a light ground and on a dark one."""

    light: str
    dark: str


PALETTE = tuple(
    Colour(*each)
    for each in (
        ("#0072b2", "#0f78ff"), ("#e69f00", "#ffe12d"), ("#009e73", "#96f0c3"), ("#d55e00", "#f08700"), ("#56b4e9", "#4ba5ff"),
        ("#cc79a7", "#e10069"), ("#1e2da5", "#d2b4ff"), ("#5a4b00", "#69781e"), ("#a5e15a", "#a5e15a"), ("#f02d5a", "#e18778"),
        ("#781e2d", "#ff4b3c"), ("#a587ff", "#b469d2"), ("#5a2d69", "#d200a5"), ("#ffb487", "#ffd296"), ("#a51e96", "#ff87c3"),
        ("#5b6478", "#e1e1f0"), ("#b4bac4", "#878796"),
    )
)  # fmt: skip
# The last two are greys: the GPU waits.
_WAITING = {HOST_IDLE: 16, LAUNCH_GAP: 15, "host": 16, "launch": 15}
_PLACE = {
    **{name: at for at, name in enumerate(CATEGORIES)},
    **{name: at for at, name in enumerate((*RESOURCES, "latency"))},
    **_WAITING,
}
# Of the page itself.
THEME = {
    "page": Colour("#f6f7f9", "#11151c"),
    "card": Colour("#ffffff", "#191f29"),
    "text": Colour("#1b2330", "#e6e9ef"),
    "muted": Colour("#667085", "#98a2b3"),
    "line": Colour("#e2e6ec", "#2b3340"),
    "grid": Colour("#e9ecf1", "#29303c"),
    "accent": Colour("#1f5fbf", "#7fb0ff"),
    "bad": Colour("#b42318", "#ff9c90"),
    "bad-fill": Colour("#fdecea", "#44201d"),
}


def series(at: int) -> Colour:
    """The colour of a plot's series number `at`, from 0."""
    return PALETTE[at % len(PALETTE)]


def named(name: str) -> Colour:
    """The colour of a category of operators or of what limits time, the same on every plot; of another name, Other's."""
    return PALETTE[_PLACE.get(name, _PLACE["Other"])]


def variables() -> dict[str, Colour]:
    """Every colour by the name that style sheet and plots have for it: series-1 and so on, and THEME's."""
    return {**THEME, **{f"series-{at}": colour for at, colour in enumerate(PALETTE, 1)}}
