"""Kandinsky 5.0: Image Lite (6 B), Video Lite (2 B) and Video Pro (19 B), from text, as diffusers' Kandinsky5T2IPipeline and
Kandinsky5T2VPipeline run them.

Configurations are those of the release's code (kandinskylab/kandinsky-5, configs/), of videos of 5 seconds, in which all patches attend
to each other; those of 10 seconds, whose attention is sparse (flex_attention with a mask made in each layer), are left out. A block has
self-attention, cross-attention to text and an MLP of four widths, each with its own modulation, which is computed in fp32. Text is
Qwen2.5-VL-7B's last state, the prompt's own tokens without those of a template, and CLIP ViT-L's pooled one, added to the timestep.
Guidance calls the transformer twice a step, one after the other. Video models have places for a picture among their input
channels, zeros where there is none. The VAEs are FLUX's and HunyuanVideo's, this one tiled and sliced.
"""

from dataclasses import dataclass
from typing import Any

from simtti.workloads.models.flux import VAE
from simtti.workloads.models.stable_diffusion import CLIP_L, CLIP_L_PARAMETERS
from simtti.workloads.models.stable_diffusion_3 import VAE_16_PARAMETERS
from simtti.workloads.models.text_encoders import (
    QWEN_2_5_VL_7B,
    QWEN_2_5_VL_7B_PARAMETERS,
    QWEN_2_5_VL_7B_VISION,
)
from simtti.workloads.recording import Recording
from simtti.workloads.workload import VIDEO_VAE, Builder, Decoding, Options, Workload

HUNYUAN_VAE_PARAMETERS = 246_478_803


@dataclass(frozen=True)
class Kandinsky5:
    """What a member of the family is made of.

    transformer: what differs from the class's defaults. template: tokens before the prompt's.
    """

    transformer: dict[str, Any]
    template: int
    is_video: bool


_LATENTS: dict[str, Any] = {"in_visual_dim": 16, "out_visual_dim": 16}
IMAGE_LITE = Kandinsky5(
    {**_LATENTS, "model_dim": 2560, "ff_dim": 10240, "num_visual_blocks": 50, "axes_dims": (32, 48, 48)},
    template=40,
    is_video=False,
)
VIDEO_LITE = Kandinsky5(
    {**_LATENTS, "model_dim": 1792, "ff_dim": 7168, "num_visual_blocks": 32, "visual_cond": True},
    template=128,
    is_video=True,
)
VIDEO_PRO = Kandinsky5(
    {
        **_LATENTS, "time_dim": 1024, "model_dim": 4096, "ff_dim": 16384, "num_text_blocks": 4, "num_visual_blocks": 60,
        "axes_dims": (32, 48, 48), "visual_cond": True,
    },
    template=128,
    is_video=True,
)  # fmt: skip


def record_image_lite(options: Options, recording: Recording) -> None:
    """Image Lite: 50 blocks of 20 heads."""
    record_kandinsky_5(options, recording, IMAGE_LITE)


def record_video_lite(options: Options, recording: Recording) -> None:
    """Video Lite: 32 blocks of 28 heads of 64."""
    record_kandinsky_5(options, recording, VIDEO_LITE)


def record_video_pro(options: Options, recording: Recording) -> None:
    """Video Pro: 60 blocks of 32 heads."""
    record_kandinsky_5(options, recording, VIDEO_PRO)


def record_kandinsky_5(options: Options, recording: Recording, model: Kandinsky5) -> None:
    """Encode the prompts twice over, denoise, decode."""
    import diffusers
    import torch
    from transformers import (
        CLIPTextConfig,
        CLIPTextModel,
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
    )

    from simtti.workloads.models.pipelines.diffusers_run import Run
    from simtti.workloads.models.pipelines.inputs import PROMPT_TOKENS, Tokenizer, prompts

    dtype = options.dtype
    qwen = Qwen2_5_VLConfig(text_config=QWEN_2_5_VL_7B, vision_config=QWEN_2_5_VL_7B_VISION)
    clip = CLIPTextConfig(**CLIP_L)
    vae: tuple[Any, dict[str, Any]] = (
        (diffusers.AutoencoderKLHunyuanVideo, {}) if model.is_video else (diffusers.AutoencoderKL, VAE)
    )
    pipeline_class = diffusers.Kandinsky5T2VPipeline if model.is_video else diffusers.Kandinsky5T2IPipeline
    pipeline = pipeline_class(
        text_encoder=recording.add("text_encoder", Qwen2_5_VLForConditionalGeneration, qwen, dtype=dtype),
        text_encoder_2=recording.add("text_encoder_2", CLIPTextModel, clip, dtype=dtype),
        transformer=recording.add(
            "transformer", diffusers.Kandinsky5Transformer3DModel, **model.transformer, dtype=dtype
        ),
        vae=recording.add("vae", vae[0], **vae[1], dtype=dtype),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=5.0),
        tokenizer=Tokenizer(model.template + PROMPT_TOKENS, template=model.template),
        tokenizer_2=Tokenizer(),
    )
    run = Run(recording, options, domain="joint", looks_first=True)
    run.reads[torch.int32] = PROMPT_TOKENS
    run.decode_with(pipeline.vae, VIDEO_VAE.own if model.is_video else "whole", repeats=model.is_video)
    frames = {"num_frames": options.frames} if model.is_video else {}
    run(
        pipeline, pipeline.transformer, prompt=prompts(options), height=options.height, width=options.width,
        guidance_scale=options.guidance, output_type="np", **frames,
    )  # fmt: skip


def _workload(
    name: str,
    builder: Builder,
    model: Kandinsky5,
    defaults: Options,
    transformer: int,
    *,
    size: str,
    repository: str,
) -> Workload:
    return Workload(
        name=name,
        task="text-to-video" if model.is_video else "text-to-image",
        architecture=f"latent {'video ' if model.is_video else ''}diffusion transformer",
        defaults=defaults,
        parameters={
            "text_encoder": QWEN_2_5_VL_7B_PARAMETERS,
            "text_encoder_2": CLIP_L_PARAMETERS,
            "transformer": transformer,
            "vae": HUNYUAN_VAE_PARAMETERS if model.is_video else VAE_16_PARAMETERS,
        },
        source=f"Kandinsky Lab, 2025 (arXiv 2511.14993): {size} transformer with cross-attention, Qwen2.5-VL-7B and CLIP ViT-L",
        url=f"https://huggingface.co/kandinskylab/{repository}",
        builder=builder,
        decoding=VIDEO_VAE if model.is_video else Decoding(tile=1024),
        sizes=() if model.is_video else (1024,),
        size_multiple=16,
        frame_multiple=4 if model.is_video else 1,
        place=45,
    )


VIDEO = Options(height=512, width=768, steps=50, frames=121, dtype="bf16", guidance=5.0)
WORKLOADS = (
    _workload(
        "kandinsky-5-image-lite", record_image_lite, IMAGE_LITE,
        Options(height=1024, width=1024, steps=50, dtype="bf16", guidance=3.5), 6_022_080_576,
        size="6 B", repository="Kandinsky-5.0-T2I-Lite-sft-Diffusers",
    ),
    _workload(
        "kandinsky-5-video-lite", record_video_lite, VIDEO_LITE, VIDEO, 2_007_702_848,
        size="2 B", repository="Kandinsky-5.0-T2V-Lite-sft-5s-Diffusers",
    ),
    _workload(
        "kandinsky-5-video-pro", record_video_pro, VIDEO_PRO, VIDEO, 19_311_325_248,
        size="19 B", repository="Kandinsky-5.0-T2V-Pro-sft-5s-Diffusers",
    ),
)  # fmt: skip
