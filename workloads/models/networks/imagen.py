"""Imagen's super-resolution: an "efficient UNet", in which each level halves before it convolves. See `models/imagen.py`."""

import math

import torch
import torch.nn.functional as F  # noqa: N812
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import nn

from simtti.workloads.models.imagen import BLOCKS, CONTEXT_WIDTH, EMBEDDING, HEADS, TEXT_WIDTH, WIDTHS
from simtti.workloads.models.networks.transformer_blocks import FeedForward


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
