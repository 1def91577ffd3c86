"""The report of an exploration: one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from simtti.explore.evaluate import LIMITS
from simtti.explore.exploration import Exploration
from simtti.pages.colours import THEME, named, series
from simtti.pages.document import Cell, Drawing, Fact, Report, Section, Table, table
from simtti.pages.drawing import Part, Plot, bars, drawing, few_ticks
from simtti.pages.page import html as page
from simtti.words import BOUNDS, count, label, si

if TYPE_CHECKING:
    import pandas as pd

_MOST_ROWS = 30  # of the Pareto table
_MOST_DOTS = 800  # designs drawn that are not of the Pareto set
_MOST_TIPS = 200  # designs of the Pareto set that say what they are
_MOST_LINES = 150  # the same of parallel coordinates
_LEAST_SHARE = 1e-3  # of the longest bar, of a bar and of a part that are drawn
_FRONT, _OTHERS, _BASE = series(0).light, series(16).light, series(3).light
_UNDER_TEXT = {"facecolor": THEME["card"].light, "edgecolor": "none", "pad": 1, "alpha": 0.8}


def html(result: Exploration) -> str:
    """The whole report. The same results give the same text.

    Raises:
        InputError: matplotlib or Jinja2 is not installed.
    """
    return page(report(result))


def report(result: Exploration) -> Report:
    """The report of an exploration; plots of what it did not find are left out."""
    spec, table = result.spec, result.table
    failed = table[table.error != ""]
    mix = ", ".join(f"{item.weight:g} × {item.label}" for item in spec.workloads)
    sections = [
        (
            "Pareto set",
            _pareto(result),
            "Every feasible design, those that none beats in every objective marked, and the base device; bars: what 9 of 10 such "
            "predictions lie between. Errors that two designs share cancel between them: the table names those whose order is not sure "
            "all the same.",
        ),
        (
            "Parallel coordinates",
            _parallel(result),
            "A line a design, from parameter to parameter and objective to objective, each between its least and its most.",
        ),
        (
            "Sensitivity",
            _sensitivity(result),
            "Elasticity: by how many per cent an objective changes for each per cent of a parameter, about "
            f"{result.about}. Importance: share of the spread over all designs that a parameter explains in a fit of logarithms.",
        ),
        (
            "What limits it",
            _limits(result),
            f"Time of the mix by what limits it: of the base device, at {result.about}, and with a tenth less and more of each parameter.",
        ),
        (
            "By category",
            _categories(result),
            "What limits which kind of operator: base, middle and the first of the Pareto set.",
        ),
    ]
    return Report(
        title=spec.question or "Design-space exploration",
        subtitle=f"Designs from {spec.base}; the mix: {mix}",
        facts=(
            Fact("Designs", count(len(table)), "evaluated"),
            Fact("Feasible", count(int(table.feasible.sum())), "within every constraint"),
            Fact("Pareto set", count(int(table.pareto.sum())), "that no other beats in every objective"),
        ),
        summary=(),
        cautions=(
            *((f"{count(len(failed))} designs could not be evaluated: {failed.error.iloc[0]}",) if len(failed) else ()),
            *(f"{text[:1].upper()}{text[1:]}." for text in result.warnings),
        ),
        sections=(
            *(Section(title, (text,), (plot,)) for title, plot, text in sections if plot is not None),
            Section("Designs of the Pareto set", blocks=(_designs(result),)),
        ),
        cautions_title="What to know",
    )  # fmt: skip


def _designs(result: Exploration) -> Table:
    spec, front = result.spec, result.table[result.table.pareto].head(_MOST_ROWS)
    names = [*spec.parameters, *spec.objectives]
    rows = [
        [
            f"{row['design']:.0f}",
            *(_short(row[name]) for name in names),
            str(row["unsure"]).replace(",", ", "),
        ]
        for _, row in front.iterrows()
    ]
    if not result.base["error"]:
        rows.insert(0, ["base", *(_short(result.base.get(name, float("nan"))) for name in names), ""])
    heads = ("Design", *(_head(name) for name in names), "Order not sure with")
    cells = [[Cell(text) for text in row] for row in rows]
    more = int(result.table.pareto.sum()) - len(front)
    return table(heads, cells, f"{more} more are in the file of the Pareto set." if more else "", words_last=True)  # fmt: skip


def _head(name: str) -> str:
    said = label(name)
    return said[:1].upper() + said[1:]


def _short(value: float) -> str:
    """A number as there is room for at an axis."""
    return si(value, "").strip() if abs(value) >= 1e6 else f"{value:,.4g}"


def _shown(rows: pd.DataFrame, most: int) -> pd.DataFrame:
    """At most `most` of the rows, evenly spaced."""
    return rows.iloc[:: -(-len(rows) // most)] if len(rows) > most else rows


def _pareto(result: Exploration) -> Drawing | None:
    spec = result.spec
    good = result.table[result.table.feasible]
    if good.empty or len(spec.objectives) < 2:
        return None
    x, y = spec.objectives[:2]
    others, front = _shown(good[~good.pareto], _MOST_DOTS), good[good.pareto].sort_values(x)

    def draw(plot: Plot) -> None:
        axes = plot.figure.add_subplot()
        keys: dict[str, Any] = {}
        if len(others):
            (keys["feasible"],) = axes.plot(others[x], others[y], "o", color=_OTHERS, markersize=4, alpha=0.6)
        axes.plot(front[x], front[y], "-" if len(spec.objectives) == 2 else "", color=_FRONT, linewidth=1)
        _error_bars(axes, front, x, y)
        axes.plot(front[x], front[y], "o", color=_FRONT, markersize=6)
        for _, row in _shown(front, _MOST_TIPS).iterrows():
            (keys["Pareto set"],) = axes.plot(row[x], row[y], "o", color=_FRONT, markersize=6)
            plot.tip(keys["Pareto set"], _tip(f"design {row['design']:.0f}", row, spec))
        if not result.base["error"]:
            (keys["base device"],) = axes.plot(
                result.base[x], result.base[y], "*", color=_BASE, markersize=14
            )
            plot.tip(keys["base device"], _tip(f"base, {spec.base}", result.base, spec))
        for at, name in enumerate(spec.compare):
            row = result.table.iloc[at]
            axes.annotate(name, (row[x], row[y]), (6, 6), textcoords="offset points")
        axes.set(xlabel=_head(x), ylabel=_head(y))
        axes.grid()
        few_ticks(axes.xaxis, plot, _short)
        few_ticks(axes.yaxis, plot, _short)
        plot.legend(keys)

    left_out = len(good) - len(front) - len(others)
    caption = f"{left_out} of the designs that are not of the Pareto set are not drawn." if left_out else ""
    return drawing("explore-pareto", draw, 480, caption, narrow_height_px=360, title="Pareto set")


def _error_bars(axes: Any, rows: pd.DataFrame, x: str, y: str) -> None:
    """From p05 to p95; none for what is sure, and for designs whose intervals were not looked at."""
    for name, way in ((x, "xerr"), (y, "yerr")):
        if f"{name}.p05" in rows:
            known = rows[rows[f"{name}.p05"].notna()]
            reach = [known[name] - known[f"{name}.p05"], known[f"{name}.p95"] - known[name]]
            axes.errorbar(known[x], known[y], **{way: reach}, fmt="none", ecolor=_FRONT, elinewidth=1, capsize=2, alpha=0.6)  # fmt: skip


def _tip(name: str, row: Any, spec: Any) -> str:
    parts = [name]
    parts += [f"{label(each)}: {_short(float(row[each]))}" for each in (*spec.parameters, *spec.objectives)]
    if row.get("unsure"):
        parts.append(f"order not sure with {row['unsure']}")
    return "; ".join(parts)


def _parallel(result: Exploration) -> Drawing | None:
    """An axis a row, so that names stand beside it whatever the width."""
    spec = result.spec
    good = result.table[result.table.feasible]
    names = [name for name in (*spec.varied, *spec.objectives) if good[name].notna().all()]
    if good.empty or not names:
        return None
    with_base = [] if result.base["error"] else [result.base]
    low = {name: min(good[name].min(), *(float(each[name]) for each in with_base)) for name in names}
    high = {name: max(good[name].max(), *(float(each[name]) for each in with_base)) for name in names}
    others, front = _shown(good[~good.pareto], _MOST_LINES), _shown(good[good.pareto], _MOST_LINES)

    def draw(plot: Plot) -> None:
        axes = plot.figure.add_subplot()
        places = range(len(names))

        def line(row: Any, **style: Any) -> Any:
            spread = [(float(row[name]) - low[name]) / ((high[name] - low[name]) or 1.0) for name in names]
            return axes.plot(spread, places, **style)[0]

        keys: dict[str, Any] = {}
        for _, row in others.iterrows():
            keys["feasible"] = line(row, color=_OTHERS, linewidth=0.8, alpha=0.7)
        for _, row in front.iterrows():
            keys["Pareto set"] = line(row, color=_FRONT, linewidth=1.2, alpha=0.8)
            plot.tip(keys["Pareto set"], _tip(f"design {row['design']:.0f}", row, spec))
        for base in with_base:
            keys["base device"] = line(base, color=_BASE, linewidth=2.2, linestyle="--")
            plot.tip(keys["base device"], _tip(f"base, {spec.base}", base, spec))
        for at, name in enumerate(names):
            axes.axhline(at, color=THEME["muted"].light, linewidth=0.8, zorder=0)
            for end, value, side in ((0, low[name], "left"), (1, high[name], "right")):
                axes.text(
                    end,
                    at + 0.12,
                    _short(value),
                    ha=side,
                    va="top",
                    color=THEME["muted"].light,
                    bbox=_UNDER_TEXT,
                )
        axes.set_yticks(places, [plot.wrapped(_head(name)) for name in names])
        axes.set_ylim(len(names) - 0.4, -0.5)
        axes.set_xticks([])
        axes.tick_params(axis="y", length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        plot.legend(keys)

    return drawing("explore-parallel", draw, 80 + 56 * len(names), title="Parallel coordinates")


def _sensitivity(result: Exploration) -> Drawing:
    found, spec = result.sensitivity, result.spec
    parameters = list(dict.fromkeys(found.parameter))
    height = 0.8 / len(spec.objectives)

    def draw(plot: Plot) -> None:
        panels = plot.figure.subplots(*((2, 1) if plot.narrow else (1, 2)), sharey=True)
        keys: dict[str, Any] = {}
        for axes, what in zip(panels, ("elasticity", "importance"), strict=True):
            for at, objective in enumerate(spec.objectives):
                values = found[found.objective == objective].set_index("parameter")[what]
                for place, name in enumerate(parameters):
                    if values[name] == values[name]:
                        (mark,) = axes.barh(
                            place + (at + 0.5) * height - 0.4, values[name], height, color=series(at).light
                        )
                        plot.tip(mark, f"{what} of {label(objective)} to {label(name)}: {values[name]:+.3f}")
                        keys[label(objective)] = mark
            axes.set_yticks(range(len(parameters)), [plot.wrapped(_head(name)) for name in parameters])
            axes.set_title(what.capitalize(), fontsize="medium")
            axes.axvline(0, color=THEME["muted"].light, linewidth=1)
            axes.grid(axis="x")
            few_ticks(axes.xaxis, plot, lambda value: f"{value:g}")
        panels[0].set_ylim(len(parameters) - 0.4, -0.6)
        plot.legend(keys)

    px = 100 + (14 + 16 * len(spec.objectives)) * len(parameters)
    return drawing("explore-sensitivity", draw, px, narrow_height_px=60 + 2 * px, title="Sensitivity")


def _limits(result: Exploration) -> Drawing | None:
    limits = result.limits[~result.limits.design.str.startswith("design ")]
    limits = limits.sort_values("design", key=lambda names: names != "base", kind="stable")
    return _stacked("explore-limits", result, limits, lambda row: _around(row["design"]), "What limits it")


def _around(design: str) -> str:
    """'hbm_bytes_per_s -' in words."""
    name, _, sign = design.partition(" ")
    return (
        f"{label(name)}: 10 % {'more' if sign == '+' else 'less'}"
        if sign
        else f"{name} device"
        if name == "base"
        else name
    )


def _categories(result: Exploration) -> Drawing | None:
    limits = result.limits
    front = list(limits[limits.design.str.startswith("design ")].design.unique()[:3])
    shown = limits[limits.design.isin(["base", "middle", *front])].sort_values("category", kind="stable")
    return _stacked(
        "explore-categories", result, shown, lambda row: f"{row['category']}, {row['design']}", "What limits each category"
    )  # fmt: skip


def _stacked(
    name: str, result: Exploration, limits: pd.DataFrame, by: Callable[[Any], str], title: str
) -> Drawing | None:
    if limits.empty:
        return None
    weights = {item.label: item.weight for item in result.spec.workloads}
    seconds = limits.seconds * limits.workload.map(weights)
    rows = limits.apply(by, axis=1)
    sums = seconds.groupby([rows, limits.limit], sort=False).sum()
    least = _LEAST_SHARE * sums.groupby(level=0).sum().max()
    shown = [
        (row, [Part(BOUNDS[limit], float(sums[row, limit]), named(limit).light, f"{row}: {BOUNDS[limit]} {sums[row, limit]:.3g} s")
               for limit in LIMITS if sums.get((row, limit), 0.0) >= least])
        for row in dict.fromkeys(rows)
    ]  # fmt: skip
    kept = [(row, parts) for row, parts in shown if parts]
    height = 60 + 24 * len(kept)
    return drawing(
        name, bars(kept, "time of the mix, s"), height, narrow_height_px=60 + 36 * len(kept), title=title
    )
