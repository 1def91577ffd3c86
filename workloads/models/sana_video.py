"""SANA-Video 2B 480p, as diffusers' SanaVideoPipeline runs it.

Configurations are those of diffusers' conversion script (Efficient-Large-Model/SANA-Video_2B_480p_diffusers): 20 blocks of linear attention over all tokens of all frames, cross-attention to 300 tokens of Gemma-2-2B,
convolutions in space and time in each MLP, Wan 2.1's VAE, here without tiles. Guidance doubles the batch.
"""

from simtti.workloads.models.sana import GEMMA_2_2B, GEMMA_2_2B_PARAMETERS
from simtti.workloads.models.wan import VAE_PARAMETERS
from simtti.workloads.recording import Recording
from simtti.workloads.workload import Decoding, Options, Workload


def record_sana_video(options: Options, recording: Recording) -> None:
    """Encode the prompts, denoise the video, decode it frame by frame."""
    from diffusers import (
        AutoencoderKLWan,
        DPMSolverMultistepScheduler,
        SanaVideoPipeline,
        SanaVideoTransformer3DModel,
    )
    from transformers import Gemma2Config, Gemma2Model

    from simtti.workloads.models.pipelines.diffusers_run import Run
    from simtti.workloads.models.pipelines.inputs import Tokenizer, prompts

    dtype = options.dtype
    pipeline = SanaVideoPipeline(
        text_encoder=recording.add("text_encoder", Gemma2Model, Gemma2Config(**GEMMA_2_2B), dtype=dtype),
        transformer=recording.add("transformer", SanaVideoTransformer3DModel, mlp_ratio=3.0, dtype=dtype),
        vae=recording.add("vae", AutoencoderKLWan, dtype=dtype),
        scheduler=DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=8.0
        ),
        tokenizer=Tokenizer(),
    )
    run = Run(recording, options)
    run.decode_with(pipeline.vae, repeats=True)
    run(
        pipeline, pipeline.transformer, prompt=prompts(options), height=options.height, width=options.width,
        frames=options.frames, guidance_scale=options.guidance, output_type="np", use_resolution_binning=False,
    )  # fmt: skip


WORKLOADS = (
    Workload(
        name="sana-video-2b",
        task="text-to-video",
        architecture="latent video diffusion transformer (linear attention)",
        defaults=Options(height=480, width=832, steps=50, frames=81, guidance=6.0, dtype="bf16"),
        parameters={
            "text_encoder": GEMMA_2_2B_PARAMETERS,
            "transformer": 2_056_862_144,
            "vae": VAE_PARAMETERS,
        },
        source="Chen et al., 2025 (arXiv 2509.24695), SANA-Video: 2 B DiT, Gemma-2-2B, Wan 2.1's VAE",
        url="https://huggingface.co/Efficient-Large-Model/SANA-Video_2B_480p_diffusers",
        builder=record_sana_video,
        decoding=Decoding(tile=256),
        size_multiple=32,
        frame_multiple=4,
        place=136,
    ),
)
