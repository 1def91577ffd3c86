"""Pseudo-3D networks, as Make-A-Video describes them: space with two dimensions, then time with one.

Videos are (batch x frames, channels, height, width) for what works in space. What works along time gets them as
(batch x height x width, channels, frames) to convolve and (batch x height x width, frames, channels) to attend, and
gives them back: each way a copy, since neither cuDNN's 1-D convolution nor a linear layer takes such strides.
"""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import nn


def _same(video: torch.Tensor) -> torch.Tensor:
    return video


def _half(video: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(video, 2)


def _double(video: torch.Tensor) -> torch.Tensor:
    return F.interpolate(video, scale_factor=2.0, mode="nearest")


class Conv(nn.Module):
    """A 3x3 convolution in space, then, if temporal, one of width 3 along time."""

    def __init__(self, channels: int, out_channels: int, *, temporal: bool):
        super().__init__()
        self.spatial = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.temporal = nn.Conv1d(out_channels, out_channels, 3, padding=1) if temporal else None

    def forward(self, video: torch.Tensor, frames: int) -> torch.Tensor:
        video = self.spatial(video)
        if self.temporal is None:
            return video
        _, channels, height, width = video.shape
        video = video.unflatten(0, (-1, frames))  # b f c h w
        lines = video.permute(0, 3, 4, 2, 1).reshape(-1, channels, frames)
        lines = self.temporal(lines).view(-1, height, width, channels, frames)
        return lines.permute(0, 4, 3, 1, 2).reshape(-1, channels, height, width)


class ResidualBlock(nn.Module):
    """Two convolutions, each after GroupNorm and SiLU; the embedding scales and shifts between them.

    resample: 'half' or 'double' the height and width before the first convolution; '' for neither.
    """

    def __init__(
        self, channels: int, out_channels: int, embedding: int, *, temporal: bool, resample: str = ""
    ):
        super().__init__()
        self.resample = {"": _same, "half": _half, "double": _double}[resample]
        self.norm1 = nn.GroupNorm(32, channels)
        self.conv1 = Conv(channels, out_channels, temporal=temporal)
        self.condition = nn.Linear(embedding, 2 * out_channels)
        self.norm2 = nn.GroupNorm(32, out_channels)
        self.conv2 = Conv(out_channels, out_channels, temporal=temporal)
        self.shortcut = nn.Conv2d(channels, out_channels, 1) if channels != out_channels else nn.Identity()

    def forward(self, video: torch.Tensor, embedding: torch.Tensor, frames: int) -> torch.Tensor:
        """embedding: (batch x frames, width)."""
        hidden = self.conv1(self.resample(F.silu(self.norm1(video))), frames)
        video = self.resample(video)
        scale, shift = self.condition(F.silu(embedding))[:, :, None, None].chunk(2, dim=1)
        hidden = self.norm2(hidden) * (1 + scale) + shift
        return self.shortcut(video) + self.conv2(F.silu(hidden), frames)


class SelfAttention(nn.Module):
    """Attention within each sequence of (sequences, length, channels), after a LayerNorm, with a residual."""

    is_cross_attention = False

    def __init__(self, channels: int, head_dim: int):
        super().__init__()
        self.heads = channels // head_dim
        self.norm = nn.LayerNorm(channels)
        self.to_qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.to_out = nn.Linear(channels, channels)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.to_qkv(self.norm(hidden)).chunk(3, dim=-1)
        )
        attended = F.scaled_dot_product_attention(query, key, value)
        return hidden + self.to_out(attended.transpose(1, 2).flatten(2))


class TemporalAttention(nn.Module):
    """Attention of each pixel to itself in other frames, of (batch x frames, pixels, channels)."""

    def __init__(self, channels: int, head_dim: int):
        super().__init__()
        self.attention = SelfAttention(channels, head_dim)

    def forward(self, hidden: torch.Tensor, frames: int) -> torch.Tensor:
        _, pixels, channels = hidden.shape
        lines = hidden.unflatten(0, (-1, frames)).transpose(1, 2).reshape(-1, frames, channels)
        lines = self.attention(lines).unflatten(0, (-1, pixels))  # b (h w) f c
        return lines.transpose(1, 2).reshape(-1, pixels, channels)


class SpaceTimeAttention(nn.Module):
    """Pixels attend to the pixels of their frame, then to themselves in other frames."""

    def __init__(self, channels: int, head_dim: int, *, temporal: bool):
        super().__init__()
        self.spatial_attention = SelfAttention(channels, head_dim)
        self.temporal_attention = TemporalAttention(channels, head_dim) if temporal else None

    def forward(self, video: torch.Tensor, frames: int) -> torch.Tensor:
        _, channels, height, width = video.shape
        hidden = video.flatten(2).transpose(1, 2).contiguous()  # (b f) (h w) c
        hidden = self.spatial_attention(hidden)
        if self.temporal_attention is not None:
            hidden = self.temporal_attention(hidden, frames)
        return hidden.transpose(1, 2).reshape(-1, channels, height, width)


class UNet(nn.Module):
    """A UNet over the frames of a video; without `temporal`, over images on their own.

    Resolutions change in residual blocks, as in ADM and unCLIP. widths: channels of each level, each half the size of
    the one before. attention: the levels that attend, by
    number. condition_width: of an image's embedding, which joins the timestep's; 0 for none.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        widths: tuple[int, ...],
        blocks: int,
        attention: tuple[int, ...],
        head_dim: int,
        condition_width: int,
        temporal: bool,
    ):
        super().__init__()
        embedding = 4 * widths[0]
        self.time_proj = Timesteps(widths[0], flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(widths[0], embedding)
        self.rate_embedding = TimestepEmbedding(widths[0], embedding) if temporal else None
        self.condition_embedding = TimestepEmbedding(condition_width, embedding) if condition_width else None

        def block(channels: int, out_channels: int, resample: str = "") -> ResidualBlock:
            return ResidualBlock(channels, out_channels, embedding, temporal=temporal, resample=resample)

        def attend(level: int, channels: int) -> Any:
            found = level in attention
            return SpaceTimeAttention(channels, head_dim, temporal=temporal) if found else None

        last = len(widths) - 1
        channels = widths[0]
        self.conv_in = Conv(in_channels, channels, temporal=temporal)
        skips = [channels]
        self.down_blocks, self.down_attentions = nn.ModuleList(), nn.ModuleList()
        self.downsamplers = nn.ModuleList()
        for level, width in enumerate(widths):
            for _ in range(blocks):
                self.down_blocks.append(block(channels, width))
                self.down_attentions.append(attend(level, width))
                channels = width
                skips.append(channels)
            if level < last:
                self.downsamplers.append(block(channels, channels, "half"))
                skips.append(channels)
        self.mid_blocks = nn.ModuleList(block(channels, channels) for _ in range(2))
        self.mid_attention = attend(last, channels)
        self.up_blocks, self.up_attentions = nn.ModuleList(), nn.ModuleList()
        self.upsamplers = nn.ModuleList()
        for level, width in reversed(list(enumerate(widths))):
            for _ in range(blocks + 1):
                self.up_blocks.append(block(channels + skips.pop(), width))
                self.up_attentions.append(attend(level, width))
                channels = width
            if level > 0:
                self.upsamplers.append(block(channels, channels, "double"))
        self.norm_out = nn.GroupNorm(32, channels)
        self.conv_out = Conv(channels, 3, temporal=temporal)

    def forward(
        self,
        video: torch.Tensor,
        timestep: torch.Tensor,
        condition: torch.Tensor | None = None,
        rate: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """video: (batch, frames, channels, height, width). timestep, rate (frames a second): (batch,)."""
        frames = video.shape[1]
        embedding = self.time_embedding(self.time_proj(timestep).to(video.dtype))
        if self.rate_embedding is not None and rate is not None:
            embedding = embedding + self.rate_embedding(self.time_proj(rate).to(video.dtype))
        if self.condition_embedding is not None and condition is not None:
            embedding = embedding + self.condition_embedding(condition)
        embedding = embedding.repeat_interleave(frames, dim=0)
        hidden = self.conv_in(video.flatten(0, 1), frames)
        skips = [hidden]
        per_level = len(self.down_blocks) // (len(self.downsamplers) + 1)
        for number, (block, attention) in enumerate(
            zip(self.down_blocks, self.down_attentions, strict=True), 1
        ):
            hidden = block(hidden, embedding, frames)
            if attention is not None:
                hidden = attention(hidden, frames)
            skips.append(hidden)
            if number % per_level == 0 and number < len(self.down_blocks):
                hidden = self.downsamplers[number // per_level - 1](hidden, embedding, frames)
                skips.append(hidden)
        hidden = self.mid_blocks[0](hidden, embedding, frames)
        if self.mid_attention is not None:
            hidden = self.mid_attention(hidden, frames)
        hidden = self.mid_blocks[1](hidden, embedding, frames)
        per_level += 1
        for number, (block, attention) in enumerate(zip(self.up_blocks, self.up_attentions, strict=True), 1):
            hidden = block(torch.cat([hidden, skips.pop()], dim=1), embedding, frames)
            if attention is not None:
                hidden = attention(hidden, frames)
            if number % per_level == 0 and number < len(self.up_blocks):
                hidden = self.upsamplers[number // per_level - 1](hidden, embedding, frames)
        hidden = self.conv_out(F.silu(self.norm_out(hidden)), frames)
        return hidden.unflatten(0, (-1, frames))
