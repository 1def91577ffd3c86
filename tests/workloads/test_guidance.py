"""Guidance at every step, at none, in some, in one batch or in turn."""

from functools import cache

import pytest
from recorded_traces import denoising, shipped

import simtti
from simtti.errors import InputError
from simtti.workloads.flops import flops
from simtti.workloads.guidance import form_of, guided_trace, in_turn, within
from simtti.workloads.rewriting import made_within


@cache
def pair():
    """Stable Diffusion 1.5's builder with a UNet of two levels, with guidance and without."""
    pytest.importorskip("torch")
    from tiny_workloads import stable

    from simtti.workloads.catalogue import find
    from simtti.workloads.record import recorded

    found = []
    for guidance in (7.5, 1.0):
        options = find("stable-diffusion-1.5").options(height=64, width=64, guidance=guidance)
        with pytest.MonkeyPatch.context() as patch:
            found.append(
                recorded(
                    lambda asked, recording, patch=patch: stable(patch, asked, recording), options,
                    what="a toy", name="toy", options=options.given(),
                )
            )  # fmt: skip
    return tuple(found)


def work(operators):
    return sum(flops(one) for one in operators)


def weights(operators):
    return {use.tensor for one in operators for use in one.inputs if use.role == "parameter"}


def unet(operators):
    return [one for one in operators if one.module.startswith("unet")]


def test_a_batch_of_two_is_told_from_two_passes_and_from_one_image():
    guided, unguided = pair()
    assert form_of(guided, unguided) == "batched"
    assert form_of(in_turn(guided, unguided), unguided) == "in-turn"
    assert form_of(unguided, unguided) == "embedded"


def test_in_turn_the_denoiser_does_the_same_work_in_two_passes():
    guided, unguided = pair()
    step, one = denoising(in_turn(guided, unguided)), denoising(unguided)
    assert step.count == denoising(guided).count
    assert work(step.operators) == 2 * work(one.operators)
    ours, theirs = unet(step.operators), unet(one.operators)
    assert len(ours) == 2 * len(theirs)
    half = len(ours) // 2
    assert [use.shape for use in ours[half].inputs] == [use.shape for use in ours[0].inputs]
    assert weights(ours[:half]) == weights(ours[half:]) == weights(unet(denoising(guided).operators))
    assert not made_within(ours[:half]) & made_within(ours[half:])


def test_the_two_predictions_are_combined_before_the_sampler():
    step = denoising(in_turn(*pair())).operators
    end = max(at for at, one in enumerate(step) if one.module.startswith("unet")) + 1
    sub, mul, add = step[end : end + 3]
    assert [one.op for one in (sub, mul, add)] == ["aten::sub", "aten::mul", "aten::add"]
    assert sub.inputs[0].tensor != sub.inputs[1].tensor
    assert {use.tensor for use in sub.inputs} <= made_within(step[:end])
    scheduler = [use.tensor for one in step[end + 3 :] for use in one.inputs]
    assert add.outputs[0].tensor in scheduler


@pytest.mark.parametrize(
    ("begin", "end", "steps"), [(0.2, 0.8, 30), (0.0, 0.5, 26), (0.9, 1.0, 5), (0.0, 1.0, 51)]
)
def test_guided_in_an_interval_of_the_steps(begin, end, steps):
    """51 evaluations of the denoiser for 50 steps."""
    guided, unguided = pair()
    found = within(guided, unguided, begin, end, "interval")
    phase = next(phase for phase in found.phases if phase.name == "denoising")
    assert sum(step.count for step in phase.steps) == 51
    works = {work(denoising(guided).operators): "guided", work(denoising(unguided).operators): "unguided"}
    counts = {works[work(step.operators)]: step.count for step in phase.steps}
    assert counts == {name: count for name, count in (("guided", steps), ("unguided", 51 - steps)) if count}


def test_steps_of_both_kinds_have_the_same_weights_and_hand_on_the_same_latents():
    guided, unguided = pair()
    found = within(guided, unguided, 0.2, 0.8, "interval")
    first, second = next(phase for phase in found.phases if phase.name == "denoising").steps
    assert weights(first.operators) == weights(second.operators)
    decoder = {
        use.tensor for phase in found.phases if phase.name == "decoder" for one in phase.steps[0].operators
        for use in one.inputs if use.role != "parameter"
    }  # fmt: skip
    handed = decoder & made_within(first.operators)
    assert handed
    assert handed == decoder & made_within(second.operators)


def test_latency_lies_between_none_and_all_and_memory_is_not_doubled():
    guided, unguided = pair()
    some = [
        simtti.run(within(guided, unguided, 0.0, share, "interval"), "t4", fidelity="closed", launch="graph")
        for share in (0.25, 0.5, 0.75)
    ]
    none, every = (simtti.run(trace, "t4", fidelity="closed", launch="graph") for trace in (unguided, guided))
    latencies = [result.latency_s for result in (none, *some, every)]
    assert latencies == sorted(latencies)
    assert some[1].peak_memory_bytes < 1.02 * every.peak_memory_bytes
    turns = simtti.run(in_turn(guided, unguided), "t4", fidelity="closed", launch="graph")
    assert turns.latency_s > every.latency_s


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("of", "unknown guidance 'of'; did you mean 'off'"),
        ("interval:0.8-0.2", "the smaller first, as interval:0.2-0.8"),
        ("interval:a-b", "shares of the steps"),
        ("interval:0-2", "from 0 to 1"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_recorded(given, message):
    with pytest.raises(InputError, match=message):
        guided_trace("sdxl", given)


def test_a_workload_without_guidance_and_a_trace_are_refused():
    with pytest.raises(InputError, match="llama2-7b runs without guidance"):
        guided_trace("llama2-7b", "off")
    with pytest.raises(InputError, match="--guidance cannot change a recorded trace"):
        simtti.run(shipped("sdxl"), "h100-sxm", guidance="off")
    with pytest.raises(InputError, match="guidance is 'off'; measured kernels"):
        simtti.run("stable-diffusion", "h200-sxm", guidance="off", timing="measured")


def test_on_is_the_workload_as_it_ships():
    assert guided_trace("sdxl", "on").options == shipped("sdxl").options


def test_an_interval_without_a_step_is_refused():
    with pytest.raises(InputError, match="none of 51 steps is in it"):
        within(*pair(), 0.001, 0.002, "interval:0.001-0.002")
