"""The outputs in README and docs: none typed in, none left behind when golden figures move."""

import json

import figures
import pytest


@pytest.fixture(scope="module")
def kept():
    return json.loads(figures.KEPT.read_text())


def test_golden_figures_have_not_moved_since_the_outputs_were_made(kept):
    assert kept["golden"] == figures.golden(), "tests/golden.csv has moved: run `make figures`"


def test_every_output_is_what_the_commands_printed(kept):
    now = {
        str(page.relative_to(figures.ROOT)): figures.outputs(lines)
        for page in figures.pages()
        if figures.blocks(lines := page.read_text().splitlines())
    }
    assert now == kept["pages"], "an output differs from what its command printed: run `make figures`"


def test_a_block_is_its_commands_and_what_they_print():
    lines = [
        "text",
        "    $ simtti run x",
        "    $ simtti diff",
        "    1",
        "",
        "    2",
        "",
        "more",
        "    code",
        "    $ simtti hw",
    ]
    assert figures.blocks(lines) == [(1, 3, 6), (9, 10, 10)]


def test_what_is_left_out_stays_left_out():
    fresh = ["Phase 1", "a 2", "b 3", "c 4", "Power 5", "end 6"]
    assert figures.shown(["Phase 0", "a 0"], fresh) == fresh
    assert figures.shown(["Phase 0", "a 0", "..."], fresh) == ["Phase 1", "a 2", "..."]
    assert figures.shown(["Phase 0", "...", "Power 0", "..."], fresh) == ["Phase 1", "...", "Power 5", "..."]
