"""HunyuanImage 2.1 (17 B), as diffusers' HunyuanImagePipeline runs it, without its refiner.

Configurations are those released with the weights (hunyuanvideo-community/HunyuanImage-2.1-Diffusers), the transformer's the class's
default with room for glyphs: 20 double and 40 single blocks. The VAE shrinks images by 32, so that 2048x2048 has 4,096 tokens. Text
is 1,000 tokens of Qwen2.5-VL-7B and 128 of ByT5 for glyphs (zeros, as nothing is to be written), masked where they are padding; the
mask is dropped in a simulation unless asked for, as the model's own code packs the sequences. Guidance calls the transformer twice
a step, one after the other.
"""

from typing import Any

from simtti.workloads.models.text_encoders import (
    BYT5_SMALL,
    BYT5_SMALL_PARAMETERS,
    QWEN_2_5_VL_7B,
    QWEN_2_5_VL_7B_PARAMETERS,
    QWEN_2_5_VL_7B_VISION,
    add_t5,
)
from simtti.workloads.recording import Recording
from simtti.workloads.workload import Decoding, Options, Workload

VAE: dict[str, Any] = {
    "in_channels": 3, "out_channels": 3, "latent_channels": 64, "layers_per_block": 2,
    "block_out_channels": (128, 256, 512, 512, 1024, 1024), "spatial_compression_ratio": 32, "sample_size": 384,
    "scaling_factor": 0.75289,
}  # fmt: skip


def record_hunyuan_image(options: Options, recording: Recording) -> None:
    """Encode the prompts, denoise, decode."""
    from diffusers import (
        AdaptiveProjectedMixGuidance,
        AutoencoderKLHunyuanImage,
        FlowMatchEulerDiscreteScheduler,
        HunyuanImagePipeline,
        HunyuanImageTransformer2DModel,
    )
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    from simtti.workloads.models.pipelines.diffusers_run import Run
    from simtti.workloads.models.pipelines.inputs import PROMPT_TOKENS, Tokenizer, prompts

    dtype = options.dtype
    config = Qwen2_5_VLConfig(text_config=QWEN_2_5_VL_7B, vision_config=QWEN_2_5_VL_7B_VISION)
    pipeline = HunyuanImagePipeline(
        text_encoder=recording.add("text_encoder", Qwen2_5_VLForConditionalGeneration, config, dtype=dtype),
        text_encoder_2=add_t5(recording, "text_encoder_2", BYT5_SMALL, dtype),
        transformer=recording.add(
            "transformer", HunyuanImageTransformer2DModel, text_embed_2_dim=BYT5_SMALL["d_model"], dtype=dtype
        ),
        vae=recording.add("vae", AutoencoderKLHunyuanImage, **VAE, dtype=dtype),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
        tokenizer=Tokenizer(),
        tokenizer_2=Tokenizer(),
        guider=AdaptiveProjectedMixGuidance(guidance_scale=options.guidance, enabled=options.guided),
    )
    recording.notes["mask"] = "drop"
    run = Run(recording, options, domain="joint")
    run.decode_with(pipeline.vae)
    run.kept_tokens = PROMPT_TOKENS
    run.reads_true = True  # nothing is to be written
    run(
        pipeline, pipeline.transformer, prompt=prompts(options), height=options.height, width=options.width,
        output_type="np",
    )  # fmt: skip


WORKLOADS = (
    Workload(
        name="hunyuan-image-2.1",
        task="text-to-image",
        architecture="latent diffusion transformer",
        defaults=Options(height=2048, width=2048, steps=50, guidance=3.5, dtype="bf16"),
        parameters={
            "text_encoder": QWEN_2_5_VL_7B_PARAMETERS,
            "text_encoder_2": BYT5_SMALL_PARAMETERS,
            "transformer": 17_425_795_520,
            "vae": 405_575_491,
        },
        source="Tencent's release of HunyuanImage 2.1: 17 B transformer, Qwen2.5-VL-7B, Glyph-ByT5, VAE of factor 32",
        url="https://huggingface.co/tencent/HunyuanImage-2.1",
        builder=record_hunyuan_image,
        decoding=Decoding(),
        size_multiple=32,
        place=88,
    ),
)
