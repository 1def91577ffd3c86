"""The study's figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from simtti.pages.colours import series as colour
from simtti.pages.document import Drawing
from simtti.pages.drawing import Plot, drawing, few_ticks, log_axis
from simtti.words import label, number, si

NOTHING = "nothing was run"


def lines(
    name: str,
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x: str,
    y: str,
    caption: str,
    *,
    log_x: bool = True,
    log_y: bool = True,
    markers_only: bool = False,
) -> Drawing:
    """series: label -> (x, y)."""

    def draw(plot: Plot) -> None:
        axes = plot.figure.add_subplot()
        keys: dict[str, Any] = {}
        for at, (each, (xs, ys)) in enumerate(series.items()):
            points = [
                (a, b) for a, b in zip(xs, ys, strict=True) if (a > 0 or not log_x) and (b > 0 or not log_y)
            ]
            if points and not markers_only:
                axes.plot(*zip(*points, strict=True), color=colour(at).light, linewidth=1.8)
            for place, value in points:
                (mark,) = axes.plot(
                    place, value, "o", color=colour(at).light, markersize=7 if markers_only else 5
                )
                plot.tip(mark, f"{label(each)}: {number(value)} {y}, {number(place)} {x}")
                keys[label(each)] = mark
        for which, is_log in (("x", log_x), ("y", log_y)):
            if is_log and keys:
                log_axis(axes, which, plot, lambda value: si(value, "").strip())
            else:
                few_ticks(getattr(axes, f"{which}axis"), plot, lambda value: si(value, "").strip())
        axes.set(xlabel=x, ylabel=y)
        axes.grid()
        plot.legend(keys)
        if not keys:
            axes.text(0.5, 0.5, NOTHING, transform=axes.transAxes, ha="center")

    return drawing(name, draw, 420, caption, title=f"{y} against {x}")


def bars(
    name: str,
    places: Sequence[str],
    series: Mapping[str, Sequence[float]],
    y: str,
    caption: str,
    *,
    stacked: bool = False,
) -> Drawing:
    """series: label -> a value for each place, which is a bar from the left, of parts (stacked) or several side by side."""
    thick = 0.8 if stacked else 0.8 / max(len(series), 1)

    def draw(plot: Plot) -> None:
        axes = plot.figure.add_subplot()
        keys: dict[str, Any] = {}
        left = [0.0] * len(places)
        for at, (each, values) in enumerate(series.items()):
            for row, value in enumerate(values):
                if not value or value != value:
                    continue
                place = row if stacked else row + (at + 0.5) * thick - 0.4
                (mark,) = axes.barh(
                    place, value, thick, left=left[row] if stacked else 0.0, color=colour(at).light
                )
                plot.tip(mark, f"{label(places[row])}, {label(each)}: {number(value)}")
                keys[label(each)] = mark
                left[row] += value
        axes.set_yticks(range(len(places)), [plot.wrapped(label(place)) for place in places])
        axes.set_ylim(len(places) - 0.4, -0.6)
        axes.set_xlabel(y)
        axes.grid(axis="x")
        few_ticks(axes.xaxis, plot, lambda value: f"{value:g}")
        plot.legend(keys)
        if not keys:
            axes.text(0.5, 0.5, NOTHING, transform=axes.transAxes, ha="center")

    height = 110 + len(places) * (24 if stacked else 12 + 12 * len(series))
    return drawing(name, draw, height, caption, narrow_height_px=height + 60, title=y)
