"""Traces of measured runs, recorded side by side and kept (`workloads.trace_cache`): what comes after costs the simulation only."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from simtti.errors import InputError
from simtti.jobs import Pool
from simtti.workloads import trace_cache
from simtti.workloads.catalogue import find
from simtti.workloads.record import workload_trace

Options = dict[str, Any]
# The options of `run` that a trace holds.
SHAPE = ("batch", "steps", "height", "width", "frames", "prompt_tokens", "dtype", "vae")


def record_all(
    runs: Iterable[Options],
    folder: Path,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Record the trace of each run (options of `simtti run`) that is not in `folder` yet.

    A run that cannot be recorded (no such workload, no torch) is passed over: simulating it says why.

    Raises:
        InputError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = {path: options for options in runs if (path := _path(options, folder)) is not None}
    todo = {path: (path, options) for path, options in paths.items() if not path.exists()}
    done = len(paths) - len(todo)
    progress(done, len(paths))
    with Pool(workers) as pool:
        for _ in pool.as_done(_record, todo):
            done += 1
            progress(done, len(paths))


def with_trace(options: Options, folder: Path | None) -> Options:
    """The options of `simtti run` with the trace that `folder` holds in place of the shape, or as they are."""
    path = _path(options, folder) if folder else None
    if path is None or not path.exists():
        return options
    return {name: value for name, value in options.items() if name not in SHAPE} | {"trace": str(path)}


def _record(path: Path, options: Options) -> None:
    try:
        trace = workload_trace(options["workload"], kept_in=path.parent, **_shape(options))
    except InputError:
        return
    if not path.exists():  # one that ships
        trace.save(path)


def _path(options: Options, folder: Path) -> Path | None:
    """Where the trace of a run is kept; None if there is no such run."""
    try:
        workload = find(options["workload"])
        wanted = workload.options(**_shape(options)).given()
    except InputError:
        return None
    return trace_cache.path_of(workload.name, wanted, folder)


def _shape(options: Options) -> Options:
    return {name: value for name, value in options.items() if name in SHAPE}
