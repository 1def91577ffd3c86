"""Models too large to build in a test: what their shipped traces hold, and where two experts take turns."""

import copy

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


def test_sana_for_4096_pixels_decodes_overlapping_tiles_and_norms_no_queries():
    """Tiles of 32 x 32 latents every 28 of 128: 5 x 5, the last of a side 16 wide. In a block one normalisation less for each of
    queries and keys than SANA 1.5 has, in both attentions."""
    decoder = next(phase for phase in shipped("sana-1.6b-4k").phases if phase.name == "decoder")
    tiles = [
        (step.count, op.inputs[0].shape[-2:])
        for step in decoder.steps
        for op in step.operators
        if op.module == "vae.decoder.conv_in" and op.category == "Convolution"
    ]
    assert tiles == [(16, (32, 32)), (4, (32, 16)), (4, (16, 32)), (1, (16, 16))]

    def norms(name):
        operators = denoising(shipped(name)).operators
        return {op.module.rpartition(".")[2] for op in operators if "transformer_blocks.0." in op.module}

    assert norms("sana-1.6b") - norms("sana-1.6b-4k") == {"norm_q", "norm_k"}


def test_a_scheduler_that_is_copied_counts_its_own_steps():
    """As LTX-2's pipeline does, for what is heard beside what is seen."""
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    from simtti.workloads.models.pipelines.diffusers_run import Run
    from simtti.workloads.recorder import Recorder

    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    Run(Recorder(), WORKLOADS["ltx-2"].defaults)._steer_scheduler(scheduler)
    other = copy.deepcopy(scheduler)
    for each in (scheduler, other):
        each.set_timesteps(40)
    other.step(torch.zeros(1), other.timesteps[0], torch.zeros(1))
    assert (scheduler.step_index, other.step_index) == (None, 1)


def test_experts_of_a_mixture_share_the_tokens():
    """Two of four for each: of two samples' image tokens in double blocks, of all in single ones; the host asks how many in each."""
    operators = denoising(shipped("hidream-i1-full")).operators
    tokens = {"double": 2 * 4096, "single": 2 * (4096 + 256 + 128)}
    for kind, count in tokens.items():
        experts = [
            op
            for op in operators
            if op.module.startswith(f"transformer.{kind}")
            and ".experts." in op.module
            and op.category == "Linear"
        ]
        assert {op.inputs[-2].shape for op in experts if op.module.endswith("w1")} <= {
            (count // 2, 2560),
            (2560, 6912),
        }
        assert len({op.module for op in experts}) == 4 * 3 * {"double": 16, "single": 32}[kind]
    asked = [op for op in operators if op.attributes.get("transfer") == "device_to_host"]
    assert [op.inputs[0].shape for op in asked] == [(4,)] * 48


def test_a_stored_step_stands_for_those_of_all_chunks():
    trace = record.workload_trace("helios-14b", steps=10)
    assert denoising(shipped("helios-14b")).count == 4 * 50
    assert denoising(trace).count == 4 * 10
    with pytest.raises(InputError, match="counts 40 evaluations in phase denoising for 10 steps"):
        trace.with_steps(20)


@pytest.mark.parametrize("frames", [107, 125, 362])
def test_a_length_that_minimax_h3_would_round_is_refused(frames):
    pytest.importorskip("diffusers")
    with pytest.raises(InputError, match=r"minimax-h3 takes 17 n \+ 5 of them, 124 to 345"):
        record.record("minimax-h3", frames=frames)


def test_tokens_of_an_image_are_decoded_one_by_one():
    """The first of 576 comes from the prompt's pass; each reads the cache as far as it is full."""
    trace = shipped("janus-pro-7b")
    steps = next(phase.steps for phase in trace.phases if phase.name == "decode")
    assert sum(step.count for step in steps) == 575
    width, mlp, layers = 4096, 11008, 30
    for step in steps:
        attended = attention(step.operators)
        (keys,) = {op.inputs[1].shape for op in attended}
        assert len(attended) == layers
        assert keys[:2] == (2, 32), "two streams are one batch"
        weights = layers * (4 * width**2 + 3 * width * mlp) + width**2 + width * 16384
        by_hand = 2 * (2 * weights + layers * 4 * keys[2] * width)
        # What takes a token in again is done once for each stream.
        by_hand += 2 * 2 * (8 * width + width**2)
        assert sum(map(flops, step.operators)) == pytest.approx(by_hand, rel=1e-3)
    # Of 64 tokens the one in the middle.
    assert attention(steps[0].operators)[0].inputs[1].shape[2] == 40 + 32


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
        # A chunk, two frames, two in patches of twice the side, 16 in patches of four times: in time as well.
        ("helios-14b", {9 * 960 + 2 * 960 + 240 + 4 * 60}),
        ("hidream-i1-full", {4096 + 128 + 2 * 128}),
        # 121 frames are five seconds, of 25 tokens of sound.
        ("ltx-2", {16 * 16 * 24, 126}),
        ("ltx-2.3", {16 * 16 * 24, 126}),
        # 207 frames of sound on two channels, 37 latent frames.
        ("minimax-h3", {32 + 2 * 207 + 37 * 24 * 42}),
        ("krea-2-turbo", {4096 + 512, 512}),
        # Four layers, the image that they make and the one that was given, of 640 pixels a side.
        ("qwen-image-layered", {6 * 1600 + 32}),
        ("ernie-image", {4096 + 32}),
        ("flux.2-klein-9b", {4096 + 512}),
        ("kandinsky-5-image-lite", {4096, 32}),
        ("kandinsky-5-video-pro", {31 * 32 * 48, 32}),
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
        # Two samples. Of a token four squares, two of four experts and a smaller one that all share; the text of double blocks has an
        # MLP like one expert.
        (
            "hidream-i1-full",
            2 * (16 * 4096 + 32 * 4480) * 2 * (4 * 2560**2 + 2 * 3 * 2560 * 6912 + 3 * 2560 * 3584)
            + 2 * 16 * 384 * 2 * (4 * 2560**2 + 3 * 2560 * 6912)
            + 2 * attended(48, 4480, 2560),
        ),
        # Two samples; a block's video has self- and cross-attention of four squares each and an MLP of eight; to sound it asks with half
        # of its width and is asked with all.
        (
            "ltx-2",
            2
            * 48
            * (
                6144 * 2 * (6 * 4096**2 + 8 * 4096**2 + 2 * 4096 * 2048 + 2 * 4096 * 2048)
                + 1024 * 2 * 2 * (4096**2 + 2048**2)
                + 126 * 2 * (14 * 2048**2 + 4 * 2048**2)
                + 4 * 6144 * 1024 * 4096
                + 4 * 126 * 1024 * 2048
                + 2 * 4 * 6144 * 126 * 2048
            )
            + 2 * attended(48, 6144, 4096)
            + 2 * attended(48, 126, 2048),
        ),
        # 56 heads of 128 are wider than the model; a gated MLP of 8/3.
        (
            "minimax-h3",
            50 * 37742 * 2 * (4 * 5376 * 7168 + 3 * 5376 * 14336) + attended(50, 37742, 7168),
        ),
        # Five squares, two of them, keys and values, of a quarter of the heads, and what gates attention; four blocks that fuse text, two
        # over 12 layers of each token.
        (
            "krea-2-turbo",
            28 * 4608 * 2 * (3.5 * 6144**2 + 3 * 6144 * 16384)
            + attended(28, 4608, 6144)
            + 2 * 512 * 13 * 2 * (5 * 2560**2 + 3 * 2560 * 6912),
        ),
        # Two samples in a batch; a gated MLP of three widths.
        (
            "ernie-image",
            2 * 36 * 4128 * 2 * 13 * 4096**2 + 2 * attended(36, 4128, 4096),
        ),
        ("flux.2-klein-9b", 32 * 4608 * 2 * 13 * 4096**2 + attended(32, 4608, 4096)),
        # The image's tokens alone, which read the keys of 40 of text too.
        ("qwen-image-2.1", 32 * 4096 * 2 * 13 * 4096**2 + 32 * 4 * 4096 * 4136 * 4096),
        # Two calls; 12 squares a token and stream.
        (
            "qwen-image-layered",
            2 * (60 * 9632 * 2 * 12 * 3072**2 + attended(60, 9632, 3072)),
        ),
        # Two calls; self-attention, queries and outputs of cross-attention, an MLP of eight squares.
        (
            "kandinsky-5-image-lite",
            2 * (50 * 4096 * 2 * 14 * 2560**2 + attended(50, 4096, 2560) + 50 * 4 * 4096 * 32 * 2560),
        ),
        (
            "kandinsky-5-video-pro",
            2 * (60 * 47616 * 2 * 14 * 4096**2 + attended(60, 47616, 4096) + 60 * 4 * 47616 * 32 * 4096),
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
