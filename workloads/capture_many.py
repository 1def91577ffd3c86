"""Many captures on one GPU: recording and reading in several processes, the GPU for one at a time.

    jobs = [Job("sdxl"), Job("svd", attention="baseline"), Job("sdxl", (("height", 512), ("width", 512)))]
    for job, found in capture_many(jobs, Path("captures")):
        print(job.name, found)

Most of a capture is work for the host: imports, recording, reading profiles. Each has a process of its own, so that a CUDA error
or memory that stays behind spoils no other; a lock keeps the GPU for one of them from building its modules to letting go of
them. Captures are files as soon as they are done.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simtti import jobs as processes
from simtti.errors import InputError
from simtti.jobs import Failure
from simtti.locks import alone
from simtti.workloads.capture import LONGEST_S, capture, check_device, checked
from simtti.workloads.catalogue import WORKLOADS, Workload, find, register
from simtti.workloads.trace import Trace
from simtti.workloads.trace_file import provenance_of

# As many as keep a GPU busy: of 33 captures on an H200 the host's work was some five times the GPU's.
WORKERS = 6


@dataclass(frozen=True, slots=True)
class Job:
    """One capture to take. options: those given, of `record`, by name."""

    workload: str
    options: tuple[tuple[str, Any], ...] = ()
    attention: str = "flash"
    all_steps: bool = False
    launch: str = "eager"

    @property
    def name(self) -> str:
        """The file's."""
        shape = "_".join(f"{option}{value}" for option, value in self.options) or "default"
        how = [*([self.launch] if self.launch != "eager" else []), *(["all-steps"] if self.all_steps else [])]
        return f"{'_'.join([self.workload, shape, self.attention, *how])}.parquet"


@dataclass(frozen=True, slots=True)
class Captured:
    """What a capture came to. end_to_end: as in its trace's `timing`."""

    path: Path
    workload: str
    operators: int
    kernels: int
    end_to_end: dict[str, Any]


def captured(trace: Trace, path: Path) -> Captured:
    """What a timed trace that is kept at `path` came to."""
    timing = trace.timing
    assert timing is not None
    operators = sum(1 for _ in trace.operators())
    return Captured(path, trace.workload, operators, len(timing.kernels), timing.end_to_end)


def capture_many(
    jobs: Sequence[Job],
    folder: Path,
    *,
    device: str = "cuda",
    repeats: int = 5,
    longest_s: float = LONGEST_S,
    workers: int | None = None,
    end_s: float = math.inf,
    least_s: float = 0.0,
) -> Iterator[tuple[Job, Captured | Failure]]:
    """Take the captures side by side, each into `folder` under its job's name; they come out as they end.

    device, repeats, longest_s: as of `capture`. workers: processes at most; six, or as many as there are cores, if None.
    end_s, least_s: as of `jobs.in_own_processes`.

    Raises:
        InputError: a workload, option, device or attention that `capture` does not take, or no GPU, before any is taken.
    """
    for job in jobs:
        checked(find(job.workload), device, job.attention, repeats, dict(job.options), job.launch)
    if jobs and device == "cuda":
        check_device(device, jobs[0].workload)
    if workers is None:
        workers = min(WORKERS, processes.cores(None))
    with tempfile.TemporaryDirectory() as lock_folder:
        lock = Path(lock_folder, "gpu")
        how = {"device": device, "repeats": repeats, "longest_s": longest_s}
        arguments = {job: (job, find(job.workload), folder / job.name, lock, how) for job in jobs}
        yield from processes.in_own_processes(_capture_into, arguments, workers, end_s=end_s, least_s=least_s)


def _capture_into(job: Job, workload: Workload, path: Path, lock: Path, how: dict[str, Any]) -> Captured:
    """One of them, in a process of its own, which knows the workloads that ship only."""
    if workload.name not in WORKLOADS:
        register(workload)
    trace = capture(
        job.workload, attention=job.attention, all_steps=job.all_steps, launch=job.launch, alone=alone(lock),
        **how,
        **dict(job.options),
    )  # fmt: skip
    trace.save(path)
    return captured(trace, path)


def is_taken(job: Job, folder: Path, device: str) -> bool:
    """Whether the folder holds this capture, of the same options on the same kind of device."""
    try:
        workload, options, provenance = provenance_of(folder / job.name)
    except InputError:
        return False
    wanted = find(job.workload)
    return (
        (workload, options) == (wanted.name, wanted.options(**dict(job.options)).given())
        and provenance.get("attention") == job.attention
        and provenance.get("launch", "eager") == job.launch
        and provenance.get("device") == device
    )
