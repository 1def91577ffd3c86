"""A production text-to-image model: a documented stand-in, since the study does not disclose its own.

A latent diffusion model of the class of Emu (Dai et al. 2023, arXiv 2309.15807), from the same company and year. From
that paper: a UNet of 2.8 B, wider and with more residual blocks a level than Stable Diffusion's; an autoencoder with 16
channels; text from CLIP ViT-L and T5-XXL; images of 1024x1024.

Assumed: Stable Diffusion's arrangement (four levels, attention at the upper three) at 448 x [1, 2, 4, 4] with four residual
blocks a level and 64 channels a head, 2.84 B; both texts, 77 tokens each, projected to 2048 and attended to as one
sequence; DDIM, 50 steps, with guidance, the empty prompt encoded like any other. The autoencoder is the shape of
Stable Diffusion 3's. No refinement and no safety models, which a service would have.
"""

from typing import Any

from simtti.workloads.models.stable_diffusion import CLIP_L, CLIP_L_PARAMETERS, NOISE
from simtti.workloads.models.stable_diffusion_3 import VAE_16, VAE_16_PARAMETERS
from simtti.workloads.models.text_encoders import T5_XXL, T5_XXL_PARAMETERS, add_t5
from simtti.workloads.recording import Recording
from simtti.workloads.workload import Decoding, Options, Workload

CONTEXT_WIDTH = 2048
TEXT_TOKENS = 77
WIDTHS = (448, 896, 1792, 1792)
UNET: dict[str, Any] = {
    "sample_size": 128, "in_channels": 16, "out_channels": 16, "block_out_channels": WIDTHS,
    "layers_per_block": 4, "cross_attention_dim": CONTEXT_WIDTH, "use_linear_projection": True,
    # Named so for historical reasons: how many heads.
    "attention_head_dim": [width // 64 for width in WIDTHS],
}  # fmt: skip


def record_prod_image(options: Options, recording: Recording) -> None:
    """Encode the prompts with both encoders, denoise, decode."""
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from simtti.workloads.models.networks.prod_image import TextProjection  # circle: its sizes stand here
    from simtti.workloads.models.pipelines.latent_diffusion import (
        initial_latents,
        record_decoding,
        record_denoising,
        tokens,
    )
    from simtti.workloads.models.pipelines.sampling import token_ids
    from simtti.workloads.torch_calls import TORCH_DTYPES

    dtype = options.dtype
    clip = recording.add("text_encoder", CLIPTextModel, CLIPTextConfig(**CLIP_L), dtype=dtype)
    t5 = add_t5(recording, "text_encoder_2", T5_XXL, dtype)
    projection = recording.add("text_projection", TextProjection, dtype=dtype)
    unet = recording.add("unet", UNet2DConditionModel, **UNET, dtype=dtype)
    vae = recording.add("vae", AutoencoderKL, **VAE_16, scaling_factor=1.0, dtype=dtype)
    scheduler = DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False)
    with recording.step("text_encoder", domain="text"), recording.scope("pipeline"):
        copies = 2 if options.guided else 1
        ids = token_ids(recording, options, TEXT_TOKENS).repeat(copies, 1)
        clip_states = clip(tokens(recording, copies * options.batch), attention_mask=None)[0]
        t5_states = t5(input_ids=ids).last_hidden_state.to(TORCH_DTYPES[dtype])
        text = projection(clip_states, t5_states)
        latents = initial_latents(recording, options, UNET["in_channels"], 8, scheduler)
    latents = record_denoising(recording, options, scheduler, unet, latents, encoder_hidden_states=text)
    record_decoding(recording, options, vae, latents, upcast=False, one_by_one=False)


WORKLOADS = (
    Workload(
        name="prod-image",
        task="text-to-image",
        architecture="latent diffusion UNet",
        defaults=Options(prompt_tokens=77, height=1024, width=1024, steps=50, guidance=7.5),
        parameters={
            "text_encoder": CLIP_L_PARAMETERS,
            "text_encoder_2": T5_XXL_PARAMETERS,
            "text_projection": 9_965_568,
            "unet": 2_840_856_272,
            "vae": VAE_16_PARAMETERS,
        },
        source="a stand-in of the class of Emu, Dai et al., 2023 (arXiv 2309.15807): UNet 2.8 B, 16 latent channels",
        url="https://arxiv.org/abs/2309.15807",
        builder=record_prod_image,
        decoding=Decoding(tile=1024),
        group="study",
        place=40,
    ),
)
