"""The rows of a trace file, checked: its columns, and operators and times made of them.

Every error is an InputError that names the file, the row and the column.
"""

import json
import math
from bisect import bisect_right
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa

from simtti.errors import InputError
from simtti.words import plain
from simtti.workloads.operands import problem_of
from simtti.workloads.trace import (
    CATEGORIES,
    ITEM_BYTES,
    KERNEL_KINDS,
    ROLES,
    HostTime,
    Operator,
    Phase,
    Step,
    TensorUse,
    TimedKernel,
    Timing,
    Trace,
    row_major,
    rows_of,
)

_NUMBERS = pa.list_(pa.int32())
COLUMNS = pa.schema(
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
        ("released", _NUMBERS),
    ]
)
OPTIONAL_COLUMNS = ("released",)
# One a field of HostTime and of TimedKernel.
HOST_COLUMNS = pa.schema(
    [
        ("host_start_us", pa.float64()),
        ("host_duration_us", pa.float64()),
        ("host_waiting_us", pa.float64()),
        ("host_thread", pa.int64()),
    ]
)
KERNEL_COLUMNS = pa.schema(
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


def read_trace(path: Path, table: pa.Table, metadata: Mapping[str, Any]) -> Trace:
    rows = _Rows(path, table)
    structure = _read_structure(path, metadata["phases"], table.num_rows)
    _check_positions(rows, structure)
    for name in ("module", "op"):
        columns_of = rows.columns[name]
        if not all(map(str.isprintable, columns_of)):
            rows.columns[name] = [plain(text) for text in columns_of]
    for row, category in enumerate(rows.columns["category"]):
        if category not in CATEGORIES:
            known = ", ".join(CATEGORIES)
            raise rows.error(row, "category", f"unknown category {category!r}; known: {known}")
    layouts = [_read_layout(entry) for entry in metadata["layouts"]]
    shared: dict[tuple[int, int], TensorUse] = {}
    inputs = _read_uses(rows, "inputs", "input_layouts", layouts, shared)
    outputs = _read_uses(rows, "outputs", "output_layouts", layouts, shared)
    attributes = _read_attributes(rows)
    released = _read_released(rows)
    columns = rows.columns
    fields = (
        columns["phase"], columns["step"], columns["position"], columns["module"], columns["op"], columns["category"], inputs, outputs,
        attributes, columns["is_view"], released,
    )  # fmt: skip
    operators = tuple(rows_of(Operator, table.num_rows, fields))
    _check_operators(rows, operators)
    phases = []
    start = 0
    for name, steps in structure:
        built = []
        for count, length in steps:
            built.append(Step(count, operators[start : start + length]))
            start += length
        phases.append(Phase(name, tuple(built)))
    return Trace(
        workload=plain(metadata["workload"]),
        options=metadata["options"],
        phases=tuple(phases),
        parameters=metadata["parameters"],
        parameter_bytes=metadata["parameter_bytes"],
        provenance=metadata["provenance"],
        schedule=metadata["schedule"],
    )


def _check_operators(rows: "_Rows", operators: tuple[Operator, ...]) -> None:
    """Whether every operator is one of torch's; one of each that differ is asked, whose attributes and layouts are the same objects."""
    sound: set[tuple[Any, ...]] = set()
    for row, operator in enumerate(operators):
        if operator.is_view:
            continue
        alike: list[Any] = [operator.op, id(operator.attributes), len(operator.inputs)]
        for use in (*operator.inputs, *operator.outputs):
            alike += (id(use.shape), use.storage_bytes)
        key = tuple(alike)
        if key in sound:
            continue
        problem = problem_of(operator)
        if problem:
            raise rows.error(row, "op", f"{plain(operator.op)}: {problem}")
        sound.add(key)


class _Rows:
    """The columns of a trace file as Python lists, with errors that name the row and the column."""

    def __init__(self, path: Path, table: pa.Table):
        self.path = path
        self.columns: dict[str, list[Any]] = {}
        self.table = table.combine_chunks()
        for name in COLUMNS.names:
            if name in OPTIONAL_COLUMNS and name not in table.column_names:
                continue
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
        offsets = chunk.offsets.to_pylist()
        first = offsets[0]
        if first:
            offsets = [offset - first for offset in offsets]
        flat = chunk.values.slice(first, offsets[-1])
        if flat.null_count:
            row = _row_of(offsets, flat.is_null().to_pylist().index(True))
            raise self.error(row, name, "a value in the list is missing")
        return offsets, flat.to_pylist()


def _row_of(offsets: list[int], value: int) -> int:
    """The row that the value number `value` of a list column stands in."""
    return bisect_right(offsets, value) - 1


# ---- the parts of a row


def _read_structure(path: Path, phases: Any, rows: int) -> list[tuple[str, list[tuple[int, int]]]]:
    """Each phase's name, and each of its steps' count and number of operators."""
    try:
        structure = [(p["name"], [(s["count"], s["operators"]) for s in p["steps"]]) for p in phases]
        steps = [step for _, steps in structure for step in steps]
        if not all(type(number) is int for step in steps for number in step):
            raise ValueError
        if not all(0 < count < 2**31 and length >= 0 for count, length in steps):
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"{path}: metadata field phases must list a name and steps, each with whole numbers count (at least 1) and operators"
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
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        return f"unknown dtype {dtype!r}; known: {', '.join(ITEM_BYTES)}"
    if not isinstance(role, str) or role not in ROLES:
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
    keys = list(zip(tensors, numbers, strict=True))
    new = [key for key in dict.fromkeys(keys) if key not in shared]
    for key in new:
        tensor, number = key
        if tensor < 0:
            row = _row_of(offsets, keys.index(key))
            raise rows.error(row, tensors_column, f"tensor id {tensor} is out of range: below 0")
        if not 0 <= number < len(layouts):
            problem = f"layout {number} is out of range: the file has {len(layouts)} layouts"
            raise rows.error(_row_of(offsets, keys.index(key)), layouts_column, problem)
        layout = layouts[number]
        if isinstance(layout, str):
            row = _row_of(offsets, keys.index(key))
            raise rows.error(row, layouts_column, f"layout {number}: {layout}")
    if new:
        fields = zip(*(layouts[number] for _, number in new), strict=True)
        made = rows_of(TensorUse, len(new), ([tensor for tensor, _ in new], *fields))
        shared.update(zip(new, made, strict=True))
    uses = [shared[key] for key in keys]
    return [tuple(uses[start:end]) for start, end in pairwise(offsets)]


def _read_released(rows: _Rows) -> list[tuple[int, ...]]:
    """The storages let go of after every row; none where the file does not say."""
    if "released" not in rows.table.column_names:
        return [()] * rows.table.num_rows
    offsets, tensors = rows.lists("released")
    for i, tensor in enumerate(tensors):
        if tensor < 0:
            raise rows.error(_row_of(offsets, i), "released", f"tensor id {tensor} is out of range: below 0")
    return [tuple(tensors[start:end]) for start, end in pairwise(offsets)]


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


# ---- times


def read_timing(path: Path, operators: pa.Table, kernels: pa.Table, metadata: Mapping[str, Any]) -> Timing:
    def columns(table: pa.Table, schema: pa.Schema) -> dict[str, list[Any]]:
        try:
            return {name: table.column(name).to_pylist() for name in schema.names}
        except UnicodeDecodeError:
            raise InputError(f"{path}: a kernel's name or kind holds bytes that are not UTF-8 text") from None

    def wrong(row: int, column: str, problem: str) -> InputError:
        return InputError(f"{path}: row {row}, column {column}: {problem}")

    host: list[HostTime | None] = []
    for row, values in enumerate(zip(*columns(operators, HOST_COLUMNS).values(), strict=True)):
        if values[0] is None:
            host.append(None)
            continue
        for name, value in zip(HOST_COLUMNS.names, values, strict=True):
            if (
                value is None
                or not math.isfinite(value)
                or (value < 0 and name.endswith(("ion_us", "ing_us")))
            ):
                raise wrong(row, name, f"found {value!r}, expected a number of microseconds")
        host.append(HostTime(*values))

    needed = ("name", "kind", "device", "stream", "correlation")
    found = columns(kernels, KERNEL_COLUMNS)
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
        for name in ("start_us", "duration_us", "launch_us", "launch_duration_us"):
            value = getattr(kernel, name)
            if value is None and name.startswith("launch"):
                continue
            if value is None or not math.isfinite(value) or (value < 0 and name.endswith("duration_us")):
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
