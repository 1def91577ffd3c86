"""The report of an exploration: one HTML file that needs nothing else, plots by plotly."""

from __future__ import annotations

import html as escaping
from typing import TYPE_CHECKING, Any

from simtti.errors import library
from simtti.explore.evaluate import LIMITS

if TYPE_CHECKING:
    import pandas as pd

    from simtti.explore.exploration import Exploration

_MOST_ROWS = 30  # of the Pareto table
_COLOURS = (
    "#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#97bbf5", "#9c6b4e", "#9498a0", "#d0d4da", "#e7a977", "#7a5195", "#4c956c",
)  # fmt: skip


def check_available() -> None:
    """Fail before the work where plotly is missing.

    Raises:
        InputError: it is not installed.
    """
    library("plotly", "report")


def html(result: Exploration) -> str:
    """The whole report. The same results give the same text."""
    spec, table = result.spec, result.table
    sections = [
        (
            "Pareto set",
            _pareto(result),
            "Every feasible design, those that none beats in every objective marked; bars: what 9 of 10 such predictions lie between. "
            "Errors that two designs share cancel between them: the table names those whose order is not sure all the same.",
        ),
        ("Parallel coordinates", _parallel(result), "Drag along an axis to keep the designs within a range."),
        (
            "Sensitivity",
            _bars(result),
            "Elasticity: by how many per cent an objective changes for each per cent of a parameter, about the middle of "
            "the space. Importance: share of the spread over all designs that a parameter explains in a fit of logarithms.",
        ),
        (
            "What limits it",
            _limits(result),
            "Time of the mix by what limits it, at the middle of the space, and with a tenth less and more of each parameter.",
        ),
        (
            "By category",
            _categories(result),
            "What limits which kind of operator, middle against the Pareto set.",
        ),
    ]
    body = []
    for number, (title, figure, caption) in enumerate(sections):
        if figure is not None:
            plot = figure.to_html(
                full_html=False, include_plotlyjs="inline" if number == 0 else False, div_id=f"plot-{number}"
            )
            body.append(f"<h2>{title}</h2><p>{caption}</p>{plot}")
    front = table[table.pareto].head(_MOST_ROWS)
    columns = [name for name in ("design", *spec.parameters, *spec.objectives, "unsure") if name in front]
    rows = front[columns].rename(columns={"unsure": "order not sure with"})
    body.append("<h2>Designs of the Pareto set</h2>" + rows.to_html(index=False, float_format=_number))
    errors = table[table.error != ""]
    counts = (
        f"{len(table)} designs, {int(table.feasible.sum())} feasible, {int(table.pareto.sum())} in the Pareto set"
        + (f", {len(errors)} could not be evaluated ({errors.error.iloc[0]})" if len(errors) else "")
    )
    return _PAGE.format(
        title=escaping.escape(spec.question or "Design-space exploration"),
        counts=escaping.escape(counts),
        base=escaping.escape(spec.base),
        workloads=escaping.escape(", ".join(f"{item.weight:g} × {item.label}" for item in spec.workloads)),
        body="\n".join(body),
    )


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;color:#222}}
table{{border-collapse:collapse;font-size:13px;display:block;overflow-x:auto}}td,th{{padding:3px 8px;text-align:right}}
tr:nth-child(even){{background:#f4f4f4}}</style></head>
<body><h1>{title}</h1><p>{counts}. Base {base}; the mix: {workloads}.</p>
{body}
</body></html>
"""


def _number(value: float) -> str:
    return f"{value:.4g}"


def _go() -> Any:
    return library("plotly.graph_objects", "report")


def _pareto(result: Exploration) -> Any:
    go, spec = _go(), result.spec
    good = result.table[result.table.feasible]
    if good.empty or len(spec.objectives) < 2:
        return None
    x, y = spec.objectives[:2]
    figure = go.Figure()
    for name, rows, colour in (
        ("feasible", good[~good.pareto], "#c0c4cc"),
        ("Pareto set", good[good.pareto].sort_values(x), "#4269d0"),
    ):
        text = [_hover(row, spec) for _, row in rows.iterrows()]
        mode = "markers+lines" if name == "Pareto set" and len(spec.objectives) == 2 else "markers"
        figure.add_trace(
            go.Scatter(
                x=rows[x].tolist(),
                y=rows[y].tolist(),
                mode=mode,
                name=name,
                text=text,
                marker={"color": colour},
                error_x=_bars_of(rows, x, colour),
                error_y=_bars_of(rows, y, colour),
            )
        )
    for number, name in enumerate(spec.compare):
        row = result.table.iloc[number]
        figure.add_annotation(x=row[x], y=row[y], text=escaping.escape(name))
    figure.update_layout(xaxis_title=x, yaxis_title=y, height=550)
    return figure


def _bars_of(rows: pd.DataFrame, objective: str, colour: str) -> dict[str, Any] | None:
    """Error bars from p05 to p95; None for what is sure, and for designs whose intervals were not looked at."""
    if f"{objective}.p05" not in rows or rows[f"{objective}.p05"].isna().all():
        return None
    up, down = rows[f"{objective}.p95"] - rows[objective], rows[objective] - rows[f"{objective}.p05"]
    return {
        "type": "data", "symmetric": False, "array": up.fillna(0).tolist(), "arrayminus": down.fillna(0).tolist(), "color": colour,
        "thickness": 1, "width": 2,
    }  # fmt: skip


def _hover(row: pd.Series, spec: Any) -> str:
    parts = [f"design {row['design']}"]
    parts += [f"{name} {row[name]:.4g}" for name in (*spec.parameters, *spec.objectives)]
    if row.get("unsure"):
        parts.append(f"order not sure with {row['unsure']}")
    return "<br>".join(parts)


def _parallel(result: Exploration) -> Any:
    go, spec = _go(), result.spec
    good = result.table[result.table.feasible]
    if good.empty:
        return None
    names = [*spec.varied, *spec.objectives]
    dimensions = [
        {"label": name, "values": good[name].tolist()} for name in names if good[name].notna().all()
    ]
    line = {"color": good.pareto.astype(int).tolist(), "colorscale": [[0, "#c0c4cc"], [1, "#4269d0"]]}
    figure = go.Figure(go.Parcoords(dimensions=dimensions, line=line))
    figure.update_layout(height=500)
    return figure


def _bars(result: Exploration) -> Any:
    go, subplots = _go(), library("plotly.subplots", "report")
    table = result.sensitivity
    figure = subplots.make_subplots(
        rows=1, cols=2, subplot_titles=("Elasticity", "Importance"), shared_yaxes=True
    )
    for number, objective in enumerate(result.spec.objectives):
        rows = table[table.objective == objective]
        for column, what in enumerate(("elasticity", "importance"), 1):
            figure.add_trace(
                go.Bar(
                    y=rows.parameter.tolist(),
                    x=[value if value == value else None for value in rows[what]],
                    orientation="h",
                    name=objective,
                    legendgroup=objective,
                    showlegend=column == 1,
                    marker={"color": _COLOURS[number % len(_COLOURS)]},
                ),
                row=1,
                col=column,
            )
    figure.update_layout(height=160 + 60 * len(result.spec.varied) * len(result.spec.objectives) // 2)
    return figure


def _limits(result: Exploration) -> Any:
    limits = result.limits[~result.limits.design.str.startswith("design ")]
    return _stacked(result, limits, "design") if len(limits) else None


def _categories(result: Exploration) -> Any:
    limits = result.limits
    front = limits[limits.design.str.startswith("design ")].design.unique()
    shown = limits[limits.design.isin(["middle", *front[:3]])]
    if shown.empty:
        return None
    return _stacked(result, shown.assign(design=shown.category + " (" + shown.design + ")"), "design")


def _stacked(result: Exploration, limits: pd.DataFrame, by: str) -> Any:
    go = _go()
    weights = {item.label: item.weight for item in result.spec.workloads}
    weighted = limits.assign(seconds=limits.seconds * limits.workload.map(weights))
    order = list(dict.fromkeys(weighted[by]))
    if by == "design" and len(order) > 1 and "(" in order[0]:
        order = sorted(order)
    figure = go.Figure()
    for colour, limit in zip(_COLOURS, LIMITS, strict=True):
        seconds = weighted[weighted.limit == limit].groupby(by).seconds.sum()
        if len(seconds):
            figure.add_trace(
                go.Bar(
                    y=order,
                    x=[float(seconds.get(name, 0.0)) for name in order],
                    orientation="h",
                    name=limit,
                    marker={"color": colour},
                )
            )
    figure.update_layout(barmode="stack", xaxis_title="seconds of the mix", height=140 + 24 * len(order))
    figure.update_yaxes(autorange="reversed")
    return figure
