"""How fast designs are explored: the figures in the README. Run with `python benchmarks/explore.py [DESIGNS]`.

Every design is a Hardware of its own, none of whose numbers was met before; as many as DESIGNS stand side by side
(`simulate_many`). Processor time, so that other work on the machine does not count; one process.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from simtti.explore.api import explore
from simtti.explore.evaluate import collect_seldom
from simtti.explore.spec import parse
from simtti.hw_configs.devices import load
from simtti.hw_configs.hardware import Hardware
from simtti.hw_configs.hosts import load_host
from simtti.simulator.engine.simulation import simulate_many
from simtti.simulator.result import Result
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
    """Processor seconds to evaluate one of many: latency, energy, peak memory."""
    evaluate(trace, [device(number) for number in range(8)])  # pays for what stays
    collect_seldom()  # as `explore` does
    devices = [device(number) for number in range(8, 8 + designs)]
    began = time.process_time()
    evaluate(trace, devices)
    return (time.process_time() - began) / designs


def evaluate(trace: Trace, devices: Sequence[Hardware]) -> None:
    for _, result in simulate_many(trace, devices, HOST):
        assert isinstance(result, Result)
        assert result.latency_s > 0
        assert result.energy_j > 0
        assert result.peak_memory_bytes


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
    designs = int(sys.argv[1]) if len(sys.argv) > 1 else 128
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
    per_hour = study_designs_per_hour(2 * designs)
    print(
        f"explore, the mix, 2 processes, {2 * designs} designs: {per_hour:,.0f} designs an hour of wall-clock time"
    )


if __name__ == "__main__":
    main()
