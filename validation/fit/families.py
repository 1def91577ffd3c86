"""Families of a fit: which rows of measurements decide which parameters (families.yaml), and how rows are split and thinned.

They are not the families of kernels: one may take the GEMMs of one type alone, or whole inferences. Rows are split by a
hash of their shape, so that a shape is in training or in test on every device and in every file.
"""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from simtti.errors import InputError, unknown
from simtti.hw_configs.schema import calibration
from simtti.simulator.kernels.family import Family
from simtti.simulator.kernels.libraries import LIBRARIES, Library
from simtti.simulator.lowering import registry

if TYPE_CHECKING:
    import pandas as pd

FAMILIES = Path(__file__).parent / "families.yaml"
# Columns that say where a row was measured, not what.
NOT_SHAPE = (
    "hw",
    "time_us",
    "power_w",
    "latency_s",
    "energy_j",
    "source",
    "what_is_timed",
    "group",
    "error",
    "pytorch",
)
TARGETS = ("time_us", "energy_j")
_FIELDS = ("rows", "parameters", "target", "pull")
TRAIN_SHARE = 0.5
# The pull towards the starting value: doubling a parameter costs as much as one row that is this log ratio off.
PRIOR_LOG_RATIO = 0.01


@dataclass(frozen=True)
class FitFamily:
    """Rows of a measurement table (column: allowed values) and the parameters they decide.

    target: the measured column, time_us of single kernels or energy_j of whole inferences. pull: how strongly parameters
    are held at the values they start from; doubling one costs as much as one row that is this log ratio off.
    """

    name: str
    rows: Mapping[str, tuple[Any, ...]]
    parameters: tuple[str, ...]
    target: str = "time_us"
    pull: float = PRIOR_LOG_RATIO


def families(path: Path = FAMILIES) -> tuple[FitFamily, ...]:
    """The families of a YAML file, with `group.*` written out, then those of kernel families and attention libraries that a
    program added: the rows of its op, or of its kernel, decide all parameters of its groups.

    Raises:
        InputError: the file is missing or malformed, or names a parameter that does not exist.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
    found = []
    for name, fields in content.items():
        if not isinstance(fields, dict) or not {"rows", "parameters"} <= set(fields) <= set(_FIELDS):
            raise InputError(
                f"{path}: {name}: a family has {', '.join(_FIELDS)}; the last two may be left out"
            )
        chosen: list[str] = []
        for pattern in fields["parameters"]:
            matches = fnmatch.filter(calibration(), pattern)
            if not matches:
                raise unknown(f"parameter in {path}: {name}:", pattern, calibration())
            chosen += matches
        rows = {
            column: tuple(value) if isinstance(value, list) else (value,)
            for column, value in fields["rows"].items()
        }
        target = fields.get("target", TARGETS[0])
        if target not in TARGETS:
            raise InputError(f"{path}: {name}: target is {target!r}; it must be {' or '.join(TARGETS)}")
        found.append(FitFamily(name, rows, tuple(chosen), target, float(fields.get("pull", PRIOR_LOG_RATIO))))
    fitted = {name for family in found for name in family.rows.get("kernel", ())}
    found += [_of_library(library) for name, library in LIBRARIES.items() if name not in fitted]
    found += [_of_kernels(family) for family in registry.FAMILIES.values() if family.groups]
    return tuple(found)


def _of_kernels(family: Family) -> FitFamily:
    """What a kernel family that brings its own groups is fitted by."""
    chosen = (name for group in family.groups for name in fnmatch.filter(calibration(), f"{group}.*"))
    return FitFamily(family.op, {"op": (family.op,)}, tuple(chosen))


def _of_library(library: Library) -> FitFamily:
    """What an attention library that the file says nothing of is fitted by: all parameters of its group."""
    rows = {"op": ("attention",), "kernel": (library.name,)}
    return FitFamily(library.name, rows, tuple(fnmatch.filter(calibration(), f"{library.style}.*")))


def family_of(table: pd.DataFrame, known: tuple[FitFamily, ...]) -> pd.Series:
    """The name of each row's family, '' where it has none."""
    import pandas as pd

    names = pd.Series("", index=table.index)
    for family in known:
        inside = names == ""
        for column, values in family.rows.items():
            inside &= table[column].isin(values) if column in table else False
        names[inside] = family.name
    return names


def in_training(table: pd.DataFrame) -> pd.Series:
    """Whether a row's shape, whatever the device and source, falls into the training half."""
    import pandas as pd

    limit = int(TRAIN_SHARE * 2**32)
    return pd.Series([_hash(shape) < limit for shape in shapes(table)], index=table.index)


def half_of(table: pd.DataFrame) -> list[int]:
    """0 or 1 for each row's shape, whatever the device and source: halves that have nothing to do with in_training's."""
    return [_hash(shape) % 2 for shape in shapes(table)]


def shapes(table: pd.DataFrame) -> list[tuple[tuple[str, Any], ...]]:
    """What was measured, row by row: the filled columns in alphabetical order with their values, whatever other columns
    the table has for other rows."""
    columns = sorted(column for column in table.columns if column not in NOT_SHAPE)
    rows = table[columns].astype(object).itertuples(index=False, name=None)
    return [
        tuple(
            (name, int(cell) if isinstance(cell, float) and cell.is_integer() else cell)
            for name, cell in zip(columns, row, strict=True)
            if cell is not None and cell == cell and cell != ""
        )
        for row in rows
    ]


def _hash(shape: tuple[tuple[str, Any], ...]) -> int:
    return int.from_bytes(hashlib.sha256(repr(shape).encode()).digest()[:4], "big")


def spread(rows: pd.DataFrame, most: int, column: str = "time_us") -> pd.DataFrame:
    """At most `most` rows, evenly spread over the measured times (or another column)."""
    if len(rows) <= most:
        return rows
    ordered = rows.sort_values(column, kind="stable")
    return ordered.iloc[np.linspace(0, len(rows) - 1, most).round().astype(int)]
