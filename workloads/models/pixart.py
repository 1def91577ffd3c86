"""PixArt-Sigma XL/2 1024-MS, as diffusers' PixArtSigmaPipeline runs it.

Configurations are those released with the weights (PixArt-alpha/PixArt-Sigma-XL-2-1024-MS, text encoder and VAE of
PixArt-alpha/pixart_sigma_sdxlvae_T5_diffusers). 300 tokens of T5-XXL, masked; guidance doubles the batch. The
pipeline would move other sizes to the nearest it was trained on; here every size is run as asked.
"""

from typing import Any

from simtti.workloads.models.sdxl import VAE_1024
from simtti.workloads.models.stable_diffusion import VAE_PARAMETERS
from simtti.workloads.models.text_encoders import T5_XXL, T5_XXL_PARAMETERS, add_t5
from simtti.workloads.recording import Recording
from simtti.workloads.workload import Decoding, Options, Workload

TRANSFORMER: dict[str, Any] = {
    "sample_size": 128, "patch_size": 2, "num_layers": 28, "num_attention_heads": 16, "attention_head_dim": 72,
    "cross_attention_dim": 1152, "caption_channels": 4096, "interpolation_scale": 2,
    "use_additional_conditions": False,
}  # fmt: skip


def record_sigma(options: Options, recording: Recording) -> None:
    """Encode the prompts, denoise, decode."""
    from diffusers import (
        AutoencoderKL,
        DPMSolverMultistepScheduler,
        PixArtSigmaPipeline,
        PixArtTransformer2DModel,
    )

    from simtti.workloads.models.pipelines.diffusers_run import Run
    from simtti.workloads.models.pipelines.inputs import Tokenizer, prompts

    dtype = options.dtype
    pipeline = PixArtSigmaPipeline(
        text_encoder=add_t5(recording, "text_encoder", T5_XXL, dtype),
        transformer=recording.add("transformer", PixArtTransformer2DModel, **TRANSFORMER, dtype=dtype),
        vae=recording.add("vae", AutoencoderKL, **VAE_1024, scaling_factor=0.13025, dtype=dtype),
        scheduler=DPMSolverMultistepScheduler(beta_start=0.0001, beta_end=0.02, beta_schedule="linear"),
        tokenizer=Tokenizer(),
    )
    run = Run(recording, options)
    run.decode_with(pipeline.vae)
    run(
        pipeline, pipeline.transformer, prompt=prompts(options), height=options.height, width=options.width,
        guidance_scale=options.guidance, output_type="np", clean_caption=False, use_resolution_binning=False,
    )  # fmt: skip


WORKLOADS = (
    Workload(
        name="pixart-sigma",
        task="text-to-image",
        architecture="latent diffusion transformer",
        defaults=Options(height=1024, width=1024, steps=20, guidance=4.5, dtype="bf16"),
        parameters={
            "text_encoder": T5_XXL_PARAMETERS,
            "transformer": 610_856_096,
            "vae": VAE_PARAMETERS,
        },
        source="Chen et al., 2024 (arXiv 2403.04692): 0.6 B DiT, T5-XXL",
        url="https://huggingface.co/PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
        builder=record_sigma,
        decoding=Decoding(tile=1024),
        size_multiple=16,
        place=50,
    ),
)
