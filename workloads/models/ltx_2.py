"""LTX-2 (19 B) and LTX-2.3 (22 B), video with sound from text, as diffusers' LTX2Pipeline runs them.

Configurations are those of diffusers' conversion script (Lightricks/LTX-2): 48 blocks of a video stream of 32 heads of 128 (14 B) and
an audio stream of 32 heads of 64 (5 B), which attend to each other; the classes' defaults but for the rotation's layout. Text is 1,024
tokens of all 49 states of Gemma 3 12B side by side, brought to both streams by connectors of two blocks. Guidance doubles the batch;
the two streams have a sampler each.

LTX-2.3's attention has gates, its connectors eight blocks and a width for each stream, its attention to text a modulation by the timestep. Its
vocoder samples at 16 kHz, and a second one at 48 kHz after it. It is mostly run distilled, 8 steps without guidance. Before that it has
(as 30 steps and a guidance of 3 are, by its authors' advice) three more passes than one: without the prompt in the same batch, with one
block's attention skipped, and with the streams isolated from each other, in a call each.

A video of N frames has N / 24 seconds of sound, at 25 tokens a second. After the video's VAE the audio's makes a spectrogram of them,
and a vocoder samples at 24 kHz: the phase 'audio_decoder'.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simtti.errors import InputError
from simtti.workloads.models.ltx import SCHEDULER
from simtti.workloads.models.text_encoders import GEMMA_3_12B, GEMMA_3_12B_PARAMETERS, GEMMA_3_VISION
from simtti.workloads.recording import Recording
from simtti.workloads.workload import Decoding, Options, Workload

FRAMES_A_SECOND = 24.0
# Of a latent pixel's side.
PIXELS = 32
# What the pipeline adds to guidance by the prompt where it runs LTX-2.3, and where nothing.
ONLY_THE_PROMPTS: dict[str, float] = {
    "stg_scale": 0.0, "audio_stg_scale": 0.0, "modality_scale": 1.0, "audio_modality_scale": 1.0,
    "guidance_rescale": 0.0, "audio_guidance_rescale": 0.0,
}  # fmt: skip


ALL_GUIDANCE: dict[str, Any] = {
    "stg_scale": 1.0, "audio_stg_scale": 1.0, "modality_scale": 3.0, "audio_modality_scale": 3.0,
    "guidance_rescale": 0.7, "audio_guidance_rescale": 0.7, "spatio_temporal_guidance_blocks": [28],
}  # fmt: skip
AUDIO_GUIDANCE_2_3 = 7.0


@dataclass(frozen=True)
class Ltx2:
    """What a member of the family is made of: what differs from the classes' defaults.

    vocoder: its class in diffusers.pipelines.ltx2. guided_by_all: whether guidance is by perturbed blocks and isolated streams, too.
    """

    name: str
    transformer: Mapping[str, Any]
    connectors: Mapping[str, Any]
    vae: Mapping[str, Any]
    vocoder: str
    guided_by_all: bool


LTX_2 = Ltx2("ltx-2", {}, {}, {}, "LTX2Vocoder", guided_by_all=False)
_GATED: dict[str, Any] = {"gated_attn": True, "cross_attn_mod": True}
_CONNECTOR_2_3: dict[str, Any] = {"num_attention_heads": 32, "num_layers": 8}
LTX_2_3 = Ltx2(
    "ltx-2.3",
    {
        **_GATED, **{f"audio_{name}": value for name, value in _GATED.items()},
        "use_prompt_embeddings": False, "perturbed_attn": True,
    },
    {
        **{f"{stream}_connector_{name}": value for stream in ("video", "audio") for name, value in _CONNECTOR_2_3.items()},
        "audio_connector_attention_head_dim": 64, "video_gated_attn": True, "audio_gated_attn": True,
        "per_modality_projections": True, "proj_bias": True,
    },
    {
        "block_out_channels": (256, 512, 1024, 1024), "decoder_block_out_channels": (256, 512, 512, 1024),
        "layers_per_block": (4, 6, 4, 2, 2), "decoder_layers_per_block": (4, 6, 4, 2, 2),
        "decoder_spatio_temporal_scaling": (True,) * 4, "decoder_inject_noise": (False,) * 5,
        "upsample_type": ("spatiotemporal", "spatiotemporal", "temporal", "spatial"), "upsample_residual": (False,) * 4,
        "upsample_factor": (2, 2, 1, 2), "decoder_spatial_padding_mode": "zeros",
    },
    "LTX2VocoderWithBWE",
    guided_by_all=True,
)  # fmt: skip


def record_ltx_2(options: Options, recording: Recording) -> None:
    """LTX-2."""
    _record(options, recording, LTX_2)


def record_ltx_2_3(options: Options, recording: Recording) -> None:
    """LTX-2.3."""
    _record(options, recording, LTX_2_3)


def _record(options: Options, recording: Recording, model: Ltx2) -> None:
    """Encode the prompts, denoise video and audio together, decode one after the other."""
    from diffusers import (
        AutoencoderKLLTX2Audio,
        AutoencoderKLLTX2Video,
        FlowMatchEulerDiscreteScheduler,
        LTX2Pipeline,
        LTX2VideoTransformer3DModel,
    )
    from diffusers.pipelines import ltx2
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    from simtti.workloads.models.pipelines.diffusers_run import Run
    from simtti.workloads.models.pipelines.inputs import Tokenizer, prompts

    assert options.height is not None
    assert options.width is not None
    if (side := min(options.height, options.width)) < 2 * PIXELS:
        raise InputError(
            f"height or width is {side}; the VAE of {model.name} mirrors what it pads with, and takes at least {2 * PIXELS}"
        )
    dtype = options.dtype
    gemma = Gemma3Config(text_config=GEMMA_3_12B, vision_config=GEMMA_3_VISION)
    split: dict[str, Any] = {"rope_type": "split", "dtype": dtype}
    pipeline = LTX2Pipeline(
        text_encoder=recording.add("text_encoder", Gemma3ForConditionalGeneration, gemma, dtype=dtype),
        connectors=recording.add("connectors", ltx2.LTX2TextConnectors, **model.connectors, **split),
        transformer=recording.add("transformer", LTX2VideoTransformer3DModel, **model.transformer, **split),
        vae=recording.add(
            "vae", AutoencoderKLLTX2Video, **model.vae, decoder_causal=False,
            spatial_compression_ratio=PIXELS, temporal_compression_ratio=8, dtype=dtype,
        ),
        audio_vae=recording.add("audio_vae", AutoencoderKLLTX2Audio, dtype=dtype),
        vocoder=recording.add("vocoder", getattr(ltx2, model.vocoder), dtype=dtype),
        scheduler=FlowMatchEulerDiscreteScheduler(**SCHEDULER),
        tokenizer=Tokenizer(1024),
    )  # fmt: skip
    run = Run(recording, options, domain="joint", channel_dim=2, beside="audio_hidden_states")
    run.decode_with(pipeline.vae, repeats=True)
    run.split(pipeline.audio_vae, "decode", "audio_decoder")
    all_of_it = model.guided_by_all and options.guided
    run(
        pipeline, pipeline.transformer, prompt=prompts(options), height=options.height, width=options.width,
        num_frames=options.frames, frame_rate=FRAMES_A_SECOND, guidance_scale=options.guidance,
        audio_guidance_scale=AUDIO_GUIDANCE_2_3 if all_of_it else options.guidance, output_type="np",
        **(ALL_GUIDANCE if all_of_it else ONLY_THE_PROMPTS),
    )  # fmt: skip


WORKLOADS = (
    Workload(
        name="ltx-2",
        task="text-to-video",
        architecture="latent video and audio diffusion transformer",
        defaults=Options(height=512, width=768, steps=40, frames=121, dtype="bf16", guidance=4.0),
        parameters={
            "text_encoder": GEMMA_3_12B_PARAMETERS,
            "connectors": 1_431_475_200,
            "transformer": 18_876_174_592,
            "vae": 1_222_479_601,
            "audio_vae": 53_248_146,
            "vocoder": 55_592_802,
        },
        source="HaCohen et al., 2026 (arXiv 2601.03233): 19 B transformer of two streams, Gemma 3 12B",
        url="https://huggingface.co/Lightricks/LTX-2",
        builder=record_ltx_2,
        decoding=Decoding(),
        size_multiple=PIXELS,
        frame_multiple=8,
        place=133,
    ),
    Workload(
        name="ltx-2.3",
        task="text-to-video",
        architecture="latent video and audio diffusion transformer",
        defaults=Options(height=512, width=768, steps=8, frames=121, dtype="bf16", guidance=1.0),
        parameters={
            "text_encoder": GEMMA_3_12B_PARAMETERS,
            "connectors": 3_172_227_584,
            "transformer": 18_988_838_144,
            "vae": 726_105_969,
            "audio_vae": 53_248_146,
            "vocoder": 128_537_448,
        },
        source="Lightricks' release of LTX-2.3, 2026: 22 B in a transformer of two streams and their connectors, Gemma 3 12B, distilled",
        url="https://huggingface.co/diffusers/LTX-2.3-Distilled-Diffusers",
        builder=record_ltx_2_3,
        decoding=Decoding(),
        size_multiple=PIXELS,
        frame_multiple=8,
        place=133,
    ),
)
