"""CogVideoX 2B and 5B and CogVideoX 1.5 5B, as diffusers' CogVideoXPipeline runs them, with the VAE's tiling and slicing on.

Configurations are those released with the weights (zai-org/CogVideoX-2b, the classes' defaults, CogVideoX-5b and
CogVideoX1.5-5B).
226 tokens of T5-XXL and all patches of all frames attend in one sequence; guidance doubles the batch. The VAE decodes
two latent frames (eight frames; the first makes one) at a time in tiles, one video at a time: model cards ask for it,
benchmarks do it.
"""

from dataclasses import replace
from typing import Any

from simtti.workloads.models.text_encoders import T5_XXL, T5_XXL_PARAMETERS, add_t5
from simtti.workloads.recording import Recording
from simtti.workloads.workload import VIDEO_VAE, Options, Tiles, Workload

# Tiles are half of what it was trained on, 480x720, and overlap by a sixth of it down, by a fifth across.
DECODING = replace(VIDEO_VAE, tiles=(Tiles(240, 200), Tiles(360, 288)))

SCHEDULER: dict[str, Any] = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False,
    "prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing",
}  # fmt: skip
TRANSFORMER_5B: dict[str, Any] = {
    "num_attention_heads": 48, "num_layers": 42, "use_rotary_positional_embeddings": True,
}  # fmt: skip
TRANSFORMER_1_5_5B: dict[str, Any] = {
    **TRANSFORMER_5B, "patch_size_t": 2, "patch_bias": False, "sample_frames": 81, "sample_height": 300,
    "sample_width": 300,
}  # fmt: skip


def record_2b(options: Options, recording: Recording) -> None:
    """CogVideoX 2B: 30 heads, 30 blocks."""
    record_cogvideox(options, recording, {}, scaling_factor=1.15258426, snr_shift_scale=3.0)


def record_5b(options: Options, recording: Recording) -> None:
    """CogVideoX 5B: 48 heads, 42 blocks, rotary positions."""
    record_cogvideox(options, recording, TRANSFORMER_5B, scaling_factor=0.7, snr_shift_scale=1.0)


def record_1_5_5b(options: Options, recording: Recording) -> None:
    """CogVideoX 1.5 5B: 48 heads, 42 blocks, patches of two latent frames."""
    record_cogvideox(options, recording, TRANSFORMER_1_5_5B, scaling_factor=0.7, snr_shift_scale=1.0)


def record_cogvideox(
    options: Options,
    recording: Recording,
    transformer: dict[str, Any],
    *,
    scaling_factor: float,
    snr_shift_scale: float,
) -> None:
    """Encode the prompts, denoise the video, decode it tile by tile."""
    from diffusers import (
        AutoencoderKLCogVideoX,
        CogVideoXDDIMScheduler,
        CogVideoXPipeline,
        CogVideoXTransformer3DModel,
    )

    from simtti.workloads.models.pipelines.diffusers_run import Run
    from simtti.workloads.models.pipelines.inputs import Tokenizer, prompts

    dtype = options.dtype
    pipeline = CogVideoXPipeline(
        text_encoder=add_t5(recording, "text_encoder", T5_XXL, dtype),
        transformer=recording.add("transformer", CogVideoXTransformer3DModel, **transformer, dtype=dtype),
        vae=recording.add("vae", AutoencoderKLCogVideoX, scaling_factor=scaling_factor, dtype=dtype),
        scheduler=CogVideoXDDIMScheduler(**SCHEDULER, snr_shift_scale=snr_shift_scale),
        tokenizer=Tokenizer(226),
    )
    run = Run(recording, options, domain="joint", channel_dim=2)
    run.decode_with(pipeline.vae, VIDEO_VAE.own, repeats=True)
    run(
        pipeline, pipeline.transformer, prompt=prompts(options), height=options.height, width=options.width,
        num_frames=options.frames, guidance_scale=options.guidance, output_type="np",
    )  # fmt: skip


WORKLOADS = (
    Workload(
        name="cogvideox-2b",
        task="text-to-video",
        architecture="latent video diffusion transformer",
        defaults=Options(height=480, width=720, steps=50, frames=49, dtype="bf16", guidance=6.0),
        parameters={
            "text_encoder": T5_XXL_PARAMETERS,
            "transformer": 1_693_783_872,
            "vae": 215_583_907,
        },
        source="Yang et al., 2024 (arXiv 2408.06072) and the released configuration: 1.7 B expert transformer, T5-XXL",
        url="https://huggingface.co/zai-org/CogVideoX-2b",
        builder=record_2b,
        decoding=DECODING,
        size_multiple=16,
        frame_multiple=8,
        place=130,
    ),
    Workload(
        name="cogvideox-5b",
        task="text-to-video",
        architecture="latent video diffusion transformer",
        defaults=Options(height=480, width=720, steps=50, frames=49, dtype="bf16", guidance=6.0),
        parameters={
            "text_encoder": T5_XXL_PARAMETERS,
            "transformer": 5_570_283_072,
            "vae": 215_583_907,
        },
        source="Yang et al., 2024 (arXiv 2408.06072) and the released configuration: 5.6 B expert transformer, T5-XXL",
        url="https://huggingface.co/zai-org/CogVideoX-5b",
        builder=record_5b,
        decoding=DECODING,
        size_multiple=16,
        frame_multiple=8,
        place=130,
    ),
    Workload(
        name="cogvideox1.5-5b",
        task="text-to-video",
        architecture="latent video diffusion transformer",
        defaults=Options(height=768, width=1360, steps=50, frames=81, dtype="bf16", guidance=6.0),
        parameters={
            "text_encoder": T5_XXL_PARAMETERS,
            "transformer": 5_570_676_352,
            "vae": 215_583_907,
        },
        source="Yang et al., 2024 (arXiv 2408.06072) and the released configuration: 5.6 B expert transformer, T5-XXL",
        url="https://huggingface.co/zai-org/CogVideoX1.5-5B",
        builder=record_1_5_5b,
        decoding=DECODING,
        size_multiple=16,
        max_size=2400,
        frame_multiple=8,
        place=130,
    ),
)
