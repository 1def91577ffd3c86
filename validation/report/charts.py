"""The plots of both reports."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from simtti.pages.colours import THEME, series
from simtti.pages.document import Drawing
from simtti.pages.drawing import Plot, drawing, few_ticks, log_axis
from simtti.validation.judge.kernels import dimensions as varying
from simtti.validation.judge.kernels import shape_text, size_order
from simtti.words import label, number, signed

if TYPE_CHECKING:
    import pandas as pd

# Points a scatter shows at most; a fixed sample stands for more.
MOST_POINTS = 3000
# Those farthest off that say what they are.
_MOST_TIPS = 100
BAND = 1.25
ERROR_LIMIT = 0.5  # of the axes that show errors
_BIN_WIDTH = 0.025
# Distinct sizes up to which each has its own place on an axis; more are put into bins of equal numbers of rows.
_MOST_SIZES = 24
_FEWEST_AT_A_SIZE = 3
# Families of fewer rows have no chart of their errors.
_FEWEST_ROWS = 30


def thinned(rows: pd.DataFrame, most: int) -> pd.DataFrame:
    """At most `most` rows, the same ones every time: evenly spaced in the table's order, which is by shape in most files."""
    if len(rows) <= most:
        return rows
    chosen = np.random.default_rng(0).choice(len(rows), most, replace=False)
    return rows.iloc[np.sort(chosen)]


def scatter(rows: pd.DataFrame, by: str, name: str, unit: str) -> Drawing:
    """Predicted against measured, log-log, with the +-25 % band. rows: predicted_us and time_us, or _s and latency_s."""
    predicted, measured = ("predicted_us", "time_us") if unit == "us" else ("predicted_s", "latency_s")
    known = rows[rows[predicted].notna()]
    shown = thinned(known, MOST_POINTS)
    ends = np.array(
        [0.8 * known[[measured, predicted]].min().min(), 1.25 * known[[measured, predicted]].max().max()]
    )
    order = sorted(set(known[by])) if by == "gpus" else list(known[by].value_counts().index)
    off = (shown[predicted] / shown[measured]).astype(float).map(math.log).abs()
    farthest = set(off.sort_values(kind="stable").index[-_MOST_TIPS:])

    def draw(plot: Plot) -> None:
        axes = plot.figure.add_subplot()
        axes.fill_between(ends, ends / BAND, ends * BAND, color=series(0).light, alpha=0.12, linewidth=0)
        axes.plot(ends, ends, color=THEME["muted"].light, linewidth=1)
        style = {"markersize": 3 if len(shown) > 300 else 5, "alpha": 0.55, "markeredgewidth": 0}
        keys: dict[str, Any] = {}
        for at, group in enumerate(order):
            part = shown[shown[by] == group]
            within = part[~part.index.isin(farthest)]
            (keys[_series_name(by, group, known)],) = axes.plot(
                within[measured], within[predicted], "o", color=series(at).light, **style
            )
            for index, row in part[part.index.isin(farthest)].iterrows():
                (mark,) = axes.plot(row[measured], row[predicted], "o", color=series(at).light, **style)
                said = f"measured {number(row[measured])} {unit}, predicted {number(row[predicted])} {unit}"
                plot.tip(mark, f"{_label(part.loc[index].to_dict())}: {said}")
        for which in "xy":
            log_axis(axes, which, plot, lambda value: f"{value:,g}")
        axes.set(xlim=ends, ylim=ends, xlabel=f"measured, {unit}", ylabel=f"predicted, {unit}")
        axes.grid()
        plot.legend(keys)

    caption = "On the line the prediction is exact; the band is -20 to +25 %."
    if len(shown) < len(known):
        caption += f" {len(shown):,} of {len(known):,} points are drawn, a fixed sample."
    return drawing(name, draw, 540, caption, narrow_height_px=420, title="Predicted against measured")


def _series_name(by: str, group: Any, rows: pd.DataFrame) -> str:
    what = f"{group} GPUs" if by == "gpus" else label(str(group))
    return f"{what} ({(rows[by] == group).sum():,})"


def _label(row: dict[str, Any]) -> str:
    if row.get("workload"):
        return f"{row['workload']} on {row['hw']}, batch {row.get('batch', 1):.0f}"
    return label(f"{row['family']} {shape_text(row)}")


def distribution(rows: pd.DataFrame, families: list[str]) -> Drawing:
    """Histogram of predicted / measured - 1, a share of each family's rows, with the roofline's beside it."""
    edges = np.arange(-ERROR_LIMIT, ERROR_LIMIT + _BIN_WIDTH / 2, _BIN_WIDTH)
    found = []
    for at, family in enumerate(families):
        errors = (rows[rows.family == family].ratio.dropna() - 1).to_numpy(float)
        if len(errors) >= _FEWEST_ROWS:
            found.append((label(family), errors, {"color": series(at).light, "linewidth": 1.8}))
    roofline = (rows.roofline_us / rows.time_us).dropna().to_numpy(float) - 1
    found.append(("roofline, all rows", roofline, {"color": THEME["muted"].light, "linestyle": ":"}))

    def draw(plot: Plot) -> None:
        axes = plot.figure.add_subplot()
        keys, highest = {}, 0.0
        for name, errors, style in found:
            inside = np.clip(errors, -ERROR_LIMIT + 1e-9, ERROR_LIMIT - 1e-9)
            shares = 100 * np.histogram(inside, edges)[0] / max(len(errors), 1)
            highest = highest if name.startswith("roofline") else max(highest, float(shares.max()))
            keys[name] = axes.stairs(shares, 100 * edges, baseline=None, **style)
            plot.tip(keys[name], f"{name}: {len(errors):,} rows, half from {signed(np.quantile(errors, 0.25))} to "
                                 f"{signed(np.quantile(errors, 0.75))}" if len(errors) else name)  # fmt: skip
        axes.set(xlim=(-50, 50), ylim=(0, 1.1 * (highest or 100)))
        axes.set(xlabel="error, % (negative: predicted too fast)", ylabel="share of rows, %")
        axes.grid()
        few_ticks(axes.xaxis, plot, lambda value: f"{value:+g}" if value else "0")
        plot.legend(keys)

    caption = (
        f"Errors beyond 50 % are in the outermost bins, which may reach out of the picture; families of fewer than "
        f"{_FEWEST_ROWS} rows are left out."
    )
    return drawing("kernels-distribution", draw, 380, caption, title="How errors spread")


def by_size(rows: pd.DataFrame, families: list[str]) -> Drawing:
    """MAPE of each family by class of the measured time."""
    sizes = sorted(set(rows["size"]), key=size_order)
    width = 0.85 / max(len(families), 1)

    def draw(plot: Plot) -> None:
        axes = plot.figure.add_subplot()
        keys = {}
        for at, family in enumerate(families):
            part = rows[(rows.family == family) & rows.ratio.notna()]
            for size, one in part.groupby("size"):
                mape = 100 * float((one.ratio - 1).abs().mean())
                bias = np.expm1(np.log(one.ratio.to_numpy(float)).mean())
                place = sizes.index(str(size)) + (at + 0.5) * width - 0.425
                (mark,) = axes.bar(place, mape, width, color=series(at).light)
                keys[label(family)] = mark
                plot.tip(
                    mark,
                    f"{label(family)}, {size}: MAPE {mape:.1f} %, {len(one):,} rows, bias {signed(bias)}",
                )
        axes.set_xticks(
            range(len(sizes)), [size.replace(" to ", " to\n") if plot.narrow else size for size in sizes]
        )
        axes.set(xlabel="measured time", ylabel="MAPE, %")
        axes.grid(axis="y")
        plot.legend(keys)

    return drawing(
        "kernels-by-size",
        draw,
        360,
        "Mean error by class of the measured time.",
        title="Error by measured time",
    )


def dimensions(rows: pd.DataFrame, family: str) -> list[Drawing]:
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


def _dimension(known: pd.DataFrame, family: str, name: str) -> Drawing:
    sizes, low, middle, high, counts = _against(known[name].to_numpy(float), known.ratio.to_numpy(float) - 1)

    def draw(plot: Plot) -> None:
        axes = plot.figure.add_subplot()
        axes.fill_between(sizes, low, high, color=series(0).light, alpha=0.12, linewidth=0)
        axes.plot(sizes, middle, color=series(0).light, linewidth=1.8)
        for size, error, rows in zip(sizes, middle, counts, strict=True):
            (mark,) = axes.plot(size, error, "o", color=series(0).light, markersize=4)
            plot.tip(mark, f"{label(name)} {size:,g}: {error:+.1f} %, {rows:,.0f} rows")
        ticks = sorted({sizes[0], sizes[len(sizes) // 2], sizes[-1]}) if sizes else []
        if ticks and ticks[-1] > 20 * max(ticks[0], 1e-9):
            log_axis(axes, "x", plot, number)
        axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
        axes.set_yticks((-40, -20, 0, 20, 40), ["-40 %", "-20 %", "0", "+20 %", "+40 %"])
        axes.set_ylim(-40, 40)
        axes.grid()

    place = f"kernels-{family}-{name}".replace("_", "-")
    return drawing(place, draw, 180, title=label(f"{family}: {name}"), small=True)


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
