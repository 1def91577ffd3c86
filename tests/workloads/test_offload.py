"""Offloading as a pass over a trace: what is copied and how often, when it is there, and what runs show of it."""

import dataclasses

import pandas as pd
import pytest
from small_traces import operator, small_trace, timed_trace, use

import simtti
from simtti.errors import InputError
from simtti.hw_configs.devices import load
from simtti.simulator.kernels.data_movement import offload_bytes_per_s
from simtti.workloads.offload import MODES, offloaded
from simtti.workloads.record import workload_trace
from simtti.workloads.trace import OFFLOAD, Phase, Step

SIDE, BLOCKS, STEPS = 4096, 6, 5
WEIGHT_BYTES = 2 * SIDE * SIDE
A100 = load("a100-sxm")


def layer(position, module, weight, x, out, phase="denoising", tokens=SIDE):
    """A product of bf16 numbers."""
    return operator(
        position,
        phase=phase,
        module=module,
        op="aten::mm",
        category="Linear",
        inputs=(
            use(x, (tokens, SIDE), dtype="bf16", storage_bytes=2 * tokens * SIDE),
            use(weight, (SIDE, SIDE), (1, SIDE), "bf16", WEIGHT_BYTES, "parameter"),
        ),
        outputs=(use(out, (tokens, SIDE), dtype="bf16", storage_bytes=2 * tokens * SIDE),),
        attributes={},
    )


def toy(*, own=False):
    """A text encoder of a layer, then steps of a transformer of blocks; own: which has a layer outside of them."""
    encoder = (layer(0, "text_encoder.layer", 1, 50, 51, "text_encoder"),)
    blocks = [
        layer(at, f"transformer.blocks.{at}.linear", 10 + at, 100 + at, 101 + at) for at in range(BLOCKS)
    ]
    if own:
        blocks.append(layer(BLOCKS, "transformer.proj_out", 40, 100 + BLOCKS, 101 + BLOCKS))
    scaled = operator(len(blocks), module="scheduler", inputs=(use(100 + len(blocks)),), outputs=(use(200),))
    return small_trace(
        phases=(
            Phase("text_encoder", (Step(1, encoder),)),
            Phase("denoising", (Step(STEPS, (*blocks, scaled)),)),
        ),
        parameter_bytes={
            "text_encoder": WEIGHT_BYTES + 1000,  # of which nothing reads the 1000
            "transformer": len(blocks) * WEIGHT_BYTES,
        },
        schedule={"denoising": 0},
        provenance={
            "kind": "recorded",
            "libraries": {"text_encoder": "transformers", "transformer": "diffusers"},
        },
    )


def copied_bytes(trace):
    """Bytes to the device and to the host, over the whole inference."""
    found = {"host_to_device": 0, "device_to_host": 0}
    for phase in trace.phases:
        for step in phase.steps:
            for one in step.operators:
                if one.category == OFFLOAD:
                    moved = sum(each.nbytes for each in (*one.inputs, *one.outputs))
                    found[one.attributes["transfer"]] += step.count * moved
    return found["host_to_device"], found["device_to_host"]


def run(trace, hw=A100, **options):
    return simtti.run(trace, hw, **{"fidelity": "closed", **options})


def with_link(bytes_per_s):
    return dataclasses.replace(A100, host_link_bytes_per_s=bytes_per_s)


@pytest.mark.parametrize(
    ("mode", "to_device", "to_host"),
    [
        ("model", (BLOCKS + 2) * WEIGHT_BYTES + 1000, (BLOCKS + 2) * WEIGHT_BYTES + 1000),
        ("sequential", (1 + STEPS * (BLOCKS + 1)) * WEIGHT_BYTES, 0),
        ("group", (1 + STEPS * (BLOCKS + 1)) * WEIGHT_BYTES, (1 + STEPS) * WEIGHT_BYTES),
    ],
)
def test_every_weight_is_copied_as_often_as_it_comes_and_goes(mode, to_device, to_host):
    assert copied_bytes(offloaded(toy(own=True), mode)) == (to_device, to_host)


@pytest.mark.parametrize("name", ["stable-diffusion-1.5", "sdxl", "kandinsky-2.2", "llama2-7b"])
def test_a_model_goes_to_the_device_once_and_back_once(name):
    trace = workload_trace(name)
    to_device, to_host = copied_bytes(offloaded(trace, "model"))
    weights = sum(trace.parameter_bytes.values())
    assert to_device == to_host
    assert weights <= to_device < 1.03 * weights, "buffers go with the weights"


@pytest.mark.parametrize("mode", MODES)
def test_what_the_model_does_stays_as_it_is(mode):
    before = workload_trace("stable-diffusion-1.5")
    after = offloaded(before, mode)
    for old, new in zip(before.phases, after.phases, strict=True):
        kept = [step for step in new.steps if not step.only_moves_weights]
        assert [step.count for step in kept] == [step.count for step in old.steps]
        for was, step in zip(old.steps, kept, strict=True):
            own = [one for one in step.operators if one.category != OFFLOAD]
            assert [(one.op, one.inputs, one.outputs) for one in own] == [
                (one.op, one.inputs, one.outputs) for one in was.operators
            ]
            assert [one.position for one in step.operators] == list(range(len(step.operators)))


@pytest.mark.parametrize("mode", ["sequential", "group"])
def test_weights_are_there_when_they_are_read(mode):
    trace = offloaded(workload_trace("sdxl"), mode)
    for phase in trace.phases:
        for step in phase.steps:
            there = set()
            for one in step.operators:
                if one.category == OFFLOAD:
                    there |= {each.tensor for each in one.outputs}
                else:
                    read = {each.tensor for each in one.inputs if each.role == "parameter"}
                    assert read <= there, (one.op, one.module)
                there -= set(one.released)


def test_one_component_at_a_time_is_on_the_device():
    trace = offloaded(workload_trace("flux-dev"), "model")
    held, most = {}, 0
    for one in trace.operators():
        if one.category == OFFLOAD:
            held |= {each.tensor: each.nbytes for each in one.outputs}
            for each in one.inputs:
                del held[each.tensor]
            most = max(most, sum(held.values()))
    assert not held, "the last goes back as well"
    transformer = workload_trace("flux-dev").parameter_bytes["transformer"]
    assert transformer <= most < 1.01 * transformer


@pytest.mark.parametrize("mode", ["model", "sequential", "group"])
def test_a_faster_link_never_takes_longer(mode):
    latencies = [
        run(toy(own=True), with_link(link), offload=mode, pinned=True).latency_s
        for link in (8e9, 3.2e10, 1.28e11)
    ]
    assert latencies[0] > latencies[1] > latencies[2]


@pytest.mark.parametrize("fidelity", ["closed", "wave"])
def test_blocks_come_for_nothing_over_a_link_without_end(fidelity):
    plain = run(toy(), fidelity=fidelity)
    group = run(toy(), with_link(1e14), offload="group", pinned=True, fidelity=fidelity)
    encoder_s = plain.phases[0].latency_s
    assert group.latency_s - group.phases[0].latency_s == pytest.approx(plain.latency_s - encoder_s, rel=0.03)


def test_copies_go_on_beside_the_computation():
    link = 3.2e10
    plain, group = run(toy()), run(toy(), with_link(link), offload="group")
    copies_s = BLOCKS * WEIGHT_BYTES / (link * A100.host_link.pinned_efficiency)
    step_s = group.phases[1].step_s
    assert copies_s > plain.phases[1].step_s, "else this says nothing"
    assert copies_s < step_s < copies_s + plain.phases[1].step_s
    assert {each.stream for each in group.kernels} == {0, 2}


def test_the_more_at_once_the_faster():
    """Of a transformer whose weights are in its blocks."""
    latency_s = {mode: run(toy(), offload=mode).latency_s for mode in ("none", "group", "sequential")}
    assert latency_s["none"] < latency_s["group"] < latency_s["sequential"]


def test_a_long_copy_takes_its_bytes_over_its_rate():
    result = run(offloaded(toy(), "sequential"))
    rate = offload_bytes_per_s(A100, to_device=True, pinned=False)
    assert (
        rate == A100.host_link.pageable_bytes_per_s < offload_bytes_per_s(A100, to_device=True, pinned=True)
    )
    copies = [each for each in result.kernels if each.kernel.copy_bytes]
    assert copies
    for each in copies:
        assert each.duration_s == pytest.approx(WEIGHT_BYTES / rate, rel=0.01)
    slow = offload_bytes_per_s(with_link(1e9), to_device=True, pinned=False)
    assert slow < 1e9, "the link binds pageable memory too"


def test_memory_holds_what_is_there():
    peaks = {
        mode: {phase.name: phase.allocated_bytes for phase in run(toy(own=True), offload=mode).memory.phases}
        for mode in MODES
    }
    at_once = {mode: found["denoising"] for mode, found in peaks.items()}
    assert at_once["none"] - at_once["model"] == pytest.approx(WEIGHT_BYTES, rel=0.01)
    assert at_once["model"] - at_once["sequential"] == pytest.approx(BLOCKS * WEIGHT_BYTES, rel=0.01)
    # the layer outside, a block, and the one that comes next
    assert at_once["group"] - at_once["sequential"] == pytest.approx(2 * WEIGHT_BYTES, rel=0.01)


def test_what_does_not_fit_fits_with_one_component_at_a_time():
    whole = run(workload_trace("flux-dev", steps=2), load("rtx-4090"))
    model = run(workload_trace("flux-dev", steps=2), load("rtx-4090"), offload="model")
    assert (whole.fits, model.fits) == (False, True)
    assert model.peak_memory_bytes < whole.peak_memory_bytes - 8 * 2**30
    assert model.largest_batch == 1
    assert [phase.steps for phase in model.phases] == [phase.steps for phase in whole.phases]
    assert model.sequence_lengths == whole.sequence_lengths
    # The text encoder is the fullest by weights, and leaves most of the device to a larger batch; the decoder does not.
    group = run(workload_trace("flux-dev", steps=2), load("rtx-4090"), offload="group")
    two = group.memory.growing_bytes * group.largest_batch + group.memory.fixed_bytes
    assert group.largest_batch < 15
    assert two < group.hardware.hbm_capacity_bytes


def test_copies_cost_the_energy_of_the_memory_that_they_write():
    plain, model = run(toy()), run(toy(), offload="model")
    copies = [one for each in model.repetitions for one in each.launches if one.kernel.copy_bytes]
    moved = sum(one.kernel.copy_bytes for one in copies)
    assert moved == sum(copied_bytes(offloaded(toy(), "model")))
    # L2 holds some of a weight that was read last.
    assert sum(one.energy.memory_j for one in copies) == pytest.approx(moved * A100.hbm_j_per_byte, rel=0.2)
    assert model.energy_j > plain.energy_j + A100.static_power_w * (model.latency_s - plain.latency_s)
    assert model.breakdown[OFFLOAD] == pytest.approx(model.latency_s - plain.latency_s, rel=0.05)


def test_quantised_weights_are_fewer_bytes():
    half = run(toy(), offload="sequential")
    eighth = run(toy(), load("h100-sxm"), offload="sequential", quantization="fp8-weight-only")
    moved = [
        sum(each.kernel.copy_bytes * times for each, times in one.weighted_kernels())
        for one in (half, eighth)
    ]
    assert moved[1] == pytest.approx(moved[0] / 2, rel=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"offload": "disk"}, "unknown offload 'disk'"),
        ({"pinned": True}, "pinned is True, but offload is 'none'"),
        ({"offload": "model", "gpus": 2}, "offload is 'model' and gpus 2"),
        ({"offload": "group", "launch": "compiled"}, "offload is 'group' and launch 'compiled'"),
        ({"offload": "model", "launch": "graph"}, "a CUDA graph needs its weights where they were"),
        ({"offload": "model", "hw": with_link(0.0)}, "give host_link_bytes_per_s in its datasheet"),
    ],
)
def test_what_cannot_be(options, message):
    with pytest.raises(InputError, match=message):
        run(toy(), **options)


def test_traces_that_cannot_be_offloaded():
    with pytest.raises(InputError, match="measured trace of tiny"):
        offloaded(timed_trace(), "model")
    with pytest.raises(InputError, match="does not say what its components are"):
        offloaded(small_trace(parameter_bytes={}), "model")


def test_a_compiled_denoiser_is_moved_as_a_whole():
    plain = run("sdxl-turbo", launch="compiled")
    model = run("sdxl-turbo", launch="compiled", offload="model")
    computing = [
        [each.kernel.name for each in result.kernels if not each.kernel.copy_bytes_per_s]
        for result in (plain, model)
    ]
    assert computing[0] == computing[1]
    assert model.latency_s - model.breakdown[OFFLOAD] > plain.latency_s


def test_a_sweep_has_columns_for_it(tmp_path):
    points = pd.DataFrame(
        {
            "workload": "stable-diffusion",
            "hw": "a100-sxm",
            "steps": 2,
            "offload": ["none", "model", "model", "disk"],
            "pinned": [None, None, True, None],
            "vae": ["sliced", None, None, None],
        }
    )
    table = simtti.sweep(points, tmp_path / "out.csv", workers=1)
    assert table.latency_s[0] < table.latency_s[2] < table.latency_s[1]
    assert table.peak_memory_bytes[1] < table.peak_memory_bytes[0]
    assert "unknown offload" in table.error[3]


def test_an_offloaded_trace_is_kept_as_any_other(tmp_path):
    trace = offloaded(toy(own=True), "group", pinned=False)
    trace.save(tmp_path / "toy.parquet")
    kept = simtti.Trace.load(tmp_path / "toy.parquet")
    assert kept == trace
    assert run(kept).latency_s == run(toy(own=True), offload="group", pinned=False).latency_s
