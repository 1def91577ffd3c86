"""The trace of a workload: the shipped one where it fits, else recorded on the spot, which needs torch."""

import importlib
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from simtti.errors import InputError
from simtti.workloads import models, own, shapes, trace_cache
from simtti.workloads.catalogue import Options, Workload, find
from simtti.workloads.named import is_file, trace_of_file
from simtti.workloads.recording import Recording
from simtti.workloads.trace import Trace

TRACES = Path(__file__).parent / "traces" / "recorded"
# What recording needs: the oldest release of each that setup.cfg allows, and the newest that it was tried with.
RELEASES = {
    "torch": ("2.5", "2.13.0"),
    "diffusers": ("0.38", "0.42.1"),
    "transformers": ("5.6", "5.24.0"),
}


def workload_trace(name: str, *, kept_in: Path | None = None, **options: Any) -> Trace:
    """The trace of a workload with the options of `record`, or of the file that stands in its place.

    The default shape is shipped, for any number of steps; another one is recorded, once: see `trace_cache`.
    kept_in: the folder that keeps what is recorded; the user's if None.
    """
    if is_file(name):
        return trace_of_file(name, **options)
    workload = find(name)
    wanted = workload.options(**options).given()
    found = _shipped_with(workload, wanted)
    if found is not None:
        return found
    if not (getattr(workload.builder, "__module__", None) or "").startswith(f"{models.__name__}."):
        return record_workload(name, **options)  # by code that may be another tomorrow
    return trace_cache.kept(workload.name, wanted, lambda: record_workload(name, **options), kept_in)


def _shipped_with(workload: Workload, wanted: dict[str, Any]) -> Trace | None:
    """The shipped trace with these options, where it can be had from what ships: with other steps, at another shape.

    None where its steps differ one from another, and where what happens at another shape is not known: those are recorded.
    """
    path = shipped(workload)
    if not path.exists():
        return None
    defaults = workload.defaults.given()
    at_default_steps = {**wanted, **{name: value for name, value in defaults.items() if name == "steps"}}
    trace = Trace.load(path)
    if at_default_steps != defaults:
        scope = next((one for one in shipped_scopes(workload) if one.admits(at_default_steps)), None)
        if scope is None:
            return None
        default, trace = trace, scope.trace(trace, at_default_steps)
        if trace.options != wanted and _counts(trace) != _counts(default):
            return (
                None  # a loop that is run several times: what so many steps are here, only a recording says
            )
    if trace.options == wanted:
        return trace
    return trace.with_steps(wanted["steps"], workload.turns) if trace.schedule else None


def _counts(trace: Trace) -> list[list[int]]:
    """Of the phases that the option `steps` stretches, how often each step is run."""
    return [[step.count for step in phase.steps] for phase in trace.phases if phase.name in trace.schedule]


def shipped_scopes(workload: Workload) -> tuple[shapes.Scope, ...]:
    """The shapes, beside the default one, whose traces follow from what ships."""
    path = shipped(workload)
    beside = shapes.path_beside(path)
    if not path.exists() or not beside.exists():
        return ()
    return shapes.Shapes.load(beside).made_for(path)


def shipped(workload: Workload) -> Path:
    """Where the trace of the default shape is kept."""
    return TRACES / f"{workload.name}.parquet"


def record(what: Any, /, *inputs: Any, **options: Any) -> Trace:
    """Record what a workload, a module of your own or a pipeline of diffusers' does, on torch's meta device.

        record("sdxl", height=768)                        # a workload's name: options of record_workload
        record(module, latents, timestep, count=50)       # a torch.nn.Module and its inputs: see own.record_module
        record(pipe, prompt="a photo", height=512)        # a pipeline and its call's arguments: see own.record_pipeline
        record("mine.py:model", steps=30)                 # what a function in a file returns: see own.record_file

    Raises:
        InputError: it cannot be recorded; torch is missing.
    """
    if not isinstance(what, str):
        return (
            own.record_pipeline(what, **options)
            if own.is_pipeline(what) and not inputs
            else own.record_module(what, *inputs, **options)
        )
    if inputs:
        raise InputError(f"{what} is a name; it takes options by their names only, as height=512")
    if own.is_function_of_file(what):
        return own.record_file(what, **options)
    return record_workload(what, **options)


def record_workload(
    name: str,
    *,
    height: int | None = None,
    width: int | None = None,
    batch: int | None = None,
    steps: int | None = None,
    frames: int | None = None,
    dtype: str | None = None,
    guidance: float | None = None,
    prompt_tokens: int | None = None,
    strength: float | None = None,
    vae: str | None = None,
    all_steps: bool = False,
) -> Trace:
    """Run a workload's real modules on torch's meta device and return what they did. None means the default.

    vae: how the decoder goes about it, one of workload.VAE_MODES: 'whole', 'tiled', 'sliced', 'tiled-sliced'.

    all_steps: store each step on its own, in the order in which they run, instead of one of those that are alike with
    its count. Steps that do the same share their operands.
    """
    workload = find(name)
    options = workload.options(
        height=height,
        width=width,
        batch=batch,
        steps=steps,
        frames=frames,
        dtype=dtype,
        guidance=guidance,
        prompt_tokens=prompt_tokens,
        strength=strength,
        vae=vae,
    )
    return recorded(
        workload.builder, options, what=f"{workload.name} ({_spelled(options)})", name=workload.name,
        options=options.given(), all_steps=all_steps,
        otherwise=f"; shapes that need none: simtti workloads {workload.name}",
    )  # fmt: skip


def recorded(
    builder: Callable[[Any, Recording], None],
    asked: Any,
    *,
    what: str,
    name: str,
    options: dict[str, Any],
    all_steps: bool = False,
    libraries: tuple[str, ...] = tuple(RELEASES),
    otherwise: str = "",
) -> Trace:
    """The trace of what `builder` does when called with what is asked for and a recorder.

    what: is said of it when torch is missing. name, options: the trace's; options may be filled by the builder. libraries: that it
    needs. otherwise: what else can be done where one is missing.

    Raises:
        InputError: torch or a library beside it is not there, or of a release that is not known, and the recording failed.
    """
    with quiet():
        versions = _import_libraries(what, libraries, otherwise)
        try:
            from simtti.workloads.meta_results import MetaResults
            from simtti.workloads.recorder import Recorder

            recorder = Recorder(all_steps=all_steps)
            with MetaResults():
                builder(asked, recorder)
        except (TypeError, AttributeError, ImportError, LookupError, ValueError, RuntimeError) as error:
            # What a renamed module, argument or result raises.
            strange = [name for name, version in versions.items() if not is_known(name, version)]
            if not strange:
                raise
            raise _unknown_release(what, versions, strange, error) from error
    return Trace(
        workload=name,
        options=options,
        phases=recorder.phases(),
        parameters=recorder.parameters,
        parameter_bytes=recorder.parameter_bytes,
        provenance={"kind": "recorded", **versions, **recorder.notes, "libraries": recorder.libraries},
        schedule=recorder.schedule,
    )


def _import_libraries(what: str, libraries: tuple[str, ...], otherwise: str) -> dict[str, str]:
    """The version of each library recording needs, without a build's suffix ('+cpu'), which changes no shape."""
    versions = {}
    for library in libraries:
        try:
            version = importlib.import_module(library).__version__
        except ImportError as error:
            problem = (
                "is not installed"
                if getattr(error, "name", None) == library
                else f"cannot be imported ({error})"
            )
            raise InputError(
                f"recording {what} needs {library}, which {problem}; run: pip install 'simtti[torch]'{otherwise}"
            ) from None
        versions[library] = version.partition("+")[0]
    return versions


def is_known(library: str, version: str) -> bool:
    """Whether a release lies within those that recording is known to work with."""

    def numbers(text: str) -> list[int]:
        return [int(each) for each in re.findall(r"\d+", text)[:3]]

    oldest, newest = RELEASES[library]
    return numbers(oldest) <= numbers(version) <= numbers(newest)


def _unknown_release(what: str, versions: dict[str, str], strange: list[str], error: Exception) -> InputError:
    found = ", ".join(f"{name} {versions[name]}" for name in strange)
    mend = " ".join(f"'{name}>={RELEASES[name][0]},<={RELEASES[name][1]}'" for name in strange)
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return InputError(
        f"recording {what} failed with {found}, which simtti does not know ({reason}); run: pip install {mend}"
    )


def _spelled(options: Options) -> str:
    return ", ".join(f"{name} {value}" for name, value in options.given().items())


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries' warnings and log messages off the terminal."""
    disabled = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        try:
            yield
        finally:
            logging.disable(disabled)
