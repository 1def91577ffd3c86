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

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from simtti.workloads.catalogue import Options
from simtti.workloads.models.latent_diffusion import (
    TORCH_DTYPES,
    Recording,
    build,
    guided,
    initial_latents,
    record_decoding,
    record_denoising,
    tokens,
)
from simtti.workloads.models.sampling import token_ids
from simtti.workloads.models.stable_diffusion import CLIP_L, NOISE
from simtti.workloads.models.stable_diffusion_3 import VAE_16
from simtti.workloads.models.text_encoders import T5_XXL, add_t5

CONTEXT_WIDTH = 2048
TEXT_TOKENS = 77
WIDTHS = (448, 896, 1792, 1792)
UNET: dict[str, Any] = {
    "sample_size": 128, "in_channels": 16, "out_channels": 16, "block_out_channels": WIDTHS,
    "layers_per_block": 4, "cross_attention_dim": CONTEXT_WIDTH, "use_linear_projection": True,
    # Named so for historical reasons: how many heads.
    "attention_head_dim": [width // 64 for width in WIDTHS],
}  # fmt: skip


class TextProjection(nn.Module):
    """Both encoders' states as one sequence of the UNet's context width."""

    def __init__(self) -> None:
        super().__init__()
        self.clip = nn.Linear(CLIP_L["hidden_size"], CONTEXT_WIDTH)
        self.t5 = nn.Linear(T5_XXL["d_model"], CONTEXT_WIDTH)

    def forward(self, clip: torch.Tensor, t5: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.clip(clip), self.t5(t5)], dim=1)


def record_prod_image(options: Options) -> Recording:
    """Encode the prompts with both encoders, denoise, decode."""
    dtype = options.dtype
    recording = Recording()
    clip = recording.add("text_encoder", build(CLIPTextModel, CLIPTextConfig(**CLIP_L), dtype=dtype))
    t5 = add_t5(recording, "text_encoder_2", T5_XXL, dtype)
    projection = recording.add("text_projection", build(TextProjection, dtype=dtype))
    unet = recording.add("unet", build(UNet2DConditionModel, **UNET, dtype=dtype))
    vae = recording.add("vae", build(AutoencoderKL, **VAE_16, scaling_factor=1.0, dtype=dtype))
    scheduler = DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False)
    with recording.recorder.step("text_encoder", domain="text"), recording.recorder.scope("pipeline"):
        copies = 2 if guided(options) else 1
        ids = token_ids(options, TEXT_TOKENS).repeat(copies, 1)
        clip_states = clip(tokens(copies * options.batch), attention_mask=None)[0]
        t5_states = t5(input_ids=ids).last_hidden_state.to(TORCH_DTYPES[dtype])
        text = projection(clip_states, t5_states)
        latents = initial_latents(options, UNET["in_channels"], 8, scheduler)
    latents = record_denoising(recording, options, scheduler, unet, latents, encoder_hidden_states=text)
    record_decoding(recording, options, vae, latents, upcast=False, one_by_one=False)
    recording.phases = recording.recorder.phases()
    return recording
