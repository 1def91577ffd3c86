"""A report's tables on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from simtti.pages.document import Table


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
    for row in table.rows:
        shown.add_row(*(Text(_kept_together(cell.text), style="yellow" if cell.mark else "") for cell in row))
    console.print(shown)


def print_lines(lines: tuple[str, ...], style: str = "") -> None:
    console = Console(highlight=False)
    for line in lines:
        console.print(line, style=style, markup=False)


def _kept_together(text: str) -> str:
    """'6.5 %' with a space that no line breaks at, '12 / 15' without spaces."""
    return text.replace(" %", "\u00a0%").replace(" / ", "/")
