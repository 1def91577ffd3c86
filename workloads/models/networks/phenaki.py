"""Phenaki's transformer over video tokens, and the decoder of the tokens. See `models/phenaki.py`."""

import torch
from torch import nn

from simtti.workloads.models.networks.transformer_blocks import Layer
from simtti.workloads.models.phenaki import (
    CODES,
    FRAME_PATCH,
    HEADS,
    INNER,
    LAYERS,
    PATCH,
    VIVIT_HEADS,
    VIVIT_INNER,
    VIVIT_LAYERS,
    VIVIT_WIDTH,
    WIDTH,
)
from simtti.workloads.models.text_encoders import T5_XXL


class VideoTransformer(nn.Module):
    """Predicts every token of a video from those known and the text."""

    def __init__(self, tokens: int):
        super().__init__()
        self.tokens = nn.Embedding(CODES + 1, WIDTH)
        self.positions = nn.Embedding(tokens, WIDTH)
        self.layers = nn.ModuleList(
            Layer(WIDTH, HEADS, INNER, context_width=T5_XXL["d_model"]) for _ in range(LAYERS)
        )
        self.norm = nn.LayerNorm(WIDTH)
        self.to_logits = nn.Linear(WIDTH, CODES, bias=False)

    def forward(self, ids: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """Logits of (batch, tokens, codes)."""
        hidden = self.tokens(ids) + self.positions.weight
        for layer in self.layers:
            hidden = layer(hidden, text)
        return self.to_logits(self.norm(hidden))


class CViViTDecoder(nn.Module):
    """Codes of (batch, times x rows x columns) to frames, (batch, 3, 1 + 2 (times - 1), height, width)."""

    def __init__(self, times: int, rows: int, columns: int):
        super().__init__()
        self.grid = times, rows, columns
        self.codebook = nn.Embedding(CODES, VIVIT_WIDTH)
        self.space_positions = nn.Embedding(rows * columns, VIVIT_WIDTH)
        self.time_positions = nn.Embedding(times, VIVIT_WIDTH)
        self.temporal_layers, self.spatial_layers = (
            nn.ModuleList(
                Layer(VIVIT_WIDTH, VIVIT_HEADS, VIVIT_INNER, causal=causal) for _ in range(VIVIT_LAYERS)
            )
            for causal in (True, False)
        )
        self.norm = nn.LayerNorm(VIVIT_WIDTH)
        self.first_pixels = nn.Linear(VIVIT_WIDTH, 3 * PATCH * PATCH)
        self.pixels = nn.Linear(VIVIT_WIDTH, 3 * FRAME_PATCH * PATCH * PATCH)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        times, rows, columns = self.grid
        places = rows * columns
        hidden = self.codebook(ids).view(-1, times, places, VIVIT_WIDTH) + self.space_positions.weight
        hidden = hidden.transpose(1, 2).reshape(-1, times, VIVIT_WIDTH) + self.time_positions.weight
        for layer in self.temporal_layers:
            hidden = layer(hidden)
        hidden = hidden.view(-1, places, times, VIVIT_WIDTH).transpose(1, 2).reshape(-1, places, VIVIT_WIDTH)
        for layer in self.spatial_layers:
            hidden = layer(hidden)
        hidden = self.norm(hidden).view(-1, times, places, VIVIT_WIDTH)
        first = self._frames(self.first_pixels(hidden[:, :1]), 1)
        if times == 1:
            return first
        return torch.cat([first, self._frames(self.pixels(hidden[:, 1:]), FRAME_PATCH)], dim=2)

    def _frames(self, patches: torch.Tensor, depth: int) -> torch.Tensor:
        _, rows, columns = self.grid
        batch, times = patches.shape[:2]
        pixels = patches.view(batch, times, rows, columns, 3, depth, PATCH, PATCH)
        pixels = pixels.permute(0, 4, 1, 5, 2, 6, 3, 7)
        return pixels.reshape(batch, 3, times * depth, rows * PATCH, columns * PATCH)
