"""The project's table of measurements: what was timed, on which device, by whom.

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

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from simtti.simulator.kernels.attention import KERNELS as ATTENTION_KERNELS
from simtti.simulator.kernels.family import NEEDED
from simtti.simulator.lowering.registry import FAMILIES
from simtti.simulator.sweep import OPTIONS

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


SHAPES: dict[str, Shape] = {
    op: Shape(
        tuple(column.name for column in family.columns if column.default is NEEDED),
        tuple(column.name for column in family.columns if column.default is not NEEDED),
    )
    for op, family in FAMILIES.items()
}
RUN_COLUMNS = tuple(name for name in OPTIONS if name not in ("trace", "fidelity"))
WORDS = {
    "dtype": ("fp16", "bf16", "fp32"),
    "layout": ("nchw", "nhwc", "ncdhw", "ndhwc"),
    "kernel": ATTENTION_KERNELS,
    "what_is_timed": tuple(TIMED),
}
FLAGS = ("causal", "bias")
FROM_ZERO = ("padding", "inputs")  # whole numbers that may be 0; every other shape column starts at 1
SHAPE_COLUMNS = tuple(
    dict.fromkeys(name for shape in SHAPES.values() for name in shape.needed + shape.optional)
)
_RUN_WHOLE = ("batch", "steps", "height", "width", "frames", "prompt_tokens", "gpus", "ulysses", "ring")
WHOLE = tuple(
    dict.fromkeys(
        name for name in SHAPE_COLUMNS + _RUN_WHOLE if name not in (*FLAGS, "layout", "kernel", "function")
    )
)
COLUMNS = tuple(
    dict.fromkeys(
        ("op", "hw", "dtype", *SHAPE_COLUMNS, "time_us", "power_w", *RUN_COLUMNS, "latency_s", "energy_j", "source",
         "what_is_timed")
    )
)  # fmt: skip
RUN_ONLY = tuple(name for name in RUN_COLUMNS if name not in (*SHAPE_COLUMNS, "hw", "dtype", "workload"))


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
