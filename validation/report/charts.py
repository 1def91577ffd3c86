"""Plotly figures as plain data: no plotly import, the same input gives the same bytes. Colours are names of the page's
style (--series-1 and so on), which the page puts in, light or dark."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from simtti.pages.colours import PALETTE
from simtti.pages.document import Chart
from simtti.validation.judge.kernels import dimensions as varying
from simtti.validation.judge.kernels import shape_text, size_order

if TYPE_CHECKING:
    import pandas as pd

# Points a scatter shows at most; a fixed sample stands for more.
MOST_POINTS = 3000
BAND = 1.25
ERROR_LIMIT = 0.5  # of the axes that show errors
_BIN_WIDTH = 0.025
# Distinct sizes up to which each has its own place on an axis; more are put into bins of equal numbers of rows.
_MOST_SIZES = 24
_FEWEST_AT_A_SIZE = 3
# Families of fewer rows have no chart of their errors.
_FEWEST_ROWS = 30


def series_colour(at: int) -> str:
    return f"var(--series-{at % len(PALETTE) + 1})"


def thinned(rows: pd.DataFrame, most: int) -> pd.DataFrame:
    """At most `most` rows, the same ones every time: evenly spaced in the table's order, which is by shape in most files."""
    if len(rows) <= most:
        return rows
    chosen = np.random.default_rng(0).choice(len(rows), most, replace=False)
    return rows.iloc[np.sort(chosen)]


def _plain(values: Any, digits: int = 4) -> list[float]:
    return [float(f"{value:.{digits}g}") for value in values]


def scatter(rows: pd.DataFrame, by: str, name: str, unit: str) -> Chart:
    """Predicted against measured, log-log, with the +-25 % band. rows: predicted_us and time_us, or _s and latency_s."""
    predicted, measured = ("predicted_us", "time_us") if unit == "us" else ("predicted_s", "latency_s")
    known = rows[rows[predicted].notna()]
    shown = thinned(known, MOST_POINTS)
    low = float(min(known[measured].min(), known[predicted].min())) * 0.8
    high = float(max(known[measured].max(), known[predicted].max())) * 1.25
    ends = _plain([low, high])
    data: list[dict[str, Any]] = [
        {"type": "scatter", "mode": "lines", "x": ends, "y": _plain([low / BAND, high / BAND]), "hoverinfo": "skip",
         "showlegend": False, "line": {"width": 0}},
        {"type": "scatter", "mode": "lines", "x": ends, "y": _plain([low * BAND, high * BAND]), "hoverinfo": "skip",
         "showlegend": False, "line": {"width": 0}, "fill": "tonexty", "fillcolor": "var(--band)"},
        {"type": "scatter", "mode": "lines", "x": ends, "y": ends, "hoverinfo": "skip", "showlegend": False,
         "line": {"width": 1, "color": "var(--muted)"}},
    ]  # fmt: skip
    order = sorted(set(known[by])) if by == "gpus" else known[by].value_counts().index
    for at, group in enumerate(order):
        part = shown[shown[by] == group]
        data.append(
            {"type": "scattergl" if len(shown) > 1000 else "scatter", "mode": "markers", "name": _series_name(by, group, known),
             "x": _plain(part[measured]), "y": _plain(part[predicted]), "text": [_label(row) for row in part.to_dict("records")],
             "hovertemplate": f"%{{text}}<br>measured %{{x:.4g}} {unit}, predicted %{{y:.4g}} {unit}<extra></extra>",
             "marker": {"size": 5 if len(shown) > 300 else 8, "opacity": 0.55, "color": series_colour(at)}}
        )  # fmt: skip
    limits = _plain(np.log10([low, high]))
    axis: dict[str, Any] = {"type": "log", "range": limits}
    axis["dtick"] = 1 if limits[1] - limits[0] > 2 else "D2"
    layout = {
        "xaxis": {**axis, "title": {"text": f"measured, {unit}"}},
        "yaxis": {**axis, "title": {"text": f"predicted, {unit}"}},
    }
    caption = "On the line the prediction is exact; the band is -20 to +25 %."
    if len(shown) < len(known):
        caption += f" {len(shown):,} of {len(known):,} points are drawn, a fixed sample."
    return Chart(name, tuple(data), layout, caption, height_px=520)


def _series_name(by: str, group: Any, rows: pd.DataFrame) -> str:
    what = f"{group} GPUs" if by == "gpus" else str(group)
    return f"{what} ({(rows[by] == group).sum():,})"


def _label(row: dict[str, Any]) -> str:
    if row.get("workload"):
        return f"{row['workload']} on {row['hw']}, batch {row.get('batch', 1):.0f}"
    return f"{row['family']} {shape_text(row)}"


def distribution(rows: pd.DataFrame, families: list[str]) -> Chart:
    """Histogram of predicted / measured - 1, a share of each family's rows, with the roofline's beside it."""
    edges = np.arange(-ERROR_LIMIT, ERROR_LIMIT + _BIN_WIDTH / 2, _BIN_WIDTH)
    centres = _plain(100 * (edges[:-1] + edges[1:]) / 2)
    data = []
    highest = 0.0
    lines = [(family, rows[rows.family == family]) for family in families]
    for at, (family, part) in enumerate(lines):
        error = np.clip(part.ratio.dropna() - 1, -ERROR_LIMIT + 1e-9, ERROR_LIMIT - 1e-9)
        if len(error) < _FEWEST_ROWS:
            continue
        shares = np.histogram(error, edges)[0] / len(error)
        highest = max(highest, 100 * float(shares.max()))
        data.append(
            {"type": "scatter", "mode": "lines", "line": {"shape": "hvh", "width": 2, "color": series_colour(at)},
             "name": family, "x": centres, "y": _plain(100 * shares),
             "hovertemplate": "%{x:+.1f} %: %{y:.1f} % of rows<extra>" + family + "</extra>"}
        )  # fmt: skip
    roofline = np.clip(
        (rows.roofline_us / rows.time_us).dropna() - 1, -ERROR_LIMIT + 1e-9, ERROR_LIMIT - 1e-9
    )
    shares = np.histogram(roofline, edges)[0] / max(len(roofline), 1)
    data.append(
        {"type": "scatter", "mode": "lines", "line": {"shape": "hvh", "width": 1, "dash": "dot", "color": "var(--muted)"},
         "name": "roofline, all rows", "x": centres, "y": _plain(100 * shares),
         "hovertemplate": "%{x:+.1f} %: %{y:.1f} % of rows<extra>roofline</extra>"}
    )  # fmt: skip
    layout = {
        "xaxis": {
            "title": {"text": "error, % (negative: predicted too fast)"},
            "range": [-50, 50],
            "ticksuffix": " %",
        },
        "yaxis": {"title": {"text": "share of rows, %"}, "range": [0, 1.1 * (highest or 100)]},
    }
    return Chart(
        "kernels-distribution",
        tuple(data),
        layout,
        f"Errors beyond 50 % are in the outermost bins, which may reach out of the picture; families of fewer than "
        f"{_FEWEST_ROWS} rows are left out.",
        height_px=380,
    )


def by_size(rows: pd.DataFrame, families: list[str]) -> Chart:
    """MAPE of each family by class of the measured time."""
    sizes = sorted(set(rows["size"]), key=size_order)
    data = []
    for at, family in enumerate(families):
        part = rows[(rows.family == family) & rows.ratio.notna()]
        mape = (part.ratio - 1).abs().groupby(part["size"]).mean()
        bias = part.assign(log=np.log(part.ratio.to_numpy(float))).groupby("size").log.mean()
        counts = part["size"].value_counts()
        seen = [size for size in sizes if size in mape.index]
        data.append(
            {"type": "bar", "name": family, "x": seen, "y": _plain([100 * mape[size] for size in seen]),
             "marker": {"color": series_colour(at)},
             "text": [f"{counts[size]:,} rows, bias {100 * np.expm1(bias[size]):+.1f} %" for size in seen], "textposition": "none",
             "hovertemplate": "%{x}: MAPE %{y:.1f} %<br>%{text}<extra>" + family + "</extra>"}
        )  # fmt: skip
    layout = {
        "barmode": "group",
        "xaxis": {"type": "category", "categoryorder": "array", "categoryarray": sizes, "title": {"text": "measured time"}},
        "yaxis": {"title": {"text": "MAPE, %"}, "rangemode": "tozero"},
    }  # fmt: skip
    return Chart(
        "kernels-by-size", tuple(data), layout, "Mean error by class of the measured time.", height_px=340
    )


def dimensions(rows: pd.DataFrame, family: str) -> list[Chart]:
    """Error of one family against each dimension of its shape: the median and the middle 80 % at each size."""
    known = rows[rows.ratio.notna()]
    if len(known) < _FEWEST_ROWS:
        return []
    names = [name for name in varying(known) if known[name].nunique() > 2]
    return [
        _dimension(known, family, name)
        for at, name in enumerate(names)
        if not any(known[name].equals(known[other]) for other in names[:at])  # w where all images are square
    ]


def _dimension(known: pd.DataFrame, family: str, name: str) -> Chart:
    sizes, low, middle, high, counts = _against(known[name].to_numpy(float), known.ratio.to_numpy(float) - 1)
    edge = {"type": "scatter", "mode": "lines", "x": sizes, "line": {"width": 0}, "hoverinfo": "skip"}
    data = (
        {**edge, "y": low},
        {**edge, "y": high, "fill": "tonexty", "fillcolor": "var(--band)"},
        {"type": "scatter", "mode": "lines+markers", "x": sizes, "y": middle, "text": counts,
         "line": {"width": 2, "color": "var(--series-1)"}, "marker": {"size": 5},
         "hovertemplate": name + " %{x}: %{y:+.1f} %, %{text} rows<extra></extra>"},
    )  # fmt: skip
    ticks = sorted({sizes[0], sizes[len(sizes) // 2], sizes[-1]}) if sizes else []
    wide = bool(ticks) and ticks[-1] > 20 * max(ticks[0], 1e-9)
    layout = {
        "showlegend": False,
        "xaxis": {"type": "log" if wide else "linear", "tickvals": ticks, "ticktext": [f"{tick:,.0f}" for tick in ticks]},
        "yaxis": {"range": [-40, 40], "ticksuffix": " %", "dtick": 20},
        "margin": {"l": 44, "r": 14, "t": 8, "b": 26},
    }  # fmt: skip
    return Chart(
        f"kernels-{family}-{name}".replace("_", "-"),
        data,
        layout,
        height_px=190,
        title=f"{family}: {name}",
        small=True,
    )


def _against(sizes: np.ndarray, error: np.ndarray) -> tuple[list[float], ...]:
    """Of the errors at each size (or bin of sizes): 10 %, 50 % and 90 % quantiles in percent, and how many there are."""
    distinct = np.unique(sizes)
    if len(distinct) > _MOST_SIZES:
        edges = np.unique(np.quantile(sizes, np.linspace(0, 1, _MOST_SIZES + 1)))
        bins = np.clip(np.searchsorted(edges, sizes, side="right") - 1, 0, len(edges) - 2)
        places = np.array(
            [np.median(sizes[bins == at]) if np.any(bins == at) else np.nan for at in range(len(edges) - 1)]
        )
    else:
        bins, places = np.searchsorted(distinct, sizes), distinct
    found: list[list[float]] = [[], [], [], [], []]
    for at, place in enumerate(places):
        here = error[bins == at]
        if len(here) < _FEWEST_AT_A_SIZE:
            continue
        low, middle, high = np.quantile(here, (0.1, 0.5, 0.9))
        found[0].append(float(place))
        for values, value in zip(found[1:], (100 * low, 100 * middle, 100 * high, len(here)), strict=True):
            values.append(float(f"{value:.4g}"))
    return tuple(found)
