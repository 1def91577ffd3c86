"""Measurements from files: tables, what `simtti capture kernels` wrote, folders of others' databases."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from simtti.errors import InputError
from simtti.files import read_table
from simtti.hw_configs.devices import find_reported
from simtti.hw_configs.hardware import release_of
from simtti.simulator.kernels.attention import BACKENDS
from simtti.simulator.lowering.registry import FAMILIES
from simtti.validation.measurements.bench.file import read_measurements as read_capture
from simtti.validation.measurements.check import check
from simtti.validation.measurements.sources import import_measurements
from simtti.validation.measurements.table import shape_of

if TYPE_CHECKING:
    import pandas as pd

# The suite's family that measures what lies around kernels, and those of its cases in which the device does nothing.
LAUNCHES = "launch"
LAUNCHES_NOTHING = ("nothing", "view")
# What CUDA's events tell apart (CUDA Runtime API, cudaEventElapsedTime): a call that takes less launched no kernel.
EVENT_RESOLUTION_US = 0.5


def read_measurements(paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> pd.DataFrame:
    """The measurements in one or several files, one table, every column of `table`, checked.

    Files are tables of the columns of `table` (.csv, .parquet), as `simtti import measurements` writes them, what
    `simtti capture kernels` measured, or a folder that `simtti import measurements folder` reads.

    Raises:
        InputError: an unreadable file; a missing or unknown column; a row that is no measurement: the message names the
            file, the row (the first is 1), the column and the value.
    """
    import pandas as pd

    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    if not paths:
        raise InputError("no file of measurements given")
    tables = [check(_read(Path(path)), str(path)) for path in paths]
    return pd.concat(tables, ignore_index=True) if len(tables) > 1 else tables[0]


def _read(path: Path) -> pd.DataFrame:
    if path.is_dir():
        return import_measurements("folder", path).table
    table = read_table(path)
    if "cold_us" in table.columns:
        return _from_capture(path)
    return table


def _from_capture(path: Path) -> pd.DataFrame:
    """A file of `simtti capture kernels` in the columns of `table`: cold times, which `predict` predicts, less what the events
    themselves take; each row in the group that the suite measured it for.

    Cases that failed, launches, and calls that launch no kernel (a move that is a view) are left out.
    """
    import pandas as pd

    captured, metadata = read_capture(path)
    reported = str(metadata["device"]["name"])
    device = find_reported(reported)
    everything = captured.to_pandas()
    releases = [release_of(run.get("torch")) for run in metadata["runs"]]
    events_us = _events_us(everything)
    parts = []
    for op in FAMILIES:
        wanted = [name for name in shape_of(op).names if name in everything.columns]
        took_us = everything["cold_us"] - events_us
        chosen = (
            (everything["op"] == op) & (took_us >= EVENT_RESOLUTION_US) & (everything["family"] != LAUNCHES)
        )
        parts.append(everything.loc[chosen, ["op", "dtype", *wanted, "cold_us", "family", "run"]])
    return (
        pd.concat(parts)
        .assign(cold_us=lambda rows: rows.cold_us - events_us, kernel=_libraries)
        .rename(columns={"cold_us": "time_us", "family": "group"})
        .assign(
            hw=device.name if device else reported,
            pytorch=lambda rows: rows.run.map(dict(enumerate(releases))),
            source=f"simtti capture kernels: {path.name}",
            what_is_timed="back-to-back",
        )
        .drop(columns="run")
    )


def _libraries(rows: pd.DataFrame) -> pd.Series[str]:
    """The kernel column of a capture, with the library's name where only PyTorch's backend was asked for: the name by which
    families of fits know it."""
    return rows["kernel"].where(
        rows["kernel"].notna() & (rows["kernel"] != ""), rows["backend"].map(BACKENDS)
    )


def _events_us(captured: pd.DataFrame) -> float:
    """Microseconds from event to event with no kernel between them: what a capture measured of calls that launch none; 0 where it
    has none of them."""
    idle = captured[(captured["family"] == LAUNCHES) & captured["function"].isin(LAUNCHES_NOTHING)]
    return float(idle["cold_us"].min()) if idle["cold_us"].notna().any() else 0.0
