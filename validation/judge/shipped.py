"""The model against everything measured that ships: the captures of whole inferences, operator by operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from simtti.hw_configs.devices import load
from simtti.jobs import Pool
from simtti.validation.judge.trace import Comparison, compare
from simtti.workloads.measured import Capture, captures
from simtti.workloads.trace import Trace

if TYPE_CHECKING:
    import pandas as pd


def compare_shipped(
    device: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    workers: int | None = None,
) -> pd.DataFrame:
    """A row a capture: operators, measured_ms, ratio of the sums of predicted and measured kernel times; p05, p25, p75, p95: the interval
    of the measured sum over the predicted one; weighted_error, the
    operators' errors weighted by their time; largest_error: the category whose error weighs most, and its share of the time.

    device: only captures of this one. progress: called with (captures done, captures). workers: processes; as many as there are
    cores if None.
    """
    import pandas as pd

    chosen = [each for each in captures() if device in (None, each.device)]
    rows: dict[int, dict[str, Any]] = {}
    if chosen:
        with Pool(workers) as pool:
            for at, row in pool.as_done(_compare, {at: (each,) for at, each in enumerate(chosen)}):
                rows[at] = row
                progress(len(rows), len(chosen))
    return pd.DataFrame([rows[at] for at in sorted(rows)])


def _compare(capture: Capture) -> dict[str, Any]:
    return _row(capture, compare(Trace.load(capture.path), load(capture.device)))


def _row(capture: Capture, found: Comparison) -> dict[str, Any]:
    table = found.table
    error_us = (table.predicted_us - table.measured_us).abs()
    total_us = float(table.measured_us.sum())
    worst = error_us.groupby(table.category).sum().sort_values().index[-1]
    return {
        "trace": capture.path.stem,
        "hw": capture.device,
        "attention": capture.attention,
        "operators": len(table),
        "measured_ms": total_us / 1e3,
        "ratio": float(table.predicted_us.sum()) / total_us,
        **found.interval._asdict(),
        "weighted_error": float(error_us.sum()) / total_us,
        "largest_error": worst,
        "largest_error_share": float(error_us[table.category == worst].sum()) / total_us,
    }
