"""AnimateDiff v3 on Stable Diffusion 1.5, as diffusers' AnimateDiffPipeline runs it.

The motion modules are those of guoyww/animatediff-motion-adapter-v1-5-3: 8 heads, at most 32 frames, none in the
UNet's middle block (assumed from the checkpoint's size, 417 M). Text embeddings are repeated for every frame. The
image VAE decodes 16 frames at a time.
"""

from typing import Any

from simtti.workloads.models.stable_diffusion import CLIP_L, CLIP_L_PARAMETERS, VAE, VAE_PARAMETERS
from simtti.workloads.recording import Recording
from simtti.workloads.workload import Decoding, Options, Workload

MAX_FRAMES = 32
UNET: dict[str, Any] = {
    "sample_size": 64, "cross_attention_dim": 768, "num_attention_heads": 8, "motion_num_attention_heads": 8,
    "motion_max_seq_length": MAX_FRAMES, "use_motion_mid_block": False,
}  # fmt: skip


def record_animatediff(options: Options, recording: Recording) -> None:
    """Encode the prompts, denoise the frames together, decode them."""
    from diffusers import AnimateDiffPipeline, AutoencoderKL, DDIMScheduler, MotionAdapter, UNetMotionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from simtti.workloads.models.pipelines.diffusers_run import Run
    from simtti.workloads.models.pipelines.inputs import Tokenizer, prompts

    dtype = options.dtype
    pipeline = AnimateDiffPipeline(
        text_encoder=recording.add("text_encoder", CLIPTextModel, CLIPTextConfig(**CLIP_L), dtype=dtype),
        unet=recording.add("unet", UNetMotionModel, **UNET, dtype=dtype),
        vae=recording.add("vae", AutoencoderKL, **VAE, scaling_factor=0.18215, dtype=dtype),
        scheduler=DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="linear", steps_offset=1, clip_sample=False,
            timestep_spacing="linspace",
        ),
        tokenizer=Tokenizer(),
        # Its weights are the UNet's already.
        motion_adapter=recording.build(MotionAdapter, use_motion_mid_block=False, dtype=dtype),
    )  # fmt: skip
    run = Run(recording, options)
    run.decode_with(pipeline.vae, repeats=True)
    run(
        pipeline, pipeline.unet, prompt=prompts(options), height=options.height, width=options.width,
        num_frames=options.frames, guidance_scale=options.guidance, output_type="np",
    )  # fmt: skip


WORKLOADS = (
    Workload(
        name="animatediff",
        task="text-to-video",
        architecture="latent video diffusion UNet",
        defaults=Options(height=512, width=512, steps=50, frames=16, guidance=7.5),
        parameters={
            "text_encoder": CLIP_L_PARAMETERS,
            "unet": 1_276_658_564,
            "vae": VAE_PARAMETERS,
        },
        source="Guo et al., 2023 (arXiv 2307.04725), motion modules v3: 417 M on Stable Diffusion 1.5's 860 M",
        url="https://huggingface.co/guoyww/animatediff-motion-adapter-v1-5-3",
        builder=record_animatediff,
        decoding=Decoding(tile=512, frames_together=True),
        max_frames=32,
        place=100,
    ),
)
