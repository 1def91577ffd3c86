"""Networks without a public implementation: on real numbers, on the CPU, much smaller; and their FLOPs as torch counts them."""

import pytest
from study_traces import SMALL, phase, trace_of

from simtti.workloads import record
from simtti.workloads.flops import flops


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

    from simtti.workloads.meta_results import MetaResults

    with record.quiet():
        calls = modules()
    for (name, where, component), call in calls.items():
        trace = trace_of(name, **SMALL[name])
        with MetaResults(), FlopCounterMode(display=False) as counter, torch.no_grad():
            call()
        step = phase(trace, where).steps[-1]
        recorded = sum(flops(op) for op in step.operators if op.module.partition(".")[0] == component)
        assert recorded == pytest.approx(counter.get_total_flops(), rel=1e-9), name


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
