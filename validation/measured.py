"""The project's table of measurements: what was timed, on which device, by whom; read and checked.

A row is either one operator, as a row of `simtti predict`, or one whole inference, as a row of `simtti sweep`:

    op              an operator family of `simtti predict`; empty for a whole inference
    hw              the device's name, as `simtti hw` lists them (or that of a device file of one's own)
    dtype           fp16, bf16 or fp32
    the op's shape  exactly the columns of `simtti predict`: m n k batch; batch heads q_len kv_len head_dim causal kernel;
                    n c d h w oc kd kh kw stride padding groups layout bias; rows cols batch inner
                    table_rows; numel inputs function; spatial c2; scale
    time_us         measured time of the operator, microseconds
    power_w         mean board power meanwhile, watts; may be empty
    workload        a workload's name; empty for a single operator. Then the options of `simtti sweep`: batch steps
                    height width frames prompt_tokens gpus ulysses ring attention launch host
    latency_s       measured latency of the whole batch, seconds
    energy_j        energy of the whole batch on all GPUs, joules; may be empty
    source          who measured, and where it is published
    what_is_timed   one of TIMED: what a prediction has to be held against

The same columns in CSV and Parquet; a column that no row needs may be missing, an unknown one is an error.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from simtti.errors import InputError, unknown
from simtti.simulator.kernels.attention import KERNELS as ATTENTION_KERNELS
from simtti.simulator.sweep import OPTIONS
from simtti.simulator.table import read_table

if TYPE_CHECKING:
    import pandas as pd

# what_is_timed, and what of it a prediction does not hold.
TIMED = {
    "back-to-back": "device time of launches one after another, gaps included: what `predict` predicts",
    "kernels": "the operator's kernels as a profiler sees them: without the gaps, operands often warm in L2",
    "wall": "host or event time around single calls: with the host's launch and a synchronisation",
    "run": "a whole inference",
}


class Shape(NamedTuple):
    """The shape columns of a family: those a row must fill and those with a default."""

    needed: tuple[str, ...]
    optional: tuple[str, ...] = ()


_CONVOLUTION = ("stride", "padding", "groups", "layout", "bias")
SHAPES: dict[str, Shape] = {
    "gemm": Shape(("m", "n", "k"), ("batch",)),
    "attention": Shape(("heads", "q_len", "kv_len", "head_dim"), ("batch", "causal", "kernel")),
    "conv2d": Shape(("n", "c", "h", "w", "oc", "kh", "kw"), _CONVOLUTION),
    "conv3d": Shape(("n", "c", "d", "h", "w", "oc", "kd", "kh", "kw"), _CONVOLUTION),
    "group_norm": Shape(("n", "c", "spatial"), ("groups",)),
    "layer_norm": Shape(("rows", "cols")),
    "rms_norm": Shape(("rows", "cols")),
    "softmax": Shape(("rows", "cols")),
    "elementwise": Shape(("numel",), ("inputs", "function")),
    "copy": Shape(("numel",)),
    "permute": Shape(("rows", "cols"), ("batch", "inner")),
    "cat": Shape(("n", "c", "c2", "spatial")),
    "embedding": Shape(("rows", "cols"), ("table_rows",)),
    "upsample": Shape(("n", "c", "h", "w"), ("scale",)),
}
RUN_COLUMNS = tuple(name for name in OPTIONS if name not in ("trace", "fidelity"))
_WORDS = {
    "dtype": ("fp16", "bf16", "fp32"),
    "layout": ("nchw", "nhwc", "ncdhw", "ndhwc"),
    "kernel": ATTENTION_KERNELS,
    "what_is_timed": tuple(TIMED),
}
_FLAGS = ("causal", "bias")
_FROM_ZERO = ("padding", "inputs")  # whole numbers that may be 0; every other shape column starts at 1
_SHAPE_COLUMNS = tuple(
    dict.fromkeys(name for shape in SHAPES.values() for name in shape.needed + shape.optional)
)
_RUN_WHOLE = ("batch", "steps", "height", "width", "frames", "prompt_tokens", "gpus", "ulysses", "ring")
_WHOLE = tuple(
    dict.fromkeys(
        name for name in _SHAPE_COLUMNS + _RUN_WHOLE if name not in (*_FLAGS, "layout", "kernel", "function")
    )
)
COLUMNS = tuple(
    dict.fromkeys(
        ("op", "hw", "dtype", *_SHAPE_COLUMNS, "time_us", "power_w", *RUN_COLUMNS, "latency_s", "energy_j", "source",
         "what_is_timed")
    )
)  # fmt: skip
_RUN_ONLY = tuple(name for name in RUN_COLUMNS if name not in (*_SHAPE_COLUMNS, "hw", "dtype", "workload"))


def read_measurements(paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> pd.DataFrame:
    """The measurements in one or several files, one table, every column of COLUMNS, checked.

    Files are tables of this module's columns (.csv, .parquet), as `simtti import measurements` writes them, what
    `simtti capture kernels` measured, or a folder that `simtti import measurements folder` reads.

    Raises:
        InputError: an unreadable file; a missing or unknown column; a row that is no measurement: the message names the
            file, the row (the first is 1), the column and the value.
    """
    import pandas as pd

    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    if not paths:
        raise InputError("no file of measurements given")
    tables = [check(_read(Path(path)), str(path)) for path in paths]
    return pd.concat(tables, ignore_index=True) if len(tables) > 1 else tables[0]


def operators(table: pd.DataFrame, op: str) -> pd.DataFrame:
    """The rows of one family as `simtti predict` takes them, with hw, time_us, power_w, source and what_is_timed."""
    shape = SHAPES[op]
    columns = [
        "op",
        "hw",
        "dtype",
        *shape.needed,
        *shape.optional,
        "time_us",
        "power_w",
        "source",
        "what_is_timed",
    ]
    rows = table.loc[table["op"] == op, columns].reset_index(drop=True)
    return rows.astype({name: int for name in shape.needed})


def runs(table: pd.DataFrame) -> pd.DataFrame:
    """The whole inferences: columns of `simtti sweep`, then latency_s, energy_j and source."""
    columns = [*RUN_COLUMNS, "latency_s", "energy_j", "source"]
    return table.loc[table["workload"] != "", columns].reset_index(drop=True)


def points(table: pd.DataFrame) -> pd.DataFrame:
    """The whole inferences as a table that `simtti sweep` takes: without the columns that no row fills."""
    found = runs(table)[list(RUN_COLUMNS)]
    return found[[name for name in found.columns if (found[name].notna() & (found[name] != "")).any()]]


def options(row: Mapping[Any, Any]) -> dict[str, Any]:
    """The options of `simtti run` that a row of `runs` or `points` fills, whole numbers whole."""
    filled = {
        str(name): cell
        for name, cell in row.items()
        if name in OPTIONS and cell is not None and cell == cell and cell != ""
    }
    return {
        name: int(cell) if isinstance(cell, float) and cell.is_integer() else cell
        for name, cell in filled.items()
    }


def check(table: pd.DataFrame, origin: str) -> pd.DataFrame:
    """`table` with every column of COLUMNS, texts as text ('' where empty), numbers as floats (NaN where empty), flags as True, False or None.

    Raises:
        InputError: as read_measurements.
    """
    import pandas as pd

    for name in table.columns:
        if name not in COLUMNS:
            raise unknown(f"column in {origin}:", str(name), COLUMNS)
    for name in ("hw", "dtype", "source", "what_is_timed"):
        if name not in table.columns:
            raise InputError(f"{origin}: column {name!r} is missing")
    if "op" not in table.columns and "workload" not in table.columns:
        raise InputError(
            f"{origin}: columns 'op' and 'workload' are missing; a measurement needs one of them"
        )
    checked: dict[str, pd.Series[Any]] = {}
    numbers = (*_WHOLE, "time_us", "power_w", "latency_s", "energy_j")
    for name in COLUMNS:
        if name not in table.columns:
            empty, kind = (
                (float("nan"), float) if name in numbers else (None, object) if name in _FLAGS else ("", str)
            )
            checked[name] = pd.Series(empty, index=table.index, dtype=kind)
        elif name in numbers:
            checked[name] = _numbers(table[name], name, origin)
        elif name in _FLAGS:
            checked[name] = _flags(table[name], name, origin)
        else:
            text = table[name].astype(object)
            checked[name] = text.where(text.notna(), "").astype(str)
    result = pd.DataFrame(checked).reset_index(drop=True)
    _check_words(result, origin)
    _check_numbers(result, origin)
    return result


def _read(path: Path) -> pd.DataFrame:
    if path.is_dir():
        from simtti.validation.sources import import_measurements

        return import_measurements("folder", path).table
    table = read_table(path)
    if "cold_us" in table.columns:
        return _from_capture(path)
    return table


def _from_capture(path: Path) -> pd.DataFrame:
    """A file of `simtti capture kernels` in this module's columns: cold times, which `predict` predicts.

    Cases that failed, families that `predict` does not know (launches, gathers) and cases that its columns cannot say
    (a broadcast operand) are left out.
    """
    import pandas as pd

    from simtti.hw_configs.devices import find_reported
    from simtti.validation.measuring.file import read_measurements as read_capture

    captured, metadata = read_capture(path)
    reported = str(metadata["device"]["name"])
    device = find_reported(reported)
    everything = captured.to_pandas()
    parts = []
    for op, shape in SHAPES.items():
        wanted = [name for name in (*shape.needed, *shape.optional) if name in everything.columns]
        others = [name for name in _SHAPE_COLUMNS if name in everything.columns and name not in wanted]
        chosen = (
            (everything["op"] == op) & (everything["cold_us"] > 0) & everything[others].isna().all(axis=1)
        )
        parts.append(everything.loc[chosen, ["op", "dtype", *wanted, "cold_us"]])
    return (
        pd.concat(parts)
        .rename(columns={"cold_us": "time_us"})
        .assign(
            hw=device.name if device else reported,
            source=f"simtti capture kernels: {path.name}",
            what_is_timed="back-to-back",
        )
    )


def _numbers(column: pd.Series[Any], name: str, origin: str) -> pd.Series[Any]:
    import pandas as pd

    found = pd.to_numeric(column, errors="coerce").astype(float)
    bad = found.isna() & column.notna() & (column.astype(str).str.strip() != "")
    _first(bad, column, name, origin, "it must be a number")
    return found


def _flags(column: pd.Series[Any], name: str, origin: str) -> pd.Series[Any]:
    """True, False, or None for an empty cell."""
    words = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
    empty = ("", "nan", "none", "<na>")
    text = column.astype(object).map(lambda cell: str(cell).strip().lower())
    _first(~text.isin([*words, *empty]), column, name, origin, "it must be true or false")
    return text.map(words).astype(object).where(~text.isin(empty), None)


def _check_words(table: pd.DataFrame, origin: str) -> None:
    single, whole = table["op"] != "", table["workload"] != ""
    _first(single == whole, table["op"], "op", origin, "a row has either an op or a workload")
    _first(
        single & ~table["op"].isin(list(SHAPES)),
        table["op"],
        "op",
        origin,
        f"it must be one of {', '.join(SHAPES)}",
    )
    for name in ("hw", "dtype", "source", "what_is_timed"):
        _first(table[name] == "", table[name], name, origin, "it must not be empty")
    for name, words in _WORDS.items():
        bad = ~table[name].isin([*words, ""])
        _first(bad, table[name], name, origin, f"it must be one of {', '.join(words)}")


def _check_numbers(table: pd.DataFrame, origin: str) -> None:
    for name in _WHOLE:
        least = 0 if name in _FROM_ZERO else 1
        value = table[name]
        bad = value.notna() & ((value < least) | (value % 1 != 0))
        _first(bad, value, name, origin, f"it must be a whole number of at least {least}")
    for op, shape in SHAPES.items():
        chosen = table["op"] == op
        if not chosen.any():
            continue
        for name in shape.needed:
            _first(chosen & table[name].isna(), table[name], name, origin, f"{op} needs it")
        for name in (*_SHAPE_COLUMNS, *_RUN_ONLY):
            if name not in shape.needed + shape.optional:
                filled = table[name].notna() & (table[name] != "")
                _first(chosen & filled, table[name], name, origin, f"{op} has no such column")
    single, whole = table["op"] != "", table["workload"] != ""
    for chosen, name, needed in (
        (single, "time_us", True), (single, "power_w", False), (whole, "latency_s", True), (whole, "energy_j", False),
    ):  # fmt: skip
        value = table[name]
        bad = chosen & ((value <= 0) | (value == float("inf")) | (needed & value.isna()))
        _first(bad, value, name, origin, "it must be a number above 0")


def _first(bad: pd.Series[Any], values: pd.Series[Any], name: str, origin: str, rule: str) -> None:
    """Raise for the first bad row, if there is one."""
    if bad.any():
        at = int(bad.to_numpy().argmax())
        value = values.iloc[at]
        shown = (
            "empty"
            if value != value or value == ""
            else repr(value.item() if hasattr(value, "item") else value)
        )
        raise InputError(f"{origin}: row {at + 1}: column {name!r} is {shown}; {rule}")
