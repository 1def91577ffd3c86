"""Whole inferences beside their measurements, through `sweep`: the errors of latency and energy, of the scaling with the
batch, and of the ratios between two kinds of attention and between two devices."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simtti.errors import InputError, raise_bugs
from simtti.hw_configs.devices import load, names
from simtti.journal import code_hash, journal_of
from simtti.simulator.sweep import FIGURES, figures_of, options_of
from simtti.simulator.uncertainty.residuals import Interval
from simtti.validation.fit.energy import simulate_one
from simtti.validation.fit.leave_out import left_out
from simtti.validation.judge.recordings import record_all, with_trace
from simtti.validation.measurements.table import DEGREES, RUN_COLUMNS, STAGES, options, points, runs

if TYPE_CHECKING:
    import pandas as pd

INTERVAL_S = tuple(f"{name}_s" for name in Interval._fields)
INTERVAL_J = tuple(f"{name}_j" for name in Interval._fields)


def evaluate_runs(
    measurements: pd.DataFrame,
    out: str | os.PathLike[str],
    *,
    traces: str | os.PathLike[str],
    leave_one_model_out: bool = False,
    workers: int | None = None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
    finish: Callable[[pd.DataFrame], None] = lambda table: None,
) -> pd.DataFrame:
    """Simulate every measured inference and write the table to `out` (.csv or .parquet).

    Interrupted, what is simulated is kept beside `out`, by all that it follows from: the options, the device, the host, the trace,
    the numbers of kernel families and libraries, the code; the same call does the rest.

    Args:
        traces: a folder where the traces that are recorded for this are kept for the next time.
        leave_one_model_out: see validation.fit.leave_out; three more simulations a run.
        progress: called with (stage, done, total).
        finish: what else is made of the table: what is kept beside `out` goes only after it.

    Returns:
        One row a measurement: the options of `sweep` that are filled, latency_s, energy_j, memory_bytes, source,
        what_is_timed (measured); predicted_s (of the stage that was timed) and its interval p05_s to p95_s, predicted_j and p05_j to
        p95_j, peak_memory_bytes, host_bound_share, error
        (predicted); ratio, energy_ratio, memory_ratio; with leave_one_model_out also left_out_s and left_out_j.

    Raises:
        InputError: no whole inference among the measurements; an unwritable output.
        KeyboardInterrupt: after what is simulated has been kept.
        BugError: a bug cost some rows; the others are written.
    """
    import pandas as pd

    from simtti.files import check_table, write_table

    check_table(out)
    measured = runs(measurements)
    if measured.empty:
        raise InputError("no whole inference among the measurements (rows with a workload)")
    asked = points(measurements)
    asked = asked.astype(object).where(asked.notna() & (asked != ""), None)
    rows = [options(row) for row in asked.to_dict("records")]
    folder = Path(traces)
    known = [row for row in rows if row["hw"] in names()]
    record_all(known, folder, workers, lambda done, total: progress("record", done, total))
    recorded = [options_of(with_trace(row, folder)) for row in rows]
    journal = journal_of(out, code_hash("validation"))
    with journal.alone(out):
        found = figures_of(
            recorded,
            journal,
            workers=workers,
            progress=lambda done, total: progress("simulate", done, total),
        )
        table = _beside(asked, measured, found)
        if leave_one_model_out:
            chosen = pd.DataFrame(recorded).astype(object)
            done = chosen.where(chosen.notna(), None).assign(
                op="",
                gpus=table.gpus,
                attention=measured.attention,
                launch=measured.launch,
                energy_j=measured.energy_j,
            )[table.error == ""]
            table = table.join(left_out(done, journal, workers=workers, progress=progress))
        write_table(table, out)
        finish(table)
        journal.remove()
    raise_bugs(table.error)
    return table


def _beside(asked: pd.DataFrame, measured: pd.DataFrame, found: list[dict[str, Any]]) -> pd.DataFrame:
    """The measured runs and what came out of the simulation of each."""
    import pandas as pd

    figures = pd.DataFrame(found, columns=list(FIGURES))
    table = asked.assign(
        latency_s=measured.latency_s,
        energy_j=measured.energy_j,
        memory_bytes=measured.memory_bytes,
        source=measured.source,
        what_is_timed=measured.what_is_timed,
        predicted_s=_of_stage(figures, measured.what_is_timed),
        **_intervals(figures, measured.what_is_timed),
        predicted_j=figures.energy_j.astype(float),
        peak_memory_bytes=figures.peak_memory_bytes.astype(float),
        host_bound_share=figures.host_bound_share.astype(float),
        error=[each.get("error", "") for each in found],
    )
    if "gpus" not in table:
        table.insert(2, "gpus", 1)
    table["gpus"] = table.gpus.fillna(1).astype(int)
    for name in ("batch", "steps", "height", "width", "frames", *DEGREES):
        if name in table:
            table[name] = table[name].astype(float if table[name].isna().any() else int)
    table["ratio"] = table.predicted_s / table.latency_s
    table["energy_ratio"] = table.predicted_j / table.energy_j
    table["memory_ratio"] = table.peak_memory_bytes / table.memory_bytes
    return table


def _of_stage(found: pd.DataFrame, timed: pd.Series[str]) -> pd.Series[float]:
    """Predicted seconds of what each row timed: a stage, or all of it."""
    seconds = found.latency_s.astype(float)
    for stage in STAGES:
        seconds = seconds.where(timed.to_numpy() != stage, found[f"{stage}_s"].astype(float))
    return seconds


def _intervals(found: pd.DataFrame, timed: pd.Series[str]) -> dict[str, pd.Series[float]]:
    """INTERVAL_S and INTERVAL_J of each row; a stage's has the share of the time that the whole inference's has."""
    share = _of_stage(found, timed) / found.latency_s.astype(float)
    return {
        **{name: found[f"latency_{name}"].astype(float) * share for name in INTERVAL_S},
        **{name: found[f"energy_{name}"].astype(float) for name in INTERVAL_J},
    }


def unknown_devices(table: pd.DataFrame) -> list[str]:
    """Devices of the measurements that simtti has no file for: their runs say nothing of the model."""
    return sorted(set(table.hw) - set(names())) if len(table) else []


def batch_scaling(table: pd.DataFrame) -> pd.DataFrame:
    """latency(batch) / latency(1), measured and predicted, of each run that was measured at batch 1 as well."""
    return _against(table, "batch", lambda part: part[part.batch == 1])


def device_ratios(table: pd.DataFrame) -> pd.DataFrame:
    """Latency of a run on one device over that on another (the alphabetically first), measured and predicted."""
    return _against(table, "hw", lambda part: part[part.hw == part.hw.min()])


def attention_ratios(table: pd.DataFrame) -> pd.DataFrame:
    """Latency of a run with one kind of attention over that with another, a fused one, measured and predicted."""
    if "attention" not in table:
        return _against(table, "attention", lambda part: part)  # none
    filled = table.assign(attention=table.attention.astype(object).where(table.attention.notna(), "flash"))
    fused = ~filled.attention.isin(["baseline", "math"])
    return _against(filled, "attention", lambda part: part[fused[part.index]].sort_values("attention"))


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


def breakdown(row: dict[str, Any], traces: Path | None = None) -> dict[str, float]:
    """Seconds by category of a row's inference, on one of its GPUs, as simulated alone. traces: as for evaluate_runs."""
    return dict(simulate_one(with_trace(options(row), traces), load(row["hw"])).breakdown)
