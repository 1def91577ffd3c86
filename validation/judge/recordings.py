"""Traces of measured runs, recorded once and kept in a folder: what comes after costs the simulation only."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import simtti.workloads
from simtti.errors import InputError
from simtti.jobs import Pool
from simtti.workloads.catalogue import find
from simtti.workloads.record import workload_trace

Options = dict[str, Any]
# The options of `run` that a trace holds.
SHAPE = ("batch", "steps", "height", "width", "frames", "prompt_tokens", "dtype")


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
        trace = workload_trace(options["workload"], **_shape(options))
    except InputError:
        return
    trace.save(path)


def _path(options: Options, folder: Path) -> Path | None:
    """Where the trace of a run is kept, named after all that decides what is in it; None if there is no such run."""
    try:
        workload = find(options["workload"])
        wanted = workload.options(**_shape(options)).given()
    except InputError:
        return None
    digest = hashlib.sha256(json.dumps([wanted, _recorder_hash()], sort_keys=True).encode()).hexdigest()
    return folder / f"{workload.name}-{digest[:12]}.parquet"


def _shape(options: Options) -> Options:
    return {name: value for name, value in options.items() if name in SHAPE}


@functools.cache
def _recorder_hash() -> str:
    """Of the code that records: another version's traces are not taken."""
    digest = hashlib.sha256()
    for path in sorted(Path(simtti.workloads.__path__[0]).rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
