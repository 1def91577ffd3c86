"""Collections of published runs in one table, and what other simulators predict of them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from simtti.errors import InputError
from simtti.files import read_table
from simtti.validation.measurements.check import check
from simtti.validation.measurements.read import read_measurements
from simtti.validation.measurements.sources import READERS, Imported, import_measurements
from simtti.validation.measurements.sources.public_runs import FORMS

if TYPE_CHECKING:
    import pandas as pd


def read_collections(paths: Sequence[str | os.PathLike[str]]) -> Imported:
    """The whole inferences and stages in tables of published runs (public_runs), tables of measurements, folders of either, and
    clones of the databases that `simtti import measurements` reads.

    Raises:
        InputError: a file that is neither; none with a whole inference.
    """
    import pandas as pd

    left_out: Counter[str] = Counter()
    tables = [_read(Path(path), left_out) for path in paths]
    table = pd.concat(tables, ignore_index=True)
    runs = table[table.workload != ""].reset_index(drop=True)
    if runs.empty:
        raise InputError(f"{', '.join(map(str, paths))}: no whole inference in it")
    return Imported(runs, left_out)


def _read(path: Path, left_out: Counter[str]) -> pd.DataFrame:
    if path.is_dir():
        return _folder(path, left_out)
    table = read_table(path)
    for columns, reader in FORMS.values():
        if columns <= set(table.columns):
            import pandas as pd

            rows = pd.DataFrame(list(reader(table, left_out)))
            return check(rows, str(path)) if len(rows) else check(rows.reindex(columns=_LEAST), str(path))
    return read_measurements(path)


_SECONDS = (1e-9, 1e9)  # that an inference, or a stage of one, may take by a prediction
_LEAST = ["hw", "dtype", "source", "what_is_timed", "workload"]


def _folder(path: Path, left_out: Counter[str]) -> pd.DataFrame:
    """A folder of files that are known by name, or a clone."""
    for kind in ("folder", *(name for name in READERS if name != "folder")):
        try:
            found = import_measurements(kind, path)
        except InputError as error:
            reason = error
            continue
        left_out.update(found.left_out)
        return found.table
    raise reason


def with_predictions(
    found: pd.DataFrame, path: str | os.PathLike[str]
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """`found` with a column of seconds for each other simulator, by `source`, which names a row; and their names.

    Raises:
        InputError: no column source, a source that is no row, or a prediction that is no positive number.
    """
    import pandas as pd

    table = read_table(path)
    if "source" not in table.columns:
        raise InputError(f"{path}: column 'source' is missing; it names the row, as in scoreboard.csv")
    names = tuple(str(name) for name in table.columns if name != "source")
    sources = table.source.fillna("").astype(str)
    strange = sorted(set(sources) - set(found.source))
    if strange:
        raise InputError(f"{path}: source {strange[0]!r} is no row of the scoreboard")
    if sources.duplicated().any():
        raise InputError(f"{path}: source {sources[sources.duplicated()].iloc[0]!r} stands there twice")
    if not names:
        raise InputError(f"{path}: there is no column but source; give one of seconds for each simulator")
    for name in names:
        if name in found.columns:
            raise InputError(f"{path}: column {name!r} is one of the scoreboard's own; give it another name")
        seconds = pd.to_numeric(table[name], errors="coerce")
        bad = (seconds.isna() & table[name].notna()) | ~seconds.fillna(1.0).between(*_SECONDS)
        if bad.any():
            at = int(bad.to_numpy().argmax())
            raise InputError(
                f"{path}: row {at + 1}: column {name!r} is {table[name].iloc[at]}; it must be seconds, from {_SECONDS[0]:g} to {_SECONDS[1]:g}"
            )
        found = found.assign(**{name: found.source.map(dict(zip(sources, seconds, strict=True)))})
    return found, names
