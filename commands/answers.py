"""From a question to an answer: what changed between two runs, what a scheduler needs to know of a model."""

from __future__ import annotations

import sys
from typing import Any

import click

from simtti.commands.options import (
    attention_option,
    cache_option,
    check_outputs,
    engine_option,
    host_option,
    interval_option,
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
@interval_option
@workers_option
def costs(
    workload: str,
    hw: str,
    gpus: str,
    batch: str,
    shapes: str | None,
    out: str,
    interval: bool,
    workers: int | None,
    **options: Any,
) -> None:
    """Seconds of a denoising step, of text encoder and decoder, by device, number of GPUs, batch and shape: a scheduler's table.

    Columns: hw, gpus, batch, height, width, text_encoder_s, step_s, decoder_s, latency_s, peak_memory_bytes, fits, what half of such times
    and 9 of 10 lie between (step_p05_s to step_p95_s), and error, the reason where a row has no figures. Interrupted, it keeps the finished rows; the same command does the rest.

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
            interval=interval,
            workers=workers,
            progress=advance,
            say=lambda text: click.echo(text, err=True),
            **chosen,
        )
    print_costs(table, workload)
    failed = int(table["latency_s"].isna().sum())
    click.echo(f"{out}: {len(table) - failed} of {len(table)} runs", err=True)


@click.command()
@click.argument("workload")
@click.option(
    "--hw", help="Devices: names or YAML files with commas between; those with a price if not given."
)
@click.option(
    "--gpus", default="1", show_default=True, help="Numbers of GPUs that share an inference, as 1,2,4."
)
@click.option(
    "--ways",
    default="ulysses,cfg",
    show_default=True,
    help="How several GPUs share it: ulysses, ring, cfg (with Ulysses or ring for the rest), tensor, pipefusion, patches (UNets).",
)
@click.option("--batch", help="Batches, as 1,2,4; the workload's own if not given.")
@click.option(
    "--launch",
    "launches",
    default="eager,compiled",
    show_default=True,
    help="Ways to launch, as for `simtti run`.",
)
@click.option(
    "--quantization",
    "quantizations",
    default="none",
    show_default=True,
    help="Formats to try, as none,fp8 (see `simtti run`).",
)
@click.option("--latency", help="What an inference may take at most: 3s, 800ms, 2min.")
@click.option("--memory", help="What it may hold on each GPU at most: 24GiB, 40GB.")
@click.option(
    "--prices", type=click.Path(), help="US dollars a GPU-hour by device, instead of hw_configs/prices.yaml."
)
@click.option("--most", default=3, show_default=True, help="How many to name for each aim.")
@click.option("--steps", type=int, help="Denoising steps the sampler is asked for.")
@engine_option
@cache_option
@host_option
@click.option("--out", type=click.Path(), help="Also write every candidate: .csv or .parquet.")
@json_option("every candidate")
@workers_option
def advise(
    workload: str,
    hw: str | None,
    gpus: str,
    ways: str,
    batch: str | None,
    launches: str,
    quantizations: str,
    latency: str | None,
    memory: str | None,
    json_path: str | None,
    **options: Any,
) -> None:
    """Which GPU, how many, and how: the cheapest, the fastest and the most efficient way to run WORKLOAD within the limits.

    Each candidate is simulated; the best of each aim come with the interval that 9 of 10 such runs lie in. Exit code 1 if none
    keeps the limits. Prices are of hw_configs/prices.yaml: give your own.

    \b
    simtti advise sdxl --latency 3s
    simtti advise flux-dev --hw h100-sxm,l40s,rtx-4090 --quantization none,fp8 --latency 5s --prices mine.yaml
    simtti advise wan2.1-14b --hw h100-sxm,h200-sxm --gpus 1,2,4,8 --latency 5min --out wan.csv
    """
    from simtti.commands.terminal_answers import print_advice
    from simtti.simulator.advise import MEETS
    from simtti.simulator.advise import advise as advice_on

    check_outputs(options["out"], json_path)
    limits: dict[str, Any] = {
        "latency_s": None
        if latency is None
        else _limit("--latency", "latency_s", latency, "3s, 800ms or 2min"),
        "memory_bytes": None
        if memory is None
        else _limit("--memory", "memory_bytes", memory, "24GiB or 40GB"),
    }
    chosen = {name: value for name, value in options.items() if value not in (None, "")}
    with progress("advise", "candidates") as advance:
        found = advice_on(
            workload,
            names(hw),
            gpus=whole_numbers("--gpus", gpus),
            ways=names(ways),
            batches=whole_numbers("--batch", batch),
            launches=names(launches),
            quantizations=[None if name == "none" else name for name in names(quantizations)],
            progress=advance,
            say=lambda text: click.echo(text, err=True),
            **limits,
            **chosen,
        )
    if not (json_path and print_json(records(found.table), json_path)):
        print_advice(found, workload, limits)
    if not (found.table.verdict == MEETS).any():
        sys.exit(1)


def _limit(option: str, field: str, text: str, examples: str) -> float:
    """A limit, as people write it, in the unit that `field` ends with."""
    from simtti.hw_configs.quantities import quantity

    minutes = text.removesuffix("min").strip() if field.endswith("_s") and text.endswith("min") else None
    try:
        return quantity(field, text) if minutes is None else 60 * float(minutes)
    except (InputError, ValueError):
        raise InputError(f"{option} is {text!r}; it must be as {examples}") from None


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
