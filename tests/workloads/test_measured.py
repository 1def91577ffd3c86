"""Captures that ship: what they are, how they are found, what they say when replayed."""

import csv
import dataclasses

import pytest

import simtti
from simtti.hw_configs.devices import load
from simtti.simulator.engine.measured_kernels import measured_kernels
from simtti.validation.judge.shipped import compare_shipped
from simtti.validation.judge.trace import compare
from simtti.validation.measurements import campaign
from simtti.workloads.measured import all_captures, captured_trace, captures
from simtti.workloads.trace import Trace

RUNS = campaign.ROOT / "validation" / "measurements" / "measured" / "h200-sxm-runs.csv"


def test_every_capture_reads_back_and_says_where_it_comes_from():
    assert len(captures()) >= 33
    for each in all_captures():
        trace = Trace.load(each.path)
        assert trace.timing.device["name"] == load(each.device).reported_as
        assert {"date", "torch", "attention"} <= set(trace.provenance)
        assert trace.workload == each.workload


def test_measured_kernels_come_out_as_they_went_in():
    """Of one pass: their sum, operator by operator, within what no operator launched."""
    trace = captured_trace("stable-diffusion-1.5")
    result = simtti.run(trace, "h200-sxm", timing="measured", launch="graph")
    launched = sum(k.duration_us for k in trace.timing.kernels if k.operator is not None) / 1e6
    passes = {}
    for interval in result.kernels:
        operator = result.rows[interval.operator][0]
        if interval.repetition == 0:
            key = (operator.phase, operator.step)
            passes[key] = passes.get(key, 0.0) + interval.duration_s
    assert sum(passes.values()) == pytest.approx(launched, rel=1e-6)


def test_whole_runs_are_as_long_as_they_were_measured():
    """Those that the GPU, not that slow host, bound: the kernels' times of one pass, and the model's gaps, make the run."""
    with RUNS.open() as file:
        rows = [row for row in csv.DictReader(file) if row["latency_s"] and row["attention"] == "flash"]
    bound = {"svd", "flux-dev"}
    checked = 0
    for row in rows:
        if row["workload"] in bound:
            result = simtti.run(
                row["workload"], "h200-sxm", timing="measured", launch="graph", fidelity="closed"
            )
            assert result.latency_s == pytest.approx(float(row["latency_s"]), rel=0.05), row["workload"]
            checked += 1
    assert checked == 2


def test_hybrid_on_the_same_device_is_measured_and_another_scales():
    options = {"timing": "hybrid", "launch": "graph", "fidelity": "closed"}
    same = simtti.run("muse", "h200-sxm", **options)
    measured = simtti.run("muse", "h200-sxm", **{**options, "timing": "measured"})
    assert same.latency_s == pytest.approx(measured.latency_s, rel=1e-9)
    assert simtti.run("muse", "a100-sxm", **options).latency_s > 1.2 * measured.latency_s


def test_what_does_not_ship_is_said_with_what_does():
    with pytest.raises(
        simtti.InputError, match="no measured trace of sdxl at this shape ships; those that do: "
    ):
        simtti.run("sdxl", "h200-sxm", timing="measured", height=512, width=512)
    with pytest.raises(simtti.InputError, match="unknown workload with a measured trace 'kandinsky"):
        simtti.run("kandinsky-2.2", "h200-sxm", timing="measured")
    with pytest.raises(simtti.InputError, match="timing is 'exact'"):
        simtti.run("sdxl", "h200-sxm", timing="exact")
    trace = captured_trace("muse")
    with pytest.raises(simtti.InputError, match="no device file; say which stands for it with --trace-hw"):
        measured_kernels(trace, "hybrid", load("a100-sxm"), None)


def test_the_model_is_compared_with_all_that_ships():
    found = compare_shipped("h200-sxm")
    assert len(found) == len([each for each in captures() if each.device == "h200-sxm"])
    flash = found[found.attention == "flash"]
    assert (flash.ratio - 1).abs().mean() < 0.08


@pytest.mark.parametrize("name", ["flux-dev", "svd"])
def test_no_measured_kernel_is_lost(name):
    """Also those that no operator was found for: FLUX's norms in one kernel, a thirtieth of its time."""
    trace = captured_trace(name)
    found = measured_kernels(trace, "measured", load("h200-sxm"), None)
    kept = [kernel for kernels in found.kernels.values() for kernel in kernels]
    assert len(kept) == len(trace.timing.kernels)
    assert sum(kernel.duration_us for kernel in kept) == pytest.approx(
        sum(kernel.duration_us for kernel in trace.timing.kernels)
    )
    operators = list(trace.operators())
    norms = [
        row for row, kernels in found.kernels.items() if any("layer_norm" in each.name for each in kernels)
    ]
    assert not any(operators[row].is_view for row in norms)


def test_a_device_is_predicted_with_the_kernels_of_its_die():
    """Our own H100 with torch 2.11: its kernels are the H200's, its memory its own; it set only what sources in hw_configs say. With the
    kernels of older libraries the same operators are off by more."""
    found = compare_shipped("h100-sxm")
    assert len(found) >= 14
    assert (found.ratio - 1).abs().mean() < 0.06
    capture = next(each for each in captures() if each.name == "h100-sxm/svd")
    trace = Trace.load(capture.path)
    new = compare(trace, load("h100-sxm"))
    unsaid = dataclasses.replace(trace, timing=dataclasses.replace(trace.timing, device={}))
    old = compare(unsaid, load("h100-sxm"))
    assert new.hardware.pytorch == "2.11"
    assert old.hardware.pytorch == "2.6"
    assert new.summary.mape[0] < old.summary.mape[0]
