"""FLUX.2: dev, klein 4B, klein base 4B and klein 9B, as diffusers' Flux2Pipeline and Flux2KleinPipeline run them.

Configurations are those released with the weights (black-forest-labs/FLUX.2-dev, the class's defaults, FLUX.2-klein-4B and, as
black-forest-labs/flux2 has it in code, FLUX.2-klein-9B). Blocks share their modulation; single blocks run attention and a gated MLP side
by side. Text is the states of three layers of a language model side by side, 512 tokens: Mistral-Small-3.2-24B's for dev, Qwen3's of 4 or
8 B for klein. dev is distilled from guidance and klein from steps as well; klein base is guided by two calls a step.
"""

from typing import Any

from simtti.workloads.models.text_encoders import (
    MISTRAL_SMALL_24B,
    MISTRAL_SMALL_24B_PARAMETERS,
    PIXTRAL_24B_VISION,
    QWEN3_4B,
    QWEN3_4B_PARAMETERS,
    QWEN3_8B,
    QWEN3_8B_PARAMETERS,
)
from simtti.workloads.recording import Recording
from simtti.workloads.workload import Decoding, Options, Workload

KLEIN_4B: dict[str, Any] = {
    "num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24, "joint_attention_dim": 7680,
    "guidance_embeds": False,
}  # fmt: skip
KLEIN_9B: dict[str, Any] = {
    "num_layers": 8, "num_single_layers": 24, "num_attention_heads": 32, "joint_attention_dim": 12288,
    "guidance_embeds": False,
}  # fmt: skip
VAE_PARAMETERS = 84_046_115


def record_dev(options: Options, recording: Recording) -> None:
    """FLUX.2-dev: 8 double and 48 single blocks of 48 heads, guidance embedded."""
    from diffusers import Flux2KleinPipeline, Flux2Pipeline
    from transformers import Mistral3Config, Mistral3ForConditionalGeneration

    class Pipeline(Flux2Pipeline):
        """With klein's way from tokens to an image: the same, but told the sizes, which meta tensors cannot say."""

        def _unpack_latents_with_ids(self, latents: Any, ids: Any) -> Any:
            assert options.height is not None
            assert options.width is not None
            return Flux2KleinPipeline._unpack_latents_with_ids(
                latents, ids, options.height // 16, options.width // 16
            )

    config = Mistral3Config(
        text_config=MISTRAL_SMALL_24B, vision_config=PIXTRAL_24B_VISION, tie_word_embeddings=False
    )
    text_encoder = recording.add(
        "text_encoder", Mistral3ForConditionalGeneration, config, dtype=options.dtype
    )
    record_flux_2(options, recording, Pipeline, {}, text_encoder)


def record_klein_4b(options: Options, recording: Recording) -> None:
    """FLUX.2-klein-4B: 5 double and 20 single blocks of 24 heads, four steps."""
    _record_klein(options, recording, KLEIN_4B, QWEN3_4B, is_distilled=True)


def record_klein_9b(options: Options, recording: Recording) -> None:
    """FLUX.2-klein-9B: 8 double and 24 single blocks of 32 heads, four steps."""
    _record_klein(options, recording, KLEIN_9B, QWEN3_8B, is_distilled=True)


def record_klein_base_4b(options: Options, recording: Recording) -> None:
    """FLUX.2-klein-base-4B: the same before its distillation."""
    _record_klein(options, recording, KLEIN_4B, QWEN3_4B, is_distilled=False)


def _record_klein(
    options: Options,
    recording: Recording,
    transformer: dict[str, Any],
    qwen3: dict[str, Any],
    *,
    is_distilled: bool,
) -> None:
    from diffusers import Flux2KleinPipeline
    from transformers import Qwen3Config, Qwen3ForCausalLM

    text_encoder = recording.add("text_encoder", Qwen3ForCausalLM, Qwen3Config(**qwen3), dtype=options.dtype)
    record_flux_2(
        options, recording, Flux2KleinPipeline, transformer, text_encoder, is_distilled=is_distilled
    )


def record_flux_2(
    options: Options,
    recording: Recording,
    pipeline_class: Any,
    transformer: dict[str, Any],
    text_encoder: Any,
    **parts: Any,
) -> None:
    """Encode the prompts, denoise, decode. `parts`: what else the pipeline is made of."""
    from diffusers import AutoencoderKLFlux2, FlowMatchEulerDiscreteScheduler, Flux2Transformer2DModel

    from simtti.workloads.models.flux import SCHEDULER
    from simtti.workloads.models.pipelines.diffusers_run import Run
    from simtti.workloads.models.pipelines.inputs import Tokenizer, prompts

    dtype = options.dtype
    pipeline = pipeline_class(
        text_encoder=text_encoder,
        transformer=recording.add("transformer", Flux2Transformer2DModel, **transformer, dtype=dtype),
        vae=recording.add("vae", AutoencoderKLFlux2, dtype=dtype),
        scheduler=FlowMatchEulerDiscreteScheduler(**SCHEDULER),
        tokenizer=Tokenizer(),
        **parts,
    )
    run = Run(recording, options, domain="joint", channel_dim=2)
    run.decode_with(pipeline.vae)
    run(
        pipeline, pipeline.transformer, prompt=prompts(options), height=options.height, width=options.width,
        guidance_scale=options.guidance or 1.0, output_type="np",
    )  # fmt: skip


WORKLOADS = (
    Workload(
        name="flux.2-dev",
        task="text-to-image",
        architecture="latent diffusion transformer",
        defaults=Options(height=1024, width=1024, steps=50, guidance=4.0, dtype="bf16"),
        parameters={
            "text_encoder": MISTRAL_SMALL_24B_PARAMETERS,
            "transformer": 32_223_281_152,
            "vae": VAE_PARAMETERS,
        },
        source="Black Forest Labs' release: 32 B rectified-flow transformer, Mistral-Small-3.2-24B, guidance-distilled",
        url="https://huggingface.co/black-forest-labs/FLUX.2-dev",
        builder=record_dev,
        decoding=Decoding(tile=1024),
        size_multiple=16,
        place=82,
    ),
    Workload(
        name="flux.2-klein-4b",
        task="text-to-image",
        architecture="latent diffusion transformer",
        defaults=Options(height=1024, width=1024, steps=4, dtype="bf16"),
        parameters={
            "text_encoder": QWEN3_4B_PARAMETERS,
            "transformer": 3_875_544_576,
            "vae": VAE_PARAMETERS,
        },
        source="Black Forest Labs' release: 4 B rectified-flow transformer, Qwen3-4B, distilled to 4 steps",
        url="https://huggingface.co/black-forest-labs/FLUX.2-klein-4B",
        builder=record_klein_4b,
        decoding=Decoding(tile=1024),
        size_multiple=16,
        place=82,
    ),
    Workload(
        name="flux.2-klein-base-4b",
        task="text-to-image",
        architecture="latent diffusion transformer",
        defaults=Options(height=1024, width=1024, steps=50, guidance=4.0, dtype="bf16"),
        parameters={
            "text_encoder": QWEN3_4B_PARAMETERS,
            "transformer": 3_875_544_576,
            "vae": VAE_PARAMETERS,
        },
        source="Black Forest Labs' release: 4 B rectified-flow transformer, Qwen3-4B",
        url="https://huggingface.co/black-forest-labs/FLUX.2-klein-base-4B",
        builder=record_klein_base_4b,
        decoding=Decoding(tile=1024),
        size_multiple=16,
        place=82,
    ),
    Workload(
        name="flux.2-klein-9b",
        task="text-to-image",
        architecture="latent diffusion transformer",
        defaults=Options(height=1024, width=1024, steps=4, dtype="bf16"),
        parameters={
            "text_encoder": QWEN3_8B_PARAMETERS,
            "transformer": 9_078_581_248,
            "vae": VAE_PARAMETERS,
        },
        source="Black Forest Labs' release: 9 B rectified-flow transformer, Qwen3-8B, distilled to 4 steps",
        url="https://huggingface.co/black-forest-labs/FLUX.2-klein-9B",
        builder=record_klein_9b,
        decoding=Decoding(tile=1024),
        size_multiple=16,
        place=82,
    ),
)
