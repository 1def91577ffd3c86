"""The kernels of what was launched, as CUPTI saw them through torch.profiler."""

from __future__ import annotations

import json
import statistics
from bisect import bisect_left
from collections import Counter, defaultdict
from typing import Any

from simtti.validation.measurements.bench.file import Row


def label(number: int, state: str) -> str:
    """The range of the host in which operator `number` is launched."""
    return f"simtti {number} {state}"


def kernels_by_label(trace: dict[str, Any]) -> dict[str, list[list[dict[str, Any]]]]:
    """From torch.profiler's JSON: for each labelled range of the host, in order, the kernels launched within it."""
    events = [event for event in trace["traceEvents"] if event.get("ph") == "X"]
    by_correlation: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    launches, ranges = [], []
    for event in events:
        category, arguments = event.get("cat"), event.get("args") or {}
        if category in ("kernel", "gpu_memcpy", "gpu_memset"):
            by_correlation[arguments.get("correlation")].append(event)
        elif category in ("cuda_runtime", "cuda_driver") and "correlation" in arguments:
            launches.append((float(event["ts"]), arguments["correlation"]))
        elif category == "user_annotation" and str(event["name"]).startswith("simtti "):
            ranges.append((float(event["ts"]), float(event["ts"]) + float(event["dur"]), str(event["name"])))
    launches.sort()
    starts = [start for start, _ in launches]
    found: dict[str, list[list[dict[str, Any]]]] = defaultdict(list)
    for begin, end, name in sorted(ranges):
        within = launches[bisect_left(starts, begin) : bisect_left(starts, end)]
        kernels = [kernel for _, correlation in within for kernel in by_correlation[correlation]]
        found[name].append(sorted(kernels, key=lambda kernel: float(kernel["ts"])))
    return found


def kernel_columns(warm: list[list[dict[str, Any]]], cold: list[list[dict[str, Any]]]) -> Row:
    """A row's columns on kernels, from those of its warm and cold launches. Launches unlike most are left out."""
    if not any(warm):
        return {}
    usual = Counter(len(launch) for launch in warm if launch).most_common(1)[0][0]
    warm, cold = ([launch for launch in launches if len(launch) == usual] for launches in (warm, cold))
    kernels: list[Row] = []
    for place in range(usual):
        facts = warm[0][place].get("args") or {}
        kernels.append(
            {
                "name": str(warm[0][place]["name"])[:200],
                "grid": facts.get("grid"),
                "block": facts.get("block"),
                "registers": facts.get("registers per thread"),
                "shared_memory_bytes": facts.get("shared memory"),
                "warm_us": statistics.median(float(launch[place]["dur"]) for launch in warm),
                "cold_us": statistics.median(float(launch[place]["dur"]) for launch in cold)
                if cold
                else None,
            }
        )
    cold_us = sum(kernel["cold_us"] for kernel in kernels) if cold else None
    return {"kernels": json.dumps(kernels), "kernel_count": usual, "cold_kernel_us": cold_us,
            "warm_kernel_us": sum(kernel["warm_us"] for kernel in kernels)}  # fmt: skip
