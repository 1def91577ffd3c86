"""FLUX.1: dev, schnell and Kontext-dev, as diffusers' FluxPipeline and FluxKontextPipeline run them.

The transformer's configuration is the class's default, with guidance embedded in dev and Kontext: distilled from guidance (and
schnell from steps as well), each step evaluates it once. 512 tokens of T5-XXL (256 for schnell, as its model card asks)
join the image in one sequence; CLIP ViT-L gives the pooled text. Kontext encodes an image of the size asked for, and its
tokens stand beside those of the image that is made.
"""

from typing import Any

from simtti.workloads.models.stable_diffusion import CLIP_L, CLIP_L_PARAMETERS
from simtti.workloads.models.stable_diffusion_3 import VAE_16, VAE_16_PARAMETERS
from simtti.workloads.models.text_encoders import T5_XXL, T5_XXL_PARAMETERS, add_t5
from simtti.workloads.recording import Recording
from simtti.workloads.workload import Decoding, Options, Workload

VAE: dict[str, Any] = {**VAE_16, "scaling_factor": 0.3611, "shift_factor": 0.1159}
# How far noise levels are shifted follows the image's number of tokens.
SCHEDULER: dict[str, Any] = {
    "shift": 3.0, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15,
    "base_image_seq_len": 256, "max_image_seq_len": 4096,
}  # fmt: skip


def _pipeline(options: Options) -> str:
    return "FluxPipeline" if options.strength is None else "FluxImg2ImgPipeline"


def record_dev(options: Options, recording: Recording) -> None:
    """FLUX.1-dev: guidance embedded."""
    record_flux(options, recording, _pipeline(options), SCHEDULER, guidance_embeds=True)


def record_schnell(options: Options, recording: Recording) -> None:
    """FLUX.1-schnell: no guidance, few steps."""
    record_flux(
        options, recording, _pipeline(options), {"shift": 1.0}, guidance_embeds=False, max_sequence_length=256
    )


def record_kontext(options: Options, recording: Recording) -> None:
    """FLUX.1-Kontext-dev: edits an image."""
    from simtti.workloads.models.pipelines.inputs import image

    assert options.height is not None
    assert options.width is not None
    record_flux(
        options, recording, "FluxKontextPipeline", SCHEDULER, guidance_embeds=True,
        image=image(options), _auto_resize=False, max_area=options.height * options.width,
    )  # fmt: skip


def record_flux(
    options: Options,
    recording: Recording,
    pipeline_class: str,
    scheduler: dict[str, Any],
    *,
    guidance_embeds: bool,
    **arguments: Any,
) -> None:
    """Encode the prompts twice over (and the image, if there is one), denoise, decode. `arguments`: the pipeline's."""
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModel

    from simtti.workloads.models.pipelines.diffusers_run import Run
    from simtti.workloads.models.pipelines.inputs import Tokenizer, prompts

    dtype = options.dtype
    pipeline = getattr(diffusers, pipeline_class)(
        text_encoder=recording.add("text_encoder", CLIPTextModel, CLIPTextConfig(**CLIP_L), dtype=dtype),
        text_encoder_2=add_t5(recording, "text_encoder_2", T5_XXL, dtype),
        transformer=recording.add(
            "transformer", diffusers.FluxTransformer2DModel, guidance_embeds=guidance_embeds, dtype=dtype
        ),
        vae=recording.add("vae", diffusers.AutoencoderKL, **VAE, dtype=dtype),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**scheduler),
        tokenizer=Tokenizer(),
        tokenizer_2=Tokenizer(),
    )
    run = Run(recording, options, domain="joint", steps=options.sampled_steps(rounded_up=True))
    run.decode_with(pipeline.vae)
    if "image" in arguments:
        run.split(pipeline.vae, "encode", "image_encoder")
    run(
        pipeline, pipeline.transformer, prompt=prompts(options), height=options.height, width=options.width,
        guidance_scale=options.guidance or 0.0, output_type="np", **run.from_image(pipeline), **arguments,
    )  # fmt: skip


PARAMETERS = {
    "text_encoder": CLIP_L_PARAMETERS,
    "text_encoder_2": T5_XXL_PARAMETERS,
    "transformer": 11_901_408_320,
    "vae": VAE_16_PARAMETERS,
}
WORKLOADS = (
    Workload(
        name="flux-dev",
        task="text-to-image",
        architecture="latent diffusion transformer",
        defaults=Options(height=1024, width=1024, steps=28, guidance=3.5, dtype="bf16"),
        parameters=PARAMETERS,
        source="Black Forest Labs' release: 12 B rectified-flow transformer, guidance-distilled",
        url="https://huggingface.co/black-forest-labs/FLUX.1-dev",
        builder=record_dev,
        image_to_image=True,
        decoding=Decoding(tile=1024),
        size_multiple=16,
        place=80,
    ),
    Workload(
        name="flux-schnell",
        task="text-to-image",
        architecture="latent diffusion transformer",
        defaults=Options(height=1024, width=1024, steps=4, dtype="bf16"),
        # Without the embedding of guidance.
        parameters={**PARAMETERS, "transformer": 11_891_178_560},
        source="Black Forest Labs' release: 12 B rectified-flow transformer, distilled to 1-4 steps",
        url="https://huggingface.co/black-forest-labs/FLUX.1-schnell",
        builder=record_schnell,
        image_to_image=True,
        decoding=Decoding(tile=1024),
        size_multiple=16,
        place=80,
    ),
    Workload(
        name="flux-kontext-dev",
        task="image editing",
        architecture="latent diffusion transformer",
        defaults=Options(height=1024, width=1024, steps=28, guidance=2.5, dtype="bf16"),
        parameters=PARAMETERS,
        source="Labs et al., 2025 (arXiv 2506.15742): FLUX.1-dev's transformer, an image's tokens in its sequence",
        url="https://huggingface.co/black-forest-labs/FLUX.1-Kontext-dev",
        builder=record_kontext,
        decoding=Decoding(tile=1024),
        size_multiple=16,
        place=80,
    ),
)
