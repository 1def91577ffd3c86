"""Times operators: on a GPU from event to event, to try it out on a CPU."""

from __future__ import annotations

import gc
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simtti.errors import InputError
from simtti.validation.measurements.bench.driver import Smi, processor
from simtti.validation.measurements.bench.file import Row
from simtti.validation.measurements.bench.kernels import kernel_columns, kernels_by_label, label
from simtti.validation.measurements.bench.operators import Call, Prepared

PROFILED_LAUNCHES = 3


def bench_on(device: str) -> Bench:
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # torch reads it when loaded: no log lines on the terminal
    try:
        import torch
    except ImportError:
        raise InputError(
            "measuring needs torch, which is not installed; run: pip install 'simtti[torch]'"
        ) from None
    if device == "cpu":
        return Bench(torch)
    if not torch.cuda.is_available():
        raise InputError(
            f"measuring needs a CUDA GPU, and torch {torch.__version__} finds none here (--device cpu tries the suite "
            "out without one)"
        )
    return CudaBench(torch)


class Bench:
    """Times operators on the CPU, and says what it ran on. The GPU's does the same with events."""

    def __init__(self, torch: Any) -> None:
        self.torch = torch
        self.device = torch.device("cpu")
        self.memory_bytes = 1e9
        self.lost = False  # the device has failed: nothing further can be measured
        self._flushed = torch.zeros(1 << 22)

    def facts(self) -> dict[str, Any]:
        """The device, and the versions that a run's times depend on."""
        from importlib.metadata import PackageNotFoundError, version

        try:
            simtti = version("simtti")
        except PackageNotFoundError:  # run from a checkout that is not installed
            simtti = "unknown"
        host = processor()
        return {"device": {"name": host}, "host": host, "torch": self.torch.__version__, "python": platform.python_version(),
                "simtti": simtti}  # fmt: skip

    def times(self, prepared: Prepared) -> Row:
        """Warm and cold times, and the host's."""
        with prepared.context():
            once_us = self._first_calls(prepared.call)
            host_us = self._host_us(prepared.call, _within(20_000 / once_us, 1, 10))
            warm = self._warm_us(prepared.call, once_us, host_us)
            cold = self._cold_us(prepared.call, once_us, host_us)
        return {**_spread("warm", warm), **_spread("cold", cold), "host_us": host_us}

    def kernels(self, live: Sequence[Prepared]) -> list[Row]:
        """What CUPTI saw of each operator: nothing, on a CPU."""
        return [{} for _ in live]

    def state(self) -> Row:
        """Clocks, temperature, power, as far as the device tells."""
        return {}

    def recover(self) -> None:
        """After a failure: let go of what it held, and find out whether the device still works."""
        self.tidy()

    def tidy(self) -> None:
        gc.collect(0)

    def _first_calls(self, call: Call) -> float:
        """Warm up, and say roughly how many microseconds a call takes."""
        call()
        begin = time.perf_counter()
        call()
        return max((time.perf_counter() - begin) * 1e6, 1.0)

    def _host_us(self, call: Call, launches: int) -> float:
        return statistics.median(self._issue_us(call, launches) for _ in range(3))

    def _issue_us(self, call: Call, launches: int) -> float:
        begin = time.perf_counter()
        for _ in range(launches):
            call()
        return (time.perf_counter() - begin) / launches * 1e6

    def _warm_us(self, call: Call, once_us: float, host_us: float) -> list[float]:
        return [self._issue_us(call, 1) for _ in range(_within(20_000 / once_us, 3, 15))]

    def _cold_us(self, call: Call, once_us: float, host_us: float) -> list[float]:
        times = []
        for _ in range(_within(20_000 / once_us, 3, 5)):
            self._flushed.add_(1.0)
            times.append(self._issue_us(call, 1))
        return times


class CudaBench(Bench):
    """Times operators on the first visible GPU.

    Before each sample the GPU is kept busy for as long as the host needs to issue what is timed, so that the host's
    time never shows in a warm or a cold one.
    """

    def __init__(self, torch: Any) -> None:
        super().__init__(torch)
        self.device = torch.device("cuda", torch.cuda.current_device())
        self._properties = torch.cuda.get_device_properties(self.device)
        self.memory_bytes = float(torch.cuda.mem_get_info(self.device)[0])
        self._l2_bytes = getattr(self._properties, "L2_cache_size", 0) or 64 << 20
        self._flushed = torch.zeros(max(4 * self._l2_bytes, 256 << 20) // 4, device=self.device)
        self._total = torch.zeros((), device=self.device)
        self._smi = Smi(getattr(self._properties, "uuid", None))
        self._ramp_up()
        self._cycles_per_us = self._spin_rate()

    def facts(self) -> dict[str, Any]:
        found = self._properties
        device = {"name": found.name, "sm_count": found.multi_processor_count, "memory_bytes": found.total_memory,
                  "l2_bytes": self._l2_bytes, "compute_capability": f"{found.major}.{found.minor}"}  # fmt: skip
        cudnn = self.torch.backends.cudnn.version()
        return {
            **super().facts(),
            "device": device,
            "cuda": self.torch.version.cuda,
            "cudnn": cudnn,
            **self._smi.facts(),
        }

    def _ramp_up(self) -> None:
        """An idle GPU's clocks are low: half a second of work raises them."""
        a = self.torch.randn(4096, 4096, device=self.device, dtype=self.torch.float16)
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            a @ a
            self.torch.cuda.synchronize()

    def _spin_rate(self) -> float:
        self.torch.cuda._sleep(1000)  # the first one loads the kernel
        self.torch.cuda.synchronize()
        begin, end = self._events()
        begin.record()
        self.torch.cuda._sleep(1_000_000)
        end.record()
        end.synchronize()
        return float(1_000_000 / max(begin.elapsed_time(end) * 1e3, 1.0))

    def _events(self) -> tuple[Any, Any]:
        return self.torch.cuda.Event(enable_timing=True), self.torch.cuda.Event(enable_timing=True)

    def _flush(self) -> None:
        """Fill the L2 with clean lines: by reading, since lines just written would have to be written back."""
        self.torch.sum(self._flushed, 0, out=self._total)

    def _stay_busy(self, us: float) -> None:
        self.torch.cuda._sleep(int(us * 1.3 * self._cycles_per_us) + 20_000)

    def _first_calls(self, call: Call) -> float:
        for _ in range(2):
            call()
        begin, end = self._events()
        begin.record()
        call()
        end.record()
        end.synchronize()
        return max(begin.elapsed_time(end) * 1e3, 1.0)

    def _issue_us(self, call: Call, launches: int) -> float:
        self.torch.cuda.synchronize()
        return super()._issue_us(call, launches)

    def _warm_us(self, call: Call, once_us: float, host_us: float) -> list[float]:
        launches = _within(200 / once_us, 1, 20)
        samples = []
        for _ in range(_within(30_000 / (launches * once_us), 3, 15)):
            begin, end = self._events()
            self._stay_busy(launches * host_us)
            begin.record()
            for _ in range(launches):
                call()
            end.record()
            samples.append((begin, end))
        self.torch.cuda.synchronize()
        return [begin.elapsed_time(end) * 1e3 / launches for begin, end in samples]

    def _cold_us(self, call: Call, once_us: float, host_us: float) -> list[float]:
        samples = []
        for _ in range(_within(30_000 / (once_us + 100), 3, 15)):
            begin, end = self._events()
            self._stay_busy(host_us)
            self._flush()
            begin.record()
            call()
            end.record()
            samples.append((begin, end))
        self.torch.cuda.synchronize()
        return [begin.elapsed_time(end) * 1e3 for begin, end in samples]

    def kernels(self, live: Sequence[Prepared]) -> list[Row]:
        from torch.profiler import ProfilerActivity, profile, record_function

        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
            for number, prepared in enumerate(live):
                for state in ("warm", "cold") if prepared.profiled else ():
                    with prepared.context():
                        for _ in range(PROFILED_LAUNCHES):
                            if state == "cold":
                                self._flush()
                            with record_function(label(number, state)):
                                prepared.call()
            self.torch.cuda.synchronize()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "profile.json")
            profiler.export_chrome_trace(str(path))
            launched = kernels_by_label(json.loads(path.read_text(errors="replace")))
        return [
            kernel_columns(launched.get(label(number, "warm"), []), launched.get(label(number, "cold"), []))
            for number in range(len(live))
        ]

    def state(self) -> Row:
        return self._smi.state()

    def recover(self) -> None:
        try:
            self.torch.cuda.synchronize()
            super().recover()
            self.torch.cuda.empty_cache()
        except RuntimeError:  # an error that sticks to the process: every later call would fail alike
            self.lost = True

    def tidy(self) -> None:
        super().tidy()
        if not self.lost and self.torch.cuda.memory_reserved() > 0.6 * self.memory_bytes:
            self.torch.cuda.empty_cache()


def _within(value: float, least: int, most: int) -> int:
    return int(min(max(value, least), most))


def _spread(state: str, times: Sequence[float]) -> Row:
    """Median and 10th and 90th percentile (of three samples: least and most, nearly)."""
    ordered = sorted(times)

    def at(share: float) -> float:
        place = share * (len(ordered) - 1)
        low = ordered[int(place)]
        return low + (ordered[min(int(place) + 1, len(ordered) - 1)] - low) * (place - int(place))

    return {f"{state}_us": at(0.5), f"{state}_p10_us": at(0.1), f"{state}_p90_us": at(0.9)}
