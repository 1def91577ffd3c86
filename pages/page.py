"""A report as one HTML file: nothing is loaded from elsewhere, it reads on a phone and on paper, in light and in dark.

templates/ holds the page. Plots are SVG; there is no script.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from simtti.errors import InputError
from simtti.pages import drawing
from simtti.pages.colours import variables
from simtti.pages.document import Drawing, Report, Table

# A digit, a space and what belongs to it.
_UNIT = re.compile(r"(\d) (%|us|ms|rows)")
# Characters beyond which a column of words is wrapped.
_LONG_WORDS = 40
# Cautions beyond these are folded.
_FIRST_CAUTIONS = 6


def html(report: Report) -> str:
    """The page. The same report gives the same bytes.

    Raises:
        InputError: Jinja2 is not installed.
    """
    text = _template().render(
        report=report,
        colours=variables(),
        first_cautions=_FIRST_CAUTIONS,
    )
    return str(text) + "\n"


@functools.cache
def _template() -> Any:
    try:
        import jinja2
    except ImportError:
        raise InputError("reports need Jinja2; run: pip install 'simtti[report]'") from None
    loader = jinja2.FileSystemLoader(Path(__file__).with_name("templates"), encoding="utf-8")
    found = jinja2.Environment(
        loader=loader,
        autoescape=lambda name: name is not None and name.endswith(".html"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(words=_words, classes=_classes, runs=_runs)
    found.tests.update(drawing=lambda block: isinstance(block, Drawing))
    return found.get_template("page.html")


def check_available() -> None:
    """Fail before the work where what a page needs is missing.

    Raises:
        InputError: matplotlib or Jinja2 is not installed.
    """
    drawing.check_available()
    _template()


def _words(text: str) -> str:
    """Text for the page; a number and its unit stay on a line."""
    return _UNIT.sub("\\1\u00a0\\2", text)


def _runs(blocks: tuple[Table | Drawing, ...]) -> Iterator[tuple[bool, list[Any]]]:
    """Blocks in runs of drawings that stand in a row, and of others: (whether they do, the blocks)."""
    for small, run in itertools.groupby(blocks, _is_small):
        yield small, list(run)


def _is_small(block: Table | Drawing) -> bool:
    return isinstance(block, Drawing) and not block.narrow


def _classes(table: Table) -> list[str]:
    """The style of each column."""
    return [_class(table, at) for at in range(len(table.columns))]


def _class(table: Table, at: int) -> str:
    if table.words_last and at == len(table.columns) - 1:
        return "words prose"
    long = any(len(row[at].text) > _LONG_WORDS for row in table.rows)
    if table.columns[at] == "Shape" or (table.is_text(at) and long):
        return "words shape"
    return "words" if table.is_text(at) else ""
