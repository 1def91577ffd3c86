"""AnimateDiff v3 on Stable Diffusion 1.5, as diffusers' AnimateDiffPipeline runs it.

The motion modules are those of guoyww/animatediff-motion-adapter-v1-5-3: 8 heads, at most 32 frames, none in the
UNet's middle block (assumed from the checkpoint's size, 417 M). Text embeddings are repeated for every frame. The
image VAE decodes 16 frames at a time.
"""

from typing import Any

from diffusers import AnimateDiffPipeline, AutoencoderKL, DDIMScheduler, MotionAdapter, UNetMotionModel
from transformers import CLIPTextConfig, CLIPTextModel

from simtti.workloads.catalogue import Options
from simtti.workloads.models.latent_diffusion import Recording, build
from simtti.workloads.models.pipeline import Run, Tokenizer, build_module, prompts
from simtti.workloads.models.stable_diffusion import CLIP_L, VAE

MAX_FRAMES = 32
UNET: dict[str, Any] = {
    "sample_size": 64, "cross_attention_dim": 768, "num_attention_heads": 8, "motion_num_attention_heads": 8,
    "motion_max_seq_length": MAX_FRAMES, "use_motion_mid_block": False,
}  # fmt: skip


def record_animatediff(options: Options) -> Recording:
    """Encode the prompts, denoise the frames together, decode them."""
    dtype = options.dtype
    recording = Recording()
    pipeline = AnimateDiffPipeline(
        text_encoder=recording.add(
            "text_encoder", build_module(CLIPTextModel, CLIPTextConfig(**CLIP_L), dtype=dtype)
        ),
        unet=recording.add("unet", build_module(UNetMotionModel, **UNET, dtype=dtype)),
        vae=recording.add("vae", build_module(AutoencoderKL, **VAE, scaling_factor=0.18215, dtype=dtype)),
        scheduler=DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="linear", steps_offset=1, clip_sample=False,
            timestep_spacing="linspace",
        ),
        tokenizer=Tokenizer(),
        # Its weights are the UNet's already.
        motion_adapter=build(MotionAdapter, use_motion_mid_block=False, dtype=dtype),
    )  # fmt: skip
    run = Run(recording, options)
    run.repeat_tiles(pipeline.vae)
    run(
        pipeline, pipeline.unet, prompt=prompts(options), height=options.height, width=options.width,
        num_frames=options.frames, guidance_scale=options.guidance, output_type="np",
    )  # fmt: skip
    recording.phases = recording.recorder.phases()
    return recording
