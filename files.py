"""Files in and out: tables as CSV or Parquet, YAML, text; with errors that name the file.

What is written is there whole or not at all. A device, a FIFO, a process substitution is written to; a symlink stays one, and so does
a file's mode.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simtti.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

_MOST_YAML_BYTES = 1 << 24
_MOST_YAML_VALUES = 200_000  # with aliases written out


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """What a YAML file holds.

    Raises:
        InputError: it cannot be read, is no YAML, or is larger than any file of ours (aliases written out).
    """
    import yaml

    file = Path(path)
    try:
        if file.stat().st_size > _MOST_YAML_BYTES:
            raise InputError(f"{file}: larger than {_MOST_YAML_BYTES >> 20} MiB: no file of simtti's")
        content = yaml.load(file.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        _check_size(file, content)
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        # Beside YAMLError, what the constructors of dates, numbers and truth values raise.
        what = "cannot be read" if isinstance(error, UnicodeDecodeError) else "not valid YAML"
        raise InputError(f"{file}: {what}: {' '.join(str(error).split()) or type(error).__name__}") from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror or error}") from None
    except RecursionError:
        raise InputError(f"{file}: not valid YAML: nested too deeply") from None
    return content


def _check_size(file: Path, content: Any) -> None:
    left, stack = _MOST_YAML_VALUES, [content]
    while stack:
        each = stack.pop()
        children = list(each.values()) if isinstance(each, dict) else each if isinstance(each, list) else ()
        left -= 1 + len(children)
        if left < 0:
            raise InputError(
                f"{file}: more than {_MOST_YAML_VALUES:,} values, aliases written out: no file of simtti's"
            )
        stack.extend(children)


def read_table(path: str | os.PathLike[str]) -> pd.DataFrame:
    """The table in a .csv or .parquet file.

    Raises:
        InputError: missing, of another kind, or not readable as what its name says.
    """
    import pandas as pd

    file = Path(path)
    if file.suffix not in (".csv", ".parquet"):
        raise InputError(f"{file}: a table is a .csv or a .parquet file")
    if not os.path.exists(file):  # of a name of any length: Path.exists raises
        raise InputError(f"{file}: no such file")
    try:
        return pd.read_csv(file, low_memory=False) if file.suffix == ".csv" else pd.read_parquet(file)
    except (OSError, ValueError, LookupError, TypeError, OverflowError, pd.errors.ParserError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{file}: not a readable {file.suffix[1:]} table: {reason}") from None


def check_writable(path: str | os.PathLike[str]) -> None:
    """Fail before the work, not after it, when a result could not be written.

    Raises:
        InputError: the folder is missing or not writable, or the path is a folder.
    """
    file = Path(path)
    folder = file.parent
    if not os.path.isdir(folder):
        raise InputError(f"cannot write {file}: there is no folder {folder}")
    if os.path.isdir(file):
        raise InputError(f"cannot write {file}: it is a folder")
    there = os.path.exists(file)
    special = there and not os.path.isfile(file)
    if not (special or os.access(folder, os.W_OK)) or (there and not os.access(file, os.W_OK)):
        raise InputError(f"cannot write {file}: permission denied")


def check_table(path: str | os.PathLike[str]) -> None:
    """Fail before the work when a table could not be written.

    Raises:
        InputError: as `check_writable`, or neither .csv nor .parquet.
    """
    check_writable(path)
    if Path(path).suffix not in (".csv", ".parquet"):
        raise InputError(f"{path}: a table is written as .csv or .parquet")


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A file to write in the place of `path`, whole or not at all: it takes its place when the block ends without an exception.

    What is no file (a device, a FIFO, /dev/fd/N) is written to itself; of a symlink, what it points to.

    Raises:
        InputError: the disk is full, the folder missing, permission denied.
    """
    given = Path(path)
    try:
        file = Path(os.path.realpath(given)) if given.is_symlink() and not _is_special(given) else given
        if _is_special(given):
            yield given
            return
        mode = file.stat().st_mode & 0o7777 if file.exists() else 0o666 & ~_umask()
        import tempfile  # no part of every start

        number, name = tempfile.mkstemp(prefix=f".{file.name[:80]}.", suffix=".tmp", dir=file.parent)
        os.close(number)
        partial = Path(name)
        try:
            yield partial
            partial.chmod(mode)
            os.replace(partial, file)
        except BaseException:
            with suppress(OSError):
                partial.unlink()
            raise
    except OSError as error:
        raise InputError(f"cannot write {given}: {error.strerror or error}") from None


def _is_special(file: Path) -> bool:
    return file.exists() and not file.is_file()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a file of UTF-8 whole or not at all; compressed where its name ends in .gz.

    Raises:
        InputError: the disk is full, the folder missing, permission denied.
    """
    content = text.encode("utf-8", errors="backslashreplace")
    if Path(path).suffix == ".gz":
        import gzip  # no part of every start

        content = gzip.compress(content, mtime=0)
    with replacing(path) as partial:
        partial.write_bytes(content)


def json_text(found: Any) -> str:
    """`found` as JSON for people and programs: two spaces a level, null for each number that JSON has no word for."""
    return json.dumps(finite(found), indent=2, allow_nan=False) + "\n"


def finite(found: Any) -> Any:
    """`found` with null for each number that JSON has no word for: NaN and infinity."""
    if isinstance(found, float):
        return found if math.isfinite(found) else None
    if isinstance(found, dict):
        return {key: finite(value) for key, value in found.items()}
    return [finite(value) for value in found] if isinstance(found, list | tuple) else found


def write_table(table: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write `table` as CSV or Parquet by extension, whole or not at all.

    Parquet has one type a column: one of numbers and texts, or of numbers beyond 64 bits, is written as texts.
    """
    file = Path(path)
    check_table(file)
    import pyarrow as pa

    with replacing(file) as partial:
        if file.suffix == ".csv":
            table.to_csv(partial, index=False, errors="backslashreplace")
            return
        try:
            table.to_parquet(partial, index=False)
        except (pa.ArrowException, OverflowError, TypeError):
            _of_one_type(table).to_parquet(partial, index=False)


def _of_one_type(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the columns of mixed types as texts."""
    plain = table.copy()
    for name in plain.select_dtypes("object").columns:
        plain[name] = [None if cell is None or cell != cell else str(cell) for cell in plain[name]]
    return plain
