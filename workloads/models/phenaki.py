"""Phenaki (Villegas et al. 2022, arXiv 2210.02399), the 1.8 B model: masked video tokens, unmasked many at a time.

From the paper: C-ViViT makes of 11 frames of 128x128 6 x 16 x 16 tokens of a codebook of 8192: one of each 8x8 patch of
the first frame, and of each two frames after it; 4 layers in space and 4 causal ones in time, 512 wide, 8 heads, MLP 2048.
A transformer of 24 layers of 2048, 32 heads, MLP 8192, with cross-attention to T5-XXL, over all 1536 tokens, 48 steps.

Assumed: 128 text tokens, whose keys and values every layer projects from T5's 4096 channels (so it comes to 1.85 B, with
a projection to 2048 before to 1.65 B); learned positions for the video's tokens; guidance as in Muse, in one batch; codes of
512 channels; the tokenizer's second half mirrors its first: time, then space. Its first half is not needed for text to video. A
longer video is 1 + 2k frames in one go; the paper's own way, in pieces of 11, repeats this one.
"""

import torch
from torch import nn

from simtti.workloads.catalogue import Options
from simtti.workloads.models.latent_diffusion import META, Recording, build
from simtti.workloads.models.muse import record_unmasking
from simtti.workloads.models.sampling import encode_prompt, to_host
from simtti.workloads.models.text_encoders import T5_XXL, add_t5
from simtti.workloads.models.transformer_blocks import Layer

CODES = 8192
# The token that stands for a masked one.
MASK = CODES
WIDTH, HEADS, INNER, LAYERS = 2048, 32, 8192, 24
VIVIT_WIDTH, VIVIT_HEADS, VIVIT_INNER, VIVIT_LAYERS = 512, 8, 2048, 4
PATCH, FRAME_PATCH = 8, 2


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


def grid(options: Options) -> tuple[int, int, int]:
    """Tokens along time, height and width."""
    assert options.height is not None
    assert options.width is not None
    assert options.frames is not None
    return 1 + (options.frames - 1) // FRAME_PATCH, options.height // PATCH, options.width // PATCH


def record_phenaki(options: Options) -> Recording:
    """The phases 'text_encoder', 'parallel_decoding', 'decoder'."""
    assert options.steps is not None
    dtype = options.dtype
    recording = Recording()
    recorder = recording.recorder
    times, rows, columns = grid(options)
    length = times * rows * columns
    encoder = add_t5(recording, "text_encoder", T5_XXL, dtype)
    transformer = recording.add("transformer", build(VideoTransformer, length, dtype=dtype))
    decoder = recording.add("decoder", build(CViViTDecoder, times, rows, columns, dtype=dtype))
    text = encode_prompt(recording, options, encoder)
    with recorder.step("text_encoder", domain="text"), recorder.scope("pipeline"):
        ids = torch.full((options.batch, length), MASK, dtype=torch.int64, device=META)
    recording.schedule["parallel_decoding"] = 0
    ids = record_unmasking(
        recording, options, "parallel_decoding", transformer, ids, text,
        mask_id=MASK, steps=options.steps, domain="joint",
    )  # fmt: skip
    with recorder.step("decoder", domain="spatial"), recorder.scope("pipeline"):
        to_host(recording, decoder(ids))
    recording.phases = recorder.phases()
    return recording
