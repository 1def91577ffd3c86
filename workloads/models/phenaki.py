"""Phenaki (Villegas et al. 2022, arXiv 2210.02399), the 1.8 B model: masked video tokens, unmasked many at a time.

From the paper: C-ViViT makes of 11 frames of 128x128 6 x 16 x 16 tokens of a codebook of 8192: one of each 8x8 patch of
the first frame, and of each two frames after it; 4 layers in space and 4 causal ones in time, 512 wide, 8 heads, MLP 2048.
A transformer of 24 layers of 2048, 32 heads, MLP 8192, with cross-attention to T5-XXL, over all 1536 tokens, 48 steps.

Assumed: 128 text tokens, whose keys and values every layer projects from T5's 4096 channels (so it comes to 1.85 B, with
a projection to 2048 before to 1.65 B); learned positions for the video's tokens; guidance as in Muse, in one batch; codes of
512 channels; the tokenizer's second half mirrors its first: time, then space. Its first half is not needed for text to video. A
longer video is 1 + 2k frames in one go; the paper's own way, in pieces of 11, repeats this one.
"""

from simtti.workloads.models.text_encoders import T5_XXL, T5_XXL_PARAMETERS, add_t5
from simtti.workloads.recording import Recording
from simtti.workloads.workload import Options, Workload

CODES = 8192
# The token that stands for a masked one.
MASK = CODES
WIDTH, HEADS, INNER, LAYERS = 2048, 32, 8192, 24
VIVIT_WIDTH, VIVIT_HEADS, VIVIT_INNER, VIVIT_LAYERS = 512, 8, 2048, 4
PATCH, FRAME_PATCH = 8, 2


def grid(options: Options) -> tuple[int, int, int]:
    """Tokens along time, height and width."""
    assert options.height is not None
    assert options.width is not None
    assert options.frames is not None
    return 1 + (options.frames - 1) // FRAME_PATCH, options.height // PATCH, options.width // PATCH


def record_phenaki(options: Options, recording: Recording) -> None:
    """The phases 'text_encoder', 'parallel_decoding', 'decoder'."""
    import torch

    from simtti.workloads.models.networks.phenaki import (  # circle: its sizes stand here
        CViViTDecoder,
        VideoTransformer,
    )
    from simtti.workloads.models.pipelines.sampling import encode_prompt, record_unmasking, to_host

    assert options.steps is not None
    dtype = options.dtype
    times, rows, columns = grid(options)
    length = times * rows * columns
    encoder = add_t5(recording, "text_encoder", T5_XXL, dtype)
    transformer = recording.add("transformer", VideoTransformer, length, dtype=dtype)
    decoder = recording.add("decoder", CViViTDecoder, times, rows, columns, dtype=dtype)
    text = encode_prompt(recording, options, encoder)
    with recording.step("text_encoder", domain="text"), recording.scope("pipeline"):
        ids = torch.full((options.batch, length), MASK, dtype=torch.int64, device=recording.device)
    recording.schedule["parallel_decoding"] = 0
    ids = record_unmasking(
        recording, options, "parallel_decoding", transformer, ids, text,
        mask_id=MASK, steps=options.steps, domain="joint",
    )  # fmt: skip
    with recording.step("decoder", domain="spatial"), recording.scope("pipeline"):
        to_host(recording, decoder(ids))


WORKLOADS = (
    Workload(
        name="phenaki",
        task="text-to-video",
        architecture="parallel-decoding transformer",
        defaults=Options(prompt_tokens=128, height=128, width=128, steps=48, frames=11, guidance=4.0),
        parameters={"text_encoder": T5_XXL_PARAMETERS, "transformer": 1_848_940_544, "decoder": 29_807_168},
        source="Villegas et al., 2022 (arXiv 2210.02399): MaskGIT transformer 1.8 B, C-ViViT, T5-XXL",
        url="https://phenaki.video",
        builder=record_phenaki,
        frame_multiple=2,
        group="study",
        place=60,
    ),
)
