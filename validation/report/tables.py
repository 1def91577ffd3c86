"""The tables of both reports."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from simtti.validation.judge.error_figures import Figures, figures
from simtti.validation.judge.kernels import explain, noise, shape_text, size_order
from simtti.validation.report.document import Cell, Table, table
from simtti.words import count, number, percent, signed

if TYPE_CHECKING:
    import pandas as pd

# Bias beyond which a group of rows is marked, and a MAPE beyond which it is not to be trusted.
BIAS_LIMIT = 0.05
MAPE_LIMIT = 0.15
FIGURE_COLUMNS = ("Rows", "MAPE", "Median", "90th pct", "Bias")
ALL = "all"
WORST_ROWS = 20
SPLITS = ("train", "test", "unseen")


def error_cell(value: float) -> Cell:
    return Cell(percent(value), "bad" if value > MAPE_LIMIT else "")


def bias_cell(value: float) -> Cell:
    return Cell(signed(value), "bad" if abs(value) > BIAS_LIMIT else "")


def figure_cells(found: Figures, judged: bool = True) -> list[Cell]:
    """Cells of FIGURE_COLUMNS; rows without a prediction are counted in brackets. judged: mark what is beyond the aim."""
    rows = count(found.rows) + (f" ({found.missing} missing)" if found.missing else "")
    mape, bias = error_cell(found.mape), bias_cell(found.bias)
    cells = [Cell(rows), mape, Cell(percent(found.median)), Cell(percent(found.p90)), bias]
    return cells if judged else [Cell(cell.text) for cell in cells]


def kernel_figures(part: pd.DataFrame) -> Figures:
    return figures(part.predicted_us, part.time_us)


def roofline_figures(part: pd.DataFrame) -> Figures:
    return figures(part.roofline_us, part.time_us)


def groups(
    rows: pd.DataFrame, columns: list[str], order: Callable[[Any], Any] = lambda key: key
) -> Iterable[tuple[tuple[Any, ...], pd.DataFrame]]:
    """The rows by the values of some columns, in order."""
    return sorted(rows.groupby(columns), key=lambda item: order(item[0]))


def by_family(rows: pd.DataFrame) -> Table:
    """Figures of each family and of all, beside the roofline's and the noise of the measurements."""
    parts = [(str(key[0]), part) for key, part in groups(rows, ["family"])]
    parts.sort(key=lambda item: -len(item[1]))
    if len(parts) > 1:
        parts.append((ALL, rows))
    head = ["Family", *FIGURE_COLUMNS, "Roofline MAPE"]
    lines = [
        [name, *figure_cells(kernel_figures(part)), percent(roofline_figures(part).mape)]
        for name, part in parts
    ]
    caption = "Roofline: datasheet peak and bandwidth alone."
    if rows.other_us.notna().any():
        head.append("Noise")
        for line, (_, part) in zip(lines, parts, strict=True):
            line.append(_noise(part))
        caption += (
            " Noise: MAPE of one source's measurement against another's of the same call, and on how many rows; empty "
            "where no call was measured twice."
        )
    return table(head, lines, caption)


def _noise(part: pd.DataFrame) -> str:
    found = noise(part)
    return f"{percent(found.mape)} ({count(found.rows)})" if found.rows else ""


def by_split(rows: pd.DataFrame) -> Table:
    """Figures of the rows that set parameters beside those that did not."""
    found = [
        [str(family), str(split), *figure_cells(kernel_figures(part))]
        for (family, split), part in groups(
            rows, ["family", "split"], lambda key: (key[0], SPLITS.index(key[1]))
        )
    ]
    return table(
        ("Family", "Split", *FIGURE_COLUMNS),
        found,
        "train: shapes that a fit recorded in the device file could use; test: shapes it could not; unseen: families "
        "for which the device file records no fit.",
        text_columns=2,
    )


def by_size(rows: pd.DataFrame) -> Table:
    """Figures of each family and decade of measured time."""
    found = [
        [str(family), str(size), *figure_cells(kernel_figures(part)), percent(roofline_figures(part).mape)]
        for (family, size), part in groups(rows, ["family", "size"], lambda key: (key[0], size_order(key[1])))
    ]
    return table(("Family", "Measured time", *FIGURE_COLUMNS, "Roofline MAPE"), found, text_columns=2)


def by_bottleneck(rows: pd.DataFrame) -> Table:
    """Figures by what the model says the kernel waits for."""
    known = rows[rows.bottleneck != ""]
    parts = sorted(known.groupby("bottleneck"), key=lambda item: -len(item[1]))
    return table(
        ("Bottleneck", *FIGURE_COLUMNS),
        [[str(name), *figure_cells(kernel_figures(part))] for name, part in parts],
        "The resource whose slowing by a tenth lengthens the kernel most, or the time lost in a last wave that is not full.",
    )


def worst(rows: pd.DataFrame) -> Table:
    """The rows furthest off in log ratio, each with what may explain it."""
    families = dict(list(rows.groupby("family")))
    found = [
        [
            str(row["family"]), shape_text(row), str(row["dtype"]), number(row["time_us"]), number(row["predicted_us"]),
            signed(row["ratio"] - 1), explain(row, families[row["family"]]),
        ]
        for row in furthest(rows, "ratio", WORST_ROWS)
    ]  # fmt: skip
    return table(
        (
            "Family",
            "Shape",
            "Type",
            "Measured us",
            "Predicted us",
            "Error",
            "Bounded by, and what is unusual",
        ),
        found,
        "A resource with a percentage: the share of the predicted time that grows when the resource is slowed.",
        text_columns=3,
        words_last=True,
    )


def furthest(rows: pd.DataFrame, ratio: str, most: int) -> list[dict[str, Any]]:
    """The rows with the largest |log ratio|; those without a prediction first."""
    import numpy as np

    distance = np.nan_to_num(np.abs(np.log(rows[ratio].to_numpy(float))), nan=np.inf)
    found: list[dict[str, Any]] = rows.iloc[np.argsort(-distance, kind="stable")[:most]].to_dict("records")  # type: ignore[assignment]
    return found


def apart(rows: pd.DataFrame) -> Table:
    """Wall times beside predictions, by family and source."""
    found = [
        [str(family), str(source), *figure_cells(kernel_figures(part))]
        for (family, source), part in groups(rows, ["family", "source"])
    ]
    return table(("Family", "Source", *FIGURE_COLUMNS), found, text_columns=2)
