"""A file of measurements: what its columns are, what it holds already, and rows added to it. See `measure`."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from simtti.errors import InputError
from simtti.files import replacing
from simtti.validation.measurements.case import SHAPE_COLUMNS

SCHEMA_VERSION = 1
METADATA_KEY = b"simtti_measurements"
_TIMES = ("warm_us", "warm_p10_us", "warm_p90_us", "cold_us", "cold_p10_us", "cold_p90_us", "host_us",
          "warm_kernel_us", "cold_kernel_us")  # fmt: skip
STATE = ("sm_clock_mhz", "memory_clock_mhz", "temperature_c", "power_w")
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "family", "op", "dtype")),
        *((name, {int: pa.int64(), bool: pa.bool_(), str: pa.string()}[kind]) for name, kind in SHAPE_COLUMNS.items()),
        *((name, pa.float64()) for name in (*_TIMES, "flops", "nbytes", *STATE)),
        *((name, pa.int64()) for name in ("kernel_count", "run")),
        *((name, pa.string()) for name in ("kernels", "failure")),
    ]
)  # fmt: skip

Row = dict[str, Any]


class MeasurementFile:
    """A file of measurements: what it holds already, and batches added to it. Written whole or not at all."""

    def __init__(self, path: Path, facts: dict[str, Any], command: str) -> None:
        self.path = path
        self.device: dict[str, Any] = facts.pop("device")
        self._tables: list[pa.Table] = []
        runs: list[dict[str, Any]] = []
        if path.exists():
            table, metadata = read_measurements(path)
            _check_device(path, metadata["device"], self.device)
            self._tables, runs = [table], metadata["runs"]
        run = {"date": _now(), "command": command, "script": script_hash(), **facts}
        self._metadata = {"schema_version": SCHEMA_VERSION, "device": self.device, "runs": [*runs, run]}

    def ids(self) -> set[str]:
        return {id for table in self._tables for id in table.column("id").to_pylist()}

    def append(self, rows: list[Row]) -> None:
        if not rows:
            return
        number = len(self._metadata["runs"]) - 1
        self._tables.append(pa.Table.from_pylist([{**row, "run": number} for row in rows], SCHEMA))
        table = pa.concat_tables(self._tables).combine_chunks()
        self._tables = [table]
        metadata = {METADATA_KEY: json.dumps(self._metadata).encode()}
        with replacing(self.path) as partial:
            pq.write_table(table.replace_schema_metadata(metadata), partial, compression="zstd")


def read_measurements(path: str | os.PathLike[str]) -> tuple[pa.Table, dict[str, Any]]:
    """A file's rows and its metadata: device and runs.

    Raises:
        InputError: missing, unreadable, or not a file of measurements.
    """
    file = Path(path)
    if not file.exists():
        raise InputError(f"{file}: no such file")
    try:
        table = pq.read_table(file)
    except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{file}: not a readable .parquet table: {reason}") from None
    packed = (table.schema.metadata or {}).get(METADATA_KEY)
    if packed is None:
        raise InputError(f"{file}: not a file of measurements: it has no {METADATA_KEY.decode()} metadata")
    metadata = json.loads(packed)
    if metadata.get("schema_version") != SCHEMA_VERSION or table.schema.names != SCHEMA.names:
        raise InputError(
            f"{file}: its schema_version is {metadata.get('schema_version')!r} and this simtti writes {SCHEMA_VERSION}; "
            "measure into another file"
        )
    return table.replace_schema_metadata(None), metadata


def _check_device(path: Path, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    if theirs["name"] != ours["name"]:
        raise InputError(
            f"{path}: holds measurements of {theirs['name']}, and this is {ours['name']}; use another file"
        )


def ids_of(path: Path, device: dict[str, Any]) -> set[str]:
    table, metadata = read_measurements(path)
    _check_device(path, metadata["device"], device)
    return set(table.column("id").to_pylist())


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def script_hash() -> str:
    """A hash of the suite and of what measures it: what was measured, and how."""
    here = Path(__file__).parent
    digest = hashlib.sha256()
    suite = [here.parent / name for name in ("case.py", "shapes.py", "suite.py")]
    for path in (*suite, *sorted(here.glob("*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def reason_of(error: Exception) -> str:
    """A failure, as a row tells it."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200] if lines else ''}"
