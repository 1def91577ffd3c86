"""Links between pages that are read as plain text in the repository."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

_NAMED = re.compile(r"(?<![\w/`(\[])docs/([\w/-]+\.md)(?![\w`)\]])")


_TITLE = re.compile(r"^(```\w+ title=)([^\"\s]+)$", re.MULTILINE)


def titled(markdown: str) -> str:
    """Blocks of code with the names of their files as MkDocs reads them: in quotes.

    >>> titled("```python title=mine.py")
    '```python title="mine.py"'
    """
    return _TITLE.sub(r'\1"\2"', markdown)


def linked(markdown: str, at: str, known: set[str]) -> str:
    """`markdown`, the page at the URI `at`, with links in place of the pages that it names as docs/NAME.md, but in code.

    >>> linked("see docs/explore.md.", "howto/architect.md", {"explore.md"})
    'see [explore](../explore.md).'
    """

    def link(found: re.Match[str]) -> str:
        uri = found[1]
        if uri not in known:
            return found[0]
        return f"[{Path(uri).stem}]({posixpath.relpath(uri, posixpath.dirname(at) or '.')})"

    lines, fenced = [], False
    for line in markdown.split("\n"):
        fenced ^= line.lstrip().startswith("```")
        is_code = fenced or line.startswith("    ")
        parts = line.split("`")
        # Every other part stands between backticks.
        lines.append(
            line
            if is_code
            else "`".join(part if at % 2 else _NAMED.sub(link, part) for at, part in enumerate(parts))
        )
    return "\n".join(lines)
