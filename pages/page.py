"""A report as one HTML file: nothing is loaded from elsewhere, it reads on a phone and on paper, in light and in dark.

templates/ holds the page. Where a report has plotly charts, they and plotly.js travel inside, compressed; the browser unpacks them
once and draws every chart. Drawings are SVG and need no script.
"""

from __future__ import annotations

import base64
import functools
import gzip
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from simtti.errors import InputError
from simtti.pages import drawing
from simtti.pages.colours import variables
from simtti.pages.document import Chart, Drawing, Report, Table

# A digit, a space and what belongs to it.
_UNIT = re.compile(r"(\d) (%|us|ms|rows)")
# Characters beyond which a column of words is wrapped.
_LONG_WORDS = 40
# Cautions beyond these are folded.
_FIRST_CAUTIONS = 6
# Of base 85, as RFC 1924 has them, but for '<', which a page would take for markup: 1.84 MB where base 64 takes 1.96.
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;,=>?@^_`{|}~"


@functools.cache
def plotly_js() -> str:
    """plotly.js as compressed text.

    Raises:
        InputError: plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise InputError("reports need plotly; run: pip install 'simtti[report]'") from None
    return _packed(get_plotlyjs())


def _packed(text: str) -> str:
    return base64.b85encode(gzip.compress(text.encode(), mtime=0)).decode().replace("<", ",")


def unpacked(packed: str) -> str:
    """What the page has packed: plotly.js, or its charts as JSON."""
    return gzip.decompress(base64.b85decode(packed.replace(",", "<"))).decode()


def html(report: Report) -> str:
    """The page. The same report gives the same bytes.

    Raises:
        InputError: Jinja2, or plotly for a report with charts, is not installed.
    """
    charts = {chart.name: {"data": chart.data, "layout": chart.layout} for chart in report.charts()}
    data = json.dumps(charts, separators=(",", ":"), sort_keys=True)
    text = _template().render(
        report=report,
        charts=_packed(data) if charts else "",
        plotly_js=plotly_js() if charts else "",
        digits=_DIGITS,
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
    found.tests.update(
        chart=lambda block: isinstance(block, Chart), drawing=lambda block: isinstance(block, Drawing)
    )
    return found.get_template("page.html")


def check_available() -> None:
    """Fail before the work where what a page with drawings needs is missing.

    Raises:
        InputError: matplotlib or Jinja2 is not installed.
    """
    drawing.check_available()
    _template()


def _words(text: str) -> str:
    """Text for the page; a number and its unit stay on a line."""
    return _UNIT.sub("\\1\u00a0\\2", text)


def _runs(blocks: tuple[Table | Chart | Drawing, ...]) -> Iterator[tuple[bool, list[Any]]]:
    """Blocks in runs of charts that stand in a row, and of others: (whether they do, the blocks)."""
    for small, run in itertools.groupby(blocks, lambda block: isinstance(block, Chart) and block.small):
        yield small, list(run)


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
