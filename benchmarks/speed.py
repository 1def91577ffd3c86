"""How fast simtti is: the figures in the README. Run with `make bench`.

Each figure is the median of several runs in processes of their own; of single processes it is their processor time, so that other
work on the machine does not count.
"""

from __future__ import annotations

import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

RUNS = 5


class Spent(NamedTuple):
    """What a process took, interpreter start included: seconds of wall clock and processor, MB of memory at its fullest."""

    wall_s: float
    processor_s: float
    peak_mb: float


def whole_process(arguments: list[str]) -> Spent:
    """Of `python` with these arguments."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"python {' '.join(arguments)} failed")
    return Spent(time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def median_of(arguments: list[str]) -> str:
    found = [whole_process(arguments) for _ in range(RUNS)]
    seconds = statistics.median(each.processor_s for each in found)
    return f"{seconds:.2f} s, {max(each.peak_mb for each in found):.0f} MB"


def predict_rows_per_second(rows: int = 8000) -> float:
    """Distinct GEMMs a second of `simtti predict`'s inner loop, one process that has read the device already."""
    code = f"""
import time
from simtti.hw_configs.devices import load
from simtti.simulator.predict import predict_rows
rows = [dict(op='gemm', dtype='bf16', m=1 + i % 97 * 41, n=64 + i % 89 * 93, k=32 + i % 83 * 67) for i in range({rows})]
device = load('h100-sxm')
predict_rows(rows[:1], device)
began = time.process_time()
predict_rows(rows, device)
print({rows} / (time.process_time() - began))
"""
    return float(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    )


def record_seconds() -> str:
    code = """
import time
import torch, diffusers, transformers
from simtti.workloads.record import record
record('stable-diffusion-1.5', batch=2)  # imports what diffusers loads late
began = time.perf_counter()
record('stable-diffusion-1.5')
print(time.perf_counter() - began)
"""
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    except subprocess.CalledProcessError:
        return "needs torch (pip install 'simtti[torch]')"
    return f"{float(done.stdout):.2f} s"


def main() -> None:
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    )
    print(f"import simtti.simulator.run: {median_of(['-c', 'import simtti.simulator.run'])}")
    for name in (
        "stable-diffusion",
        "sdxl",
        "hunyuan-video",
        "wan2.2-t2v-a14b",
        "ltx-2",
        "hunyuan-video-1.5",
    ):
        command = ["run", name, "--hw", "h100-sxm"]
        print(f"simtti {' '.join(command)}: {median_of(['-m', 'simtti.cli', *command])}")
    print(f"predict: {predict_rows_per_second():.0f} distinct GEMMs/s, one process")
    print(f"record stable-diffusion-1.5 (whole pipeline, after imports): {record_seconds()}")
    with tempfile.TemporaryDirectory() as folder:
        points = Path(folder, "points.csv")
        points.write_text(
            "workload,hw,steps\n" + "".join(f"stable-diffusion,h100-sxm,{n}\n" for n in range(10, 50))
        )
        spent = whole_process(
            ["-m", "simtti.cli", "sweep", str(points), "--out", str(Path(folder, "out.csv"))]
        )
        print(
            f"sweep: {40 / spent.wall_s:.1f} runs of Stable Diffusion 1.5 a second, {os.cpu_count()} processes"
        )
    print(
        f"peak memory of this script's children: {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024:.0f} MB"
    )


if __name__ == "__main__":
    main()
