"""What the study's systems share: a guided diffusion loop, parallel decoding, T5 for prompts, what these are padded to.

Unlike latent_diffusion, nothing here follows one pipeline: these systems were never released, so what surrounds
their models is what a PyTorch implementation of 2023 would do. All timesteps of a loop cost the same, so one step is
stored. The sampler is DDPM's, as Imagen's and unCLIP's are: it draws fresh noise at every step and remembers nothing.
"""

from collections.abc import Callable
from typing import Any

import torch
from diffusers import DDPMScheduler

from simtti.workloads.models.pipelines.latent_diffusion import schedule_steps
from simtti.workloads.recording import Recording
from simtti.workloads.torch_calls import TORCH_DTYPES
from simtti.workloads.workload import Options

# Where a paper does not say how many tokens a prompt is padded to, this is assumed: Parti's, the one that does.
PROMPT_TOKENS = 128
_SAMPLED_STEP = 5


def prompt_tokens(options: Options, default: int = PROMPT_TOKENS) -> int:
    """Tokens a prompt is padded to."""
    return options.prompt_tokens or default


def token_ids(recording: Recording, options: Options, default: int = PROMPT_TOKENS) -> torch.Tensor:
    """Token ids of the prompts, in the GPU's memory: (batch, tokens), int64."""
    return torch.zeros(
        options.batch, prompt_tokens(options, default), dtype=torch.int64, device=recording.device
    )


def with_null(options: Options, states: torch.Tensor) -> torch.Tensor:
    """A prompt's states after those of no prompt, which are zeros, if guidance is on."""
    return torch.cat([torch.zeros_like(states), states]) if options.guided else states


def encode_prompt(recording: Recording, options: Options, encoder: Any) -> torch.Tensor:
    """The phase 'text_encoder' with T5: the prompt's states, with those of no prompt if guidance is on.

    Prompts are padded and not masked: what attends to them reads every token.
    """
    with recording.step("text_encoder", domain="text"), recording.scope("pipeline"):
        # T5 as transformers loads it keeps its output projections, and so its last norm, in fp32.
        states = encoder(input_ids=token_ids(recording, options)).last_hidden_state.to(
            TORCH_DTYPES[options.dtype]
        )
        return with_null(options, states)


def noise_schedule(**config: Any) -> DDPMScheduler:
    """Cosine noise, a linear spacing of timesteps."""
    return DDPMScheduler(beta_schedule="squaredcos_cap_v2", **config)


def noise(recording: Recording, options: Options, *shape: int) -> torch.Tensor:
    """Gaussian noise of the activations' dtype."""
    return torch.randn(shape, dtype=TORCH_DTYPES[options.dtype], device=recording.device)


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
    count = steps * repeats
    scheduler.set_timesteps(schedule_steps(recording.runs(count)))
    # The scheduler looks a timestep up among its own: all are on one device.
    timesteps = scheduler.timesteps = recording.on_device(scheduler.timesteps)
    if stretched:
        recording.schedule[phase] = 0
    guide = guide and options.guided
    for number, step in enumerate(recording.times(phase, domain=domain, count=count), _SAMPLED_STEP):
        timestep = timesteps[number]
        with step, recording.scope("pipeline"):
            model_input = torch.cat([sample] * 2) if guide else sample
            prediction = denoise(model_input, timestep)
            if guide:
                unconditional, conditional = prediction.chunk(2)
                prediction = unconditional + options.guidance * (conditional - unconditional)
            with recording.scope("scheduler"):
                sample = scheduler.step(prediction, timestep, sample, return_dict=False)[0]
    return sample


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
    drawn = ids
    for step in recording.times(phase, domain=domain, count=steps):
        with step, recording.scope("pipeline"):
            logits = model(torch.cat([ids] * 2) if options.guided else ids, context)
            if options.guided:
                unconditional, conditional = logits.chunk(2)
                logits = unconditional + options.guidance * (conditional - unconditional)
            with recording.scope("sampler"):
                # How many stay masked follows a cosine; no operator's size depends on it.
                ids, drawn = unmask(logits, ids, ids.shape[1] // 2, mask_id)
    return drawn


def draw(logits: torch.Tensor) -> torch.Tensor:
    """A token for each row of logits (fp32): the largest with Gumbel noise, which is a draw from their softmax."""
    return (logits - torch.log(-torch.log(torch.rand_like(logits)))).argmax(-1)


def unmask(
    logits: torch.Tensor, tokens: torch.Tensor, masked: int, mask_id: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """One step of MaskGIT's parallel decoding: draw every masked token, then mask the `masked` least certain again.

    logits: (batch, length, codes). Returns tokens for the next step, and the same without a mask, for the last.
    """
    logits = logits.float()
    is_masked = tokens == mask_id
    drawn = torch.where(is_masked, draw(logits), tokens)
    certainty = logits.softmax(-1).gather(-1, drawn.unsqueeze(-1)).squeeze(-1)
    certainty = torch.where(is_masked, certainty, torch.inf)
    threshold = certainty.sort(-1).values[:, masked : masked + 1]
    return torch.where(certainty < threshold, mask_id, drawn), drawn


def to_host(recording: Recording, image: torch.Tensor) -> None:
    """Pixels of [-1, 1] as bytes, on their way to the host."""
    image = ((image + 1) * 127.5).clamp(0, 255).to(torch.uint8)
    recording.copy_to_host(image)
