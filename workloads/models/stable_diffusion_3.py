"""Stable Diffusion 3 (medium) and 3.5 (medium, large), as diffusers' StableDiffusion3Pipeline runs them.

Configurations are those released with the weights (stabilityai/stable-diffusion-3-medium-diffusers and so on).
Three text encoders: 77 tokens of CLIP ViT-L and OpenCLIP ViT-bigG side by side, then 256 of T5-XXL; text and image
attend in one sequence. In 3.5 medium the first 13 blocks attend over the image once more.
"""

from typing import Any

from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from simtti.workloads.catalogue import Options
from simtti.workloads.models.latent_diffusion import Recording
from simtti.workloads.models.pipeline import Run, Tokenizer, build_module, prompts
from simtti.workloads.models.sdxl import OPENCLIP_BIGG
from simtti.workloads.models.stable_diffusion import CLIP_L, VAE
from simtti.workloads.models.text_encoders import T5_XXL, add_t5

VAE_16: dict[str, Any] = {
    **VAE, "latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False,
}  # fmt: skip
MMDIT: dict[str, Any] = {
    "sample_size": 128, "patch_size": 2, "in_channels": 16, "out_channels": 16, "attention_head_dim": 64,
    "joint_attention_dim": 4096, "pooled_projection_dim": 2048,
}  # fmt: skip
MEDIUM_3: dict[str, Any] = {
    **MMDIT, "num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536,
    "pos_embed_max_size": 192,
}  # fmt: skip
MEDIUM_3_5: dict[str, Any] = {
    **MEDIUM_3, "pos_embed_max_size": 384, "qk_norm": "rms_norm", "dual_attention_layers": tuple(range(13)),
}  # fmt: skip
LARGE_3_5: dict[str, Any] = {
    **MMDIT, "num_layers": 38, "num_attention_heads": 38, "caption_projection_dim": 2432,
    "pos_embed_max_size": 192, "qk_norm": "rms_norm",
}  # fmt: skip


def record_medium_3(options: Options) -> Recording:
    """Stable Diffusion 3 medium: 2 B."""
    return record_sd3(options, MEDIUM_3)


def record_medium_3_5(options: Options) -> Recording:
    """Stable Diffusion 3.5 medium: 2.5 B."""
    return record_sd3(options, MEDIUM_3_5)


def record_large_3_5(options: Options) -> Recording:
    """Stable Diffusion 3.5 large: 8 B."""
    return record_sd3(options, LARGE_3_5)


def record_sd3(options: Options, transformer: dict[str, Any]) -> Recording:
    """Encode the prompts three times over, denoise, decode."""
    dtype = options.dtype
    recording = Recording()
    # The pooled text of both encoders is part of the timestep's embedding.
    clip_l = CLIPTextConfig(**CLIP_L)
    clip_g = CLIPTextConfig(**OPENCLIP_BIGG)
    pipeline = StableDiffusion3Pipeline(
        text_encoder=recording.add(
            "text_encoder", build_module(CLIPTextModelWithProjection, clip_l, dtype=dtype)
        ),
        text_encoder_2=recording.add(
            "text_encoder_2", build_module(CLIPTextModelWithProjection, clip_g, dtype=dtype)
        ),
        text_encoder_3=add_t5(recording, "text_encoder_3", T5_XXL, dtype),
        transformer=recording.add(
            "transformer", build_module(SD3Transformer2DModel, **transformer, dtype=dtype)
        ),
        vae=recording.add(
            "vae",
            build_module(AutoencoderKL, **VAE_16, scaling_factor=1.5305, shift_factor=0.0609, dtype=dtype),
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        tokenizer=Tokenizer(),
        tokenizer_2=Tokenizer(),
        tokenizer_3=Tokenizer(),
    )
    run = Run(recording, options, domain="joint", patches_stay_strided=True)
    run(
        pipeline, pipeline.transformer, prompt=prompts(options), height=options.height, width=options.width,
        guidance_scale=options.guidance, output_type="np",
    )  # fmt: skip
    recording.phases = recording.recorder.phases()
    return recording
