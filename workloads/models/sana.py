"""SANA 1.5 (1.6 B and 4.8 B, 1024 px), SANA 1.0 for 4096 px and SANA-Sprint 1.6 B, as diffusers' SanaPipeline and SanaSprintPipeline run them.

Configurations are those released with the weights (Efficient-Large-Model/SANA1.5_1.6B_1024px_diffusers,
..._4.8B_..., Sana_1600M_4Kpx_BF16_diffusers and Sana_Sprint_1.6B_1024px_diffusers): linear attention, which is matrix products here as in the model's code, cross-attention to 300 tokens
of Gemma-2-2B, and the deep-compression VAE (factor 32). The pipeline puts an instruction before the prompt; its
number of tokens is estimated from its words. It would move other sizes to the nearest it was trained on; here
every size is run as asked. SANA 1.0 does not normalise queries and keys; for 4096 px it adds positions to the patches
(scripts/convert_sana_to_diffusers.py), and its decoder is tiled as its own example does it (NVlabs/Sana, asset/docs/model_zoo.md).
Sprint's guidance is embedded, its sampler works in fp32 and takes two steps.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from simtti.workloads.recording import Recording
from simtti.workloads.workload import Decoding, Options, Tiles, Workload

# google/gemma-2-2b-it, 2.61 B.
GEMMA_2_2B: dict[str, Any] = {
    "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26, "num_attention_heads": 8,
    "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 256000, "sliding_window": 4096,
}  # fmt: skip
GEMMA_2_2B_PARAMETERS = 2_614_341_888
# mit-han-lab/dc-ae-f32c32-sana-1.1-diffusers, 312 M.
DC_AE: dict[str, Any] = {
    "encoder_block_types": ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3,
    "decoder_block_types": ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3,
    "upsample_block_type": "interpolate", "downsample_block_type": "conv", "scaling_factor": 0.41407,
}  # fmt: skip
TRANSFORMER: dict[str, Any] = {
    "num_attention_heads": 70, "attention_head_dim": 32, "num_cross_attention_heads": 20,
    "cross_attention_head_dim": 112, "cross_attention_dim": 2240, "caption_channels": 2304, "sample_size": 32,
    "qk_norm": "rms_norm_across_heads",
}  # fmt: skip
FOR_4K: dict[str, Any] = {"sample_size": 128, "qk_norm": None, "interpolation_scale": 2.0}
TILE_4K, TILE_STRIDE_4K = 1024, 896  # pixels


def record_1_6b(options: Options, recording: Recording) -> None:
    """SANA 1.5 1.6B: 20 blocks."""
    record_sana_1_5(options, recording, 20)


def record_4_8b(options: Options, recording: Recording) -> None:
    """SANA 1.5 4.8B: 60 blocks."""
    record_sana_1_5(options, recording, 60)


def record_1_6b_4k(options: Options, recording: Recording) -> None:
    """SANA 1.0 1.6B for 4096 px: 20 blocks, tiles of 1024 pixels that overlap by 128."""
    from diffusers import SanaPipeline

    tiles = {
        f"tile_sample_{what}_{side}": size
        for side in ("height", "width")
        for what, size in (("min", TILE_4K), ("stride", TILE_STRIDE_4K))
    }
    record_sana(options, recording, 20, SanaPipeline, flow_dpm_solver(6.0), transformer=FOR_4K, tiles=tiles)


def record_sprint(options: Options, recording: Recording) -> None:
    """SANA-Sprint 1.6B: 20 blocks, guidance embedded, consistency sampling."""
    from diffusers import SanaSprintPipeline, SCMScheduler

    record_sana(
        options, recording, 20, SanaSprintPipeline, SCMScheduler(), ends=1, intermediate_timesteps=None,
        transformer={"guidance_embeds": True},
    )  # fmt: skip


def record_sana_1_5(options: Options, recording: Recording, blocks: int) -> None:
    """SANA 1.5 of so many blocks."""
    from diffusers import SanaPipeline

    record_sana(options, recording, blocks, SanaPipeline, flow_dpm_solver(3.0))


def flow_dpm_solver(shift: float) -> Any:
    """The sampler of SANA; noise levels are shifted for the size of the image."""
    from diffusers import DPMSolverMultistepScheduler

    return DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
    )


def record_sana(
    options: Options,
    recording: Recording,
    blocks: int,
    pipeline_class: Any,
    scheduler: Any,
    *,
    transformer: Mapping[str, Any] = MappingProxyType({}),
    tiles: Mapping[str, int] = MappingProxyType({}),
    ends: int = 0,
    **arguments: Any,
) -> None:
    """Encode the prompts, denoise, decode.

    transformer: what differs from TRANSFORMER. tiles: sizes of the tiles that the VAE decodes in unless asked otherwise, by its
    attributes; whole if empty. ends: see `Run`. arguments: the pipeline's.
    """
    from diffusers import AutoencoderDC, SanaTransformer2DModel
    from transformers import Gemma2Config, Gemma2Model

    from simtti.workloads.models.pipelines.diffusers_run import Run
    from simtti.workloads.models.pipelines.inputs import Tokenizer, prompts

    dtype = options.dtype
    pipeline = pipeline_class(
        text_encoder=recording.add("text_encoder", Gemma2Model, Gemma2Config(**GEMMA_2_2B), dtype=dtype),
        transformer=recording.add(
            "transformer", SanaTransformer2DModel, **{**TRANSFORMER, **transformer}, num_layers=blocks, dtype=dtype,
        ),
        vae=recording.add("vae", AutoencoderDC, **DC_AE, dtype=dtype),
        scheduler=scheduler,
        tokenizer=Tokenizer(),
    )  # fmt: skip
    run = Run(recording, options, ends=ends, noise_levels_there=ends > 0)
    for name, size in tiles.items():
        setattr(pipeline.vae, name, size)
    run.decode_with(pipeline.vae, "tiled" if tiles else "whole")
    run(
        pipeline, pipeline.transformer, prompt=prompts(options), height=options.height, width=options.width,
        guidance_scale=options.guidance, output_type="np", use_resolution_binning=False, **arguments,
    )  # fmt: skip


WORKLOADS = (
    Workload(
        name="sana-1.6b",
        task="text-to-image",
        architecture="latent diffusion transformer (linear attention)",
        defaults=Options(height=1024, width=1024, steps=20, guidance=4.5, dtype="bf16"),
        parameters={
            "text_encoder": GEMMA_2_2B_PARAMETERS,
            "transformer": 1_604_641_952,
            "vae": 312_250_275,
        },
        source="Xie et al., 2025 (arXiv 2501.18427), SANA 1.5: 1.6 B DiT, Gemma-2-2B, DC-AE factor 32",
        url="https://huggingface.co/Efficient-Large-Model/SANA1.5_1.6B_1024px_diffusers",
        builder=record_1_6b,
        decoding=Decoding(tile=512),
        size_multiple=32,
        place=60,
    ),
    Workload(
        name="sana-1.6b-4k",
        task="text-to-image",
        architecture="latent diffusion transformer (linear attention)",
        defaults=Options(height=4096, width=4096, steps=20, guidance=4.5, dtype="bf16"),
        parameters={
            "text_encoder": GEMMA_2_2B_PARAMETERS,
            "transformer": 1_604_462_752,
            "vae": 312_250_275,
        },
        source="Xie et al., 2024 (arXiv 2410.10629), SANA: 1.6 B DiT for 4096 px, Gemma-2-2B, DC-AE factor 32",
        url="https://huggingface.co/Efficient-Large-Model/Sana_1600M_4Kpx_BF16_diffusers",
        builder=record_1_6b_4k,
        decoding=Decoding("tiled", tile=TILE_4K, tiles=(Tiles(TILE_4K, TILE_STRIDE_4K),) * 2),
        size_multiple=32,
        place=60,
    ),
    Workload(
        name="sana-4.8b",
        task="text-to-image",
        architecture="latent diffusion transformer (linear attention)",
        defaults=Options(height=1024, width=1024, steps=20, guidance=4.5, dtype="bf16"),
        parameters={
            "text_encoder": GEMMA_2_2B_PARAMETERS,
            "transformer": 4_721_825_952,
            "vae": 312_250_275,
        },
        source="Xie et al., 2025 (arXiv 2501.18427), SANA 1.5: 4.8 B DiT (60 blocks; 4.7 B as counted)",
        url="https://huggingface.co/Efficient-Large-Model/SANA1.5_4.8B_1024px_diffusers",
        builder=record_4_8b,
        decoding=Decoding(tile=512),
        size_multiple=32,
        place=60,
    ),
    Workload(
        name="sana-sprint-1.6b",
        task="text-to-image",
        architecture="latent diffusion transformer (linear attention)",
        defaults=Options(height=1024, width=1024, steps=2, guidance=4.5, dtype="bf16"),
        parameters={
            "text_encoder": GEMMA_2_2B_PARAMETERS,
            "transformer": 1_610_237_472,
            "vae": 312_250_275,
        },
        source="Chen et al., 2025 (arXiv 2503.09641), SANA-Sprint: SANA's 1.6 B DiT distilled to 1-4 steps",
        url="https://huggingface.co/Efficient-Large-Model/Sana_Sprint_1.6B_1024px_diffusers",
        builder=record_sprint,
        decoding=Decoding(tile=512),
        size_multiple=32,
        place=60,
    ),
)
