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

from simtti.workloads.models.llama2 import blocks
from simtti.workloads.recording import Recording
from simtti.workloads.workload import Options, Workload

WIDTH, HEADS, INNER = 4096, 64, 16384
ENCODER_LAYERS, DECODER_LAYERS = 16, 64
TEXT_VOCABULARY, CODES = 16000, 8192
TEXT_TOKENS = 128
# An image of 256x256 in patches of 8x8.
SIZE, PATCH = 256, 8
IMAGE_TOKENS = (SIZE // PATCH) ** 2
BLOCK = 128
VIT_WIDTH, VIT_HEADS, VIT_INNER, VIT_LAYERS, CODE_CHANNELS = 1280, 16, 5120, 32, 32


def record_parti(options: Options, recording: Recording) -> None:
    """The phases 'text_encoder', 'decode' (the image's tokens) and 'decoder' (their pixels)."""
    import torch

    from simtti.workloads.models.networks.parti import (  # circle: its sizes stand here
        ImageDecoder,
        TextEncoder,
        ViTDecoder,
    )
    from simtti.workloads.models.networks.transformer_blocks import KeyValueCache
    from simtti.workloads.models.pipelines.sampling import draw, prompt_tokens, to_host, token_ids

    dtype = options.dtype
    length = prompt_tokens(options, TEXT_TOKENS)
    encoder = recording.add("text_encoder", TextEncoder, length, dtype=dtype)
    transformer = recording.add("transformer", ImageDecoder, dtype=dtype)
    decoder = recording.add("decoder", ViTDecoder, dtype=dtype)
    streams = 2 if options.guided else 1
    cache = KeyValueCache(
        layers=DECODER_LAYERS, batch=streams * options.batch, heads=HEADS, length=IMAGE_TOKENS,
        head_dim=WIDTH // HEADS, dtype=dtype, device=recording.device,
    )  # fmt: skip

    with recording.step("text_encoder", domain="text"), recording.scope("pipeline"):
        # The second stream's text is empty, but encoded like any other.
        contexts = transformer.contexts(
            encoder(token_ids(recording, options, TEXT_TOKENS).repeat(streams, 1))
        )
        token = torch.full((options.batch, 1), CODES, dtype=torch.int64, device=recording.device)
        ids = torch.empty(options.batch, IMAGE_TOKENS, dtype=torch.int64, device=recording.device)
    ids.zero_()  # outside of a step: where one stands for many, the decoder gets tokens that none has written
    for tokens, count in recording.representatives(blocks(1, IMAGE_TOKENS, BLOCK)):
        cache.length = tokens - 1
        with recording.step("decode", domain="spatial", count=count), recording.scope("generate"):
            logits = transformer(token.repeat(streams, 1), contexts, cache)
            if streams == 2:
                unconditional, conditional = logits.chunk(2)
                logits = unconditional + options.guidance * (conditional - unconditional)
            token = draw(logits.float()).unsqueeze(-1)
            ids[:, tokens - 1 : tokens] = token
    with recording.step("decoder", domain="spatial"), recording.scope("pipeline"):
        to_host(recording, decoder(ids))


WORKLOADS = (
    Workload(
        name="parti",
        task="text-to-image",
        architecture="autoregressive transformer",
        defaults=Options(prompt_tokens=128, height=256, width=256, guidance=1.2),
        parameters={"text_encoder": 3_287_556_096, "transformer": 17_252_757_504, "decoder": 631_173_056},
        source="Yu et al., 2022 (arXiv 2206.10789): 20 B encoder-decoder, ViT-VQGAN decoder 600 M",
        url="https://sites.research.google/parti",
        builder=record_parti,
        size_multiple=256,
        sizes=(256,),
        group="study",
        place=30,
    ),
)
