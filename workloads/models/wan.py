"""Wan 2.1 text-to-video (1.3 B and 14 B), as diffusers' WanPipeline runs them, with the VAE's tiling and slicing on.

Configurations are those released with the weights (Wan-AI/Wan2.1-T2V-1.3B-Diffusers and ...14B...), the 14 B's the
class's default. 512 tokens of UMT5-XXL; all patches of all frames attend to each other. Guidance calls the transformer
twice a step, one after the other. The causal VAE decodes one latent frame (four frames) at a time, in tiles.
"""

from typing import Any

from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from transformers import UMT5Config, UMT5EncoderModel

from simtti.workloads.catalogue import Options
from simtti.workloads.models.latent_diffusion import Recording
from simtti.workloads.models.pipeline import Run, Tokenizer, build_module, prompts
from simtti.workloads.models.text_encoders import UMT5_XXL

TRANSFORMER_1_3B: dict[str, Any] = {"num_attention_heads": 12, "num_layers": 30, "ffn_dim": 8960}
SCHEDULER: dict[str, Any] = {
    "prediction_type": "flow_prediction", "use_flow_sigmas": True, "num_train_timesteps": 1000, "flow_shift": 3.0,
}  # fmt: skip


def record_1_3b(options: Options) -> Recording:
    """Wan 2.1 1.3B: 12 heads, 30 blocks."""
    return record_wan(options, TRANSFORMER_1_3B)


def record_14b(options: Options) -> Recording:
    """Wan 2.1 14B: 40 heads, 40 blocks."""
    return record_wan(options, {})


def record_wan(options: Options, transformer: dict[str, Any]) -> Recording:
    """Encode the prompts, denoise the video, decode it tile by tile."""
    dtype = options.dtype
    recording = Recording()
    pipeline = WanPipeline(
        text_encoder=recording.add(
            "text_encoder", build_module(UMT5EncoderModel, UMT5Config(**UMT5_XXL), dtype=dtype)
        ),
        transformer=recording.add(
            "transformer", build_module(WanTransformer3DModel, **transformer, dtype=dtype)
        ),
        vae=recording.add("vae", build_module(AutoencoderKLWan, dtype=dtype)),
        scheduler=UniPCMultistepScheduler(**SCHEDULER),
        tokenizer=Tokenizer(512),
    )
    pipeline.vae.enable_tiling()
    pipeline.vae.enable_slicing()
    run = Run(recording, options, domain="joint")
    run.repeat_tiles(pipeline.vae)
    run(
        pipeline, pipeline.transformer, prompt=prompts(options), height=options.height, width=options.width,
        num_frames=options.frames, guidance_scale=options.guidance, output_type="np",
    )  # fmt: skip
    recording.phases = recording.recorder.phases()
    return recording
