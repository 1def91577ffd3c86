"""What a GPU draws while something runs on it: energy by NVML's counter, power and clock by asking every 20 ms.

    with nvml_meter() as meter:
        meter.start()
        ...
        draw = meter.stop()
    draw.energy_j, draw.mean_w, draw.sm_clock_mhz

The counter (nvmlDeviceGetTotalEnergyConsumption) is of the whole board and moves every 20 to 100 ms: what is measured
should take a second or more. NVML is optional (`pip install 'simtti[nvml]'`): without it a draw is empty and says why.
Imports no torch.
"""

from __future__ import annotations

import statistics
import threading
import time
from dataclasses import dataclass
from typing import Any

SAMPLE_S = 0.02
HOW_TO_INSTALL = "nvidia-ml-py is not installed; pip install 'simtti[nvml]'"


@dataclass(frozen=True, slots=True)
class Draw:
    """What a GPU drew. None where it does not tell.

    seconds: from start to stop, by the host's clock.
    energy_j: the counter's difference, of the whole board.
    mean_w: energy over time; where there is no counter, the mean of what the driver said of power.
    sm_clock_mhz, sm_clock_min_mhz: mean and least of the samples.
    missing: why there is nothing, else empty.
    """

    seconds: float
    energy_j: float | None = None
    mean_w: float | None = None
    sm_clock_mhz: float | None = None
    sm_clock_min_mhz: float | None = None
    missing: str = ""


def open_nvml(uuid: object = None) -> tuple[Any, Any]:
    """NVML and its handle of a GPU: the one with this UUID (as torch gives it), else the first.

    Raises:
        Exception: NVML is not there, or does not know the GPU: ImportError or what pynvml raises.
    """
    import pynvml

    pynvml.nvmlInit()
    name = f"GPU-{str(uuid).removeprefix('GPU-')}" if uuid else ""
    handle = pynvml.nvmlDeviceGetHandleByUUID(name) if name else pynvml.nvmlDeviceGetHandleByIndex(0)
    return pynvml, handle


def nvml_meter(uuid: object = None) -> PowerMeter:
    """A meter of a GPU; one that measures nothing, and says why, where NVML is not there."""
    try:
        return PowerMeter(*open_nvml(uuid))
    except ImportError:
        return PowerMeter(missing=HOW_TO_INSTALL)
    except Exception as error:  # no driver, no rights, another library of that name
        return PowerMeter(missing=f"NVML does not answer: {str(error).strip() or type(error).__name__}")


class PowerMeter:
    """Measures from `start` to `stop`, again and again.

    nvml: pynvml, or what has its functions. handle: its GPU. missing: why there is none.
    """

    def __init__(self, nvml: Any = None, handle: Any = None, missing: str = "") -> None:
        self._nvml, self._handle, self.missing = nvml, handle, missing
        self._samples: list[tuple[float, float]] = []
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self._begin_s = 0.0
        self._begin_j: float | None = None

    def __enter__(self) -> PowerMeter:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def start(self) -> None:
        """Begin. What runs on the GPU must have been waited for."""
        self._end()
        self._samples = []
        if self._nvml is not None:
            self._ended.clear()
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        self._begin_j = self._energy_j()
        self._begin_s = time.perf_counter()

    def stop(self) -> Draw:
        """What was drawn since `start`. What runs on the GPU must have been waited for."""
        seconds = time.perf_counter() - self._begin_s
        energy_j = self._energy_j()
        self._end()
        self._sample()
        if self._nvml is None:
            return Draw(seconds, missing=self.missing)
        used = None if energy_j is None or self._begin_j is None else energy_j - self._begin_j
        watts = [power_w for power_w, _ in self._samples]
        clocks = [clock_mhz for _, clock_mhz in self._samples]
        mean_w = used / seconds if used is not None else statistics.fmean(watts) if watts else None
        lacks = [name for name, value in (("energy", used), ("clock", clocks or None)) if value is None]
        return Draw(
            seconds,
            used,
            mean_w,
            statistics.fmean(clocks) if clocks else None,
            min(clocks, default=None),
            f"NVML does not tell the GPU's {' and '.join(lacks)}" if lacks else "",
        )

    def _energy_j(self) -> float | None:
        if self._nvml is None:
            return None
        try:
            return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1e3
        except Exception:  # GPUs before Volta, and some virtual ones, have no counter
            return None

    def _sample(self) -> None:
        if self._nvml is None:
            return
        nvml, handle = self._nvml, self._handle
        try:
            power_w = nvml.nvmlDeviceGetPowerUsage(handle) / 1e3
            self._samples.append((power_w, float(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM))))
        except Exception:  # a sample less
            return

    def _watch(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            self._sample()

    def _end(self) -> None:
        if self._thread is not None:
            self._ended.set()
            self._thread.join()
            self._thread = None
