"""What the driver and the machine say of themselves: clocks, temperature, power, names."""

from __future__ import annotations

import platform
import subprocess
import time
from pathlib import Path
from typing import Any

from simtti.validation.measurements.bench.file import STATE, Row
from simtti.workloads.power_meter import open_nvml


def processor() -> str:
    """The CPU's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


class Smi:
    """A GPU's driver, clocks, temperature and power: from NVML through pynvml, or from nvidia-smi, or unknown."""

    def __init__(self, uuid: object) -> None:
        self._uuid = f"GPU-{str(uuid).removeprefix('GPU-')}" if uuid else ""
        self._nvml: Any = None
        self._asked, self._answer = -1e9, Row()
        try:
            self._nvml, self._handle = open_nvml(uuid)
        except Exception:  # not installed, another library of that name, no rights: nvidia-smi may do
            self._nvml = None

    def facts(self) -> Row:
        texts = self._ask(("driver_version", "clocks.max.sm", "clocks.max.mem", "power.limit"))
        numbers = dict(
            zip(
                ("max_sm_clock_mhz", "max_memory_clock_mhz", "power_limit_w"),
                map(number, texts[1:]),
                strict=False,
            )
        )
        return {"driver": texts[0] if texts else None, **numbers}

    def state(self) -> Row:
        if self._nvml is not None:
            try:
                return self._from_nvml()
            except Exception:  # some facts are not there in virtual machines
                self._nvml = None
        if time.monotonic() - self._asked > 10:  # a process of its own each time, a tenth of a second
            found = self._ask(("clocks.sm", "clocks.mem", "temperature.gpu", "power.draw"))
            self._asked, self._answer = time.monotonic(), dict(zip(STATE, map(number, found), strict=False))
        return self._answer

    def _from_nvml(self) -> Row:
        nvml, handle = self._nvml, self._handle
        values = (
            nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
            nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM),
            nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
            nvml.nvmlDeviceGetPowerUsage(handle) / 1e3,
        )
        return {name: float(value) for name, value in zip(STATE, values, strict=True)}

    def _ask(self, fields: tuple[str, ...]) -> list[str]:
        command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
        command += ["-i", self._uuid] if self._uuid else []
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        except (OSError, subprocess.SubprocessError):
            return []
        return [text.strip() for text in (done.stdout.splitlines() or [""])[0].split(",")]


def number(text: str) -> float | None:
    """A number, or None for what nvidia-smi and ncu write where there is none.

    >>> number("1,980.5"), number("[N/A]")
    (1980.5, None)
    """
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None
