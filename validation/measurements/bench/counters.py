"""Hardware counters of a few cases, read by Nsight Compute, which runs this module."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from simtti.errors import InputError
from simtti.validation.measurements.bench.driver import number
from simtti.validation.measurements.bench.file import Row, reason_of
from simtti.validation.measurements.bench.operators import prepare
from simtti.validation.measurements.case import Case
from simtti.validation.measurements.suite import COUNTER_FAMILY, counter_cases

# Nsight Compute's metrics and ours.
COUNTERS = {
    "gpu__time_duration.sum": "time_ns",
    "l1tex__t_sector_hit_rate.pct": "l1_hit_percent",
    "lts__t_sector_hit_rate.pct": "l2_hit_percent",
    "l1tex__t_bytes.sum": "l1_bytes",
    "lts__t_bytes.sum": "l2_bytes",
    "dram__bytes_read.sum": "hbm_read_bytes",
    "dram__bytes_write.sum": "hbm_written_bytes",
    "sm__throughput.avg.pct_of_peak_sustained_elapsed": "sm_busy_percent",
    "sm__warps_active.avg.pct_of_peak_sustained_active": "occupancy_percent",
}
MARKER = "spin_kernel"  # what torch.cuda._sleep launches: it parts the cases in ncu's output


def ncu_command(numbers: Sequence[int], log: str | os.PathLike[str], ncu: str = "ncu") -> list[str]:
    """The command that reads the counters of those of `counter_cases()` into `log`, as CSV.

    Clocks are left as they are; before each of its replays of a kernel, ncu empties the caches.
    """
    return [
        ncu, "--csv", "--log-file", os.fspath(log), "--print-units", "base", "--clock-control", "none",
        "--cache-control", "all", "--profile-from-start", "off", "--metrics", ",".join(COUNTERS),
        sys.executable, "-m", __spec__.name if __spec__ else __name__, *map(str, numbers),
    ]  # fmt: skip


@dataclass(slots=True)
class CountedKernel:
    """A kernel and its counters, by our names."""

    name: str
    grid: str
    block: str
    counters: dict[str, float] = field(default_factory=dict)


def parse_ncu(text: str) -> list[list[CountedKernel]]:
    """ncu's CSV as kernels, case by case: a marker goes before each.

    Raises:
        InputError: there is no table in it; the message has what ncu said instead.
    """
    lines = text.splitlines()
    start = next((number for number, line in enumerate(lines) if line.startswith('"ID"')), None)
    if start is None:
        said = [line for line in lines if "==ERROR==" in line] or [line for line in lines if line.strip()][
            -1:
        ]
        raise InputError(f"ncu read no counters: {' '.join(said) or 'it wrote nothing'}")
    kernels: dict[str, CountedKernel] = {}
    table = [line for line in lines[start:] if line.startswith('"')]
    for row in csv.DictReader(io.StringIO("\n".join(table))):
        kernel = kernels.setdefault(
            row["ID"],
            CountedKernel(row["Kernel Name"], row.get("Grid Size") or "", row.get("Block Size") or ""),
        )
        value = number(row.get("Metric Value") or "")
        if row.get("Metric Name") in COUNTERS and value is not None:
            kernel.counters[COUNTERS[row["Metric Name"]]] = value
    cases: list[list[CountedKernel]] = []
    for kernel in kernels.values():
        if MARKER in kernel.name:
            cases.append([])
        elif cases:
            cases[-1].append(kernel)
    return cases


def counter_id(case: Case) -> str:
    """The id of the row of a case's counters."""
    return f"{COUNTER_FAMILY} {case.id}"


def count(cases: list[Case], device: str, limit_s: float) -> list[Row]:
    """The rows of as many of the cases as Nsight Compute reaches in `limit_s`.

    Raises:
        InputError: no GPU, or no ncu, or it says that it cannot.
    """
    ncu = shutil.which("ncu")
    if device != "cuda" or ncu is None:
        raise InputError("counters need a GPU and ncu (Nsight Compute), and there is no ncu on the PATH" if device == "cuda"
                         else "counters need a GPU; device is 'cpu'")  # fmt: skip
    if not cases:
        return []
    numbers = [counter_cases().index(case) for case in cases]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "counters.csv")
        command = ncu_command(numbers, log, ncu)
        nowhere = subprocess.DEVNULL
        with suppress(subprocess.TimeoutExpired):  # what the log holds by then still counts
            subprocess.run(command, timeout=limit_s, check=False, stdout=nowhere, stderr=nowhere)
        return counter_rows(cases, parse_ncu(log.read_text(errors="replace") if log.exists() else ""))


def counter_rows(cases: Sequence[Case], found: Sequence[Sequence[CountedKernel]]) -> list[Row]:
    """The rows of the cases that ncu reached."""
    rows = []
    for case, kernels in zip(cases, found, strict=False):
        counted = [
            {"name": kernel.name[:200], "grid": kernel.grid, "block": kernel.block, **kernel.counters}
            for kernel in kernels
        ]
        time_us = sum(kernel.counters.get("time_ns", 0.0) for kernel in kernels) / 1e3
        rows.append(
            {**case.row(), "id": counter_id(case), "family": COUNTER_FAMILY, "flops": case.flops, "nbytes": case.nbytes,
             "kernels": json.dumps(counted), "kernel_count": len(counted), "cold_kernel_us": time_us or None,
             "failure": None if counted else "it launched no kernels"}
        )  # fmt: skip
    return rows


def run_counter_cases(numbers: Sequence[int]) -> None:
    """What runs under ncu: each case once, a marker before it; warm-up stays out of sight."""
    import torch

    cases = [counter_cases()[number] for number in numbers]
    with torch.no_grad():
        for case in cases:
            torch.cuda._sleep(1000)
            try:
                prepared = prepare(case, torch, torch.device("cuda"))
                with prepared.context():
                    prepared.call()
                    torch.cuda.synchronize()
                    torch.cuda.cudart().cudaProfilerStart()
                    torch.cuda._sleep(1000)
                    prepared.call()
            except RuntimeError as error:
                torch.cuda.cudart().cudaProfilerStart()
                torch.cuda._sleep(1000)
                print(f"{case.id}: {reason_of(error)}", file=sys.stderr)
            torch.cuda.synchronize()
            torch.cuda.cudart().cudaProfilerStop()


if __name__ == "__main__":
    run_counter_cases([int(number) for number in sys.argv[1:]])
