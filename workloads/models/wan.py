"""Wan 2.1 (text-to-video 1.3 B and 14 B, image-to-video 14 B) and Wan 2.2 (A14B and TI2V-5B), as diffusers' WanPipeline and
WanImageToVideoPipeline run them, with the VAE's tiling and slicing on.

Configurations are those released with the weights (Wan-AI/Wan2.1-T2V-1.3B-Diffusers and so on), the 14 B's the class's
default. 512 tokens of UMT5-XXL; all patches of all frames attend to each other. Guidance calls the transformer twice a step,
one after the other. The causal VAE decodes one latent frame (four frames) at a time, in tiles.

Image-to-video encodes a video of the image and of zeros, whose latents are input channels; in Wan 2.1 its CLIP ViT-H/14 tokens
are attended to as well. Wan 2.2's A14B has two experts of 14 B: one for the timesteps above a boundary, one for those below; they
are two steps of the phase 'denoising'. TI2V-5B gives each token a timestep of its own, and its VAE shrinks images by 16.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

from simtti.workloads.models.text_encoders import UMT5_XXL, UMT5_XXL_PARAMETERS
from simtti.workloads.recording import Recording
from simtti.workloads.workload import VIDEO_VAE, Builder, Options, Workload

SCHEDULER: dict[str, Any] = {
    "prediction_type": "flow_prediction", "use_flow_sigmas": True, "num_train_timesteps": 1000, "flow_shift": 3.0,
}  # fmt: skip
# OpenCLIP's ViT-H/14 image model without its projection, 631 M.
CLIP_H_VISION: dict[str, Any] = {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16,
    "hidden_act": "gelu", "projection_dim": 1024, "patch_size": 14, "image_size": 224,
}  # fmt: skip
CLIP_H_VISION_PARAMETERS = 630_766_080
# Wan 2.2's VAE: 48 channels, factor 16 (of which 2 by a patch), residual shortcuts. Means of latents change no operator.
VAE_2_2: dict[str, Any] = {
    "base_dim": 160, "decoder_base_dim": 256, "z_dim": 48, "in_channels": 12, "out_channels": 12, "patch_size": 2,
    "is_residual": True, "scale_factor_spatial": 16, "latents_mean": [0.0] * 48, "latents_std": [1.0] * 48,
}  # fmt: skip
VAE_PARAMETERS = 126_892_531
VAE_2_2_PARAMETERS = 704_688_668


@dataclass(frozen=True)
class Wan:
    """What a member of the family is made of.

    transformer, vae: what differs from the classes' defaults. pictures: whether a video starts from an image. boundary: a
    second transformer denoises below that share of all timesteps. per_token: each token has a timestep of its own.
    """

    transformer: dict[str, Any]
    vae: dict[str, Any]
    pictures: bool = False
    boundary: float | None = None
    per_token: bool = False


T2V_1_3B = Wan({"num_attention_heads": 12, "num_layers": 30, "ffn_dim": 8960}, {})
T2V_14B = Wan({}, {})
I2V_14B = Wan({"in_channels": 36, "image_dim": 1280, "added_kv_proj_dim": 5120}, {}, pictures=True)
T2V_A14B = Wan({}, {}, boundary=0.875)
I2V_A14B = Wan({"in_channels": 36}, {}, pictures=True, boundary=0.9)
TI2V_5B = Wan(
    {"num_attention_heads": 24, "num_layers": 30, "ffn_dim": 14336, "in_channels": 48, "out_channels": 48},
    VAE_2_2,
    per_token=True,
)


def turns(boundary: float, count: int) -> tuple[int, ...]:
    """How many of `count` timesteps lie above and below `boundary`, in the sampler's shifted schedule.

    >>> turns(0.875, 40)
    (13, 27)
    """
    shift = SCHEDULER["flow_shift"]
    last = 1 / SCHEDULER["num_train_timesteps"]
    levels = [1 + (last - 1) * step / count for step in range(count)]
    above = sum(shift * level / (1 + (shift - 1) * level) >= boundary for level in levels)
    return (above, count - above) if count > above else (count,)


def record_1_3b(options: Options, recording: Recording) -> None:
    """Wan 2.1 1.3B: 12 heads, 30 blocks."""
    record_wan(options, recording, T2V_1_3B)


def record_14b(options: Options, recording: Recording) -> None:
    """Wan 2.1 14B: 40 heads, 40 blocks."""
    record_wan(options, recording, T2V_14B)


def record_i2v_14b(options: Options, recording: Recording) -> None:
    """Wan 2.1 14B from an image, for 480p and for 720p."""
    record_wan(options, recording, I2V_14B)


def record_t2v_a14b(options: Options, recording: Recording) -> None:
    """Wan 2.2: two experts of 14B."""
    record_wan(options, recording, T2V_A14B)


def record_i2v_a14b(options: Options, recording: Recording) -> None:
    """Wan 2.2 from an image: two experts of 14B."""
    record_wan(options, recording, I2V_A14B)


def record_ti2v_5b(options: Options, recording: Recording) -> None:
    """Wan 2.2 5B, from text."""
    record_wan(options, recording, TI2V_5B)


def record_wan(options: Options, recording: Recording, wan: Wan) -> None:
    """Encode the prompts (and the image), denoise the video, decode it tile by tile."""
    import diffusers
    from transformers import CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

    from simtti.workloads.models.pipelines.diffusers_run import Run
    from simtti.workloads.models.pipelines.inputs import ImageProcessor, Tokenizer, image, prompts

    dtype = options.dtype
    text_encoder = recording.add("text_encoder", UMT5EncoderModel, UMT5Config(**UMT5_XXL), dtype=dtype)
    parts: dict[str, Any] = {}
    if "image_dim" in wan.transformer:
        clip = CLIPVisionConfig(**CLIP_H_VISION)
        parts["image_encoder"] = recording.add("image_encoder", CLIPVisionModel, clip, dtype=dtype)
        parts["image_processor"] = ImageProcessor()
    network = diffusers.WanTransformer3DModel
    experts = [recording.add("transformer", network, **wan.transformer, dtype=dtype)]
    if wan.boundary is not None:
        experts.append(recording.add("transformer_2", network, **wan.transformer, dtype=dtype))
        parts |= {"transformer_2": experts[1], "boundary_ratio": wan.boundary}
    if wan.per_token:
        parts["expand_timesteps"] = True
    pipeline_class = diffusers.WanImageToVideoPipeline if wan.pictures else diffusers.WanPipeline
    pipeline = pipeline_class(
        text_encoder=text_encoder,
        transformer=experts[0],
        vae=recording.add("vae", diffusers.AutoencoderKLWan, **wan.vae, dtype=dtype),
        scheduler=diffusers.UniPCMultistepScheduler(**SCHEDULER),
        tokenizer=Tokenizer(512),
        **parts,
    )
    shares = None if wan.boundary is None else partial(turns, wan.boundary)
    run = Run(recording, options, domain="joint", turns=shares)
    run.decode_with(pipeline.vae, VIDEO_VAE.own, repeats=True)
    arguments: dict[str, Any] = {}
    if wan.pictures:
        # The other pipeline's, which needs no ftfy to clean a prompt.
        pipeline._get_t5_prompt_embeds = partial(diffusers.WanPipeline._get_t5_prompt_embeds, pipeline)
        run.split(pipeline, "encode_image", "image_encoder")
        run.split(pipeline, "prepare_latents", "image_encoder")
        run.repeat(pipeline.vae.encoder, "forward")
        arguments["image"] = image(options)[:1]  # the pipeline repeats what it encodes
    run(
        pipeline, *experts, prompt=prompts(options), height=options.height, width=options.width,
        num_frames=options.frames, guidance_scale=options.guidance, output_type="np", **arguments,
    )  # fmt: skip


def _workload(
    name: str,
    builder: Builder,
    wan: Wan,
    defaults: Options,
    parameters: dict[str, int],
    *,
    source: str,
    repository: str,
    vae: int = VAE_PARAMETERS,
) -> Workload:
    return Workload(
        name=name,
        task="image-to-video" if wan.pictures else "text-to-video",
        architecture="latent video diffusion transformer",
        defaults=defaults,
        parameters={"text_encoder": UMT5_XXL_PARAMETERS, **parameters, "vae": vae},
        source=source,
        url=f"https://huggingface.co/Wan-AI/{repository}",
        builder=builder,
        decoding=VIDEO_VAE,
        size_multiple=32 if wan.per_token else 16,
        frame_multiple=4,
        turns=None if wan.boundary is None else partial(turns, wan.boundary),
        place=150,
    )


SMALL = Options(height=480, width=832, steps=50, frames=81, dtype="bf16", guidance=5.0)
LARGE = Options(height=720, width=1280, steps=40, frames=81, dtype="bf16", guidance=4.0)
WAN_2_1 = "Wan team, 2025 (arXiv 2503.20314)"
WAN_2_2 = "Wan team, 2025, release of Wan 2.2"
WORKLOADS = (
    _workload(
        "wan2.1-1.3b", record_1_3b, T2V_1_3B, SMALL, {"transformer": 1_418_996_800},
        source=f"{WAN_2_1}: 30 blocks of 12 heads (1.4 B as counted), UMT5-XXL",
        repository="Wan2.1-T2V-1.3B-Diffusers",
    ),
    _workload(
        "wan2.1-14b", record_14b, T2V_14B, SMALL, {"transformer": 14_288_491_584},
        source=f"{WAN_2_1}: 14 B, 40 blocks of 40 heads, UMT5-XXL",
        repository="Wan2.1-T2V-14B-Diffusers",
    ),
    _workload(
        "wan2.1-i2v-14b-480p", record_i2v_14b, I2V_14B, SMALL,
        {"image_encoder": CLIP_H_VISION_PARAMETERS, "transformer": 16_394_878_784},
        source=f"{WAN_2_1}: 14 B and 2 B of attention to the image (16.4 B as counted), UMT5-XXL, CLIP ViT-H/14",
        repository="Wan2.1-I2V-14B-480P-Diffusers",
    ),
    _workload(
        "wan2.1-i2v-14b-720p", record_i2v_14b, I2V_14B,
        Options(height=720, width=1280, steps=50, frames=81, dtype="bf16", guidance=5.0),
        {"image_encoder": CLIP_H_VISION_PARAMETERS, "transformer": 16_394_878_784},
        source=f"{WAN_2_1}: 14 B and 2 B of attention to the image (16.4 B as counted), UMT5-XXL, CLIP ViT-H/14",
        repository="Wan2.1-I2V-14B-720P-Diffusers",
    ),
    _workload(
        "wan2.2-t2v-a14b", record_t2v_a14b, T2V_A14B, LARGE,
        {"transformer": 14_288_491_584, "transformer_2": 14_288_491_584},
        source=f"{WAN_2_2}: 27 B in two experts of 14 B, one a step, UMT5-XXL",
        repository="Wan2.2-T2V-A14B-Diffusers",
    ),
    _workload(
        "wan2.2-i2v-a14b", record_i2v_a14b, I2V_A14B,
        Options(height=720, width=1280, steps=40, frames=81, dtype="bf16", guidance=3.5),
        {"transformer": 14_288_901_184, "transformer_2": 14_288_901_184},
        source=f"{WAN_2_2}: 27 B in two experts of 14 B, one a step, UMT5-XXL",
        repository="Wan2.2-I2V-A14B-Diffusers",
    ),
    _workload(
        "wan2.2-ti2v-5b", record_ti2v_5b, TI2V_5B,
        Options(height=704, width=1280, steps=50, frames=121, dtype="bf16", guidance=5.0),
        {"transformer": 4_999_787_712},
        source=f"{WAN_2_2}: 5 B, 30 blocks of 24 heads, UMT5-XXL, VAE of 0.7 B",
        repository="Wan2.2-TI2V-5B-Diffusers",
        vae=VAE_2_2_PARAMETERS,
    ),
)  # fmt: skip
