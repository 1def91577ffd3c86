"""The study's systems: published sizes, sequence lengths, caches, and attention in space against attention in time."""

import pytest
from study_traces import SMALL, STUDY, phase, trace_of

from simtti.errors import InputError
from simtti.workloads.flops import flops
from simtti.workloads.trace import ITEM_BYTES


def attention(step):
    return [op for op in step.operators if op.category == "Attention"]


def lengths(step, kind):
    """Queries and keys of each attention, once each and in order."""
    found = [
        (op.inputs[0].shape[-2], op.inputs[1].shape[-2])
        for op in attention(step)
        if op.attributes["kind"] == kind
    ]
    return list(dict.fromkeys(found))


# As the papers give them. Their digits are what can be asked: "2 B" may be 2.25, "600 M" may be 0.65.
PUBLISHED = {
    ("imagen", "text_encoder"): "4.8", ("imagen", "unet"): "2", ("imagen", "super_resolution_2"): "0.4",
    ("muse", "transformer"): "3", ("parti", "decoder"): "0.6", ("prod-image", "unet"): "2.8",
    ("phenaki", "transformer"): "1.8", ("llama2-7b", "llama"): "6.74",
}  # fmt: skip


@pytest.mark.parametrize("name", STUDY)
def test_parameters_are_the_catalogues(name):
    trace = trace_of(name)
    assert trace.parameters == dict(STUDY[name].parameters)
    assert all(trace.parameter_bytes[component] >= 2 * count for component, count in trace.parameters.items())


@pytest.mark.parametrize(("name", "component"), PUBLISHED)
def test_parameters_are_the_published_ones(name, component):
    published = PUBLISHED[name, component]
    digits = len(published.partition(".")[2])
    assert f"{STUDY[name].parameters[component] / 1e9:.{digits}f}" == published


def test_sums_of_parameters_are_the_published_ones():
    """20 B of encoder and decoder; T5's encoder without its vocabulary 4.6 B; the rest as the model files say."""
    parti = STUDY["parti"].parameters
    assert parti["text_encoder"] + parti["transformer"] == pytest.approx(20e9, rel=0.03)
    assert STUDY["muse"].parameters["text_encoder"] - 32128 * 4096 == pytest.approx(4.6e9, rel=0.01)
    assert STUDY["imagen"].parameters["super_resolution_1"] == pytest.approx(0.6e9, rel=0.1)
    assert sum(STUDY["make-a-video"].parameters.values()) == pytest.approx(7.9e9, rel=0.01)


@pytest.mark.parametrize(
    ("name", "phases"),
    [
        (
            "imagen",
            {"text_encoder": 2, "denoising": 100, "super_resolution_256": 51, "super_resolution_1024": 76, "decoder": 1},
        ),
        ("muse", {"text_encoder": 2, "parallel_decoding": 24, "super_resolution": 9, "decoder": 1}),
        ("parti", {"text_encoder": 1, "decode": 1024, "decoder": 1}),
        ("prod-image", {"text_encoder": 1, "denoising": 50, "decoder": 1}),
        (
            "make-a-video",
            {
                "text_encoder": 1, "prior": 26, "denoising": 25, "interpolation_input": 1, "interpolation": 25,
                "super_resolution_low": 8, "super_resolution_high": 19 * 8, "decoder": 1,
            },
        ),
        ("phenaki", {"text_encoder": 2, "parallel_decoding": 48, "decoder": 1}),
        ("llama2-7b", {"prefill": 1, "decode": 127}),
    ],
)  # fmt: skip
def test_phases_and_how_often_their_steps_run(name, phases):
    assert {phase.name: sum(step.count for step in phase.steps) for phase in trace_of(name).phases} == phases


@pytest.mark.parametrize(
    ("name", "where", "self_lengths", "cross_lengths"),
    [
        # Pixels with 128 tokens of text.
        ("imagen", "denoising", [(n, n + 128) for n in (1024, 256, 64)], []),
        ("imagen", "super_resolution_256", [(256, 256 + 128)], []),
        ("imagen", "super_resolution_1024", [], [(4096, 128)]),
        ("muse", "parallel_decoding", [(256, 256)], [(256, 128)]),
        ("muse", "super_resolution", [(4096, 4096)], [(4096, 256 + 128)]),
        ("prod-image", "denoising", [(n, n) for n in (16384, 4096, 1024, 256)], [(n, 154) for n in (16384, 4096, 1024, 256)]),
        ("phenaki", "parallel_decoding", [(1536, 1536)], [(1536, 128)]),
        ("phenaki", "decoder", [(6, 6), (256, 256)], []),
        ("parti", "decoder", [(1024, 1024)], []),
        ("llama2-7b", "prefill", [(512, 512)], []),
    ],
)  # fmt: skip
def test_sequence_lengths(name, where, self_lengths, cross_lengths):
    step = phase(trace_of(name), where).steps[-1]
    assert (lengths(step, "self"), lengths(step, "cross")) == (self_lengths, cross_lengths)


def test_the_cache_grows_to_the_last_token():
    """A block of steps is its middle one; the last attends to the whole text but the last token, or to the image."""
    llama, parti = (phase(trace_of(name), "decode").steps for name in ("llama2-7b", "parti"))
    assert [(lengths(step, "self"), step.count) for step in llama] == [
        ([(1, length)], 15 if length == 632 else 16) for length in range(520, 633, 16)
    ]
    assert [(lengths(step, "self"), step.count) for step in parti] == [
        ([(1, length)], 128) for length in range(64, 1024, 128)
    ]
    assert {tuple(lengths(step, "cross")) for step in parti} == {((1, 128),)}
    exact = sum(range(513, 640))
    assert sum(step.count * lengths(step, "self")[0][1] for step in llama) == pytest.approx(exact, rel=0.001)


@pytest.mark.parametrize("name", ["llama2-7b", "parti"])
def test_the_cache_is_written_in_place(name):
    """Each layer's keys and values are the same two tensors at every step, as long as they will get."""
    steps = phase(trace_of(name), "decode").steps
    caches = {
        tuple(
            op.inputs[i].tensor for op in attention(step) if op.attributes["kind"] == "self" for i in (1, 2)
        )
        for step in steps
    }
    assert len(caches) == 1
    layers = len(attention(steps[0])) // (2 if name == "parti" else 1)
    assert len(set(caches.pop())) == 2 * layers
    key = attention(steps[-1])[0].inputs[1]
    assert key.storage_bytes == 2 * key.shape[0] * 4096 * (640 if name == "llama2-7b" else 1024)


def test_causal_attention():
    assert all(op.attributes["causal"] for op in attention(phase(trace_of("llama2-7b"), "prefill").steps[0]))
    assert not any(op.attributes["causal"] for op in attention(phase(trace_of("parti"), "decode").steps[0]))
    decoder = attention(phase(trace_of("phenaki"), "decoder").steps[0])
    assert {(op.attributes["domain"], op.attributes["causal"]) for op in decoder} == {
        ("temporal", True),
        ("spatial", False),
    }


@pytest.mark.parametrize(("where", "frames"), [("denoising", 16), ("interpolation", 76)])
def test_spatial_over_temporal_attention_flops_are_pixels_over_frames(where, frames):
    """4 B F (HW)^2 C against 4 B HW F^2 C, in each layer of Make-A-Video."""
    operators = attention(phase(trace_of("make-a-video"), where).steps[-1])
    assert [op.attributes["domain"] for op in operators] == ["spatial", "temporal"] * 22
    for spatial, temporal in zip(operators[::2], operators[1::2], strict=True):
        pixels = spatial.inputs[0].shape[-2]
        assert pixels in (32 * 32, 16 * 16, 8 * 8)
        assert spatial.inputs[0].shape[0] == 2 * frames, "each frame is a sequence of its pixels"
        assert temporal.inputs[0].shape[0] == 2 * pixels, "each pixel is a sequence of its frames"
        assert temporal.inputs[0].shape[-2] == frames
        assert flops(spatial) * frames == flops(temporal) * pixels


def test_pseudo_3d_copies_to_convolve_and_attend_along_time():
    """A copy before and after each temporal convolution and attention; convolutions in time are half as wide."""
    step = phase(trace_of("make-a-video"), "denoising").steps[0]
    convolutions = [op for op in step.operators if op.category == "Convolution"]
    temporal = [op for op in convolutions if op.module.endswith(".temporal")]
    assert {op.inputs[1].shape[2:] for op in temporal} == {(3,)}
    spatial = [op for op in convolutions if op.module.endswith(".spatial")]
    assert len(temporal) == len(spatial) > 60
    copies = [op for op in step.operators if op.op == "aten::clone"]
    assert sum(op.module.endswith(("conv1", "conv2", "conv_in", "conv_out")) for op in copies) == 2 * len(
        temporal
    )
    assert sum(op.module.endswith("temporal_attention") for op in copies) == 2 * 22


@pytest.mark.parametrize("name", SMALL)
def test_every_weight_of_the_generator_is_used(name):
    trace = trace_of(name, **SMALL[name])
    used = {
        use.tensor: use.storage_bytes // ITEM_BYTES[use.dtype]
        for op in trace.operators()
        for use in op.inputs
        if use.role == "parameter"
    }
    unused = sum(trace.parameters.values()) - sum(used.values())
    # Encoders of image autoencoders are not used; nor is CLIP's projection, or the prior's unused statistics.
    assert 0 <= unused <= {"prod-image": 35_000_000, "make-a-video": 2_000_000}.get(name, 0)


@pytest.mark.parametrize("name", SMALL)
def test_batch_guidance_and_dtype(name):
    guided = STUDY[name].defaults.guidance is not None
    options = {**SMALL[name], "batch": 3, "dtype": "bf16", **({"guidance": 1.0} if guided else {})}
    trace = trace_of(name, **options)
    generator = next(p for p in trace.phases if p.name in ("denoising", "parallel_decoding", "decode"))
    batches = {
        op.inputs[0].shape[0]
        for op in attention(generator.steps[-1])
        if op.attributes["domain"] != "temporal"
    }
    frames = 2 if name == "make-a-video" else 1
    assert batches == {3 * frames}
    dtypes = {
        op.inputs[0].dtype
        for op in trace.operators()
        if op.category in ("Linear", "Convolution", "Attention")
        and "rotary" not in op.module  # angles are products in fp32 up to some release of transformers 5
    }
    assert dtypes == {"bf16"}
    if name != "llama2-7b":
        pixels = trace.phases[-1].steps[-1].operators[-1].inputs[0]
        assert pixels.dtype in ("uint8", "bf16")
        assert pixels.shape[-2:] == (trace.options["height"], trace.options["width"])


@pytest.mark.parametrize("name", ["imagen", "muse", "make-a-video"])
def test_with_steps_is_what_recording_gives(name):
    assert trace_of(name, **SMALL[name]).with_steps(7) == trace_of(name, **SMALL[name], steps=7)


def test_frames_scale_phenakis_tokens():
    for frames, tokens in ((1, 2), (3, 4), (21, 22)):
        step = phase(
            trace_of("phenaki", **{**SMALL["phenaki"], "frames": frames}), "parallel_decoding"
        ).steps[0]
        assert lengths(step, "self") == [(tokens, tokens)]


def test_super_resolution_of_frames_left_over():
    """11 frames are twice four and once three."""
    trace = trace_of("make-a-video", **{**SMALL["make-a-video"], "frames": 11})
    steps = phase(trace, "super_resolution_high").steps
    assert [step.count for step in steps] == [2, 14, 1, 7]
    assert trace.phases[-1].steps[0].operators[-1].inputs[0].shape == (11, 3, 96, 192)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "muse",
            {"height": 384},
            "height is 384; for muse it must be a positive multiple of 256, such as 256",
        ),
        (
            "muse",
            {"height": 256},
            "height is 256 and width 512; muse makes images of 256x256 or 512x512 only",
        ),
        ("parti", {"height": 512, "width": 512}, "parti makes images of 256x256 only"),
        ("parti", {"steps": 7}, "steps is 7, but parti .* takes no steps"),
        ("make-a-video", {"frames": 75}, "frames is 75; .* a multiple of 5 plus 1, such as 71 or 76"),
        ("make-a-video", {"height": 100}, "height is 100; .* a positive multiple of 96, such as 96"),
        ("phenaki", {"frames": 10}, "frames is 10; .* a multiple of 2 plus 1, such as 9 or 11"),
        ("imagen", {"width": 64}, "width is 64; .* a positive multiple of 128"),
        ("llama2-7b", {"height": 512}, r"llama2-7b \(text-to-text\) takes no height"),
        ("llama2-7b", {"steps": 4096}, "steps is 4096; .* at most 3584"),
    ],
)
def test_shapes_that_cannot_be(name, options, message):
    with pytest.raises(InputError, match=message):
        STUDY[name].options(**options)


def test_blocks_cover_every_length():
    pytest.importorskip("torch")
    from simtti.workloads.models.llama2 import blocks

    for last in (1, 16, 17, 1024):
        assert [length for block in blocks(1, last, 16) for length in block] == list(range(1, last + 1))
        assert {len(block) for block in blocks(1, last, 16)[:-1]} <= {16}
    assert blocks(5, 4, 16) == []


@pytest.mark.parametrize(
    ("name", "where"), [("llama2-7b", "prefill"), ("llama2-7b", "decode"), ("parti", "decode")]
)
def test_flops_of_autoregression_are_two_a_weight_and_token(name, where):
    """Apart from attention: each weight but the embeddings' is one multiply-add for each token."""
    trace = trace_of(name)
    step = phase(trace, where).steps[0]
    tokens = {"prefill": 512}.get(where, 2 if name == "parti" else 1)
    products = [op for op in step.operators if op.category == "Linear"]
    if name == "llama2-7b":
        body, head = 32 * (4 * 4096**2 + 3 * 4096 * 11008), 4096 * 32000
    else:
        # Text's keys and values are there already.
        body, head = 64 * (6 * 4096**2 + 2 * 4096 * 16384), 4096 * 8192
    rows = 1 if where == "prefill" else tokens
    assert sum(map(flops, products)) == 2 * (tokens * body + rows * head)


def test_prompt_tokens():
    llama = trace_of("llama2-7b", steps=2, prompt_tokens=96).phases
    assert lengths(llama[0].steps[0], "self") == [(96, 96)]
    assert [(lengths(step, "self"), step.count) for step in llama[1].steps] == [([(1, 97)], 1)]
    images = trace_of("parti", prompt_tokens=96).phases
    assert lengths(images[1].steps[0], "cross") == [(1, 96)]
