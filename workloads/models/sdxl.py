"""Stable Diffusion XL (base 1.0), SDXL-Turbo, SDXL-Lightning, SDXL with LCM, and SSD-1B, as diffusers' StableDiffusionXLPipeline
runs them.

Without refiner or watermark. Configurations are those released with the weights
(stabilityai/stable-diffusion-xl-base-1.0, stabilityai/sdxl-turbo, segmind/SSD-1B), and so is
force_zeros_for_empty_prompt: without a negative prompt its embeddings are zeros and no encoder runs for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simtti.workloads.models.stable_diffusion import CLIP_L, CLIP_L_PARAMETERS, NOISE, VAE, VAE_PARAMETERS
from simtti.workloads.recording import Recording
from simtti.workloads.workload import Decoding, Options, Workload

if TYPE_CHECKING:
    import torch

# OpenCLIP's ViT-bigG/14, 695 M with its projection.
OPENCLIP_BIGG: dict[str, Any] = {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
    "hidden_act": "gelu", "projection_dim": 1280, "bos_token_id": 0, "eos_token_id": 2,
}  # fmt: skip
OPENCLIP_BIGG_PARAMETERS = 694_659_840
# Three levels, attention at the lower two with 2 and 10 transformer blocks; conditioned on pooled text and sizes.
UNET: dict[str, Any] = {
    "sample_size": 128, "cross_attention_dim": 2048, "attention_head_dim": [5, 10, 20],
    "block_out_channels": (320, 640, 1280), "transformer_layers_per_block": [1, 2, 10],
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "use_linear_projection": True, "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}  # fmt: skip
VAE_1024: dict[str, Any] = {**VAE, "sample_size": 1024}
# Distilled from SDXL: no attention in the middle, 26 transformer blocks instead of 70.
SSD_1B: dict[str, Any] = {
    **UNET, "mid_block_type": "UNetMidBlock2D", "transformer_layers_per_block": [1, [2, 2], [4, 4]],
    "reverse_transformer_layers_per_block": [[4, 4, 10], [2, 1, 1], 1],
}  # fmt: skip


def record_sdxl(options: Options, recording: Recording) -> None:
    """SDXL: a UNet of 2.6 B, Euler."""
    from diffusers import EulerDiscreteScheduler

    record_pipeline(options, recording, UNET, EulerDiscreteScheduler(**NOISE, timestep_spacing="leading"))


def record_turbo(options: Options, recording: Recording) -> None:
    """SDXL-Turbo: SDXL's UNet distilled to few steps, Euler with fresh noise at each."""
    from diffusers import EulerAncestralDiscreteScheduler

    scheduler = EulerAncestralDiscreteScheduler(**NOISE, timestep_spacing="trailing")
    record_pipeline(options, recording, {**UNET, "sample_size": 64}, scheduler)


def record_lightning(options: Options, recording: Recording) -> None:
    """SDXL-Lightning: SDXL's UNet distilled to few steps without guidance, Euler."""
    from diffusers import EulerDiscreteScheduler

    record_pipeline(options, recording, UNET, EulerDiscreteScheduler(**NOISE, timestep_spacing="trailing"))


def record_lcm(options: Options, recording: Recording) -> None:
    """SDXL with the latent consistency LoRA merged into its weights: few steps, consistency sampling."""
    from diffusers import LCMScheduler

    record_pipeline(options, recording, UNET, LCMScheduler(**NOISE))


def record_ssd_1b(options: Options, recording: Recording) -> None:
    """SSD-1B: a UNet of 1.3 B, Euler."""
    from diffusers import EulerDiscreteScheduler

    record_pipeline(options, recording, SSD_1B, EulerDiscreteScheduler(**NOISE, timestep_spacing="leading"))


def record_pipeline(
    options: Options,
    recording: Recording,
    unet_config: dict[str, Any],
    scheduler: Any,
    controlnet: dict[str, Any] | None = None,
) -> None:
    """Encode the prompts with both encoders, denoise, decode: in fp32 if the pipeline runs in fp16. controlnet: the configuration of one
    that runs before the UNet."""
    import torch
    from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    from simtti.workloads.models.pipelines.latent_diffusion import (
        image_control,
        initial_latents,
        record_decoding,
        record_denoising,
        record_image,
    )
    from simtti.workloads.torch_calls import TORCH_DTYPES

    dtype = options.dtype
    encoders = [
        recording.add("text_encoder", CLIPTextModel, CLIPTextConfig(**CLIP_L), dtype=dtype),
        recording.add(
            "text_encoder_2", CLIPTextModelWithProjection, CLIPTextConfig(**OPENCLIP_BIGG), dtype=dtype
        ),
    ]
    unet = recording.add("unet", UNet2DConditionModel, **unet_config, dtype=dtype)
    network = recording.add("controlnet", ControlNetModel, **controlnet, dtype=dtype) if controlnet else None
    vae = recording.add(
        "vae", AutoencoderKL, **VAE_1024, scaling_factor=0.13025, force_upcast=True, dtype=dtype
    )
    factor = 2 ** (len(vae.config.block_out_channels) - 1)

    with recording.step("text_encoder", domain="text"), recording.scope("pipeline"):
        prompts, pooled = encode_prompts(recording, encoders, options)
        if options.strength is None:
            noise = initial_latents(recording, options, unet.config.in_channels, factor, scheduler)
        # Original size, crop corner and target size: numbers made on the host.
        size = (options.height, options.width)
        time_ids = torch.tensor([[*size, 0, 0, *size]], dtype=TORCH_DTYPES[dtype])
        if options.guided:
            prompts = torch.cat([torch.zeros_like(prompts), prompts], dim=0)
            pooled = torch.cat([torch.zeros_like(pooled), pooled], dim=0)
            time_ids = torch.cat([time_ids, time_ids], dim=0)
        time_ids = time_ids.to(recording.device).repeat(options.batch, 1)
        conditions: dict[str, Any] = {
            "encoder_hidden_states": prompts,
            "added_cond_kwargs": {"text_embeds": pooled, "time_ids": time_ids},
        }
        control = image_control(recording, options, network, **conditions) if network else None

    upcast = vae.dtype == torch.float16 and vae.config.force_upcast
    if options.strength is not None:
        noise = record_image(recording, options, vae, scheduler, upcast=upcast)
    latents = record_denoising(recording, options, scheduler, unet, noise, control, **conditions)
    record_decoding(recording, options, vae, latents, upcast=upcast, one_by_one=False)


def encode_prompts(
    recording: Recording, encoders: list[Any], options: Options
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both encoders' penultimate states side by side, (batch, 77, 2048), and the second's pooled text, (batch, 1280)."""
    import torch

    from simtti.workloads.models.pipelines.latent_diffusion import per_image, tokens

    states = []
    for encoder in encoders:
        output = encoder(tokens(recording, options.batch), output_hidden_states=True)
        states.append(output.hidden_states[-2])
        pooled = output[0]
    return per_image(torch.concat(states, dim=-1)), per_image(pooled)


WORKLOADS = (
    Workload(
        name="sdxl",
        task="text-to-image",
        architecture="latent diffusion UNet",
        defaults=Options(height=1024, width=1024, steps=50, guidance=5.0),
        parameters={
            "text_encoder": CLIP_L_PARAMETERS,
            "text_encoder_2": OPENCLIP_BIGG_PARAMETERS,
            "unet": 2_567_463_684,
            "vae": VAE_PARAMETERS,
        },
        source="Podell et al., 2023, table 1: 2.6 B UNet, text encoders CLIP ViT-L and OpenCLIP ViT-bigG of 817 M",
        url="https://arxiv.org/abs/2307.01952",
        builder=record_sdxl,
        image_to_image=True,
        decoding=Decoding(tile=1024),
        place=20,
    ),
    Workload(
        name="sdxl-turbo",
        task="text-to-image",
        architecture="latent diffusion UNet",
        defaults=Options(height=512, width=512, steps=1, guidance=5.0),
        parameters={
            "text_encoder": CLIP_L_PARAMETERS,
            "text_encoder_2": OPENCLIP_BIGG_PARAMETERS,
            "unet": 2_567_463_684,
            "vae": VAE_PARAMETERS,
        },
        source="Sauer et al., 2023: SDXL's networks, distilled to 1-4 steps; guided unless asked otherwise, as the pipeline is",
        url="https://huggingface.co/stabilityai/sdxl-turbo",
        builder=record_turbo,
        image_to_image=True,
        decoding=Decoding(tile=1024),
        place=20,
    ),
    Workload(
        name="sdxl-lightning",
        task="text-to-image",
        architecture="latent diffusion UNet",
        defaults=Options(height=1024, width=1024, steps=4, guidance=0.0),
        parameters={
            "text_encoder": CLIP_L_PARAMETERS,
            "text_encoder_2": OPENCLIP_BIGG_PARAMETERS,
            "unet": 2_567_463_684,
            "vae": VAE_PARAMETERS,
        },
        source="Lin et al., 2024 (arXiv 2402.13929): SDXL's networks, distilled to 1-8 steps without guidance",
        url="https://huggingface.co/ByteDance/SDXL-Lightning",
        builder=record_lightning,
        decoding=Decoding(tile=1024),
        place=20,
    ),
    Workload(
        name="sdxl-lcm",
        task="text-to-image",
        architecture="latent diffusion UNet",
        defaults=Options(height=1024, width=1024, steps=4, guidance=1.0),
        parameters={
            "text_encoder": CLIP_L_PARAMETERS,
            "text_encoder_2": OPENCLIP_BIGG_PARAMETERS,
            "unet": 2_567_463_684,
            "vae": VAE_PARAMETERS,
        },
        source="Luo et al., 2023 (arXiv 2311.05556): SDXL's networks with the LCM LoRA merged, 2-8 steps without guidance",
        url="https://huggingface.co/latent-consistency/lcm-lora-sdxl",
        builder=record_lcm,
        decoding=Decoding(tile=1024),
        place=20,
    ),
    Workload(
        name="ssd-1b",
        task="text-to-image",
        architecture="latent diffusion UNet",
        defaults=Options(height=1024, width=1024, steps=50, guidance=5.0),
        parameters={
            "text_encoder": CLIP_L_PARAMETERS,
            "text_encoder_2": OPENCLIP_BIGG_PARAMETERS,
            "unet": 1_331_334_404,
            "vae": VAE_PARAMETERS,
        },
        source="Gupta et al., 2024 (arXiv 2401.02677) and the released configuration: 1.3 B UNet",
        url="https://huggingface.co/segmind/SSD-1B",
        builder=record_ssd_1b,
        image_to_image=True,
        decoding=Decoding(tile=1024),
        place=20,
    ),
)
