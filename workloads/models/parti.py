"""Parti (Yu et al. 2022, arXiv 2206.10789), the 20 B model: an image's tokens written one after another.

From the paper: a text encoder of 16 layers and a decoder of 64, both of 4096 with 64 heads and MLP 16384; 128 text
tokens; 1024 image tokens of a codebook of 8192, 32x32 patches of 8x8 pixels; guidance by two streams; a ViT-VQGAN whose
decoder has 32 blocks of 1280, 16 heads, MLP 5120. A later super-resolution module, a few million parameters, is left out.

Assumed: a text vocabulary of 16,000; learned positions; codes of 32 channels (ViT-VQGAN's); the two streams are one
batch; keys and values of the text are computed once, those of the image are kept; a token is drawn with Gumbel noise.

Decoding steps differ in the cache's length only. They are stored in blocks of 128 steps, each as 128 times the step in
its middle; the lengths' sum is short by half a token a block. Where every step is asked for (`all_steps`), each has its
own length: the same operators, 1,024 steps instead of 8.
"""

import torch
from torch import nn

from simtti.workloads.catalogue import Options
from simtti.workloads.models.latent_diffusion import META, Recording, build, guided
from simtti.workloads.models.llama2 import blocks
from simtti.workloads.models.sampling import prompt_tokens, to_host, token_ids
from simtti.workloads.models.transformer_blocks import KeyValueCache, Layer, draw

WIDTH, HEADS, INNER = 4096, 64, 16384
ENCODER_LAYERS, DECODER_LAYERS = 16, 64
TEXT_VOCABULARY, CODES = 16000, 8192
TEXT_TOKENS = 128
# An image of 256x256 in patches of 8x8.
SIZE, PATCH = 256, 8
IMAGE_TOKENS = (SIZE // PATCH) ** 2
BLOCK = 128
VIT_WIDTH, VIT_HEADS, VIT_INNER, VIT_LAYERS, CODE_CHANNELS = 1280, 16, 5120, 32, 32


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


def record_parti(options: Options) -> Recording:
    """The phases 'text_encoder', 'decode' (the image's tokens) and 'decoder' (their pixels)."""
    dtype = options.dtype
    recording = Recording()
    recorder = recording.recorder
    length = prompt_tokens(options, TEXT_TOKENS)
    encoder = recording.add("text_encoder", build(TextEncoder, length, dtype=dtype))
    transformer = recording.add("transformer", build(ImageDecoder, dtype=dtype))
    decoder = recording.add("decoder", build(ViTDecoder, dtype=dtype))
    streams = 2 if guided(options) else 1
    cache = KeyValueCache(
        layers=DECODER_LAYERS, batch=streams * options.batch, heads=HEADS, length=IMAGE_TOKENS,
        head_dim=WIDTH // HEADS, dtype=dtype,
    )  # fmt: skip

    with recorder.step("text_encoder", domain="text"), recorder.scope("pipeline"):
        # The second stream's text is empty, but encoded like any other.
        contexts = transformer.contexts(encoder(token_ids(options, TEXT_TOKENS).repeat(streams, 1)))
        token = torch.full((options.batch, 1), CODES, dtype=torch.int64, device=META)
        ids = torch.empty(options.batch, IMAGE_TOKENS, dtype=torch.int64, device=META)
    for tokens, count in recorder.representatives(blocks(1, IMAGE_TOKENS, BLOCK)):
        cache.length = tokens - 1
        with recorder.step("decode", domain="spatial", count=count), recorder.scope("generate"):
            logits = transformer(token.repeat(streams, 1), contexts, cache)
            if streams == 2:
                unconditional, conditional = logits.chunk(2)
                logits = unconditional + options.guidance * (conditional - unconditional)
            token = draw(logits.float()).unsqueeze(-1)
            ids[:, tokens - 1 : tokens] = token
    with recorder.step("decoder", domain="spatial"), recorder.scope("pipeline"):
        to_host(recording, decoder(ids))
    recording.phases = recorder.phases()
    return recording
