"""A workload's builder on a real device: each step runs under a watch, which times or profiles it.

    run = DeviceRun("cuda", timed)
    workload.builder(options, run)
    run.done[1].seconds

Nothing of ours stands between the model and torch while a step runs: no mode, no hook. Importable without torch.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simtti.workloads.kineto import Profile, read_kineto
from simtti.workloads.recording import Recording
from simtti.workloads.trace import Step


@dataclass
class StepRun:
    """One step of one run of the builder. A profile is there only in the run that the profiler watched."""

    phase: str
    count: int
    seconds: float = 0.0
    host_seconds: float = 0.0
    profile: Profile | None = None


# Is entered with the step and the device (a torch.device), writes into the step what it saw.
Watch = Callable[[StepRun, Any], AbstractContextManager[None]]


class DeviceRun(Recording):
    """Runs steps where they are to run, and keeps what the watch saw of each in `done`.

    Where every step is wanted, each is run, on what the one before left.
    """

    def __init__(self, device: str, watch: Watch, *, all_steps: bool = False) -> None:
        super().__init__(device, all_steps=all_steps, reruns=all_steps)
        self.watch = watch
        self.done: list[StepRun] = []
        self.peak_memory_bytes = 0

    @contextmanager
    def step(self, phase: str, *, domain: str, count: int = 1, continued: bool = False) -> Iterator[None]:
        import torch

        started = StepRun(phase, count)
        steps = self._phases.setdefault(phase, [])
        with torch.no_grad(), self.watch(started, self.device):
            yield
        steps.append(Step(count, ()))
        self.done.append(started)

    def register(self, name: str, module: Any) -> None:
        pass

    def scope(self, name: str) -> AbstractContextManager[None]:
        return nullcontext()

    def enter_scope(self, name: str) -> None:
        pass

    def paused(self) -> AbstractContextManager[None]:
        return nullcontext()

    def on_device(self, tensor: Any) -> Any:
        return tensor.to(self.device)

    def copy_to_host(self, tensor: Any) -> None:
        tensor.to("cpu", copy=True)


# ---- watches


def unwatched(step: StepRun, place: Any) -> AbstractContextManager[None]:
    """Only run it."""
    return nullcontext()


@contextmanager
def timed(step: StepRun, place: Any) -> Iterator[None]:
    """Time a step without a profiler: on a GPU from event to event on its stream, and how long the host took."""
    import torch

    if place.type == "cuda":
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        start = time.perf_counter()
        begin.record()
        yield
        end.record()
        step.host_seconds = time.perf_counter() - start
        end.synchronize()
        step.seconds = begin.elapsed_time(end) / 1e3
    else:
        start = time.perf_counter()
        yield
        step.seconds = step.host_seconds = time.perf_counter() - start


@contextmanager
def profiled(step: StepRun, place: Any) -> Iterator[None]:
    """Put the step under a profiler of its own."""
    import torch

    if place.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    with torch_profiler(place) as profiler:
        yield
        if place.type == "cuda":
            torch.cuda.synchronize()
        step.seconds = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "profile.json")
        profiler.export_chrome_trace(str(path))
        step.profile = read_kineto(path, may_be_empty=True)
    for call in step.profile.calls:
        call.arguments = {}  # the recording has them; of hundreds of steps they would fill the memory


def torch_profiler(device: Any) -> Any:
    """torch's profiler of a device, with the shapes of arguments."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    activities = [
        ProfilerActivity.CPU,
        *([ProfilerActivity.CUDA] if torch.device(device).type == "cuda" else []),
    ]
    return profile(activities=activities, record_shapes=True)
