"""`simtti compare`: devices side by side, as a user calls it."""

import math
import subprocess
import sys

import pandas as pd
import pytest

from simtti.errors import InputError
from simtti.simulator.compare import compare
from simtti.simulator.run import run


def simtti(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "simtti.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_row_is_what_run_says():
    table = compare("stable-diffusion", ["a100-sxm", "h100-sxm"], [1], steps=2, workers=1)
    assert list(table.hw) == ["a100-sxm", "h100-sxm"]
    result = run("stable-diffusion", "h100-sxm", batch=1, steps=2)
    row = table.iloc[1]
    assert row.latency_s == result.latency_s
    assert row.outputs_per_s == pytest.approx(1 / result.latency_s)
    assert row.energy_per_output_j == pytest.approx(result.energy_j)
    assert row.bottleneck == next(iter(result.bottlenecks))


def test_the_bottlenecks_add_up_to_the_latency():
    result = run("stable-diffusion", "a100-sxm", steps=2)
    assert math.isclose(sum(result.bottlenecks.values()), result.latency_s, rel_tol=1e-9)


def test_a_host_bound_run_says_so_and_a_graph_takes_the_host_out():
    eager = run("stable-diffusion", "h100-sxm", steps=2)
    graph = run("stable-diffusion", "h100-sxm", steps=2, launch="graph")
    assert next(iter(eager.bottlenecks)) == "host"
    assert graph.bottlenecks["host"] <= 1e-3 * graph.latency_s


def test_the_command_writes_a_table_and_a_plot(tmp_path):
    out, plot = tmp_path / "t.csv", tmp_path / "t.svg"
    done = simtti(
        "compare", "stable-diffusion", "--hw", "a100-sxm,h100-sxm", "--steps", 2, "--out", out, "--plot", plot
    )
    assert done.returncode == 0, done.stderr
    assert list(pd.read_csv(out).hw) == ["a100-sxm", "h100-sxm"]
    assert plot.read_text().lstrip().startswith("<?xml")
    assert "h100-sxm" in done.stdout


def test_a_shape_that_only_one_device_cannot_run_keeps_the_others():
    with pytest.raises(InputError, match="unknown device 'h10'"):
        compare("stable-diffusion", ["h10"], [1])
    with pytest.raises(InputError, match="no device to compare"):
        compare("stable-diffusion", [], [1])


def test_bad_input_is_one_line_and_exit_code_2(tmp_path):
    done = simtti("compare", "stable-diffusion", "--hw", "h100-sxm", "--batch", "1,x")
    assert done.returncode == 2
    assert done.stderr.startswith("simtti: error: --batch is '1,x'")
    assert len(done.stderr.splitlines()) == 1
    done = simtti("compare", "stable-diffusion", "--hw", "h100-sxm", "--batch", "0")
    assert done.returncode == 2
    assert "batch" in done.stderr
    assert "Traceback" not in done.stderr
