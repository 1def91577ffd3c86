"""Rows of a table side by side: those of one family that differ in whole numbers alone are read, and made kernels of, as columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from simtti.errors import InputError
from simtti.hw_configs.hardware import Hardware
from simtti.simulator.kernels.family import (
    MOST,
    MOST_ELEMENTS,
    MOST_FLOPS,
    NEEDED,
    CellColumns,
    Column,
    Family,
)
from simtti.simulator.lowering.registry import FAMILIES
from simtti.simulator.side_by_side import Operators

Row = Mapping[str, Any]
FEW = 24  # rows that take longer in columns than one after another; the results are the same


def side_by_side(rows: Sequence[Row], hardware: Hardware) -> Iterator[Operators]:
    """The kernels of those rows that can be said in columns, each row's as `kernels_of` has them. It says what is wrong with another row,
    or makes its kernels."""
    ops = [str(row.get("op")) for row in rows]
    for op in dict.fromkeys(ops):
        family = FAMILIES.get(op)
        if family is None or family.side_by_side is None or family.baseline is not None:
            continue
        own = np.array([number for number, other in enumerate(ops) if other == op])
        for where, cells in _columns(family, [rows[number] for number in own.tolist()]):
            try:
                for operators in family.side_by_side(cells, hardware):
                    yield operators._replace(row=own[where[operators.row]])
            except InputError:
                continue  # of each of these rows


def _columns(family: Family, rows: Sequence[Row]) -> Iterator[tuple[np.ndarray, CellColumns]]:
    """Which of the rows stand side by side, and their cells; none whose whole numbers a single one would be refused for."""
    words = ["dtype", *(column.name for column in family.columns if column.kind is not int)]
    said = zip(*(_all_said([row.get(name) for row in rows]) for name in words), strict=True)
    alike: dict[tuple[Any, ...], list[int]] = {}
    for number, kind in enumerate(said):
        alike.setdefault(kind, []).append(number)
    for kind, numbers in alike.items():
        if len(numbers) < FEW:
            continue
        own = [rows[number] for number in numbers]
        columns = {column.name: _whole(column, own) for column in family.columns if column.kind is int}
        cells = CellColumns(family.cells({"op": family.op, **dict(zip(words, kind, strict=True))}), columns)
        work = family.work(cells)
        fits = (work.elements <= MOST_ELEMENTS) & (work.flops <= MOST_FLOPS)  # not where one is no number
        at = np.flatnonzero(fits)
        yield np.array(numbers)[at], cells.of(at)


_SAID = {type(None), bool, int, str}


def _all_said(cells: list[Any]) -> list[Any]:
    """What each cell says; most columns hold nothing that needs a look."""
    if set(map(type, cells)) <= _SAID and "" not in cells:
        return cells
    return [_said(cell) for cell in cells]


def _said(cell: Any) -> Any:
    """What a cell says, None of an empty one; of what can't be compared, something that no other row says."""
    if cell.__hash__ is None:
        return object()
    return None if cell != cell or cell == "" else cell


def _whole(column: Column, rows: Sequence[Row]) -> np.ndarray:
    """Its cells, NaN where one is no whole number that may stand there."""
    cells = [row.get(column.name) for row in rows]
    try:
        found = np.array(cells, dtype=float)
    except (TypeError, ValueError, OverflowError):
        found = np.array([_number(cell) for cell in cells])
    if column.default is not NEEDED and column.default is not None:
        found[np.isnan(found)] = column.default
    found[~((found >= column.least) & (found <= MOST) & (found == np.floor(found)))] = np.nan
    return found


def _number(cell: Any) -> float:
    try:
        return float(cell)
    except (TypeError, ValueError, OverflowError):
        return float("nan")
