"""Stable Diffusion 3 (medium) and 3.5 (medium, large), as diffusers' StableDiffusion3Pipeline runs them.

Configurations are those released with the weights (stabilityai/stable-diffusion-3-medium-diffusers and so on).
Three text encoders: 77 tokens of CLIP ViT-L and OpenCLIP ViT-bigG side by side, then 256 of T5-XXL; text and image
attend in one sequence. In 3.5 medium the first 13 blocks attend over the image once more.
"""

from typing import Any

from simtti.workloads.models.sdxl import OPENCLIP_BIGG, OPENCLIP_BIGG_PARAMETERS
from simtti.workloads.models.stable_diffusion import CLIP_L, VAE
from simtti.workloads.models.text_encoders import T5_XXL, T5_XXL_PARAMETERS, add_t5
from simtti.workloads.recording import Recording
from simtti.workloads.workload import Decoding, Options, Workload

VAE_16: dict[str, Any] = {
    **VAE, "sample_size": 1024, "latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False,
}  # fmt: skip
VAE_16_PARAMETERS = 83_819_683
# CLIP ViT-L with its projection.
CLIP_L_PROJECTED_PARAMETERS = 123_650_304
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


def record_medium_3(options: Options, recording: Recording) -> None:
    """Stable Diffusion 3 medium: 2 B."""
    record_sd3(options, recording, MEDIUM_3)


def record_medium_3_5(options: Options, recording: Recording) -> None:
    """Stable Diffusion 3.5 medium: 2.5 B."""
    record_sd3(options, recording, MEDIUM_3_5)


def record_large_3_5(options: Options, recording: Recording) -> None:
    """Stable Diffusion 3.5 large: 8 B."""
    record_sd3(options, recording, LARGE_3_5)


def record_sd3(options: Options, recording: Recording, transformer: dict[str, Any]) -> None:
    """Encode the prompts three times over, denoise, decode."""
    from diffusers import (
        AutoencoderKL,
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Img2ImgPipeline,
        StableDiffusion3Pipeline,
    )
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    from simtti.workloads.models.pipelines.diffusers_run import Run
    from simtti.workloads.models.pipelines.inputs import Tokenizer, prompts

    dtype = options.dtype
    # The pooled text of both encoders is part of the timestep's embedding.
    clip_l = CLIPTextConfig(**CLIP_L)
    clip_g = CLIPTextConfig(**OPENCLIP_BIGG)
    pipeline = (StableDiffusion3Pipeline if options.strength is None else StableDiffusion3Img2ImgPipeline)(
        text_encoder=recording.add("text_encoder", CLIPTextModelWithProjection, clip_l, dtype=dtype),
        text_encoder_2=recording.add("text_encoder_2", CLIPTextModelWithProjection, clip_g, dtype=dtype),
        text_encoder_3=add_t5(recording, "text_encoder_3", T5_XXL, dtype),
        transformer=recording.add("transformer", SD3Transformer2DModel, **transformer, dtype=dtype),
        vae=recording.add(
            "vae", AutoencoderKL, **VAE_16, scaling_factor=1.5305, shift_factor=0.0609, dtype=dtype
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        tokenizer=Tokenizer(),
        tokenizer_2=Tokenizer(),
        tokenizer_3=Tokenizer(),
    )
    run = Run(
        recording, options, domain="joint", strided_patches=("pos_embed", "time_text_embed"),
        steps=options.sampled_steps(rounded_up=True),
    )  # fmt: skip
    run.decode_with(pipeline.vae)
    run(
        pipeline, pipeline.transformer, prompt=prompts(options), height=options.height, width=options.width,
        guidance_scale=options.guidance, output_type="np", **run.from_image(pipeline),
    )  # fmt: skip


WORKLOADS = (
    Workload(
        name="sd3-medium",
        task="text-to-image",
        architecture="latent diffusion transformer",
        defaults=Options(height=1024, width=1024, steps=28, guidance=7.0),
        parameters={
            "text_encoder": CLIP_L_PROJECTED_PARAMETERS,
            "text_encoder_2": OPENCLIP_BIGG_PARAMETERS,
            "text_encoder_3": T5_XXL_PARAMETERS,
            "transformer": 2_028_328_000,
            "vae": VAE_16_PARAMETERS,
        },
        source="Esser et al., 2024: 2 B MMDiT, depth 24; three text encoders",
        url="https://huggingface.co/stabilityai/stable-diffusion-3-medium-diffusers",
        builder=record_medium_3,
        image_to_image=True,
        decoding=Decoding(tile=1024),
        size_multiple=16,
        max_size=3072,
        place=30,
    ),
    Workload(
        name="sd3.5-medium",
        task="text-to-image",
        architecture="latent diffusion transformer",
        defaults=Options(height=1024, width=1024, steps=28, guidance=7.0, dtype="bf16"),
        parameters={
            "text_encoder": CLIP_L_PROJECTED_PARAMETERS,
            "text_encoder_2": OPENCLIP_BIGG_PARAMETERS,
            "text_encoder_3": T5_XXL_PARAMETERS,
            "transformer": 2_243_171_520,
            "vae": VAE_16_PARAMETERS,
        },
        source="Stability AI's release: 2.5 B MMDiT-X, of which 0.2 B are a fixed position table",
        url="https://huggingface.co/stabilityai/stable-diffusion-3.5-medium",
        builder=record_medium_3_5,
        image_to_image=True,
        decoding=Decoding(tile=1024),
        size_multiple=16,
        max_size=6144,
        place=30,
    ),
    Workload(
        name="sd3.5-large",
        task="text-to-image",
        architecture="latent diffusion transformer",
        defaults=Options(height=1024, width=1024, steps=28, guidance=7.0, dtype="bf16"),
        parameters={
            "text_encoder": CLIP_L_PROJECTED_PARAMETERS,
            "text_encoder_2": OPENCLIP_BIGG_PARAMETERS,
            "text_encoder_3": T5_XXL_PARAMETERS,
            "transformer": 8_056_627_520,
            "vae": VAE_16_PARAMETERS,
        },
        source="Stability AI's release: 8.1 B MMDiT, depth 38",
        url="https://huggingface.co/stabilityai/stable-diffusion-3.5-large",
        builder=record_large_3_5,
        image_to_image=True,
        decoding=Decoding(tile=1024),
        size_multiple=16,
        max_size=3072,
        place=30,
    ),
)
