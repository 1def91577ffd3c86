"""What latent diffusion pipelines share: prompt encoding, a guided denoising step, decoding.

Each function issues the tensor operators of diffusers' pipelines in their order, so that what is recorded is what
a GPU would be asked to do. Differences, all small:
- timesteps are set once on the CPU and treated as if they were on the GPU (a copy of some 400 bytes);
- the prompt's token ids are all padding (no operator depends on them), 77 tokens as the pipelines pad to;
- one stored denoising step stands for all: the sampler's steady state, past the first steps of a multistep
  sampler, which have a few elementwise operators less.
"""

from dataclasses import dataclass, field
from typing import Any

import torch

from simtti.errors import InputError
from simtti.workloads.catalogue import Options
from simtti.workloads.recorder import Recorder
from simtti.workloads.torch_calls import DTYPE_NAMES
from simtti.workloads.trace import Phase, evaluations

TORCH_DTYPES = {name: dtype for dtype, name in DTYPE_NAMES.items()}
PROMPT_TOKENS = 77
META = torch.device("meta")
# The stored step is the one after this many, of a schedule of so many: the longest sampler here (PNDM) remembers
# four predictions, from the sixth evaluation on. Fixed, so that the step is the same for any number of steps.
WARM_UP_STEPS = 5
SCHEDULE_STEPS = 50
# Noise levels of the samplers' training, of which a schedule picks some.
_TRAINING_STEPS = 1000


@dataclass
class Recording:
    """What a builder returns: the phases, and the weights by component as they are before the first phase."""

    recorder: Recorder = field(default_factory=Recorder)
    phases: tuple[Phase, ...] = ()
    schedule: dict[str, int] = field(default_factory=dict)
    parameters: dict[str, int] = field(default_factory=dict)
    parameter_bytes: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, module: Any) -> Any:
        """Register a component of the pipeline."""
        self.recorder.register(name, module)
        weights = list(module.parameters())
        self.parameters[name] = sum(weight.numel() for weight in weights)
        self.parameter_bytes[name] = sum(weight.nbytes for weight in weights)
        return module


def build(factory: Any, *args: Any, dtype: str, **kwargs: Any) -> Any:
    """A module with its weights on the meta device, ready for inference in `dtype`.

    Buffers that are not part of the weights (tables of sines, say) keep the dtype they are made in, as they do in
    `from_pretrained`.
    """
    with META:
        module = factory(*args, **kwargs)
    made_in = {
        name: buffer.dtype
        for part_name, part in module.named_modules()
        for name, buffer in part.named_buffers(part_name, recurse=False)
        if name.rpartition(".")[2] in part._non_persistent_buffers_set
    }
    # Parameters made by torch.Tensor() ignore the default device.
    module = module.to(META, TORCH_DTYPES[dtype]).eval().requires_grad_(False)
    for name, buffer in module.named_buffers():
        if buffer.dtype != made_in.get(name, buffer.dtype):
            buffer.data = buffer.data.to(made_in[name])
    return module


def guided(options: Options) -> bool:
    """Whether classifier-free guidance is on, by the pipelines' rule."""
    return options.guidance is not None and options.guidance > 1


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


def tokens(batch: int) -> torch.Tensor:
    """Token ids of `batch` prompts, in the GPU's memory: (batch, 77), int64."""
    return torch.zeros(batch, PROMPT_TOKENS, dtype=torch.int64).to(META)


def per_image(embeddings: torch.Tensor) -> torch.Tensor:
    """The pipelines' duplication for each image of a prompt: one, but repeat() copies all the same."""
    batch, *rest = embeddings.shape
    return embeddings.repeat(*[1] * len(embeddings.shape)).view(batch, *rest)


def initial_latents(options: Options, channels: int, factor: int, scheduler: Any) -> torch.Tensor:
    """Noise of the latent image's shape, (batch, channels, height / factor, width / factor)."""
    assert options.height is not None
    assert options.width is not None
    shape = (options.batch, channels, options.height // factor, options.width // factor)
    noise = torch.randn(shape, dtype=TORCH_DTYPES[options.dtype], device=META)
    return noise * scheduler.init_noise_sigma


def record_denoising(
    recording: Recording,
    options: Options,
    scheduler: Any,
    unet: Any,
    latents: torch.Tensor,
    **conditions: Any,
) -> torch.Tensor:
    """The phase 'denoising': a steady-state step, done as often as the scheduler evaluates the model.

    Returns the latents, of the shape of `latents`. `conditions` go to the UNet as they are.
    """
    recorder = recording.recorder
    assert options.steps is not None
    scheduler.set_timesteps(options.steps)
    count = len(scheduler.timesteps)
    steps = schedule_steps(recorder.runs(count))
    scheduler.set_timesteps(steps)
    recording.schedule["denoising"] = len(scheduler.timesteps) - steps
    assert count == evaluations(options.steps, recording.schedule["denoising"])
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)

    latents = torch.empty_like(latents)
    with torch.no_grad():
        for timestep in scheduler.timesteps[:WARM_UP_STEPS]:
            scheduler.scale_model_input(latents, timestep)
            latents = scheduler.step(torch.empty_like(latents), timestep, latents, return_dict=False)[0]
    timesteps = recorder.on_device(scheduler.timesteps)

    for number, step in enumerate(recorder.times("denoising", domain="spatial", count=count), WARM_UP_STEPS):
        timestep = timesteps[number]
        with step, recorder.scope("pipeline"):
            model_input = torch.cat([latents] * 2) if guided(options) else latents
            with recorder.scope("scheduler"):
                model_input = scheduler.scale_model_input(model_input, timestep)
            noise = unet(model_input, timestep, return_dict=False, **conditions)[0]
            if guided(options):
                unconditional, conditional = noise.chunk(2)
                noise = unconditional + options.guidance * (conditional - unconditional)
            with recorder.scope("scheduler"):
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

    recorder = recording.recorder
    processor = VaeImageProcessor(vae_scale_factor=2 ** (len(vae.config.block_out_channels) - 1))
    with recorder.step("decoder", domain="spatial"), recorder.scope("pipeline"):
        if upcast:
            vae.to(dtype=torch.float32)
            latents = latents.to(torch.float32)
        image = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
        if upcast:
            vae.to(dtype=torch.float16)
        denormalize = [True] * options.batch if one_by_one else None
        image = processor.postprocess(image, output_type="pt", do_denormalize=denormalize)
        recorder.copy_to_host(image)
