"""One design's figures: better hardware is never slower, measured ratios come out, limits add up."""

import math
from dataclasses import replace

import places
import pytest
from explored import spec
from hypothesis import given, settings
from hypothesis import strategies as st

from simtti.explore.evaluate import evaluate, evaluate_many, limits
from simtti.hw_configs.devices import load
from simtti.hw_configs.hosts import load_host
from simtti.simulator.engine.simulation import simulate
from simtti.simulator.policy import Policy
from simtti.workloads.record import workload_trace

RESOURCES = (
    "sm_count", "clock_hz", "tensor_fp16_flops_per_cycle_sm", "fp32_flops_per_cycle_sm", "sfu_ops_per_cycle_sm",
    "shared_memory_bytes_per_cycle_sm", "l2_capacity_bytes", "l2_bytes_per_cycle_sm", "l2_bytes_per_s", "hbm_bytes_per_s",
)  # fmt: skip


@pytest.fixture(scope="module")
def trace():
    return workload_trace("stable-diffusion-1.5", steps=1)


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from(["h100-sxm", "a100-sxm"]),
    st.sampled_from(["eager", "graph"]),
    st.lists(st.floats(1.0, 2.5), min_size=len(RESOURCES), max_size=len(RESOURCES)),
)
def test_a_design_better_in_every_resource_is_never_slower(trace, base, launch, factors):
    host, origin = load_host("default"), load(base)
    better = {name: getattr(origin, name) * factor for name, factor in zip(RESOURCES, factors, strict=True)}
    better["sm_count"] = math.ceil(better["sm_count"])
    times = [
        simulate(trace, hardware, host, Policy(launch=launch)).latency_s
        for hardware in (origin, replace(origin, **better))
    ]
    assert times[1] <= times[0] * (1 + 1e-9)


def test_figures_follow_from_the_runs():
    asked = spec(
        workloads=[
            {"workload": "stable-diffusion-1.5", "steps": 2, "weight": 3},
            {"workload": "svd", "steps": 2, "frames_per_second": 7},
        ]
    )
    found = evaluate(asked.model_dump_json(exclude_defaults=True), {"sm_count": 132})
    image_s, video_s = found["latency_s.stable-diffusion-1.5"], found["latency_s.svd"]
    assert found["latency_s"] == pytest.approx(3 * image_s + video_s)
    frames = workload_trace("svd").options["frames"]
    assert found["throughput_per_s"] == pytest.approx((3 + frames / 7) / found["latency_s"])
    assert found["perf_per_w"] == pytest.approx(found["throughput_per_s"] / found["power_w"])
    assert found["area_mm2"] == pytest.approx(814)
    assert found["fits_memory"]


MEASURED = places.MEASURED


@pytest.mark.skipif(not MEASURED.exists(), reason="needs ../shared/measured, the timings of others")
def test_the_ratio_between_measured_devices_is_right():
    """Whole inferences at batch 1, A100 against H100: within 15 % on four of five."""
    from simtti.validation.measurements import sources
    from simtti.validation.measurements import table as measured

    runs = measured.runs(sources.import_measurements("folder", str(MEASURED)).table)
    runs = runs[(runs.gpus.fillna(1) == 1) & (runs.batch == 1) & (runs.dtype == "fp16")]
    errors = {}
    for (workload, steps), rows in runs.groupby(["workload", "steps"]):
        times = rows.groupby("hw").latency_s.first()
        if not {"a100-sxm-40gb", "h100-sxm"} <= set(times.index):
            continue
        trace = workload_trace(workload, steps=int(steps), dtype="fp16")
        host = load_host("default")
        mine = {hw: simulate(trace, load(hw), host).latency_s for hw in ("a100-sxm-40gb", "h100-sxm")}
        ratio, theirs = (t["a100-sxm-40gb"] / t["h100-sxm"] for t in (mine, times))
        errors[workload] = ratio / theirs - 1
    assert len(errors) >= 4
    assert sum(abs(error) <= 0.15 for error in errors.values()) >= 0.8 * len(errors), errors


def test_the_host_and_more_gpus_are_parameters():
    text = spec(workloads=[{"workload": "wan2.1-1.3b", "steps": 2}]).model_dump_json(exclude_defaults=True)
    one, four = (evaluate(text, {"gpus": gpus}) for gpus in (1, 4))
    assert four["latency_s"] < one["latency_s"] < 4 * four["latency_s"]
    assert four["cost_usd"] == pytest.approx(4 * one["cost_usd"])
    eager = spec(workloads=[{"workload": "stable-diffusion-1.5", "steps": 2}]).model_dump_json(
        exclude_defaults=True
    )
    slow, fast = (evaluate(eager, {"host_speed": speed})["latency_s"] for speed in (0.5, 4.0))
    assert fast < slow / 2


def test_a_design_that_cannot_be_simulated_says_why():
    text = spec().model_dump_json(exclude_defaults=True)
    assert "sm_count" in evaluate(text, {"sm_count": 1e9})["error"]


def test_limits_add_up_to_the_latency_and_move_with_the_design(trace):
    host = load_host("default")
    found = {}
    for bandwidth in (0.2e12, 20e12):
        result = simulate(
            trace, replace(load("h100-sxm"), hbm_bytes_per_s=bandwidth), host, Policy(launch="graph")
        )
        seconds = limits(result)
        assert sum(seconds.values()) == pytest.approx(result.latency_s, rel=1e-6)
        found[bandwidth] = sum(s for (_, limit), s in seconds.items() if limit == "hbm") / result.latency_s
    assert found[0.2e12] > 0.5 > 0.1 > found[20e12]


def test_designs_side_by_side_have_the_figures_that_each_has_alone():
    """Of one GPU and of several, with hosts of their own, and with one that no device file could have."""
    text = spec(workloads=[{"workload": "stable-diffusion-1.5", "steps": 1}]).model_dump_json(
        exclude_defaults=True
    )
    designs = [
        {"sm_count": 60 + number, "hbm_bytes_per_s": 2e12, "host_speed": 1 + number} for number in range(9)
    ]
    designs.insert(3, {"sm_count": -1})
    found = evaluate_many(text, designs)
    assert [list(one) for one in found].count(["error"]) == 1
    assert found[3] == evaluate(text, designs[3])
    for number in (0, 5, 9):
        assert found[number] == evaluate(text, designs[number])
    with_limits = evaluate_many(text, designs[:2], True)
    assert with_limits[0] == evaluate(text, designs[0], True)
    assert with_limits[1].keys() - found[1].keys() == {"limits", "draws"}
