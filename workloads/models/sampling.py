"""What the study's systems share: a guided diffusion loop, T5 for prompts, the text a prompt is padded to.

Unlike latent_diffusion, nothing here follows one pipeline: these systems were never released, so what surrounds
their models is what a PyTorch implementation of 2023 would do. All timesteps of a loop cost the same, so one step is
stored. The sampler is DDPM's, as Imagen's and unCLIP's are: it draws fresh noise at every step and remembers nothing.
"""

from collections.abc import Callable
from typing import Any

import torch
from diffusers import DDPMScheduler

from simtti.workloads.catalogue import Options
from simtti.workloads.models.latent_diffusion import META, TORCH_DTYPES, Recording, guided, schedule_steps

# Where a paper does not say how many tokens a prompt is padded to, this is assumed: Parti's, the one that does.
PROMPT_TOKENS = 128
_SAMPLED_STEP = 5


def prompt_tokens(options: Options, default: int = PROMPT_TOKENS) -> int:
    """Tokens a prompt is padded to."""
    return getattr(options, "prompt_tokens", None) or default


def token_ids(options: Options, default: int = PROMPT_TOKENS) -> torch.Tensor:
    """Token ids of the prompts, in the GPU's memory: (batch, tokens), int64."""
    return torch.zeros(options.batch, prompt_tokens(options, default), dtype=torch.int64, device=META)


def with_null(options: Options, states: torch.Tensor) -> torch.Tensor:
    """A prompt's states after those of no prompt, which are zeros, if guidance is on."""
    return torch.cat([torch.zeros_like(states), states]) if guided(options) else states


def encode_prompt(recording: Recording, options: Options, encoder: Any) -> torch.Tensor:
    """The phase 'text_encoder' with T5: the prompt's states, with those of no prompt if guidance is on.

    Prompts are padded and not masked: what attends to them reads every token.
    """
    with recording.recorder.step("text_encoder", domain="text"), recording.recorder.scope("pipeline"):
        # T5 as transformers loads it keeps its output projections, and so its last norm, in fp32.
        states = encoder(input_ids=token_ids(options)).last_hidden_state.to(TORCH_DTYPES[options.dtype])
        return with_null(options, states)


def noise_schedule(**config: Any) -> DDPMScheduler:
    """Cosine noise, a linear spacing of timesteps."""
    return DDPMScheduler(beta_schedule="squaredcos_cap_v2", **config)


def noise(options: Options, *shape: int) -> torch.Tensor:
    """Gaussian noise of the activations' dtype."""
    return torch.randn(shape, dtype=TORCH_DTYPES[options.dtype], device=META)


def record_sampling(
    recording: Recording,
    options: Options,
    phase: str,
    scheduler: Any,
    sample: torch.Tensor,
    denoise: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    *,
    steps: int,
    guide: bool,
    domain: str = "spatial",
    stretched: bool = False,
    repeats: int = 1,
) -> torch.Tensor:
    """A step of `phase`: one of a diffusion loop over `sample`, done `steps` times, `repeats` loops in a row.

    denoise: the model, of a batch and a timestep. guide: it sees every sample twice, without and with the prompt,
    if the options ask for guidance. stretched: whether the option `steps` sets this phase's number of steps.
    """
    recorder = recording.recorder
    count = steps * repeats
    scheduler.set_timesteps(schedule_steps(recorder.runs(count)))
    timesteps = recorder.on_device(scheduler.timesteps)
    if stretched:
        recording.schedule[phase] = 0
    guide = guide and guided(options)
    for number, step in enumerate(recorder.times(phase, domain=domain, count=count), _SAMPLED_STEP):
        timestep = timesteps[number]
        with step, recorder.scope("pipeline"):
            model_input = torch.cat([sample] * 2) if guide else sample
            prediction = denoise(model_input, timestep)
            if guide:
                unconditional, conditional = prediction.chunk(2)
                prediction = unconditional + options.guidance * (conditional - unconditional)
            with recorder.scope("scheduler"):
                sample = scheduler.step(prediction, timestep, sample, return_dict=False)[0]
    return sample


def to_host(recording: Recording, image: torch.Tensor) -> None:
    """Pixels of [-1, 1] as bytes, on their way to the host."""
    image = ((image + 1) * 127.5).clamp(0, 255).to(torch.uint8)
    recording.recorder.copy_to_host(image)
