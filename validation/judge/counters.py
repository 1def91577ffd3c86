"""Hardware counters of single operators (`simtti capture kernels --counters`) beside the traffic that the model gives their
kernels: bytes at L1, at L2 and of HBM, and the hit rate of L2.

Both sides start from empty caches and end with the kernel: what L2 still holds of its results by then is not written back.

The model has no L1: its kernels ask L2 for what L1 would have missed, and `shared_bytes` is shared memory, which the counter
of L1's bytes (l1tex__t_bytes: global, local and texture accesses, TMA's copies not among them) does not see. So L1 is shown as
measured only.

L2's counters (lts__t_bytes, lts__t_sector_hit_rate) look at its slices. From A100 on L2 is in two partitions, and an SM looks up
the nearer one first (NVIDIA A100 Tensor Core GPU Architecture whitepaper, "L2 cache"): what lies in the other is looked up there
as well. On our H200 a softmax or a copy over tensors far beyond L2 is counted 1.5 to 1.55 times what it reads and writes, at a hit
rate of 50 to 53 %: half of the bytes lie in the other partition, a first read misses wherever it is looked up, a write hits.
`counted_bytes` and `counted_hit_rate` say what those counters would show of a kernel's demand.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from simtti.errors import InputError
from simtti.hw_configs.hardware import Hardware, with_parameters
from simtti.simulator.engine.l2 import L2
from simtti.simulator.kernel import Kernel
from simtti.simulator.lowering.registry import kernels_of

if TYPE_CHECKING:
    import pandas as pd

# exact: of L2's two partitions, the one that an address does not belong to.
FAR_SHARE = 0.5
# Launched by a driver's call, not as a kernel: a profiler of kernels does not see it.
NO_KERNEL = "Memset"
# Differences beyond which a row needs a reason: of hit rates, and of HBM's bytes.
HIT_RATE_LIMIT = 0.10
HBM_LIMIT = 0.15


def compare_counters(captured: pd.DataFrame, hardware: Hardware) -> pd.DataFrame:
    """A row a counted kernel, in the order of launches.

    Args:
        captured: a file of counters, as `simtti capture kernels --counters` writes it.

    Returns:
        operator (the case), kernel and counted_kernel (the model's name and the profiler's),
        l1_bytes, l1_hit_rate: measured
        l2_bytes, l2_hit_rate, hbm_read_bytes, hbm_written_bytes: measured
        asked_bytes: what the model's CTAs ask of L2
        predicted_l2_bytes, predicted_l2_hit_rate, predicted_hbm_read_bytes, predicted_hbm_written_bytes
        error: why a case has no predictions; then they are NaN, as they are of a kernel that the model does not launch.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for case in captured.to_dict("records"):
        counted = json.loads(case["kernels"])
        shape = {name: value for name, value in case.items() if name not in ("kernels", "id", "family")}
        kernels: list[Kernel] = []
        error = ""
        try:
            kernels = [each for each in asking(shape, hardware) if each.name != NO_KERNEL]
        except InputError as reason:
            error = str(reason)
        if kernels and len(kernels) != len(counted):
            error = f"the model launches {len(kernels)} kernels, {len(counted)} were counted"
            kernels = []
        for at, measured in enumerate(counted):
            row = {"operator": str(case["id"]).removeprefix("counters "), **_measured(measured)}
            row |= predicted(kernels[at], hardware) if kernels else _NO_PREDICTION
            rows.append({**row, "error": error})
    return pd.DataFrame(rows)


def asking(shape: Mapping[Any, Any], hardware: Hardware) -> list[Kernel]:
    """The kernels of a row, whose `l2_bytes` are bytes that CTAs ask for: no write costs L2 more than a read."""
    return kernels_of(shape, with_parameters(hardware, {"l2_costs.write": 1.0}))


def predicted(kernel: Kernel, hardware: Hardware) -> dict[str, Any]:
    """The predicted columns of `compare_counters` of one of `asking`'s kernels."""
    read, written = hbm_bytes(kernel, hardware)
    asked = kernel.grid * kernel.l2_bytes
    return {
        "kernel": kernel.name,
        "asked_bytes": asked,
        "predicted_l2_bytes": counted_bytes(asked, read, kernel.written_bytes),
        "predicted_l2_hit_rate": counted_hit_rate(asked, read, kernel.written_bytes),
        "predicted_hbm_read_bytes": read,
        "predicted_hbm_written_bytes": written,
    }


def hbm_bytes(kernel: Kernel, hardware: Hardware) -> tuple[float, float]:
    """Bytes read from HBM and written to it from an empty L2 until the kernel ends."""
    tensors = {slot: slot for slot, _ in (*kernel.reads, *kernel.writes)}
    moved = L2(hardware.l2_usable_bytes).touch(kernel, tensors)
    read = kernel.read_bytes + kernel.hbm_reread_bytes
    return read, max(moved - read, 0.0)


def counted_bytes(asked: float, missed: float, written: float) -> float:
    """What L2's slices count of `asked` bytes, of which `missed` come from HBM and `written` are writes."""
    return asked + FAR_SHARE * (missed + written)


def counted_hit_rate(asked: float, missed: float, written: float) -> float:
    """The share of hits among the counted bytes; NaN where nothing is asked."""
    counted = counted_bytes(asked, missed, written)
    return 1 - min((1 + FAR_SHARE) * missed / counted, 1.0) if counted else math.nan


def _measured(kernel: dict[str, Any]) -> dict[str, Any]:
    return {
        "counted_kernel": kernel["name"],
        "l1_bytes": kernel.get("l1_bytes", math.nan),
        "l1_hit_rate": kernel.get("l1_hit_percent", math.nan) / 100,
        "l2_bytes": kernel.get("l2_bytes", math.nan),
        "l2_hit_rate": kernel.get("l2_hit_percent", math.nan) / 100,
        "hbm_read_bytes": kernel.get("hbm_read_bytes", math.nan),
        "hbm_written_bytes": kernel.get("hbm_written_bytes", math.nan),
    }


_NO_PREDICTION: dict[str, Any] = {
    "kernel": "",
    **dict.fromkeys(
        ("asked_bytes", "predicted_l2_bytes", "predicted_l2_hit_rate", "predicted_hbm_read_bytes",
         "predicted_hbm_written_bytes"), math.nan),
}  # fmt: skip
