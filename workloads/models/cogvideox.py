"""CogVideoX 2B and CogVideoX 1.5 5B, as diffusers' CogVideoXPipeline runs them, with the VAE's tiling and slicing on.

Configurations are those released with the weights (zai-org/CogVideoX-2b, the classes' defaults, and CogVideoX1.5-5B).
226 tokens of T5-XXL and all patches of all frames attend in one sequence; guidance doubles the batch. The VAE decodes
two latent frames (eight frames; the first makes one) at a time in tiles, one video at a time: model cards ask for it,
benchmarks do it.
"""

from typing import Any

from diffusers import (
    AutoencoderKLCogVideoX,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
)

from simtti.workloads.catalogue import Options
from simtti.workloads.models.latent_diffusion import Recording
from simtti.workloads.models.pipeline import Run, Tokenizer, build_module, prompts
from simtti.workloads.models.text_encoders import T5_XXL, add_t5

SCHEDULER: dict[str, Any] = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False,
    "prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing",
}  # fmt: skip
TRANSFORMER_1_5_5B: dict[str, Any] = {
    "num_attention_heads": 48, "num_layers": 42, "patch_size_t": 2, "patch_bias": False, "sample_frames": 81,
    "sample_height": 300, "sample_width": 300, "use_rotary_positional_embeddings": True,
}  # fmt: skip


def record_2b(options: Options) -> Recording:
    """CogVideoX 2B: 30 heads, 30 blocks."""
    return record_cogvideox(options, {}, scaling_factor=1.15258426, snr_shift_scale=3.0)


def record_1_5_5b(options: Options) -> Recording:
    """CogVideoX 1.5 5B: 48 heads, 42 blocks, patches of two latent frames."""
    return record_cogvideox(options, TRANSFORMER_1_5_5B, scaling_factor=0.7, snr_shift_scale=1.0)


def record_cogvideox(
    options: Options, transformer: dict[str, Any], *, scaling_factor: float, snr_shift_scale: float
) -> Recording:
    """Encode the prompts, denoise the video, decode it tile by tile."""
    dtype = options.dtype
    recording = Recording()
    pipeline = CogVideoXPipeline(
        text_encoder=add_t5(recording, "text_encoder", T5_XXL, dtype),
        transformer=recording.add(
            "transformer", build_module(CogVideoXTransformer3DModel, **transformer, dtype=dtype)
        ),
        vae=recording.add(
            "vae", build_module(AutoencoderKLCogVideoX, scaling_factor=scaling_factor, dtype=dtype)
        ),
        scheduler=CogVideoXDDIMScheduler(**SCHEDULER, snr_shift_scale=snr_shift_scale),
        tokenizer=Tokenizer(226),
    )
    pipeline.vae.enable_tiling()
    pipeline.vae.enable_slicing()
    run = Run(recording, options, domain="joint", channel_dim=2)
    run.repeat_tiles(pipeline.vae)
    run(
        pipeline, pipeline.transformer, prompt=prompts(options), height=options.height, width=options.width,
        num_frames=options.frames, guidance_scale=options.guidance, output_type="np",
    )  # fmt: skip
    recording.phases = recording.recorder.phases()
    return recording
