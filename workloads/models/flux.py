"""FLUX.1-dev, as diffusers' FluxPipeline runs it.

The transformer's configuration is the class's default with guidance embedded: it is distilled from guidance, so
each step evaluates it once. 512 tokens of T5-XXL join the image in one sequence; CLIP ViT-L gives the pooled text.
"""

from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from transformers import CLIPTextConfig, CLIPTextModel

from simtti.workloads.catalogue import Options
from simtti.workloads.models.latent_diffusion import Recording
from simtti.workloads.models.pipeline import Run, Tokenizer, build_module, prompts
from simtti.workloads.models.stable_diffusion import CLIP_L
from simtti.workloads.models.stable_diffusion_3 import VAE_16
from simtti.workloads.models.text_encoders import T5_XXL, add_t5


def record_dev(options: Options) -> Recording:
    """Encode the prompts twice over, denoise, decode."""
    dtype = options.dtype
    recording = Recording()
    pipeline = FluxPipeline(
        text_encoder=recording.add(
            "text_encoder", build_module(CLIPTextModel, CLIPTextConfig(**CLIP_L), dtype=dtype)
        ),
        text_encoder_2=add_t5(recording, "text_encoder_2", T5_XXL, dtype),
        transformer=recording.add(
            "transformer", build_module(FluxTransformer2DModel, guidance_embeds=True, dtype=dtype)
        ),
        vae=recording.add(
            "vae",
            build_module(AutoencoderKL, **VAE_16, scaling_factor=0.3611, shift_factor=0.1159, dtype=dtype),
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(
            shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15,
            base_image_seq_len=256, max_image_seq_len=4096,
        ),
        tokenizer=Tokenizer(),
        tokenizer_2=Tokenizer(),
    )  # fmt: skip
    run = Run(recording, options, domain="joint")
    run(
        pipeline, pipeline.transformer, prompt=prompts(options), height=options.height, width=options.width,
        guidance_scale=options.guidance, output_type="np",
    )  # fmt: skip
    recording.phases = recording.recorder.phases()
    return recording
