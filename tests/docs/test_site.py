"""The site's pages that are made from code, and its table of contents; `make docs` builds the whole and takes no warning."""

import doctest
from pathlib import Path

import links
import pytest
import reference
import yaml

import simtti
from simtti.cli import main
from simtti.hw_configs import devices
from simtti.hw_configs.schema import DATASHEET, calibration

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def pages():
    return reference.pages()


def cells(page):
    """The rows of a page's tables by what stands first in them."""
    rows = [
        [cell.strip() for cell in line.strip("| ").split(" | ")]
        for line in page.splitlines()
        if line.startswith("| `")
    ]
    return {row[0].strip("`"): row[1:] for row in rows}


def test_every_number_has_unit_bounds_and_meaning(pages):
    found = cells(pages["reference/devices.md"])
    assert set(DATASHEET) <= set(found)
    assert found["hbm_bytes_per_s"][0] == "B/s"
    assert found["tensor_fp16_flops_per_cycle_sm"][0] == "FLOP/cycle/SM"
    text = pages["reference/parameters.md"]
    for name in calibration():
        group, _, field = name.rpartition(".")
        assert not group or f"## `{group}`" in text
        assert not group or f"| `{field}` |" in text


def test_a_device_says_what_its_own_files_say(pages):
    for name in devices.names():
        found = cells(pages[f"reference/devices/{name}.md"])
        device = devices.load(name)
        assert float(found["hbm_bytes_per_s"][0].replace(",", "")) == pytest.approx(
            device.hbm_bytes_per_s, rel=1e-5
        )
        assert all(row[-1] for row in found.values()), f"{name}: a number without a source"
    assert "gemm_mma.fill_cost" not in cells(pages["reference/devices/h200-sxm.md"])  # all devices' own


def test_every_public_name_is_on_the_page(pages):
    for name in simtti.__all__:
        assert f"::: simtti.{name}\n" in pages["reference/python.md"]


def test_every_option_of_every_command_is_on_the_page(pages):
    page = pages["reference/cli.md"]
    for name, command in main.commands.items():
        assert f"\n## simtti {name}\n" in page
        for option in [each for each in command.params if each.param_type_name == "option"]:
            assert f"| `{option.opts[0]}" in page
    assert "\n### simtti import kineto\n" in page
    assert "\x08" not in page  # click's own mark
    assert "UNSET" not in page


def test_a_cell_breaks_no_table():
    assert (
        reference.table(["a"], [["x | y_z\n*<b>"], ["`a_b`"]])
        == "| a |\n| --- |\n| x \\| y\\_z \\*&lt;b> |\n| `a_b` |\n"
    )


def test_pages_named_in_a_text_are_links():
    assert not doctest.testmod(links).failed
    assert not doctest.testmod(reference).failed
    text = "docs/explore.md `docs/explore.md`\n    docs/explore.md\n[x](docs/explore.md) xDiT docs/performance/sana.md"
    assert links.linked(text, "a.md", {"explore.md"}) == text.replace(
        "docs/explore.md", "[explore](explore.md)", 1
    )


def test_the_table_of_contents_has_every_page():
    def leaves(entry):
        if isinstance(entry, str):
            return [entry]
        return [
            leaf for each in (entry.values() if isinstance(entry, dict) else entry) for leaf in leaves(each)
        ]

    listed = leaves(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    made = [uri for uri in reference.pages() if not uri.startswith("reference/devices/")]
    there = [*DOCS.rglob("*.md"), *(DOCS / "notebooks").glob("*.py")]
    assert sorted(listed) == sorted([*made, "changelog.md", *(str(path.relative_to(DOCS)) for path in there)])
