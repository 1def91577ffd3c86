"""A kernel family: one record that says everything about a kind of operator, beside the model of its kernels.

What tables of single operators may hold, which operators of a trace it lowers, the work of its roofline: `predict`, lowering,
the columns and checks of measurements, the roofline and `simtti predict --help` derive from the records in
`lowering.registry`. docs/extend.md has the recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from simtti.dtypes import predicted
from simtti.errors import InputError, Problems
from simtti.hw_configs.hardware import Hardware
from simtti.simulator.kernel import Access, Kernel
from simtti.simulator.policy import Policy
from simtti.simulator.side_by_side import Operators
from simtti.workloads.trace import Operator


class Target(NamedTuple):
    """What operators are lowered for: a device, and how operators become kernels on it."""

    hardware: Hardware
    policy: Policy


# From an operator of a trace to its kernels. They name tensors by slot: the inputs in order, then the outputs; negative for
# workspaces.
Lower = Callable[[Operator, Target], list[Kernel]]
LowerTogether = Callable[[Sequence[Operator], Target], list[list[Kernel]]]  # of each operator


def reads_of(operator: Operator) -> tuple[Access, ...]:
    """Unique bytes of each input: an expanded weight is no larger than its storage."""
    return tuple(
        Access(slot, float(min(use.nbytes, use.storage_bytes))) for slot, use in enumerate(operator.inputs)
    )


def writes_of(operator: Operator) -> tuple[Access, ...]:
    """Bytes of each output."""
    return tuple(
        Access(len(operator.inputs) + slot, float(use.nbytes)) for slot, use in enumerate(operator.outputs)
    )


NEEDED = "needed"
MOST = 2**40  # exact: by definition, of a whole number in a cell
MOST_ELEMENTS = 2.0**44  # exact: by definition, that an operator touches, and
MOST_FLOPS = 1e24  # exact: by definition, what it computes: beyond these no device comes back within days
_SHORT = 40  # exact: by definition


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHORT else text[:_SHORT] + "..."


class Column(NamedTuple):
    """A column of a family's table.

    default: what an empty cell means; NEEDED where it may not be empty, None where the family works it out. least: of a whole
    number. words: what a text may be; any text where there are none.
    """

    name: str
    default: Any = NEEDED
    kind: type = int
    least: int = 1
    words: Sequence[str] = ()


def needed(names: str) -> tuple[Column, ...]:
    """Columns of whole numbers of at least 1 that a row must fill; names with blanks between."""
    return tuple(Column(name) for name in names.split())


class Cells:
    """The cells of a row, read as its family's columns say; a NaN cell counts as empty.

    Raises (each of its methods): InputError, naming the column and the value; KeyError for a column the family does not have.
    """

    def __init__(self, row: Mapping[str, Any], columns: Sequence[Column], dtypes: Sequence[str] = ()) -> None:
        self.row = {
            name: value for name, value in row.items() if value is not None and value == value and value != ""
        }
        self.columns = {column.name: column for column in columns}
        self.dtypes = dtypes or predicted()

    def whole(self, name: str) -> int:
        found = self.optional(name)
        if found is None:
            raise InputError(f"column {name!r} is empty or missing; {self.row['op']} needs it")
        return found

    def optional(self, name: str) -> int | None:
        """A whole number, None where the cell is empty and the column has no default."""
        column = self.columns[name]
        value = self.row.get(name, None if column.default is NEEDED else column.default)
        if value is None:
            return None
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            raise InputError(f"column {name!r} is {_short(value)}; it must be a whole number") from None
        if not number.is_integer() or number < column.least:
            raise InputError(
                f"column {name!r} is {_short(value)}; it must be a whole number of at least {column.least}"
            )
        if number > MOST:
            raise InputError(f"column {name!r} is {_short(value)}; it must be at most {MOST:,}")
        return int(number)

    def text(self, name: str) -> str | None:
        column = self.columns[name]
        value = self.row.get(name, column.default)
        if value is NEEDED:
            raise InputError(f"column {name!r} is empty or missing; {self.row['op']} needs it")
        if value is None:
            return None
        if column.words and value not in column.words:
            raise InputError(f"column {name!r} is {value!r}; it must be one of {', '.join(column.words)}")
        return str(value)

    def flag(self, name: str) -> bool:
        value = self.row.get(name, self.columns[name].default)
        if isinstance(value, str):
            if value.lower() not in ("true", "false", "0", "1"):
                raise InputError(f"column {name!r} is {value!r}; it must be true or false")
            return value.lower() in ("true", "1")
        return bool(value)

    def problems(self) -> Problems:
        """Every cell that is missing or cannot be, each read as its column says."""
        found, read = Problems(), {str: self.text, bool: self.flag}
        with found.noted():
            _ = self.dtype
        for column in self.columns.values():
            with found.noted():
                if column.kind is int and column.default is NEEDED:
                    self.whole(column.name)
                else:
                    read.get(column.kind, self.optional)(column.name)
        return found

    @property
    def dtype(self) -> str:
        value = self.row.get("dtype")
        if value is None:
            raise InputError(
                f"column 'dtype' is empty or missing; it must be one of {', '.join(self.dtypes)}"
            )
        if value not in self.dtypes:
            raise InputError(f"column 'dtype' is {value!r}; it must be one of {', '.join(self.dtypes)}")
        return str(value)


class CellColumns(Cells):
    """Rows side by side that differ in whole numbers alone: `whole` gives a column of them, as floats."""

    def __init__(self, cells: Cells, numbers: Mapping[str, np.ndarray]) -> None:
        self.row, self.columns, self.dtypes = cells.row, cells.columns, cells.dtypes
        self.numbers = numbers

    def whole(self, name: str) -> Any:
        return self.numbers[name]

    def of(self, at: np.ndarray) -> CellColumns:
        """Some of the rows."""
        return CellColumns(self, {name: numbers[at] for name, numbers in self.numbers.items()})


class Work(NamedTuple):
    """What a row asks of any hardware: FLOPs of matrix products, a multiply-add being two, and unique elements moved."""

    flops: float
    elements: float


@dataclass(frozen=True)
class Family:
    """A kind of operator and the kernels it becomes.

    op: its name in tables. columns: of a row of it, beside op and dtype. kernels: of a row. work: of a row, for the roofline.
    note: what `simtti predict --help` says beside the columns. aten: lowerings of a trace's operators by name, without
    'aten::' and without the '_' of the in-place form; a name with '::' is taken as it is. groups: parameter groups of its own
    (name -> NamedTuple), for a family that does not ship with simtti; values: the YAML file that has their bounds and values.
    dtypes: what its rows may be in, where that is not what tensor cores multiply. also: other names of the op in tables. baseline:
    kernels whose time a row has less, where what is measured is a difference. side_by_side: of rows that differ in whole numbers alone
    those whose kernels it can say in columns, with them. prepare: told of operators, any among them, that its lowerings will be asked for, it
    does at once what takes less so. reads_few: kernels of a trace's operators
    follow from few of the device's numbers, so that devices that have these in common share them (`reuse`). together: lowers several
    operators of a step faster than `aten` does one by one; it has checked the kernels (`kernel.check`), and need not say what a
    benchmark that repeated one of them would move.
    """

    op: str
    columns: tuple[Column, ...]
    kernels: Callable[[Cells, Hardware], list[Kernel]]
    work: Callable[[Cells], Work]
    note: str = ""
    aten: Mapping[str, Lower] = field(default_factory=dict)
    groups: Mapping[str, type[tuple[Any, ...]]] = field(default_factory=dict)
    values: str = ""
    dtypes: Sequence[str] = ()
    also: Sequence[str] = ()
    baseline: Callable[[Cells, Hardware], list[Kernel]] | None = None
    side_by_side: Callable[[CellColumns, Hardware], Iterable[Operators]] | None = None
    prepare: Callable[[Sequence[Operator], Target], None] | None = None
    reads_few: bool = False
    together: LowerTogether | None = None

    @property
    def usage(self) -> str:
        """Its columns, those that may be left out in brackets, and the note."""
        must = [column.name for column in self.columns if column.default is NEEDED]
        may = [column.name for column in self.columns if column.default is not NEEDED]
        columns = " ".join(must) + (f" [{' '.join(may)}]" if may else "")
        return f"{columns}; {self.note}" if self.note else columns

    def cells(self, row: Mapping[str, Any]) -> Cells:
        return Cells(row, self.columns, self.dtypes)


def lowered_by(lower: Lower, names: str) -> dict[str, Lower]:
    """`lower` for each of the operators in `names`, with blanks between."""
    return dict.fromkeys(names.split(), lower)
