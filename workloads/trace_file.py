"""Traces in Parquet files: one row an operator, and of a timed trace one row a kernel.

The columns of an operator:

    phase, step, position   where the operator stands
    module, op, category    what it is
    inputs, outputs         the identities of the storages it reads and writes
    input_layouts, output_layouts
                            what each of those operands looks like: a number in the `layouts` table
    attributes              JSON: everything that is not a tensor and changes the work
    is_view                 whether it launches nothing
    released                the identities of the storages let go of after it; files of before 2026-11-27 lack it

The Arrow schema's metadata carries, as one JSON object under `simtti_trace`, the schema version, the
workload and its options, the steps and their counts, and the `layouts` table (dtype, shape, strides,
storage bytes, role), where a few hundred entries serve ten thousand operands.

A timed trace adds a second table, in the same file so that the two cannot be parted: after the operators' row
groups come the kernels' (columns `kernel_*`, one row a kernel in order of start), each leaving the other's columns
empty; columns `host_*` give the operators' host times. Such a file has schema version 2; without times it is 1.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from simtti.errors import InputError, Problems
from simtti.files import replacing
from simtti.workloads.trace import HostTime, TensorUse, TimedKernel, Timing, Trace, row_major
from simtti.workloads.trace_rows import (
    COLUMNS,
    HOST_COLUMNS,
    KERNEL_COLUMNS,
    OPTIONAL_COLUMNS,
    read_timing,
    read_trace,
)

SCHEMA_VERSION = 1
TIMED_SCHEMA_VERSION = 2
METADATA_KEY = b"simtti_trace"
# Numbers that go up, most of them by one: their differences take a fraction of the room.
_RISING = (
    "position", "inputs.list.element", "outputs.list.element", "released.list.element", "kernel_operator",
    "kernel_correlation",
)  # fmt: skip
_TIMED_COLUMNS = pa.schema([*COLUMNS, *HOST_COLUMNS, *KERNEL_COLUMNS])
# What the metadata must hold, and of which JSON type.
_METADATA: dict[str, type] = {
    "workload": str, "options": dict, "phases": list, "layouts": list, "schedule": dict,
    "parameters": dict, "parameter_bytes": dict, "provenance": dict,
}  # fmt: skip


def save(trace: Trace, path: str | os.PathLike[str]) -> None:
    """Write a trace; the same trace gives the same bytes. No half-written file is ever seen.

    Raises:
        InputError: the file cannot be written.
    """
    path = Path(path)
    tables = [_to_table(trace)]
    if trace.timing is not None:
        tables = _with_timing(tables[0], trace.timing)
    with (
        replacing(path) as partial,
        partial.open("wb") as file,
        pq.ParquetWriter(file, tables[0].schema, **_how(tables[0].schema)) as writer,
    ):
        for table in tables:
            writer.write_table(table)
        writer.add_key_value_metadata(dict(tables[0].schema.metadata))


def _how(schema: pa.Schema) -> dict[str, Any]:
    """The writer's settings. Without Arrow's own copy of the schema, which holds the metadata once more."""
    leaves = [f"{item.name}.list.element" if pa.types.is_list(item.type) else item.name for item in schema]
    return {
        "compression": "zstd",
        "compression_level": 19,
        "write_page_checksum": True,
        "store_schema": False,
        "use_dictionary": [leaf for leaf in leaves if leaf not in _RISING],
        "column_encoding": {leaf: "DELTA_BINARY_PACKED" for leaf in leaves if leaf in _RISING},
    }


def load(path: str | os.PathLike[str]) -> Trace:
    """Read a trace written by `save`. What is wrong with a file is said in one line.

    Raises:
        InputError: no such file, or none that `save` wrote.
    """
    path = Path(path)
    table = _read_table(path)
    metadata = _read_metadata(path, table.schema)
    if metadata["schema_version"] == SCHEMA_VERSION:
        return read_trace(path, table, metadata)
    count = _number_of_kernels(path, metadata, table.num_rows)
    kernels, table = table.slice(table.num_rows - count), table.slice(0, table.num_rows - count)
    timing = read_timing(path, table, kernels, metadata["timing"])
    return replace(read_trace(path, table, metadata), timing=timing)


# ---- writing


def provenance_of(path: str | os.PathLike[str]) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """A file's workload, options and provenance, without reading its rows.

    Raises:
        InputError: no such file, or none that `save` wrote.
    """
    path = Path(path)
    try:
        schema = pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: not a readable trace: {_reason(error)}") from None
    metadata = _read_metadata(path, schema)
    return metadata["workload"], metadata["options"], metadata["provenance"]


def _to_table(trace: Trace) -> pa.Table:
    layouts: dict[tuple[Any, ...], int] = {}

    def layout(use: TensorUse) -> int:
        strides = None if use.strides == row_major(use.shape) else use.strides
        key = (use.dtype, use.shape, strides, use.storage_bytes, use.role)
        return layouts.setdefault(key, len(layouts))

    operators = list(trace.operators())
    columns: dict[str, pa.Array] = {}

    def add(name: str, values: Iterable[Any]) -> None:
        """One after another: of a million operators, each is a large list until it is an array."""
        columns[name] = pa.array(values, COLUMNS.field(name).type)

    add("phase", [operator.phase for operator in operators])
    add("step", [operator.step for operator in operators])
    add("position", [operator.position for operator in operators])
    add("module", [operator.module for operator in operators])
    add("op", [operator.op for operator in operators])
    add("category", [operator.category for operator in operators])
    add("inputs", [[use.tensor for use in operator.inputs] for operator in operators])
    add("input_layouts", [[layout(use) for use in operator.inputs] for operator in operators])
    add("outputs", [[use.tensor for use in operator.outputs] for operator in operators])
    add("output_layouts", [[layout(use) for use in operator.outputs] for operator in operators])
    add("attributes", [_json(operator.attributes) for operator in operators])
    add("is_view", [operator.is_view for operator in operators])
    add("released", [operator.released for operator in operators])
    metadata = {
        "schema_version": SCHEMA_VERSION,
        "workload": trace.workload,
        "options": trace.options,
        "phases": [
            {
                "name": phase.name,
                "steps": [{"count": s.count, "operators": len(s.operators)} for s in phase.steps],
            }
            for phase in trace.phases
        ],
        "layouts": list(layouts),
        "schedule": trace.schedule,
        "parameters": trace.parameters,
        "parameter_bytes": trace.parameter_bytes,
        "provenance": trace.provenance,
    }
    return pa.table(columns, schema=COLUMNS.with_metadata({METADATA_KEY: _json(metadata).encode()}))


def _with_timing(table: pa.Table, timing: Timing) -> list[pa.Table]:
    """The operators' table with their host times, and the kernels', both with the columns of both."""
    if len(timing.host) != table.num_rows:
        raise ValueError(f"{len(timing.host)} host times for {table.num_rows} operators")

    def column(name: str, values: Iterable[Any]) -> pa.Array:
        return pa.array(values, _TIMED_COLUMNS.field(name).type)

    host = {
        name: column(name, [getattr(time, item.name, None) for time in timing.host])
        for item in fields(HostTime)
        if (name := f"host_{item.name}")
    }
    kernels = {
        name: column(name, [getattr(kernel, item.name) for kernel in timing.kernels])
        for item in fields(TimedKernel)
        if (name := f"kernel_{item.name}")
    }
    metadata = json.loads(table.schema.metadata[METADATA_KEY])
    metadata["schema_version"] = TIMED_SCHEMA_VERSION
    metadata["timing"] = {
        "kernels": len(timing.kernels),
        "device": timing.device,
        "end_to_end": timing.end_to_end,
    }
    schema = _TIMED_COLUMNS.with_metadata({METADATA_KEY: _json(metadata).encode()})
    operators = {name: table.column(name) for name in COLUMNS.names}

    def filled(columns: dict[str, Any], rows: int) -> pa.Table:
        return pa.table(
            {item.name: columns.get(item.name, pa.nulls(rows, item.type)) for item in schema}, schema=schema
        )

    return [filled({**operators, **host}, table.num_rows), filled(kernels, len(timing.kernels))]


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


# ---- reading


def _reason(error: Exception) -> str:
    """The one line of an error that a user can act on."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _read_table(path: Path) -> pa.Table:
    if os.path.isdir(path):
        raise InputError(f"{path} is a folder, not a trace file")
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except FileNotFoundError:
        raise InputError(f"there is no trace file {path}") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {_reason(error)}") from None
    if magic != b"PAR1":
        raise InputError(f"{path} is not a Parquet file")
    try:
        table = pq.ParquetFile(path, page_checksum_verification=True).read(use_threads=False)
        # Nothing checks the footer; a column whose name is no text fails only when asked for it.
        _ = table.schema.names
        return table
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is truncated or damaged: {_reason(error)}") from None


def _read_metadata(path: Path, schema: pa.Schema) -> dict[str, Any]:
    stored = (schema.metadata or {}).get(METADATA_KEY)
    try:
        metadata = json.loads(stored) if stored is not None else {}
    except ValueError:
        raise InputError(f"{path}: schema metadata {METADATA_KEY.decode()} is not JSON") from None
    if stored is not None and not isinstance(metadata, dict):
        raise InputError(f"{path}: schema metadata {METADATA_KEY.decode()} is not a JSON object")
    # The version comes first: a later version may well have other columns.
    version = metadata.get("schema_version", None if stored is not None else SCHEMA_VERSION)
    if type(version) is not int or version not in (SCHEMA_VERSION, TIMED_SCHEMA_VERSION):
        raise InputError(
            f"{path} has trace schema version {version!r}; this simtti reads versions {SCHEMA_VERSION} and "
            f"{TIMED_SCHEMA_VERSION}"
        )
    columns = COLUMNS if version == SCHEMA_VERSION else _TIMED_COLUMNS
    columns = pa.schema([c for c in columns if c.name not in OPTIONAL_COLUMNS or c.name in schema.names])
    missing = [f"column {name}" for name in columns.names if name not in schema.names]
    if stored is None:
        missing.insert(0, f"schema metadata {METADATA_KEY.decode()}")
    if missing:
        raise InputError(f"{path} is a Parquet file but not a simtti trace; it lacks {', '.join(missing)}")
    problems = Problems()
    for name, kind in _METADATA.items():
        if not isinstance(metadata.get(name), kind):
            problems.note(f"metadata field {name} is missing or not a JSON {kind.__name__}")
    for expected in columns:
        found = schema.field(expected.name).type
        if found != expected.type:
            problems.note(f"column {expected.name} has type {found}, expected {expected.type}")
    problems.raise_any(str(path))
    return metadata


def _number_of_kernels(path: Path, metadata: Mapping[str, Any], rows: int) -> int:
    timing = metadata.get("timing")
    if not isinstance(timing, dict) or any(
        type(timing.get(name)) is not kind
        for name, kind in (("kernels", int), ("device", dict), ("end_to_end", dict))
    ):
        raise InputError(f"{path}: metadata field timing must hold kernels (a number), device and end_to_end")
    count: int = timing["kernels"]
    if not 0 <= count <= rows:
        raise InputError(
            f"{path}: metadata field timing promises {count} kernels, but the file has {rows} rows"
        )
    return count
