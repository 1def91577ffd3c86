"""The trace of a workload: the shipped one where it fits, else recorded on the spot, which needs torch."""

import importlib
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from simtti.errors import InputError
from simtti.workloads.catalogue import Options, Workload, find
from simtti.workloads.recording import Recording
from simtti.workloads.trace import Trace

TRACES = Path(__file__).parent / "traces" / "recorded"
_LIBRARIES = ("torch", "diffusers", "transformers")


def workload_trace(name: str, **options: Any) -> Trace:
    """The trace of a workload with the options of `record`.

    The default shape is shipped, for any number of steps; another one is recorded.
    """
    workload = find(name)
    wanted = workload.options(**options).given()
    path = shipped(workload)
    if _but_steps(wanted) == _but_steps(workload.defaults.given()) and path.exists():
        trace = Trace.load(path)
        if trace.options == wanted:
            return trace
        if trace.schedule:  # else its steps differ one from another, and are recorded anew
            return trace.with_steps(wanted["steps"])
    return record(name, **options)


def shipped(workload: Workload) -> Path:
    """Where the trace of the default shape is kept."""
    return TRACES / f"{workload.name}.parquet"


def _but_steps(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name != "steps"}


def record(
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
    )  # fmt: skip


def recorded(
    builder: Callable[[Any, Recording], None],
    asked: Any,
    *,
    what: str,
    name: str,
    options: dict[str, Any],
    all_steps: bool = False,
) -> Trace:
    """The trace of what `builder` does when called with what is asked for and a recorder.

    what: is said of it when torch is missing. name, options: the trace's.

    Raises:
        InputError: torch or a library beside it is not there.
    """
    with quiet():
        versions = _import_libraries(what)
        from simtti.workloads.recorder import Recorder

        recorder = Recorder(all_steps=all_steps)
        builder(asked, recorder)
    return Trace(
        workload=name,
        options=options,
        phases=recorder.phases(),
        parameters=recorder.parameters,
        parameter_bytes=recorder.parameter_bytes,
        provenance={"kind": "recorded", **versions, **recorder.notes, "libraries": recorder.libraries},
        schedule=recorder.schedule,
    )


def _import_libraries(what: str) -> dict[str, str]:
    """The version of each library recording needs, without a build's suffix ('+cpu'), which changes no shape."""
    versions = {}
    for library in _LIBRARIES:
        try:
            version = importlib.import_module(library).__version__
        except ImportError as error:
            problem = (
                "is not installed"
                if getattr(error, "name", None) == library
                else f"cannot be imported ({error})"
            )
            raise InputError(
                f"recording {what} needs {library}, which {problem}; run: pip install 'simtti[torch]'"
            ) from None
        versions[library] = version.partition("+")[0]
    return versions


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
