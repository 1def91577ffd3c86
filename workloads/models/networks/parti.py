"""Parti's text encoder, image decoder and the decoder of its tokens. See `models/parti.py`."""

import torch
from torch import nn

from simtti.workloads.models.networks.transformer_blocks import KeyValueCache, Layer
from simtti.workloads.models.parti import (
    CODE_CHANNELS,
    CODES,
    DECODER_LAYERS,
    ENCODER_LAYERS,
    HEADS,
    IMAGE_TOKENS,
    INNER,
    PATCH,
    SIZE,
    TEXT_VOCABULARY,
    VIT_HEADS,
    VIT_INNER,
    VIT_LAYERS,
    VIT_WIDTH,
    WIDTH,
)


class TextEncoder(nn.Module):
    """Token ids of (batch, length) to states."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(TEXT_VOCABULARY, WIDTH)
        self.positions = nn.Embedding(length, WIDTH)
        self.layers = nn.ModuleList(Layer(WIDTH, HEADS, INNER) for _ in range(ENCODER_LAYERS))
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        hidden = self.tokens(ids) + self.positions.weight
        for layer in self.layers:
            hidden = layer(hidden)
        return self.norm(hidden)


class ImageDecoder(nn.Module):
    """Logits of the token that follows, given those before it in a cache."""

    def __init__(self) -> None:
        super().__init__()
        # The last stands for the beginning.
        self.tokens = nn.Embedding(CODES + 1, WIDTH)
        self.positions = nn.Embedding(IMAGE_TOKENS, WIDTH)
        self.layers = nn.ModuleList(
            Layer(WIDTH, HEADS, INNER, context_width=WIDTH, causal=True) for _ in range(DECODER_LAYERS)
        )
        self.norm = nn.LayerNorm(WIDTH)
        self.to_logits = nn.Linear(WIDTH, CODES, bias=False)

    def contexts(self, text: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Each layer's keys and values of the text."""
        return [layer.attn2.project(text) for layer in self.layers]

    def forward(
        self, ids: torch.Tensor, contexts: list[tuple[torch.Tensor, torch.Tensor]], cache: KeyValueCache
    ) -> torch.Tensor:
        start = cache.length
        hidden = self.tokens(ids) + self.positions.weight[start : start + ids.shape[1]]
        for number, (layer, context) in enumerate(zip(self.layers, contexts, strict=True)):
            hidden = layer(hidden, context, cache, number)
        return self.to_logits(self.norm(hidden[:, -1]))


class ViTDecoder(nn.Module):
    """ViT-VQGAN's decoder: codes of (batch, 1024) to an image."""

    def __init__(self) -> None:
        super().__init__()
        self.codebook = nn.Embedding(CODES, CODE_CHANNELS)
        self.proj_in = nn.Linear(CODE_CHANNELS, VIT_WIDTH)
        self.positions = nn.Embedding(IMAGE_TOKENS, VIT_WIDTH)
        self.layers = nn.ModuleList(Layer(VIT_WIDTH, VIT_HEADS, VIT_INNER) for _ in range(VIT_LAYERS))
        self.norm = nn.LayerNorm(VIT_WIDTH)
        self.to_pixels = nn.Linear(VIT_WIDTH, 3 * PATCH * PATCH)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        hidden = self.proj_in(self.codebook(ids)) + self.positions.weight
        for layer in self.layers:
            hidden = layer(hidden)
        pixels = self.to_pixels(self.norm(hidden))
        side = SIZE // PATCH
        pixels = pixels.view(-1, side, side, 3, PATCH, PATCH)
        return pixels.permute(0, 3, 1, 4, 2, 5).reshape(-1, 3, SIZE, SIZE)
