"""What latent diffusion pipelines share: prompt encoding, a guided denoising step, decoding.

Each function issues the tensor operators of diffusers' pipelines in their order, so that what is recorded is what
a GPU would be asked to do. Differences, all small:
- timesteps are set once on the CPU and treated as if they were on the GPU (a copy of some 400 bytes);
- the prompt's token ids are all padding (no operator depends on them), 77 tokens as the pipelines pad to;
- one stored denoising step stands for all: the sampler's steady state, past the first steps of a multistep
  sampler, which have a few elementwise operators less.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from simtti.errors import InputError
from simtti.workloads.recording import Recording
from simtti.workloads.torch_calls import TORCH_DTYPES
from simtti.workloads.trace import evaluations
from simtti.workloads.workload import Options

Control = Callable[[torch.Tensor, Any], Mapping[str, Any]]
PROMPT_TOKENS = 77
# The stored step is the one after this many, of a schedule of so many: the longest sampler here (PNDM) remembers
# four predictions, from the sixth evaluation on. Fixed, so that the step is the same for any number of steps.
WARM_UP_STEPS = 5
SCHEDULE_STEPS = 50
# Noise levels of the samplers' training, of which a schedule picks some.
_TRAINING_STEPS = 1000


def schedule_steps(runs: int) -> int:
    """Steps of a schedule that has `runs` in the sampler's steady state: after its first ones and before its last."""
    steps = max(SCHEDULE_STEPS, runs + 2 * WARM_UP_STEPS)
    if steps > _TRAINING_STEPS:
        most = _TRAINING_STEPS - 2 * WARM_UP_STEPS
        raise InputError(
            f"all_steps: {runs} steps are too many; each is run in the steady state of its sampler, whose schedule of "
            f"at most {_TRAINING_STEPS} has room for {most}"
        )
    return steps


def tokens(recording: Recording, batch: int) -> torch.Tensor:
    """Token ids of `batch` prompts, in the GPU's memory: (batch, 77), int64."""
    return torch.zeros(batch, PROMPT_TOKENS, dtype=torch.int64).to(recording.device)


def per_image(embeddings: torch.Tensor) -> torch.Tensor:
    """The pipelines' duplication for each image of a prompt: one, but repeat() copies all the same."""
    batch, *rest = embeddings.shape
    return embeddings.repeat(*[1] * len(embeddings.shape)).view(batch, *rest)


def initial_latents(
    recording: Recording, options: Options, channels: int, factor: int, scheduler: Any
) -> torch.Tensor:
    """Noise of the latent image's shape, (batch, channels, height / factor, width / factor)."""
    assert options.height is not None
    assert options.width is not None
    shape = (options.batch, channels, options.height // factor, options.width // factor)
    noise = torch.randn(shape, dtype=TORCH_DTYPES[options.dtype], device=recording.device)
    return noise * scheduler.init_noise_sigma


def set_decoding(vae: Any, mode: str) -> None:
    """Switch on what a mode of workload.VAE_MODES has, for encoding as well."""
    if "tiled" in mode:
        vae.enable_tiling()
    if "sliced" in mode:
        vae.enable_slicing()


def record_image(
    recording: Recording, options: Options, vae: Any, scheduler: Any, *, upcast: bool
) -> torch.Tensor:
    """The phase 'image_encoder': an image as noised latents to start from, as the image-to-image pipelines make them.

    Returns the latents. upcast: encode in fp32, casting the VAE's weights there and back.
    """
    assert options.height is not None
    assert options.width is not None
    dtype = TORCH_DTYPES[options.dtype]
    set_decoding(vae, options.vae or "whole")
    with recording.paused():
        scheduler.set_timesteps(options.steps)
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)
        image = torch.zeros(options.batch, 3, options.height, options.width)
    with recording.step("image_encoder", domain="spatial"), recording.scope("pipeline"):
        image = image.to(device=recording.device, dtype=dtype)
        if upcast:
            image = image.float()
            vae.to(dtype=torch.float32)
        latents = vae.encode(image).latent_dist.sample()
        if upcast:
            vae.to(dtype)
            latents = latents.to(dtype)
        latents = torch.cat([vae.config.scaling_factor * latents], dim=0)
        noise = torch.randn(latents.shape, dtype=dtype, device=recording.device)
        with recording.scope("scheduler"):
            return scheduler.add_noise(latents, noise, scheduler.timesteps[:1].repeat(options.batch))


def image_control(recording: Recording, options: Options, network: Any, **conditions: Any) -> Control:
    """A ControlNet with the image that it follows, (batch, 3, height, width), brought to the device. `conditions` go to it as they are."""
    assert options.height is not None
    assert options.width is not None
    with recording.paused():
        image = torch.zeros(options.batch, 3, options.height, options.width)
    image = image.to(device=recording.device, dtype=TORCH_DTYPES[options.dtype])
    if options.guided:
        image = torch.cat([image] * 2)

    def control(model_input: torch.Tensor, timestep: Any) -> Mapping[str, Any]:
        down, middle = network(
            model_input, timestep, controlnet_cond=image, conditioning_scale=1.0, guess_mode=False, return_dict=False,
            **conditions,
        )  # fmt: skip
        return {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}

    return control


def record_denoising(
    recording: Recording,
    options: Options,
    scheduler: Any,
    unet: Any,
    latents: torch.Tensor,
    control: Control | None = None,
    **conditions: Any,
) -> torch.Tensor:
    """The phase 'denoising': a steady-state step, done as often as the scheduler evaluates the model.

    Returns the latents, of the shape of `latents`. `conditions` go to the UNet as they are. control: what a second network makes of
    the UNet's input and the timestep in each step, before the UNet, which is given its results.
    """
    recording.denoise_with(unet)
    sampled = options.sampled_steps(rounded_up=False)
    scheduler.set_timesteps(sampled)
    count = len(scheduler.timesteps)
    steps = schedule_steps(recording.runs(count))
    scheduler.set_timesteps(steps)
    recording.schedule["denoising"] = len(scheduler.timesteps) - steps
    assert count == evaluations(sampled, recording.schedule["denoising"])
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)

    timesteps = scheduler.timesteps = recording.on_device(scheduler.timesteps)
    # Noise stands for what the UNet is not run for: on a real device it must be numbers.
    latents = torch.randn_like(latents)
    with torch.no_grad():
        for timestep in timesteps[:WARM_UP_STEPS]:
            scheduler.scale_model_input(latents, timestep)
            latents = scheduler.step(torch.randn_like(latents), timestep, latents, return_dict=False)[0]

    for number, step in enumerate(recording.times("denoising", domain="spatial", count=count), WARM_UP_STEPS):
        timestep = timesteps[number]
        with step, recording.scope("pipeline"):
            model_input = torch.cat([latents] * 2) if options.guided else latents
            with recording.scope("scheduler"):
                model_input = scheduler.scale_model_input(model_input, timestep)
            added = control(model_input, timestep) if control else {}
            noise = unet(model_input, timestep, return_dict=False, **conditions, **added)[0]
            if options.guided:
                unconditional, conditional = noise.chunk(2)
                noise = unconditional + options.guidance * (conditional - unconditional)
            with recording.scope("scheduler"):
                latents = scheduler.step(noise, timestep, latents, return_dict=False)[0]
    return latents


def record_decoding(
    recording: Recording, options: Options, vae: Any, latents: torch.Tensor, *, upcast: bool, one_by_one: bool
) -> None:
    """The phase 'decoder': latents to images of (batch, 3, height, width) in [0, 1], and their way to the host.

    upcast: decode in fp32, casting the VAE's weights there and back, as SDXL's pipeline does for fp16.
    one_by_one: scale each image on its own and stack them, as the Stable Diffusion pipeline does.
    """
    from diffusers.image_processor import VaeImageProcessor

    from simtti.workloads.models.pipelines.diffusers_run import Run  # circle: it shares this file's schedule

    processor = VaeImageProcessor(vae_scale_factor=2 ** (len(vae.config.block_out_channels) - 1))
    run = Run(recording, options)
    run.decode_with(vae)
    with run.phase("decoder", domain="spatial"):
        if upcast:
            vae.to(dtype=torch.float32)
            latents = latents.to(torch.float32)
        image = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
        if upcast:
            vae.to(dtype=torch.float16)
        denormalize = [True] * options.batch if one_by_one else None
        image = processor.postprocess(image, output_type="pt", do_denormalize=denormalize)
        recording.copy_to_host(image)
