"""HunyuanVideo 1.5 (8.3 B), text to video, as diffusers' HunyuanVideo15Pipeline runs it, with the VAE's tiling on.

Configurations are those of diffusers' conversion script (tencent/HunyuanVideo-1.5), the transformer's and the VAE's the classes'
defaults: 54 double blocks, patches of one latent pixel, a VAE that shrinks images by 16. Text is 1,000 tokens of Qwen2.5-VL-7B, 256
of ByT5 for glyphs (zeros where nothing is to be written, as here) and 729 places for an image's tokens: those that are there go
first, the others are masked. Diffusers builds a mask of all pairs in each block; as HunyuanVideo's, it is dropped in a
simulation unless asked for. Guidance calls the transformer twice a step, one after the other.
"""

from simtti.workloads.models.text_encoders import (
    BYT5_SMALL,
    BYT5_SMALL_PARAMETERS,
    QWEN_2_5_VL_7B,
    QWEN_2_5_VL_7B_TEXT_PARAMETERS,
    add_t5,
)
from simtti.workloads.recording import Recording
from simtti.workloads.workload import Decoding, Options, Tiles, Workload


def record_hunyuan_video_1_5(options: Options, recording: Recording) -> None:
    """Encode the prompts, denoise the video, decode it tile by tile."""
    from diffusers import (
        AutoencoderKLHunyuanVideo15,
        ClassifierFreeGuidance,
        FlowMatchEulerDiscreteScheduler,
        HunyuanVideo15Pipeline,
        HunyuanVideo15Transformer3DModel,
    )
    from transformers.models.qwen2_5_vl import Qwen2_5_VLTextConfig, Qwen2_5_VLTextModel

    from simtti.workloads.models.pipelines.diffusers_run import Run
    from simtti.workloads.models.pipelines.inputs import PROMPT_TOKENS, Tokenizer, prompts

    dtype = options.dtype
    config = Qwen2_5_VLTextConfig(**QWEN_2_5_VL_7B)
    pipeline = HunyuanVideo15Pipeline(
        text_encoder=recording.add("text_encoder", Qwen2_5_VLTextModel, config, dtype=dtype),
        text_encoder_2=add_t5(recording, "text_encoder_2", BYT5_SMALL, dtype),
        transformer=recording.add(
            "transformer",
            HunyuanVideo15Transformer3DModel,
            task_type="t2v",
            dtype=dtype,
        ),
        vae=recording.add("vae", AutoencoderKLHunyuanVideo15, dtype=dtype),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
        tokenizer=Tokenizer(),
        tokenizer_2=Tokenizer(),
        guider=ClassifierFreeGuidance(guidance_scale=options.guidance, enabled=options.guided),
    )
    recording.notes["mask"] = "drop"
    run = Run(recording, options, domain="joint")
    run.kept_tokens = PROMPT_TOKENS
    run.reads_true = True  # no image is given
    run.decode_with(pipeline.vae, "tiled", repeats=True)
    run(
        pipeline, pipeline.transformer, prompt=prompts(options), height=options.height, width=options.width,
        num_frames=options.frames, output_type="np",
    )  # fmt: skip


WORKLOADS = (
    Workload(
        name="hunyuan-video-1.5",
        task="text-to-video",
        architecture="latent video diffusion transformer",
        defaults=Options(height=480, width=832, steps=50, frames=121, dtype="bf16", guidance=6.0),
        parameters={
            "text_encoder": QWEN_2_5_VL_7B_TEXT_PARAMETERS,
            "text_encoder_2": BYT5_SMALL_PARAMETERS,
            "transformer": 8_326_608_160,
            "vae": 1_260_634_115,
        },
        source="Tencent's release of HunyuanVideo 1.5 (arXiv 2511.18870): 8.3 B transformer, Qwen2.5-VL-7B, Glyph-ByT5",
        url="https://huggingface.co/tencent/HunyuanVideo-1.5",
        builder=record_hunyuan_video_1_5,
        decoding=Decoding("tiled", tile=256, tiles=(Tiles(256, 192), Tiles(256, 192))),
        size_multiple=16,
        frame_multiple=4,
        place=142,
    ),
)
