"""Measurements from files: tables, what `simtti capture kernels` wrote, folders of others' databases."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from simtti.errors import InputError
from simtti.files import read_table
from simtti.hw_configs.devices import find_reported
from simtti.simulator.lowering.registry import FAMILIES
from simtti.validation.measurements.bench.file import read_measurements as read_capture
from simtti.validation.measurements.check import check
from simtti.validation.measurements.sources import import_measurements
from simtti.validation.measurements.table import shape_columns, shape_of

if TYPE_CHECKING:
    import pandas as pd


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
    """A file of `simtti capture kernels` in the columns of `table`: cold times, which `predict` predicts.

    Cases that failed, families that `predict` does not know (launches, gathers) and cases that its columns cannot say
    (a broadcast operand) are left out.
    """
    import pandas as pd

    captured, metadata = read_capture(path)
    reported = str(metadata["device"]["name"])
    device = find_reported(reported)
    everything = captured.to_pandas()
    parts = []
    for op in FAMILIES:
        wanted = [name for name in shape_of(op).names if name in everything.columns]
        others = [name for name in shape_columns() if name in everything.columns and name not in wanted]
        chosen = (
            (everything["op"] == op) & (everything["cold_us"] > 0) & everything[others].isna().all(axis=1)
        )
        parts.append(everything.loc[chosen, ["op", "dtype", *wanted, "cold_us"]])
    return (
        pd.concat(parts)
        .rename(columns={"cold_us": "time_us"})
        .assign(
            hw=device.name if device else reported,
            source=f"simtti capture kernels: {path.name}",
            what_is_timed="back-to-back",
        )
    )
