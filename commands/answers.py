"""From a question to an answer: what changed between two runs, what a scheduler needs to know of a model."""

from __future__ import annotations

from typing import Any

import click

from simtti.commands.options import (
    attention_option,
    cache_option,
    engine_option,
    host_option,
    json_option,
    names,
    print_json,
    quantization_option,
    records,
    whole_numbers,
    workers_option,
)
from simtti.commands.progress import progress
from simtti.errors import InputError


@click.command()
@click.argument("a", type=click.Path())
@click.argument("b", type=click.Path())
@json_option("the table's rows")
def diff(a: str, b: str, json_path: str | None) -> None:
    """What changed from A to B, by phase and category: each a result of `simtti run --json`, or a trace with measured kernels.

    \b
    simtti run sdxl --hw a100-sxm --json a.json; simtti run sdxl --hw h100-sxm --json b.json
    simtti diff a.json b.json
    """
    from simtti.commands.terminal_answers import print_difference
    from simtti.simulator.difference import difference

    found, titles = difference(a, b)
    if json_path and print_json(records(found), json_path):
        return
    print_difference(found, titles)


@click.command()
@click.argument("workload")
@click.option("--hw", required=True, help="Devices: names or YAML files with commas between.")
@click.option("--gpus", default="1", show_default=True, help="Numbers of GPUs, as 1,2,4.")
@click.option("--batch", default="1", show_default=True, help="Batches, as 1,2,4.")
@click.option(
    "--shapes", help="Heights and widths, as 512x512,1024x1024; others than the workload's own need torch."
)
@click.option(
    "--steps",
    type=int,
    help="Denoising steps the sampler is asked for; a step's seconds hardly depend on it.",
)
@engine_option
@attention_option
@quantization_option
@cache_option
@click.option("--launch", default="", help="As for `simtti run`.")
@host_option
@click.option(
    "--out", required=True, type=click.Path(), help="Where to write the table: .csv, .parquet or .json."
)
@workers_option
def costs(
    workload: str,
    hw: str,
    gpus: str,
    batch: str,
    shapes: str | None,
    out: str,
    workers: int | None,
    **options: Any,
) -> None:
    """Seconds of a denoising step, of text encoder and decoder, by device, number of GPUs, batch and shape: a scheduler's table.

    Columns: hw, gpus, batch, height, width, text_encoder_s, step_s, decoder_s, latency_s, peak_memory_bytes, fits, and error, the reason
    where a row has no figures. Interrupted, it keeps the finished rows; the same command does the rest.

    \b
    simtti costs flux-dev --hw h100-sxm,l40s --gpus 1,2,4 --batch 1,2,4 --out flux.csv
    """
    from simtti.commands.terminal_answers import print_costs
    from simtti.simulator.costs import costs as table_of

    chosen = {name: value for name, value in options.items() if value not in (None, "")}
    with progress("costs", "runs") as advance:
        table = table_of(
            workload,
            names(hw),
            out,
            gpus=whole_numbers("--gpus", gpus),
            batches=whole_numbers("--batch", batch),
            shapes=_shapes(shapes),
            workers=workers,
            progress=advance,
            say=lambda text: click.echo(text, err=True),
            **chosen,
        )
    print_costs(table, workload)
    failed = int(table["latency_s"].isna().sum())
    click.echo(f"{out}: {len(table) - failed} of {len(table)} runs", err=True)


def _shapes(text: str | None) -> list[tuple[int, int]]:
    """Heights and widths written as 512x768,1024x1024."""
    found = []
    for part in names(text):
        height, _, width = part.partition("x")
        if not (height.isdecimal() and width.isdecimal()):
            raise InputError(
                f"--shapes is {text!r}; it must be HEIGHTxWIDTH with commas between, as 512x512,1024x1024"
            )
        found.append((int(height), int(width)))
    return found
