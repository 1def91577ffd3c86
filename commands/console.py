"""Where the command line prints for people."""

from __future__ import annotations

from rich.console import Console


def plain_console() -> Console:
    """Standard output, with no colours that rich guesses from the text."""
    return Console(highlight=False, soft_wrap=False)
