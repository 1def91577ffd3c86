"""FLUX.1-dev, as diffusers' FluxPipeline runs it.

The transformer's configuration is the class's default with guidance embedded: it is distilled from guidance, so
each step evaluates it once. 512 tokens of T5-XXL join the image in one sequence; CLIP ViT-L gives the pooled text.
"""

from simtti.workloads.models.stable_diffusion import CLIP_L, CLIP_L_PARAMETERS
from simtti.workloads.models.stable_diffusion_3 import VAE_16, VAE_16_PARAMETERS
from simtti.workloads.models.text_encoders import T5_XXL, T5_XXL_PARAMETERS, add_t5
from simtti.workloads.recording import Recording
from simtti.workloads.workload import Decoding, Options, Workload


def record_dev(options: Options, recording: Recording) -> None:
    """Encode the prompts twice over, denoise, decode."""
    from diffusers import (
        AutoencoderKL,
        FlowMatchEulerDiscreteScheduler,
        FluxImg2ImgPipeline,
        FluxPipeline,
        FluxTransformer2DModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel

    from simtti.workloads.models.pipelines.diffusers_run import Run
    from simtti.workloads.models.pipelines.inputs import Tokenizer, prompts

    dtype = options.dtype
    pipeline = (FluxPipeline if options.strength is None else FluxImg2ImgPipeline)(
        text_encoder=recording.add("text_encoder", CLIPTextModel, CLIPTextConfig(**CLIP_L), dtype=dtype),
        text_encoder_2=add_t5(recording, "text_encoder_2", T5_XXL, dtype),
        transformer=recording.add("transformer", FluxTransformer2DModel, guidance_embeds=True, dtype=dtype),
        vae=recording.add("vae", AutoencoderKL, **VAE_16, scaling_factor=0.3611, shift_factor=0.1159, dtype=dtype),
        scheduler=FlowMatchEulerDiscreteScheduler(
            shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15,
            base_image_seq_len=256, max_image_seq_len=4096,
        ),
        tokenizer=Tokenizer(),
        tokenizer_2=Tokenizer(),
    )  # fmt: skip
    run = Run(recording, options, domain="joint", steps=options.sampled_steps(rounded_up=True))
    run.decode_with(pipeline.vae)
    run(
        pipeline, pipeline.transformer, prompt=prompts(options), height=options.height, width=options.width,
        guidance_scale=options.guidance, output_type="np", **run.from_image(pipeline),
    )  # fmt: skip


WORKLOADS = (
    Workload(
        name="flux-dev",
        task="text-to-image",
        architecture="latent diffusion transformer",
        defaults=Options(height=1024, width=1024, steps=28, guidance=3.5, dtype="bf16"),
        parameters={
            "text_encoder": CLIP_L_PARAMETERS,
            "text_encoder_2": T5_XXL_PARAMETERS,
            "transformer": 11_901_408_320,
            "vae": VAE_16_PARAMETERS,
        },
        source="Black Forest Labs' release: 12 B rectified-flow transformer, guidance-distilled",
        url="https://huggingface.co/black-forest-labs/FLUX.1-dev",
        builder=record_dev,
        image_to_image=True,
        decoding=Decoding(tile=1024),
        size_multiple=16,
        place=80,
    ),
)
