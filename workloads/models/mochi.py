"""Mochi 1 preview (10 B), as diffusers' MochiPipeline runs it, with the VAE's tiling on.

Configurations are those released with the weights (genmo/mochi-1-preview), the classes' defaults: text of half the width beside
video in each block, 256 tokens of T5-XXL. Guidance doubles the batch; each sample's attention is a call of its own, over the
video and the text's tokens, of which all 256 are taken to be there.
"""

from simtti.workloads.models.text_encoders import T5_XXL, T5_XXL_PARAMETERS, add_t5
from simtti.workloads.recording import Recording
from simtti.workloads.workload import Decoding, Options, Tiles, Workload


def record_mochi(options: Options, recording: Recording) -> None:
    """Encode the prompts, denoise the video, decode it tile by tile."""
    from diffusers import (
        AutoencoderKLMochi,
        FlowMatchEulerDiscreteScheduler,
        MochiPipeline,
        MochiTransformer3DModel,
    )

    from simtti.workloads.models.pipelines.diffusers_run import Run
    from simtti.workloads.models.pipelines.inputs import Tokenizer, prompts

    dtype = options.dtype
    pipeline = MochiPipeline(
        text_encoder=add_t5(recording, "text_encoder", T5_XXL, dtype),
        transformer=recording.add("transformer", MochiTransformer3DModel, dtype=dtype),
        vae=recording.add("vae", AutoencoderKLMochi, dtype=dtype),
        scheduler=FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
        tokenizer=Tokenizer(256),
    )
    run = Run(recording, options, domain="joint")
    run.decode_with(pipeline.vae, "tiled", repeats=True)
    run(
        pipeline, pipeline.transformer, prompt=prompts(options), height=options.height, width=options.width,
        num_frames=options.frames, guidance_scale=options.guidance, output_type="np",
    )  # fmt: skip


WORKLOADS = (
    Workload(
        name="mochi-1",
        task="text-to-video",
        architecture="latent video diffusion transformer",
        defaults=Options(height=480, width=848, steps=64, frames=85, dtype="bf16", guidance=4.5),
        parameters={"text_encoder": T5_XXL_PARAMETERS, "transformer": 10_027_677_744, "vae": 459_748_611},
        source="Genmo's release of Mochi 1: 10 B asymmetric transformer, 48 blocks of 24 heads, T5-XXL",
        url="https://huggingface.co/genmo/mochi-1-preview",
        builder=record_mochi,
        decoding=Decoding("tiled", tiles=(Tiles(256, 192), Tiles(256, 192))),
        size_multiple=16,
        frame_multiple=6,
        place=134,
    ),
)
