"""Stable Video Diffusion (img2vid, 14 frames, and img2vid-xt, 25), as diffusers' StableVideoDiffusionPipeline runs them.

Configurations are those released with the weights, which are the classes' defaults but for the heads. The image
encoder is OpenCLIP's ViT-H/14. The VAE encodes in fp32 where the weights are fp16, and decodes in their dtype,
all frames of a video at once.
"""

from typing import Any

from simtti.workloads.recording import Recording
from simtti.workloads.workload import ONLY_WHOLE, Options, Workload

# OpenCLIP's ViT-H/14 image model, 632 M with its projection.
OPENCLIP_H_VISION: dict[str, Any] = {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16,
    "hidden_act": "gelu", "projection_dim": 1024, "patch_size": 14, "image_size": 224,
}  # fmt: skip
OPENCLIP_H_VISION_PARAMETERS = 632_076_800
VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "force_upcast": True,
}  # fmt: skip
SCHEDULER: dict[str, Any] = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "interpolation_type": "linear",
    "prediction_type": "v_prediction", "sigma_max": 700.0, "sigma_min": 0.002, "steps_offset": 1,
    "timestep_spacing": "leading", "timestep_type": "continuous", "use_karras_sigmas": True,
}  # fmt: skip


def record_svd(options: Options, recording: Recording) -> None:
    """Encode the image, denoise the frames together, decode them."""
    from diffusers import (
        AutoencoderKLTemporalDecoder,
        EulerDiscreteScheduler,
        StableVideoDiffusionPipeline,
        UNetSpatioTemporalConditionModel,
    )
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    from simtti.workloads.models.pipelines.diffusers_run import Run
    from simtti.workloads.models.pipelines.inputs import ImageProcessor, image

    dtype = options.dtype
    pipeline = StableVideoDiffusionPipeline(
        image_encoder=recording.add(
            "image_encoder", CLIPVisionModelWithProjection, CLIPVisionConfig(**OPENCLIP_H_VISION), dtype=dtype
        ),
        unet=recording.add(
            "unet", UNetSpatioTemporalConditionModel, num_attention_heads=(5, 10, 20, 20), dtype=dtype
        ),
        vae=recording.add("vae", AutoencoderKLTemporalDecoder, **VAE, dtype=dtype),
        scheduler=EulerDiscreteScheduler(**SCHEDULER),
        feature_extractor=ImageProcessor(),
    )
    run = Run(recording, options, before="image_encoder", before_domain="spatial", channel_dim=2)
    run.reads_true = options.guided
    run.repeat_tiles(pipeline.vae)
    run(
        pipeline, pipeline.unet, image=image(options), height=options.height, width=options.width,
        num_frames=options.frames, max_guidance_scale=options.guidance, output_type="np",
    )  # fmt: skip


WORKLOADS = (
    Workload(
        name="svd",
        task="image-to-video",
        architecture="latent video diffusion UNet",
        defaults=Options(height=576, width=1024, steps=25, frames=14, guidance=3.0),
        parameters={
            "image_encoder": OPENCLIP_H_VISION_PARAMETERS,
            "unet": 1_524_623_082,
            "vae": 97_742_847,
        },
        source="Blattmann et al., 2023 (arXiv 2311.15127): UNet 1.5 B, decoder with temporal layers",
        url="https://huggingface.co/stabilityai/stable-video-diffusion-img2vid",
        builder=record_svd,
        decoding=ONLY_WHOLE,
        size_multiple=64,
        place=120,
    ),
    Workload(
        name="svd-xt",
        task="image-to-video",
        architecture="latent video diffusion UNet",
        defaults=Options(height=576, width=1024, steps=25, frames=25, guidance=3.0),
        parameters={
            "image_encoder": OPENCLIP_H_VISION_PARAMETERS,
            "unet": 1_524_623_082,
            "vae": 97_742_847,
        },
        source="Blattmann et al., 2023 (arXiv 2311.15127): svd, fine-tuned on 25 frames",
        url="https://huggingface.co/stabilityai/stable-video-diffusion-img2vid-xt",
        builder=record_svd,
        decoding=ONLY_WHOLE,
        size_multiple=64,
        place=120,
    ),
)
