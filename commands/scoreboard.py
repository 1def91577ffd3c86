"""`simtti scoreboard`: what others measured of whole runs, predicted, as one table and page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from simtti.commands.options import workers_option
from simtti.commands.pages import report_folder, write_report
from simtti.commands.progress import stages

if TYPE_CHECKING:
    import pandas as pd


@click.command()
@click.argument("collections", metavar="COLLECTION...", nargs=-1, required=True, type=click.Path())
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(),
    help="A folder for scoreboard.html, scoreboard.md, scoreboard.csv.",
)
@click.option(
    "--predictions",
    type=click.Path(),
    help="Another simulator's: a table with the column source, as scoreboard.csv has it, and one of seconds for each simulator.",
)
@workers_option
def scoreboard(collections: tuple[str, ...], out: str, predictions: str | None, workers: int | None) -> None:
    """Predict every whole run and stage in COLLECTIONs, and say how far off, by source, model, GPU, engine, launch and precision.

    A COLLECTION is a table of published runs (docs/scoreboard.md has its columns), a table of measurements, or a folder of them; a
    clone of ml-energy/leaderboard or LambdaLabsML/lambda-diffusers too. What no option of `simtti run` says is left out and
    counted; what should have had a prediction and has none counts as 100 % off. A shape that does not ship is recorded, which needs
    torch. Interrupted, the finished rows are kept; the same command does the rest.

    \b
    simtti scoreboard end_to_end_2026.csv questions_2026.csv -o board
    simtti scoreboard leaderboard/ -o board --predictions theirs.csv
    """
    from simtti.files import write_table
    from simtti.pages.provenance import provenance
    from simtti.validation.judge.runs import evaluate_runs
    from simtti.validation.judge.scoreboard import read_collections, with_predictions
    from simtti.validation.report import scoreboard as content
    from simtti.workloads.trace_cache import folder as cache_folder

    folder = report_folder(out) or Path(out)
    read = read_collections(collections)
    shown: list[tuple[pd.DataFrame, tuple[str, ...]]] = []

    def report(found: pd.DataFrame) -> None:
        others: tuple[str, ...] = ()
        if predictions is not None:
            found, others = with_predictions(found, predictions)
        write_table(content.sided(found), folder / "scoreboard.csv")
        write_report(content.report(found, provenance(collections), others), folder / "scoreboard")
        shown.append((found, others))

    with stages() as advance:
        evaluate_runs(
            read.table,
            folder / "scoreboard.parquet",
            traces=cache_folder(),
            workers=workers,
            progress=advance,
            finish=report,
        )
    content.print_summary(*shown[0])
    for reason, rows in read.left_out.most_common():
        click.echo(f"left out: {rows} rows: {reason}", err=True)
