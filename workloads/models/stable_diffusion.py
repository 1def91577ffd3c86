"""Stable Diffusion 1.5 and 2.1, as diffusers' StableDiffusionPipeline runs them.

Configurations are those released with the weights (stable-diffusion-v1-5 and stabilityai/stable-diffusion-2-1).
The safety checker, a CLIP image encoder run on the result, is not included: the pipeline without one.
"""

from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, PNDMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from simtti.workloads.catalogue import Options
from simtti.workloads.models.latent_diffusion import (
    Recording,
    build,
    guided,
    initial_latents,
    per_image,
    record_decoding,
    record_denoising,
    tokens,
)

# 12 layers of 768, 12 heads: OpenAI's ViT-L/14 text model, 123 M.
CLIP_L: dict[str, Any] = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "hidden_act": "quick_gelu", "projection_dim": 768, "bos_token_id": 0, "eos_token_id": 2,
}  # fmt: skip
# OpenCLIP's ViT-H/14 without its last layer, 340 M.
OPENCLIP_H: dict[str, Any] = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16,
    "hidden_act": "gelu", "projection_dim": 512, "bos_token_id": 0, "eos_token_id": 2,
}  # fmt: skip

UNET_1_5: dict[str, Any] = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
# attention_head_dim is, for historical reasons, the number of heads: of 64 channels each.
UNET_2_1: dict[str, Any] = {
    "sample_size": 96, "cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20],
    "use_linear_projection": True, "upcast_attention": True,
}  # fmt: skip
# 128 channels x [1, 2, 4, 4], two residual blocks a level: an image shrinks by 2 at three of the four levels.
VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
}  # fmt: skip

NOISE: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}


def record_1_5(options: Options) -> Recording:
    """Stable Diffusion 1.5: CLIP ViT-L/14, the UNet of 860 M, PNDM, which evaluates it once more than steps."""
    scheduler = PNDMScheduler(**NOISE, skip_prk_steps=True, set_alpha_to_one=False)
    return record_pipeline(options, CLIP_L, UNET_1_5, scheduler)


def record_2_1(options: Options) -> Recording:
    """Stable Diffusion 2.1: OpenCLIP ViT-H/14, linear projections, 64 channels a head, DDIM of velocity."""
    scheduler = DDIMScheduler(
        **NOISE, clip_sample=False, set_alpha_to_one=False, prediction_type="v_prediction"
    )
    return record_pipeline(options, OPENCLIP_H, UNET_2_1, scheduler)


def record_pipeline(
    options: Options, text_config: dict[str, Any], unet_config: dict[str, Any], scheduler: Any
) -> Recording:
    """Encode the prompts, denoise, decode."""
    dtype = options.dtype
    recording = Recording()
    text_encoder = recording.add(
        "text_encoder", build(CLIPTextModel, CLIPTextConfig(**text_config), dtype=dtype)
    )
    unet = recording.add("unet", build(UNet2DConditionModel, **unet_config, dtype=dtype))
    vae = recording.add("vae", build(AutoencoderKL, **VAE, scaling_factor=0.18215, dtype=dtype))
    factor = 2 ** (len(vae.config.block_out_channels) - 1)

    with recording.recorder.step("text_encoder", domain="text"), recording.recorder.scope("pipeline"):
        prompts = per_image(text_encoder(tokens(options.batch), attention_mask=None)[0])
        if guided(options):
            # The empty negative prompt is encoded like any other, in a call of its own.
            negative = per_image(text_encoder(tokens(options.batch), attention_mask=None)[0])
            prompts = torch.cat([negative, prompts])
        latents = initial_latents(options, unet.config.in_channels, factor, scheduler)

    latents = record_denoising(recording, options, scheduler, unet, latents, encoder_hidden_states=prompts)
    record_decoding(recording, options, vae, latents, upcast=False, one_by_one=True)
    recording.phases = recording.recorder.phases()
    return recording
