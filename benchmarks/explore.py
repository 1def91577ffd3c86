"""How fast designs are explored: the figures in the README. Run with `python benchmarks/explore.py [DESIGNS]`.

Every design is a Hardware of its own, none of whose numbers was met before: only what does not depend on the device (the
trace and which of its operators are alike) is kept between designs. Processor time, so that other work on the machine
does not count; one process.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from simtti.explore.api import explore
from simtti.explore.evaluate import FIDELITY, collect_seldom
from simtti.explore.spec import parse
from simtti.hw_configs.devices import load
from simtti.hw_configs.hardware import Hardware
from simtti.hw_configs.hosts import load_host
from simtti.simulator.engine.simulation import simulate
from simtti.workloads.record import workload_trace
from simtti.workloads.trace import Trace

BASE = load("h100-sxm")
HOST = load_host("default")
MIX = ("stable-diffusion-1.5", "sdxl", "svd")


def device(number: int) -> Hardware:
    """The `number`-th of devices that differ in everything that moves a tile or a byte."""
    return replace(
        BASE,
        sm_count=60 + number % 97,
        clock_hz=1.2e9 + 1.1e6 * number,
        l2_capacity_bytes=2e7 + 3.7e5 * number,
        hbm_bytes_per_s=2e12 + 7e9 * number,
    )


def seconds_per_design(trace: Trace, designs: int) -> float:
    """Median processor seconds to evaluate one: latency, energy, peak memory."""
    found = []
    for number in range(designs + 1):
        hardware = device(number)
        began = time.process_time()
        result = simulate(trace, hardware, HOST, fidelity=FIDELITY)
        assert result.latency_s > 0
        assert result.energy_j > 0
        assert result.peak_memory_bytes
        found.append(time.process_time() - began)
        if number == 0:  # the first pays for what stays
            collect_seldom()  # as `explore` does
    return statistics.median(found[1:])


def study_designs_per_hour(designs: int) -> float:
    """A whole study of the mix through `explore`, its journal and tables included, on two processes."""
    spec = parse(
        {
            "base": "h100-sxm",
            "parameters": {
                "sm_count": {"low": 60, "high": 160},
                "hbm_bytes_per_s": {"low": 2e12, "high": 8e12},
                "l2_capacity_bytes": {"low": 2e7, "high": 2e8},
            },
            "workloads": [{"workload": name} for name in MIX],
            "objectives": ["latency_s", "area_mm2"],
            "search": {"method": "sobol", "designs": designs},
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        explore(spec, Path(folder), workers=2, report=False)
        return designs / (time.perf_counter() - began) * 3600


def main() -> None:
    designs = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    )
    times = {name: seconds_per_design(workload_trace(name), designs) for name in MIX}
    for name, seconds in times.items():
        print(f"{name}: {1000 * seconds:.0f} ms a design, {1 / seconds:.1f} designs a second and core")
    mix = sum(times.values())
    print(f"the mix of the three: {mix * 1000:.0f} ms; 10,000 on 2 cores: {10_000 * mix / 2 / 60:.0f} min")
    for steps in (10, 50, 250):
        seconds = seconds_per_design(workload_trace("stable-diffusion-1.5", steps=steps), designs)
        print(f"stable-diffusion-1.5, {steps} steps: {1000 * seconds:.0f} ms a design")
    per_hour = study_designs_per_hour(4 * designs)
    print(
        f"explore, the mix, 2 processes, {4 * designs} designs: {per_hour:,.0f} designs an hour of wall-clock time"
    )


if __name__ == "__main__":
    main()
