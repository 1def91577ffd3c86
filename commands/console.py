"""Where the command line prints for people, and its tables: at any width no column is lost and no cell is cut."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

_LEAST_PROSE = 16  # characters of a column of sentences that names do not take
_LONG_WORD = 20


@dataclass(frozen=True)
class Column:
    """heading, and what stands below it: "number" (to the right, on one line), "name" (to the left; too long for the terminal, it goes
    on in the next line behind a hyphen, underscore or slash), "prose" (to the left, broken between words before a name is)."""

    heading: str
    holds: str = "number"


def plain_console(width: int | None = None) -> Console:
    """Standard output, with no colours that rich guesses from the text. width: characters of a line, the terminal's if not given."""
    return Console(highlight=False, soft_wrap=False, width=width)


def print_table(columns: Sequence[Column | str], rows: Iterable[Sequence[str | Text]], keys: int = 1) -> None:
    """Rows under their headings, as wide as the terminal (80 characters in a pipe, or COLUMNS) allows.

    A table that is too wide has its columns nearer to each other, then headings, prose and names in several lines; what is too wide even
    so follows below in blocks of columns, each behind the first `keys` columns. A column that is given as a string is one of numbers;
    cells are taken as they are, without markup.
    """
    console = plain_console()
    known = [each if isinstance(each, Column) else Column(each) for each in columns]
    cells = [[each if isinstance(each, Text) else Text(each) for each in row] for row in rows]
    for place, block in enumerate(_blocks(known, cells, keys, console.width)):
        if place:
            console.print()
        _print_block([known[at] for at in block], [[row[at] for at in block] for row in cells], console.width)


def _blocks(
    columns: Sequence[Column], cells: Sequence[Sequence[Text]], keys: int, width: int
) -> list[list[int]]:
    """Columns of each block: as many as fit with names and prose at their narrowest."""
    least = [_least(column, _texts(cells, at)) for at, column in enumerate(columns)]
    first = list(range(min(keys, len(columns))))
    found: list[list[int]] = [[*first]]
    for at in range(len(first), len(columns)):
        block = [*found[-1], at]
        if len(block) > len(first) + 1 and sum(least[each] + 1 for each in block) - 1 > width:
            found.append([*first, at])
        else:
            found[-1] = block
    return found


def _texts(cells: Sequence[Sequence[Text]], at: int) -> list[str]:
    return [row[at].plain for row in cells]


def _natural(texts: Iterable[str]) -> int:
    return max((len(line) for text in texts for line in text.split("\n")), default=0)


def _least(column: Column, texts: Sequence[str]) -> int:
    """The characters that a column needs at the least. A heading breaks between words and at underscores."""
    below = _natural(texts) if column.holds == "number" else _longest_piece(texts, column.holds)
    return max(below, _longest_piece([column.heading], "heading"))


def _longest_piece(texts: Iterable[str], holds: str) -> int:
    return max((len(piece.rstrip()) for text in texts for piece in _pieces(text, holds)), default=0)


def _pieces(text: str, holds: str) -> list[str]:
    """Between which a line may break; together they are the text. A word of prose breaks only where it is as long as an address is."""
    breaks = {"name": r"\s/_.-", "heading": r"\s_"}.get(holds)
    if breaks is not None:
        return re.findall(rf"[^{breaks}]*[{breaks}]+|[^{breaks}]+$", text) or [text]
    words = re.findall(r"\S*\s+|\S+$", text) or [text]
    parts = [part for word in words for part in (_pieces(word, "name") if len(word) > _LONG_WORD else [word])]
    return [part[at : at + _LONG_WORD] for part in parts for at in range(0, max(len(part), 1), _LONG_WORD)]


def _print_block(columns: Sequence[Column], cells: Sequence[Sequence[Text]], width: int) -> None:
    widths, gap = _widths(columns, cells, width)
    table = Table(
        box=None,
        header_style="dim",
        padding=(0, gap, 0, 0),
        pad_edge=False,
        show_header=any(column.heading for column in columns),
    )
    for column, own in zip(columns, widths, strict=True):
        table.add_column(
            Text(_folded(column.heading, "heading", own)),
            justify="right" if column.holds == "number" else "left",
            width=own,
            overflow="crop",
            no_wrap=True,
        )
    for row in cells:
        texts = zip(row, columns, widths, strict=True)
        table.add_row(
            *(Text(_folded(cell.plain, column.holds, own), style=cell.style) for cell, column, own in texts)
        )
    plain_console(max(width, sum(widths) + gap * (len(widths) - 1))).print(table)


def _widths(columns: Sequence[Column], cells: Sequence[Sequence[Text]], width: int) -> tuple[list[int], int]:
    """Of each column, and between them. As wide as each is, if that fits; else headings of numbers broken, then prose down to a least,
    then names, then prose further. Columns come nearer to each other where prose alone does not make room."""
    texts = [_texts(cells, at) for at in range(len(columns))]
    widths = [_natural([column.heading, *below]) for column, below in zip(columns, texts, strict=True)]
    least = [_least(column, below) for column, below in zip(columns, texts, strict=True)]
    readable = [min(own, max(floor, _LEAST_PROSE)) for own, floor in zip(widths, least, strict=True)]
    between = len(columns) - 1
    with_prose = [
        floor if column.holds == "prose" else own
        for column, own, floor in zip(columns, widths, readable, strict=True)
    ]
    gap = 2 if sum(with_prose) + 2 * between <= width else 1
    room = width - gap * between
    for holds, floors in (("number", least), ("prose", readable), ("name", least), ("prose", least)):
        which = [at for at, column in enumerate(columns) if column.holds == holds]
        while sum(widths) > room and (above := [at for at in which if widths[at] > floors[at]]):
            widths[max(above, key=lambda at: widths[at])] -= 1
    return widths, gap


def _folded(text: str, holds: str, width: int) -> str:
    """The text in lines of at most `width` where its pieces allow."""
    if holds == "number":
        return text
    lines = []
    for paragraph in text.split("\n"):
        lines.append("")
        for piece in _pieces(paragraph, holds):
            if lines[-1] and len(lines[-1]) + len(piece.rstrip()) > width:
                lines.append("")
            lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines)
