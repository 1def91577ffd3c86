"""Imagen (Saharia et al. 2022, arXiv 2205.11487): T5-XXL, a 64x64 UNet of 2 B, super-resolution to 256 and to 1024.

From the paper's appendix F: the base UNet's widths, residual blocks, channels a head and where it attends (32, 16, 8);
the "efficient UNets" of super-resolution, which halve before the convolutions of a level and double after them, have
most of their blocks at the lowest resolution and scale skip connections by 1/sqrt(2).

The base UNet is diffusers' UNet2DConditionModel with the blocks that DeepFloyd IF, Imagen's open analogue, is made of:
text is concatenated to the keys and values of self-attention. They resample with residual blocks; the sum is 2.25 B,
where the paper says 2 B and the documentation of NVIDIA's implementation in NeMo 2.1 B.

Assumed, as the pages read do not say:
- 100, 50 and 75 sampling steps, DeepFloyd IF's; prompts of 128 tokens; guidance in all three models, text in none of
  them being what makes it unguided; no learned variance; noise of a fixed level on what is upsampled;
- every level of super-resolution halves the image, the first too, so that its attention is over 16x16 pixels, and over
  64x64 in the second;
- the UNets see the pooled text (its mean) in the timestep's embedding; in super-resolution, text is projected to 512
  channels once (as in NeMo); its keys and values join those of self-attention;
- self-attention follows every residual block at 1024 channels of the first super-resolution UNet, with a feed-forward
  of four times the width. So it comes to 0.65 B where the paper says 600 M; with one a level it would have 0.46 B. The
  second comes to 0.44 B, where the paper says 400 M.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simtti.workloads.models.text_encoders import T5_XXL, T5_XXL_PARAMETERS, add_t5
from simtti.workloads.recording import Recording
from simtti.workloads.workload import Options, Workload

if TYPE_CHECKING:
    import torch

TEXT_WIDTH: int = T5_XXL["d_model"]
CONTEXT_WIDTH = 512
# Super-resolution by four twice: the base's image is 16 times smaller.
FACTOR = 4
SUPER_RESOLUTION_STEPS = (50, 75)
# 512 x [1, 2, 3, 4], 3 residual blocks, 64 channels a head, attention at all resolutions but the highest.
BASE: dict[str, Any] = {
    "sample_size": 64, "in_channels": 3, "out_channels": 3, "block_out_channels": (512, 1024, 1536, 2048),
    "layers_per_block": 3, "attention_head_dim": 64, "cross_attention_dim": 2048, "encoder_hid_dim": TEXT_WIDTH,
    "down_block_types": ("ResnetDownsampleBlock2D", *("SimpleCrossAttnDownBlock2D",) * 3),
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "up_block_types": (*("SimpleCrossAttnUpBlock2D",) * 3, "ResnetUpsampleBlock2D"),
    "resnet_time_scale_shift": "scale_shift",
    "class_embed_type": "simple_projection", "projection_class_embeddings_input_dim": TEXT_WIDTH,
}  # fmt: skip
WIDTHS = (128, 256, 512, 1024)
BLOCKS = (2, 4, 8, 8)
HEADS = 8
EMBEDDING = 4 * WIDTHS[0]


def record_imagen(options: Options, recording: Recording) -> None:
    """Text, the base's denoising, super-resolution twice. The option `steps` is the base's."""
    from diffusers import UNet2DConditionModel
    from diffusers.models.attention_processor import Attention

    from simtti.workloads.models.networks.imagen import EfficientUNet  # circle: its sizes stand here
    from simtti.workloads.models.pipelines.sampling import (
        encode_prompt,
        noise,
        noise_schedule,
        record_sampling,
        to_host,
    )

    assert options.height is not None
    assert options.width is not None
    assert options.steps is not None
    dtype = options.dtype
    encoder = add_t5(recording, "text_encoder", T5_XXL, dtype)
    base = recording.add("unet", UNet2DConditionModel, **BASE, dtype=dtype)
    for module in base.modules():
        # Pixels attend to pixels and text together, which diffusers calls cross-attention.
        if isinstance(module, Attention):
            module.is_cross_attention = False
    upsamplers = [
        recording.add("super_resolution_1", EfficientUNet, self_attention=True, dtype=dtype),
        recording.add("super_resolution_2", EfficientUNet, self_attention=False, dtype=dtype),
    ]
    text = encode_prompt(recording, options, encoder)
    height, width = options.height // FACTOR**2, options.width // FACTOR**2
    with recording.step("text_encoder", domain="text"), recording.scope("pipeline"):
        pooled = text.mean(1)
        image = noise(recording, options, options.batch, 3, height, width)

    def denoise(sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return base(sample, timestep, encoder_hidden_states=text, class_labels=pooled, return_dict=False)[0]

    # Dynamic thresholding is the paper's; 0.95 and 1.5 are DeepFloyd IF's.
    scheduler = noise_schedule(thresholding=True, dynamic_thresholding_ratio=0.95, sample_max_value=1.5)
    image = record_sampling(
        recording, options, "denoising", scheduler, image, denoise,
        steps=options.steps, guide=True, stretched=True,
    )  # fmt: skip
    for upsample, steps in zip(upsamplers, SUPER_RESOLUTION_STEPS, strict=True):
        image = record_super_resolution(recording, options, upsample, image, text, steps)
    with recording.step("decoder", domain="spatial"), recording.scope("pipeline"):
        to_host(recording, image)


def record_super_resolution(
    recording: Recording,
    options: Options,
    unet: Any,
    small: torch.Tensor,
    text: torch.Tensor,
    steps: int,
) -> torch.Tensor:
    """The phase 'super_resolution_256', or whatever the width: upsample and add noise once, then denoise."""
    import torch
    import torch.nn.functional as F  # noqa: N812

    from simtti.workloads.models.pipelines.sampling import noise, noise_schedule, record_sampling

    phase = f"super_resolution_{small.shape[-1] * FACTOR}"
    with recording.step(phase, domain="spatial"), recording.scope("pipeline"):
        low = F.interpolate(small, scale_factor=float(FACTOR), mode="bilinear", align_corners=False)
        low = low + 0.1 * noise(recording, options, *low.shape)
        image = noise(recording, options, *low.shape)
        copies = text.shape[0] // options.batch
        if copies > 1:
            low = torch.cat([low] * copies)
        level = torch.full((text.shape[0],), 0.1, device=text.device)

    def denoise(sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return unet(sample, timestep.to(sample.device).expand(sample.shape[0]), low, level, text)

    scheduler = noise_schedule(thresholding=True, dynamic_thresholding_ratio=0.95, sample_max_value=1.5)
    return record_sampling(recording, options, phase, scheduler, image, denoise, steps=steps, guide=True)


WORKLOADS = (
    Workload(
        name="imagen",
        task="text-to-image",
        architecture="pixel diffusion UNet with super-resolution",
        defaults=Options(prompt_tokens=128, height=1024, width=1024, steps=100, guidance=7.0),
        parameters={
            "text_encoder": T5_XXL_PARAMETERS,
            "unet": 2_254_931_971,
            "super_resolution_1": 652_569_859,
            "super_resolution_2": 440_696_067,
        },
        source="Saharia et al., 2022 (arXiv 2205.11487): T5-XXL 4.6 B, UNets of 2 B, 600 M and 400 M",
        url="https://imagen.research.google",
        builder=record_imagen,
        size_multiple=128,
        group="study",
        place=10,
    ),
)
