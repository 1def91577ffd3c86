"""Traces of models that no workload of ours is: any module of PyTorch, any pipeline of diffusers', what a function in a file returns.

    record_module(transformer, latents, timestep, text, count=50)     # one step, done 50 times
    record_pipeline(pipe, prompt="a photo", num_inference_steps=30)   # its __call__, phase by phase
    record_file("mine.py:model")

All run on torch's meta device, on copies: what is given stays as it is, and its weights are not needed. Operators that are not
torch's own (torch.library.custom_op) are recorded by their names, with their operands; they need what torch calls a fake
implementation (torch.library.register_fake), which says what they return. Those of attention libraries are recorded as attention, and
where a library is not installed a stand-in records its calls (attention_stand_ins.py). What has no kernel model is timed as a stream of its bytes
and named in the result. Importable without torch.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from simtti.errors import InputError, unknown
from simtti.workloads.recording import Recording
from simtti.workloads.trace import Trace

DOMAINS = ("spatial", "temporal", "text", "joint")
_COMPONENT = "model"


def record_module(
    module: Any,
    *inputs: Any,
    count: int = 1,
    phase: str = "denoising",
    domain: str = "spatial",
    name: str | None = None,
    options: Mapping[str, Any] | None = None,
    **keywords: Any,
) -> Trace:
    """What one call of a module does, as the step of a phase that is done `count` times.

    Args:
        module: a torch.nn.Module, on whatever device; it is run as in inference (eval, no_grad), on meta.
        inputs, keywords: what it is called with; tensors are taken for their shapes, strides and dtypes.
        count: how often; `with_steps` of the trace (simtti run --steps) changes it.
        phase: what the phase is called.
        domain: what attention runs over: spatial, temporal, text or joint.
        name: what the trace is called; the module's class if not given.
        options: what else is to be known of it: batch (images or videos that a call makes part of), height, width, frames.

    Raises:
        InputError: no module; a count below 1; torch is missing; the module could not be run on meta (the message says what torch said).
    """
    if type(count) is not int or count < 1:
        raise InputError(f"count is {count!r}; it must be a whole number of at least 1")
    if domain not in DOMAINS:
        raise unknown("domain", domain, DOMAINS)
    from simtti.workloads.record import recorded  # circle: record takes modules as well

    called = name or type(module).__name__
    held: list[Any] = []  # what calls the module keeps what it is given: it is not let go of after the step

    def build(_: None, recorder: Recording) -> None:
        import torch

        from simtti.workloads.stand_ins import copied_on_meta, tensors_on_meta

        if not isinstance(module, torch.nn.Module):
            raise InputError(
                f"{module!r} is of {type(module).__name__}; give a workload's name, a torch.nn.Module or a pipeline of diffusers'"
            )
        model = copied_on_meta(module, [module]).eval()
        recorder.adopt(_COMPONENT, model)
        recorder.counts_padding = True
        recorder.schedule[phase] = 0
        args, kwargs = tensors_on_meta(inputs), tensors_on_meta(keywords)
        held.extend((args, kwargs))
        with _explained(called, "a module"), recorder.step(phase, domain=domain, count=count):
            model(*args, **kwargs)

    known = {"batch": 1, "dtype": _dtype_of(module), **(options or {}), "steps": count}
    return recorded(build, None, what=called, name=called, options=_given(known), libraries=("torch",))


def record_pipeline(pipe: Any, *, name: str | None = None, domain: str | None = None, **call: Any) -> Trace:
    """What `pipe(**call)` does: what comes before the loop, the loop's step with its count, what comes after it.

    The pipeline's own __call__ is run, on a copy whose models are on the meta device. A tokenizer that is missing is stood in for by
    one that gives token ids of the lengths asked for, a prompt that is missing by 'a photo'. The steps are told apart by the progress
    bar that the pipeline keeps, of which one is stored: the sampler's steady state.

    Args:
        pipe: a DiffusionPipeline, from a config without weights (`with torch.device("meta")`) or from pretrained ones.
        name: what the trace is called; the pipeline's class if not given.
        domain: what attention in the loop runs over; if not given spatial for a UNet, joint for a transformer.
        call: the arguments of its __call__; tensors are taken for their shapes.

    Raises:
        InputError: no pipeline with a denoiser and a scheduler; a loop that cannot be told apart; torch or diffusers is missing; it could
            not be run on meta (the message says what torch said).
    """
    if domain is not None and domain not in DOMAINS:
        raise unknown("domain", domain, DOMAINS)
    from simtti.workloads.record import recorded  # circle: record takes modules as well

    called, options = name or type(pipe).__name__, {}

    def build(_: None, recorder: Recording) -> None:
        from simtti.workloads.models.pipelines.any_pipeline import run_pipeline

        with _explained(called, "a pipeline"):
            options.update(run_pipeline(recorder, pipe, domain, call))

    return recorded(build, None, what=called, name=called, options=options)


def record_file(what: str, *, steps: int | None = None, **options: Any) -> Trace:
    """The trace of what a function in a file returns: FILE.py:FUNCTION.

    The function returns a Trace; a module with its inputs, (module, *inputs) where a dict at the end holds keyword arguments; or a
    pipeline of diffusers', alone or as (pipeline, dict of what it is called with).

    Args:
        what: the path of the file, a colon and the function's name.
        steps: how often the module is run, or the pipeline's num_inference_steps.
        options: passed on to the function, by name, where they are not None.

    Raises:
        InputError: no such file or function, one that fails or returns something else, an option that it does not take.
    """
    with _libraries():
        return _record_file(what, steps, _given(options))


def _record_file(what: str, steps: int | None, given: dict[str, Any]) -> Trace:
    function = _function(what)
    takes = inspect.signature(function).parameters
    takes_any = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in takes.values())
    if steps is not None and "steps" in takes:
        given["steps"] = steps
    for name in given:
        if name not in takes and not takes_any:
            raise InputError(
                f"{name} is {given[name]!r}, but {what} takes no {name}; it takes {', '.join(takes) or 'nothing'}"
            )
    with _explained(what, "a function"):
        found = function(**given)
    trace = _recorded_as_returned(what, found, steps, given)
    return trace if steps is None or trace.options.get("steps") == steps else trace.with_steps(steps)


@contextmanager
def _libraries() -> Iterator[None]:
    """Attention libraries that are not installed, as far as a file's functions call them."""
    try:
        from simtti.workloads.attention_stand_ins import stood_in_for
    except ModuleNotFoundError:  # no torch: a file may return a trace all the same
        yield
        return
    with stood_in_for():
        yield


def is_function_of_file(what: object) -> bool:
    """Whether it is written as FILE.py:FUNCTION."""
    return isinstance(what, str) and what.rpartition(":")[0].endswith(".py")


def file_of(what: str | os.PathLike[str]) -> Path:
    """The path of FILE in FILE.py:FUNCTION, or of a trace file."""
    return Path(str(what).rpartition(":")[0] if is_function_of_file(what) else what)


def _recorded_as_returned(what: str, found: Any, steps: int | None, given: dict[str, Any]) -> Trace:
    if isinstance(found, Trace):
        return found
    first, *rest = found if isinstance(found, tuple) and found else (found,)
    keywords = rest.pop() if rest and isinstance(rest[-1], dict) else {}
    name = what.rpartition(":")[2]
    if is_pipeline(first):
        if rest:
            raise InputError(
                f"{what} returned a pipeline and {len(rest)} values; it may return (pipeline, dict)"
            )
        if steps is not None:
            keywords = {**keywords, "num_inference_steps": steps}
        return record_pipeline(first, name=name, **keywords)
    if not is_module(first):
        raise InputError(
            f"{what} returned a {type(first).__name__}; it must return a Trace, (module, *inputs) or a pipeline of diffusers'"
        )
    shape = {key: value for key, value in given.items() if key in ("batch", "height", "width", "frames")}
    return record_module(first, *rest, count=steps or 1, name=name, options=shape, **keywords)


def is_pipeline(thing: object) -> bool:
    """Whether it is a pipeline of diffusers'."""
    return any(kind.__name__ == "DiffusionPipeline" for kind in type(thing).__mro__)


def is_module(thing: object) -> bool:
    """Whether it is a module of torch's."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(thing, torch.nn.Module)


def _function(what: str) -> Any:
    file, _, name = what.rpartition(":")
    path = Path(file)
    if not name.isidentifier():
        raise InputError(f"{what}: say which function, as {path}:model")
    if not os.path.isfile(path):
        raise InputError(f"{what}: there is no file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    folder = str(path.parent.resolve())
    sys.path.insert(0, folder)  # what stands beside the file can be imported by it
    try:
        with _explained(str(path), "a file"):
            spec.loader.exec_module(module)
    finally:
        sys.path.remove(folder)
    function = getattr(module, name, None)
    if not callable(function):
        known = [
            each
            for each, value in vars(module).items()
            if inspect.isfunction(value) and value.__module__ == module.__name__
        ]
        raise unknown(f"function of {path}", name, known)
    return function


@contextmanager
def _explained(what: str, kind: str) -> Iterator[None]:
    """An exception of somebody else's code as one line that says whose it is."""
    try:
        yield
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # a script that ends itself is none that gave a trace
        said = (str(error).strip().splitlines() or [""])[0]
        hint = ""
        if isinstance(error, NotImplementedError) and "::" in str(error):
            hint = "; a custom operator needs a fake implementation: torch.library.register_fake"
        elif "data-dependent" in str(error) or "item() cannot be called on meta" in str(error):
            hint = "; on the meta device tensors have no values: what depends on one cannot be recorded"
        raise InputError(f"recording {what}, {kind}, failed: {type(error).__name__}: {said}{hint}") from error


def _dtype_of(module: Any) -> str | None:
    """The dtype of most of a module's weights."""
    if not is_module(module):
        return None
    from simtti.workloads.torch_calls import DTYPE_NAMES

    counts: dict[str, int] = {}
    for weight in module.parameters():
        name = DTYPE_NAMES.get(weight.dtype, "")
        counts[name] = counts.get(name, 0) + weight.numel()
    return max(counts, key=lambda name: counts[name]) if counts else None


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
