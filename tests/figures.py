"""The outputs of commands that stand in the README and in docs/: run again, and kept with what they are of.

    python tests/figures.py          # make figures

A block of lines indented by four that begins with `$ simtti ...` is a command, or several, and what the last prints at 80 columns. Its output
is put in place of the one that stands there; of a long one as many lines as there are, `...` for those left out. A yaml block with a
`name:` is written to NAME.yaml first. docs/figures.json has the commit, the date, the golden figures' hash and that of each page's
outputs: a test holds the pages and tests/golden.csv against it.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "docs" / "figures.json"
INDENT = "    "
PROMPT = f"{INDENT}$ simtti "
_DATED = re.compile(r"Outputs are of [^.\n]*\.")


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(lines: list[str]) -> list[tuple[int, int, int]]:
    """Of each block with commands: its first line, the first of the output, and the one after the last."""
    found, at = [], 0
    while at < len(lines):
        if not lines[at].startswith(PROMPT):
            at += 1
            continue
        begin = at
        while at < len(lines) and lines[at].startswith(PROMPT):
            at += 1
        first = at
        while at < len(lines) and (lines[at].startswith(INDENT) or _blank_within(lines, at)):
            at += 1
        found.append((begin, first, at))
    return found


def _blank_within(lines: list[str], at: int) -> bool:
    """An empty line with more of the block behind it."""
    after = lines[at + 1] if at + 1 < len(lines) else ""
    return not lines[at].strip() and after.startswith(INDENT) and not after.startswith(PROMPT)


def shown(old: list[str], fresh: list[str]) -> list[str]:
    """As much of `fresh` as `old` shows of what it was: between two `...` as many lines, from the one that begins with the same word."""
    parts: list[list[str]] = [[]]
    for line in old:
        if line.strip() == "...":
            parts.append([])
        else:
            parts[-1].append(line)
    if len(parts) == 1:
        return fresh
    found, at = [], 0
    for number, part in enumerate(parts):
        if number:
            found.append("...")
            word = part[0].split()[0] if part and part[0].split() else None
            at = next((i for i in range(at, len(fresh)) if fresh[i].split()[:1] == [word]), len(fresh))
        found += fresh[at : at + len(part)]
        at += len(part)
    return found


def outputs(lines: list[str]) -> str:
    """The hash of a page's outputs."""
    text = "\n".join("\n".join(lines[begin:end]) for begin, _, end in blocks(lines))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def golden() -> str:
    return hashlib.sha256((ROOT / "tests" / "golden.csv").read_bytes()).hexdigest()[:16]


def _run(commands: list[str], folder: Path) -> list[str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = os.environ | {"COLUMNS": "80", "PATH": path, "NO_COLOR": "1"}
    *before, last = (command.removeprefix(f"{INDENT}$ ") for command in commands)
    script = "\n".join([*(f"{{ {command}; }} > /dev/null" for command in before), last])
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 1):
        sys.exit(f"{script}\n{done.stderr}")
    # How fast the simulation was says more of this machine than of what it simulated.
    lines = (line.rstrip() for line in done.stdout.rstrip().splitlines())
    return [line for line in lines if not line.startswith("Simulated ")]


def _again(page: Path, stamp: str) -> None:
    text = _DATED.sub(f"Outputs are of {stamp}.", page.read_text())
    lines = text.splitlines()
    with tempfile.TemporaryDirectory() as scratch:
        for block in re.findall(r"```yaml\n(.*?)```", text, flags=re.S):
            if name := re.search(r"^name: (\S+)$", block, flags=re.M):
                Path(scratch, f"{name[1]}.yaml").write_text(block)
        moved = 0
        for begin, first, end in blocks(lines):
            begin, first, end = begin + moved, first + moved, end + moved
            print(f"{page.relative_to(ROOT)}: {lines[begin].strip()}", flush=True)
            old = [line.removeprefix(INDENT) for line in lines[first:end]]
            fresh = shown(old, _run(lines[begin:first], Path(scratch)))
            lines[first:end] = [f"{INDENT}{line}".rstrip() for line in fresh]
            moved += len(fresh) - len(old)
    page.write_text("\n".join(lines) + "\n")


def main() -> None:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    date = datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat()
    with_blocks = [page for page in pages() if blocks(page.read_text().splitlines())]
    for page in with_blocks:
        _again(page, f"{date}, at {commit} or the commit after it")
    kept = {
        "commit": commit,
        "date": date,
        "golden": golden(),
        "pages": {
            str(page.relative_to(ROOT)): outputs(page.read_text().splitlines()) for page in with_blocks
        },
    }
    KEPT.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
