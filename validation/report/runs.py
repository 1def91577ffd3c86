"""The report on whole inferences: what `simtti validate runs` says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from simtti.errors import InputError
from simtti.pages.document import Fact, Report, Section, Table, table
from simtti.validation.fit.leave_out import LEAST_RUNS
from simtti.validation.judge.error_figures import Figures, figures
from simtti.validation.judge.runs import (
    attention_ratios,
    batch_scaling,
    breakdown,
    device_ratios,
    two_sources,
    unknown_devices,
)
from simtti.validation.measurements.table import RUN_COLUMNS
from simtti.validation.report import charts, tables
from simtti.validation.report.tables import BIAS_LIMIT, MAPE_LIMIT, bias_cell, error_cell
from simtti.validation.report.terminal import print_lines, print_table
from simtti.words import (
    count,
    joined,
    percent,
    seconds,
    signed,
    whole,
)

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

WORST_RUNS = 5
LEFT_OUT = "Each model left out of the fit"
WITHIN = 0.25


def print_summary(found: pd.DataFrame) -> None:
    """The main tables and the warnings, on the terminal."""
    rows = _scored(found)
    one = rows[rows.gpus == 1]
    if len(one):
        print_table(by_model(one), f"Whole inferences on one GPU: {count(len(one))}")
    if len(rows) > len(one):
        print_table(by_model(rows[rows.gpus > 1], several=True), "On several GPUs")
    if len(set(_kinds(one))) > 1:
        print_table(by_kind(one), "By attention, launch and precision")
    if len(rows):
        print_table(derived(rows), "What follows from them")
    without = _left_out(rows)
    if len(without):
        print_table(by_model(without), LEFT_OUT)
    print_lines(_warnings(found), "yellow")


def report(found: pd.DataFrame, inputs: tuple[tuple[str, str], ...], traces: Path | None = None) -> Report:
    """The whole report. inputs: what it was made from (see provenance). traces: the folder of the runs' traces."""
    rows = _scored(found)
    one, several = rows[rows.gpus == 1], rows[rows.gpus > 1]
    sections = []
    if len(one):
        sections += [
            Section(
                "By device and model",
                blocks=(charts.scatter(one, "hw", "runs-scatter", "s"), by_model(one)),
            ),
            Section("By batch", blocks=(by_batch(one),)),
        ]
        if len(set(_kinds(one))) > 1:
            sections.append(Section("By attention, launch and precision", blocks=(by_kind(one),)))
    if len(several):
        sections.append(
            Section(
                "On several GPUs",
                ("One of the GPUs is simulated, with what it exchanges with the others.",),
                (charts.scatter(several, "gpus", "runs-several-scatter", "s"), by_model(several, several=True)),
            )
        )  # fmt: skip
    without = _left_out(rows)
    if len(without):
        text = (
            "The energy parameters of a device fitted to the runs of the other models alone, and the runs of this one "
            "simulated with them. Nothing else of a device is fitted to whole runs."
        )
        sections.append(Section(LEFT_OUT, (text,), (by_model(without),)))
    if len(rows):
        sections.append(Section("Scaling, ratios, energy", blocks=(derived(rows),)))
        sections += [
            Section(title, text, (block,), folded=True)
            for title, text, block in (
                ("Scaling with the batch", ("latency(batch) / latency(1).",), _scaling(batch_scaling(rows))),
                ("One kind of attention over another", ("Latency of the same run.",), _attention(attention_ratios(rows))),
                ("Ratio between devices", ("Latency on a device over that on the other.",), _ratios(device_ratios(rows))),
                ("The same run measured by two sources", (), _sources(two_sources(found))),
            )
            if block.rows
        ]  # fmt: skip
        sections.append(
            Section(
                "Where the time of the worst runs goes",
                ("Simulated shares of the time, on one GPU.",),
                (_breakdowns(rows, traces),),
            )
        )
        sections.append(Section("Every run", blocks=(_every(found),), folded=True))
    sections.append(
        Section("Made from", blocks=(table(("Input", "Which"), inputs, text_columns=2),), folded=True)
    )
    return Report(
        title="Whole inferences: how far off simtti is",
        subtitle=f"{joined(sorted(set(rows.hw)))}, predicted and measured" if len(rows) else "",
        facts=_facts(rows),
        summary=_summary(rows),
        cautions=(*_weak(one), *_several(several), *_warnings(found)),
        sections=tuple(sections),
    )


def _left_out(rows: pd.DataFrame) -> pd.DataFrame:
    """The runs simulated without their model's say in the device, as if that were their prediction."""
    if "left_out_s" not in rows:
        return rows.iloc[:0]
    known = rows[rows.left_out_s.notna()]
    return known.assign(predicted_s=known.left_out_s, predicted_j=known.left_out_j)


def _kinds(rows: pd.DataFrame) -> list[tuple[str, str, str]]:
    """What of a run's options makes it another way to do the same: attention, launch, precision."""
    columns = [
        rows[name].astype(object).where(rows[name].notna() & (rows[name] != ""), usual)
        if name in rows
        else [usual] * len(rows)
        for name, usual in (("attention", "flash"), ("launch", "eager"), ("dtype", ""))
    ]
    return list(zip(*(map(str, column) for column in columns), strict=True))


def _scored(found: pd.DataFrame) -> pd.DataFrame:
    return found[~found.hw.isin(unknown_devices(found))]


def latency_figures(part: pd.DataFrame) -> Figures:
    return figures(part.predicted_s, part.latency_s)


def energy_figures(part: pd.DataFrame) -> Figures:
    known = part[part.energy_j.notna()]
    return figures(known.predicted_j, known.energy_j)


def by_model(rows: pd.DataFrame, several: bool = False) -> Table:
    """Figures of each device and model, of each device, and of all."""
    parts = [((str(hw), str(model)), part) for (hw, model), part in tables.groups(rows, ["hw", "workload"])]
    if rows.hw.nunique() < len(parts):
        parts += [((str(key[0]), tables.ALL), part) for key, part in tables.groups(rows, ["hw"])]
    if rows.hw.nunique() > 1:
        parts.append(((tables.ALL, tables.ALL), rows))
    energy = ("Energy MAPE", "Energy bias") if rows.energy_j.notna().any() else ()
    return table(
        ("Device", "Model", *tables.FIGURE_COLUMNS, *energy),
        [
            [*names, *tables.figure_cells(latency_figures(part)), *(_energy_cells(part) if energy else ())]
            for names, part in parts
        ],
        "Latency of the whole batch." if not several else "",
        text_columns=2,
    )


def _energy_cells(part: pd.DataFrame) -> list[Any]:
    found = energy_figures(part)
    return [error_cell(found.mape), bias_cell(found.bias)] if found.rows else ["", ""]


def by_kind(rows: pd.DataFrame) -> Table:
    """Figures of each device by how its runs compute: attention, launch, precision."""
    kinds = ("Attention", "Launch", "Precision")
    filled = rows.assign(**dict(zip(kinds, zip(*_kinds(rows), strict=True), strict=True)))
    return table(
        ("Device", *kinds, *tables.FIGURE_COLUMNS),
        [
            [*map(str, key), *tables.figure_cells(latency_figures(part))]
            for key, part in tables.groups(filled, ["hw", *kinds])
        ],
        text_columns=4,
    )


def by_batch(rows: pd.DataFrame) -> Table:
    """Figures of each device and batch."""
    filled = rows if "batch" in rows else rows.assign(batch=1)
    return table(
        ("Device", "Batch", *tables.FIGURE_COLUMNS),
        [
            [str(hw), f"{batch:.0f}", *tables.figure_cells(latency_figures(part))]
            for (hw, batch), part in tables.groups(filled, ["hw", "batch"])
        ],
    )


def derived(rows: pd.DataFrame) -> Table:
    """Figures of what is compared between runs: batch scaling, ratios between devices, energy."""
    one = rows[rows.gpus == 1]
    between = two_sources(rows)
    found = [
        ("latency, one GPU", latency_figures(one)),
        ("latency, several GPUs", latency_figures(rows[rows.gpus > 1])),
        ("latency(batch) / latency(1)", _ratio_figures(batch_scaling(one))),
        *(
            (f"{kind} / {base} attention, {dtype}", _ratio_figures(part))
            for (kind, base, dtype), part in tables.groups(_by_dtype(one), ["attention", "base", "dtype"])
        ),
        ("ratio between two devices", _ratio_figures(device_ratios(one))),
        ("energy, one GPU", energy_figures(one)),
        ("energy, several GPUs", energy_figures(rows[rows.gpus > 1])),
        ("noise: two sources, the same run", _noise(between)),
    ]
    return table(
        ("What", *tables.FIGURE_COLUMNS),
        [
            [what, *tables.figure_cells(each, judged=not what.startswith("noise"))]
            for what, each in found
            if each.rows
        ],
    )


def _by_dtype(rows: pd.DataFrame) -> pd.DataFrame:
    pairs = attention_ratios(rows)
    return pairs if "dtype" in pairs else pairs.assign(dtype="default")


def _ratio_figures(pairs: pd.DataFrame) -> Figures:
    return figures(pairs.predicted.astype(float), pairs.measured.astype(float))


def _noise(between: pd.DataFrame) -> Figures:
    """One source's latency as a prediction of the next one's, run by run."""
    columns = [name for name in RUN_COLUMNS if name in between]
    keys = between[columns].astype(object).where(between[columns].notna(), "")
    firsts, others = [], []
    for _, part in between.groupby([keys[name] for name in columns], sort=False) if len(between) else ():
        times = part.groupby("source").latency_s.mean().tolist()
        firsts += times[:1] * (len(times) - 1)
        others += times[1:]
    return figures(firsts, others)


def _facts(rows: pd.DataFrame) -> tuple[Fact, ...]:
    one = rows[rows.gpus == 1]
    if not len(one):
        return ()
    found, scaling, energy = latency_figures(one), _ratio_figures(batch_scaling(one)), energy_figures(one)
    inside = int((np.abs(one.ratio - 1) <= WITHIN).sum())
    facts = [
        Fact("Mean error", percent(found.mape), f"latency of {count(found.rows)} runs on one GPU (MAPE)"),
        Fact("Within 25 %", f"{inside} of {found.rows}", f"half within {percent(found.median)}"),
        Fact("Bias", signed(found.bias), "negative: predicted too fast"),
    ]
    if scaling.rows:
        facts.append(Fact("Batch scaling", percent(scaling.mape), "error of latency(batch) / latency(1)"))
    if energy.rows:
        facts.append(Fact("Energy", percent(energy.mape), f"mean error of {count(energy.rows)} runs"))
    return tuple(facts)


def _summary(rows: pd.DataFrame) -> tuple[str, ...]:
    one, several = rows[rows.gpus == 1], rows[rows.gpus > 1]
    words = []
    if len(one):
        found = latency_figures(one)
        words.append(
            f"{count(found.rows)} inferences of {one.workload.nunique()} models on one GPU: latency is off by "
            f"{percent(found.mape)} on average, half of the runs by less than {percent(found.median)}."
        )
    if len(several):
        words.append(
            f"{count(len(several))} runs on several GPUs are off by {percent(latency_figures(several).mape)}."
        )
    return tuple(words) or ("No run could be scored.",)


def _weak(rows: pd.DataFrame) -> tuple[str, ...]:
    found = []
    for (hw, model), part in tables.groups(rows, ["hw", "workload"]):
        each = latency_figures(part)
        if each.mape > MAPE_LIMIT or abs(each.bias) > BIAS_LIMIT:
            side = "slow" if each.bias > 0 else "fast"
            found.append(
                (
                    each.mape,
                    f"{model} on {hw}: error {percent(each.mape)}, {percent(abs(each.bias))} too {side} on the whole",
                )
            )
    return tuple(text for _, text in sorted(found, reverse=True))


def _several(several: pd.DataFrame) -> tuple[str, ...]:
    if several.empty:
        return ()
    return (f"several GPUs: error {percent(latency_figures(several).mape)}",)


def _warnings(found: pd.DataFrame) -> tuple[str, ...]:
    lines = []
    unknown = unknown_devices(found)
    if unknown:
        lines.append(
            f"{int(found.hw.isin(unknown).sum())} runs on {joined(unknown)} are left out: there is no such device file"
        )
    rows = _scored(found)
    if "left_out_s" in rows and len(rows) > len(_left_out(rows)):
        lines.append(
            f"{count(len(rows) - len(_left_out(rows)))} runs not simulated with their model left out: several GPUs, no "
            f"energy, options of their own, or fewer than {LEAST_RUNS} runs of other models on the device"
        )
    for reason, part in rows[rows.error != ""].groupby("error"):
        lines.append(f"{count(len(part))} runs without a prediction, counted as 100 % off: {reason}")
    return tuple(lines)


def _scaling(pairs: pd.DataFrame) -> Table:
    return table(
        ("Device", "Model", "Batch", "Measured", "Predicted", "Error"),
        [
            [str(row["hw"]), str(row["workload"]), f"{row['batch']:.0f}", f"{row['measured']:.2f}", f"{row['predicted']:.2f}",
             bias_cell(row["ratio"] - 1)]
            for row in pairs.to_dict("records")
        ],
        text_columns=2,
    )  # fmt: skip


def _attention(pairs: pd.DataFrame) -> Table:
    return table(
        ("Device", "Model", "Attention", "Batch", "Precision", "Measured", "Predicted", "Error"),
        [
            [str(row["hw"]), str(row["workload"]), f"{row['attention']} / {row['base']}", f"{row.get('batch', 1):.0f}",
             str(row.get("dtype", "")), f"{row['measured']:.3f}", f"{row['predicted']:.3f}", bias_cell(row["ratio"] - 1)]
            for row in pairs.to_dict("records")
        ],
        text_columns=3,
    )  # fmt: skip


def _ratios(pairs: pd.DataFrame) -> Table:
    return table(
        ("Model", "Devices", "Batch", "Measured", "Predicted", "Error"),
        [
            [str(row["workload"]), f"{row['hw']} / {row['base']}", f"{row.get('batch', 1):.0f}", f"{row['measured']:.3f}",
             f"{row['predicted']:.3f}", bias_cell(row["ratio"] - 1)]
            for row in pairs.to_dict("records")
        ],
        text_columns=2,
    )  # fmt: skip


def _sources(rows: pd.DataFrame) -> Table:
    return table(
        ("Device", "Model", "Batch", "Source", "Measured", "Predicted", "Error"),
        [
            [str(row["hw"]), str(row["workload"]), f"{row.get('batch', 1):.0f}", str(row["source"]), seconds(row["latency_s"]),
             seconds(row["predicted_s"]), bias_cell(row["ratio"] - 1)]
            for row in rows.to_dict("records")
        ],
        text_columns=2,
    )  # fmt: skip


def _every(rows: pd.DataFrame) -> Table:
    return table(
        ("Device", "Model", "GPUs", "Batch", "Steps", "Measured", "Predicted", "Error", "Energy error", "Source"),
        [
            [str(row["hw"]), str(row["workload"]), str(row["gpus"]), f"{row.get('batch', 1):.0f}", whole(row.get("steps")),
             seconds(row["latency_s"]), seconds(row["predicted_s"]), bias_cell(row["ratio"] - 1),
             bias_cell(row["energy_ratio"] - 1), str(row["source"])]
            for row in rows.to_dict("records")
        ],
        text_columns=2,
        words_last=True,
    )  # fmt: skip


def _breakdowns(rows: pd.DataFrame, traces: Path | None) -> Table:
    """Shares of the time by category of the worst run of each of the worst models."""
    known = rows[rows.predicted_s.notna()]
    chosen: dict[tuple[str, str], dict[str, Any]] = {}
    for row in tables.furthest(known, "ratio", len(known)):
        chosen.setdefault((row["hw"], row["workload"]), row)
        if len(chosen) == WORST_RUNS:
            break
    found = []
    for (hw, workload), row in chosen.items():
        try:
            parts = breakdown(row, traces)
        except InputError as error:
            parts_text = str(error)
        else:
            total = sum(parts.values())
            largest = sorted(parts.items(), key=lambda item: -item[1])[:5]
            parts_text = ", ".join(f"{name} {percent(time / total, 0)}" for name, time in largest)
        found.append(
            [workload, hw, f"{row.get('batch', 1):.0f}", seconds(row["latency_s"]), seconds(row["predicted_s"]),
             bias_cell(row["ratio"] - 1), percent(row["host_bound_share"], 0), parts_text]
        )  # fmt: skip
    return table(
        ("Model", "Device", "Batch", "Measured", "Predicted", "Error", "Waits for host", "Largest parts"),
        found,
        text_columns=2,
        words_last=True,
    )
