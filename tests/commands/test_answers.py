"""From a question to an answer: compare with costs, costs, diff, as a user calls them."""

import json
import re

import pandas as pd
import pytest
from calls import call, refused

from simtti.hw_configs import devices
from simtti.hw_configs.prices import load_prices
from simtti.simulator.costs import INTERVALS
from simtti.simulator.run import run
from simtti.words import joules, seconds

SMALL = ("--steps", 2, "--launch", "graph")


def rows_of(*arguments):
    code, out, errors = call(*arguments, "--json", "-")
    assert code == 0, errors
    return json.loads(out)


def test_compare_says_what_each_costs_beside_the_first(tmp_path):
    prices = tmp_path / "prices.yaml"
    prices.write_text("h100-sxm: 3.6\na100-sxm: {usd_per_gpu_hour: 1.8, source: a quote}\n")
    first, changed, other = rows_of(
        "compare", "stable-diffusion", "--hw", "h100-sxm,a100-sxm", "--set", "hbm_bytes_per_s=0.5x", "--prices", prices, *SMALL
    )[:3]  # fmt: skip
    assert (first["hw"], changed["hw"], other["hw"]) == (
        "h100-sxm",
        "h100-sxm+hbm_bytes_per_s=0.5x",
        "a100-sxm",
    )
    assert (first["latency_x"], first["energy_x"]) == (1, 1)
    assert changed["latency_x"] == pytest.approx(changed["latency_s"] / first["latency_s"])
    assert changed["latency_x"] > 1.02
    assert first["usd_per_output"] == pytest.approx(3.6 / 3600 * first["latency_s"])
    assert other["usd_per_output"] == pytest.approx(1.8 / 3600 * other["latency_s"])
    assert changed["usd_per_output"] is None, "nobody knows what it costs"
    assert first["fits"]
    assert first["largest_batch"] > 8


def test_compare_takes_several_gpus_and_prints_within_eighty_columns():
    code, out, errors = call("compare", "pixart-sigma", "--hw", "h100-sxm,rtx-4090", "--gpus", 2, *SMALL)
    assert code == 0, errors
    assert "2 h100-sxm" in out.replace("\n", "")
    assert "rtx-4090 has no link between GPUs" in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 80


def test_compare_takes_a_trace_and_seconds_of_video():
    from simtti.workloads.catalogue import find

    (row,) = rows_of("compare", "animatediff", "--hw", "l40s", "--fps", 8, *SMALL)
    frames = find("animatediff").defaults.frames
    assert row["usd_per_video_s"] == pytest.approx(row["usd_per_output"] * 8 / frames)
    assert "WORKLOAD" in refused("compare", "--hw", "l40s")
    assert "none.parquet" in refused("compare", "--hw", "l40s", "--trace", "none.parquet")


def test_prices_are_of_devices_that_there_are_and_a_bad_one_is_named(tmp_path):
    assert set(load_prices()) <= set(devices.names())
    assert "prices" not in devices.names()
    path = tmp_path / "prices.yaml"
    for text, word in (
        ("l40s: -1\n", "'l40s.usd_per_gpu_hour'"),
        ("l40s: {usd: 1}\n", "'l40s.usd'"),
        ("- 1\n", "mapping"),
    ):
        path.write_text(text)
        message = refused("compare", "stable-diffusion", "--hw", "l40s", "--prices", path)
        assert word in message
        assert "prices.yaml" in message


def test_costs_are_what_run_says_of_a_step_and_its_stages(tmp_path):
    out = tmp_path / "costs.csv"
    code, printed, errors = call("costs", "stable-diffusion", "--hw", "h100-sxm,a10", "--gpus", "1,2", "--steps", 2,
                                 "--launch", "graph", "--out", out, "--workers", 1)  # fmt: skip
    assert code == 0, errors
    table = pd.read_csv(out)
    assert list(table.columns) == ["hw", "gpus", "batch", "height", "width", "text_encoder_s", "step_s", "decoder_s", "latency_s",
                                   "peak_memory_bytes", "fits", *INTERVALS, "error"]  # fmt: skip
    assert list(zip(table.hw, table.gpus, strict=True)) == [
        ("h100-sxm", 1),
        ("h100-sxm", 2),
        ("a10", 1),
        ("a10", 2),
    ]
    row, result = (
        table.iloc[0],
        run("stable-diffusion", "h100-sxm", steps=2, launch="graph", fidelity="closed"),
    )
    assert (row.height, row.width) == (512, 512)
    text, denoising, decoder = result.phases
    assert [row.text_encoder_s, row.step_s, row.decoder_s, row.latency_s] == pytest.approx(
        [text.latency_s, denoising.step_s, decoder.latency_s, result.latency_s]
    )
    for name in ("text_encoder", "step", "decoder", "latency"):
        assert (
            row[f"{name}_p05_s"]
            < row[f"{name}_p25_s"]
            <= row[f"{name}_s"]
            <= row[f"{name}_p75_s"]
            < row[f"{name}_p95_s"]
        )
    assert row.latency_p95_s == pytest.approx(result.interval.latency_s.p95)
    assert "9 of 10" in printed
    assert row.peak_memory_bytes == result.peak_memory_bytes
    assert table.error[3], "an A10 has no link"
    assert "512x512" in printed
    as_json = tmp_path / "costs.json"
    assert (
        call("costs", "stable-diffusion", "--hw", "a10", "--steps", 2, "--out", as_json, "--workers", 1)[0]
        == 0
    )
    assert json.loads(as_json.read_text())[0]["batch"] == 1


def test_costs_refuse_what_is_no_shape_before_they_begin(tmp_path):
    arguments = ("costs", "sdxl", "--hw", "h100-sxm", "--out", tmp_path / "x.csv")
    assert "'big'" in refused(*arguments, "--shapes", "big")
    assert "--gpus is 'x'" in refused(*arguments, "--gpus", "x")
    assert "unknown device 'h10'" in refused("costs", "sdxl", "--hw", "h10", "--out", tmp_path / "x.csv")
    assert "x.txt" in refused("costs", "sdxl", "--hw", "h100-sxm", "--out", tmp_path / "x.txt")


def test_diff_of_two_results_adds_up(tmp_path):
    for hw in ("a100-sxm", "h100-sxm"):
        call("run", "stable-diffusion", "--hw", hw, "--steps", 2, "--json", tmp_path / f"{hw}.json")
    a, b = tmp_path / "a100-sxm.json", tmp_path / "h100-sxm.json"
    table = pd.DataFrame(rows_of("diff", a, b))
    whole = table[(table.phase == "all") & (table.category == "all")].iloc[0]
    assert whole.a_s == json.loads(a.read_text())["latency_s"]
    assert whole.ratio == pytest.approx(whole.b_s / whole.a_s)
    parts = table[table.category != "all"]
    for column in ("a_s", "b_s", "change_s"):
        assert parts[parts.phase == "all"][column].sum() == pytest.approx(whole[column], rel=1e-6)
        for phase in ("text_encoder", "denoising", "decoder"):
            total = table[(table.phase == phase) & (table.category == "all")].iloc[0]
            assert parts[parts.phase == phase][column].sum() == pytest.approx(total[column], rel=1e-6)
    code, out, _ = call("diff", a, b)
    assert code == 0
    assert "A  stable-diffusion-1.5 on a100-sxm, pytorch 2.11" in out
    assert "Convolution" in out


def test_diff_of_traces_is_of_their_kernels(tmp_path):
    captures = sorted(
        (devices.DIRECTORY.parent / "workloads/traces/measured/h200-sxm").glob(
            "stable-diffusion-1.5*.parquet"
        )
    )
    table = pd.DataFrame(rows_of("diff", captures[0], captures[0]))
    assert (table.change_s == 0).all()
    assert {"Convolution", "Attention"} <= set(table.category)
    recorded = next((devices.DIRECTORY.parent / "workloads/traces/recorded").glob("*.parquet"))
    assert "no measured kernels" in refused("diff", recorded, captures[0])
    (tmp_path / "x.json").write_text('{"latency_s": 1}')
    assert "x.json: neither a result" in refused("diff", tmp_path / "x.json", captures[0])
    content = {"configuration": {"workload": "w", "hw": "t4"}, "latency_s": -1.0, "breakdown": {}}
    (tmp_path / "x.json").write_text(json.dumps(content))
    assert "-1 is no number of seconds" in refused("diff", tmp_path / "x.json", captures[0])


def test_run_prints_no_empty_category_and_long_times_in_minutes():
    code, out, _ = call("run", "stable-diffusion", "--hw", "h100-sxm", *SMALL, "--set", "power_limit_w=300")
    assert code == 0
    assert not re.search(r"s +0\.0%", out)
    assert "0.00%" not in out
    assert (seconds(3439), seconds(599), seconds(7200)) == ("57 min", "599 s", "2 h")
    assert (joules(1_710_783), joules(232.4)) == ("1,710,783 J (0.475 kWh)", "232 J")
    code, out, _ = call()
    assert code == 0
    assert "Commands:" in out
