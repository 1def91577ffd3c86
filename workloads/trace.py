"""A trace: what one inference does, operator by operator, as the framework issued it.

A `Trace` holds shapes, never weights. It is a few phases (text encoder, denoising, decoder), each a few
steps; a step that repeats with the same shapes is stored once, with its count. `Trace.save` and
`Trace.load` keep it in one Parquet file of one row an operator:

    phase, step, position   where the operator stands
    module, op, category    what it is
    inputs, outputs         the identities of the storages it reads and writes
    input_layouts, output_layouts
                            what each of those operands looks like: a number in the `layouts` table
    attributes              JSON: everything that is not a tensor and changes the work
    is_view                 whether it launches nothing

The Arrow schema's metadata carries, as one JSON object under `simtti_trace`, the schema version, the
workload and its options, the steps and their counts, and the `layouts` table (dtype, shape, strides,
storage bytes, role), where a few hundred entries serve ten thousand operands.

A timed trace adds a second table, in the same file so that the two cannot be parted: after the operators' row
groups come the kernels' (columns `kernel_*`, one row a kernel in order of start), each leaving the other's columns
empty; columns `host_*` give the operators' host times. Such a file has schema version 2; without times it is 1.
"""

import json
import math
import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from simtti.errors import InputError

SCHEMA_VERSION = 1
TIMED_SCHEMA_VERSION = 2
METADATA_KEY = b"simtti_trace"

CATEGORIES = (
    "Convolution", "Linear", "Attention", "GroupNorm", "LayerNorm", "Softmax", "Elementwise", "Memory",
    "Communication", "View", "Other",
)  # fmt: skip
KERNEL_KINDS = ("kernel", "memcpy", "memset")
ROLES = ("parameter", "buffer", "input", "activation")
ITEM_BYTES = {
    "fp64": 8, "fp32": 4, "bf16": 2, "fp16": 2, "fp8_e4m3": 1, "fp8_e5m2": 1, "complex64": 8, "complex128": 16,
    "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1,
}  # fmt: skip

_NUMBERS = pa.list_(pa.int32())
_COLUMNS = pa.schema(
    [
        ("phase", pa.string()),
        ("step", pa.int32()),
        ("position", pa.int32()),
        ("module", pa.string()),
        ("op", pa.string()),
        ("category", pa.string()),
        ("inputs", _NUMBERS),
        ("input_layouts", _NUMBERS),
        ("outputs", _NUMBERS),
        ("output_layouts", _NUMBERS),
        ("attributes", pa.string()),
        ("is_view", pa.bool_()),
    ]
)
# One a field of HostTime and of TimedKernel.
_HOST_COLUMNS = pa.schema(
    [
        ("host_start_us", pa.float64()),
        ("host_duration_us", pa.float64()),
        ("host_waiting_us", pa.float64()),
        ("host_thread", pa.int64()),
    ]
)
_KERNEL_COLUMNS = pa.schema(
    [
        ("kernel_name", pa.string()),
        ("kernel_start_us", pa.float64()),
        ("kernel_duration_us", pa.float64()),
        ("kernel_operator", pa.int32()),
        ("kernel_kind", pa.string()),
        ("kernel_device", pa.int32()),
        ("kernel_stream", pa.int64()),
        ("kernel_correlation", pa.int64()),
        ("kernel_launch_us", pa.float64()),
        ("kernel_launch_duration_us", pa.float64()),
        ("kernel_grid", _NUMBERS),
        ("kernel_block", _NUMBERS),
        ("kernel_registers", pa.int32()),
        ("kernel_shared_memory_bytes", pa.int64()),
        ("kernel_nbytes", pa.int64()),
    ]
)
_TIMED_COLUMNS = pa.schema([*_COLUMNS, *_HOST_COLUMNS, *_KERNEL_COLUMNS])
# What the metadata must hold, and of which JSON type.
_METADATA: dict[str, type] = {
    "workload": str, "options": dict, "phases": list, "layouts": list, "schedule": dict,
    "parameters": dict, "parameter_bytes": dict, "provenance": dict,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorUse:
    """One operand of an operator.

    `tensor` identifies the *storage*: a view has the identity of what it views, and a weight the same one each
    time it is used. `strides` are in elements; `storage_bytes` is the size of the whole storage. The role
    belongs to the storage too: an 'input' is made outside what was recorded, an 'activation' within it.
    """

    tensor: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str
    storage_bytes: int
    role: str

    @property
    def numel(self) -> int:
        """Elements, counting an expanded one as often as it is seen."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the elements seen: `numel` times the size of one."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]

    @property
    def contiguous(self) -> bool:
        """Whether the elements lie in row-major order without gaps (NCHW for an image)."""
        return _dense_in_order(self.shape, self.strides, range(len(self.shape)))

    @property
    def channels_last(self) -> bool:
        """Whether a 4-D or 5-D tensor lies as N(D)HWC without gaps."""
        rank = len(self.shape)
        return rank in (4, 5) and _dense_in_order(self.shape, self.strides, (0, *range(2, rank), 1))


@dataclass(frozen=True, slots=True)
class Operator:
    """One call into the framework's operator library. `attributes` may be shared: read it, never write it.

    `is_view` operators launch no kernel: views, allocations, and work the host does on its own
    (category 'Other' with attribute device 'cpu').
    """

    phase: str
    step: int
    position: int
    module: str
    op: str
    category: str
    inputs: tuple[TensorUse, ...]
    outputs: tuple[TensorUse, ...]
    attributes: dict[str, Any]
    is_view: bool


@dataclass(frozen=True, slots=True)
class HostTime:
    """When the host worked on an operator, from its call to its return.

    `waiting_us` of it the thread only waited for the GPU (cudaStreamSynchronize, a copy to pageable memory).
    """

    start_us: float
    duration_us: float
    waiting_us: float = 0.0
    thread: int = 0


@dataclass(frozen=True, slots=True)
class TimedKernel:
    """A kernel, a copy or a fill that the GPU ran. None is what was not measured, or what a copy does not have.

    operator: the row, in the order of `Trace.operators()`, that launched it; None where that is not known.
    launch_us, launch_duration_us: the host's call that launched it. Kernels of one correlation share one call: a
    CUDA graph's. Threads, registers and shared memory are per block (registers per thread); nbytes is a copy's.
    """

    name: str
    start_us: float
    duration_us: float
    operator: int | None = None
    kind: str = "kernel"
    device: int = 0
    stream: int = 0
    correlation: int = 0
    launch_us: float | None = None
    launch_duration_us: float | None = None
    grid: tuple[int, int, int] | None = None
    block: tuple[int, int, int] | None = None
    registers: int | None = None
    shared_memory_bytes: int | None = None
    nbytes: int | None = None

    @property
    def end_us(self) -> float:
        return self.start_us + self.duration_us


@dataclass(frozen=True, slots=True)
class Timing:
    """What was measured while a trace ran. Times are in microseconds on one clock, from the first event on.

    kernels: in order of start. host: one entry an operator, None where it was not seen.
    device: facts of the GPU, by name. end_to_end: times taken without the profiler, where they were.
    """

    kernels: tuple[TimedKernel, ...]
    host: tuple[HostTime | None, ...]
    device: dict[str, Any] = field(default_factory=dict)
    end_to_end: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """Operators in the order they were issued, and how many times in a row they are."""

    count: int
    operators: tuple[Operator, ...]


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the inference with a name of its own: 'text_encoder', 'denoising', 'decoder', ..."""

    name: str
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Trace:
    """One inference of a workload.

    `schedule` says which phases the option `steps` stretches, and by how many evaluations each exceeds it: a
    PNDM sampler evaluates its model n + 1 times for n steps, so {"denoising": 1}; for most it is 0.
    `parameters` and `parameter_bytes` count each component's weights as they are before the first phase.
    `timing` is there if the trace was measured.
    """

    workload: str
    options: dict[str, Any]
    phases: tuple[Phase, ...]
    parameters: dict[str, int] = field(default_factory=dict)
    parameter_bytes: dict[str, int] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    schedule: dict[str, int] = field(default_factory=dict)
    timing: Timing | None = None

    def operators(self) -> Iterator[Operator]:
        """Every stored operator once, whatever its step's count."""
        for phase in self.phases:
            for step in phase.steps:
                yield from step.operators

    def with_steps(self, steps: int) -> "Trace":
        """The same trace with another number of denoising steps."""
        if not isinstance(steps, int) or steps < 1:
            raise InputError(f"steps is {steps!r}; it must be a whole number of at least 1")
        if not self.schedule:
            raise InputError(f"the trace of {self.workload} has no phase whose number of steps can be set")
        phases = tuple(
            self._with_count(phase, evaluations(steps, self.schedule[phase.name]))
            if phase.name in self.schedule
            else phase
            for phase in self.phases
        )
        return replace(self, phases=phases, options={**self.options, "steps": steps})

    def _with_count(self, phase: Phase, count: int) -> Phase:
        if len(phase.steps) != 1:
            raise InputError(
                f"the trace of {self.workload} stores {len(phase.steps)} steps one by one in phase {phase.name}, "
                "so their number is fixed; record it anew with the number wanted"
            )
        return replace(phase, steps=(replace(phase.steps[0], count=count),))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the trace as Parquet; the same trace gives the same bytes. No half-written file is ever seen."""
        path = Path(path)
        tables = [_to_table(self)]
        if self.timing is not None:
            tables = _with_timing(tables[0], self.timing)
        partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        how: dict[str, Any] = {"compression": "zstd", "compression_level": 19, "write_page_checksum": True}
        try:
            with partial.open("wb") as file, pq.ParquetWriter(file, tables[0].schema, **how) as writer:
                for table in tables:
                    writer.write_table(table)
            os.replace(partial, path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise InputError(f"cannot write {path}: {_reason(error)}") from None

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Trace":
        """Read a trace written by `save`. What is wrong with a file is said in one line."""
        path = Path(path)
        table = _read_table(path)
        metadata = _read_metadata(path, table.schema)
        if metadata["schema_version"] == SCHEMA_VERSION:
            return _from_table(path, table, metadata)
        count = _number_of_kernels(path, metadata, table.num_rows)
        kernels, table = table.slice(table.num_rows - count), table.slice(0, table.num_rows - count)
        timing = _read_timing(path, table, kernels, metadata["timing"])
        return replace(_from_table(path, table, metadata), timing=timing)

    def kernels_dataframe(self) -> Any:
        """A pandas table of one row a measured kernel, with the operator that launched it; empty without times."""
        import pandas as pd

        operators = list(self.operators())
        names = [item.name for item in fields(TimedKernel)]
        rows = []
        for kernel in self.timing.kernels if self.timing else ():
            operator = None if kernel.operator is None else operators[kernel.operator]
            row = {name: getattr(kernel, name) for name in names}
            for name in ("phase", "step", "position", "module", "op", "category"):
                row[name] = getattr(operator, name, None)
            rows.append(row)
        columns = [*names, "phase", "step", "position", "module", "op", "category"]
        return pd.DataFrame(rows, columns=columns)

    def to_dataframe(self) -> Any:
        """A pandas table of one row an operator, with shapes spelled out."""
        import pandas as pd

        rows = [
            {
                "phase": operator.phase,
                "step": operator.step,
                "count": step.count,
                "position": operator.position,
                "module": operator.module,
                "op": operator.op,
                "category": operator.category,
                "input_shapes": [use.shape for use in operator.inputs],
                "input_dtypes": [use.dtype for use in operator.inputs],
                "input_tensors": [use.tensor for use in operator.inputs],
                "output_shapes": [use.shape for use in operator.outputs],
                "output_dtypes": [use.dtype for use in operator.outputs],
                "output_tensors": [use.tensor for use in operator.outputs],
                "attributes": operator.attributes,
                "is_view": operator.is_view,
            }
            for phase in self.phases
            for step in phase.steps
            for operator in step.operators
        ]
        return pd.DataFrame(rows)


def evaluations(steps: int, extra: int) -> int:
    """How often a sampler with `extra` evaluations runs its model for `steps` steps; for one step always once."""
    return steps + extra if steps > 1 else 1


def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides, in elements, of a contiguous tensor.

    >>> row_major((2, 3, 4))
    (12, 4, 1)
    """
    strides = [1] * len(shape)
    for dim in range(len(shape) - 2, -1, -1):
        strides[dim] = strides[dim + 1] * max(shape[dim + 1], 1)
    return tuple(strides)


def _dense_in_order(shape: tuple[int, ...], strides: tuple[int, ...], order: Any) -> bool:
    """Whether the dimensions, slowest first in `order`, lie in memory without gaps (PyTorch's rule)."""
    if 0 in shape:
        return True
    expected = 1
    for dim in reversed(order):
        if shape[dim] != 1:
            if strides[dim] != expected:
                return False
            expected *= shape[dim]
    return True


# ---- writing


def _to_table(trace: Trace) -> pa.Table:
    layouts: dict[tuple[Any, ...], int] = {}

    def layout(use: TensorUse) -> int:
        strides = None if use.strides == row_major(use.shape) else use.strides
        key = (use.dtype, use.shape, strides, use.storage_bytes, use.role)
        return layouts.setdefault(key, len(layouts))

    operators = list(trace.operators())
    columns = {
        "phase": [operator.phase for operator in operators],
        "step": [operator.step for operator in operators],
        "position": [operator.position for operator in operators],
        "module": [operator.module for operator in operators],
        "op": [operator.op for operator in operators],
        "category": [operator.category for operator in operators],
        "inputs": [[use.tensor for use in operator.inputs] for operator in operators],
        "input_layouts": [[layout(use) for use in operator.inputs] for operator in operators],
        "outputs": [[use.tensor for use in operator.outputs] for operator in operators],
        "output_layouts": [[layout(use) for use in operator.outputs] for operator in operators],
        "attributes": [_json(operator.attributes) for operator in operators],
        "is_view": [operator.is_view for operator in operators],
    }
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
    return pa.table(columns, schema=_COLUMNS.with_metadata({METADATA_KEY: _json(metadata).encode()}))


def _with_timing(table: pa.Table, timing: Timing) -> list[pa.Table]:
    """The operators' table with their host times, and the kernels', both with the columns of both."""
    if len(timing.host) != table.num_rows:
        raise ValueError(f"{len(timing.host)} host times for {table.num_rows} operators")
    host = {
        f"host_{item.name}": [getattr(time, item.name, None) for time in timing.host]
        for item in fields(HostTime)
    }
    kernels = {
        f"kernel_{item.name}": [getattr(kernel, item.name) for kernel in timing.kernels]
        for item in fields(TimedKernel)
    }
    metadata = json.loads(table.schema.metadata[METADATA_KEY])
    metadata["schema_version"] = TIMED_SCHEMA_VERSION
    metadata["timing"] = {
        "kernels": len(timing.kernels),
        "device": timing.device,
        "end_to_end": timing.end_to_end,
    }
    schema = _TIMED_COLUMNS.with_metadata({METADATA_KEY: _json(metadata).encode()})
    operators = {name: table.column(name) for name in _COLUMNS.names}

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
    if path.is_dir():
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
    columns = _COLUMNS if version == SCHEMA_VERSION else _TIMED_COLUMNS
    missing = [f"column {name}" for name in columns.names if name not in schema.names]
    if stored is None:
        missing.insert(0, f"schema metadata {METADATA_KEY.decode()}")
    if missing:
        raise InputError(f"{path} is a Parquet file but not a simtti trace; it lacks {', '.join(missing)}")
    for name, kind in _METADATA.items():
        if not isinstance(metadata.get(name), kind):
            raise InputError(f"{path}: metadata field {name} is missing or not a JSON {kind.__name__}")
    for expected in columns:
        found = schema.field(expected.name).type
        if found != expected.type:
            raise InputError(f"{path}: column {expected.name} has type {found}, expected {expected.type}")
    return metadata


class _Rows:
    """The columns of a trace file as Python lists, with errors that name the row and the column."""

    def __init__(self, path: Path, table: pa.Table):
        self.path = path
        self.columns: dict[str, list[Any]] = {}
        self.table = table.combine_chunks()
        for name in _COLUMNS.names:
            column = self.table.column(name)
            if column.null_count:
                raise self.error(column.is_null().to_pylist().index(True), name, "the value is missing")
            if not pa.types.is_list(column.type):
                try:
                    self.columns[name] = column.to_pylist()
                except UnicodeDecodeError:
                    raise InputError(f"{path}: column {name} holds bytes that are not UTF-8 text") from None

    def error(self, row: int, column: str, problem: str) -> InputError:
        return InputError(f"{self.path}: row {row}, column {column}: {problem}")

    def lists(self, name: str) -> tuple[list[int], list[int]]:
        """A list column as (offsets of n + 1 rows, values of all rows together): far faster than nested lists."""
        if not self.table.num_rows:
            return [0], []
        chunk = self.table.column(name).chunk(0)
        # Not to_numpy() or flatten(), whose first calls import pandas and pyarrow.compute.
        first, *rest = chunk.offsets.to_pylist()
        offsets = [0, *(offset - first for offset in rest)]
        flat = chunk.values.slice(first, offsets[-1])
        if flat.null_count:
            row = _row_of(offsets, flat.is_null().to_pylist().index(True))
            raise self.error(row, name, "a value in the list is missing")
        return offsets, flat.to_pylist()


def _row_of(offsets: list[int], value: int) -> int:
    """The row that the value number `value` of a list column stands in."""
    return bisect_right(offsets, value) - 1


def _from_table(path: Path, table: pa.Table, metadata: Mapping[str, Any]) -> Trace:
    rows = _Rows(path, table)
    structure = _read_structure(path, metadata["phases"], table.num_rows)
    _check_positions(rows, structure)
    for row, category in enumerate(rows.columns["category"]):
        if category not in CATEGORIES:
            known = ", ".join(CATEGORIES)
            raise rows.error(row, "category", f"unknown category {category!r}; known: {known}")
    layouts = [_read_layout(entry) for entry in metadata["layouts"]]
    shared: dict[tuple[int, int], TensorUse] = {}
    inputs = _read_uses(rows, "inputs", "input_layouts", layouts, shared)
    outputs = _read_uses(rows, "outputs", "output_layouts", layouts, shared)
    attributes = _read_attributes(rows)
    columns = rows.columns
    operators = tuple(
        map(
            Operator, columns["phase"], columns["step"], columns["position"], columns["module"], columns["op"],
            columns["category"], inputs, outputs, attributes, columns["is_view"],
        )
    )  # fmt: skip
    phases = []
    start = 0
    for name, steps in structure:
        built = []
        for count, length in steps:
            built.append(Step(count, operators[start : start + length]))
            start += length
        phases.append(Phase(name, tuple(built)))
    return Trace(
        workload=metadata["workload"],
        options=metadata["options"],
        phases=tuple(phases),
        parameters=metadata["parameters"],
        parameter_bytes=metadata["parameter_bytes"],
        provenance=metadata["provenance"],
        schedule=metadata["schedule"],
    )


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


def _read_timing(path: Path, operators: pa.Table, kernels: pa.Table, metadata: Mapping[str, Any]) -> Timing:
    def columns(table: pa.Table, schema: pa.Schema) -> dict[str, list[Any]]:
        try:
            return {name: table.column(name).to_pylist() for name in schema.names}
        except UnicodeDecodeError:
            raise InputError(f"{path}: a kernel's name or kind holds bytes that are not UTF-8 text") from None

    def wrong(row: int, column: str, problem: str) -> InputError:
        return InputError(f"{path}: row {row}, column {column}: {problem}")

    host: list[HostTime | None] = []
    for row, values in enumerate(zip(*columns(operators, _HOST_COLUMNS).values(), strict=True)):
        if values[0] is None:
            host.append(None)
            continue
        for name, value in zip(_HOST_COLUMNS.names, values, strict=True):
            if (
                value is None
                or not math.isfinite(value)
                or (value < 0 and name.endswith(("ion_us", "ing_us")))
            ):
                raise wrong(row, name, f"found {value!r}, expected a number of microseconds")
        host.append(HostTime(*values))

    needed = ("name", "kind", "device", "stream", "correlation")
    found = columns(kernels, _KERNEL_COLUMNS)
    for name in ("grid", "block"):
        found[f"kernel_{name}"] = [
            value if value is None else tuple(value) for value in found[f"kernel_{name}"]
        ]
    timed: list[TimedKernel] = []
    for number, values in enumerate(zip(*found.values(), strict=True)):
        kernel = TimedKernel(*values)
        row = operators.num_rows + number
        for name in needed:
            if getattr(kernel, name) is None:
                raise wrong(row, f"kernel_{name}", "the value is missing")
        if kernel.kind not in KERNEL_KINDS:
            raise wrong(row, "kernel_kind", f"unknown kind {kernel.kind!r}; known: {', '.join(KERNEL_KINDS)}")
        for name in ("start_us", "duration_us"):
            value = getattr(kernel, name)
            if value is None or not math.isfinite(value) or (value < 0 and name == "duration_us"):
                raise wrong(row, f"kernel_{name}", f"found {value!r}, expected a number of microseconds")
        if kernel.operator is not None and not 0 <= kernel.operator < operators.num_rows:
            problem = (
                f"operator {kernel.operator} is out of range: the file has {operators.num_rows} operators"
            )
            raise wrong(row, "kernel_operator", problem)
        for name in ("grid", "block"):
            extent = getattr(kernel, name)
            if extent is not None and (len(extent) != 3 or any(size is None or size < 0 for size in extent)):
                raise wrong(row, f"kernel_{name}", f"found {list(extent)}, expected three whole numbers")
        timed.append(kernel)
    return Timing(tuple(timed), tuple(host), dict(metadata["device"]), dict(metadata["end_to_end"]))


def _read_structure(path: Path, phases: Any, rows: int) -> list[tuple[str, list[tuple[int, int]]]]:
    """Each phase's name, and each of its steps' count and number of operators."""
    try:
        structure = [(p["name"], [(s["count"], s["operators"]) for s in p["steps"]]) for p in phases]
        counts = [number for _, steps in structure for step in steps for number in step]
        if not all(type(number) is int and number >= 0 for number in counts):
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"{path}: metadata field phases must list a name and steps, each with whole numbers count and operators"
        ) from None
    promised = sum(length for _, steps in structure for _, length in steps)
    if promised != rows:
        raise InputError(
            f"{path}: metadata field phases promises {promised} operators, but the file has {rows} rows"
        )
    return structure


def _check_positions(rows: _Rows, structure: list[tuple[str, list[tuple[int, int]]]]) -> None:
    """Rows stand in the order of phases, steps and positions that the metadata promises."""
    expected: dict[str, list[Any]] = {"phase": [], "step": [], "position": []}
    for name, steps in structure:
        for number, (_, length) in enumerate(steps):
            expected["phase"] += [name] * length
            expected["step"] += [number] * length
            expected["position"] += range(length)
    for column, values in expected.items():
        if rows.columns[column] != values:
            row = next(i for i, (a, b) in enumerate(zip(rows.columns[column], values, strict=True)) if a != b)
            raise rows.error(row, column, f"found {rows.columns[column][row]!r}, expected {values[row]!r}")


def _read_layout(entry: Any) -> tuple[Any, ...] | str:
    """The fields of a TensorUse after its identity, or what is wrong with them."""
    try:
        dtype, shape, strides, storage_bytes, role = entry
        shape = tuple(shape)
        strides = row_major(shape) if strides is None else tuple(strides)
        numbers = (*shape, *strides, storage_bytes)
    except (TypeError, ValueError):
        return f"expected dtype, shape, strides, storage bytes and role, found {entry!r}"
    if any(type(number) is not int for number in numbers):
        return f"shape {list(shape)}, strides {list(strides)} and storage bytes {storage_bytes!r} must be whole numbers"
    if any(size < 0 for size in shape):
        return f"negative dimension in shape {list(shape)}"
    if any(stride < 0 for stride in strides) or storage_bytes < 0:
        return f"negative stride in {list(strides)} or negative storage bytes {storage_bytes}"
    if len(strides) != len(shape):
        return f"{len(shape)} dimensions but {len(strides)} strides"
    if dtype not in ITEM_BYTES:
        return f"unknown dtype {dtype!r}; known: {', '.join(ITEM_BYTES)}"
    if role not in ROLES:
        return f"unknown role {role!r}; known: {', '.join(ROLES)}"
    return shape, strides, dtype, storage_bytes, role


def _read_uses(
    rows: _Rows,
    tensors_column: str,
    layouts_column: str,
    layouts: list[tuple[Any, ...] | str],
    shared: dict[tuple[int, int], TensorUse],
) -> list[tuple[TensorUse, ...]]:
    """The operands of every row. Equal operands are one object, in `shared`."""
    offsets, tensors = rows.lists(tensors_column)
    layout_offsets, numbers = rows.lists(layouts_column)
    if offsets != layout_offsets:
        row = next(i for i, (a, b) in enumerate(zip(offsets, layout_offsets, strict=True)) if a != b) - 1
        found = layout_offsets[row + 1] - layout_offsets[row]
        expected = offsets[row + 1] - offsets[row]
        raise rows.error(
            row, layouts_column, f"{found} layouts for {expected} tensors in column {tensors_column}"
        )
    uses = []
    for i, key in enumerate(zip(tensors, numbers, strict=True)):
        use = shared.get(key)
        if use is None:
            tensor, number = key
            if tensor < 0:
                raise rows.error(
                    _row_of(offsets, i), tensors_column, f"tensor id {tensor} is out of range: below 0"
                )
            if not 0 <= number < len(layouts):
                problem = f"layout {number} is out of range: the file has {len(layouts)} layouts"
                raise rows.error(_row_of(offsets, i), layouts_column, problem)
            layout = layouts[number]
            if isinstance(layout, str):
                raise rows.error(_row_of(offsets, i), layouts_column, f"layout {number}: {layout}")
            use = shared[key] = TensorUse(tensor, *layout)
        uses.append(use)
    return [tuple(uses[start:end]) for start, end in pairwise(offsets)]


def _read_attributes(rows: _Rows) -> list[dict[str, Any]]:
    """The attributes of every row; equal ones are one object."""
    parsed: dict[str, dict[str, Any]] = {}
    for row, text in enumerate(rows.columns["attributes"]):
        if text not in parsed:
            try:
                value = json.loads(text)
            except ValueError:
                raise rows.error(row, "attributes", f"not JSON: {text[:60]!r}") from None
            if not isinstance(value, dict):
                raise rows.error(row, "attributes", f"not a JSON object: {text[:60]!r}")
            parsed[text] = value
    return [parsed[text] for text in rows.columns["attributes"]]
