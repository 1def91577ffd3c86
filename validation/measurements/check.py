"""Whether a table holds measurements: its columns, words and numbers, with the row that does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simtti.errors import Problems, unknown
from simtti.simulator.lowering.registry import FAMILIES
from simtti.validation.measurements.table import (
    OF_ANY_OP,
    RUN_COLUMNS,
    columns,
    flags,
    shape_columns,
    shape_of,
    whole,
    words,
)

if TYPE_CHECKING:
    import pandas as pd


def check(table: pd.DataFrame, origin: str) -> pd.DataFrame:
    """`table` with every column of `table`, texts as text ('' where empty), numbers as floats (NaN where empty), flags as True, False or None.

    Raises:
        InputError: unknown columns; rows that are no measurements: the message names `origin`, and for each rule that one breaks the
            first such row (they count from 1), the column and the value.
    """
    import pandas as pd

    known, either, problems = columns(), flags(), Problems()
    for name in table.columns:
        if name not in known:
            problems.note(str(unknown("column", str(name), known)))
    for name in ("hw", "dtype", "source", "what_is_timed"):
        if name not in table.columns:
            problems.note(f"column {name!r} is missing")
    if "op" not in table.columns and "workload" not in table.columns:
        problems.note("columns 'op' and 'workload' are missing; a measurement needs one of them")
    problems.raise_any(origin)
    checked: dict[str, pd.Series[Any]] = {}
    numbers = (*whole(), "time_us", "power_w", "latency_s", "energy_j", "memory_bytes")
    for name in known:
        if name not in table.columns:
            empty, kind = (
                (float("nan"), float) if name in numbers else (None, object) if name in either else ("", str)
            )
            checked[name] = pd.Series(empty, index=table.index, dtype=kind)
        elif name in numbers:
            checked[name] = _numbers(table[name], name, problems)
        elif name in either:
            checked[name] = _flags(table[name], name, problems)
        else:
            text = table[name].astype(object)
            checked[name] = text.where(text.notna(), "").astype(str)
    result = pd.DataFrame(checked).reset_index(drop=True)
    _check_words(result, problems)
    _check_numbers(result, problems)
    problems.raise_any(origin)
    return result


def _numbers(column: pd.Series[Any], name: str, problems: Problems) -> pd.Series[Any]:
    import pandas as pd

    found = pd.to_numeric(column, errors="coerce").astype(float)
    bad = found.isna() & column.notna() & (column.astype(str).str.strip() != "")
    _first(bad, column, name, problems, "it must be a number")
    return found


def _flags(column: pd.Series[Any], name: str, problems: Problems) -> pd.Series[Any]:
    """True, False, or None for an empty cell."""
    words = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
    empty = ("", "nan", "none", "<na>")
    text = column.astype(object).map(lambda cell: str(cell).strip().lower())
    _first(~text.isin([*words, *empty]), column, name, problems, "it must be true or false")
    return text.map(words).astype(object).where(~text.isin(empty), None)


def _check_words(table: pd.DataFrame, problems: Problems) -> None:
    single, inference = table["op"] != "", table["workload"] != ""
    _first(single == inference, table["op"], "op", problems, "a row has either an op or a workload")
    _first(
        single & ~table["op"].isin(list(FAMILIES)),
        table["op"],
        "op",
        problems,
        f"it must be one of {', '.join(FAMILIES)}",
    )
    for name in ("hw", "dtype", "source", "what_is_timed"):
        _first(table[name] == "", table[name], name, problems, "it must not be empty")
    for name, allowed in words().items():
        bad = ~table[name].isin([*allowed, ""])
        _first(bad, table[name], name, problems, f"it must be one of {', '.join(allowed)}")


def _check_numbers(table: pd.DataFrame, problems: Problems) -> None:
    for name, least in whole().items():
        value = table[name]
        bad = value.notna() & ((value < least) | (value % 1 != 0))
        _first(bad, value, name, problems, f"it must be a whole number of at least {least}")
    shapes = shape_columns()
    run_only = [name for name in RUN_COLUMNS if name not in (*shapes, "hw", "dtype", "workload")]
    for op in FAMILIES:
        chosen = table["op"] == op
        if not chosen.any():
            continue
        shape = shape_of(op)
        for name in shape.needed:
            _first(chosen & table[name].isna(), table[name], name, problems, f"{op} needs it")
        for name in (*shapes, *run_only):
            if name not in (*shape.names, *OF_ANY_OP):
                filled = table[name].notna() & (table[name] != "")
                _first(chosen & filled, table[name], name, problems, f"{op} has no such column")
    single, inference = table["op"] != "", table["workload"] != ""
    for chosen, name, needed in (
        (single, "time_us", True), (single, "power_w", False), (inference, "latency_s", True), (inference, "energy_j", False),
        (inference, "memory_bytes", False),
    ):  # fmt: skip
        value = table[name]
        bad = chosen & ((value <= 0) | (value == float("inf")) | (needed & value.isna()))
        _first(bad, value, name, problems, "it must be a number above 0")


def _first(bad: pd.Series[Any], values: pd.Series[Any], name: str, problems: Problems, rule: str) -> None:
    """Note the first bad row, if there is one."""
    if bad.any():
        at = int(bad.to_numpy().argmax())
        value = values.iloc[at]
        shown = (
            "empty"
            if value != value or value == ""
            else repr(value.item() if hasattr(value, "item") else value)
        )
        problems.note(f"row {at + 1}: column {name!r} is {shown}; {rule}", f"{name} {at}")
