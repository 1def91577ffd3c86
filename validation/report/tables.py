"""The tables of both reports."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from simtti.pages.document import Cell, Table, table
from simtti.simulator.uncertainty.residuals import Interval
from simtti.validation.judge.counters import HBM_LIMIT, HIT_RATE_LIMIT
from simtti.validation.judge.error_figures import Figures, cover, figures
from simtti.validation.judge.kernels import INTERVAL_US, explain, noise, shape_text, size_order
from simtti.words import count, number, percent, seconds, signed

if TYPE_CHECKING:
    import pandas as pd

# Bias beyond which a group of rows is marked, and a MAPE beyond which it is not to be trusted.
BIAS_LIMIT = 0.05
MAPE_LIMIT = 0.15
COVER_COLUMNS = ("90 % cover", "50 % cover")
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


def cover_cells(measured: pd.Series[float], intervals: pd.DataFrame) -> list[Cell]:
    """Cells of COVER_COLUMNS: how many of the measurements lie within the intervals meant for 9 of 10, and for half of them."""
    found = cover(measured, intervals)
    return [Cell(percent(found.nine_of_ten, 0)), Cell(percent(found.half, 0))]


def kernel_cover(part: pd.DataFrame) -> list[Cell]:
    return cover_cells(part.time_us, part[list(INTERVAL_US)])


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
    head = ["Family", *FIGURE_COLUMNS, *COVER_COLUMNS, "Roofline MAPE"]
    lines = [
        [name, *figure_cells(kernel_figures(part)), *kernel_cover(part), percent(roofline_figures(part).mape)]
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
    """Figures of each family and of all, of the rows that set parameters beside those that did not."""
    splits = _splits(rows)
    parts = [(str(key[0]), part) for key, part in groups(rows, ["family"])]
    if len(parts) > 1:
        parts.append((ALL, rows))
    return table(
        ("Family", *_split_columns(splits)),
        [[name, *_split_cells(part, splits)] for name, part in parts],
        SPLIT_CAPTION,
    )


def by_size(rows: pd.DataFrame) -> Table:
    """Figures of each family and size class, and of all families, by split."""
    splits = _splits(rows)
    lines = _of_sizes(rows, lambda family, size, part: [family, size, *_split_cells(part, splits)])
    return table(("Family", "Measured time", *_split_columns(splits)), lines, SPLIT_CAPTION, text_columns=2)


def splits_below(rows: pd.DataFrame) -> Table:
    """`by_split` for a terminal: the splits below each other, families by how many rows they have."""
    parts = [(str(key[0]), part) for key, part in groups(rows, ["family"])]
    parts.sort(key=lambda item: -len(item[1]))
    return _below("Family", [*parts, *[(ALL, rows)] * (len(parts) > 1)])


def sizes(rows: pd.DataFrame) -> Table:
    """Figures of each size class, whatever the family, the splits below each other."""
    parts = groups(rows, ["size"], lambda key: size_order(key[0]))
    return _below("Measured time", [(str(key[0]), part) for key, part in parts])


def _below(heading: str, parts: list[tuple[str, pd.DataFrame]]) -> Table:
    """A line a part and split; the part's name on its first."""
    lines: list[list[Any]] = []
    for name, part in parts:
        for place, split in enumerate(_splits(part)):
            chosen = part[part.split == split]
            cells = figure_cells(kernel_figures(chosen))
            lines.append([name if not place else "", split, *cells, *kernel_cover(chosen)])
    return table((heading, "Shapes", *FIGURE_COLUMNS, *COVER_COLUMNS), lines, text_columns=2)


def roofline_by_size(rows: pd.DataFrame) -> Table:
    """Figures of each family and size class beside the roofline's, both halves together."""
    lines = _of_sizes(
        rows,
        lambda family, size, part: [
            family, size, *figure_cells(kernel_figures(part)), percent(roofline_figures(part).mape)
        ],
    )  # fmt: skip
    return table(("Family", "Measured time", *FIGURE_COLUMNS, "Roofline MAPE"), lines, text_columns=2)


def _of_sizes(rows: pd.DataFrame, line: Callable[[str, str, pd.DataFrame], list[Any]]) -> list[list[Any]]:
    """A line for each family and size class, then for all families at each size."""
    by_both = groups(rows, ["family", "size"], lambda key: (key[0], size_order(key[1])))
    lines = [line(str(family), str(size), part) for (family, size), part in by_both]
    if rows.family.nunique() > 1:
        by_one = groups(rows, ["size"], lambda key: size_order(key[0]))
        lines += [line(ALL, str(size), part) for (size,), part in by_one]
    return lines


SPLIT_CAPTION = (
    "train: shapes that a fit recorded in the device file could use; test: shapes it could not; unseen: rows of families for which "
    "the device file records no fit."
)


def _splits(rows: pd.DataFrame) -> list[str]:
    return [name for name in SPLITS if (rows.split == name).any()]


def _split_columns(splits: list[str]) -> list[str]:
    chosen = (*FIGURE_COLUMNS, COVER_COLUMNS[0])
    return [f"{split.capitalize()} rows" if name == "Rows" else name for split in splits for name in chosen]


def _split_cells(part: pd.DataFrame, splits: list[str]) -> list[Cell]:
    """Cells of `_split_columns`, empty where a split has no row."""
    found: list[Cell] = []
    for split in splits:
        chosen = part[part.split == split]
        cells = figure_cells(kernel_figures(chosen)) if len(chosen) else [Cell("")] * len(FIGURE_COLUMNS)
        covered = kernel_cover(chosen)[0] if len(chosen) else Cell("")
        found += [*cells, covered]
    return found


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


def captures(found: pd.DataFrame, brief: bool = False) -> Table:
    """A row a capture (see `judge.shipped`), then the means. brief: what fits a terminal of 80 columns."""
    lines = [
        [
            row["trace"], row["hw"], row["attention"], count(row["operators"]), seconds(row["measured_ms"] / 1e3),
            f"{row['ratio']:.3f}", f"{1 / row['p95']:.2f} to {1 / row['p05']:.2f}", error_cell(row["weighted_error"]),
            f"{row['largest_error']} {percent(row['largest_error_share'])}",
        ]
        for row in found.to_dict("records")
    ]  # fmt: skip
    off, error = float((found.ratio - 1).abs().mean()), float(found.weighted_error.mean())
    covered = cover(1 / found.ratio, found[list(Interval._fields)])
    inside = f"{percent(covered.nine_of_ten, 0)} within; {percent(covered.half, 0)} in those for half"
    if brief:
        lines = [
            [line[0], line[1], line[4], line[5], line[6].replace(" to ", "-"), line[7]] for line in lines
        ]
        lines.append(
            [
                "mean",
                "",
                "",
                f"off {percent(off)}",
                f"{percent(covered.nine_of_ten, 0)} in",
                error_cell(error),
            ]
        )
        return table(("Capture", "Device", "Measured", "Sum", "9 of 10", "Error"), lines, text_columns=2)
    lines.append(["mean", "", "", "", "", f"off by {percent(off)}", inside, error_cell(error), ""])
    return table(
        (
            "Capture",
            "Device",
            "Attention",
            "Operators",
            "Measured",
            "Sum",
            "9 of 10",
            "Operators' error",
            "Most of it",
        ),
        lines,
        "Sum: of a pass's kernels, predicted over measured; off by: the mean of its distance from 1; 9 of 10: where its interval has it. Operators' error: weighted by "
        "their time; most of it: the category that weighs most, and how much of the time it is off by.",
        text_columns=3,
        words_last=True,
    )


def counters(found: pd.DataFrame, brief: bool = False) -> Table:
    """A row a kernel of `judge.counters.compare_counters`, predicted / measured. brief: without L1, and each operator on a line
    above its kernels."""
    head = ["Kernel", "L2 MB", "L2 hits", "HBM read MB", "HBM written MB", "HBM"]
    if not brief:
        head = ["Operator", "Kernel", "L1 MB", "L1 hits", *head[1:]]
    lines: list[list[Any]] = []
    operator = ""
    for row in found.to_dict("records"):
        is_first, operator = row["operator"] != operator, row["operator"]
        if is_first and brief:
            lines.append([_case(operator), *[""] * (len(head) - 1)])
        name = (row["kernel"] or row["counted_kernel"])[:_KERNEL_NAME]
        if brief:
            cells: list[Any] = [f"  {name}"]
        else:
            cells = [
                _case(operator) if is_first else "",
                name,
                _megabytes(row["l1_bytes"]),
                _rate(row["l1_hit_rate"]),
            ]
        read, written = row["hbm_read_bytes"], row["hbm_written_bytes"]
        our_read, our_written = row["predicted_hbm_read_bytes"], row["predicted_hbm_written_bytes"]
        lines.append(
            [
                *cells, _pair(row["predicted_l2_bytes"], row["l2_bytes"]),
                _rates(row["predicted_l2_hit_rate"], row["l2_hit_rate"]), _pair(our_read, read), _pair(our_written, written),
                _hbm_error(our_read + our_written, read + written),
            ]
        )  # fmt: skip
    return table(
        head,
        lines,
        "Predicted / measured from empty caches until the kernel ends; L1, which the model does not have, as measured. L2 as its "
        "counters count: what lies in the farther of its two partitions is looked up in both. Marked: hit rates more than "
        f"{100 * HIT_RATE_LIMIT:.0f} points apart, HBM's bytes more than {100 * HBM_LIMIT:.0f} %.",
        text_columns=1 if brief else 2,
    )


def _case(id: str) -> str:
    """A case's id in short: its op, what it says in words, and its sizes.

    >>> _case("softmax fp16 rows=64 cols=32 layout=dense")
    'softmax fp16 dense 64x32'
    """
    op, dtype, *cells = id.split(" ")
    values = [cell.partition("=")[2] for cell in cells if not cell.startswith("kernel=")]
    words = [value for value in values if value[:1].isalpha() and value not in ("True", "False")]
    return " ".join([op, dtype, *words, "x".join(value for value in values if value.isdigit())])


_KERNEL_NAME = 34  # letters of a kernel's name


def _megabytes(nbytes: float) -> str:
    """Three digits, from a tenth of a megabyte on."""
    return "" if nbytes != nbytes else f"{nbytes / 1e6:,.0f}" if nbytes >= 1e8 else f"{nbytes / 1e6:.1f}"


def _rate(share: float) -> str:
    return "" if share != share else f"{100 * share:.0f} %"


def _pair(predicted: float, measured: float) -> str:
    return f"{_megabytes(predicted)} / {_megabytes(measured)}"


def _rates(predicted: float, measured: float) -> Cell:
    apart = abs(predicted - measured) > HIT_RATE_LIMIT
    return Cell(f"{_rate(predicted)} / {_rate(measured)}", "bad" if apart else "")


def _hbm_error(predicted: float, measured: float) -> Cell:
    """The error of HBM's bytes together; empty where none to speak of were moved."""
    if not measured > _FEWEST_HBM_BYTES or predicted != predicted:
        return Cell("")
    error = predicted / measured - 1
    return Cell(signed(error), "bad" if abs(error) > HBM_LIMIT else "")


_FEWEST_HBM_BYTES = 1e5  # less than a counter's own noise: code and parameters of a kernel are as much
