"""Z-Image and Z-Image-Turbo, as diffusers' ZImagePipeline runs them.

The transformer's configuration is the class's default: two blocks that refine the image, two the text, and 30 over both in one
sequence, each of which pads to a multiple of 32 tokens. Text is the last state but one of Qwen3-4B: 512 tokens go through it,
the prompt's own are kept. The sampler's latents are fp32. Guidance puts two samples into a batch; Turbo has none.
"""

from simtti.workloads.models.flux import VAE
from simtti.workloads.models.stable_diffusion_3 import VAE_16_PARAMETERS
from simtti.workloads.models.text_encoders import QWEN3_4B, QWEN3_4B_PARAMETERS
from simtti.workloads.recording import Recording
from simtti.workloads.workload import Decoding, Options, Workload


def record_turbo(options: Options, recording: Recording) -> None:
    """Z-Image-Turbo: noise levels shifted by 3."""
    record_z_image(options, recording, shift=3.0)


def record_base(options: Options, recording: Recording) -> None:
    """Z-Image: shifted by 6."""
    record_z_image(options, recording, shift=6.0)


def record_z_image(options: Options, recording: Recording, shift: float) -> None:
    """Encode the prompts, denoise, decode."""
    from diffusers import (
        AutoencoderKL,
        FlowMatchEulerDiscreteScheduler,
        ZImagePipeline,
        ZImageTransformer2DModel,
    )
    from transformers import Qwen3Config, Qwen3Model

    from simtti.workloads.models.pipelines.diffusers_run import Run
    from simtti.workloads.models.pipelines.inputs import PROMPT_TOKENS, Tokenizer, prompts

    dtype = options.dtype
    pipeline = ZImagePipeline(
        text_encoder=recording.add("text_encoder", Qwen3Model, Qwen3Config(**QWEN3_4B), dtype=dtype),
        transformer=recording.add("transformer", ZImageTransformer2DModel, dtype=dtype),
        vae=recording.add("vae", AutoencoderKL, **VAE, dtype=dtype),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=shift),
        tokenizer=Tokenizer(),
    )
    run = Run(recording, options, domain="joint")
    run.decode_with(pipeline.vae)
    run.kept_tokens = PROMPT_TOKENS
    run(
        pipeline, pipeline.transformer, prompt=prompts(options), height=options.height, width=options.width,
        guidance_scale=options.guidance or 0.0, output_type="np",
    )  # fmt: skip


PARAMETERS = {
    "text_encoder": QWEN3_4B_PARAMETERS,
    "transformer": 6_154_908_736,
    "vae": VAE_16_PARAMETERS,
}
WORKLOADS = (
    Workload(
        name="z-image-turbo",
        task="text-to-image",
        architecture="latent diffusion transformer",
        defaults=Options(height=1024, width=1024, steps=9, dtype="bf16"),
        parameters=PARAMETERS,
        source="Z-Image team, 2025 (arXiv 2511.22699): 6 B single-stream transformer, Qwen3-4B, distilled to 8 evaluations",
        url="https://huggingface.co/Tongyi-MAI/Z-Image-Turbo",
        builder=record_turbo,
        decoding=Decoding(tile=1024),
        size_multiple=16,
        place=84,
    ),
    Workload(
        name="z-image",
        task="text-to-image",
        architecture="latent diffusion transformer",
        defaults=Options(height=1024, width=1024, steps=50, guidance=4.0, dtype="bf16"),
        parameters=PARAMETERS,
        source="Z-Image team, 2025 (arXiv 2511.22699): 6 B single-stream transformer, Qwen3-4B",
        url="https://huggingface.co/Tongyi-MAI/Z-Image",
        builder=record_base,
        decoding=Decoding(tile=1024),
        size_multiple=16,
        place=84,
    ),
)
