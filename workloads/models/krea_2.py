"""Krea 2 Turbo and Raw (12.8 B as counted), as diffusers' Krea2Pipeline runs them.

Configurations are the classes' defaults, which are those released with the weights (krea/Krea-2-Turbo, krea/Krea-2-Raw): 28 single-stream
blocks of 48 heads, 12 of keys and values, with a gate on what attention returns. Text is the states of 12 layers of Qwen3-VL-4B, 512 tokens
with those of a template around them, which four small blocks fuse in each evaluation: two over a token's layers, two over tokens. Padding
is masked in every attention. The VAE is Qwen-Image's.

Turbo is distilled to 8 steps without guidance. Raw is guided by two calls a step; its scale counts from 0, not from 1, and is
given here as its authors do (3.5, which is 4.5 elsewhere).
"""

from typing import Any

from simtti.workloads.models.text_encoders import QWEN3_VL_4B, QWEN3_VL_4B_PARAMETERS, QWEN3_VL_4B_VISION
from simtti.workloads.recording import Recording
from simtti.workloads.workload import Decoding, Options, Workload

# What follows a prompt in the template, tokenized apart.
SUFFIX_TOKENS = 5
SCHEDULER: dict[str, Any] = {
    "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256,
    "max_image_seq_len": 6400,
}  # fmt: skip


def record_turbo(options: Options, recording: Recording) -> None:
    """Krea 2 Turbo: eight steps."""
    record_krea_2(options, recording, is_distilled=True)


def record_raw(options: Options, recording: Recording) -> None:
    """Krea 2 Raw: before its distillation."""
    record_krea_2(options, recording, is_distilled=False)


def record_krea_2(options: Options, recording: Recording, *, is_distilled: bool) -> None:
    """Encode the prompts, denoise, decode."""
    import diffusers
    from transformers import Qwen3VLConfig, Qwen3VLModel

    from simtti.workloads.models.pipelines.diffusers_run import Run
    from simtti.workloads.models.pipelines.inputs import Tokenizer, prompts

    dtype = options.dtype
    config = Qwen3VLConfig(text_config=QWEN3_VL_4B, vision_config=QWEN3_VL_4B_VISION)
    pipeline = diffusers.Krea2Pipeline(
        text_encoder=recording.add("text_encoder", Qwen3VLModel, config, dtype=dtype),
        transformer=recording.add("transformer", diffusers.Krea2Transformer2DModel, dtype=dtype),
        vae=recording.add("vae", diffusers.AutoencoderKLQwenImage, dtype=dtype),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**SCHEDULER),
        tokenizer=Tokenizer(SUFFIX_TOKENS),
        is_distilled=is_distilled,
    )
    run = Run(recording, options, domain="joint", channel_dim=None)
    run.decode_with(pipeline.vae)
    run(
        pipeline, pipeline.transformer, prompt=prompts(options), height=options.height, width=options.width,
        guidance_scale=options.guidance if options.guided else 0.0, output_type="np",
    )  # fmt: skip


PARAMETERS = {
    "text_encoder": QWEN3_VL_4B_PARAMETERS,
    "transformer": 12_820_073_036,
    "vae": 126_892_531,
}
WORKLOADS = (
    Workload(
        name="krea-2-turbo",
        task="text-to-image",
        architecture="latent diffusion transformer",
        defaults=Options(height=1024, width=1024, steps=8, dtype="bf16"),
        parameters=PARAMETERS,
        source="Krea, release of Krea 2, 2026: 12.8 B single-stream transformer, Qwen3-VL-4B, distilled to 8 steps",
        url="https://huggingface.co/krea/Krea-2-Turbo",
        builder=record_turbo,
        decoding=Decoding(tile=256),
        size_multiple=16,
        place=89,
    ),
    Workload(
        name="krea-2-raw",
        task="text-to-image",
        architecture="latent diffusion transformer",
        defaults=Options(height=1024, width=1024, steps=52, guidance=3.5, dtype="bf16"),
        parameters=PARAMETERS,
        source="Krea, release of Krea 2, 2026: 12.8 B single-stream transformer, Qwen3-VL-4B",
        url="https://huggingface.co/krea/Krea-2-Raw",
        builder=record_raw,
        decoding=Decoding(tile=256),
        size_multiple=16,
        place=89,
    ),
)
