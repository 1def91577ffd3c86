"""One inference of a Kineto file: one of its iterations, on one of its GPUs.

The profiler marks iterations as ProfilerStep#N. Files of several ranks merged into one count correlations anew in each: a launch
belongs to a kernel if the correlation is the same and the process is the one that drives the kernel's GPU.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from simtti.workloads.kineto_calls import Call
from simtti.workloads.trace import TimedKernel
from simtti.workloads.unpack import FileError

Gpu = tuple[str, int]
ALL = "all"
_FEW = 8  # numbers listed in a message


class HasProcess(Protocol):
    """A launch: when, by which process, and its place in the file."""

    @property
    def start(self) -> float: ...
    @property
    def process(self) -> str: ...
    @property
    def order(self) -> int: ...


L = TypeVar("L", bound=HasProcess)


@dataclass(slots=True)
class Launches(Generic[L]):
    """The host's launches by correlation, and which process drives which GPU. processes: those that launch at all."""

    processes: set[str] = field(default_factory=set)
    _of: dict[int, list[L]] = field(default_factory=dict)
    _driver: dict[Gpu, str] = field(default_factory=dict)

    def add(self, correlation: int, launch: L) -> None:
        self._of.setdefault(correlation, []).append(launch)
        self.processes.add(launch.process)

    def settle(self, kernels: Iterable[tuple[Gpu, int, float, int]]) -> None:
        """Find the process of each GPU from its kernels: (GPU, correlation, start, place in the file)."""
        if len(self.processes) < 2:
            return
        votes: dict[Gpu, dict[str, list[tuple[float, int]]]] = defaultdict(lambda: defaultdict(list))
        for gpu, correlation, start, order in kernels:
            for launch in self._of.get(correlation, ()):
                votes[gpu][launch.process].append((abs(start - launch.start), abs(order - launch.order)))
        if len(votes) < len({process for found in votes.values() for process in found}):
            return  # several processes on one GPU: each kernel has to find its own launch
        taken: set[str] = set()
        for gpu in sorted(votes):
            found = votes[gpu]

            def fit(process: str, found: dict[str, list[tuple[float, int]]] = found) -> tuple[Any, ...]:
                lags, places = zip(*found[process], strict=True)
                return process in taken, -len(lags), round(sum(lags), 3), sum(places), process

            self._driver[gpu] = min(found, key=fit)
            taken.add(self._driver[gpu])

    def process_of(self, gpu: Gpu) -> str | None:
        """The process that drives a GPU; None where that is not known."""
        if len(self.processes) == 1:
            return next(iter(self.processes))
        return self._driver.get(gpu)

    def of(self, gpu: Gpu, correlation: int, start: float, order: int) -> L | None:
        """The launch of a kernel."""
        found = self._of.get(correlation)
        if not found:
            return None
        driver = self._driver.get(gpu)
        mine = found if driver is None else [launch for launch in found if launch.process == driver]
        if len(mine) < 2:
            return mine[0] if mine else None
        # One process that counts anew, or several on one GPU: the nearest.
        return min(mine, key=lambda each: (abs(start - each.start), abs(order - each.order)))


class Iteration(NamedTuple):
    """A ProfilerStep: its number, its time on the host's clock in us, and the process that marked it."""

    number: int
    start_us: float
    end_us: float
    process: str


@dataclass(frozen=True)
class Part:
    """What was chosen of a file. Kernels name the calls by their row in `calls`. facts: for the trace's provenance."""

    calls: list[Call]
    kernels: tuple[TimedKernel, ...]
    remarks: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


def chosen(
    calls: list[Call],
    kernels: Sequence[TimedKernel],
    processes: Sequence[str | None],
    iterations: Sequence[Iteration],
    device: int | None,
    step: int | str | None,
) -> Part:
    """The iteration and the GPU asked for.

    processes: of each kernel, the process that launched it. device, step: see `kineto.import_kineto`.

    Raises:
        FileError: no such iteration or GPU, or several GPUs and none asked for.
    """
    remarks: list[str] = []
    facts: dict[str, Any] = {}
    keep_calls, keep_kernels = set(range(len(calls))), list(range(len(kernels)))
    gpus = _gpus(kernels, processes)
    if device is not None or len(gpus) > 1:
        number, process = _asked_for(gpus, device)
        keep_kernels = [
            at for at in keep_kernels if _gpu_of(kernels[at], processes[at], gpus) == (number, process)
        ]
        elsewhere = {kernels[at].operator for at in set(range(len(kernels))) - set(keep_kernels)}
        here = {kernels[at].operator for at in keep_kernels}
        keep_calls = {
            row
            for row in keep_calls
            if (process is None or calls[row].process == process) and (row in here or row not in elsewhere)
        }
        iterations = [each for each in iterations if process in (None, each.process)]
        facts["device"] = device if device is not None else number
    iterations = sorted(set(iterations), key=lambda each: each.start_us)
    numbers = sorted({each.number for each in iterations})
    if step is not None and step != ALL and step not in numbers:
        has = f"steps {_listed(numbers)}" if numbers else "no ProfilerStep"
        raise FileError(f"has no ProfilerStep {step}: it has {has}")
    if len(numbers) > 1 and step == ALL:
        remarks.append(f"all {len(numbers)} ProfilerSteps of the file count as one inference")
        facts |= {"profiler_steps": len(numbers), "profiler_step": ALL}
    elif numbers and step != ALL and (step is not None or len(numbers) > 1):
        within = _by_iteration(kernels, keep_kernels, calls, keep_calls, iterations)
        number = int(step) if step is not None else _usual(within, numbers)
        keep_kernels = [at for at, of in within[0].items() if of == number]
        keep_calls = {row for row, of in within[1].items() if of == number}
        if len(numbers) > 1:
            facts |= {"profiler_steps": len(numbers), "profiler_step": number}
            remarks.append(
                f"the file holds {len(numbers)} ProfilerSteps ({_listed(numbers)}); this is step {number}"
                + ("" if step is not None else " (another by --profiler-step, or all)")
            )
    return _part(calls, kernels, sorted(keep_calls), keep_kernels, remarks, facts)


def _part(
    calls: list[Call],
    kernels: Sequence[TimedKernel],
    rows: list[int],
    kept: list[int],
    remarks: list[str],
    facts: dict[str, Any],
) -> Part:
    if len(rows) == len(calls) and len(kept) == len(kernels):
        return Part(calls, tuple(kernels), remarks, facts)
    new = {row: at for at, row in enumerate(rows)}
    first = min(
        [calls[row].start_us for row in rows]
        + [kernels[at].start_us for at in kept]
        + [launched for at in kept if (launched := kernels[at].launch_us) is not None],
        default=0.0,
    )
    shifted = [replace(calls[row], start_us=round(calls[row].start_us - first, 3)) for row in rows]
    timed = []
    for at in kept:
        kernel = kernels[at]
        launched = kernel.launch_us
        timed.append(
            replace(
                kernel,
                start_us=round(kernel.start_us - first, 3),
                launch_us=None if launched is None else round(launched - first, 3),
                operator=None if kernel.operator is None else new.get(kernel.operator),
            )
        )
    return Part(shifted, tuple(timed), remarks, facts)


def _gpus(kernels: Sequence[TimedKernel], processes: Sequence[str | None]) -> list[tuple[int, str | None]]:
    """The GPUs of a file: each a number and the process that drives it, None where that is not known."""
    found = Counter((kernel.device, process) for kernel, process in zip(kernels, processes, strict=True))
    known = {number for number, process in found if process is not None}
    return sorted(
        (gpu for gpu in found if gpu[1] is not None or gpu[0] not in known),
        key=lambda gpu: (gpu[0], len(gpu[1] or ""), gpu[1] or ""),
    )


def _gpu_of(
    kernel: TimedKernel, process: str | None, gpus: Sequence[tuple[int, str | None]]
) -> tuple[int, str | None]:
    own = (kernel.device, process)
    return own if own in gpus else next(gpu for gpu in gpus if gpu[0] == kernel.device)


def _asked_for(gpus: list[tuple[int, str | None]], device: int | None) -> tuple[int, str | None]:
    """The GPU of that number: Kineto's; or, where several processes each call theirs the same, counted from 0."""
    unique = len({number for number, _ in gpus}) == len(gpus)
    numbers = [number for number, _ in gpus] if unique else list(range(len(gpus)))
    if device is None:
        of = "GPUs" if unique else "ranks, each with a GPU of its own"
        raise FileError(
            f"holds the kernels of {len(gpus)} {of} ({_listed(numbers)}); a trace is one's: say which with --device"
        )
    if device not in numbers:
        raise FileError(f"has no kernels of GPU {device}: it has those of {_listed(numbers) or 'none'}")
    return gpus[numbers.index(device)]


_Within = tuple[dict[int, int | None], dict[int, int | None]]


def _by_iteration(
    kernels: Sequence[TimedKernel],
    kept: Sequence[int],
    calls: Sequence[Call],
    rows: Iterable[int],
    iterations: Sequence[Iteration],
) -> _Within:
    """Of each kernel and of each call, the number of the iteration in which it was launched; None outside of all."""
    starts = [each.start_us for each in iterations]

    def at(time_us: float) -> int | None:
        place = bisect_right(starts, time_us) - 1
        inside = place >= 0 and time_us < iterations[place].end_us
        return iterations[place].number if inside else None

    of_calls = {row: at(calls[row].start_us) for row in rows}
    of_kernels: dict[int, int | None] = {}
    for number in kept:
        kernel = kernels[number]
        if kernel.operator in of_calls:
            of_kernels[number] = of_calls[kernel.operator]
        else:
            of_kernels[number] = at(kernel.start_us if kernel.launch_us is None else kernel.launch_us)
    return of_kernels, of_calls


def _usual(within: _Within, numbers: Sequence[int]) -> int:
    """The last of the iterations with as many kernels as most have (or calls, where there are no kernels)."""
    found = within[0] or within[1]
    counts = Counter(number for number in found.values() if number is not None)
    sizes = Counter(counts[number] for number in numbers if counts[number])
    if not sizes:
        return numbers[-1]
    usual = max(sizes, key=lambda size: (sizes[size], size))
    return max(number for number in numbers if counts[number] == usual)


def _listed(numbers: Sequence[int]) -> str:
    few = ", ".join(map(str, numbers[:_FEW]))
    return few + (f", ... {numbers[-1]}" if len(numbers) > _FEW else "")
