"""Reports on disk: a folder for them, and a page and a text of each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from simtti.pages.document import Report


def report_folder(out: str | None) -> Path | None:
    """The folder to write to, made if need be, and what a report needs there; None for none.

    Raises:
        InputError: it cannot be written, or matplotlib or Jinja2 is not installed.
    """
    if out is None:
        return None
    from simtti.files import check_writable
    from simtti.pages.page import check_available

    check_available()
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    check_writable(folder / "report.html")
    return folder


def write_report(report: Report, stem: Path) -> None:
    """Write STEM.html and STEM.md."""
    from simtti.files import write_text
    from simtti.pages import page
    from simtti.validation.report import markdown

    for suffix, text in ((".html", page.html(report)), (".md", markdown.text(report))):
        write_text(f"{stem}{suffix}", text)
    click.echo(f"{stem}.html: open it in a browser", err=True)
