"""The scoreboard: how far off simtti, and whoever else gives predictions, is on what others measured, from every side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simtti.hw_configs.engines import DEFAULT
from simtti.pages.document import Fact, Report, Section, Table, table
from simtti.validation.judge.error_figures import figures
from simtti.validation.judge.runs import INTERVAL_S, unknown_devices
from simtti.validation.report import charts, tables
from simtti.validation.report.terminal import print_lines, print_table
from simtti.words import count, joined, percent, seconds, signed, whole

if TYPE_CHECKING:
    import pandas as pd

OURS = "predicted_s"
AS_ENGINE = "the engine's"  # launch and attention of a row that does not say
# What the boards are by: the title of each, and the column.
SIDES = (
    ("source", "collection"), ("model", "workload"), ("GPU", "hw"), ("GPUs", "gpus"), ("engine", "engine"), ("launch", "launch"),
    ("precision", "precision"), ("attention", "attention"), ("what was timed", "what_is_timed"), ("standing", "standing"),
)  # fmt: skip
# What rows decided, by what their collection begins with: parameters of a device's power (docs/accuracy.md), or what their engine is
# taken to do (hw_configs/engines.yaml, sources/public_runs.py). All others set nothing but the width of intervals.
STANDING = {
    "ml-energy": "set power parameters",
    "sayakpaul/diffusers-torchao": "set options of their engine",
    "sgl-project/sglang": "set options of their engine",
}
FREE = "set nothing"


def sided(found: pd.DataFrame) -> pd.DataFrame:
    """The rows of `evaluate_runs` with a column for each side: whose collection, launch, precision and attention where a row does not
    say, and whether the rows set parameters."""
    collection = found.source.str.replace(r" \(.*\)$", "", regex=True)
    filled = {
        name: _filled(found, name, usual)
        for name, usual in (
            ("engine", DEFAULT),
            ("launch", AS_ENGINE),
            ("attention", AS_ENGINE),
            ("quantization", ""),
        )
    }
    dtype = _filled(found, "dtype", "default")
    precision = filled["quantization"].where(filled["quantization"] != "", dtype)
    return found.assign(
        collection=collection,
        engine=filled["engine"],
        launch=filled["launch"],
        attention=filled["attention"],
        precision=precision,
        standing=collection.map(_standing),
    )


def _standing(collection: str) -> str:
    return next((what for start, what in STANDING.items() if collection.startswith(start)), FREE)


def _filled(found: pd.DataFrame, name: str, usual: str) -> pd.Series[str]:
    import pandas as pd

    if name not in found:
        return pd.Series(usual, index=found.index)
    return found[name].astype(object).where(found[name].notna() & (found[name] != ""), usual).astype(str)


def print_summary(found: pd.DataFrame, others: tuple[str, ...] = ()) -> None:
    """The boards on the terminal, and what has no prediction."""
    rows = _rows(found)
    for title, column in SIDES:
        if rows[column].nunique() > 1:
            print_table(board(rows, column, others), f"By {title}")
    if rows.memory_ratio.notna().any():
        print_table(memory(rows), "Peak memory")
    print_lines(failures(found), "yellow")


def report(found: pd.DataFrame, inputs: tuple[tuple[str, str], ...], others: tuple[str, ...] = ()) -> Report:
    """The page. inputs: what it was made from (see provenance). others: columns of predictions that are not simtti's."""
    rows = _rows(found)
    sections = [
        Section("All of them", blocks=(charts.scatter(rows, "collection", "scoreboard-scatter", "s"),)),
        *(
            Section(f"By {title}", blocks=(board(rows, column, others),))
            for title, column in SIDES
            if rows[column].nunique() > 1
        ),
    ]
    if rows.memory_ratio.notna().any():
        sections.append(
            Section("Peak memory", ("What torch.cuda.max_memory_allocated counts.",), (memory(rows),))
        )
    sections.append(Section("Every row", blocks=(every(rows, others),), folded=True))
    sections.append(
        Section("Made from", blocks=(table(("Input", "Which"), inputs, text_columns=2),), folded=True)
    )
    free = rows[rows.standing == FREE]
    every_row, unset = figures(rows[OURS], rows.latency_s), figures(free[OURS], free.latency_s)
    return Report(
        title="Scoreboard: whole runs and stages that others measured",
        subtitle=f"{count(len(rows))} rows of {rows.collection.nunique()} collections",
        facts=(
            Fact("Mean error", percent(every_row.mape), f"{count(every_row.rows)} rows (MAPE)"),
            Fact("Rows that set nothing", percent(unset.mape), f"{count(unset.rows)} rows"),
            Fact("Bias", signed(every_row.bias), "negative: predicted too fast"),
        ),
        summary=(
            f"Latency is off by {percent(every_row.mape)} on average, half of the rows by less than {percent(every_row.median)}.",
        ),
        cautions=failures(found),
        sections=tuple(sections),
    )


def _rows(found: pd.DataFrame) -> pd.DataFrame:
    return sided(found[~found.hw.isin(unknown_devices(found))])


def board(rows: pd.DataFrame, column: str, others: tuple[str, ...] = ()) -> Table:
    """Figures of each value of a column, most rows first, then of all; with the error of other simulators beside."""
    parts = [(str(key), part) for key, part in rows.groupby(column)]
    parts.sort(key=lambda item: (-len(item[1]), item[0]))
    if len(parts) > 1:
        parts.append((tables.ALL, rows))
    return table(
        (
            column.replace("_", " ").capitalize(),
            *tables.FIGURE_COLUMNS,
            *tables.COVER_COLUMNS,
            *(f"{name} MAPE" for name in others),
        ),
        [
            [
                name,
                *tables.figure_cells(figures(part[OURS], part.latency_s)),
                *tables.cover_cells(part.latency_s, part[list(INTERVAL_S)]),
                *_of_others(part, others),
            ]
            for name, part in parts
        ],
    )


def _of_others(part: pd.DataFrame, others: tuple[str, ...]) -> list[str]:
    """The error of each other simulator on the rows that it has a prediction for, and how many these are."""
    cells = []
    for name in others:
        known = part[part[name].notna()]
        found = figures(known[name], known.latency_s)
        cells.append(f"{percent(found.mape)} ({count(found.rows)})" if found.rows else "")
    return cells


def memory(rows: pd.DataFrame) -> Table:
    """Error of the peak memory by model."""
    known = rows[rows.memory_bytes.notna()]
    return table(
        ("Workload", *tables.FIGURE_COLUMNS),
        [
            [str(name), *tables.figure_cells(figures(part.peak_memory_bytes, part.memory_bytes))]
            for name, part in [*known.groupby("workload"), (tables.ALL, known)]
        ],
    )


def failures(found: pd.DataFrame) -> tuple[str, ...]:
    """Rows without a prediction by reason: each counts as 100 % off."""
    lines = []
    unknown = unknown_devices(found)
    if unknown:
        rows = int(found.hw.isin(unknown).sum())
        lines.append(f"{count(rows)} rows on {joined(unknown)} are left out: there is no such device file")
    for reason, part in found[(found.error != "") & ~found.hw.isin(unknown)].groupby("error"):
        lines.append(f"{count(len(part))} rows without a prediction, counted as 100 % off: {reason}")
    return tuple(lines)


def every(rows: pd.DataFrame, others: tuple[str, ...]) -> Table:
    """Each row, furthest off first."""
    far = rows.assign(off=np.abs(np.log(rows.ratio.astype(float).where(rows.ratio > 0)))).sort_values(
        "off", ascending=False, na_position="first", kind="stable"
    )
    names = ("Device", "GPUs", "Model", "Batch", "Steps", "Engine", "Launch", "Precision", "Timed")
    return table(
        (*names, "Measured", "Predicted", "Error", *others, "Source"),
        [
            [str(row["hw"]), str(row["gpus"]), str(row["workload"]), f"{row.get('batch') or 1:.0f}", whole(row.get("steps")),
             str(row["engine"]), str(row["launch"]), str(row["precision"]), str(row["what_is_timed"]),
             seconds(row["latency_s"]), seconds(row[OURS]), tables.bias_cell(row["ratio"] - 1),
             *(seconds(row[name]) for name in others), str(row["source"])]
            for row in far.to_dict("records")
        ],
        text_columns=3,
        words_last=True,
    )  # fmt: skip
