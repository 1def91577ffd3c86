"""A whole inference: what it must conserve, how it must respond to the device, the host and the policy."""

import dataclasses
import itertools

import pytest
from one_of_each import one_of_each
from recorded_traces import LARGE

import simtti
from simtti.hw_configs.devices import load
from simtti.hw_configs.hosts import load_host
from simtti.simulator.closed_form import RESOURCES
from simtti.simulator.engine import in_one_go, processes
from simtti.simulator.engine.device import execution_time_s
from simtti.simulator.engine.host import calls, issue_s
from simtti.simulator.engine.simulation import simulate
from simtti.simulator.policy import LAUNCH, Policy
from simtti.workloads.catalogue import WORKLOADS as ALL
from simtti.workloads.flops import flops
from simtti.workloads.record import TRACES, workload_trace
from simtti.workloads.trace import Trace

H100 = load("h100-sxm")
HOST = load_host("default")
WORKLOADS = ["stable-diffusion-1.5", "stable-diffusion-2.1", "sdxl"]
OF_EACH_BUILDER = one_of_each(sorted(ALL), too_large=())
# Those with a model for all but a hundredth of what they do.
WHOLE = ALL.keys() - LARGE | {"flux.2-klein-4b", "wan2.2-t2v-a14b", "qwen-image"}


@pytest.fixture(scope="module")
def trace():
    return Trace.load(TRACES / "stable-diffusion-1.5.parquet").with_steps(6)


@pytest.fixture(scope="module")
def result(trace):
    return simulate(trace, H100, HOST)


def runs_and_names_what_it_has_no_model_for(result):
    assert result.latency_s > 0
    assert sum(result.breakdown.values()) == pytest.approx(result.latency_s, rel=1e-6)
    assert sum(result.unlowered.values()) < 0.01


@pytest.mark.parametrize(
    "name", sorted(WHOLE - {each.values[0] for each in OF_EACH_BUILDER if not each.marks})
)
def test_every_workload_runs_and_names_what_it_has_no_model_for(name):
    """Those that do not meet the closed form below."""
    runs_and_names_what_it_has_no_model_for(simtti.run(name, "h100-sxm"))


@pytest.mark.parametrize("name", WORKLOADS)
def test_nothing_is_silently_free(name):
    result = simtti.run(name, "h100-sxm", steps=2)
    assert not result.unlowered
    for operator, lowered in result.rows:
        on_device = any(use.nbytes for use in (*operator.inputs, *operator.outputs))
        if not operator.is_view and on_device:
            assert lowered.kernels, operator


@pytest.mark.parametrize("name", WORKLOADS)
def test_useful_flops_equal_the_traces(name):
    """Matrix products, convolutions and attention count alike in the trace and in the kernels."""
    result = simtti.run(name, "h100-sxm", steps=1)
    counted = 0.0
    for operator, lowered in result.rows:
        if flops(operator):
            mine = sum(k.flops for k in lowered.kernels if k.family in ("gemm", "convolution", "attention"))
            expected = float(flops(operator))
            if operator.attributes.get(
                "causal"
            ):  # the trace counts the whole square, the kernels what they compute
                length = operator.inputs[0].shape[-2]
                expected *= (length + 1) / (2 * length)
            assert mine == pytest.approx(expected, rel=0.01), operator
            counted += mine
    assert counted > 1e11


def test_the_breakdown_is_the_latency(result):
    assert sum(result.breakdown.values()) == pytest.approx(result.latency_s, rel=1e-9)
    assert sum(phase.latency_s for phase in result.phases) == pytest.approx(result.latency_s, rel=1e-9)


def test_kernels_of_a_stream_do_not_overlap(result):
    for before, after in itertools.pairwise(result.kernels):
        assert after.start_s >= before.end_s


def test_no_resource_is_used_beyond_its_capacity(result):
    for interval in result.kernels:
        assert interval.hbm_bytes <= H100.hbm_attained_bytes_per_s * interval.duration_s * (1 + 1e-6)
        tensor_s = (
            interval.kernel.tensor_flops
            * interval.kernel.grid
            / H100.peak_flops(interval.kernel.tensor_dtype)
        )
        assert tensor_s <= interval.duration_s * (1 + 1e-6)
    assert 0 < result.utilisation["tensor_cores"] < 1
    assert 0 < result.utilisation["hbm"] < 1


def test_repeated_steps_are_multiplied_exactly(trace):
    """Latency is linear in the number of steps once the first ones are past."""
    times = [simulate(trace.with_steps(steps), H100, HOST).latency_s for steps in (20, 40, 60)]
    assert times[2] - times[1] == pytest.approx(times[1] - times[0], rel=1e-9)
    table = simulate(trace.with_steps(40), H100, HOST).intervals
    steps = table[table.phase == "denoising"].groupby("repetition").repeats.first()
    assert steps.sum() == 41


def test_a_graph_takes_the_host_out(trace, result):
    graph = simulate(trace, H100, HOST, Policy(launch="graph"))
    assert graph.latency_s < result.latency_s
    assert graph.host_bound_share < 0.01
    assert result.host_bound_share > 0.2


def test_a_slower_host_matters_at_batch_1(trace, result):
    slow = HOST.faster(0.5)
    assert simulate(trace, H100, slow).latency_s > 1.4 * result.latency_s


def test_the_host_pays_for_what_it_issues(trace):
    step = next(phase for phase in trace.phases if phase.name == "denoising").steps[0]
    seconds = issue_s(HOST, step.operators, {})
    kinds = {operator.category: cost for operator, cost in zip(step.operators, seconds, strict=True)}
    assert kinds["Convolution"] > kinds["Linear"] > kinds["Elementwise"]
    # A chain of operators in one module calls it once.
    same = [dataclasses.replace(operator, module="unet") for operator in step.operators]
    paths = ["", *(operator.module for operator in step.operators)]
    called = sum(calls(before, after) for before, after in itertools.pairwise(paths))
    assert sum(seconds) - sum(issue_s(HOST, same, {})) == pytest.approx((called - 1) * HOST.module_s)
    # What a call costs depends on whose module it is.
    dearer = sum(issue_s(HOST, step.operators, {"unet": "diffusers"})) - sum(seconds)
    unet = sum(calls(a, b) for a, b in itertools.pairwise(paths) if b.startswith("unet"))
    assert unet > 500
    assert dearer == pytest.approx(unet * (HOST.diffusers_module_s - HOST.module_s))


def test_going_down_a_tree_of_modules_calls_each_and_coming_back_none():
    assert calls("", "unet") == 1
    assert calls("unet.blocks.0.norm", "unet.blocks.1.attention.to_q") == 3
    assert calls("unet.blocks.1.attention.to_q", "unet.blocks.1") == 0
    assert calls("unet.blocks.1.attention.to_q", "unet.blocks.1.attention.to_k") == 1


def test_baseline_attention_is_slower_and_moves_the_scores_through_hbm(trace):
    graph = Policy(launch="graph")
    flash = simulate(trace, H100, HOST, graph)
    baseline = simulate(trace, H100, HOST, dataclasses.replace(graph, attention="baseline"))
    assert baseline.breakdown["Attention"] > 1.5 * flash.breakdown["Attention"]
    assert baseline.totals["hbm_bytes"] > flash.totals["hbm_bytes"]
    assert baseline.peak_memory_bytes > flash.peak_memory_bytes


@pytest.mark.parametrize(
    "field", ["clock_hz", "hbm_bytes_per_s", "l2_bytes_per_s", "tensor_fp16_flops_per_cycle_sm", "sm_count"]
)
@pytest.mark.parametrize("launch", ["eager", "graph"])
@pytest.mark.parametrize("factor", [1.1, 2])
def test_a_better_device_is_never_slower(trace, field, launch, factor):
    value = getattr(H100, field)
    better = dataclasses.replace(H100, **{field: type(value)(value * factor)})
    policy = Policy(launch=launch)
    # cuDNN's choice of a tile is not always the fastest; it may change for another a little slower, or for a grid of several rounds,
    # before which the host launches a memset.
    assert simulate(trace, better, HOST, policy).latency_s <= simulate(
        trace, H100, HOST, policy
    ).latency_s * (1 + 2e-3)


def test_both_fidelities_agree_on_the_kernels_of_an_inference(result):
    """Every kernel of the trace that is small enough to simulate CTA by CTA in a test."""
    kernels = {id(interval.kernel): interval for interval in result.kernels if interval.kernel.grid <= 1500}
    assert len(kernels) > 200
    for interval in kernels.values():
        wave = execution_time_s(interval.kernel, H100, interval.hbm_bytes)
        cta = execution_time_s(interval.kernel, H100, interval.hbm_bytes, "cta")
        assert cta == pytest.approx(wave, rel=0.01), interval.kernel


def test_peak_memory_holds_the_weights_and_grows_with_the_image(result):
    weights = sum(result.trace.parameter_bytes.values())
    assert weights < result.peak_memory_bytes < 3 * weights
    assert simtti.run("sdxl", "h100-sxm", steps=1).peak_memory_bytes > result.peak_memory_bytes


def test_the_python_api_has_the_words_of_the_command_line():
    result = simtti.run("stable-diffusion", hw="h100-sxm", steps=3, attention="baseline", launch="graph")
    assert result.breakdown_table.share.sum() == pytest.approx(1)
    assert {"kernel", "duration_s", "flops", "hbm_bytes", "category"} <= set(result.intervals.columns)
    with pytest.raises(simtti.InputError, match="unknown workload"):
        simtti.run("stable-difusion", hw="h100-sxm")


@pytest.mark.parametrize("name", OF_EACH_BUILDER)
def test_the_events_equal_the_closed_form_where_nothing_overlaps(name):
    """Latency, energy, phases and breakdown of every workload; launches and hosts going round."""
    trace = workload_trace(name)
    number = sorted(ALL).index(name)
    launch, device = LAUNCH[number % len(LAUNCH)], ("h100-sxm", "a100-sxm", "l40s")[number % 4 % 3]
    options = {"launch": launch, "hw": device}
    events = simtti.run(trace, **options)
    closed = simtti.run(trace, fidelity="closed", **options)
    if name in WHOLE:
        runs_and_names_what_it_has_no_model_for(events)
    assert events.latency_s == pytest.approx(closed.latency_s, rel=1e-9)
    assert events.energy_j == pytest.approx(closed.energy_j, rel=1e-9)
    assert [p.latency_s for p in events.phases] == pytest.approx(
        [p.latency_s for p in closed.phases], rel=1e-9
    )
    assert events.breakdown == pytest.approx(closed.breakdown, rel=1e-9, abs=1e-9 * closed.latency_s)
    assert closed.outcome.events == 0
    assert events.outcome.events > 1000


def test_dependent_launch_hides_gaps_behind_tails_and_nothing_else(trace):
    graph = Policy(launch="graph")
    plain = simulate(trace, H100, HOST, graph)
    for fidelity in ("wave", "closed"):
        hidden = simulate(trace, H100, HOST, dataclasses.replace(graph, dependent_launch=True), fidelity)
        assert hidden.breakdown["Launch"] < 0.7 * plain.breakdown["Launch"]
        kernels_s = [r.latency_s - r.breakdown["Launch"] for r in (plain, hidden)]
        assert kernels_s[1] == pytest.approx(kernels_s[0], rel=1e-6)


def test_intervals_say_how_long_each_resource_was_busy(result):
    table = result.intervals
    for name in RESOURCES:
        assert (table[f"{name}_busy_s"] <= table.duration_s * (1 + 1e-6)).all(), name
    weighted = (table.tensor_busy_s * table.repeats).sum()
    assert result.busy["tensor"] == pytest.approx(weighted)
    assert result.utilisation["tensor_cores"] == pytest.approx(weighted / result.latency_s)
    assert 0 < result.busy["host"] < result.latency_s


def test_a_result_is_shown_in_a_few_lines(result):
    text = repr(result)
    assert len(text) < 500
    assert text.count("\n") <= 4
    assert "stable-diffusion-1.5 on h100-sxm" in text


def test_what_does_not_fit_says_what_would(trace, result):
    """A device with room for the weights and one and a half images of the activations."""
    held = result.memory.fixed_bytes + result.memory.context_bytes
    each = result.memory.device_bytes - held
    assert result.fits
    for room, batch in ((1.5, 1), (0.5, 0), (3.5, 3)):
        small = dataclasses.replace(H100, hbm_capacity_bytes=held + room * each)
        found = simulate(trace, small, HOST)
        assert found.largest_batch == batch
        assert found.fits == (room >= 1)


@pytest.mark.parametrize("launch", ["eager", "graph"])
@pytest.mark.parametrize("speed", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("fidelity", ["wave", "closed"])
def test_what_is_passed_over_takes_as_long_as_if_it_were_simulated(
    trace, monkeypatch, launch, speed, fidelity
):
    """With the host ahead, behind, and in between; the decoder comes after the steps passed over and sees the host's lead."""
    fields = {
        f.name: getattr(HOST, f.name) / speed for f in dataclasses.fields(HOST) if f.name.endswith("_s")
    }
    host = dataclasses.replace(HOST, **fields)
    few = trace.with_steps(12)
    fast = simulate(few, H100, host, Policy(launch=launch), fidelity)
    for engine in (in_one_go, processes):
        monkeypatch.setattr(engine, "steady", lambda ends: None)
    whole = simulate(few, H100, host, Policy(launch=launch), fidelity)
    assert len(fast.kernels) < len(whole.kernels)
    assert fast.latency_s == pytest.approx(whole.latency_s, rel=1e-9)
    assert fast.energy_j == pytest.approx(whole.energy_j, rel=1e-9)
    assert dict(fast.outcome.phase_ends_s) == pytest.approx(dict(whole.outcome.phase_ends_s), rel=1e-9)
    assert fast.breakdown == pytest.approx(whole.breakdown, rel=1e-6)
