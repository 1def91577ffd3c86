"""Kandinsky 2.2 and 3, as diffusers' KandinskyV22CombinedPipeline and Kandinsky3Pipeline run them.

Configurations are those released with the weights (kandinsky-community/kandinsky-2-2-prior, kandinsky-2-2-decoder
and kandinsky-3). Kandinsky 2.2 first samples a CLIP image embedding from the text (phase 'prior', always 25 steps,
as the pipeline defaults to), encodes an empty image for guidance ('image_encoder'), then denoises.
"""

from typing import Any

from simtti.workloads.models.sdxl import OPENCLIP_BIGG, OPENCLIP_BIGG_PARAMETERS
from simtti.workloads.models.text_encoders import FLAN_UL2, add_t5
from simtti.workloads.recording import Recording
from simtti.workloads.workload import ONLY_WHOLE, Options, Workload

PRIOR_STEPS = 25
# OpenCLIP's ViT-bigG/14 image model, 1.84 B.
OPENCLIP_BIGG_VISION: dict[str, Any] = {
    "hidden_size": 1664, "intermediate_size": 8192, "num_hidden_layers": 48, "num_attention_heads": 16,
    "hidden_act": "gelu", "projection_dim": 1280, "patch_size": 14, "image_size": 224,
}  # fmt: skip
UNET: dict[str, Any] = {
    "sample_size": 64, "in_channels": 4, "out_channels": 8, "layers_per_block": 3, "attention_head_dim": 64,
    "block_out_channels": (384, 768, 1152, 1536), "cross_attention_dim": 768,
    "down_block_types": ("ResnetDownsampleBlock2D",) + ("SimpleCrossAttnDownBlock2D",) * 3,
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "up_block_types": ("SimpleCrossAttnUpBlock2D",) * 3 + ("ResnetUpsampleBlock2D",),
    "addition_embed_type": "image", "encoder_hid_dim": 1280, "encoder_hid_dim_type": "image_proj",
    "resnet_time_scale_shift": "scale_shift",
}  # fmt: skip
MOVQ: dict[str, Any] = {
    "block_out_channels": (128, 256, 256, 512), "layers_per_block": 2, "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 3 + ("AttnDownEncoderBlock2D",),
    "up_block_types": ("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * 3,
    "norm_type": "spatial", "num_vq_embeddings": 16384, "vq_embed_dim": 4,
}  # fmt: skip
MOVQ_3: dict[str, Any] = {**MOVQ, "block_out_channels": (256, 512, 512, 1024)}


def record_2_2(options: Options, recording: Recording) -> None:
    """Text to image embedding, image embedding to latent, latent to image."""
    from diffusers import (
        DDPMScheduler,
        KandinskyV22Pipeline,
        KandinskyV22PriorPipeline,
        PriorTransformer,
        UnCLIPScheduler,
        UNet2DConditionModel,
        VQModel,
    )
    from transformers import (
        CLIPTextConfig,
        CLIPTextModelWithProjection,
        CLIPVisionConfig,
        CLIPVisionModelWithProjection,
    )

    from simtti.workloads.models.pipelines.diffusers_run import Run
    from simtti.workloads.models.pipelines.inputs import ImageProcessor, Tokenizer, prompts

    dtype = options.dtype
    text, vision = CLIPTextConfig(**OPENCLIP_BIGG), CLIPVisionConfig(**OPENCLIP_BIGG_VISION)
    prior = KandinskyV22PriorPipeline(
        text_encoder=recording.add("text_encoder", CLIPTextModelWithProjection, text, dtype=dtype),
        image_encoder=recording.add("image_encoder", CLIPVisionModelWithProjection, vision, dtype=dtype),
        prior=recording.add("prior", PriorTransformer, embedding_dim=1280, dtype=dtype),
        scheduler=UnCLIPScheduler(
            variance_type="fixed_small_log", prediction_type="sample", clip_sample_range=5.0
        ),
        tokenizer=Tokenizer(),
        image_processor=ImageProcessor(),
    )
    decoder = KandinskyV22Pipeline(
        unet=recording.add("unet", UNet2DConditionModel, **UNET, dtype=dtype),
        movq=recording.add("movq", VQModel, **MOVQ, dtype=dtype),
        scheduler=DDPMScheduler(
            beta_start=0.00085, beta_end=0.012, variance_type="learned_range", clip_sample=False
        ),
    )
    run = Run(recording, options, denoising="prior", domain="text", after="image_encoder", steps=PRIOR_STEPS)
    embeddings = run(
        prior, prior.prior, prompt=prompts(options), guidance_scale=options.guidance, output_type="pt"
    )
    run = Run(recording, options, before="image_encoder", before_domain="spatial")
    run(
        decoder, decoder.unet, image_embeds=embeddings.image_embeds,
        negative_image_embeds=embeddings.negative_image_embeds, height=options.height, width=options.width,
        guidance_scale=options.guidance, output_type="np",
    )  # fmt: skip


def record_3(options: Options, recording: Recording) -> None:
    """Encode the prompts, denoise, decode."""
    from diffusers import DDPMScheduler, Kandinsky3Pipeline, Kandinsky3UNet, VQModel

    from simtti.workloads.models.pipelines.diffusers_run import Run
    from simtti.workloads.models.pipelines.inputs import Tokenizer, prompts

    dtype = options.dtype
    pipeline = Kandinsky3Pipeline(
        text_encoder=add_t5(recording, "text_encoder", FLAN_UL2, dtype),
        unet=recording.add("unet", Kandinsky3UNet, dtype=dtype),
        movq=recording.add("movq", VQModel, **MOVQ_3, dtype=dtype),
        scheduler=DDPMScheduler(beta_schedule="squaredcos_cap_v2", clip_sample=True),
        tokenizer=Tokenizer(128),
    )
    run = Run(recording, options)
    run(
        pipeline, pipeline.unet, prompt=prompts(options), height=options.height, width=options.width,
        guidance_scale=options.guidance, output_type="np",
    )  # fmt: skip


WORKLOADS = (
    Workload(
        name="kandinsky-2.2",
        task="text-to-image",
        architecture="latent diffusion UNet with a diffusion prior",
        defaults=Options(height=512, width=512, steps=100, guidance=4.0),
        parameters={
            "text_encoder": OPENCLIP_BIGG_PARAMETERS,
            "image_encoder": 1_844_907_264,
            "prior": 1_026_225_920,
            "unet": 1_253_057_288,
            "movq": 67_832_495,
        },
        source="Razzhigaev et al., 2023 (arXiv 2310.03502): prior 1 B, UNet 1.2 B, MoVQ 67 M, CLIP ViT-bigG",
        url="https://huggingface.co/kandinsky-community/kandinsky-2-2-decoder",
        builder=record_2_2,
        decoding=ONLY_WHOLE,
        size_multiple=64,
        place=40,
    ),
    Workload(
        name="kandinsky-3",
        task="text-to-image",
        architecture="latent diffusion UNet",
        defaults=Options(height=1024, width=1024, steps=25, guidance=3.0),
        parameters={
            "text_encoder": 8_721_797_632,
            "unet": 3_055_348_228,
            "movq": 270_669_103,
        },
        source="Arkhipkin et al., 2023 (arXiv 2312.03511): UNet 3.0 B, FLAN-UL2 encoder 8.6 B, MoVQ 0.27 B",
        url="https://huggingface.co/kandinsky-community/kandinsky-3",
        builder=record_3,
        decoding=ONLY_WHOLE,
        size_multiple=64,
        place=40,
    ),
)
