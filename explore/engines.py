"""Where designs are evaluated: processes of this machine, a Ray cluster, a Dask cluster. One function each.

An engine takes tasks and yields (index of the task, its figures) as they come. Each may lose a worker: its tasks are done
again by another. A task twice done gives the same figures, so nothing is lost and nothing doubled.
"""

from __future__ import annotations

import importlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from simtti.errors import InputError
from simtti.explore.evaluate import evaluate

Task = tuple[str, dict[str, float], bool]  # the arguments of `evaluate`
Engine = Callable[[Sequence[Task]], Iterator[tuple[int, dict[str, Any]]]]

_CHUNK = 4  # tasks that go to a worker at once
_MOST_DEATHS = 20  # of workers, until something must be wrong with the tasks


def _evaluate_chunk(chunk: list[tuple[int, Task]]) -> list[tuple[int, dict[str, Any]]]:
    return [(index, evaluate(*task)) for index, task in chunk]


def _chunks(tasks: Sequence[Task], left: Sequence[int], workers: int) -> list[list[tuple[int, Task]]]:
    """Tasks that go to a worker at once: fewer where there are few for each."""
    size = max(1, min(_CHUNK, len(left) // (4 * workers)))
    return [[(i, tasks[i]) for i in left[at : at + size]] for at in range(0, len(left), size)]


@contextmanager
def local(workers: int) -> Iterator[Engine]:
    """Processes of this machine, through joblib; this process itself with 1."""

    def alone(tasks: Sequence[Task]) -> Iterator[tuple[int, dict[str, Any]]]:
        return ((index, evaluate(*task)) for index, task in enumerate(tasks))

    if workers == 1:
        yield alone
        return
    joblib = library("joblib", "explore")
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    def run(tasks: Sequence[Task]) -> Iterator[tuple[int, dict[str, Any]]]:
        left, deaths = dict.fromkeys(range(len(tasks))), 0
        while left:
            chunks = _chunks(tasks, list(left), workers)
            pool = joblib.Parallel(workers, return_as="generator_unordered", pre_dispatch="3*n_jobs")
            try:
                for done in pool(joblib.delayed(_evaluate_ignoring_interrupts)(chunk) for chunk in chunks):
                    for index, figures in done:
                        del left[index]
                        yield index, figures
            except TerminatedWorkerError:
                deaths += 1
                if deaths > _MOST_DEATHS:
                    raise InputError(f"workers were killed {deaths} times; is the memory enough?") from None

    yield run


def _evaluate_ignoring_interrupts(chunk: list[tuple[int, Task]]) -> list[tuple[int, dict[str, Any]]]:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    return _evaluate_chunk(chunk)


@contextmanager
def ray(address: str | None, workers: int) -> Iterator[Engine]:
    """A Ray cluster: the one at `address` ('auto' finds it), or one of this machine with `workers` workers."""
    module = library("ray", "ray")
    started = not module.is_initialized()
    if started:
        how: dict[str, Any] = {"address": address} if address else {"num_cpus": workers}
        module.init(include_dashboard=False, log_to_driver=False, logging_level="error", **how)
    # A worker that dies is no fault of the task's: Ray runs it again elsewhere.
    remote = module.remote(max_retries=_MOST_DEATHS)(_evaluate_chunk)

    def run(tasks: Sequence[Task]) -> Iterator[tuple[int, dict[str, Any]]]:
        cores = max(1, int(module.cluster_resources().get("CPU", 1)))
        waiting = [remote.remote(chunk) for chunk in _chunks(tasks, range(len(tasks)), cores)]
        while waiting:
            done, waiting = module.wait(waiting)
            for item in done:
                yield from module.get(item)

    try:
        yield run
    finally:
        if started:
            module.shutdown()


@contextmanager
def dask(address: str | None, workers: int) -> Iterator[Engine]:
    """A Dask cluster: the scheduler at `address`, or one of this machine with `workers` workers."""
    module = library("distributed", "dask")
    how: dict[str, Any] = (
        {"address": address}
        if address
        else {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None}
    )
    with module.Client(**how) as client:

        def run(tasks: Sequence[Task]) -> Iterator[tuple[int, dict[str, Any]]]:
            cores = max(1, sum(client.ncores().values()))
            futures = [
                client.submit(_evaluate_chunk, chunk, pure=False, retries=_MOST_DEATHS)
                for chunk in _chunks(tasks, range(len(tasks)), cores)
            ]
            for future in module.as_completed(futures):
                yield from future.result()

        yield run


def engine(
    name: str, workers: int | None = None, address: str | None = None
) -> AbstractContextManager[Engine]:
    """The engine called `name`: local, ray or dask.

    Raises:
        InputError: another name; when it is entered, that its library is not installed.
    """
    count = workers or os.cpu_count() or 1
    if count < 1:
        raise InputError(f"--workers is {count}; it must be at least 1")
    if name == "local":
        return local(count)
    if name in ("ray", "dask"):
        return (ray if name == "ray" else dask)(address, count)
    raise InputError(f"engine is {name!r}; it must be one of local, ray, dask")


def library(module: str, extra: str) -> Any:
    """An optional library, or the command that installs it.

    Raises:
        InputError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise InputError(
            f"this needs {module}, which is not installed; run: pip install 'simtti[{extra}]'"
        ) from None
