"""Muse (Chang et al. 2023, arXiv 2301.00704), the 3 B model: masked image tokens, unmasked many at a time.

From the paper: T5-XXL; a base transformer of 48 layers of 2048, MLP 8192, over 256 tokens of a codebook of 8192, 24
steps; for 512x512 a second transformer, whose 32 layers of 1024 attend to the text and to the base's tokens, these
encoded by 16 layers, over 4096 tokens, 8 steps; tokenizers that shrink an image by 16 and by 8, purely convolutional.
Guidance evaluates both transformers twice a step, here in one batch.

Assumed:
- 128 text tokens, projected to the transformer's width once; 64 channels a head; token and position embeddings are
  learned, the output layer is not tied;
- the tokens of the base are encoded once, not at every step: they do not change;
- the decoder of 256x256 images is MaskGIT's: 128 x [1, 1, 2, 2, 4], 2 residual blocks a level. The one of 512x512 images
  is the paper's fine-tuned one, 256 channels and 4 residual blocks a level, with one level less: 256 x [1, 1, 2, 4]. Both
  are diffusers' Decoder without attention, which has one block more a level than its argument says.
"""

from typing import Any

import torch
from diffusers.models.autoencoders.vae import Decoder
from torch import nn

from simtti.workloads.catalogue import Options
from simtti.workloads.models.latent_diffusion import META, Recording, build, guided
from simtti.workloads.models.sampling import encode_prompt, to_host
from simtti.workloads.models.text_encoders import T5_XXL, add_t5
from simtti.workloads.models.transformer_blocks import Layer, unmask

CODES = 8192
# The token that stands for a masked one.
MASK = CODES
CODE_CHANNELS = 256
HEAD_DIM = 64
BASE: dict[str, int] = {"width": 2048, "layers": 48, "inner": 8192, "tokens": 256}
SUPER_RESOLUTION: dict[str, int] = {"width": 1024, "layers": 32, "inner": 4096, "tokens": 4096}
ENCODER_LAYERS = 16
SUPER_RESOLUTION_STEPS = 8
BASE_SIZE, SIZE = 256, 512
DECODER_16: dict[str, Any] = {"block_out_channels": (128, 128, 256, 256, 512), "layers_per_block": 1}
DECODER_8: dict[str, Any] = {"block_out_channels": (256, 256, 512, 1024), "layers_per_block": 3}


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


def record_unmasking(
    recording: Recording,
    options: Options,
    phase: str,
    model: Any,
    ids: torch.Tensor,
    context: torch.Tensor,
    *,
    mask_id: int,
    steps: int,
    domain: str,
) -> torch.Tensor:
    """A step of parallel decoding, done `steps` times; returns the tokens. Every step sees all of them."""
    recorder = recording.recorder
    drawn = ids
    for step in recorder.times(phase, domain=domain, count=steps):
        with step, recorder.scope("pipeline"):
            logits = model(torch.cat([ids] * 2) if guided(options) else ids, context)
            if guided(options):
                unconditional, conditional = logits.chunk(2)
                logits = unconditional + options.guidance * (conditional - unconditional)
            with recorder.scope("sampler"):
                # How many stay masked follows a cosine; no operator's size depends on it.
                ids, drawn = unmask(logits, ids, ids.shape[1] // 2, mask_id)
    return drawn


def record_muse(options: Options) -> Recording:
    """Text, the base's tokens, at 512x512 the larger image's, then the decoder. The option `steps` is the base's."""
    assert options.steps is not None
    dtype = options.dtype
    recording = Recording()
    recorder = recording.recorder
    encoder = add_t5(recording, "text_encoder", T5_XXL, dtype)
    base = recording.add("transformer", build(MaskedTransformer, **BASE, dtype=dtype))
    large = options.height == SIZE
    if large:
        upsampler = recording.add(
            "super_resolution", build(SuperResolutionTransformer, **SUPER_RESOLUTION, dtype=dtype)
        )
    decoder = recording.add(
        "decoder", build(TokenDecoder, **(DECODER_8 if large else DECODER_16), dtype=dtype)
    )
    text = encode_prompt(recording, options, encoder)

    def masked(tokens: int) -> torch.Tensor:
        return torch.full((options.batch, tokens), MASK, dtype=torch.int64, device=META)

    with recorder.step("text_encoder", domain="text"), recorder.scope("pipeline"):
        context = base.context(text)
        ids = masked(BASE["tokens"])
    recording.schedule["parallel_decoding"] = 0
    ids = record_unmasking(
        recording, options, "parallel_decoding", base, ids, context,
        mask_id=MASK, steps=options.steps, domain="spatial",
    )  # fmt: skip
    if large:
        with recorder.step("super_resolution", domain="spatial"), recorder.scope("pipeline"):
            context = upsampler.join(text, ids)
            ids = masked(SUPER_RESOLUTION["tokens"])
        ids = record_unmasking(
            recording, options, "super_resolution", upsampler, ids, context,
            mask_id=MASK, steps=SUPER_RESOLUTION_STEPS, domain="spatial",
        )  # fmt: skip
    with recorder.step("decoder", domain="spatial"), recorder.scope("pipeline"):
        to_host(recording, decoder(ids))
    recording.phases = recorder.phases()
    return recording
