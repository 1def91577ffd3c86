"""The whole study: every experiment on one device, and one report of it."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from simtti.files import write_text
from simtti.hw_configs.devices import load
from simtti.hw_configs.hardware import Hardware
from simtti.pages.document import Cell, Fact, Report, Section, Table, table
from simtti.validation.study import captured, image_sizes, operators, roofline, sequences, video
from simtti.validation.study.experiment import Experiment, Rows
from simtti.validation.study.findings import Finding, findings
from simtti.validation.study.lab import Found, run_points
from simtti.validation.study.plan import Plan

CITATION = "Golden et al., Generative AI Beyond LLMs: System Implications of Multi-Modal Generation, ISPASS 2024 (arXiv 2312.14385)"


class Study(NamedTuple):
    hardware: Hardware
    findings: list[Finding]
    experiments: list[Experiment]
    problems: list[str]


def run_study(
    hw: str,
    out: str | os.PathLike[str],
    *,
    plan: Plan | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Study:
    """Run every experiment on `hw`, keeping what has come out in the folder `out`, where the same call goes on.

    Raises:
        InputError: an unknown device, a folder that cannot be written.
    """
    plan = plan or Plan()
    hardware = load(hw)
    found = run_points(plan.points(), hardware, Path(out), workers=workers, progress=progress)
    return evaluate(found, plan, hardware)


def evaluate(found: Found, plan: Plan, hardware: Hardware) -> Study:
    """Findings and experiments of what has come out; what has not is said."""
    experiments = [
        roofline.experiment(found, plan, hardware),
        operators.experiment(found, plan),
        sequences.experiment(found, plan),
        image_sizes.experiment(found, plan),
        video.experiment(found, plan),
        captured.experiment(found, plan),
    ]
    problems = sorted(
        {f"{asked.kind} {asked.label}: {out['error']}" for asked, out in found.items() if "error" in out}
    )
    return Study(hardware, findings(found, plan, hardware), experiments, problems)


def _findings_table(found: list[Finding]) -> Table:
    """Unmet ones are marked."""
    rows: list[list[Cell | str]] = []
    for finding in found:
        mark = "bad" if finding.met is False else ""
        met = {True: "yes", False: "no", None: ""}[finding.met]
        rows.append(
            [
                finding.finding,
                finding.source,
                finding.wanted,
                Cell(finding.came_out, mark),
                Cell(met, mark),
                finding.measured,
                finding.predicted,
                finding.span,
            ]
        )
    heads = (
        "Finding",
        "The study says",
        "Wanted",
        "Came out",
        "Met",
        "Measured",
        "Predicted of the same",
        "Range",
    )
    return table(heads, rows, text_columns=7, words_last=True)


def report(study: Study) -> Report:
    """The report: findings, then each experiment."""
    met = [finding.met for finding in study.findings]
    first = Section(
        "Findings",
        (
            "Red where it does not come out. Measured: what captures of real inferences say of it, on a GPU of another kind than "
            "the study's, and what the simulator predicts of the same ones, as below. The range is of other accounts of the same runs and of what is not published.",
        ),
        (_findings_table(study.findings),),
    )
    cautions = [
        "No system of the study is open in full. Make-A-Video's sizes, Imagen's sampling steps and the production model are "
        "assumed (workloads/models says what and why); what depends on them is shown over a range.",
        "The study's tables and figures could not be read when this was written, only its abstract; two findings are "
        "second-hand.",
        "L1 hit rates are simulated, for loads that go through L1; an H200's products go past it (docs/study.md).",
        *study.problems,
    ]
    return Report(
        title=f"Beyond LLMs: the study on a simulated {study.hardware.name}",
        subtitle=f"{CITATION}. Eager PyTorch, fp16, batch 1 unless said otherwise; shares are of the kernels' time.",
        facts=(
            Fact(
                "Findings met",
                f"{sum(value is True for value in met)} of {sum(value is not None for value in met)}",
                "of those judged",
            ),
            Fact("Not met", str(sum(value is False for value in met)), "in red, with what they come to"),
        ),
        summary=(
            "What the study found on a real A100 beside what comes out of the simulated device. Nothing is fitted to it: the "
            "kernels' models were set on other measurements, and the systems are as their papers describe them.",
        ),
        cautions=tuple(cautions),
        sections=(first, *(experiment.section for experiment in study.experiments)),
    )


def print_findings(study: Study) -> None:
    """The findings for people, on standard output, without the ranges; then what captures say of them."""
    from simtti.validation.report.terminal import print_lines, print_table

    whole = _findings_table(study.findings)
    print_table(table(whole.columns[:5], [row[:5] for row in whole.rows], text_columns=5))
    for shown in captured.short_tables(_figures(study)):
        print_table(shown, shown.caption)
    print_lines(tuple(f"not run: {problem}" for problem in study.problems))


def write(study: Study, out: str | os.PathLike[str]) -> None:
    """study.html, study.md, findings.csv and a CSV for each figure in the folder `out`."""
    from simtti.pages import page
    from simtti.validation.report import markdown

    folder = Path(out)
    content = report(study)
    write_text(str(folder / "study.html"), page.html(content))
    write_text(str(folder / "study.md"), markdown.text(content))
    for name, rows in {"findings": [each._asdict() for each in study.findings], **_figures(study)}.items():
        write_text(str(folder / f"{name}.csv"), _csv(rows))


def _figures(study: Study) -> dict[str, Rows]:
    return {name: rows for experiment in study.experiments for name, rows in experiment.figures.items()}


def _csv(rows: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
