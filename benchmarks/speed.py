"""How fast simtti is: the figures in the README. Run with `make bench`.

Each figure is the median of several runs in processes of their own.
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

RUNS = 5


def whole_process(arguments: list[str]) -> tuple[float, float]:
    """Wall-clock seconds and peak memory in MB of a simtti command, interpreter start included."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "simtti.cli", *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"simtti {' '.join(arguments)} failed")
    return time.perf_counter() - began, usage.ru_maxrss / 1024


def median_of(command: list[str]) -> str:
    found = [whole_process(command) for _ in range(RUNS)]
    seconds = statistics.median(wall for wall, _ in found)
    return f"{seconds:.2f} s, {max(memory for _, memory in found):.0f} MB"


def predict_rows_per_second(rows: int = 8000) -> float:
    """Distinct GEMMs a second of `simtti predict`'s inner loop, one process."""
    code = f"""
import time
from simtti.hw_configs.devices import load
from simtti.simulator.predict import predict_rows
rows = [dict(op='gemm', dtype='bf16', m=1 + i % 97 * 41, n=64 + i % 89 * 93, k=32 + i % 83 * 67) for i in range({rows})]
began = time.perf_counter()
predict_rows(rows, load('h100-sxm'))
print({rows} / (time.perf_counter() - began))
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
    print("import simtti.simulator.run:", end=" ", flush=True)
    found = []
    for _ in range(RUNS):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import simtti.simulator.run"], check=True)
        found.append(time.perf_counter() - began)
    print(f"{statistics.median(found):.2f} s")
    for name in ("stable-diffusion", "sdxl"):
        command = ["run", name, "--hw", "h100-sxm"]
        print(f"simtti {' '.join(command)}: {median_of(command)}")
    print(f"predict: {predict_rows_per_second():.0f} distinct GEMMs/s, one process")
    print(f"record stable-diffusion-1.5 (whole pipeline, after imports): {record_seconds()}")
    with tempfile.TemporaryDirectory() as folder:
        points = Path(folder, "points.csv")
        points.write_text(
            "workload,hw,steps\n" + "".join(f"stable-diffusion,h100-sxm,{n}\n" for n in range(10, 50))
        )
        wall, _ = whole_process(["sweep", str(points), "--out", str(Path(folder, "out.csv"))])
        print(f"sweep: {40 / wall:.1f} runs of Stable Diffusion 1.5 a second, {os.cpu_count()} processes")
    print(
        f"peak memory of this script's children: {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024:.0f} MB"
    )


if __name__ == "__main__":
    main()
