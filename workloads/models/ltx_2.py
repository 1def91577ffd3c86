"""LTX-2 (19 B), video with sound from text, as diffusers' LTX2Pipeline runs it.

Configurations are those of diffusers' conversion script (Lightricks/LTX-2): 48 blocks of a video stream of 32 heads of 128 (14 B) and
an audio stream of 32 heads of 64 (5 B), which attend to each other; the classes' defaults but for the rotation's layout. Text is 1,024
tokens of all 49 states of Gemma 3 12B side by side, brought to both streams by connectors of two blocks. Guidance doubles the batch;
the two streams have a sampler each. The guidance by perturbed blocks and by isolated streams is LTX-2.3's, and off here.

A video of N frames has N / 24 seconds of sound, at 25 tokens a second. After the video's VAE the audio's makes a spectrogram of them,
and a vocoder samples at 24 kHz: the phase 'audio_decoder'.
"""

from typing import Any

from simtti.errors import InputError
from simtti.workloads.models.ltx import SCHEDULER
from simtti.workloads.models.text_encoders import GEMMA_3_12B, GEMMA_3_12B_PARAMETERS, GEMMA_3_VISION
from simtti.workloads.recording import Recording
from simtti.workloads.workload import Decoding, Options, Workload

FRAMES_A_SECOND = 24.0
# Of a latent pixel's side.
PIXELS = 32
# What the pipeline adds to guidance by the prompt where it runs LTX-2.3.
ONLY_THE_PROMPTS: dict[str, float] = {
    "stg_scale": 0.0, "audio_stg_scale": 0.0, "modality_scale": 1.0, "audio_modality_scale": 1.0,
    "guidance_rescale": 0.0, "audio_guidance_rescale": 0.0,
}  # fmt: skip


def record_ltx_2(options: Options, recording: Recording) -> None:
    """Encode the prompts, denoise video and audio together, decode one after the other."""
    from diffusers import (
        AutoencoderKLLTX2Audio,
        AutoencoderKLLTX2Video,
        FlowMatchEulerDiscreteScheduler,
        LTX2Pipeline,
        LTX2VideoTransformer3DModel,
    )
    from diffusers.pipelines.ltx2 import LTX2TextConnectors, LTX2Vocoder
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    from simtti.workloads.models.pipelines.diffusers_run import Run
    from simtti.workloads.models.pipelines.inputs import Tokenizer, prompts

    assert options.height is not None
    assert options.width is not None
    if (side := min(options.height, options.width)) < 2 * PIXELS:
        raise InputError(
            f"height or width is {side}; the VAE of ltx-2 mirrors what it pads with, and takes at least {2 * PIXELS}"
        )
    dtype = options.dtype
    gemma = Gemma3Config(text_config=GEMMA_3_12B, vision_config=GEMMA_3_VISION)
    split: dict[str, Any] = {"rope_type": "split", "dtype": dtype}
    pipeline = LTX2Pipeline(
        text_encoder=recording.add("text_encoder", Gemma3ForConditionalGeneration, gemma, dtype=dtype),
        connectors=recording.add("connectors", LTX2TextConnectors, **split),
        transformer=recording.add("transformer", LTX2VideoTransformer3DModel, **split),
        vae=recording.add(
            "vae", AutoencoderKLLTX2Video, decoder_causal=False,
            spatial_compression_ratio=PIXELS, temporal_compression_ratio=8, dtype=dtype,
        ),
        audio_vae=recording.add("audio_vae", AutoencoderKLLTX2Audio, dtype=dtype),
        vocoder=recording.add("vocoder", LTX2Vocoder, dtype=dtype),
        scheduler=FlowMatchEulerDiscreteScheduler(**SCHEDULER),
        tokenizer=Tokenizer(1024),
    )  # fmt: skip
    run = Run(recording, options, domain="joint", channel_dim=2, beside="audio_hidden_states")
    run.decode_with(pipeline.vae, repeats=True)
    run.split(pipeline.audio_vae, "decode", "audio_decoder")
    run(
        pipeline, pipeline.transformer, prompt=prompts(options), height=options.height, width=options.width,
        num_frames=options.frames, frame_rate=FRAMES_A_SECOND, guidance_scale=options.guidance,
        audio_guidance_scale=options.guidance, output_type="np", **ONLY_THE_PROMPTS,
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
)
