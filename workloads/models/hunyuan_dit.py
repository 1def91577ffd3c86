"""Hunyuan-DiT 1.2, as diffusers' HunyuanDiTPipeline runs it, without its safety checker.

Configurations are those released with the weights (Tencent-Hunyuan/HunyuanDiT-v1.2-Diffusers): 77 tokens of a
Chinese CLIP text encoder (BERT) and 256 of mT5-XL in one cross-attention; guidance doubles the batch. The pipeline
would move other sizes to the nearest it was trained on; here every size is run as asked.
"""

from typing import Any

from simtti.workloads.models.sdxl import VAE_1024
from simtti.workloads.models.stable_diffusion import VAE_PARAMETERS
from simtti.workloads.models.text_encoders import MT5_XL, add_t5
from simtti.workloads.recording import Recording
from simtti.workloads.workload import Decoding, Options, Workload

# The text half of a Chinese CLIP: RoBERTa large with its own vocabulary, 352 M.
BERT: dict[str, Any] = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
    "vocab_size": 47020,
}  # fmt: skip
TRANSFORMER: dict[str, Any] = {
    "hidden_size": 1408, "num_layers": 40, "num_attention_heads": 16, "attention_head_dim": 88,
    "in_channels": 4, "patch_size": 2, "sample_size": 128, "mlp_ratio": 4.3637, "cross_attention_dim": 1024,
    "cross_attention_dim_t5": 2048, "pooled_projection_dim": 1024, "text_len": 77, "text_len_t5": 256,
    "use_style_cond_and_image_meta_size": False,
}  # fmt: skip


def record_1_2(options: Options, recording: Recording) -> None:
    """Encode the prompts twice over, denoise, decode."""
    from diffusers import AutoencoderKL, DDPMScheduler, HunyuanDiT2DModel, HunyuanDiTPipeline
    from transformers import BertConfig, BertModel

    from simtti.workloads.models.pipelines.diffusers_run import Run
    from simtti.workloads.models.pipelines.inputs import Tokenizer, prompts

    dtype = options.dtype
    pipeline = HunyuanDiTPipeline(
        text_encoder=recording.add("text_encoder", BertModel, BertConfig(**BERT), dtype=dtype),
        text_encoder_2=add_t5(recording, "text_encoder_2", MT5_XL, dtype),
        transformer=recording.add("transformer", HunyuanDiT2DModel, **TRANSFORMER, dtype=dtype),
        vae=recording.add("vae", AutoencoderKL, **VAE_1024, scaling_factor=0.13025, dtype=dtype),
        scheduler=DDPMScheduler(
            beta_start=0.00085, beta_end=0.018, beta_schedule="scaled_linear", clip_sample=False,
            prediction_type="v_prediction", steps_offset=1,
        ),
        tokenizer=Tokenizer(),
        tokenizer_2=Tokenizer(256),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip
    run = Run(recording, options)
    run.decode_with(pipeline.vae)
    run(
        pipeline, pipeline.transformer, prompt=prompts(options), height=options.height, width=options.width,
        guidance_scale=options.guidance, output_type="np", use_resolution_binning=False,
    )  # fmt: skip


WORKLOADS = (
    Workload(
        name="hunyuan-dit",
        task="text-to-image",
        architecture="latent diffusion transformer",
        defaults=Options(height=1024, width=1024, steps=50, guidance=5.0),
        parameters={
            "text_encoder": 352_035_840,
            "text_encoder_2": 1_669_958_656,
            "transformer": 1_499_952_032,
            "vae": VAE_PARAMETERS,
        },
        source="Li et al., 2024 (arXiv 2405.08748): 1.5 B DiT, Chinese CLIP 350 M, mT5-XL encoder 1.6 B",
        url="https://huggingface.co/Tencent-Hunyuan/HunyuanDiT-v1.2-Diffusers",
        builder=record_1_2,
        decoding=Decoding(tile=1024),
        size_multiple=16,
        place=70,
    ),
)
