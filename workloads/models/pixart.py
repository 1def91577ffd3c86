"""PixArt-Sigma XL/2 1024-MS, as diffusers' PixArtSigmaPipeline runs it.

Configurations are those released with the weights (PixArt-alpha/PixArt-Sigma-XL-2-1024-MS, text encoder and VAE of
PixArt-alpha/pixart_sigma_sdxlvae_T5_diffusers). 300 tokens of T5-XXL, masked; guidance doubles the batch. The
pipeline would move other sizes to the nearest it was trained on; here every size is run as asked.
"""

from typing import Any

from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
)

from simtti.workloads.catalogue import Options
from simtti.workloads.models.latent_diffusion import Recording
from simtti.workloads.models.pipeline import Run, Tokenizer, build_module, prompts
from simtti.workloads.models.stable_diffusion import VAE
from simtti.workloads.models.text_encoders import T5_XXL, add_t5

TRANSFORMER: dict[str, Any] = {
    "sample_size": 128, "patch_size": 2, "num_layers": 28, "num_attention_heads": 16, "attention_head_dim": 72,
    "cross_attention_dim": 1152, "caption_channels": 4096, "interpolation_scale": 2,
    "use_additional_conditions": False,
}  # fmt: skip


def record_sigma(options: Options) -> Recording:
    """Encode the prompts, denoise, decode."""
    dtype = options.dtype
    recording = Recording()
    pipeline = PixArtSigmaPipeline(
        text_encoder=add_t5(recording, "text_encoder", T5_XXL, dtype),
        transformer=recording.add(
            "transformer", build_module(PixArtTransformer2DModel, **TRANSFORMER, dtype=dtype)
        ),
        vae=recording.add("vae", build_module(AutoencoderKL, **VAE, scaling_factor=0.13025, dtype=dtype)),
        scheduler=DPMSolverMultistepScheduler(beta_start=0.0001, beta_end=0.02, beta_schedule="linear"),
        tokenizer=Tokenizer(),
    )
    run = Run(recording, options)
    run(
        pipeline, pipeline.transformer, prompt=prompts(options), height=options.height, width=options.width,
        guidance_scale=options.guidance, output_type="np", clean_caption=False, use_resolution_binning=False,
    )  # fmt: skip
    recording.phases = recording.recorder.phases()
    return recording
