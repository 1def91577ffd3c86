"""Cosmos-Predict2, 2 B and 14 B, text to image and image to video, as diffusers' Cosmos2TextToImagePipeline and
Cosmos2VideoToWorldPipeline run them, without the guardrail's models.

Configurations are those of diffusers' conversion script (nvidia/Cosmos-Predict2-2B-Text2Image and so on): self-attention over
all patches, cross-attention to 512 tokens of T5-11B, modulation of low rank. Guidance calls the transformer twice a step, one
after the other. A video starts from an image: it is encoded with as many blank frames as are asked for. The VAE is Wan 2.1's.
"""

from dataclasses import replace
from typing import Any

from simtti.workloads.models.text_encoders import T5_11B, T5_11B_PARAMETERS, add_t5
from simtti.workloads.models.wan import VAE_PARAMETERS
from simtti.workloads.recording import Recording
from simtti.workloads.workload import Builder, Decoding, Options, Workload

COSMOS: dict[str, Any] = {
    "mlp_ratio": 4.0, "text_embed_dim": 1024, "adaln_lora_dim": 256, "max_size": (128, 240, 240),
    "patch_size": (1, 2, 2), "concat_padding_mask": True, "extra_pos_embed_type": None, "out_channels": 16,
}  # fmt: skip
COSMOS_2B: dict[str, Any] = {**COSMOS, "num_attention_heads": 16, "num_layers": 28}
COSMOS_14B: dict[str, Any] = {**COSMOS, "num_attention_heads": 40, "num_layers": 36}


def record_2b_image(options: Options, recording: Recording) -> None:
    """2 B, text to image."""
    record_cosmos(options, recording, {**COSMOS_2B, "rope_scale": (1.0, 4.0, 4.0)})


def record_14b_image(options: Options, recording: Recording) -> None:
    """14 B, text to image."""
    record_cosmos(options, recording, {**COSMOS_14B, "rope_scale": (1.0, 4.0, 4.0)})


def record_2b_video(options: Options, recording: Recording) -> None:
    """2 B, image to video."""
    record_cosmos(options, recording, {**COSMOS_2B, "rope_scale": (1.0, 3.0, 3.0)})


def record_14b_video(options: Options, recording: Recording) -> None:
    """14 B, image to video."""
    record_cosmos(options, recording, {**COSMOS_14B, "rope_scale": (20 / 24, 2.0, 2.0)})


def record_cosmos(options: Options, recording: Recording, transformer: dict[str, Any]) -> None:
    """Encode the prompts (and the image), denoise, decode."""
    import diffusers

    from simtti.workloads.models.pipelines.diffusers_run import Run
    from simtti.workloads.models.pipelines.inputs import Guardrail, Tokenizer, image, prompts

    _provide_resize()
    dtype = options.dtype
    video = options.frames is not None
    channels = 17 if video else 16  # which frames are given is a channel
    pipeline_class = diffusers.Cosmos2VideoToWorldPipeline if video else diffusers.Cosmos2TextToImagePipeline
    pipeline = pipeline_class(
        text_encoder=add_t5(recording, "text_encoder", T5_11B, dtype),
        transformer=recording.add(
            "transformer",
            diffusers.CosmosTransformer3DModel,
            **transformer,
            in_channels=channels,
            dtype=dtype,
        ),
        vae=recording.add("vae", diffusers.AutoencoderKLWan, dtype=dtype),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True),
        tokenizer=Tokenizer(512),
        safety_checker=Guardrail(),
    )
    run = Run(recording, options, domain="joint", noise_levels_there=True)
    run.decode_with(pipeline.vae, repeats=True)
    arguments: dict[str, Any] = {}
    if video:
        run.split(pipeline, "prepare_latents", "image_encoder")
        run.repeat(pipeline.vae.encoder, "forward")
        arguments = {"image": image(options), "num_frames": options.frames}
    run(
        pipeline, pipeline.transformer, prompt=prompts(options), height=options.height, width=options.width,
        guidance_scale=options.guidance, output_type="np", **arguments,
    )  # fmt: skip


def _provide_resize() -> None:
    """Where torchvision is missing, what the transformer asks of it: a mask of padding resized to the latent image."""
    from types import SimpleNamespace

    import torch
    from diffusers.models.transformers import transformer_cosmos

    def resize(mask: Any, size: list[int], interpolation: str) -> Any:
        return torch.nn.functional.interpolate(mask.float(), size, mode=interpolation).to(mask.dtype)

    if not hasattr(transformer_cosmos, "transforms"):
        transformer_cosmos.transforms = SimpleNamespace(
            functional=SimpleNamespace(resize=resize), InterpolationMode=SimpleNamespace(NEAREST="nearest")
        )


def _workload(size: str, builder: Builder, video: bool, count: int) -> Workload:
    task = "Video2World" if video else "Text2Image"
    still = Options(height=768, width=1360, steps=35, guidance=7.0, dtype="bf16")
    defaults = replace(still, height=704, width=1280, frames=93) if video else still
    return Workload(
        name=f"cosmos-predict2-{size.lower()}-{task.lower()}",
        task="image-to-video" if video else "text-to-image",
        architecture="latent video diffusion transformer",
        defaults=defaults,
        parameters={"text_encoder": T5_11B_PARAMETERS, "transformer": count, "vae": VAE_PARAMETERS},
        source=f"NVIDIA's release of Cosmos-Predict2: {size} transformer, T5-11B's encoder, Wan 2.1's VAE",
        url=f"https://huggingface.co/nvidia/Cosmos-Predict2-{size}-{task}",
        builder=builder,
        decoding=Decoding(tile=256),
        size_multiple=16,
        max_size=2048,  # 128 patches a side have positions (CosmosRotaryPosEmbed)
        frame_multiple=4 if video else 1,
        place=155,
    )


WORKLOADS = (
    _workload("2B", record_2b_image, False, 1_956_405_248),
    _workload("14B", record_14b_image, False, 14_265_265_152),
    _workload("2B", record_2b_video, True, 1_956_413_440),
    _workload("14B", record_14b_video, True, 14_265_285_632),
)
