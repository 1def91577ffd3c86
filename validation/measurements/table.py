"""The project's table of measurements: what was timed, on which device, by whom.

A row is either one operator, as a row of `simtti predict`, or one whole inference, as a row of `simtti sweep`:

    op              an operator family of `simtti predict`; empty for a whole inference
    hw              the device's name, as `simtti hw` lists them (or that of a device file of one's own)
    dtype           fp16, bf16 or fp32; any type for what only moves between GPUs
    the op's shape  exactly the columns of `simtti predict`, as its help lists them
    time_us         measured time of the operator, microseconds
    power_w         mean board power meanwhile, watts; may be empty
    workload        a workload's name; empty for a single operator. Then the options of `simtti sweep`: batch steps
                    height width frames prompt_tokens gpus ulysses ring cfg_parallel tensor pipefusion pipefusion_patches warmup_steps patches
                    parallel_vae vae attention launch host
    latency_s       measured latency of the whole batch, seconds
    energy_j        energy of the whole batch on all GPUs, joules; may be empty
    memory_bytes    the most that was allocated meanwhile, as torch.cuda.max_memory_allocated counts; may be empty
    source          who measured, and where it is published
    what_is_timed   one of TIMED: what a prediction has to be held against
    group           what reports count the row under, as the part of a suite it was measured for; empty: its family's name

The same columns in CSV and Parquet; a column that no row needs may be missing, an unknown one is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from simtti.dtypes import predicted
from simtti.simulator.kernels.family import NEEDED, Column
from simtti.simulator.lowering.registry import FAMILIES
from simtti.simulator.policy import LAYOUT
from simtti.simulator.sweep import OPTIONS

if TYPE_CHECKING:
    import pandas as pd

# what_is_timed, and what of it a prediction does not hold.
TIMED = {
    "back-to-back": "device time of launches one after another, gaps included: what `predict` predicts",
    "kernels": "the operator's kernels as a profiler sees them: without the gaps, operands often warm in L2",
    "wall": "host or event time around single calls: with the host's launch and a synchronisation",
    "run": "a whole inference",
    "denoising": "the denoising loop of an inference",
    "text_encoder": "the text encoders of an inference",
    "decoder": "the decoder of an inference",
}
STAGES = ("text_encoder", "denoising", "decoder")  # of them, those of a whole inference's


class Shape(NamedTuple):
    """The shape columns of a family: those a row must fill and those with a default."""

    needed: tuple[str, ...]
    optional: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return self.needed + self.optional


# Degrees of parallelism, as `simtti run` names them, and what goes with them.
DEGREES = (
    "ulysses",
    "ring",
    "cfg_parallel",
    "tensor",
    "pipefusion",
    "pipefusion_patches",
    "warmup_steps",
    "patches",
)
# What a row of any op may say: the release of PyTorch whose kernels were timed.
OF_ANY_OP = ("pytorch",)
RUN_COLUMNS = tuple(name for name in OPTIONS if name not in ("trace", "fidelity"))
_RUN_WHOLE = (
    "batch",
    "steps",
    "height",
    "width",
    "frames",
    "prompt_tokens",
    "gpus",
    *DEGREES,
)


def shape_of(op: str) -> Shape:
    """The shape columns of a family of `simtti predict`."""
    columns = FAMILIES[op].columns
    return Shape(
        tuple(column.name for column in columns if column.default is NEEDED),
        tuple(column.name for column in columns if column.default is not NEEDED),
    )


def shape_columns() -> dict[str, Column]:
    """The shape columns of all families, by name. One that several have may hold what it may in any of them."""
    found: dict[str, Column] = {}
    for family in FAMILIES.values():
        for column in family.columns:
            before = found.get(column.name, column)
            found[column.name] = column._replace(
                least=min(before.least, column.least),
                words=tuple(dict.fromkeys((*before.words, *column.words))),
            )
    return found


def words() -> dict[str, tuple[str, ...]]:
    """What the texts of a table may be, by column."""
    shapes = {name: tuple(column.words) for name, column in shape_columns().items() if column.words}
    types = dict.fromkeys((*predicted(), *(name for family in FAMILIES.values() for name in family.dtypes)))
    # Operators and runs have a column of this name each.
    shapes["layout"] = (*shapes["layout"], *LAYOUT)
    return {"dtype": tuple(types), **shapes, "what_is_timed": tuple(TIMED)}


def flags() -> tuple[str, ...]:
    """The columns that hold true or false."""
    return tuple(name for name, column in shape_columns().items() if column.kind is bool)


def whole() -> dict[str, int]:
    """The columns that hold whole numbers, and the least of each."""
    shapes = {name: column.least for name, column in shape_columns().items() if column.kind is int}
    return shapes | dict.fromkeys(_RUN_WHOLE, 1) | {"warmup_steps": 0}


def columns() -> tuple[str, ...]:
    """Every column of a table of measurements, in order."""
    return tuple(
        dict.fromkeys(
            ("op", "hw", "dtype", *shape_columns(), "time_us", "power_w", *RUN_COLUMNS, "latency_s", "energy_j", "memory_bytes",
             "source", "what_is_timed", "group")
        )
    )  # fmt: skip


def operators(table: pd.DataFrame, op: str) -> pd.DataFrame:
    """The rows of one family as `simtti predict` takes them, with hw, time_us, power_w, source and what_is_timed."""
    shape = shape_of(op)
    columns = [
        "op",
        "hw",
        "dtype",
        *shape.names,
        "time_us",
        "power_w",
        "source",
        "what_is_timed",
    ]
    rows = table.loc[table["op"] == op, columns].reset_index(drop=True)
    return rows.astype({name: int for name in shape.needed})


def runs(table: pd.DataFrame) -> pd.DataFrame:
    """The whole inferences: columns of `simtti sweep`, then what was measured of them, by whom."""
    columns = [*RUN_COLUMNS, "latency_s", "energy_j", "memory_bytes", "source", "what_is_timed"]
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
