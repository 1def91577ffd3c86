"""The study's systems: published sizes, sequence lengths, caches, and attention in space against attention in time."""

from functools import cache

import pytest

from simtti.errors import InputError
from simtti.workloads import record
from simtti.workloads.catalogue import WORKLOADS
from simtti.workloads.flops import flops
from simtti.workloads.trace import ITEM_BYTES, Trace

STUDY = {name: workload for name, workload in WORKLOADS.items() if workload.group == "study"}
# The smallest shapes, for what does not depend on the shape.
SMALL = {
    "imagen": {"height": 128, "width": 256},
    "muse": {"height": 256, "width": 256},
    "prod-image": {"height": 64, "width": 128},
    "make-a-video": {"height": 96, "width": 192, "frames": 6},
    "phenaki": {"height": 8, "width": 16, "frames": 3},
    "llama2-7b": {"steps": 20},
}


@cache
def trace_of(name, **options):
    """The shipped trace where there is one, else a recording."""
    if not options and record.shipped(STUDY[name]).exists():
        return Trace.load(record.shipped(STUDY[name]))
    pytest.importorskip("torch")
    return record.record(name, **options)


def phase(trace, name):
    return next(phase for phase in trace.phases if phase.name == name)


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


def modules():
    """One network of each kind, a call of it, and the phase that has recorded this call."""
    import torch
    from diffusers import UNet2DConditionModel

    from simtti.workloads.models import imagen, make_a_video, muse, prod_image
    from simtti.workloads.models.networks.imagen import EfficientUNet
    from simtti.workloads.models.networks.muse import MaskedTransformer
    from simtti.workloads.models.networks.phenaki import CViViTDecoder, VideoTransformer
    from simtti.workloads.models.networks.pseudo_3d import UNet
    from simtti.workloads.recorder import Recorder

    build = Recorder().build

    def empty(*shape):
        return torch.empty(shape, dtype=torch.float16, device="meta")

    def ids(*shape):
        return torch.zeros(shape, dtype=torch.int64, device="meta")

    def times(batch):
        return torch.zeros(batch, device="meta")

    size = make_a_video.SIZES.decoder
    video = build(
        UNet, in_channels=3, widths=size.widths, blocks=size.blocks, attention=size.attention,
        head_dim=64, condition_width=768, temporal=True, dtype="fp16",
    )  # fmt: skip
    upsampler = build(EfficientUNet, self_attention=True, dtype="fp16")
    last_upsampler = build(EfficientUNet, self_attention=False, dtype="fp16")
    base = build(UNet2DConditionModel, **imagen.BASE, dtype="fp16")
    product = build(UNet2DConditionModel, **prod_image.UNET, dtype="fp16")
    masked = build(MaskedTransformer, **muse.BASE, dtype="fp16")
    return {
        ("make-a-video", "denoising", "decoder"): lambda: video(
            empty(2, 2, 3, 8, 16), times(2), empty(2, 768), times(2)
        ),
        ("imagen", "super_resolution_64", "super_resolution_1"): lambda: upsampler(
            empty(2, 3, 32, 64), times(2), empty(2, 3, 32, 64), times(2), empty(2, 128, 4096)
        ),
        ("imagen", "super_resolution_256", "super_resolution_2"): lambda: last_upsampler(
            empty(2, 3, 128, 256), times(2), empty(2, 3, 128, 256), times(2), empty(2, 128, 4096)
        ),
        ("imagen", "denoising", "unet"): lambda: base(
            empty(2, 3, 8, 16),
            times(2),
            encoder_hidden_states=empty(2, 128, 4096),
            class_labels=empty(2, 4096),
        ),
        ("prod-image", "denoising", "unet"): lambda: product(
            empty(2, 16, 8, 16), times(2), encoder_hidden_states=empty(2, 154, 2048)
        ),
        ("muse", "parallel_decoding", "transformer"): lambda: masked(ids(2, 256), empty(2, 128, 2048)),
        ("phenaki", "parallel_decoding", "transformer"): lambda: build(VideoTransformer, 4, dtype="fp16")(
            ids(2, 4), empty(2, 128, 4096)
        ),
        ("phenaki", "decoder", "decoder"): lambda: build(CViViTDecoder, 2, 1, 2, dtype="fp16")(ids(1, 4)),
    }


def test_flops_are_those_of_torch():
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    with record.quiet():
        calls = modules()
    for (name, where, component), call in calls.items():
        trace = trace_of(name, **SMALL[name])
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            call()
        step = phase(trace, where).steps[-1]
        recorded = sum(flops(op) for op in step.operators if op.module.partition(".")[0] == component)
        assert recorded == pytest.approx(counter.get_total_flops(), rel=1e-9), name


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


# ---- on real numbers, on the CPU, much smaller


def test_decoding_with_the_cache_is_a_pass_over_everything():
    torch = pytest.importorskip("torch")
    with record.quiet():
        from transformers import LlamaConfig, LlamaForCausalLM

        from simtti.workloads.models.networks.transformer_blocks import KeyValueCache, Layer

        config = LlamaConfig(
            hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, vocab_size=11
        )
        model = LlamaForCausalLM(config).eval()
    cpu = torch.device("cpu")
    shape = {"layers": 2, "batch": 1, "heads": 4, "length": 8, "head_dim": 8, "dtype": "fp32", "device": cpu}
    cache = KeyValueCache(**shape)
    ids = torch.tensor([[3, 1, 4, 1, 5, 9]])
    layers = [Layer(32, 4, 64, context_width=16, causal=True).eval() for _ in range(2)]
    hidden, text = torch.randn(1, 6, 32), torch.randn(1, 3, 16)
    with torch.no_grad():
        whole = model(ids).logits
        parts = []
        for start, end in ((0, 4), (4, 5), (5, 6)):
            cache.length = start
            parts.append(model(ids[:, start:end], past_key_values=cache, use_cache=True).logits)
        torch.testing.assert_close(torch.cat(parts, 1), whole)

        cache = KeyValueCache(**shape)
        whole, parts = hidden, []
        for layer in layers:
            whole = layer(whole, text)
        for start in range(6):
            cache.length = start
            part = hidden[:, start : start + 1]
            for number, layer in enumerate(layers):
                part = layer(part, layer.attn2.project(text), cache, number)
            parts.append(part)
        torch.testing.assert_close(torch.cat(parts, 1), whole)


def test_pseudo_3d_convolves_and_attends_along_time():
    torch = pytest.importorskip("torch")
    with record.quiet():
        from simtti.workloads.models.networks import pseudo_3d
    batch, frames, channels, height, width = 2, 5, 8, 3, 4
    video = torch.randn(batch * frames, channels, height, width)
    conv = pseudo_3d.Conv(channels, channels, temporal=True)
    attend = pseudo_3d.SpaceTimeAttention(channels, 4, temporal=True)
    with torch.no_grad():
        found = conv(video, frames).view(batch, frames, channels, height, width)
        space = conv.spatial(video).view(batch, frames, channels, height, width).transpose(1, 2)
        expected = torch.nn.functional.conv3d(
            space, conv.temporal.weight[..., None, None], conv.temporal.bias, padding=(1, 0, 0)
        )
        torch.testing.assert_close(found, expected.transpose(1, 2))

        found = attend(video, frames)
        pixels = attend.spatial_attention(video.flatten(2).transpose(1, 2))
        pixels = pixels.view(batch, frames, height * width, channels)
        for place in range(height * width):
            along = attend.temporal_attention.attention(pixels[:, :, place])
            row, column = divmod(place, width)
            torch.testing.assert_close(found[:, :, row, column], along.flatten(0, 1))


def test_unmasking_keeps_what_is_known_and_masks_the_least_certain():
    torch = pytest.importorskip("torch")
    with record.quiet():
        from simtti.workloads.models.pipelines.sampling import unmask
    mask = 9
    tokens = torch.tensor([[1, mask, mask, 4, mask, mask]])
    logits = torch.full((1, 6, 9), -100.0)
    for place, certainty in ((1, 1.0), (2, 200.0), (4, 100.0), (5, 0.5)):
        logits[0, place, 7] = certainty - 100
    remaining, drawn = unmask(logits, tokens, 2, mask)
    assert (remaining == mask).tolist() == [[False, True, False, False, False, True]]
    assert drawn[0, [0, 2, 3, 4]].tolist() == [1, 7, 4, 7]
    everything, drawn = unmask(logits, tokens, 0, mask)
    assert torch.equal(everything, drawn)
    assert not (drawn == mask).any()


def test_small_networks_run():
    """Every network that is not the libraries', with numbers."""
    torch = pytest.importorskip("torch")
    with record.quiet(), pytest.MonkeyPatch.context() as patch:
        from simtti.workloads.models.networks import imagen, muse, parti, phenaki, pseudo_3d

        for name, value in {
            "WIDTHS": (32, 64),
            "BLOCKS": (1, 2),
            "TEXT_WIDTH": 24,
            "CONTEXT_WIDTH": 16,
        }.items():
            patch.setattr(imagen, name, value)
        for name, value in {"WIDTH": 64, "HEADS": 4, "INNER": 64, "LAYERS": 1, "VIVIT_INNER": 64}.items():
            patch.setattr(phenaki, name, value)
        for name in ("VIT_WIDTH", "VIT_INNER"):
            patch.setattr(parti, name, 64)
        patch.setattr(muse, "ENCODER_LAYERS", 1)
        zeros, small = torch.zeros(2), torch.randn(2, 3, 32, 64)
        with torch.no_grad():
            for itself in (True, False):
                unet = imagen.EfficientUNet(self_attention=itself)
                assert unet(small, zeros, small, zeros, torch.randn(2, 5, 24)).shape == small.shape
            unet = pseudo_3d.UNet(
                in_channels=3, widths=(32, 64), blocks=1, attention=(1,), head_dim=16, condition_width=8,
                temporal=True,
            )  # fmt: skip
            video = torch.randn(2, 3, 3, 8, 16)
            assert unet(video, zeros, torch.randn(2, 8), zeros).shape == video.shape
            image = torch.randint(8192, (2, 256))
            upsampler = muse.SuperResolutionTransformer(width=64, layers=1, inner=64, tokens=64)
            context = upsampler.join(torch.randn(4, 5, 4096), image)
            assert upsampler(image[:, :64].repeat(2, 1), context).shape == (4, 64, 8192)
            decoder = muse.TokenDecoder(block_out_channels=(32, 64), layers_per_block=1)
            assert decoder(image).shape == (2, 3, 32, 32)
            assert parti.ViTDecoder()(torch.randint(8192, (1, 1024))).shape == (1, 3, 256, 256)
            transformer = phenaki.VideoTransformer(12)
            assert transformer(image[:, :12], torch.randn(2, 5, 4096)).shape == (2, 12, 8192)
            assert phenaki.CViViTDecoder(3, 2, 2)(image[:, :12]).shape == (2, 3, 5, 16, 16)
