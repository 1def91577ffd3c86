"""HunyuanVideo, as diffusers' HunyuanVideoPipeline runs it, with the VAE's tiling and slicing on.

Configurations are those released with the weights (tencent/HunyuanVideo), the transformer's and the VAE's the classes'
defaults. Text comes from a Llama-3-8B (LLaVA's language model; 256 tokens after 95 of a template) and CLIP ViT-L.
Guidance is embedded, so each step evaluates the model once. Text and video attend in one sequence. Diffusers hides the text's
padding with a mask, which leaves only memory-efficient kernels; the model's own code, xDiT and SGLang pack the sequences instead
(flash_attn_varlen). A simulation drops the mask unless asked to keep it, and with --mask varlen leaves the padding out: of 256 text
tokens, a prompt's are 32.
"""

from typing import Any

from simtti.workloads.models.stable_diffusion import CLIP_L, CLIP_L_PARAMETERS
from simtti.workloads.recording import Recording
from simtti.workloads.workload import VIDEO_VAE, Options, Workload

# The language model of xtuner/llava-llama-3-8b-v1_1, 7.5 B without its output projection.
LLAMA_3_8B: dict[str, Any] = {
    "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": 128320, "max_position_embeddings": 8192,
}  # fmt: skip
# Tokens of the instruction before the prompt (pipeline_hunyuan_video.py, DEFAULT_PROMPT_TEMPLATE: crop_start).
TEMPLATE = 95


def record_hunyuan_video(options: Options, recording: Recording) -> None:
    """Encode the prompts twice over, denoise the video, decode it tile by tile."""
    from diffusers import (
        AutoencoderKLHunyuanVideo,
        FlowMatchEulerDiscreteScheduler,
        HunyuanVideoPipeline,
        HunyuanVideoTransformer3DModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, LlamaConfig, LlamaModel

    from simtti.workloads.models.pipelines.diffusers_run import Run
    from simtti.workloads.models.pipelines.inputs import Tokenizer, prompts

    dtype = options.dtype
    llama, clip = LlamaConfig(**LLAMA_3_8B), CLIPTextConfig(**CLIP_L)
    pipeline = HunyuanVideoPipeline(
        text_encoder=recording.add("text_encoder", LlamaModel, llama, dtype=dtype),
        text_encoder_2=recording.add("text_encoder_2", CLIPTextModel, clip, dtype=dtype),
        transformer=recording.add("transformer", HunyuanVideoTransformer3DModel, dtype=dtype),
        vae=recording.add("vae", AutoencoderKLHunyuanVideo, dtype=dtype),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        tokenizer=Tokenizer(template=TEMPLATE),
        tokenizer_2=Tokenizer(),
    )
    recording.notes["mask"] = "drop"
    recording.counts_padding = True
    run = Run(recording, options, domain="joint")
    run.decode_with(pipeline.vae, VIDEO_VAE.own, repeats=True)
    run(
        pipeline, pipeline.transformer, prompt=prompts(options), height=options.height, width=options.width,
        num_frames=options.frames, guidance_scale=options.guidance, output_type="np",
    )  # fmt: skip


WORKLOADS = (
    Workload(
        name="hunyuan-video",
        task="text-to-video",
        architecture="latent video diffusion transformer",
        defaults=Options(height=720, width=1280, steps=50, frames=129, dtype="bf16", guidance=6.0),
        parameters={
            "text_encoder": 7_505_186_816,
            "text_encoder_2": CLIP_L_PARAMETERS,
            "transformer": 12_821_012_544,
            "vae": 246_478_803,
        },
        source="Kong et al., 2024 (arXiv 2412.03603): 13 B transformer, Llama-3-8B and CLIP ViT-L",
        url="https://huggingface.co/tencent/HunyuanVideo",
        builder=record_hunyuan_video,
        decoding=VIDEO_VAE,
        size_multiple=16,
        frame_multiple=4,
        place=140,
    ),
)
