"""Tables that come and go as CSV or Parquet, by extension, with errors that name the file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from simtti.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


def read_table(path: str | os.PathLike[str]) -> pd.DataFrame:
    """The table in a .csv or .parquet file.

    Raises:
        InputError: missing, of another kind, or not readable as what its name says.
    """
    import pandas as pd

    file = Path(path)
    if file.suffix not in (".csv", ".parquet"):
        raise InputError(f"{file}: a table is a .csv or a .parquet file")
    if not file.exists():
        raise InputError(f"{file}: no such file")
    try:
        return pd.read_csv(file) if file.suffix == ".csv" else pd.read_parquet(file)
    except (OSError, ValueError, UnicodeDecodeError, pd.errors.ParserError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{file}: not a readable {file.suffix[1:]} table: {reason}") from None


def check_writable(path: str | os.PathLike[str]) -> None:
    """Fail before the work, not after it, when a result could not be written.

    Raises:
        InputError: the folder is missing or not writable, or the path is a folder.
    """
    file = Path(path)
    folder = file.parent
    if not folder.is_dir():
        raise InputError(f"cannot write {file}: there is no folder {folder}")
    if file.is_dir():
        raise InputError(f"cannot write {file}: it is a folder")
    if not os.access(folder, os.W_OK) or (file.exists() and not os.access(file, os.W_OK)):
        raise InputError(f"cannot write {file}: permission denied")


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        InputError: the disk is full, the folder missing, permission denied.
    """
    file = Path(path)
    partial = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        partial.write_text(text)
        os.replace(partial, file)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise InputError(f"cannot write {file}: {error.strerror or error}") from None


def write_table(table: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write `table` as CSV or Parquet by extension, whole or not at all."""
    file = Path(path)
    if file.suffix == ".csv":
        write_text(file, table.to_csv(index=False))
        return
    if file.suffix != ".parquet":
        raise InputError(f"{file}: a table is written as .csv or .parquet")
    partial = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        table.to_parquet(partial, index=False)
        os.replace(partial, file)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise InputError(f"cannot write {file}: {error.strerror or error}") from None
