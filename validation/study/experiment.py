"""What an experiment hands over: a section of the report and the tables its figures are drawn from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from simtti.pages.document import Cell, Section, Table
from simtti.validation.study.points import Point
from simtti.words import count, number

Rows = list[dict[str, Any]]


class Experiment(NamedTuple):
    """figures: by name, the rows that are written as NAME.csv."""

    section: Section
    figures: Mapping[str, Rows]


def got(
    found: Mapping[Point, dict[str, Any]], points: Iterable[Point]
) -> Iterable[tuple[Point, dict[str, Any]]]:
    """Those points that came out."""
    return ((point, found[point]) for point in points if point in found and "error" not in found[point])


def shown(rows: Rows, columns: Mapping[str, str], caption: str = "", text_columns: int = 1) -> Table:
    """A table of some columns of `rows`, by name -> head; numbers to three digits, shares (heads that end in %) in percent."""
    cells = []
    for row in rows:
        line = []
        for name, head in columns.items():
            value = row.get(name)
            if isinstance(value, bool) or value is None:
                text = {True: "yes", False: "no", None: ""}[value]
            elif isinstance(value, int):
                text = count(value) if value < 1_000_000 else number(float(value))
            elif isinstance(value, float):
                text = f"{100 * value:.1f}" if head.endswith("%") else number(float(value))
            else:
                text = str(value)
            line.append(Cell(text))
        cells.append(tuple(line))
    return Table(tuple(columns.values()), tuple(cells), caption, text_columns)


def slope(rows: Rows, x: str, y: str) -> float:
    """The exponent of growth between the last two rows: log(y2 / y1) / log(x2 / x1); NaN with fewer."""
    import math

    known = [row for row in rows if row[y] > 0]
    if len(known) < 2:
        return float("nan")
    before, last = known[-2:]
    return math.log(last[y] / before[y]) / math.log(last[x] / before[x])
