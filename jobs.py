"""Many jobs, side by side in processes of this machine; `journal` keeps those that are done.

Every command that does many things at once does them here, so that they behave alike. Ctrl-C, or an error of one job,
ends the workers at once; what is done by then is in the journal where there is one, and the same command goes on from
there. A worker that is killed takes no job with it: those it may have had are done again, after all others. A full disk
is an InputError that names the file. One job alone, or one worker, needs no process: it is done in this one. Jobs that may
spoil the process they are done in have one each (`in_own_processes`).
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait as wait_for
from typing import Any, TypeVar

from simtti.errors import InputError

K = TypeVar("K")
T = TypeVar("T")
Progress = Callable[[int, int], None]

# Deaths of workers without one job done in between, after which something must be wrong with the jobs.
MOST_DEATHS = 3
# Jobs handed out for each worker: one that it does and one that waits for it.
_AHEAD = 2


def cores(workers: int | None) -> int:
    """The number of workers asked for, as many as there are cores if None.

    Raises:
        InputError: less than 1.
    """
    if workers is not None and workers < 1:
        raise InputError(f"--workers is {workers}; it must be at least 1")
    return workers or os.cpu_count() or 1


class Pool:
    """Processes for jobs. `with Pool(workers) as pool:`; left by an error or by Ctrl-C, it ends them at once.

    workers: processes at most; as many as there are cores if None.

    Raises:
        InputError: workers is less than 1.
    """

    def __init__(self, workers: int | None = None) -> None:
        self.workers = cores(workers)
        self._executor: ProcessPoolExecutor | None = None
        self._size = 0
        self._not_ours: set[int | None] = set()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._end()
        elif self._executor is not None:
            self._executor.shutdown()

    def as_done(
        self, function: Callable[..., Any], jobs: Mapping[K, tuple[Any, ...]]
    ) -> Iterator[tuple[K, Any]]:
        """What `function` gives for the arguments of each job, as they end: (the job's key, the result).

        An exception of a job is raised here, with the worker's traceback.

        Raises:
            InputError: workers are killed again and again.
        """
        if self.workers == 1 or len(jobs) == 1:
            for key, arguments in jobs.items():
                yield key, function(*arguments)
            return
        queue = deque(jobs)
        flying: dict[Future[Any], K] = {}
        deaths = 0
        while queue or flying:
            is_broken = not self._hand_out(function, jobs, queue, flying)
            ended = wait(flying, return_when=FIRST_COMPLETED).done if flying else ()
            for future in ended:
                key = flying.pop(future)
                try:
                    found = future.result()
                except BrokenProcessPool:
                    is_broken = True
                    queue.append(key)
                    continue
                deaths = 0
                yield key, found
            if is_broken:
                deaths += 1
                if deaths > MOST_DEATHS:
                    raise InputError(f"workers were killed {deaths} times; is the memory enough?")
                queue.extend(flying.values())
                flying.clear()
                self._end()

    def _hand_out(
        self,
        function: Callable[..., Any],
        jobs: Mapping[K, tuple[Any, ...]],
        queue: deque[K],
        flying: dict[Future[Any], K],
    ) -> bool:
        """Hand out jobs from the queue as far as the workers want some; False if a worker has died meanwhile."""
        executor = self._processes(len(jobs))
        while queue and len(flying) < _AHEAD * self._size:
            try:
                flying[executor.submit(function, *jobs[queue[0]])] = queue[0]
            except BrokenProcessPool:
                return False
            queue.popleft()
        return True

    def _processes(self, jobs: int) -> ProcessPoolExecutor:
        """The workers, as many as jobs can use; they stay for the next jobs, and what they have loaded with them."""
        wanted = min(self.workers, jobs)
        if self._executor is not None and self._size < wanted:
            self._executor.shutdown()
            self._executor = None
        if self._executor is None:
            self._size = wanted
            self._not_ours = {process.pid for process in multiprocessing.active_children()}
            self._executor = ProcessPoolExecutor(wanted, initializer=_start_worker)
        return self._executor

    def _end(self) -> None:
        """End the workers in the midst of what they do."""
        if self._executor is None:
            return
        for process in multiprocessing.active_children():
            if process.pid not in self._not_ours:
                process.kill()  # one that has only just begun would tell of an interrupt, which is what SIGTERM is to the parent
        # One that is killed in the midst of a message leaves the executor's thread waiting for the rest of it, as this process could
        # write into the pipe too; at its end Python would wait for that thread.
        with contextlib.suppress(AttributeError, OSError):
            self._executor._result_queue._writer.close()  # type: ignore[attr-defined]
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._executor = None


def _start_worker() -> None:
    """Interrupts are the parent's; recording on the meta device has no use for threads."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in ("SIGTERM", "SIGHUP"):  # the parent's are made interrupts
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    os.environ["OMP_NUM_THREADS"] = "1"
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that is killed cannot end its workers: they end themselves."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job gave no result, in one line."""

    reason: str


def in_own_processes(
    function: Callable[..., T],
    jobs: Mapping[K, tuple[Any, ...]],
    workers: int | None = None,
    *,
    end_s: float = math.inf,
    least_s: float = 0.0,
) -> Iterator[tuple[K, T | Failure]]:
    """`function` for the arguments of each job, each in a fresh process that ends with it: (the job's key, what came out).

    For jobs that may spoil their process (a CUDA error, memory that stays behind): whatever becomes of one, an exception or a
    death, it alone fails. Ctrl-C, and leaving the iteration early, end the processes at once. function: of a module.

    end_s: when, by time.monotonic(), those under way are ended; neither they nor what has not begun come out. least_s: with less
    left none is begun.

    Raises:
        InputError: workers is less than 1.
    """
    most, queue = cores(workers), deque(jobs)
    context = multiprocessing.get_context("spawn")  # a forked process cannot use CUDA where its parent has
    running: dict[Any, tuple[K, Any]] = {}
    try:
        while queue or running:
            now = time.monotonic()
            if now >= end_s or (not running and end_s - now < least_s):
                return
            while queue and len(running) < most and end_s - now >= least_s:
                key = queue.popleft()
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_do_apart, args=(theirs, function, jobs[key]), daemon=True)
                process.start()
                theirs.close()  # so that a death shows here as the end of the pipe
                running[ours] = key, process
            for pipe in wait_for(list(running), timeout=None if end_s == math.inf else max(end_s - now, 0.0)):
                key, process = running.pop(pipe)
                yield key, _result(pipe, process)
    finally:
        for pipe, (_, process) in running.items():
            process.kill()
            process.join()
            pipe.close()


def _do_apart(pipe: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    _start_worker()
    try:
        found = function(*arguments)
    except InputError as error:
        found = Failure(str(error))
    except BaseException as error:  # the other jobs are none the worse
        found = Failure(f"{type(error).__name__}: {(str(error).splitlines() or ['no reason given'])[0]}")
    pipe.send(found)


def _result(pipe: Any, process: Any) -> Any:
    try:
        return pipe.recv()
    except EOFError:
        process.join()
        code = process.exitcode
        how = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        return Failure(f"its process ended early ({how}); is the memory enough?")
    finally:
        process.join()  # what it held is free before the next one begins
        pipe.close()


def in_chunks(
    function: Callable[..., Sequence[T]],
    items: Sequence[Any],
    *common: Any,
    size: int,
    workers: int | None = None,
    progress: Progress = lambda done, total: None,
    keep: Callable[[int, Sequence[T]], None] = lambda at, results: None,
) -> list[T]:
    """`function(chunk, *common)` over the items, `size` at a time, in order: a result an item.

    progress: called with (items done, items). keep: with each chunk's results as they come, and where in `items` it begins.
    """
    chunks = {at: items[at : at + size] for at in range(0, len(items), size)}
    found: dict[int, Sequence[T]] = {}
    done = 0
    with Pool(workers) as pool:
        jobs = {at: (chunk, *common) for at, chunk in chunks.items()}
        for at, results in pool.as_done(function, jobs):
            found[at] = results
            keep(at, results)
            done += len(chunks[at])
            progress(done, len(items))
    return [result for at in chunks for result in found[at]]
