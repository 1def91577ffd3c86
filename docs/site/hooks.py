"""What MkDocs does beyond its plugins: it adds the pages made from code, and makes links of the pages that a text names."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))
import reference
from links import linked, titled

ROOT = Path(__file__).resolve().parents[2]


def on_files(files: Files, config: Any) -> Files:
    """The pages of the reference, and the changelog of the repository, beside those that lie in docs/."""
    made = {**reference.pages(), "changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")}
    for uri, text in made.items():
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """'docs/accuracy.md' in a text is a link to that page; a block's title has quotes."""
    known = {file.src_uri for file in files if file.src_uri.endswith(".md")}
    return linked(titled(markdown), page.file.src_uri, known)
