"""simtti advise: what is best of all ways to run a workload, as a user calls it."""

import json

import pandas as pd
import pytest
from calls import call, refused

from simtti.simulator.advise import AIMS, advise
from simtti.simulator.run import run

FEW = {"steps": 2, "workers": 1}


@pytest.fixture(scope="module")
def prices(tmp_path_factory):
    path = tmp_path_factory.mktemp("prices") / "prices.yaml"
    path.write_text("h100-sxm: 3.0\na10: 0.3\nl40s: 0.9\n")
    return path


@pytest.fixture(scope="module")
def found(prices):
    return advise(
        "stable-diffusion",
        ("h100-sxm", "a10", "l40s"),
        launches=("eager", "graph"),
        prices=str(prices),
        **FEW,
    )


def test_every_candidate_is_what_run_says(found):
    assert len(found.table) == 6
    row = found.table[(found.table.hw == "l40s") & (found.table.launch == "graph")].iloc[0]
    result = run("stable-diffusion", "l40s", launch="graph", steps=2, fidelity="closed")
    assert row.latency_s == result.latency_s
    assert row.energy_per_output_j == pytest.approx(result.energy_j)
    assert row.usd_per_output == pytest.approx(0.9 / 3600 * result.latency_s)
    assert row.latency_p05_s < row.latency_s < row.latency_p95_s


def test_the_best_are_so_in_the_whole_table(found):
    for aim, column in AIMS.items():
        best = found.best[aim]
        assert list(best[aim]) == [1, 2, 3]
        assert list(best[column]) == sorted(found.table[column])[:3]
    assert found.best["fastest"].hw.iloc[0] == "h100-sxm"
    assert found.best["cheapest"].hw.iloc[0] != "h100-sxm"


def test_a_limit_leaves_out_what_is_over_it(found, prices):
    middle = float(found.table.latency_s.median())
    limited = advise(
        "stable-diffusion", ("h100-sxm", "a10", "l40s"), launches=("eager", "graph"), prices=str(prices), latency_s=middle, **FEW
    )  # fmt: skip
    slow = found.table.latency_s > middle
    assert (limited.table.verdict[slow] == "too slow").all()
    assert (limited.table.verdict[~slow] == "meets").all()
    assert limited.best["cheapest"].latency_s.max() <= middle


def test_several_gpus_share_in_each_way_that_there_is():
    found = advise(
        "pixart-sigma", ("h100-sxm",), gpus=(1, 2), ways=("ulysses", "cfg"), launches=("graph",), **FEW
    )
    assert list(found.table.way) == ["", "ulysses", "cfg"]
    one, ulysses, cfg = found.table.latency_s
    assert cfg < ulysses < one


def test_the_command_prints_within_eighty_columns_and_says_why_not(prices, tmp_path):
    out = tmp_path / "all.csv"
    code, printed, errors = call("advise", "stable-diffusion", "--hw", "h100-sxm,a10", "--gpus", "1,2", "--ways", "ulysses",
                                 "--launch", "graph", "--latency", "100ms", "--prices", prices, "--steps", 2, "--workers", 1,
                                 "--out", out)  # fmt: skip
    assert code == 0, errors
    assert max(map(len, printed.splitlines())) <= 80
    for words in (
        "an inference takes at most 100 ms",
        "Cheapest",
        "Fastest",
        "Most efficient",
        "cannot be simulated",
    ):
        assert words in printed
    assert "a10 has no link" in printed
    assert len(pd.read_csv(out)) == 4


def test_where_nothing_keeps_the_limits_it_says_what_is_nearest(prices):
    arguments = (
        "advise",
        "stable-diffusion",
        "--hw",
        "a10",
        "--launch",
        "graph",
        "--prices",
        prices,
        "--steps",
        2,
        "--workers",
        1,
    )
    code, printed, _ = call(*arguments, "--latency", "1ms")
    assert code == 1
    assert "None keeps the limits" in printed
    code, printed, _ = call(*arguments, "--memory", "100MB", "--json", "-")
    assert code == 1
    assert json.loads(printed)[0]["verdict"] == "over the limit of memory"


def test_what_cannot_be_asked_is_refused():
    assert "--latency is 'soon'" in refused("advise", "sdxl", "--latency", "soon")
    assert "must be above 0" in refused("advise", "sdxl", "--latency", "0s")
    assert "a way to share of 'luck'" in refused("advise", "sdxl", "--gpus", "2", "--ways", "luck")
    assert "unknown device 'h10'" in refused("advise", "sdxl", "--hw", "h10")
