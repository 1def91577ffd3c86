"""One version in all places that say it."""

import configparser
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_all_places_say_the_same_version():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    version = setup["metadata"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), flags=re.M)
    assert newest[1] == version
