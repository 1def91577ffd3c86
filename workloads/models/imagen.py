"""Imagen (Saharia et al. 2022, arXiv 2205.11487): T5-XXL, a 64x64 UNet of 2 B, super-resolution to 256 and to 1024.

From the paper's appendix F: the base UNet's widths, residual blocks, channels a head and where it attends (32, 16, 8);
the "efficient UNets" of super-resolution, which halve before the convolutions of a level and double after them, have
most of their blocks at the lowest resolution and scale skip connections by 1/sqrt(2).

The base UNet is diffusers' UNet2DConditionModel with the blocks that DeepFloyd IF, Imagen's open analogue, is made of:
text is concatenated to the keys and values of self-attention. They resample with residual blocks; the sum is 2.25 B,
where the paper says 2 B and the documentation of NVIDIA's implementation in NeMo 2.1 B.

Assumed, as the pages read do not say:
- 100, 50 and 75 sampling steps, DeepFloyd IF's; prompts of 128 tokens; guidance in all three models, text in none of
  them being what makes it unguided; no learned variance; noise of a fixed level on what is upsampled;
- every level of super-resolution halves the image, the first too, so that its attention is over 16x16 pixels, and over
  64x64 in the second;
- the UNets see the pooled text (its mean) in the timestep's embedding; in super-resolution, text is projected to 512
  channels once (as in NeMo); its keys and values join those of self-attention;
- self-attention follows every residual block at 1024 channels of the first super-resolution UNet, with a feed-forward
  of four times the width. So it comes to 0.65 B where the paper says 600 M; with one a level it would have 0.46 B. The
  second comes to 0.44 B, where the paper says 400 M.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import nn

from simtti.workloads.catalogue import Options
from simtti.workloads.models.latent_diffusion import Recording, build
from simtti.workloads.models.sampling import encode_prompt, noise, noise_schedule, record_sampling, to_host
from simtti.workloads.models.text_encoders import T5_XXL, add_t5
from simtti.workloads.models.transformer_blocks import FeedForward

TEXT_WIDTH: int = T5_XXL["d_model"]
CONTEXT_WIDTH = 512
# Super-resolution by four twice: the base's image is 16 times smaller.
FACTOR = 4
SUPER_RESOLUTION_STEPS = (50, 75)
# 512 x [1, 2, 3, 4], 3 residual blocks, 64 channels a head, attention at all resolutions but the highest.
BASE: dict[str, Any] = {
    "sample_size": 64, "in_channels": 3, "out_channels": 3, "block_out_channels": (512, 1024, 1536, 2048),
    "layers_per_block": 3, "attention_head_dim": 64, "cross_attention_dim": 2048, "encoder_hid_dim": TEXT_WIDTH,
    "down_block_types": ("ResnetDownsampleBlock2D", *("SimpleCrossAttnDownBlock2D",) * 3),
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "up_block_types": (*("SimpleCrossAttnUpBlock2D",) * 3, "ResnetUpsampleBlock2D"),
    "resnet_time_scale_shift": "scale_shift",
    "class_embed_type": "simple_projection", "projection_class_embeddings_input_dim": TEXT_WIDTH,
}  # fmt: skip
WIDTHS = (128, 256, 512, 1024)
BLOCKS = (2, 4, 8, 8)
HEADS = 8
EMBEDDING = 4 * WIDTHS[0]


class ResidualBlock(nn.Module):
    """Two convolutions, each after GroupNorm and SiLU, beside a 1x1 convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(32, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(32, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.shortcut = nn.Conv2d(channels, channels, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        hidden = self.conv1(F.silu(self.norm1(image)))
        return self.conv2(F.silu(self.norm2(hidden))) + self.shortcut(image)


class TextAttention(nn.Module):
    """Pixels attend to themselves and the text together, or to the text alone; then a feed-forward if asked for."""

    def __init__(self, channels: int, *, itself: bool):
        super().__init__()
        self.is_cross_attention = not itself
        self.itself = itself
        self.norm = nn.GroupNorm(32, channels)
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.text_kv = nn.Linear(CONTEXT_WIDTH, 2 * channels, bias=False)
        self.to_out = nn.Linear(channels, channels, bias=False)
        if itself:
            self.to_kv = nn.Linear(channels, 2 * channels, bias=False)
            self.norm2 = nn.LayerNorm(channels)
            self.ff = FeedForward(channels, 4 * channels)

    def forward(self, image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        batch, channels, height, width = image.shape
        pixels = image.flatten(2).transpose(1, 2)
        hidden = self.norm(image).flatten(2).transpose(1, 2)
        context = self.text_kv(text)
        if self.itself:
            context = torch.cat([context, self.to_kv(hidden)], dim=1)
        key, value = context.chunk(2, dim=-1)
        query, key, value = (
            part.unflatten(-1, (HEADS, channels // HEADS)).transpose(1, 2)
            for part in (self.to_q(hidden), key, value)
        )
        attended = F.scaled_dot_product_attention(query, key, value)
        pixels = pixels + self.to_out(attended.transpose(1, 2).flatten(2))
        if self.itself:
            pixels = pixels + self.ff(self.norm2(pixels))
        return pixels.transpose(1, 2).reshape(batch, channels, height, width)


class Level(nn.Module):
    """Residual blocks of one resolution, conditioned once by scale and shift; attention after each, or after the last."""

    def __init__(self, channels: int, blocks: int, *, self_attention: bool, cross_attention: bool):
        super().__init__()
        self.condition = nn.Linear(EMBEDDING, 2 * channels)
        self.norm = nn.GroupNorm(32, channels)
        self.blocks = nn.ModuleList(ResidualBlock(channels) for _ in range(blocks))
        attentions = blocks if self_attention else int(cross_attention)
        self.attentions = nn.ModuleList(
            TextAttention(channels, itself=self_attention) for _ in range(attentions)
        )

    def forward(self, image: torch.Tensor, embedding: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        scale, shift = self.condition(F.silu(embedding))[:, :, None, None].chunk(2, dim=1)
        image = self.norm(image) * (1 + scale) + shift
        first = len(self.blocks) - len(self.attentions)
        for number, block in enumerate(self.blocks):
            image = block(image)
            if number >= first:
                image = self.attentions[number - first](image, text)
        return image


class EfficientUNet(nn.Module):
    """Super-resolution: denoises an image beside what is upsampled to its size. Each level halves, then convolves."""

    def __init__(self, *, self_attention: bool):
        super().__init__()
        self.time_proj = Timesteps(WIDTHS[0], flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(WIDTHS[0], EMBEDDING)
        self.noise_embedding = TimestepEmbedding(WIDTHS[0], EMBEDDING)
        self.text_embedding = TimestepEmbedding(TEXT_WIDTH, EMBEDDING)
        self.context_proj = nn.Linear(TEXT_WIDTH, CONTEXT_WIDTH)
        self.conv_in = nn.Conv2d(6, WIDTHS[0], 3, padding=1)
        above = (WIDTHS[0], *WIDTHS[:-1])
        lowest = len(WIDTHS) - 1
        self.downsamplers = nn.ModuleList(
            nn.Conv2d(wider, width, 3, stride=2, padding=1)
            for wider, width in zip(above, WIDTHS, strict=True)
        )
        self.upsamplers = nn.ModuleList(
            nn.Conv2d(width, wider, 3, padding=1) for wider, width in zip(above, WIDTHS, strict=True)
        )
        self.down_levels, self.up_levels = (
            nn.ModuleList(
                Level(
                    width, blocks,
                    self_attention=self_attention and number == lowest,
                    cross_attention=not self_attention and number == lowest,
                )
                for number, (width, blocks) in enumerate(zip(WIDTHS, BLOCKS, strict=True))
            )
            for _ in range(2)
        )  # fmt: skip
        self.merges = nn.ModuleList(nn.Conv2d(2 * width, width, 1) for width in WIDTHS)
        self.norm_out = nn.GroupNorm(32, WIDTHS[0])
        self.conv_out = nn.Conv2d(WIDTHS[0], 3, 3, padding=1)

    def forward(
        self,
        image: torch.Tensor,
        timestep: torch.Tensor,
        low_resolution: torch.Tensor,
        noise_level: torch.Tensor,
        text: torch.Tensor,
    ) -> torch.Tensor:
        """image, low_resolution: (batch, 3, height, width). timestep, noise_level: (batch,)."""
        embedding = self.time_embedding(self.time_proj(timestep).to(image.dtype))
        embedding = embedding + self.noise_embedding(self.time_proj(noise_level).to(image.dtype))
        embedding = embedding + self.text_embedding(text.mean(1))
        text = self.context_proj(text)
        hidden = self.conv_in(torch.cat([image, low_resolution], dim=1))
        skips = []
        for downsample, level in zip(self.downsamplers, self.down_levels, strict=True):
            hidden = level(downsample(hidden), embedding, text)
            skips.append(hidden)
        for number in reversed(range(len(WIDTHS))):
            hidden = self.merges[number](torch.cat([hidden, skips.pop() / math.sqrt(2)], dim=1))
            hidden = self.up_levels[number](hidden, embedding, text)
            hidden = self.upsamplers[number](F.interpolate(hidden, scale_factor=2.0, mode="nearest"))
        return self.conv_out(F.silu(self.norm_out(hidden)))


def record_imagen(options: Options) -> Recording:
    """Text, the base's denoising, super-resolution twice. The option `steps` is the base's."""
    assert options.height is not None
    assert options.width is not None
    assert options.steps is not None
    dtype = options.dtype
    recording = Recording()
    recorder = recording.recorder
    encoder = add_t5(recording, "text_encoder", T5_XXL, dtype)
    base = recording.add("unet", build(UNet2DConditionModel, **BASE, dtype=dtype))
    for module in base.modules():
        # Pixels attend to pixels and text together, which diffusers calls cross-attention.
        if isinstance(module, Attention):
            module.is_cross_attention = False
    upsamplers = [
        recording.add("super_resolution_1", build(EfficientUNet, self_attention=True, dtype=dtype)),
        recording.add("super_resolution_2", build(EfficientUNet, self_attention=False, dtype=dtype)),
    ]
    text = encode_prompt(recording, options, encoder)
    height, width = options.height // FACTOR**2, options.width // FACTOR**2
    with recorder.step("text_encoder", domain="text"), recorder.scope("pipeline"):
        pooled = text.mean(1)
        image = noise(options, options.batch, 3, height, width)

    def denoise(sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return base(sample, timestep, encoder_hidden_states=text, class_labels=pooled, return_dict=False)[0]

    # Dynamic thresholding is the paper's; 0.95 and 1.5 are DeepFloyd IF's.
    scheduler = noise_schedule(thresholding=True, dynamic_thresholding_ratio=0.95, sample_max_value=1.5)
    image = record_sampling(
        recording, options, "denoising", scheduler, image, denoise,
        steps=options.steps, guide=True, stretched=True,
    )  # fmt: skip
    for upsample, steps in zip(upsamplers, SUPER_RESOLUTION_STEPS, strict=True):
        image = record_super_resolution(recording, options, upsample, image, text, steps)
    with recorder.step("decoder", domain="spatial"), recorder.scope("pipeline"):
        to_host(recording, image)
    recording.phases = recorder.phases()
    return recording


def record_super_resolution(
    recording: Recording,
    options: Options,
    unet: EfficientUNet,
    small: torch.Tensor,
    text: torch.Tensor,
    steps: int,
) -> torch.Tensor:
    """The phase 'super_resolution_256', or whatever the width: upsample and add noise once, then denoise."""
    recorder = recording.recorder
    phase = f"super_resolution_{small.shape[-1] * FACTOR}"
    with recorder.step(phase, domain="spatial"), recorder.scope("pipeline"):
        low = F.interpolate(small, scale_factor=float(FACTOR), mode="bilinear", align_corners=False)
        low = low + 0.1 * noise(options, *low.shape)
        image = noise(options, *low.shape)
        copies = text.shape[0] // options.batch
        if copies > 1:
            low = torch.cat([low] * copies)
        level = torch.full((text.shape[0],), 0.1, device=text.device)

    def denoise(sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return unet(sample, timestep.to(sample.device).expand(sample.shape[0]), low, level, text)

    scheduler = noise_schedule(thresholding=True, dynamic_thresholding_ratio=0.95, sample_max_value=1.5)
    return record_sampling(recording, options, phase, scheduler, image, denoise, steps=steps, guide=True)
