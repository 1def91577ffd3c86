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

from simtti.workloads.models.text_encoders import T5_XXL, T5_XXL_PARAMETERS, add_t5
from simtti.workloads.recording import Recording
from simtti.workloads.workload import Options, Workload

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


def record_muse(options: Options, recording: Recording) -> None:
    """Text, the base's tokens, at 512x512 the larger image's, then the decoder. The option `steps` is the base's."""
    import torch

    from simtti.workloads.models.networks.muse import (  # circle: a network takes its sizes from its model's file
        MaskedTransformer,
        SuperResolutionTransformer,
        TokenDecoder,
    )
    from simtti.workloads.models.pipelines.sampling import encode_prompt, record_unmasking, to_host

    assert options.steps is not None
    dtype = options.dtype
    encoder = add_t5(recording, "text_encoder", T5_XXL, dtype)
    base = recording.add("transformer", MaskedTransformer, **BASE, dtype=dtype)
    large = options.height == SIZE
    if large:
        upsampler = recording.add(
            "super_resolution", SuperResolutionTransformer, **SUPER_RESOLUTION, dtype=dtype
        )
    decoder = recording.add("decoder", TokenDecoder, **(DECODER_8 if large else DECODER_16), dtype=dtype)
    text = encode_prompt(recording, options, encoder)

    def masked(tokens: int) -> torch.Tensor:
        return torch.full((options.batch, tokens), MASK, dtype=torch.int64, device=recording.device)

    with recording.step("text_encoder", domain="text"), recording.scope("pipeline"):
        context = base.context(text)
        ids = masked(BASE["tokens"])
    recording.schedule["parallel_decoding"] = 0
    ids = record_unmasking(
        recording, options, "parallel_decoding", base, ids, context,
        mask_id=MASK, steps=options.steps, domain="spatial",
    )  # fmt: skip
    if large:
        with recording.step("super_resolution", domain="spatial"), recording.scope("pipeline"):
            context = upsampler.join(text, ids)
            ids = masked(SUPER_RESOLUTION["tokens"])
        ids = record_unmasking(
            recording, options, "super_resolution", upsampler, ids, context,
            mask_id=MASK, steps=SUPER_RESOLUTION_STEPS, domain="spatial",
        )  # fmt: skip
    with recording.step("decoder", domain="spatial"), recording.scope("pipeline"):
        to_host(recording, decoder(ids))


WORKLOADS = (
    Workload(
        name="muse",
        task="text-to-image",
        architecture="parallel-decoding transformer",
        defaults=Options(prompt_tokens=128, height=512, width=512, steps=24, guidance=4.0),
        parameters={
            "text_encoder": T5_XXL_PARAMETERS,
            "transformer": 3_264_288_768,
            "super_resolution": 772_279_296,
            "decoder": 162_078_979,
        },
        source="Chang et al., 2023 (arXiv 2301.00704): 3 B base transformer, T5-XXL",
        url="https://muse-model.github.io",
        builder=record_muse,
        size_multiple=256,
        max_steps=256,
        sizes=(256, 512),
        group="study",
        place=20,
    ),
)
