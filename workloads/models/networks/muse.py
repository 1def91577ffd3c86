"""Muse's transformers over image tokens, and the decoder of the tokens. See `models/muse.py`."""

from typing import Any

import torch
from diffusers.models.autoencoders.vae import Decoder
from torch import nn

from simtti.workloads.models.muse import BASE, CODE_CHANNELS, CODES, ENCODER_LAYERS, HEAD_DIM
from simtti.workloads.models.networks.transformer_blocks import Layer
from simtti.workloads.models.text_encoders import T5_XXL


class MaskedTransformer(nn.Module):
    """Predicts every token of an image from those known and a context."""

    def __init__(self, *, width: int, layers: int, inner: int, tokens: int):
        super().__init__()
        self.tokens = nn.Embedding(CODES + 1, width)
        self.positions = nn.Embedding(tokens, width)
        self.context_proj = nn.Linear(T5_XXL["d_model"], width, bias=False)
        self.layers = nn.ModuleList(
            Layer(width, width // HEAD_DIM, inner, context_width=width) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.to_logits = nn.Linear(width, CODES, bias=False)

    def context(self, text: torch.Tensor) -> torch.Tensor:
        """What the layers attend to, from T5's states."""
        return self.context_proj(text)

    def forward(self, ids: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Logits of (batch, tokens, codes)."""
        hidden = self.tokens(ids) + self.positions.weight
        for layer in self.layers:
            hidden = layer(hidden, context)
        return self.to_logits(self.norm(hidden))


class SuperResolutionTransformer(MaskedTransformer):
    """Its context is the text and, encoded, the tokens of the smaller image."""

    def __init__(self, *, width: int, layers: int, inner: int, tokens: int):
        super().__init__(width=width, layers=layers, inner=inner, tokens=tokens)
        self.low_tokens = nn.Embedding(CODES, width)
        self.low_positions = nn.Embedding(BASE["tokens"], width)
        self.encoder = nn.ModuleList(Layer(width, width // HEAD_DIM, inner) for _ in range(ENCODER_LAYERS))

    def join(self, text: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
        """The context: T5's states, projected, and the smaller image's tokens (batch, 256), encoded."""
        hidden = self.low_tokens(low) + self.low_positions.weight
        for layer in self.encoder:
            hidden = layer(hidden)
        # Guidance leaves out the text only.
        hidden = hidden.repeat(text.shape[0] // low.shape[0], 1, 1)
        return torch.cat([self.context(text), hidden], dim=1)


class TokenDecoder(nn.Module):
    """The second half of a VQGAN: codes of (batch, tokens) to an image."""

    def __init__(self, **config: Any):
        super().__init__()
        levels = len(config["block_out_channels"])
        self.codebook = nn.Embedding(CODES, CODE_CHANNELS)
        self.decoder = Decoder(
            in_channels=CODE_CHANNELS, out_channels=3, up_block_types=("UpDecoderBlock2D",) * levels,
            mid_block_add_attention=False, **config,
        )  # fmt: skip

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        side = int(ids.shape[1] ** 0.5)
        codes = self.codebook(ids).transpose(1, 2)
        return self.decoder(codes.reshape(ids.shape[0], CODE_CHANNELS, side, side))
