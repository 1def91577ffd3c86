"""LTX-Video 0.9 (2 B), as diffusers' LTXPipeline runs it.

Configurations are those released with the weights (Lightricks/LTX-Video), the transformer's and the VAE's the classes' defaults.
The VAE shrinks images by 32 and frames by 8, so that a video has few tokens; 128 tokens of T5-XXL are attended to; guidance
doubles the batch.
"""

from typing import Any

from simtti.workloads.models.text_encoders import T5_XXL, T5_XXL_PARAMETERS, add_t5
from simtti.workloads.recording import Recording
from simtti.workloads.workload import Decoding, Options, Workload

SCHEDULER: dict[str, Any] = {
    "use_dynamic_shifting": True, "base_shift": 0.95, "max_shift": 2.05, "base_image_seq_len": 1024,
    "max_image_seq_len": 4096, "shift_terminal": 0.1,
}  # fmt: skip


def record_ltx(options: Options, recording: Recording) -> None:
    """Encode the prompts, denoise the video, decode it."""
    from diffusers import (
        AutoencoderKLLTXVideo,
        FlowMatchEulerDiscreteScheduler,
        LTXPipeline,
        LTXVideoTransformer3DModel,
    )

    from simtti.workloads.models.pipelines.diffusers_run import Run
    from simtti.workloads.models.pipelines.inputs import Tokenizer, prompts

    dtype = options.dtype
    pipeline = LTXPipeline(
        text_encoder=add_t5(recording, "text_encoder", T5_XXL, dtype),
        transformer=recording.add("transformer", LTXVideoTransformer3DModel, dtype=dtype),
        vae=recording.add("vae", AutoencoderKLLTXVideo, dtype=dtype),
        scheduler=FlowMatchEulerDiscreteScheduler(**SCHEDULER),
        tokenizer=Tokenizer(128),
    )
    run = Run(recording, options, domain="joint", channel_dim=2)
    run.decode_with(pipeline.vae, repeats=True)
    run(
        pipeline, pipeline.transformer, prompt=prompts(options), height=options.height, width=options.width,
        num_frames=options.frames, guidance_scale=options.guidance, output_type="np",
    )  # fmt: skip


WORKLOADS = (
    Workload(
        name="ltx-video",
        task="text-to-video",
        architecture="latent video diffusion transformer",
        defaults=Options(height=512, width=704, steps=50, frames=161, dtype="bf16", guidance=3.0),
        parameters={"text_encoder": T5_XXL_PARAMETERS, "transformer": 1_923_385_472, "vae": 419_193_649},
        source="HaCohen et al., 2024 (arXiv 2501.00103): 1.9 B transformer, 28 blocks of 32 heads, T5-XXL",
        url="https://huggingface.co/Lightricks/LTX-Video",
        builder=record_ltx,
        decoding=Decoding(),
        size_multiple=32,
        frame_multiple=8,
        place=132,
    ),
)
