"""What the model says of a measured row: the time that the row's `what_is_timed` has to be held against.

back-to-back    every launch with its gap, operands from a cold L2: what `simtti predict` predicts
kernels         the kernels' execution without the gaps before them, operands in L2 where they fit
wall            as back-to-back; the host's share of such a time is not in it, so it is shown, never scored or fitted
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from simtti.errors import InputError
from simtti.hw_configs.hardware import Hardware, with_pytorch
from simtti.jobs import in_chunks
from simtti.simulator.engine.device import execution_time_s
from simtti.simulator.kernel import Kernel
from simtti.simulator.lowering.registry import baseline_of, kernels_of
from simtti.simulator.operators_time import rows_side_by_side
from simtti.simulator.predict import more_s, operator_time_s

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]
T = TypeVar("T")
KERNELS, NOT_SCORED = "kernels", "wall"
_CHUNK_ROWS = 1000


def predicted_us(
    rows: pd.DataFrame,
    hardware: Hardware,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> np.ndarray:
    """The model's time of each row in microseconds, NaN where it has none."""
    return np.array(by_rows(times_us, rows, hardware, workers, progress), float)


def times_us(rows: list[Row], hardware: Hardware) -> list[float]:
    """As predicted_us, in this process."""
    found: dict[int, float] = {}
    numbers = [number for number, row in enumerate(rows) if row.get("what_is_timed") != KERNELS]
    # A bug of ours in a column costs time: its rows are gone through one after another.
    with contextlib.suppress(Exception):
        whole = [rows[number] for number in numbers]
        for timed in rows_side_by_side(whole, lambda row: of_release(row, hardware)):
            for at, time_s in zip(timed.row, timed.time.time_s.tolist(), strict=True):
                found[numbers[at]] = time_s * 1e6
    return [found[at] if at in found else time_us(row, hardware) for at, row in enumerate(rows)]


def of_release(row: Mapping[str, Any], hardware: Hardware) -> Hardware:
    """The device with the kernels that a row was timed with, where it says so."""
    return with_pytorch(hardware, str(row.get("pytorch") or hardware.pytorch))


def time_us(row: Row, hardware: Hardware) -> float:
    try:
        hardware = of_release(row, hardware)
        return prediction_s(row, kernels_of(row, hardware), hardware) * 1e6
    except InputError:
        return math.nan


def prediction_s(row: Row, kernels: list[Kernel], hardware: Hardware) -> float:
    """Seconds of a row's kernels, by its what_is_timed; back-to-back where it has none."""
    if row.get("what_is_timed") == KERNELS:
        return sum(warm_time_s(kernel, hardware) for kernel in kernels)
    time_s, baseline = operator_time_s(kernels, hardware), baseline_of(row, hardware)
    return more_s(time_s, baseline, hardware) if baseline else time_s


def warm_time_s(kernel: Kernel, hardware: Hardware) -> float:
    """Seconds of a kernel without the launch gap, as a profiler sees it among others: operands that fit L2 are there."""
    return execution_time_s(kernel, hardware, warm_hbm_bytes(kernel, hardware))


def warm_hbm_bytes(kernel: Kernel, hardware: Hardware) -> float | None:
    """HBM bytes of a kernel that finds its operands in L2 if they fit; None, a cold L2, if they do not."""
    return 0.0 if kernel.unique_bytes <= hardware.l2_usable_bytes else None


def by_rows(
    function: Callable[[list[Row], Hardware], list[T]],
    rows: pd.DataFrame,
    hardware: Hardware,
    workers: int | None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[T]:
    """`function` over the rows, in order, by several processes where there are many rows."""
    records: list[Row] = rows.drop(columns=["time_us"], errors="ignore").to_dict("records")  # type: ignore[assignment]
    return in_chunks(function, records, hardware, size=_CHUNK_ROWS, workers=workers, progress=progress)
