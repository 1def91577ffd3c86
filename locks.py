"""Files that one process holds at a time. What a process holds is free as soon as it ends, however it ends."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import BaseFileLock

_POLL_S = 0.005


def hold(path: Path, *, wait: bool = True) -> BaseFileLock | None:
    """Hold the file at `path`, made if need be, until its `release` is called or the process ends; what is in it is nobody's.

    wait: for another process that holds it; without, None then.

    Raises:
        OSError: it cannot be written.
    """
    import filelock

    lock = filelock.FileLock(str(path))
    try:
        lock.acquire(poll_interval=_POLL_S, blocking=wait)
    except filelock.Timeout:
        return None
    return lock


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold a file, waiting for another process that holds it.

    Raises:
        OSError: it cannot be written.
    """
    lock = hold(path)
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def give_up(path: Path, lock: BaseFileLock) -> None:
    """Take away a file that this process holds, and release it."""
    if sys.platform == "win32":  # which keeps what is open
        lock.release()
    with suppress(OSError):
        path.unlink(missing_ok=True)
    lock.release()
