"""A report's tables on the terminal."""

from __future__ import annotations

from rich.text import Text

from simtti.commands import console
from simtti.pages.document import Table


def print_table(table: Table, title: str = "") -> None:
    """One table, marked cells in yellow."""
    if title:
        console.plain_console().print(f"\n[bold]{title}[/]")
    columns = [console.Column(name, _holds(table, at)) for at, name in enumerate(table.columns)]
    rows = [
        [Text(cell.text.replace(" / ", "/"), style="yellow" if cell.mark else "") for cell in row]
        for row in table.rows
    ]
    console.print_table(columns, rows, keys=max(table.text_columns, 1))


def _holds(table: Table, column: int) -> str:
    if not table.is_text(column):
        return "number"
    return "prose" if table.words_last and column == len(table.columns) - 1 else "name"


def print_lines(lines: tuple[str, ...], style: str = "") -> None:
    for line in lines:
        console.plain_console().print(line, style=style, markup=False)
