"""The oldest release of each library that setup.cfg allows, one requirement a line: `make test-bounds` installs them and runs tests.

    python tests/bounds.py            # simpy==4.1.0 ...

torch stays at constraints.txt's release: an older one for each Python would be gigabytes.
"""

from __future__ import annotations

import configparser
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXTRAS = ("torch", "explore", "report", "dev")
# Tools that no test imports, and torch.
_LEFT_OUT = ("torch", "ruff", "mypy", "pandas-stubs", "types-PyYAML")


def lowest() -> list[str]:
    """Each requirement at its lower bound.

    Raises:
        ValueError: one that has none.
    """
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    texts = [
        setup["options"]["install_requires"],
        *(setup["options.extras_require"][name] for name in EXTRAS),
    ]
    found = []
    for line in "\n".join(texts).splitlines():
        requirement = line.partition("#")[0].partition(";")[0].strip()
        name = re.split(r"[ <>=]", requirement, maxsplit=1)[0]
        if not name or name in _LEFT_OUT:
            continue
        bound = re.search(r">=\s*([\d.]+)", requirement)
        if bound is None:
            raise ValueError(f"setup.cfg: {requirement} has no lower bound")
        found.append(f"{name}=={bound[1]}")
    return found


if __name__ == "__main__":
    print("\n".join(lowest()))
