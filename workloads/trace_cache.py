"""Recordings, kept for the next time: a file for each workload and shape, shared by all processes of a user.

    kept("sdxl", options, lambda: record_workload("sdxl", **options))

A file is named after all that decides what is in it: the workload, its options, the versions of torch, diffusers and transformers, and
the code that records. So nothing is ever out of date: what other code or other versions left is not found, and `simtti cache --stale`
takes it away. A trace is written beside its place and moved there; who records it holds a lock, for which others that want the same
wait. A folder that cannot be written to costs the recording of each process anew, and nothing else.

The folder is $SIMTTI_CACHE, else $XDG_CACHE_HOME/simtti, else ~/.cache/simtti. Needs no torch.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from simtti.errors import InputError
from simtti.locks import give_up, hold
from simtti.workloads.trace import Trace
from simtti.workloads.trace_file import provenance_of

VARIABLE = "SIMTTI_CACHE"
_LIBRARIES = ("torch", "diffusers", "transformers")
_DIGITS = 16  # of a file's name: of what is in it, and of the code and versions


@dataclass(frozen=True)
class Kept:
    """A file of the cache. stale: recorded by other code, or with other versions, than those that would record it today."""

    path: Path
    workload: str
    options: dict[str, Any]
    nbytes: int
    stale: bool


def folder() -> Path:
    """Where traces are kept unless somebody says otherwise."""
    given = os.environ.get(VARIABLE)
    if given:
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "simtti"


def path_of(workload: str, options: Mapping[str, Any], place: Path | None = None) -> Path:
    """Where the trace of a workload with these options is, or would be, kept. place: another folder than the user's."""
    content = json.dumps([workload, dict(options)], sort_keys=True, default=str)
    digest = hashlib.sha256(content.encode()).hexdigest()[:_DIGITS]
    return (place or folder()) / f"{workload}-{digest}-{recorder_hash()}.parquet"


def kept(
    workload: str, options: Mapping[str, Any], record: Callable[[], Trace], place: Path | None = None
) -> Trace:
    """The trace that is kept, or what `record` gives, which is kept from then on.

    Raises:
        InputError: what `record` raises.
    """
    path = path_of(workload, options, place)
    found = _read(path)
    if found is not None:
        return found
    with _recording(path) as can_write:
        found = _read(path)  # by whom we waited for
        if found is None:
            found = record()
            if can_write:
                _write(found, path)
    return found


def entries(place: Path | None = None) -> list[Kept]:
    """What is kept, by workload; a file that is no trace is left out."""
    found = []
    for path in sorted((place or folder()).glob("*.parquet")):
        try:
            workload, options, _ = provenance_of(path)
            nbytes = path.stat().st_size
        except (InputError, OSError):
            continue
        stale = not path.stem.endswith(f"-{recorder_hash()}")
        found.append(Kept(path, workload, options, nbytes, stale))
    return found


def clear(place: Path | None = None, *, only_stale: bool = False) -> int:
    """Take away what is kept, or only what is stale; returns how many files.

    Raises:
        InputError: one cannot be taken away.
    """
    count = 0
    for path in (place or folder()).glob("*.parquet"):
        if only_stale and path.stem.endswith(f"-{recorder_hash()}"):
            continue
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"cannot remove {path}: {error.strerror or error}") from None
        count += 1
    return count


@functools.cache
def recorder_hash() -> str:
    """Of the code that records and of the libraries' versions."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    for library in _LIBRARIES:
        digest.update(f"{library} {_version(library)}".encode())
    return digest.hexdigest()[:_DIGITS]


def _version(library: str) -> str:
    """Without a build's suffix ('+cpu'), which changes no shape; '' where it is not installed."""
    try:
        return metadata.version(library).partition("+")[0]
    except metadata.PackageNotFoundError:
        return ""


def _read(path: Path) -> Trace | None:
    if not path.exists():
        return None
    try:
        return Trace.load(path)
    except InputError:  # damaged: it is recorded and written anew
        return None


def _write(trace: Trace, path: Path) -> None:
    try:
        trace.save(path)
    except InputError:  # a full disk, no permission: the trace is there all the same
        return


@contextmanager
def _recording(path: Path) -> Iterator[bool]:
    """Hold the trace at `path` for this process, waiting for another that records it; gives whether it can be written."""
    place = path.with_suffix(".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = hold(place)
    except OSError:
        lock = None
    try:
        yield lock is not None
    finally:
        if lock is not None:
            give_up(place, lock)
