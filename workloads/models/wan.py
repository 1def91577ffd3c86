"""Wan 2.1 text-to-video (1.3 B and 14 B), as diffusers' WanPipeline runs them, with the VAE's tiling and slicing on.

Configurations are those released with the weights (Wan-AI/Wan2.1-T2V-1.3B-Diffusers and ...14B...), the 14 B's the
class's default. 512 tokens of UMT5-XXL; all patches of all frames attend to each other. Guidance calls the transformer
twice a step, one after the other. The causal VAE decodes one latent frame (four frames) at a time, in tiles.
"""

from typing import Any

from simtti.workloads.models.text_encoders import UMT5_XXL, UMT5_XXL_PARAMETERS
from simtti.workloads.recording import Recording
from simtti.workloads.workload import VIDEO_VAE, Options, Workload

TRANSFORMER_1_3B: dict[str, Any] = {"num_attention_heads": 12, "num_layers": 30, "ffn_dim": 8960}
SCHEDULER: dict[str, Any] = {
    "prediction_type": "flow_prediction", "use_flow_sigmas": True, "num_train_timesteps": 1000, "flow_shift": 3.0,
}  # fmt: skip


def record_1_3b(options: Options, recording: Recording) -> None:
    """Wan 2.1 1.3B: 12 heads, 30 blocks."""
    record_wan(options, recording, TRANSFORMER_1_3B)


def record_14b(options: Options, recording: Recording) -> None:
    """Wan 2.1 14B: 40 heads, 40 blocks."""
    record_wan(options, recording, {})


def record_wan(options: Options, recording: Recording, transformer: dict[str, Any]) -> None:
    """Encode the prompts, denoise the video, decode it tile by tile."""
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
    from transformers import UMT5Config, UMT5EncoderModel

    from simtti.workloads.models.pipelines.diffusers_run import Run
    from simtti.workloads.models.pipelines.inputs import Tokenizer, prompts

    dtype = options.dtype
    pipeline = WanPipeline(
        text_encoder=recording.add("text_encoder", UMT5EncoderModel, UMT5Config(**UMT5_XXL), dtype=dtype),
        transformer=recording.add("transformer", WanTransformer3DModel, **transformer, dtype=dtype),
        vae=recording.add("vae", AutoencoderKLWan, dtype=dtype),
        scheduler=UniPCMultistepScheduler(**SCHEDULER),
        tokenizer=Tokenizer(512),
    )
    run = Run(recording, options, domain="joint")
    run.decode_with(pipeline.vae, VIDEO_VAE.own, repeats=True)
    run(
        pipeline, pipeline.transformer, prompt=prompts(options), height=options.height, width=options.width,
        num_frames=options.frames, guidance_scale=options.guidance, output_type="np",
    )  # fmt: skip


WORKLOADS = (
    Workload(
        name="wan2.1-1.3b",
        task="text-to-video",
        architecture="latent video diffusion transformer",
        defaults=Options(height=480, width=832, steps=50, frames=81, dtype="bf16", guidance=5.0),
        parameters={
            "text_encoder": UMT5_XXL_PARAMETERS,
            "transformer": 1_418_996_800,
            "vae": 126_892_531,
        },
        source="Wan team, 2025 (arXiv 2503.20314): 30 blocks of 12 heads (1.4 B as counted), UMT5-XXL",
        url="https://huggingface.co/Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
        builder=record_1_3b,
        decoding=VIDEO_VAE,
        size_multiple=16,
        frame_multiple=4,
        place=150,
    ),
    Workload(
        name="wan2.1-14b",
        task="text-to-video",
        architecture="latent video diffusion transformer",
        defaults=Options(height=480, width=832, steps=50, frames=81, dtype="bf16", guidance=5.0),
        parameters={
            "text_encoder": UMT5_XXL_PARAMETERS,
            "transformer": 14_288_491_584,
            "vae": 126_892_531,
        },
        source="Wan team, 2025 (arXiv 2503.20314): 14 B, 40 blocks of 40 heads, UMT5-XXL",
        url="https://huggingface.co/Wan-AI/Wan2.1-T2V-14B-Diffusers",
        builder=record_14b,
        decoding=VIDEO_VAE,
        size_multiple=16,
        frame_multiple=4,
        place=150,
    ),
)
