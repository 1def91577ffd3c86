"""Make-A-Video (Singer et al. 2022, arXiv 2209.14792): text to an image's embedding, to 16 frames, to 76, to 768x768.

From the paper: a prior makes a CLIP image embedding of the text; the decoder D^t makes 16 frames of 64x64 from it;
frame interpolation makes 76 of them (15 x 5 + 1), with three channels for the frames known and one for which they are;
SR_l makes 256x256 in space and time, SR_h 768x768 of each frame on its own. Convolutions and attention are pseudo-3D:
space, then time.

No sizes are published. SIZES holds what is assumed: unCLIP's (Ramesh et al. 2022, appendix C, from memory: it could not
be read here), which the paper builds on, with time added. That is a decoder of 512 x [1, 2, 3, 4], 3 residual blocks a
level, attention at 32, 16 and 8 with 64 channels a head; upsamplers of 320 x [1, 2, 3, 4] with 3 blocks and of
192 x [1, 1, 2, 2, 4, 4] with 2, without attention or guidance. The prior and the CLIP text encoder are those of Karlo,
unCLIP's open analogue, for which diffusers has classes. Karlo's own decoder attends at 32, 16 and 8 too, with 64 channels a head
(github.com/kakaobrain/karlo, configs/decoder_900M_vit_l.yaml, commit e105e76); what other levels would give is in docs/study.md.
All together this is 7.9 B; others cite 9.7 B for Make-A-Video.
Also assumed:
- Karlo's sampling steps (25 for the prior, the decoder, and here interpolation; 7 for the upsamplers);
- time follows every 3x3 convolution in space, none of the 1x1; no position embeddings along time;
- the image embedding and the frame rate join the timestep's embedding, so that attention is over pixels or frames only;
- SR_h works on 4 frames at a time, SR_l on all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from simtti.workloads.models.stable_diffusion import CLIP_L
from simtti.workloads.models.stable_diffusion_3 import CLIP_L_PROJECTED_PARAMETERS
from simtti.workloads.recording import Recording
from simtti.workloads.workload import Options, Workload

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class UNetSize:
    """Channels of each level, residual blocks a level, and which levels attend, counted from the largest as 0."""

    widths: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...] = ()
    head_dim: int = 64


@dataclass(frozen=True)
class Sizes:
    """Everything about Make-A-Video that is not published."""

    decoder: UNetSize = UNetSize((512, 1024, 1536, 2048), 3, attention=(1, 2, 3))
    interpolation: UNetSize = UNetSize((512, 1024, 1536, 2048), 3, attention=(1, 2, 3))
    super_resolution_low: UNetSize = UNetSize((320, 640, 960, 1280), 3)
    super_resolution_high: UNetSize = UNetSize((192, 192, 384, 384, 768, 768), 2)
    prior_steps: int = 25
    super_resolution_steps: int = 7
    frames_at_once: int = 4


SIZES = Sizes()
# Frames between two that the decoder makes, plus one.
FRAME_STEP = 5
# The decoder's image is 12 times smaller than the video's; SR_l's 3 times.
FACTOR, HIGH_FACTOR = 12, 3
EMBEDDING: int = CLIP_L["projection_dim"]


def record_make_a_video(options: Options, recording: Recording) -> None:
    """The option `steps` is the decoder's and the interpolation's; `frames` are the video's."""
    record_sizes(options, recording, SIZES)


def record_sizes(options: Options, recording: Recording, sizes: Sizes) -> None:
    """Prior, decoder, interpolation, super-resolution in time and space, super-resolution of each frame."""
    import torch
    from diffusers import PriorTransformer
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    from simtti.workloads.models.networks.pseudo_3d import UNet
    from simtti.workloads.models.pipelines.sampling import (
        noise,
        noise_schedule,
        record_sampling,
        to_host,
        with_null,
    )

    assert options.height is not None
    assert options.width is not None
    assert options.frames is not None
    assert options.steps is not None
    dtype = options.dtype

    def unet(name: str, size: UNetSize, in_channels: int, *, condition: int, temporal: bool) -> Any:
        return recording.add(
            name, UNet, in_channels=in_channels, widths=size.widths, blocks=size.blocks, attention=size.attention,
            head_dim=size.head_dim, condition_width=condition, temporal=temporal, dtype=dtype,
        )  # fmt: skip

    config = CLIPTextConfig(**CLIP_L)
    encoder = recording.add("text_encoder", CLIPTextModelWithProjection, config, dtype=dtype)
    prior = recording.add("prior", PriorTransformer, dtype=dtype)
    decoder = unet("decoder", sizes.decoder, 3, condition=EMBEDDING, temporal=True)
    between = unet("interpolation", sizes.interpolation, 7, condition=EMBEDDING, temporal=True)
    low = unet("super_resolution_low", sizes.super_resolution_low, 6, condition=0, temporal=True)
    high = unet("super_resolution_high", sizes.super_resolution_high, 6, condition=0, temporal=False)

    image = record_prior(recording, options, encoder, prior, sizes)
    height, width = options.height // FACTOR, options.width // FACTOR
    known = (options.frames - 1) // FRAME_STEP + 1

    def on_device(timestep: torch.Tensor, video: torch.Tensor) -> torch.Tensor:
        return timestep.to(recording.device).expand(video.shape[0])

    def decode(video: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return decoder(video, on_device(timestep, video), image, rate)

    with recording.step("prior", domain="text"), recording.scope("pipeline"):
        image = with_null(options, image)
        rate = torch.ones(image.shape[0], device=recording.device)
        video = noise(recording, options, options.batch, known, 3, height, width)
    video = record_sampling(
        recording, options, "denoising", noise_schedule(), video, decode,
        steps=options.steps, guide=True, stretched=True,
    )  # fmt: skip

    with recording.step("interpolation_input", domain="spatial"), recording.scope("pipeline"):
        # Known frames in their places, zeros between, and which is which.
        frames = torch.zeros(
            options.batch, options.frames, 4, height, width, dtype=video.dtype, device=recording.device
        )
        frames[:, ::FRAME_STEP, :3] = video
        frames[:, ::FRAME_STEP, 3:] = 1
        frames = frames.repeat(2 if options.guided else 1, 1, 1, 1, 1)
        video = noise(recording, options, options.batch, options.frames, 3, height, width)

    def interpolate(video: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return between(torch.cat([video, frames], dim=2), on_device(timestep, video), image, rate)

    video = record_sampling(
        recording, options, "interpolation", noise_schedule(), video, interpolate,
        steps=options.steps, guide=True, stretched=True,
    )  # fmt: skip
    video = record_super_resolution(
        recording, options, "super_resolution_low", low, video,
        factor=FACTOR // HIGH_FACTOR, rate=rate[: options.batch], sizes=sizes,
    )  # fmt: skip
    # Frames as images: a few at a time, and what is left of them.
    images = video.flatten(0, 1).unsqueeze(1)
    alike = [list(group) for _, group in groupby(images.split(sizes.frames_at_once), key=len)]
    parts: list[torch.Tensor] = []
    for chunk, count in recording.representatives(alike):
        part = record_super_resolution(
            recording, options, "super_resolution_high", high, chunk,
            factor=HIGH_FACTOR, rate=None, sizes=sizes, repeats=count,
        )  # fmt: skip
        parts += [part] * count
    with recording.step("decoder", domain="spatial"), recording.scope("pipeline"):
        to_host(recording, torch.cat(parts).flatten(0, 1))


def record_denoiser(
    recording: Recording, size: UNetSize, side: int, frames: int, batch: int, dtype: str
) -> None:
    """One pass of the decoder alone, for `frames` frames of `side` x `side` pixels; guidance doubles the batch."""
    import torch

    from simtti.workloads.models.networks.pseudo_3d import UNet
    from simtti.workloads.torch_calls import TORCH_DTYPES

    unet = recording.add(
        "decoder", UNet, in_channels=3, widths=size.widths, blocks=size.blocks, attention=size.attention,
        head_dim=size.head_dim, condition_width=EMBEDDING, temporal=True, dtype=dtype,
    )  # fmt: skip
    video = torch.randn(2 * batch, frames, 3, side, side, dtype=TORCH_DTYPES[dtype], device=recording.device)
    image = torch.randn(2 * batch, EMBEDDING, dtype=TORCH_DTYPES[dtype], device=recording.device)
    timestep = torch.ones(2 * batch, device=recording.device)
    with recording.step("denoising", domain="spatial"), recording.scope("pipeline"):
        unet(video, timestep, image, timestep)


def record_prior(
    recording: Recording, options: Options, encoder: Any, prior: Any, sizes: Sizes
) -> torch.Tensor:
    """The phases 'text_encoder' and 'prior': an image's embedding."""
    import torch

    from simtti.workloads.models.pipelines.latent_diffusion import tokens
    from simtti.workloads.models.pipelines.sampling import noise, noise_schedule, record_sampling

    copies = 2 if options.guided else 1
    with recording.step("text_encoder", domain="text"), recording.scope("pipeline"):
        output = encoder(tokens(recording, copies * options.batch))
        mask = torch.ones(output.last_hidden_state.shape[:2], dtype=torch.bool, device=recording.device)
        embedding = noise(recording, options, options.batch, EMBEDDING)

    def denoise(sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return prior(
            sample, timestep=timestep, proj_embedding=output.text_embeds,
            encoder_hidden_states=output.last_hidden_state, attention_mask=mask, return_dict=False,
        )[0]  # fmt: skip

    return record_sampling(
        recording, options, "prior", noise_schedule(prediction_type="sample"), embedding, denoise,
        steps=sizes.prior_steps, guide=True, domain="text",
    )  # fmt: skip


def record_super_resolution(
    recording: Recording,
    options: Options,
    phase: str,
    unet: Any,
    small: torch.Tensor,
    *,
    factor: int,
    rate: torch.Tensor | None,
    sizes: Sizes,
    repeats: int = 1,
) -> torch.Tensor:
    """Upsample once, then denoise beside it: `repeats` times one after another."""
    import torch
    import torch.nn.functional as F  # noqa: N812

    from simtti.workloads.models.pipelines.sampling import noise, noise_schedule, record_sampling

    with (
        recording.step(phase, domain="spatial", count=repeats),
        recording.scope("pipeline"),
    ):
        frames = F.interpolate(small.flatten(0, 1), scale_factor=float(factor), mode="nearest")
        frames = frames.unflatten(0, small.shape[:2])
        video = noise(recording, options, *frames.shape)

    def denoise(video: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        timestep = timestep.to(recording.device).expand(video.shape[0])
        return unet(torch.cat([video, frames], dim=2), timestep, None, rate)

    return record_sampling(
        recording, options, phase, noise_schedule(), video, denoise,
        steps=sizes.super_resolution_steps, guide=False, repeats=repeats,
    )  # fmt: skip


WORKLOADS = (
    Workload(
        name="make-a-video",
        task="text-to-video",
        architecture="pixel video diffusion UNet with super-resolution",
        defaults=Options(height=768, width=768, steps=25, frames=76, guidance=4.0),
        parameters={
            "text_encoder": CLIP_L_PROJECTED_PARAMETERS,
            "prior": 1_022_030_080,
            "decoder": 2_787_377_697,
            "interpolation": 2_787_396_129,
            "super_resolution_low": 907_223_713,
            "super_resolution_high": 282_059_139,
        },
        source="Singer et al., 2022 (arXiv 2209.14792); sizes assumed, unCLIP's: 9.7 B in all is cited by others",
        url="https://makeavideo.studio",
        builder=record_make_a_video,
        size_multiple=96,
        frame_multiple=5,
        group="study",
        place=50,
    ),
)
