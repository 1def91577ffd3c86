"""A workload's builder on a real device: each step runs under a watch, which times or profiles it.

    run = DeviceRun("cuda", timed)
    run.do(workload.builder, options)
    run.done[1].seconds

Nothing of ours stands between the model and torch while a step runs: no mode, no hook. Between steps, what is made unwritten
gets numbers (see `noise`). On the meta device, which computes nothing, the same can be tried out. Importable without torch.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simtti.workloads.built_once import BuiltOnce
from simtti.workloads.kineto import Profile, read_kineto
from simtti.workloads.power_meter import Draw, PowerMeter
from simtti.workloads.recording import Recording
from simtti.workloads.trace import Step

if TYPE_CHECKING:
    from simtti.workloads.noise import Noise


@dataclass
class StepRun:
    """One step of one run of the builder. A profile is there only in the run that the profiler watched: first as the file it
    wrote, then read."""

    phase: str
    count: int
    seconds: float = 0.0
    host_seconds: float = 0.0
    profile_file: Path | None = None
    profile: Profile | None = None


# Is entered with the step and the device (a torch.device), writes into the step what it saw.
Watch = Callable[[StepRun, Any], AbstractContextManager[None]]


class DeviceRun(Recording):
    """Runs steps where they are to run, and keeps what the watch saw of each in `done`.

    Where every step is wanted, each is run, on what the one before left. models: what earlier runs of the same builder with
    the same options have built, which is taken again. launch: how the model in the denoising loop is launched (launched.LAUNCH).
    """

    def __init__(
        self,
        device: str,
        watch: Watch,
        *,
        all_steps: bool = False,
        models: BuiltOnce | None = None,
        launch: str = "eager",
    ) -> None:
        super().__init__(device, all_steps=all_steps, reruns=all_steps)
        self.watch = watch
        self.models = models or BuiltOnce()
        self.launch = launch
        self.done: list[StepRun] = []
        self.peak_memory_bytes = 0
        self._noise: Noise | None = None

    def do(self, builder: Callable[[Any, Recording], None], options: Any) -> None:
        """Run the builder, once in the life of this run."""
        from simtti.workloads.noise import Noise

        self.models.begin()
        with Noise() as self._noise:
            builder(options, self)
        self._noise = None

    def build(self, factory: Any, /, *args: Any, dtype: str, **kwargs: Any) -> Any:
        def built() -> Any:
            with self._noise.of_weights() if self._noise else nullcontext(), _weights_in(dtype):
                return super(DeviceRun, self).build(factory, *args, dtype=dtype, **kwargs)

        return self.models.get(f"{getattr(factory, '__qualname__', factory)} {dtype}", built)

    def denoise_with(self, model: Any) -> None:
        if self.launch != "eager":
            model.forward = self.models.launched(model, self.launch)

    @contextmanager
    def step(self, phase: str, *, domain: str, count: int = 1, continued: bool = False) -> Iterator[None]:
        import torch

        started = StepRun(phase, count)
        steps = self._phases.setdefault(phase, [])
        with (
            self._noise.paused() if self._noise else nullcontext(),
            torch.no_grad(),
            self.watch(started, self.device),
        ):
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
        # Meta tensors have no values, and these steer the host.
        return tensor if self.device.type == "meta" else tensor.to(self.device)

    def copy_to_host(self, tensor: Any) -> None:
        if self.device.type != "meta":
            tensor.to("cpu", copy=True)


@contextmanager
def _weights_in(dtype: str) -> Iterator[None]:
    """Have each weight in `dtype` as soon as it is made: a large model's in fp32 would not fit on the GPU beside each other."""
    import torch
    from torch.nn.modules.module import register_module_parameter_registration_hook

    from simtti.workloads.torch_calls import TORCH_DTYPES

    def cast(module: Any, name: str, weight: Any) -> Any:
        if weight is None or not weight.is_floating_point() or weight.dtype == TORCH_DTYPES[dtype]:
            return weight
        return torch.nn.Parameter(weight.detach().to(TORCH_DTYPES[dtype]), requires_grad=False)

    hook = register_module_parameter_registration_hook(cast)
    try:
        yield
    finally:
        hook.remove()


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


def profiled_into(folder: Path, *, compressed: bool = False) -> Watch:
    """Put each step under a profiler of its own, which leaves its file in `folder`; `read_profiles` reads them.

    compressed: of hundreds of steps the files would fill a disk.
    """
    suffix = ".json.gz" if compressed else ".json"
    numbers = itertools.count()

    @contextmanager
    def profiled(step: StepRun, place: Any) -> Iterator[None]:
        import torch

        if place.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        with torch_profiler(place) as profiler:
            yield
            if place.type == "cuda":
                torch.cuda.synchronize()
            step.seconds = time.perf_counter() - start
        step.profile_file = folder / f"{next(numbers)}{suffix}"
        profiler.export_chrome_trace(str(step.profile_file))

    return profiled


def read_profiles(steps: list[StepRun]) -> None:
    """Read what the profiler wrote of each step: work for the host alone, which can wait until the GPU is let go of."""
    for step in steps:
        if step.profile_file is not None:
            step.profile = read_kineto(step.profile_file, may_be_empty=True)
            step.profile_file.unlink()
            step.profile_file = None
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


class InOneGo:
    """A watch that waits for the device before the first step and after the last one only, as a pipeline does.

    outside_s: what the host took between the steps, for what a capture does there: it is in the time as well.
    """

    def __init__(self, meter: PowerMeter) -> None:
        self.meter = meter
        self.outside_s = 0.0
        self._left_s: float | None = None
        self._wait: Callable[[], None] = lambda: None

    @contextmanager
    def __call__(self, step: StepRun, place: Any) -> Iterator[None]:
        import torch

        if self._left_s is None:
            if place.type == "cuda":
                self._wait = torch.cuda.synchronize
            self._wait()
            self.meter.start()
        else:
            self.outside_s += time.perf_counter() - self._left_s
        yield
        self._left_s = time.perf_counter()

    def end(self) -> Draw:
        """Wait for the last step; the time since the first one, and what was drawn."""
        self._wait()
        return self.meter.stop()
