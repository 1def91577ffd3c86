"""Whole inferences beside their measurements, through `sweep`: the errors of latency and energy, of the scaling with the
batch, and of the ratio between two devices."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from simtti.errors import InputError
from simtti.hw_configs.hardware import names
from simtti.simulator.sweep import sweep
from simtti.validation.measured import RUN_COLUMNS, points, runs

if TYPE_CHECKING:
    import pandas as pd


def evaluate_runs(
    measurements: pd.DataFrame,
    out: str | os.PathLike[str],
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> pd.DataFrame:
    """Simulate every measured inference and write the table to `out` (.csv or .parquet).

    Interrupted, the finished runs are kept beside `out`; the same call does the rest.

    Returns:
        One row a measurement: the options of `sweep` that are filled, latency_s, energy_j, source (measured);
        predicted_s, predicted_j, peak_memory_bytes, host_bound_share, error (predicted); ratio, energy_ratio.

    Raises:
        InputError: no whole inference among the measurements.
    """
    from simtti.simulator.table import write_table

    measured = runs(measurements)
    if measured.empty:
        raise InputError("no whole inference among the measurements (rows with a workload)")
    asked = points(measurements)
    asked = asked.astype(object).where(asked.notna() & (asked != ""), None)
    found = sweep(asked.copy(), out, workers=workers, progress=progress)
    table = asked.assign(
        latency_s=measured.latency_s,
        energy_j=measured.energy_j,
        source=measured.source,
        predicted_s=found.latency_s.astype(float),
        predicted_j=found.energy_j.astype(float),
        peak_memory_bytes=found.peak_memory_bytes.astype(float),
        host_bound_share=found.host_bound_share.astype(float),
        error=found.error.fillna(""),
    )
    if "gpus" not in table:
        table.insert(2, "gpus", 1)
    table["gpus"] = table.gpus.fillna(1).astype(int)
    for name in ("batch", "steps", "height", "width", "frames", "ulysses", "ring"):
        if name in table:
            table[name] = table[name].astype(float if table[name].isna().any() else int)
    table["ratio"] = table.predicted_s / table.latency_s
    table["energy_ratio"] = table.predicted_j / table.energy_j
    write_table(table, out)
    return table


def unknown_devices(table: pd.DataFrame) -> list[str]:
    """Devices of the measurements that simtti has no file for: their runs say nothing of the model."""
    return sorted(set(table.hw) - set(names())) if len(table) else []


def batch_scaling(table: pd.DataFrame) -> pd.DataFrame:
    """latency(batch) / latency(1), measured and predicted, of each run that was measured at batch 1 as well."""
    return _against(table, "batch", lambda part: part[part.batch == 1])


def device_ratios(table: pd.DataFrame) -> pd.DataFrame:
    """Latency of a run on one device over that on another (the alphabetically first), measured and predicted."""
    return _against(table, "hw", lambda part: part[part.hw == part.hw.min()])


def two_sources(table: pd.DataFrame) -> pd.DataFrame:
    """Runs that more than one source measured, side by side."""
    columns = _options(table)
    keys = table[columns].astype(object).where(table[columns].notna(), "")
    several = keys.assign(source=table.source).groupby(columns, sort=False).source.transform("nunique") > 1
    return table[several].sort_values([*columns, "source"], kind="stable")


def _options(table: pd.DataFrame) -> list[str]:
    return [name for name in RUN_COLUMNS if name in table]


def _against(table: pd.DataFrame, varies: str, base: Callable[[Any], Any]) -> pd.DataFrame:
    """Each row over the base row of its group: the runs of one source that differ in the column `varies` alone."""
    import pandas as pd

    columns = [*(name for name in _options(table) if name != varies), "source"]
    done = table[table.predicted_s.notna()]
    if varies not in done or done.empty:
        return pd.DataFrame(columns=[*columns, varies, "base", "measured", "predicted", "ratio"])
    keys = done[columns].astype(object).where(done[columns].notna(), "")
    found = []
    for _, part in done.groupby([keys[name] for name in columns], sort=False):
        first = base(part)
        if first.empty:
            continue
        start = first.iloc[0]
        for row in part.to_dict("records"):
            if row[varies] != start[varies]:
                measured, predicted = (
                    row["latency_s"] / start.latency_s,
                    row["predicted_s"] / start.predicted_s,
                )
                found.append(
                    {name: row[name] for name in columns}
                    | {varies: row[varies], "base": start[varies], "measured": measured, "predicted": predicted,
                       "ratio": predicted / measured}
                )  # fmt: skip
    return pd.DataFrame(found, columns=[*columns, varies, "base", "measured", "predicted", "ratio"])


def breakdown(row: dict[str, Any]) -> dict[str, float]:
    """Seconds by category of a row's inference, on one of its GPUs, as simulated alone."""
    from simtti.simulator.api import run

    options = {
        name: row[name]
        for name in RUN_COLUMNS
        if name not in ("workload", "hw", "gpus", "ulysses", "ring")
        and name in row
        and row[name] == row[name]
        and row[name] not in (None, "")
    }
    whole = {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in options.items()
    }
    return dict(run(row["workload"], row["hw"], **whole).breakdown)
