"""Stable Diffusion 1.5 and 2.1, as diffusers' StableDiffusionPipeline runs them.

Configurations are those released with the weights (stable-diffusion-v1-5 and stabilityai/stable-diffusion-2-1).
The safety checker, a CLIP image encoder run on the result, is not included: the pipeline without one.
"""

from typing import Any

from simtti.workloads.recording import Recording
from simtti.workloads.workload import Decoding, Options, Workload

# 12 layers of 768, 12 heads: OpenAI's ViT-L/14 text model, 123 M.
CLIP_L: dict[str, Any] = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "hidden_act": "quick_gelu", "projection_dim": 768, "bos_token_id": 0, "eos_token_id": 2,
}  # fmt: skip
CLIP_L_PARAMETERS = 123_060_480
# OpenCLIP's ViT-H/14 without its last layer, 340 M.
OPENCLIP_H: dict[str, Any] = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16,
    "hidden_act": "gelu", "projection_dim": 512, "bos_token_id": 0, "eos_token_id": 2,
}  # fmt: skip
OPENCLIP_H_PARAMETERS = 340_387_840

UNET_1_5: dict[str, Any] = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
# attention_head_dim is, for historical reasons, the number of heads: of 64 channels each.
UNET_2_1: dict[str, Any] = {
    "sample_size": 96, "cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20],
    "use_linear_projection": True, "upcast_attention": True,
}  # fmt: skip
# 128 channels x [1, 2, 4, 4], two residual blocks a level: an image shrinks by 2 at three of the four levels. sample_size, the side
# in pixels of the images it was tuned on, is the side of a tile where it decodes by tiles; nothing else depends on it.
VAE: dict[str, Any] = {
    "sample_size": 512,
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
}  # fmt: skip
VAE_PARAMETERS = 83_653_863

NOISE: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}


def record_1_5(options: Options, recording: Recording) -> None:
    """Stable Diffusion 1.5: CLIP ViT-L/14, the UNet of 860 M, PNDM, which evaluates it once more than steps."""
    from diffusers import PNDMScheduler

    scheduler = PNDMScheduler(**NOISE, skip_prk_steps=True, set_alpha_to_one=False)
    record_pipeline(options, recording, CLIP_L, UNET_1_5, scheduler)


def record_2_1(options: Options, recording: Recording) -> None:
    """Stable Diffusion 2.1: OpenCLIP ViT-H/14, linear projections, 64 channels a head, DDIM of velocity."""
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(
        **NOISE, clip_sample=False, set_alpha_to_one=False, prediction_type="v_prediction"
    )
    record_pipeline(options, recording, OPENCLIP_H, UNET_2_1, scheduler)


def record_pipeline(
    options: Options,
    recording: Recording,
    text_config: dict[str, Any],
    unet_config: dict[str, Any],
    scheduler: Any,
    controlnet: dict[str, Any] | None = None,
) -> None:
    """Encode the prompts, denoise, decode. controlnet: the configuration of one that runs before the UNet."""
    import torch
    from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from simtti.workloads.models.pipelines.latent_diffusion import (
        image_control,
        initial_latents,
        per_image,
        record_decoding,
        record_denoising,
        record_image,
        tokens,
    )

    dtype = options.dtype
    text_encoder = recording.add("text_encoder", CLIPTextModel, CLIPTextConfig(**text_config), dtype=dtype)
    unet = recording.add("unet", UNet2DConditionModel, **unet_config, dtype=dtype)
    network = recording.add("controlnet", ControlNetModel, **controlnet, dtype=dtype) if controlnet else None
    tuned_on = {**VAE, "sample_size": unet_config["sample_size"] * 8}
    vae = recording.add("vae", AutoencoderKL, **tuned_on, scaling_factor=0.18215, dtype=dtype)
    factor = 2 ** (len(vae.config.block_out_channels) - 1)

    with recording.step("text_encoder", domain="text"), recording.scope("pipeline"):
        prompts = per_image(text_encoder(tokens(recording, options.batch), attention_mask=None)[0])
        if options.guided:
            # The empty negative prompt is encoded like any other, in a call of its own.
            negative = per_image(text_encoder(tokens(recording, options.batch), attention_mask=None)[0])
            prompts = torch.cat([negative, prompts])
        if options.strength is None:
            latents = initial_latents(recording, options, unet.config.in_channels, factor, scheduler)
        control = (
            image_control(recording, options, network, encoder_hidden_states=prompts) if network else None
        )

    if options.strength is not None:
        latents = record_image(recording, options, vae, scheduler, upcast=False)
    latents = record_denoising(
        recording, options, scheduler, unet, latents, control, encoder_hidden_states=prompts
    )
    record_decoding(recording, options, vae, latents, upcast=False, one_by_one=True)


WORKLOADS = (
    Workload(
        name="stable-diffusion-1.5",
        task="text-to-image",
        architecture="latent diffusion UNet",
        defaults=Options(height=512, width=512, steps=50, guidance=7.5),
        parameters={"text_encoder": CLIP_L_PARAMETERS, "unet": 859_520_964, "vae": VAE_PARAMETERS},
        source="Rombach et al., CVPR 2022, and the model card: 860 M UNet, 123 M text encoder (CLIP ViT-L/14)",
        url="https://github.com/CompVis/stable-diffusion",
        builder=record_1_5,
        decoding=Decoding(tile=512),
        aliases=("stable-diffusion",),
        image_to_image=True,
        place=10,
    ),
    Workload(
        name="stable-diffusion-2.1",
        task="text-to-image",
        architecture="latent diffusion UNet",
        defaults=Options(height=768, width=768, steps=50, guidance=7.5),
        parameters={"text_encoder": OPENCLIP_H_PARAMETERS, "unet": 865_910_724, "vae": VAE_PARAMETERS},
        source="Stability AI's v2-inference-v configuration: 866 M UNet, OpenCLIP ViT-H text encoder (23 of 24 layers)",
        url="https://github.com/Stability-AI/stablediffusion",
        builder=record_2_1,
        image_to_image=True,
        decoding=Decoding(tile=768),
        place=10,
    ),
)
