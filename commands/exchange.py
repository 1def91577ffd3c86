"""Traces and measurements of others: `simtti import`, `simtti export`."""

from __future__ import annotations

import click

from simtti.commands.group import Group
from simtti.commands.options import (
    check_outputs,
    json_option,
    part_options,
    print_json,
    step_of,
    table_option,
)
from simtti.commands.progress import progress


@click.group(name="import", cls=Group)
def import_() -> None:
    """Bring traces and measurements of others into simtti's format."""


@import_.command(name="kineto")
@click.argument("file", type=click.Path())
@click.option("--out", type=click.Path(), help="The trace file to write (.parquet).")
@part_options
@json_option("what was found")
def import_kineto(
    file: str, out: str | None, json_path: str | None, device: int | None, profiler_step: str | None
) -> None:
    """Import a torch.profiler trace (.json, gzipped, zipped or in a tar): operators with shapes, kernels with times.

    A trace is one iteration on one GPU. What makes no sense in the file is left out, counted and said.

    \b
    simtti import kineto run.pt.trace.json.gz --out run.parquet --json -
    simtti run --trace run.parquet --hw h100-sxm --timing measured
    """
    from simtti.workloads import kineto

    check_outputs(out, json_path)
    with progress("read", "bytes") as advance:
        trace = kineto.import_kineto(file, device=device, step=step_of(profiler_step), progress=advance)
    if out:
        trace.save(out)
    facts = kineto.summary(trace)
    if json_path and print_json(facts, json_path):
        return
    for remark in facts["remarks"]:
        click.echo(f"{file}: {remark}", err=True)
    for reason, count in facts["left_out"].items():
        click.echo(f"{file}: left out: {count} {reason}", err=True)
    click.echo(
        f"{file}: {facts['device']}: {facts['operators']} operators, {facts['kernels']} kernels of "
        f"{facts['kernel_time_us'] / 1e3:.3f} ms, {facts['kernels_with_shapes']} with shapes",
        err=True,
    )


@import_.command(name="measurements")
@click.argument("kind")
@click.argument("directory", metavar="DIR", type=click.Path())
@table_option
def import_measurements(kind: str, directory: str, out: str) -> None:
    """Read a public database of measured GPU times from a clone of your own into simtti's table of measurements.

    \b
    KIND              DIR
    aiconfigurator    a clone of ai-dynamo/aiconfigurator (git lfs pull): GEMM and attention, with power
    ml-energy         a clone of ml-energy/leaderboard: latency and energy of whole diffusion inferences
    lambda-diffusers  a clone of LambdaLabsML/lambda-diffusers: latency with and without fused attention
    folder            gemm.parquet, attention.parquet, convolution.csv, ... already collected

    What simtti cannot predict is left out and counted.

    \b
    simtti import measurements aiconfigurator ~/aiconfigurator --out kernels.parquet
    """
    from simtti.files import write_table
    from simtti.validation.measurements.sources import import_measurements as read

    check_outputs(out)
    found = read(kind, directory)
    write_table(found.table, out)
    for reason, count in found.left_out.most_common():
        if count:
            click.echo(f"  left out: {count} of {reason}", err=True)
    devices = ", ".join(sorted(found.table["hw"].unique()))
    click.echo(f"{out}: {len(found.table)} measurements on {devices}", err=True)


@click.group(cls=Group)
def export() -> None:
    """Write traces in the formats of others."""


@export.command(name="chrome")
@click.argument("trace", type=click.Path())
@click.option("-o", "--out", required=True, type=click.Path(), help="The JSON file to write.")
def export_chrome(trace: str, out: str) -> None:
    """Write a timed TRACE as Chrome trace events, which ui.perfetto.dev and HolisticTraceAnalysis read."""
    from simtti.files import write_text
    from simtti.workloads.chrome import trace_to_chrome
    from simtti.workloads.trace import Trace

    check_outputs(out)
    write_text(out, trace_to_chrome(Trace.load(trace)))
    click.echo(f"{out}: open it in ui.perfetto.dev", err=True)
