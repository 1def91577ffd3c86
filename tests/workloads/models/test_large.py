"""Models too large to build in a test: what their shipped traces hold, and where two experts take turns."""

import pytest
from recorded_traces import LARGE, denoising, shipped

from simtti.errors import InputError
from simtti.workloads import record
from simtti.workloads.catalogue import WORKLOADS
from simtti.workloads.flops import flops


def attention(operators):
    return [op for op in operators if op.category == "Attention"]


def test_the_weights_of_large_models_are_the_catalogues():
    """Of those that no test builds in full: as they were when their shipped traces were recorded."""
    for name in LARGE:
        assert shipped(name).parameters == dict(WORKLOADS[name].parameters), name
        assert record.shipped(WORKLOADS[name]).stat().st_size < 450_000


@pytest.mark.parametrize("name", ["wan2.2-t2v-a14b", "wan2.2-i2v-a14b"])
@pytest.mark.parametrize("steps", [2, 4, 20, 40, 50])
def test_experts_take_turns_where_the_sampler_crosses_the_boundary(name, steps):
    diffusers = pytest.importorskip("diffusers")
    from simtti.workloads.models import wan

    scheduler = diffusers.UniPCMultistepScheduler(**wan.SCHEDULER)
    scheduler.set_timesteps(steps)
    boundary = {"wan2.2-t2v-a14b": 875, "wan2.2-i2v-a14b": 900}[name]
    above = int((scheduler.timesteps >= boundary).sum())
    assert WORKLOADS[name].turns(steps) == (above, steps - above)


def test_experts_are_two_steps_with_other_weights():
    trace = record.workload_trace("wan2.2-t2v-a14b", steps=20)
    (steps,) = (phase.steps for phase in trace.phases if phase.name == "denoising")
    assert [step.count for step in steps] == [7, 13]
    used = [{op.module.partition(".")[0] for op in step.operators} for step in steps]
    assert ["transformer" in names for names in used] == [True, False]
    assert ["transformer_2" in names for names in used] == [False, True]
    assert sum(map(flops, steps[0].operators)) == sum(map(flops, steps[1].operators))
    one = record.workload_trace("wan2.2-t2v-a14b", steps=1)
    assert [len(phase.steps) for phase in one.phases if phase.name == "denoising"] == [1]
    with pytest.raises(InputError, match="stores 2 steps one by one in phase denoising"):
        trace.with_steps(10)


@pytest.mark.parametrize(
    ("name", "lengths"),
    [
        # What the pipeline keeps of a prompt, padded to a multiple of 32; the rest of its 512 tokens only passes the encoder.
        ("z-image-turbo", {4096 + 32, 4096, 32}),
        ("qwen-image", {4096 + 32}),
        ("qwen-image-edit", {2 * 4096 + 196 + 6 + 32}),
        ("flux-schnell", {4096 + 256}),
        ("flux-kontext-dev", {2 * 4096 + 512}),
        ("flux.2-dev", {4096 + 512}),
        ("wan2.2-ti2v-5b", {31 * 22 * 40}),
        ("hunyuan-video-1.5", {31 * 30 * 52 + 1000 + 256 + 729, 1000}),
        ("ltx-video", {21 * 16 * 22}),
    ],
)
def test_what_attends_to_itself(name, lengths):
    operators = attention(denoising(shipped(name)).operators)
    assert {op.inputs[0].shape[-2] for op in operators if op.attributes["kind"] != "cross"} - {0} >= lengths
    assert max(op.inputs[1].shape[-2] for op in operators) == max(lengths)


def attended(blocks, tokens, width):
    """FLOPs of so many blocks' attention: two for a score of a pair of tokens, two for its value, in each channel."""
    return blocks * 4 * tokens**2 * width


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        # 19 double blocks, whose streams have weights of their own, and 38 single ones: 12 squares of the width a token.
        ("flux-schnell", 57 * 4352 * 2 * 12 * 3072**2 + attended(57, 4352, 3072)),
        # Four squares, and a gated MLP of 8/3; two blocks see the image only, two the text.
        (
            "z-image-turbo",
            (30 * 4128 + 2 * 4096 + 2 * 32) * 2 * (4 * 3840**2 + 3 * 3840 * 10240)
            + attended(30, 4128, 3840)
            + attended(2, 4096, 3840),
        ),
        # Two samples; 12 squares a token and stream.
        (
            "cogvideox-5b",
            2 * 42 * (13 * 30 * 45 + 226) * 2 * 12 * 3072**2 + 2 * attended(42, 13 * 30 * 45 + 226, 3072),
        ),
        # Two calls; cross-attention's queries and outputs, and keys and values of 512 text tokens.
        (
            "wan2.2-t2v-a14b",
            2
            * (
                40 * 75600 * 2 * (6 * 5120**2 + 2 * 5120 * 13824)
                + 40 * 512 * 2 * 2 * 5120**2
                + attended(40, 75600, 5120)
                + 40 * 4 * 75600 * 512 * 5120
            ),
        ),
    ],
)
def test_a_step_has_the_flops_of_its_weights_and_tokens(name, by_hand):
    assert sum(map(flops, denoising(shipped(name)).operators)) == pytest.approx(by_hand, rel=0.01)
