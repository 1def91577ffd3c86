"""The study's figures as plotly data. Colours are names of the report page's style."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from simtti.pages.document import Chart
from simtti.validation.report.charts import series_colour


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
) -> Chart:
    """series: label -> (x, y)."""
    data = tuple(
        {"type": "scatter", "mode": "markers" if markers_only else "lines+markers", "name": label,
         "x": [_short(value) for value in xs], "y": [_short(value) for value in ys],
         "line": {"width": 2, "color": series_colour(at)}, "marker": {"size": 9 if markers_only else 6, "color": series_colour(at)}}
        for at, (label, (xs, ys)) in enumerate(series.items())
    )  # fmt: skip
    layout = {
        "xaxis": {"title": {"text": x}, "type": "log" if log_x else "linear"},
        "yaxis": {"title": {"text": y}, "type": "log" if log_y else "linear"},
    }
    return Chart(name, data, layout, caption)


def bars(
    name: str,
    places: Sequence[str],
    series: Mapping[str, Sequence[float]],
    y: str,
    caption: str,
    *,
    stacked: bool = False,
) -> Chart:
    """series: label -> a value for each place."""
    data = tuple(
        {"type": "bar", "name": label, "x": list(places), "y": [_short(value) for value in values],
         "marker": {"color": series_colour(at)}}
        for at, (label, values) in enumerate(series.items())
    )  # fmt: skip
    layout: dict[str, Any] = {
        "barmode": "stack" if stacked else "group",
        "xaxis": {"type": "category"},
        "yaxis": {"title": {"text": y}, "rangemode": "tozero"},
    }
    return Chart(name, data, layout, caption)


def _short(value: float) -> float:
    return float(f"{value:.4g}")
