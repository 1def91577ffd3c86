"""Several GPUs: what each has is its share, nothing is lost, and what cannot be shared is refused."""

import dataclasses
import itertools
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simtti
from simtti.commands.terminal import print_result
from simtti.hw_configs.devices import load
from simtti.hw_configs.hosts import load_host
from simtti.simulator.closed_form import lone_execution_s
from simtti.simulator.engine import simulation
from simtti.simulator.engine.simulation import simulate
from simtti.simulator.kernels.family import Target
from simtti.simulator.lowering.registry import LOWERINGS
from simtti.simulator.policy import Policy
from simtti.simulator.several_gpus import degrees_of
from simtti.simulator.timeline import chrome_trace
from simtti.workloads.parallel.degrees import WHOLE, Degrees
from simtti.workloads.parallel.operands import ALL_GATHER, ALL_REDUCE, ALL_TO_ALL, SEND_RECEIVE
from simtti.workloads.parallel.sequence import is_shared
from simtti.workloads.parallel.shard import shard
from simtti.workloads.record import workload_trace

H100, HOST = load("h100-sxm"), load_host("default")
SHARED = ["pixart-sigma", "wan2.1-1.3b", "flux-dev", "sd3.5-large", "cogvideox-2b", "hunyuan-video"]


@pytest.fixture(scope="module")
def wan():
    return workload_trace("wan2.1-1.3b", steps=4)


def work(trace, phase, category):
    """FLOPs of the operators of a category in a phase's first step."""
    step = next(item for item in trace.phases if item.name == phase).steps[0]
    total = 0.0
    for op in step.operators:
        if op.category != category:
            continue
        if category == "Linear":
            a, b = op.inputs[-2:] if op.op != "aten::linear" else op.inputs[:2]
            total += 2.0 * a.numel * b.numel / a.shape[-1]
        elif op.attributes.get("kind") == "self":
            q, k = op.inputs[:2]
            total += 4.0 * q.numel * k.shape[-2]
    return total


@pytest.mark.parametrize("name", SHARED)
@pytest.mark.parametrize("degrees", [Degrees(2, 1), Degrees(1, 2), Degrees(2, 2)])
def test_shares_add_up_to_the_whole(name, degrees):
    """Products of the tokens' and attention's are divided; text that is not, and what is padded, is done by all."""
    trace = workload_trace(name, steps=2)
    share = shard(trace, degrees)
    phase = next(item.name for item in trace.phases if is_shared(item))
    for category in ("Linear", "Attention"):
        whole, all_of_it = work(trace, phase, category), degrees.gpus * work(share, phase, category)
        assert whole * (1 - 1e-9) <= all_of_it <= 1.25 * whole, category


def test_each_kind_of_parallelism_brings_its_exchanges(wan):
    def count(share, op):
        return sum(operator.op == op for operator in share.operators())

    attentions = sum(op.category == "Attention" and op.attributes.get("kind") == "self" for op in wan.operators()
                     if op.phase not in WHOLE)  # fmt: skip
    both = shard(wan, Degrees(2, 4))
    assert count(both, ALL_TO_ALL) == 4 * attentions
    assert count(both, SEND_RECEIVE) == 3 * attentions
    assert count(shard(wan, Degrees(1, 4)), ALL_TO_ALL) == 0
    assert count(shard(wan, Degrees(4, 1)), SEND_RECEIVE) == 0
    assert shard(wan, Degrees(1, 1)) is wan


def test_each_group_knows_how_many_gpus_exchange_at_once(wan):
    told = {
        op.attributes.get("gpus", op.attributes["ranks"])
        for op in shard(wan, Degrees(2, 2)).operators()
        if "ranks" in op.attributes
    }
    assert told == {4}


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.sampled_from([(2, 1), (1, 2), (4, 1), (2, 4)]))
def test_what_a_share_is_made_of_is_consistent(wan, degrees):
    """Every tensor lies within its storage, and what an elementwise operator reads fits what it writes."""
    for op in shard(wan, Degrees(*degrees)).operators():
        for use in (*op.inputs, *op.outputs):
            if use.numel:
                last = sum((size - 1) * stride for size, stride in zip(use.shape, use.strides, strict=True))
                assert last < max(use.storage_bytes, 1), (op, use)
        if op.category == "Elementwise" and op.outputs:
            rank = len(op.outputs[0].shape)
            for use in op.inputs:
                for seen, made in zip(
                    use.shape[::-1], op.outputs[0].shape[::-1][: len(use.shape)], strict=False
                ):
                    assert seen in (1, made) or len(use.shape) > rank, (
                        op.op,
                        op.module,
                        use.shape,
                        op.outputs[0].shape,
                    )


def test_the_text_and_the_vae_stay_whole(wan):
    share = shard(wan, Degrees(4, 1))
    for before, after in zip(wan.phases, share.phases, strict=True):
        assert (before.steps == after.steps) == (before.name in WHOLE), before.name


def test_more_gpus_are_faster_on_a_large_video_and_spend_more_energy():
    how = {"steps": 10, "fidelity": "closed"}
    one = simtti.run("wan2.1-1.3b", "h100-sxm", **how)
    assert one.several_gpus is None
    runs = [simtti.run("wan2.1-1.3b", "h100-sxm", gpus=n, ulysses=min(n, 4), **how) for n in (2, 4, 8)]
    times = [run.latency_s for run in runs]
    assert one.latency_s > times[0] > times[1] > times[2] > one.latency_s / 8
    energies = [run.figures()["energy_j"] for run in (one, *runs)]
    assert energies == sorted(energies)
    assert all(run.peak_memory_bytes < one.peak_memory_bytes for run in runs)
    for run, gpus in ((runs[0], 2), (runs[2], 8)):  # drawing takes seconds, and four are drawn as two are
        assert_is_the_job_on(gpus, run, one)


def assert_is_the_job_on(gpus, run, one, streams=None):
    """Text, JSON, figures and timeline all say what the job takes on the GPUs, with the communication in it."""
    many, written = run.several_gpus, run.to_dict()
    assert (many.gpus, many.one_gpu_s) == (gpus, one.latency_s)
    assert many.latency_s == run.latency_s == run.figures()["latency_s"] == written["latency_s"]
    assert many.energy_j == written["energy_j"] == run.figures()["energy_j"] > run.energy_j
    assert sum(run.breakdown.values()) == pytest.approx(run.latency_s)
    assert written["breakdown"] == run.breakdown
    assert many.communication_s == run.breakdown["Communication"] > 0
    assert sum(phase["latency_s"] for phase in written["phases"]) == pytest.approx(run.latency_s)
    events = json.loads(chrome_trace(run))["traceEvents"]
    sent = [event for event in events if event.get("args", {}).get("category") == "Communication"]
    assert sent
    assert all(event["args"]["link_bytes"] > 0 for event in sent)
    assert max(event["ts"] + event.get("dur", 0) for event in events) == pytest.approx(
        run.latency_s * 1e6, rel=1e-3
    )
    overlapped = gpus > 4
    of_one = {event["tid"] for event in sent if event["pid"] == 0}
    assert len(of_one) == (streams or 1 + overlapped)
    drawn = {event["pid"] for event in events if event.get("name") == "process_name"}
    assert {pid for pid in drawn if pid < gpus} == set(range(gpus))


def test_the_terminal_speaks_of_all_gpus(capsys):
    run = simtti.run("pixart-sigma", "h100-sxm", steps=2, gpus=2, fidelity="closed")
    print_result(run)
    text = " ".join(capsys.readouterr().out.split())
    assert "pixart-sigma on 2 h100-sxm" in text
    assert f"{run.several_gpus.energy_j:,.0f} J" in text
    assert "Communication" in text
    assert "Of 2 GPUs (ulysses 2, ring 1) this is one" in text


def test_measured_kernels_are_those_of_one_gpu():
    with pytest.raises(simtti.InputError, match="gpus is 2, but measured kernels are those of one GPU"):
        simtti.run("flux-dev", "h200-sxm", gpus=2, timing="hybrid")


# A ring overlaps: each exchange is simulated beside a kernel, which takes Wan ten seconds.
@pytest.mark.parametrize(
    ("name", "degrees"), [("wan2.1-1.3b", Degrees(4, 1)), ("pixart-sigma", Degrees(1, 4))]
)
def test_a_faster_link_is_no_slower_and_matters(name, degrees):
    share = shard(workload_trace(name, steps=4), degrees)
    for fidelity, rates in (("closed", (5e9, 5e10, 4.5e11, math.inf)), ("wave", (5e9, math.inf))):
        times = [
            simulate(
                share, dataclasses.replace(H100, link_bytes_per_s=rate), HOST, Policy(), fidelity
            ).latency_s
            for rate in rates
        ]
        # What arrives sooner may find other kernels on the device: contention may cost what the link saves.
        for slower, faster in itertools.pairwise(times):
            assert faster <= slower * (1 if fidelity == "closed" else 1.001)
        assert times[0] > 1.5 * times[-1]


def test_an_exchange_takes_the_bytes_that_leave_over_the_link(wan):
    result = simulate(shard(wan, Degrees(4, 1)), H100, HOST, Policy())
    exchange = next(item for item in result.kernels if item.kernel.family == "communication")
    nbytes = exchange.kernel.reads[0].nbytes
    assert exchange.kernel.link_bytes == pytest.approx(nbytes * 3 / 4)
    assert exchange.duration_s >= exchange.kernel.link_bytes / H100.link_bytes_per_s


@pytest.mark.parametrize("ulysses", [5, 8])
def test_heads_that_do_not_divide_cost_what_the_busiest_gpu_has(wan, ulysses):
    """12 heads on 5 or 8 GPUs: 3 or 2 on the busiest, of all tokens."""
    own = math.ceil(12 / ulysses)
    share = shard(wan, Degrees(ulysses, 1))
    step = next(phase for phase in share.phases if phase.name == "denoising").steps[0]
    attentions = [
        op for op in step.operators if op.category == "Attention" and op.attributes["kind"] == "self"
    ]
    assert {op.inputs[0].shape[1] for op in attentions} == {own}
    tokens = math.ceil(32760 / ulysses)
    there, back = ([op for op in step.operators if op.op == ALL_TO_ALL][at] for at in (0, 3))
    assert (there.inputs[0].numel, there.outputs[0].numel) == (
        12 * 128 * tokens,
        own * 128 * tokens * ulysses,
    )
    assert (back.inputs[0].numel, back.outputs[0].numel) == (there.outputs[0].numel, there.inputs[0].numel)
    (kernel,) = LOWERINGS[ALL_TO_ALL](there, Target(H100, Policy(launch="graph")))
    assert kernel.link_bytes == pytest.approx(there.outputs[0].nbytes * (ulysses - 1) / ulysses)


def test_tokens_heads_weights_and_halves_are_shared_at_once(wan):
    """Sixteen GPUs, in four ways at once: attention's work is a sixteenth, and each exchange is among its own ranks."""
    degrees = Degrees(ulysses=2, ring=2, cfg=2, tensor=2)
    share = shard(wan, degrees)
    step = next(phase for phase in share.phases if phase.name == "denoising").steps[0]
    whole = next(phase for phase in wan.phases if phase.name == "denoising").steps[0]

    def attention(step):
        return sum(op.inputs[0].numel * op.inputs[1].shape[-2] for op in step.operators
                   if op.category == "Attention" and op.attributes["kind"] == "self")  # fmt: skip

    assert degrees.gpus == 16
    assert 16 * attention(step) == pytest.approx(attention(whole), rel=1e-3)
    ranks = {op.op: op.attributes["ranks"] for op in step.operators if op.category == "Communication"}
    # A send's are all GPUs, which share what connects them.
    assert ranks == {ALL_TO_ALL: 2, SEND_RECEIVE: 16, ALL_REDUCE: 2, ALL_GATHER: 2}


@pytest.mark.parametrize(
    ("workload", "options"),
    [
        ("stable-diffusion-1.5", {"gpus": 2, "cfg_parallel": 2}),
        ("pixart-sigma", {"gpus": 4, "cfg_parallel": 2}),
        ("pixart-sigma", {"gpus": 2, "tensor": 2}),
        ("pixart-sigma", {"gpus": 5}),
    ],
)
def test_each_kind_is_the_job_on_its_gpus(workload, options):
    alone = simtti.run(workload, "h100-sxm", steps=4, launch="graph", fidelity="closed")
    run = simtti.run(workload, "h100-sxm", steps=4, launch="graph", fidelity="closed", **options)
    assert_is_the_job_on(options["gpus"], run, alone, streams=1)
    assert run.latency_s < alone.latency_s
    assert run.several_gpus.cfg_parallel == options.get("cfg_parallel", 1)
    assert run.several_gpus.tensor == options.get("tensor", 1)
    assert not any(op.startswith("c10d") for op in run.unlowered)


def test_tensor_parallelism_takes_weights_off_a_gpu_and_quantising_more():
    def weights(**options):
        run = simtti.run("pixart-sigma", "h100-sxm", steps=2, fidelity="closed", **options)
        return run.memory.fixed_bytes

    alone, shared, both = weights(), weights(gpus=2, tensor=2), weights(gpus=2, tensor=2, quantization="fp8")
    transformer = workload_trace("pixart-sigma").parameter_bytes["transformer"]
    assert 0.4 * transformer < alone - shared < 0.5 * transformer
    assert 0.2 * transformer < shared - both < 0.26 * transformer


@pytest.mark.parametrize(
    ("workload", "device", "options", "message"),
    [
        ("wan2.1-1.3b", "h100-sxm", {"gpus": 4, "ulysses": 3, "ring": 1}, "must be gpus, 4"),
        ("wan2.1-1.3b", "h100-sxm", {"gpus": 16}, "12 attention heads on a GPU, fewer than ulysses 16"),
        ("wan2.1-1.3b", "h100-sxm", {"cfg_parallel": 2}, "cfg-parallel 2 times ulysses 1 times ring 1 is 2; it must be gpus, 1"),
        ("wan2.1-1.3b", "h100-sxm", {"gpus": 3, "cfg_parallel": 3}, "cfg-parallel is 3; guidance has 2 halves: give 1 or 2"),
        ("wan2.1-1.3b", "h100-sxm", {"gpus": 6, "tensor": 4}, "tensor 4 times ulysses 1 times ring 1 is 4; it must be gpus, 6"),
        ("wan2.1-1.3b", "h100-sxm", {"gpus": 2, "tensor": -2}, "it must be gpus, 2"),
        ("wan2.1-1.3b", "rtx-4090", {"gpus": 2}, "has no link between GPUs"),
        ("stable-diffusion-1.5", "h100-sxm", {"gpus": 2}, "only the tokens of a transformer can be shared"),
        ("flux-dev", "h100-sxm", {"gpus": 2, "cfg_parallel": 2}, "no step that denoises with the prompt and without it"),
        ("parti", "h100-sxm", {"gpus": 2}, "has no phase of several steps"),
    ],
)  # fmt: skip
def test_what_cannot_be_shared_is_refused(workload, device, options, message):
    with pytest.raises(simtti.InputError, match=message):
        simtti.run(workload, device, **options)


def test_degrees_follow_from_each_other():
    assert degrees_of(8, None, None, H100) == Degrees(8, 1)
    assert degrees_of(8, 2, None, H100) == Degrees(2, 4)
    assert degrees_of(8, None, 2, H100) == Degrees(4, 2)
    assert degrees_of(8, None, None, H100, cfg_parallel=2) == Degrees(4, 1, 2)
    assert degrees_of(8, None, 2, H100, cfg_parallel=2, tensor=2) == Degrees(1, 2, 2, 2)


@pytest.mark.parametrize("fidelity", ["closed", "wave", "cta"])
def test_a_share_is_simulated_in_the_fidelity_that_was_asked_for(wan, fidelity, monkeypatch):
    """Its kernels, but for those that cost a test too much CTA by CTA."""
    asked = []

    def alone_s(kernel, hardware, hbm_bytes, fidelity):
        asked.append(fidelity)
        return lone_execution_s(kernel, hardware, hbm_bytes)

    monkeypatch.setattr(simulation, "execution_time_s", alone_s)
    result = simtti.run(wan, "h100-sxm", gpus=2, fidelity=fidelity)
    assert result.fidelity == fidelity
    assert result.several_gpus.gpus == 2
    assert set(asked) == ({fidelity} if fidelity != "closed" else set())


@pytest.mark.parametrize("options", [{}, {"pipefusion_patches": 2}])
def test_a_pipeline_takes_its_work_and_its_bubbles(options):
    """Over links without end: a fourth of the blocks for each patch, the warm-up stage by stage, the pipeline's filling, and with few
    patches the way of each through all stages."""
    device = dataclasses.replace(H100, link_bytes_per_s=math.inf)
    how = {"steps": 12, "launch": "graph", "fidelity": "closed"}
    alone = simtti.run("pixart-sigma", device, **how)
    run = simtti.run("pixart-sigma", device, gpus=4, pipefusion=4, **how, **options)
    patches = options.get("pipefusion_patches", 4)
    communication_s = run.breakdown_by_phase["denoising"]["Communication"]
    patch_s = (run.stages["denoising_s"] - communication_s - alone.step_s / 4) / (11 * patches)
    assert patch_s > alone.step_s / (4 * patches)
    bubbles_s = 3 / 4 * alone.step_s + 3 * patch_s + 11 * max(4 - patches, 0) * patch_s
    assert communication_s == pytest.approx(bubbles_s, rel=0.05, abs=1e-3)
    assert {phase.name: phase.steps for phase in run.phases}["denoising"] == 12
    # A gap between two kernels beside which a send goes on counts as both.
    assert sum(run.breakdown.values()) == pytest.approx(run.latency_s, rel=1e-3)
    if patches == 4:
        assert alone.stages["denoising_s"] / 4 < run.stages["denoising_s"] < alone.stages["denoising_s"] / 2
        slow = dataclasses.replace(H100, link_bytes_per_s=1e9)
        assert simtti.run("pixart-sigma", slow, gpus=4, pipefusion=4, **how).latency_s > 1.3 * run.latency_s


def test_a_pipelines_weights_fall():
    how = {"steps": 2, "fidelity": "closed"}
    alone = simtti.run("pixart-sigma", "h100-sxm", **how).memory.fixed_bytes
    shared = simtti.run("pixart-sigma", "h100-sxm", gpus=2, pipefusion=2, **how)
    transformer = workload_trace("pixart-sigma").parameter_bytes["transformer"]
    kept = 14 * 2 * 2 * 4096 * 1152 * 2  # blocks, keys and values, halves of guidance, tokens, width, bytes
    assert 0.4 * transformer < alone + kept - shared.memory.fixed_bytes < 0.5 * transformer
    assert shared.several_gpus.degrees == "pipefusion 2"


def test_a_pipelines_sends_and_waits_are_events_and_in_the_breakdown():
    run = simtti.run(
        "pixart-sigma", "h100-sxm", steps=3, gpus=2, pipefusion=2, parallel_vae=True, fidelity="closed"
    )
    written = run.to_dict()
    assert sum(run.breakdown.values()) == pytest.approx(run.latency_s)
    assert (
        written["several_gpus"] | {"pipefusion": 2, "pipefusion_patches": 2, "parallel_vae": True}
        == written["several_gpus"]
    )
    events = [event for event in json.loads(chrome_trace(run))["traceEvents"] if "args" in event]
    sent = [event["args"] for event in events if event["args"].get("category") == "Communication"]
    moved = [event["link_bytes"] for event in sent]
    assert max(moved) == 2 * 4096 * 1152 * 2  # the image of both halves of guidance, in the warm-up
    assert moved.count(0.0) >= 2  # what it waits for in the warm-up and as the pipeline fills
    assert not any(op.startswith("c10d") for op in run.unlowered)
