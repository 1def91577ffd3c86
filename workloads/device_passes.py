"""The passes of a capture: a workload's builder again and again on a device, its modules built once.

    passes = Passes(workload, options, "cuda", "flash")
    with tempfile.TemporaryDirectory() as folder:
        found = passes.run(Path(folder), repeats=5, longest_s=30)
        found.read()
    found.clean[0].done[1].seconds

First to warm up, then for clean times without a profiler, with a wait after each step; then under torch.profiler; last every
step in one go, as a pipeline runs, under the power meter. What may fail comes last, and costs nothing that is there by then.
Importable without torch.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simtti.errors import InputError
from simtti.workloads.built_once import BuiltOnce
from simtti.workloads.catalogue import Options, Workload
from simtti.workloads.device_run import (
    DeviceRun,
    InOneGo,
    Watch,
    profiled_into,
    read_profiles,
    timed,
    torch_profiler,
    unwatched,
)
from simtti.workloads.power_meter import Draw, PowerMeter, nvml_meter

# torch's backends of scaled-dot-product attention, in order (MATH where no fused kernel takes the operands), and whether the
# unfused one computes halves in their own dtype instead of fp32, as torch comes.
ATTENTION: dict[str, tuple[tuple[str, ...], bool]] = {
    "flash": (("FLASH_ATTENTION", "EFFICIENT_ATTENTION", "MATH"), False),
    "efficient": (("EFFICIENT_ATTENTION", "MATH"), False),
    "baseline": (("MATH",), True),
    "math": (("MATH",), False),
}
UNFUSED = ("baseline", "math")
# Shorter runs are done several times in a row, so that NVML's counter moves often enough; but not more often than this.
_METERED_S = 1.0
_MOST_GOES = 5


@dataclass(frozen=True, slots=True)
class Whole:
    """An inference in one go, its mean over `goes`. Empty but for `missing`, the reason, where there is none.

    latency_s: from the first step's begin to the last one's end. outside_s: of that, the host's work between steps, which is
    the capture's own.
    draw: of all goes together.
    """

    latency_s: float = 0.0
    outside_s: float = 0.0
    steps: int = 0
    goes: int = 0
    draw: Draw | None = None
    missing: str = ""


@dataclass
class Found:
    """What the passes saw. clean: runs with a wait after each step. profiled: the one under the profiler."""

    clean: list[DeviceRun] = field(default_factory=list)
    profiled: DeviceRun | None = None
    whole: Whole = Whole()

    def read(self) -> None:
        """Read the profiler's files; until then they must stay."""
        if self.profiled is not None:
            read_profiles(self.profiled.done)

    def stepwise_s(self) -> float:
        """The first clean run's latency: each step as often as it counts."""
        return sum(step.seconds * step.count for step in self.clean[0].done)


class Passes:
    """The passes of one workload with one kind of attention. meter: NVML's of the GPU if None."""

    def __init__(
        self,
        workload: Workload,
        options: Options,
        device: str,
        attention: str,
        *,
        all_steps: bool = False,
        launch: str = "eager",
        meter: PowerMeter | None = None,
    ) -> None:
        self.workload, self.options, self.device = workload, options, device
        self.attention, self.all_steps = attention, all_steps
        self.launch = launch
        self.meter = meter
        self.models = BuiltOnce()

    def run(
        self,
        folder: Path,
        *,
        repeats: int = 5,
        longest_s: float = math.inf,
        clock: Watch = timed,
        profiler: Watch | None = None,
        measuring: AbstractContextManager[Any] | None = None,
    ) -> Found:
        """All of them; then the device's memory is let go of.

        folder: for the profiler's files. longest_s: an inference that takes longer step by step is not run in one go; 0
        means none is. clock, profiler: the watches of clean runs and of the profiled one.

        measuring: is entered once the models are warm and compiled, and left when their memory is free again.

        Raises:
            InputError: not enough memory on the GPU; a way of launching that the workload cannot be launched in.
        """
        import torch

        measured = ExitStack()
        try:
            self._once(unwatched)
            measured.enter_context(measuring or nullcontext())
            if self.launch != "eager" and not self.models.launches_any:
                raise InputError(
                    f"{self.workload.name} has no model in a denoising loop that could be launched {self.launch}; "
                    "capture it eager"
                )
            found = Found([self._once(clock) for _ in range(repeats)])
            if profiler is None:
                with torch_profiler(self.device):  # the first one loads CUPTI, which takes seconds
                    torch.zeros(1, device=self.device)
                profiler = profiled_into(folder, compressed=self.all_steps)
            found.profiled = self._once(profiler)
            found.whole = self._whole(found.stepwise_s(), longest_s)
            return found
        except torch.cuda.OutOfMemoryError as error:
            reason = str(error).partition(". ")[0]
            raise InputError(
                f"capturing {self.workload.name} ran out of the GPU's memory: {reason}"
            ) from None
        finally:
            self._let_go()
            measured.close()

    def _once(self, watch: Watch, *, all_steps: bool | None = None) -> DeviceRun:
        """Run the builder once."""
        import torch

        gc.collect()  # the run before may have left its activations in cycles
        every = self.all_steps if all_steps is None else all_steps
        run = DeviceRun(self.device, watch, all_steps=every, models=self.models, launch=self.launch)
        on_gpu = run.device.type == "cuda"
        if on_gpu:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        with attention_kernels(self.attention):
            run.do(self.workload.builder, self.options)
        if on_gpu:
            run.peak_memory_bytes = torch.cuda.max_memory_allocated()
        return run

    def _whole(self, stepwise_s: float, longest_s: float) -> Whole:
        if stepwise_s > longest_s or longest_s <= 0:
            return Whole(
                missing=f"step by step it takes {stepwise_s:.1f} s, and at most {longest_s:g} s are allowed"
            )
        goes = max(1, min(_MOST_GOES, math.ceil(_METERED_S / max(stepwise_s, 1e-9))))
        try:
            with self.meter or self._meter() as meter:
                done = [self._go(meter) for _ in range(goes)]
        except Exception as error:  # what was measured before is worth keeping
            return Whole(missing=f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
        draws = [draw for _, _, draw in done]
        return Whole(
            latency_s=sum(draw.seconds for draw in draws) / goes,
            outside_s=sum(watch.outside_s for _, watch, _ in done) / goes,
            steps=len(done[0][0].done),
            goes=goes,
            draw=added(draws),
        )

    def _go(self, meter: PowerMeter) -> tuple[DeviceRun, InOneGo, Draw]:
        watch = InOneGo(meter)
        run = self._once(watch, all_steps=True)
        return run, watch, watch.end()

    def _meter(self) -> PowerMeter:
        if self.device != "cuda":
            return PowerMeter(missing=f"a {self.device} has no NVML")
        import torch

        return nvml_meter(getattr(torch.cuda.get_device_properties(0), "uuid", None))

    def _let_go(self) -> None:
        """Of the modules, and of the GPU's memory, which another process may be waiting for."""
        import torch

        self.models.clear()
        gc.collect()
        if self.device == "cuda":
            with suppress(Exception):  # after a CUDA error nothing works, and the error is what counts
                torch.cuda.synchronize()
                torch.cuda.empty_cache()


def added(draws: list[Draw]) -> Draw:
    """Several draws as one: energy and time added, power and clock by time.

    >>> added([Draw(1.0, 100.0, 100.0, 1980.0, 1900.0), Draw(3.0, 900.0, 300.0, 1900.0, 1850.0)])
    Draw(seconds=4.0, energy_j=1000.0, mean_w=250.0, sm_clock_mhz=1920.0, sm_clock_min_mhz=1850.0, missing='')
    """
    seconds = sum(draw.seconds for draw in draws)

    def by_time(value: Callable[[Draw], float | None]) -> float | None:
        values = [value(draw) for draw in draws]
        if any(each is None for each in values):
            return None
        return sum((each or 0.0) * draw.seconds for each, draw in zip(values, draws, strict=True)) / seconds

    energies = [draw.energy_j for draw in draws if draw.energy_j is not None]
    least = [draw.sm_clock_min_mhz for draw in draws if draw.sm_clock_min_mhz is not None]
    return Draw(
        seconds,
        sum(energies) if len(energies) == len(draws) else None,
        by_time(lambda draw: draw.mean_w),
        by_time(lambda draw: draw.sm_clock_mhz),
        min(least) if least else None,
        next((draw.missing for draw in draws if draw.missing), ""),
    )


@contextmanager
def attention_kernels(attention: str) -> Iterator[None]:
    """The kernels of torch's scaled-dot-product attention, and what the unfused one computes halves in."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    backends, own_dtype = ATTENTION[attention]
    settings = torch.backends.cuda
    before = settings.fp16_bf16_reduction_math_sdp_allowed()
    with ExitStack() as stack:
        stack.callback(settings.allow_fp16_bf16_reduction_math_sdp, before)
        settings.allow_fp16_bf16_reduction_math_sdp(own_dtype)
        stack.enter_context(sdpa_kernel([getattr(SDPBackend, backend) for backend in backends]))
        yield
