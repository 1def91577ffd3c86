"""Where designs are evaluated: processes of this machine, a Ray cluster, a Dask cluster. One function each.

An engine takes tasks and yields (index of the task, its figures) as they come. Each may lose a worker: its tasks are done
again by another. A task twice done gives the same figures, so nothing is lost and nothing doubled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from simtti.errors import InputError, library
from simtti.explore.evaluate import evaluate_many
from simtti.jobs import Pool, cores
from simtti.simulator.engine.simulation import MOST_SIDE_BY_SIDE

# A spec, the values of a design, and whether its limits are asked for.
Task = tuple[str, dict[str, float], bool]
Engine = Callable[[Sequence[Task]], Iterator[tuple[int, dict[str, Any]]]]

_MOST_DEATHS = 20  # of workers of a cluster with one chunk, until something must be wrong with it


def _evaluate_chunk(chunk: list[tuple[int, Task]]) -> list[tuple[int, dict[str, Any]]]:
    """Tasks of one spec, those that want the same of it side by side."""
    found: dict[int, dict[str, Any]] = {}
    alike: dict[tuple[str, bool], list[tuple[int, dict[str, float]]]] = {}
    for index, (spec, values, with_limits) in chunk:
        alike.setdefault((spec, with_limits), []).append((index, values))
    for (spec, with_limits), own in alike.items():
        indices, each = zip(*own, strict=True)
        found.update(zip(indices, evaluate_many(spec, each, with_limits), strict=True))
    return list(found.items())


def _chunks(tasks: Sequence[Task], workers: int) -> list[list[tuple[int, Task]]]:
    """Tasks that go to a worker at once: fewer where there are few for each."""
    size = max(1, min(MOST_SIDE_BY_SIDE, len(tasks) // workers))
    numbered = list(enumerate(tasks))
    return [numbered[at : at + size] for at in range(0, len(tasks), size)]


@contextmanager
def local(workers: int | None) -> Iterator[Engine]:
    """Processes of this machine; this process itself with 1."""
    with Pool(workers) as pool:

        def run(tasks: Sequence[Task]) -> Iterator[tuple[int, dict[str, Any]]]:
            chunks = _chunks(tasks, pool.workers)
            for _, found in pool.as_done(_evaluate_chunk, {at: (chunk,) for at, chunk in enumerate(chunks)}):
                yield from found

        yield run


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
        waiting = [remote.remote(chunk) for chunk in _chunks(tasks, cores)]
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
                for chunk in _chunks(tasks, cores)
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
    if name == "local":
        return local(workers)
    if name in ("ray", "dask"):
        return (ray if name == "ray" else dask)(address, cores(workers))
    raise InputError(f"engine is {name!r}; it must be one of local, ray, dask")
