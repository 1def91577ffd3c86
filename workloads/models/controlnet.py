"""Stable Diffusion 1.5 and Stable Diffusion XL with a ControlNet, as diffusers' StableDiffusionControlNetPipeline and
StableDiffusionXLControlNetPipeline run them.

A ControlNet is a copy of the UNet's way down, whose results, each through a convolution that began as zeros, are added to what the
UNet's way up is given (Zhang et al., 2023). It runs before the UNet in each step, on the same latents, prompts and timestep and on an
image of the latents' size times eight: edges, depth, a pose. What finds these in a photograph runs before the pipeline and is not
included. Configurations are those released with the weights (lllyasviel/sd-controlnet-canny, diffusers/controlnet-canny-sdxl-1.0).
"""

from __future__ import annotations

from typing import Any

from simtti.workloads.models import sdxl, stable_diffusion
from simtti.workloads.recording import Recording
from simtti.workloads.workload import Decoding, Options, Workload

# What shrinks the image to the latents' size: 16, 32, 96, 256 channels and the UNet's.
EMBEDDING: dict[str, Any] = {
    "conditioning_embedding_out_channels": (16, 32, 96, 256),
    "conditioning_channels": 3,
}
CONTROLNET_1_5: dict[str, Any] = {**EMBEDDING, "cross_attention_dim": 768, "attention_head_dim": 8}
# Of SDXL's UNet, what both classes take.
CONTROLNET_XL: dict[str, Any] = {
    **EMBEDDING,
    **{
        name: sdxl.UNET[name]
        for name in (
            "cross_attention_dim", "attention_head_dim", "block_out_channels", "transformer_layers_per_block",
            "down_block_types", "use_linear_projection", "addition_embed_type", "addition_time_embed_dim",
            "projection_class_embeddings_input_dim",
        )
    },
}  # fmt: skip
CONTROLNET_1_5_PARAMETERS = 361_279_120
CONTROLNET_XL_PARAMETERS = 1_251_014_160


def record_1_5(options: Options, recording: Recording) -> None:
    """Stable Diffusion 1.5 with a ControlNet of 361 M."""
    from diffusers import PNDMScheduler

    scheduler = PNDMScheduler(**stable_diffusion.NOISE, skip_prk_steps=True, set_alpha_to_one=False)
    stable_diffusion.record_pipeline(
        options, recording, stable_diffusion.CLIP_L, stable_diffusion.UNET_1_5, scheduler, CONTROLNET_1_5
    )


def record_sdxl(options: Options, recording: Recording) -> None:
    """SDXL with a ControlNet of 1.25 B."""
    from diffusers import EulerDiscreteScheduler

    scheduler = EulerDiscreteScheduler(**stable_diffusion.NOISE, timestep_spacing="leading")
    sdxl.record_pipeline(options, recording, sdxl.UNET, scheduler, CONTROLNET_XL)


WORKLOADS = (
    Workload(
        name="stable-diffusion-1.5-controlnet",
        task="text-to-image",
        architecture="latent diffusion UNet with ControlNet",
        defaults=Options(height=512, width=512, steps=50, guidance=7.5),
        parameters={
            "text_encoder": stable_diffusion.CLIP_L_PARAMETERS,
            "unet": 859_520_964,
            "controlnet": CONTROLNET_1_5_PARAMETERS,
            "vae": stable_diffusion.VAE_PARAMETERS,
        },
        source="Zhang et al., 2023 (arXiv 2302.05543) and the released configuration: a ControlNet of 361 M",
        url="https://huggingface.co/lllyasviel/sd-controlnet-canny",
        builder=record_1_5,
        decoding=Decoding(tile=512),
        place=21,
    ),
    Workload(
        name="sdxl-controlnet",
        task="text-to-image",
        architecture="latent diffusion UNet with ControlNet",
        defaults=Options(height=1024, width=1024, steps=50, guidance=5.0),
        parameters={
            "text_encoder": stable_diffusion.CLIP_L_PARAMETERS,
            "text_encoder_2": sdxl.OPENCLIP_BIGG_PARAMETERS,
            "unet": 2_567_463_684,
            "controlnet": CONTROLNET_XL_PARAMETERS,
            "vae": stable_diffusion.VAE_PARAMETERS,
        },
        source="the released configuration, as counted from it: a ControlNet of 1.25 B on SDXL's networks",
        url="https://huggingface.co/diffusers/controlnet-canny-sdxl-1.0",
        builder=record_sdxl,
        decoding=Decoding(tile=1024),
        place=21,
    ),
)
