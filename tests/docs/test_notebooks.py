"""The notebooks of docs/notebooks, run as they stand: what they print is not kept, what they say must be so."""

import runpy
from pathlib import Path

import pytest

import simtti
from simtti.workloads.record import quiet

FOLDER = Path(__file__).parents[2] / "docs" / "notebooks"


def ran(name):
    return runpy.run_path(str(FOLDER / f"{name}.py"))


def test_every_notebook_is_run_here():
    here = {"find_bottleneck", "choose_hardware", "twice_the_bandwidth", "own_module", "measured_trace"}
    assert {path.stem for path in FOLDER.glob("*.py")} == here


def test_a_graph_takes_the_host_out():
    pytest.importorskip("matplotlib")
    names = ran("find_bottleneck")
    assert next(iter(names["result"].bottlenecks)) == "host"
    assert names["graph"].latency_s < 0.8 * names["result"].latency_s
    assert names["slowest"].sum() == pytest.approx(names["graph"].totals["kernel_s"])


def test_hardware_is_chosen():
    names = ran("choose_hardware")
    chosen = names["found"].best["cheapest"].iloc[0]
    meets = names["found"].table.query("verdict == 'meets'")
    assert chosen.latency_s <= 10.0
    assert chosen.usd_per_output == meets.usd_per_output.min()
    assert names["table"].fastest_in.sum() == pytest.approx(1.0)


def test_twice_the_bandwidth_is_not_half_the_time():
    names = ran("twice_the_bandwidth")
    assert names["faster"].hbm_bytes_per_s == 2 * names["device"].hbm_bytes_per_s
    ratios = names["table"][names["table"].hw == names["faster"].name].latency_x
    assert ((ratios > 0.5) & (ratios <= 1)).all()
    assert max(saved for _, saved in names["gains"]) > 0


def test_a_module_of_ones_own():
    pytest.importorskip("torch")
    with quiet():
        names = ran("own_module")
    assert isinstance(names["result"], simtti.Result)
    assert names["result"].phases[0].steps == 20
    assert any(module.startswith("model.blocks.layers.") for module in map(str, names["by_module"].index))
    assert len(names["table"]) == 3


def test_the_model_is_held_against_a_measurement():
    names = ran("measured_trace")
    summary = names["comparison"].summary.set_index("category")
    assert summary.loc["all", "ratio"] == pytest.approx(1, abs=0.1)
    assert names["measured"].latency_s == pytest.approx(names["model"].latency_s, rel=0.1)
