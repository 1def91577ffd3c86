"""The report on single kernels of one device: what `simtti validate kernels` says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from simtti.hw_configs.devices import read
from simtti.hw_configs.schema import calibration
from simtti.pages.document import Cell, Fact, Report, Section, Table, table
from simtti.validation.judge.error_figures import cover
from simtti.validation.judge.kernels import INTERVAL_US, UNSEEN, Evaluation, noise, size_order
from simtti.validation.report import charts, tables
from simtti.validation.report.tables import BIAS_LIMIT, MAPE_LIMIT
from simtti.validation.report.terminal import print_lines, print_table
from simtti.words import (
    count,
    joined,
    number,
    percent,
    signed,
)

if TYPE_CHECKING:
    import pandas as pd

# A group of fewer rows is not warned of by its figures.
FEWEST_ROWS = 10
# An interval wider than this share of the value: hardly identified (as in calibrate).
WIDE_INTERVAL = 0.5


@dataclass(frozen=True)
class Beside:
    """What else was measured on the device: captures (see judge.shipped) and counters (see judge.counters)."""

    captures: pd.DataFrame | None = None
    counters: pd.DataFrame | None = None


_NOTHING_BESIDE = Beside()


def print_captures(captures: pd.DataFrame) -> None:
    """The table of captures of whole inferences."""
    if len(captures):
        print_table(
            tables.captures(captures, brief=True), "Captures: kernels of a pass, predicted over measured"
        )


def print_cover(found: pd.DataFrame) -> None:
    """How often the intervals of one half of the residuals held the other half, by family and standing; of captured times with the relation
    of the two devices."""
    lines = [
        [row["family"], " ".join(filter(None, (row.get("relation"), row["standing"]))), count(row["rows"]), percent(row["nine_of_ten"], 0), percent(row["half"], 0),
         percent(row["half_width"])]
        for row in found.to_dict("records")
    ]  # fmt: skip
    head = ("Family", "Standing", "Rows", *tables.COVER_COLUMNS, "Half-width")
    print_table(table(head, lines, text_columns=2), "Intervals of one half of the residuals on the other")


def figures_of(found: Evaluation) -> list[dict[str, Any]]:
    """The figures as numbers: a row a family and split, and of each split all families, shares as 0.05. `within_90` and `within_50`: of
    the measurements within the intervals meant for 9 of 10 and for half of them."""
    rows, lines = found.scored, []
    parts = [(str(name), part) for name, part in rows.groupby("family")] if len(rows) else []
    for name, part in [*parts, *[(tables.ALL, rows)] * (len(parts) > 1)]:
        for split, chosen in part.groupby("split"):
            held = cover(chosen.time_us, chosen[list(INTERVAL_US)])
            lines.append(
                {"hw": found.hardware.name, "family": name, "shapes": str(split)}
                | tables.kernel_figures(chosen)._asdict()
                | {"within_90": held.nine_of_ten, "within_50": held.half}
            )
    return lines


def print_summary(found: Evaluation, beside: Beside) -> None:
    """The main tables and the warnings, on the terminal."""
    rows = found.scored
    if len(rows):
        print_table(tables.by_family(rows), f"{found.hardware.name}: {count(len(rows))} measured kernels")
        told = rows[rows.split != "unknown"]  # of which it is known whether they set parameters
        if len(set(told.split)) > 1:
            print_table(tables.splits_below(told), "Training and held-out shapes")
        print_table(tables.sizes(told if len(set(told.split)) > 1 else rows), "By measured time")
    if len(found.shown_apart):
        print_table(
            tables.apart(found.shown_apart), "Wall times, not scored: the host's share is not predicted"
        )
    if beside.counters is not None:
        print_table(
            tables.counters(beside.counters, brief=True), "Hardware counters in MB, predicted / measured"
        )
    print_lines(_warnings(found), "yellow")


def report(
    found: Evaluation, hw: str, inputs: tuple[tuple[str, str], ...], beside: Beside = _NOTHING_BESIDE
) -> Report:
    """The whole report. hw: the device's name or file; inputs: what it was made from (see provenance)."""
    rows = found.scored
    sections = []
    if len(rows):
        families = [str(name) for name in rows.family.value_counts().index]
        sections = [
            Section(
                "Predicted against measured",
                blocks=(charts.scatter(rows, "family", "kernels-scatter", "us"), tables.by_family(rows)),
            ),
            Section(
                "Training against held-out shapes",
                ()
                if found.fitted
                else ("The device file records no fit, so that no row is known to be held out.",),
                (tables.by_split(rows),) if found.fitted else (),
            ),
            Section(
                "By how long the kernel takes",
                blocks=(charts.by_size(rows, families), tables.by_size(rows), tables.roofline_by_size(rows)),
            ),
            Section("How errors spread", blocks=(charts.distribution(rows, families),)),
            Section("What the kernels wait for", blocks=(tables.by_bottleneck(rows),)),
            Section(
                "Error against each dimension of the shape",
                ("The line is the median, the band holds the middle 80 % of the rows at that size.",),
                tuple(
                    chart
                    for family in families
                    for chart in charts.dimensions(rows[rows.family == family], family)
                ),
            ),
            Section(f"The {min(tables.WORST_ROWS, len(rows))} worst rows", blocks=(tables.worst(rows),)),
        ]
    if len(found.shown_apart):
        sections.append(
            Section(
                "Wall times, shown and not scored",
                ("Times around single calls hold the launch by the host and a synchronisation, which this "
                 "prediction does not.",),
                (tables.apart(found.shown_apart),),
            )
        )  # fmt: skip
    sections += _beside(beside)
    content = read(hw)
    sections += [
        Section(
            "The device's parameters",
            (
                "fitted: set by measurements; carried: another device's; estimated: from the source named, without a fit. The interval is 95 %.",
            ),
            (*_fits(content), _parameters(content)),
            folded=True,
        ),
        Section("Made from", blocks=(table(("Input", "Which"), inputs, text_columns=2),), folded=True),
    ]
    return Report(
        title=f"{found.hardware.name}: how far off simtti is",
        subtitle=f"Single kernels, predicted and measured{_as(found)}",
        facts=_facts(rows),
        summary=_summary(rows),
        cautions=(*_weak(rows), *_warnings(found), *_parameter_warnings(content)),
        sections=tuple(sections),
    )


def _beside(beside: Beside) -> list[Section]:
    sections = []
    if beside.counters is not None:
        sections.append(
            Section(
                "Bytes at L1, L2 and HBM beside hardware counters", blocks=(tables.counters(beside.counters),)
            )
        )
    if beside.captures is not None and len(beside.captures):
        sections.append(Section("Captures of whole inferences", blocks=(tables.captures(beside.captures),)))
    return sections


def _as(found: Evaluation) -> str:
    return "" if found.measured_as == found.hardware.name else f" on {found.measured_as}"


def _facts(rows: pd.DataFrame) -> tuple[Fact, ...]:
    if not len(rows):
        return ()
    ours, roofline, between = tables.kernel_figures(rows), tables.roofline_figures(rows), noise(rows)
    facts = [
        Fact("Mean error", percent(ours.mape), f"of {count(ours.rows)} kernels (MAPE)"),
        Fact("Half are within", percent(ours.median), f"nine in ten within {percent(ours.p90)}"),
        Fact("Bias", signed(ours.bias), _side(ours.bias)),
        Fact("Roofline alone", percent(roofline.mape), "datasheet peak and bandwidth, the same kernels"),
    ]
    if between.rows:
        facts.append(
            Fact(
                "Measurement noise",
                percent(between.mape),
                f"two sources, {count(between.rows)} times the same call",
            )
        )
    return tuple(facts)


def _side(bias: float) -> str:
    if abs(bias) < 0.005:
        return "neither too fast nor too slow on the whole"
    return "predicted too slow on the whole" if bias > 0 else "predicted too fast on the whole"


def _summary(rows: pd.DataFrame) -> tuple[str, ...]:
    """What the numbers say, in words."""
    if not len(rows):
        return ("No row can be scored: all are wall times.",)
    ours, roofline, between = tables.kernel_figures(rows), tables.roofline_figures(rows), noise(rows)
    words = [
        f"On {count(ours.rows)} measured kernels the prediction is off by {percent(ours.mape)} on average; half are "
        f"within {percent(ours.median)}, nine in ten within {percent(ours.p90)}. A roofline from the datasheet, without "
        f"anything fitted, is off by {percent(roofline.mape)}."
    ]  # fmt: skip
    held_out = rows[rows.split == "test"]
    if len(held_out):
        train, test = tables.kernel_figures(rows[rows.split == "train"]), tables.kernel_figures(held_out)
        words.append(
            f"On the {count(test.rows)} rows whose shapes the fit never saw the error is {percent(test.mape)}, on the "
            f"{count(train.rows)} whose shapes it could use {percent(train.mape)}."
        )
    if between.rows:
        words.append(
            f"Two sources that timed the same call differ by {percent(between.mape)} ({count(between.rows)} rows): no model "
            "can be held to less."
        )
    else:
        words.append(
            "No call here was timed by two sources, so these data do not say how much of the error is the measurement's."
        )
    return tuple(words)


def _weak(rows: pd.DataFrame) -> tuple[str, ...]:
    """Families and size classes whose figures say not to trust them, the worst first."""
    found = []
    for (family, size), part in tables.groups(
        rows, ["family", "size"], lambda key: (key[0], size_order(key[1]))
    ):
        figures = tables.kernel_figures(part)
        off, leans = figures.mape > MAPE_LIMIT, abs(figures.bias) > BIAS_LIMIT
        if figures.rows >= FEWEST_ROWS and (off or leans):
            text = f"{family} of {size}: error {percent(figures.mape)}"
            if leans:
                text += f", {percent(abs(figures.bias))} too {'slow' if figures.bias > 0 else 'fast'} on the whole"
            found.append((figures.mape, f"{text} ({count(figures.rows)} rows)"))
    few = [str(name) for name, part in rows.groupby("family") if len(part) < FEWEST_ROWS]
    lines = [text for _, text in sorted(found, reverse=True)]
    if few:
        lines.append(f"{joined(few)}: fewer than {FEWEST_ROWS} rows, too few to say")
    return tuple(lines)


def _warnings(found: Evaluation) -> tuple[str, ...]:
    lines = []
    if found.measured_as != found.hardware.name:
        lines.append(
            f"no measurement names {found.hardware.name}: it is held against {found.measured_as}, which has the same "
            "datasheet"
        )
    unseen = found.scored[found.scored.split == UNSEEN]
    if len(unseen):
        lines.append(
            f"the device file records no fit of {count(len(unseen))} rows of {joined(sorted(set(unseen.family)))}: whether these very "
            "rows set a parameter is not known"
        )
    failed = found.table[found.table.error != ""]
    for reason, part in failed.groupby("error"):
        lines.append(f"{count(len(part))} rows without a prediction, counted as 100 % off: {reason}")
    faster = found.scored[found.scored.time_us < found.scored.roofline_us]
    if len(faster):
        lines.append(
            f"{count(len(faster))} rows were measured faster than the roofline: their operands were in L2 already, or "
            "the measurement is wrong"
        )
    return tuple(lines)


def _parameter_warnings(content: dict[str, Any]) -> tuple[str, ...]:
    """What `calibrate` would say of the fitted parameters: hardly known, or at a bound."""
    lines = []
    for name, entry in content["calibration"].items():
        _, low, high, _ = calibration()[name]
        interval = entry.get("interval")
        if interval and interval[1] - interval[0] > WIDE_INTERVAL * abs(entry["value"]):
            lines.append(
                f"the measurements hardly identify {name}: {number(entry['value'])}, 95 % between "
                f"{number(interval[0])} and {number(interval[1])}"
            )
        if entry["status"] == "fitted" and entry["value"] in (low, high):
            lines.append(f"{name} ends at its bound, {number(entry['value'])}")
    return tuple(lines)


def _fits(content: dict[str, Any]) -> tuple[Table, ...]:
    """What the device file says of its own fits."""
    fits = content.get("fits", {})
    if not fits:
        return ()
    rows = [
        [
            name, count(fit["used_rows"]), percent(fit["train_mape"]), percent(fit["test_mape"]), signed(fit["test_bias"]),
            fit["data_sha256"][:16], fit.get("sources", ""),
        ]
        for name, fit in fits.items()
    ]  # fmt: skip
    head = ("Fitted family", "Rows used", "Train MAPE", "Test MAPE", "Test bias", "Data sha256", "Sources")
    return (table(head, rows, "As recorded when the device was calibrated.", words_last=True),)


def _parameters(content: dict[str, Any]) -> Table:
    rows = []
    for name, (_, _, _, meaning) in calibration().items():
        entry = content["calibration"].get(name)
        if entry is None:
            continue  # another group's value stands there
        interval = entry.get("interval")
        rows.append(
            [
                name, Cell(number(entry["value"])), f"{number(interval[0])} to {number(interval[1])}" if interval else "",
                entry["status"], f"{meaning}. Source: {entry['source']}",
            ]
        )  # fmt: skip
    return table(
        ("Parameter", "Value", "95 % interval", "Status", "Meaning and source"), rows, words_last=True
    )
