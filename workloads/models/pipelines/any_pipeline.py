"""Any pipeline of diffusers', by what all of them have: components, a scheduler, a progress bar around the loop of steps."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from simtti.errors import InputError
from simtti.workloads.models.pipelines.diffusers_run import Run
from simtti.workloads.models.pipelines.inputs import Tokenizer
from simtti.workloads.recording import Recording
from simtti.workloads.stand_ins import copied_on_meta, tensors_on_meta
from simtti.workloads.torch_calls import DTYPE_NAMES
from simtti.workloads.workload import Options

# What the model in the loop is called, as far as pipelines agree.
_DENOISERS = ("transformer", "unet", "prior", "decoder")
_IMAGES = ("image", "video", "init_image")
_SCHEDULES = ("timesteps", "sigmas", "denoising_end", "denoising_start")
# Where a text encoder does not say how long its prompts may be.
_LONGEST_PROMPT = 512


def run_pipeline(
    recording: Recording, given: Any, domain: str | None, call: dict[str, Any]
) -> dict[str, Any]:
    """Run a copy of a pipeline as it would be called, and return the options of the trace.

    Raises:
        InputError: it has no denoiser or no scheduler, is called with a schedule of its own, or keeps no progress bar.
    """
    from diffusers import DiffusionPipeline

    if not isinstance(given, DiffusionPipeline):
        raise InputError(f"{given!r} is a {type(given).__name__}; give a pipeline of diffusers'")
    kind = type(given).__name__
    takes = {
        name: None if parameter.default is inspect.Parameter.empty else parameter.default
        for name, parameter in inspect.signature(type(given).__call__).parameters.items()
    }
    _check(kind, given, takes, call)
    pipe = copied_on_meta(given, _modules(given).values())
    modules = _modules(pipe)
    for name, module in modules.items():
        module.eval()
        recording.adopt(name, module)
    # One made within torch.device("meta") has no values, and the steps follow from them.
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    recording.counts_padding = _complete(pipe)  # a stand-in's prompt is nobody's

    denoisers = _denoisers(modules)
    domain = domain or ("spatial" if any("unet" in name for name in denoisers) else "joint")
    arguments = {**_defaults(takes, call), **tensors_on_meta(call)}
    steps = int(arguments.pop("num_inference_steps", None) or takes.get("num_inference_steps") or 1)
    options = Options(
        height=arguments.get("height") or takes.get("height"),
        width=arguments.get("width") or takes.get("width"),
        batch=_batch(arguments),
        steps=steps,
        frames=arguments.get("num_frames") or takes.get("num_frames"),
        dtype=DTYPE_NAMES[next(iter(denoisers.values())).dtype],
        guidance=arguments.get("guidance_scale", takes.get("guidance_scale")),
    )
    run_steps, strength = steps, None
    if "strength" in takes:
        # The steps that are left out are left out of what is asked for: it is called to run all that there are.
        strength = float(arguments.get("strength") or takes["strength"] or 1.0)
        run_steps = int(pipe.get_timesteps(steps, strength, torch.device("cpu"))[1])
        arguments["strength"] = 1.0
    run = Run(recording, options, domain=domain, steps=run_steps, looks_first=True)
    vae = modules.get("vae")
    if vae is not None and any(arguments.get(name) is not None for name in _IMAGES):
        run.split(vae, "encode", "image_encoder")
    if vae is not None and hasattr(vae, "decoder") and _decodes_in_parts(vae):
        run.repeat_tiles(vae)
    first, *others = denoisers.values()
    run(pipe, first, *others, **arguments)
    if recording.steps(run.denoising) == 0:
        raise InputError(
            f"{kind} keeps no progress bar around its steps, by which they are told apart; record its models one by one with "
            "simtti.record(module, *inputs)"
        )
    return {**options.given(), **({} if strength is None else {"strength": strength})}


def _check(kind: str, pipe: Any, takes: dict[str, Any], call: dict[str, Any]) -> None:
    modules = _modules(pipe)
    if not _denoisers(modules):
        raise InputError(
            f"{kind} has none of the models {', '.join(_DENOISERS)} that its loop would run; it has {', '.join(modules) or 'none'}"
        )
    scheduler = getattr(pipe, "scheduler", None)
    if scheduler is None or not hasattr(scheduler, "set_timesteps"):
        raise InputError(f"{kind} has no scheduler, by which its steps are counted; give it one")
    if getattr(scheduler, "order", 1) != 1:
        raise InputError(
            f"{type(scheduler).__name__} evaluates the model {scheduler.order} times a step; record with a scheduler of order 1"
        )
    for name in call:
        if name not in takes and not any(
            parameter.kind is inspect.Parameter.VAR_KEYWORD
            for parameter in inspect.signature(type(pipe).__call__).parameters.values()
        ):
            raise InputError(f"{name} is given, but {kind} takes no {name}; it takes {', '.join(takes)}")
        if name in _SCHEDULES and call[name] is not None:
            raise InputError(f"{name} is given: a schedule of one's own; say num_inference_steps instead")


def _modules(pipe: Any) -> dict[str, torch.nn.Module]:
    return {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}


def _denoisers(modules: dict[str, torch.nn.Module]) -> dict[str, Any]:
    """The models of the loop: the first kind of name that there is, and its second stage ('transformer_2')."""
    for kind in _DENOISERS:
        found = {name: module for name, module in modules.items() if name.rstrip("_0123456789") == kind}
        if found:
            return found
    return {}


def _complete(pipe: Any) -> bool:
    """Stand in for tokenizers that are missing, for text encoders that are there; whether none was."""
    complete = True
    for name, part in list(pipe.components.items()):
        encoder = getattr(pipe, name.replace("tokenizer", "text_encoder"), None)
        if "tokenizer" in name and part is None and encoder is not None:
            longest = getattr(encoder.config, "max_position_embeddings", None) or _LONGEST_PROMPT
            setattr(pipe, name, Tokenizer(min(longest, _LONGEST_PROMPT)))
            complete = False
    return complete


def _defaults(takes: dict[str, Any], call: dict[str, Any]) -> dict[str, Any]:
    """A prompt if there is none, and the picture as numbers: what makes a file of it is not the GPU's."""
    found: dict[str, Any] = {}
    if "prompt" in takes and not any(name.startswith("prompt") for name in call):
        found["prompt"] = "a photo"
    if "output_type" in takes and "output_type" not in call:
        found["output_type"] = "np"
    return found


def _batch(arguments: dict[str, Any]) -> int:
    """Images or videos of one call."""
    prompt, embedded = arguments.get("prompt"), arguments.get("prompt_embeds")
    prompts = len(prompt) if isinstance(prompt, (list, tuple)) else 1 if embedded is None else len(embedded)
    each = arguments.get("num_images_per_prompt") or arguments.get("num_videos_per_prompt") or 1
    return int(prompts * each)


def _decodes_in_parts(vae: Any) -> bool:
    """Whether a VAE decodes tile by tile, image by image or a few frames at a time."""
    flags = ("use_tiling", "use_slicing", "use_framewise_decoding")
    in_time = hasattr(vae, "blend_t") or hasattr(vae, "_feat_map") or hasattr(vae, "clear_cache")
    return in_time or any(getattr(vae, flag, False) for flag in flags)
