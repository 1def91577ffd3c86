"""Tables as people read them: in a pipe, at 80 columns, on a wide terminal."""

import json
import os
import re
import subprocess
import sys

import pytest
from calls import call
from rich.text import Text

from simtti.commands.console import Column, print_table

SMALL = ("--steps", 2, "--launch", "graph")
EXPLORATION = """
base: h100-sxm
parameters:
  sm_count: {low: 100, high: 160, steps: 3}
  hbm_bytes_per_s: {low: 2e+12, high: 5e+12, steps: 3}
workloads: [{workload: sdxl-turbo, launch: graph}]
objectives: [area_mm2, power_w, latency_s, energy_j_per_output, peak_memory_bytes, perf_per_w]
search: {method: sobol, designs: 2, seed: 1}
"""


@pytest.fixture(autouse=True)
def as_in_a_pipe(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)


def printed(*arguments):
    code, out, errors = call(*arguments)
    assert code in (0, 1), errors
    assert "…" not in out
    assert max(map(len, out.splitlines())) <= 80
    return out


def test_a_pipe_loses_no_column_and_cuts_no_name():
    from simtti.hw_configs import devices
    from simtti.workloads.catalogue import WORKLOADS

    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    for verb, names, columns in (("workloads", WORKLOADS, 7), ("hw", devices.names(), 9)):
        command = [sys.executable, "-m", "simtti", verb]
        out = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
        lines = out.splitlines()
        assert "…" not in out
        assert max(map(len, lines)) <= 80
        assert len(lines[0].replace("L2 MiB", "L2").split()) == columns
        assert {line.split()[0] for line in lines[1:] if line.strip()} >= set(names)


def test_help_cuts_no_sentence():
    for words in ((), ("validate", "--help"), ("import", "--help")):
        commands = call(*words)[1].partition("\nCommands:\n")[2]
        assert commands
        assert "..." not in commands
        assert max(map(len, commands.splitlines())) <= 80
    printed()


def test_every_list_fits_eighty_columns(tmp_path, monkeypatch):
    printed("workloads", "--shapes")
    printed("workloads", "stable-diffusion-1.5-controlnet")
    assert "tensor_fp16_flops_per_cycle_sm" in printed("hw", "h100-sxm")
    kept = tmp_path / "cache" / "traces"
    monkeypatch.setenv("SIMTTI_CACHE", str(tmp_path / "cache"))
    printed("cache")
    assert not kept.exists()


def test_every_answer_fits_eighty_columns(tmp_path):
    devices = "rtx-pro-6000-workstation,h100-sxm"
    out = printed("compare", "sdxl-turbo", "--hw", devices, "--batch", "1,4", *SMALL)
    assert re.search(r"^rtx-pro-6000- .*\nworkstation +$", out, flags=re.M), "too long a name goes on below"
    printed("compare", "animatediff", "--hw", "h100-sxm", "--no-interval", "--fps", 8, *SMALL)
    printed(
        "advise",
        "sdxl-turbo",
        "--hw",
        devices,
        "--launch",
        "graph",
        "--quantization",
        "none,fp8",
        "--workers",
        1,
    )
    printed("costs", "sdxl-turbo", "--hw", devices, "--out", tmp_path / "costs.csv", "--workers", 1, *SMALL)
    printed("profile", "stable-diffusion")
    results = [tmp_path / f"{hw}.json" for hw in ("a100-pcie-40gb", "h100-sxm")]
    for path in results:
        printed("run", "sdxl-turbo", "--hw", path.stem, "--json", path, *SMALL)
    printed("diff", *results)


def test_an_exploration_shows_every_objective(tmp_path):
    (tmp_path / "spec.yaml").write_text(EXPLORATION)
    arguments = ("explore", tmp_path / "spec.yaml", "--out", tmp_path / "out", "--no-report", "--workers", 1)
    out = printed(*arguments, "--json", tmp_path / "designs.json")
    assert [row["design"] for row in json.loads((tmp_path / "designs.json").read_text())] == [0, 1]
    letters = "".join(out.split())
    for heading in ("perf_", "peak_", "energy_", "hbm_"):
        assert heading in letters


def test_a_comparison_with_a_capture_fits_eighty_columns():
    from simtti.workloads.measured import captures

    smallest = min((each.path for each in captures()), key=lambda path: path.stat().st_size)
    assert "Predicted" in printed("validate", "trace", smallest)


def shown(capsys, width, columns, rows, monkeypatch, **keys):
    monkeypatch.setenv("COLUMNS", str(width))
    print_table(columns, rows, **keys)
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


NAMED = (Column("Device", "name"), "Figure", Column("Why", "prose"))
ROWS = [("rtx-pro-6000-workstation", "12.5 %", "it waits for its memory"), ("l4", "1 %", "")]


def test_a_wide_terminal_has_a_row_a_line(capsys, monkeypatch):
    assert shown(capsys, 80, NAMED, ROWS, monkeypatch) == [
        "Device                    Figure  Why",
        "rtx-pro-6000-workstation  12.5 %  it waits for its memory",
        "l4                           1 %",
    ]


def test_a_narrow_one_breaks_prose_then_names_and_no_number(capsys, monkeypatch):
    assert shown(capsys, 50, NAMED, ROWS, monkeypatch) == [
        "Device                    Figure  Why",
        "rtx-pro-6000-workstation  12.5 %  it waits for its",
        "                                  memory",
        "l4                           1 %",
    ]
    assert shown(capsys, 32, NAMED, ROWS, monkeypatch) == [
        "Device      Figure Why",
        "rtx-pro-    12.5 % it waits for",
        "6000-              its memory",
        "workstation",
        "l4             1 %",
    ]


def test_too_many_columns_follow_below_each_behind_the_key(capsys, monkeypatch):
    columns = [Column("Name", "name"), *(f"n{each}" for each in range(6))]
    lines = shown(capsys, 24, columns, [("one", *("1,234",) * 6)], monkeypatch)
    assert lines == [
        "Name    n0    n1    n2",
        "one  1,234 1,234 1,234",
        "",
        "Name    n3    n4    n5",
        "one  1,234 1,234 1,234",
    ]


def test_what_fits_nowhere_is_printed_whole_and_markup_is_text(capsys, monkeypatch):
    rows = [(Text("a" * 40, style="red"), "[bold]5[/]")]
    assert shown(capsys, 20, [Column("Name", "name"), "n"], rows, monkeypatch)[1].split() == [
        "a" * 40,
        "[bold]5[/]",
    ]
