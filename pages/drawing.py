"""Plots as SVG inside a page, by matplotlib: light and dark, with a tooltip a mark, drawn for a screen and for a phone.

A plot is drawn in the palette's light colours and with the page's fonts; each colour then becomes the page's variable for it.
"""

from __future__ import annotations

import functools
import html
import io
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from simtti.errors import InputError
from simtti.pages.colours import PALETTE, THEME, variables
from simtti.pages.document import Drawing

# Width in pixels that a plot is drawn for; the page scales it.
WIDE_PX, NARROW_PX, SMALL_PX = 820, 350, 240
_LEGEND_ROW_PX = 18.0
_FONT_PX = {WIDE_PX: 12.0, NARROW_PX: 11.0, SMALL_PX: 10.0}
_STYLE: dict[Any, Any] = {
    "axes.edgecolor": THEME["line"].light,
    "axes.labelcolor": THEME["text"].light,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": THEME["grid"].light,
    "legend.frameon": False,
    "text.color": THEME["text"].light,
    "xtick.color": THEME["muted"].light,
    "ytick.color": THEME["text"].light,
    "svg.hashsalt": "simtti",
}
_IN_A_PAGE: dict[Any, Any] = {"svg.fonttype": "none", "text.parse_math": False}
_VARIABLE = {colour.light: f"var(--{name})" for name, colour in variables().items()}


class Plot:
    """A figure to draw on. narrow: for a phone, where text is dear. tip: what a mark says when it is pointed at."""

    def __init__(self, figure: Any, narrow: bool) -> None:
        self.figure, self.narrow = figure, narrow
        self.tips: dict[str, str] = {}

    def tip(self, mark: Any, text: str) -> None:
        name = f"mark-{len(self.tips)}"
        mark.set_gid(name)
        self.tips[name] = text

    def wrapped(self, text: str) -> str:
        """`text` in lines as long as there is room for beside a plot."""
        return "\n".join(
            line for part in text.splitlines() for line in textwrap.wrap(part, 18 if self.narrow else 36)
        )

    def legend(self, marks: Mapping[str, Any]) -> None:
        """Names beside their marks, over the plot, in as many columns as there is room for; the figure grows by them."""
        if not marks:
            return
        names = [textwrap.shorten(name, 44 if self.narrow else 90, placeholder="…") for name in marks]
        columns = max(1, (50 if self.narrow else 100) // (max(map(len, names), default=1) + 6))
        rows = -(-len(names) // columns)
        self.figure.set_figheight(self.figure.get_figheight() + rows * _LEGEND_ROW_PX / 72)
        found = self.figure.legend(
            list(marks.values()), names, loc="outside upper left", ncols=min(columns, len(names))
        )
        for handle in found.legend_handles:
            handle.set_alpha(1.0)
            if hasattr(handle, "set_markersize"):
                handle.set_markersize(max(handle.get_markersize(), 7.0))


def check_available() -> None:
    """Fail before the work where matplotlib is missing.

    Raises:
        InputError: it is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise InputError("plots need matplotlib; run: pip install 'simtti[report]'") from None


def styled(draw: Callable[..., None]) -> Callable[..., None]:
    """A function that draws, within `style()`."""

    @functools.wraps(draw)
    def within(*arguments: Any, **named: Any) -> None:
        with style():
            draw(*arguments, **named)

    return within


@contextmanager
def style() -> Iterator[None]:
    """Within it, matplotlib draws as every plot of simtti looks."""
    check_available()
    import matplotlib
    from cycler import cycler

    cycle = cycler(color=[colour.light for colour in PALETTE])
    with matplotlib.rc_context({**_STYLE, "axes.prop_cycle": cycle}):
        yield


def drawing(
    name: str,
    draw: Callable[[Plot], None],
    height_px: float,
    caption: str = "",
    *,
    title: str = "",
    narrow_height_px: float | None = None,
    small: bool = False,
) -> Drawing:
    """What `draw` puts on a Plot, as SVG.

    name: of its element on the page, unique there. title: what it shows, for those who cannot see it. small: it stands in a row of
    small ones, the same on every screen. The same input gives the same text.

    Raises:
        InputError: matplotlib is not installed.
    """
    if small:
        return Drawing(name, _svg(name, draw, SMALL_PX, height_px, title), "", caption, title)
    heights = {WIDE_PX: height_px, NARROW_PX: narrow_height_px or height_px}
    wide, narrow = (_svg(f"{name}-{width}", draw, width, height, title) for width, height in heights.items())
    return Drawing(name, wide, narrow, caption, title)


def _svg(name: str, draw: Callable[[Plot], None], width_px: int, height_px: float, title: str) -> str:
    with style():
        import matplotlib
        from matplotlib.figure import Figure

        with matplotlib.rc_context({**_IN_A_PAGE, "font.size": _FONT_PX[width_px]}):
            figure = Figure(figsize=(width_px / 72, height_px / 72), dpi=72, layout="constrained")
            plot = Plot(figure, width_px != WIDE_PX)
            draw(plot)
            made = io.StringIO()
            figure.savefig(made, format="svg", transparent=True, metadata={"Date": None})
    return _inline(made.getvalue(), name, plot.tips, title)


_ID = re.compile(r'\bid="([^"]*)"')
_REFERENCE = re.compile(r"(xlink:href=\"|url\()#([^\")]*)")
_COLOUR = re.compile(r"#[0-9a-f]{6}\b")
_FONT = re.compile(r"\s*font-family: [^;\"]*;?")
_FONT_AT_ONCE = re.compile(r"font: ([\d.]+px) [^;\"]*")  # as matplotlib has it before 3.10
_SHAPE = re.compile(r"<(?:path|use)\b[^>]*>")
_DIGITS = re.compile(r"(\.\d\d)\d+")  # a hundredth of a pixel is enough
_ALIKE = re.compile(r'<use ([^>]*?) style="([^"]*)"/>(?:\s*<use [^>]*? style="\2"/>)+')
_GROUP = re.compile(r'<g id="(mark-\d+)">')


def _inline(svg: str, name: str, tips: dict[str, str], title: str) -> str:
    """matplotlib's file as an element of a page: no ids but those referred to, which are the plot's own; the page's colours and
    fonts; a <title> in each mark that has a tip."""
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)
    body = _GROUP.sub(lambda found: f"<g><title>{html.escape(tips[found[1]])}</title>", body)
    referred = {found[1] for found in _REFERENCE.findall(body)}
    body = _ID.sub(lambda found: f'id="{name}-{found[1]}"' if found[1] in referred else "", body)
    body = _REFERENCE.sub(rf"\g<1>#{name}-\g<2>", body)
    body = _COLOUR.sub(
        lambda found: _VARIABLE.get(found[0], found[0]),
        _FONT.sub("", _FONT_AT_ONCE.sub(r"font-size: \1", body)),
    )
    body = _SHAPE.sub(lambda found: _DIGITS.sub(r"\1", found[0]), body)
    # Marks that are alike say once how they look.
    body = _ALIKE.sub(
        lambda run: f'<g style="{run[2]}">' + run[0].replace(f' style="{run[2]}"', "") + "</g>", body
    )
    body = re.sub(r"\s*\n\s*", "\n", body)
    found = re.search(r'viewBox="([^"]*)"', svg)
    assert found is not None
    return f'<svg viewBox="{found[1]}" role="img" aria-label="{html.escape(title)}">{body}'


class Part(NamedTuple):
    """A piece of a bar: whose it is, its length, its colour, and what it says when it is pointed at."""

    name: str
    length: float
    colour: str
    tip: str


def bars(
    rows: Sequence[tuple[str, Sequence[Part]]],
    x: str,
    *,
    marks: Sequence[str] = (),
    legend: bool = True,
) -> Callable[[Plot], None]:
    """Horizontal bars from the top down, each of parts side by side.

    rows: each bar's label and parts; those of no length are left out. x: what lengths are. marks: text behind each bar. legend: of the
    parts' names.
    """

    def draw(plot: Plot) -> None:
        axes = plot.figure.add_subplot()
        named: dict[str, Any] = {}
        ends = []
        for at, (_, parts) in enumerate(rows):
            left = 0.0
            for part in parts:
                if part.length:
                    (mark,) = axes.barh([at], [part.length], left=left, height=0.7, color=part.colour)
                    plot.tip(mark, part.tip)
                    named.setdefault(part.name, mark)
                    left += part.length
            ends.append(left)
        for at, text in enumerate(marks):
            axes.text(ends[at], at, f" {text}", va="center", color=THEME["muted"].light)
        axes.set_yticks(range(len(rows)), [plot.wrapped(label) for label, _ in rows])
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        if marks:
            text_px = _CHARACTER_PX * (1 + max(map(len, marks)))
            labels_px = _CHARACTER_PX * max(
                (len(line) for label, _ in rows for line in label.splitlines()), default=0
            )
            bars_px = max(
                (NARROW_PX if plot.narrow else WIDE_PX) - labels_px - text_px - _MARGIN_PX, _MARGIN_PX
            )
            axes.set_xlim(0, max(ends, default=0.0) * (1 + text_px / bars_px) or 1.0)
        axes.grid(axis="x")
        axes.set_xlabel(x)
        few_ticks(axes.xaxis, plot, lambda value: f"{value:g}")
        if legend:
            plot.legend(named)

    return draw


# A character's width, on average and on the safe side, and what lies about the axes.
_CHARACTER_PX, _MARGIN_PX = 7.0, 20.0


def few_ticks(axis: Any, plot: Plot, ticks: Callable[[float], str]) -> None:
    """As many ticks as there is room for, each as `ticks` has it."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(4 if plot.narrow else 7))
    axis.set_major_formatter(FuncFormatter(lambda value, _: ticks(value)))


def log_axis(axes: Any, which: str, plot: Plot, ticks: Callable[[float], str], base: int = 10) -> None:
    """Make an axis, 'x' or 'y', logarithmic, with ticks at powers of `base`, each as `ticks` has it."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    getattr(axes, f"set_{which}scale")("log", base=base)
    axis = getattr(axes, f"{which}axis")
    axis.set_major_locator(LogLocator(base, numticks=5 if plot.narrow else 9))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: ticks(value)))
