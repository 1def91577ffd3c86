"""A report's tables on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from simtti.pages.document import Table

GAP = 2  # between columns, as rich sets them
LEAST_NAME = 16


def print_table(table: Table, title: str = "") -> None:
    """One table, marked cells in yellow."""
    console = Console(highlight=False)
    if title:
        console.print(f"\n[bold]{title}[/]")
    shown = RichTable(box=None, pad_edge=False, header_style="dim")
    for at, name in enumerate(table.columns):
        words = table.is_text(at)
        prose = table.words_last and at == len(table.columns) - 1
        shown.add_column(name, justify="left" if words else "right", no_wrap=words and not prose)
    most = _room_for_names(table, console.width)
    for row in table.rows:
        texts = [
            _shortened(cell.text, most) if at == 0 else _kept_together(cell.text)
            for at, cell in enumerate(row)
        ]
        shown.add_row(
            *(Text(text, style="yellow" if cell.mark else "") for text, cell in zip(texts, row, strict=True))
        )
    console.print(shown)


def _room_for_names(table: Table, width: int) -> int:
    """Characters of the first column that leave every other column a word's width."""
    others = 0
    for at in range(1, len(table.columns)):
        texts = [table.columns[at], *(row[at].text for row in table.rows)]
        others += GAP + max(
            (len(word) for text in texts for word in _kept_together(text).split(" ")), default=0
        )
    return max(width - others, LEAST_NAME)


def _shortened(text: str, most: int) -> str:
    """A name too long for its column, without its middle: ends tell more.

    >>> _shortened("benchmark/of/everything.md", 12)
    'benc…hing.md'
    """
    if len(text) <= most:
        return text
    begin = (most - 1) // 3 + 1
    return f"{text[:begin]}…{text[len(text) - (most - 1 - begin) :]}"


def print_lines(lines: tuple[str, ...], style: str = "") -> None:
    console = Console(highlight=False)
    for line in lines:
        console.print(line, style=style, markup=False)


def _kept_together(text: str) -> str:
    """'6.5 %' with a space that no line breaks at, '12 / 15' without spaces."""
    return text.replace(" %", "\u00a0%").replace(" / ", "/")
