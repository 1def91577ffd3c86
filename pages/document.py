"""What a report consists of, whatever shows it: sections of text, tables and charts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple


class Cell(NamedTuple):
    """A table's cell. mark: '' or 'bad', a figure beyond what is aimed at."""

    text: str
    mark: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of cells under column heads. text_columns: so many columns from the left are words, the others numbers, but for
    `words_last`: the last column is words as well, and long ones."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    text_columns: int = 1
    words_last: bool = False

    def is_text(self, column: int) -> bool:
        return column < self.text_columns or (self.words_last and column == len(self.columns) - 1)


@dataclass(frozen=True)
class Drawing:
    """A plot as SVG, for a wide screen and for a narrow one (`drawing.drawing`).

    name: of its element on the page, unique there. narrow: '' for one that is small: it stands in a row with its neighbours that are
    small as well, under its title.
    """

    name: str
    wide: str
    narrow: str
    caption: str = ""
    title: str = ""


@dataclass(frozen=True)
class Section:
    title: str
    text: tuple[str, ...] = ()
    blocks: tuple[Table | Drawing, ...] = ()
    folded: bool = False  # shown closed on a page: detail that few look up


class Fact(NamedTuple):
    """A number at the top: what it is, the number, what it says."""

    name: str
    value: str
    hint: str


@dataclass(frozen=True)
class Report:
    title: str
    subtitle: str
    facts: tuple[Fact, ...]
    summary: tuple[str, ...]
    cautions: tuple[str, ...]
    sections: tuple[Section, ...]
    summary_title: str = "How good it is"
    cautions_title: str = "Where not to trust it"


def table(
    columns: Iterable[str],
    rows: Iterable[Iterable[Any]],
    caption: str = "",
    text_columns: int = 1,
    words_last: bool = False,
) -> Table:
    """A Table from rows of Cells and strings."""
    cells = tuple(tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in row) for row in rows)
    return Table(tuple(columns), cells, caption, text_columns, words_last)
