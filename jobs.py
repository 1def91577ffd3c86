"""Jobs side by side, in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, TypeVar

K = TypeVar("K")


def as_done(
    function: Callable[..., Any], jobs: Mapping[K, tuple[Any, ...]], workers: int | None = None
) -> Iterator[tuple[K, Any]]:
    """What `function` gives for the arguments of each job, as they end: (the job's key, the result).

    workers: processes; as many as there are cores if not given. Ctrl-C, or an error, ends them at once.
    """
    if not jobs:
        return
    count = max(1, min(workers or os.cpu_count() or 1, len(jobs)))
    pool = ProcessPoolExecutor(count, initializer=_start_worker)
    try:
        futures = {pool.submit(function, *arguments): key for key, arguments in jobs.items()}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BaseException:
        for worker in multiprocessing.active_children():
            worker.terminate()
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def _start_worker() -> None:
    """Interrupts are the parent's; recording on the meta device has no use for threads."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["OMP_NUM_THREADS"] = "1"
