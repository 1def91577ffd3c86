"""The model and measurements: fitted to them (`simtti calibrate`), held against them (`simtti validate`)."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from simtti.commands.group import Group
from simtti.commands.options import (
    check_outputs,
    json_option,
    measurements_option,
    names,
    part_options,
    print_json,
    records,
    step_of,
    table_option,
    workers_option,
)
from simtti.commands.pages import report_folder, write_report
from simtti.commands.progress import progress, stages
from simtti.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from simtti.hw_configs.hardware import Hardware


class _ValidateGroup(Group):
    """`simtti validate FILE` is `simtti validate trace FILE`; `simtti validate` alone is `simtti validate shipped`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args:
            args = ["shipped"]
        elif args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["trace", *args]
        return super().parse_args(ctx, args)


@click.command()
@click.option("--hw", required=True, help="The device that was measured: a name or a YAML file.")
@measurements_option
@click.option(
    "-o", "--out", required=True, type=click.Path(), help="The device file to write or update (.yaml)."
)
@click.option(
    "--families", help="Only these families, comma-separated (validation/fit/families.yaml has them)."
)
@click.option(
    "--parameters", help="Only parameters that match these patterns, as gemm_wgmma.*,hbm_efficiency."
)
@click.option(
    "--rows",
    default=3000,
    type=click.IntRange(min=1),
    show_default=True,
    help="Training rows of a family to use at most.",
)
@click.option(
    "--keep", is_flag=True, help="Fit nothing: write only how far off the device is on both halves (fits:)."
)
@workers_option
def calibrate(
    hw: str,
    files: tuple[str, ...],
    out: str,
    families: str | None,
    parameters: str | None,
    rows: int,
    keep: bool,
    workers: int | None,
) -> None:
    """Fit a device's parameters to measured kernels and write them into a device file.

    Half of the shapes, chosen by a hash, set the parameters; the figures printed are of the other half. The same
    measurements give the same file.

    \b
    simtti calibrate --hw h100-sxm --measurements measured/ -o my-h100.yaml
    simtti calibrate --hw h200-sxm --measurements gemm.parquet --parameters 'hbm_*' -o my-h200.yaml
    """
    from simtti.commands.terminal import print_calibration
    from simtti.hw_configs.families import parse
    from simtti.validation.fit import calibrate as fitting
    from simtti.validation.measurements.read import read_measurements

    check_outputs(out)
    if Path(out).is_file():
        parse(Path(out))  # a damaged file is refused before the work
    with stages() as advance:
        found = fitting.calibrate(
            hw,
            read_measurements(list(files)),
            only=names(families),
            parameters=names(parameters),
            most_rows=rows,
            keep=keep,
            workers=workers,
            progress=advance,
        )
    fitting.write(found, out)
    print_calibration(found)
    click.echo(f"{out}: {sum(len(fit.parameters) for fit in found.fits)} parameters", err=True)


@click.group(cls=_ValidateGroup, subcommand_metavar="FILE | COMMAND [ARGS]...")
def validate() -> None:
    """Hold the model against measurements: of a trace (FILE), of single kernels, of whole inferences.

    \b
    simtti validate                                        # everything measured that ships
    simtti validate run.pt.trace.json.gz --plot run.png --table run.csv
    simtti validate kernels --hw h100-sxm --measurements kernels.parquet -o reports
    simtti validate runs runs.csv -o reports
    simtti validate study --hw a100-sxm -o study
    """


@validate.command()
@click.option("--hw", help="Only what was measured on this device.")
@click.option("-o", "--out", type=click.Path(), help="A folder for HW.html, HW.md and HW.parquet.")
@click.option("--table", "table_path", type=click.Path(), help="Write the captures' table: .csv or .parquet.")
@json_option("the figures")
@workers_option
def shipped(
    hw: str | None, out: str | None, table_path: str | None, json_path: str | None, workers: int | None
) -> None:
    """Compare the model with everything measured that ships: the captures of whole inferences, operator by operator; every single
    operator of a suite, those that could set parameters apart from the others; hardware counters.

    `simtti validate` alone is the same.

    \b
    simtti validate
    simtti validate shipped -o reports
    """
    from simtti.files import write_table
    from simtti.pages.provenance import provenance
    from simtti.validation.judge.kernels import evaluate
    from simtti.validation.judge.shipped import compare_shipped
    from simtti.validation.measurements.read import read_measurements
    from simtti.validation.measurements.shipped import counters_file, kernels_file, measured_devices
    from simtti.validation.report import kernels as content

    check_outputs(table_path, json_path)
    folder = report_folder(out)
    devices = [device for device in measured_devices() if hw in (None, device)]
    with stages() as advance:
        captures = compare_shipped(hw, partial(advance, "captures"), workers)
        if captures.empty and not devices:
            raise InputError(f"nothing measured on {hw} ships; simtti workloads lists the captures that do")
        judged = {
            device: evaluate(
                device,
                read_measurements(kernels_file(device)),
                workers=workers,
                progress=partial(advance, f"operators on {device}"),
            )
            for device in devices
        }
    if table_path:
        write_table(captures, table_path)
    figures = {
        "captures": records(captures),
        "operators": [row for found in judged.values() for row in content.figures_of(found)],
    }
    quiet = json_path is not None and print_json(figures, json_path)
    if not quiet:
        content.print_captures(captures)
    for device, found in judged.items():
        counters = counters_file(device)
        inputs = [str(kernels_file(device)), *([str(counters)] if counters else [])]
        beside = content.Beside(captures[captures.hw == device], _counters(counters, found.hardware))
        if folder:
            write_table(found.table, folder / f"{device}.parquet")
            write_report(content.report(found, device, provenance(inputs, device), beside), folder / device)
        if not quiet:
            content.print_summary(found, beside)


@validate.command()
@click.argument("file", type=click.Path())
@click.option("--hw", help="The device to predict for; the one the trace was taken on if not given.")
@part_options
@json_option("the figures")
@click.option(
    "--table", "table_path", type=click.Path(), help="Write every operator with both times: .csv or .parquet."
)
@click.option("--plot", "plot_path", type=click.Path(), help="Write a scatter as .png or .svg.")
def trace(
    file: str,
    hw: str | None,
    json_path: str | None,
    table_path: str | None,
    plot_path: str | None,
    device: int | None,
    profiler_step: str | None,
) -> None:
    """Compare the model with the measured kernels of a timed trace (a .parquet, or a torch.profiler .json[.gz]).

    `simtti validate FILE` is the same.

    \b
    simtti validate run.pt.trace.json.gz --plot run.png --table run.csv
    """
    from simtti.commands.plots import plot_comparison
    from simtti.files import write_table
    from simtti.validation.judge.trace import validate as held_against
    from simtti.workloads.kineto import import_kineto as read_kineto
    from simtti.workloads.trace import Trace

    check_outputs(json_path, table_path, plot_path)
    if file.endswith(".parquet"):
        trace = Trace.load(file)
    else:
        trace = read_kineto(file, device=device, step=step_of(profiler_step))
        for remark in trace.provenance["remarks"]:
            click.echo(f"{file}: {remark}", err=True)
        for reason, count in trace.provenance["left_out"].items():
            click.echo(f"{file}: left out: {count} {reason}", err=True)
    comparison = held_against(trace, hw)
    if table_path:
        write_table(comparison.table, table_path)
    if plot_path:
        plot_comparison(comparison, plot_path)
    if json_path and print_json(comparison.to_dict(), json_path):
        return
    from simtti.commands.terminal import print_comparison

    print_comparison(comparison)


@validate.command()
@click.option("--hw", required=True, help="The device: a name or a YAML file, such as `calibrate` writes.")
@measurements_option
@click.option(
    "--counters",
    type=click.Path(),
    help="Hardware counters too: a file of `simtti capture kernels --counters`.",
)
@click.option("-o", "--out", type=click.Path(), help="A folder for HW.html, HW.md and HW.parquet.")
@click.option(
    "--rows",
    default=0,
    type=click.IntRange(min=0),
    help="Rows of a family at most, spread over the times; all if not given.",
)
@json_option("the figures")
@workers_option
def kernels(
    hw: str,
    files: tuple[str, ...],
    counters: str | None,
    out: str | None,
    rows: int,
    json_path: str | None,
    workers: int | None,
) -> None:
    """Predict every measured kernel of a device and report how far off the model is, where, and why.

    \b
    simtti validate kernels --hw h100-sxm --measurements measured/ -o reports
    """
    from simtti.files import write_table
    from simtti.pages.provenance import provenance
    from simtti.validation.judge.kernels import evaluate
    from simtti.validation.measurements.read import read_measurements
    from simtti.validation.report import kernels as content

    check_outputs(json_path)
    folder = report_folder(out)
    measurements = read_measurements(list(files))
    with progress("predict", "kernels") as advance:
        found = evaluate(hw, measurements, most_rows=rows, workers=workers, progress=advance)
    beside = content.Beside(counters=_counters(Path(counters) if counters else None, found.hardware))
    if folder:
        write_table(found.table, folder / f"{found.hardware.name}.parquet")
        inputs = provenance([*files, *([counters] if counters else [])], hw)
        write_report(content.report(found, hw, inputs, beside), folder / found.hardware.name)
    if not (json_path and print_json(content.figures_of(found), json_path)):
        content.print_summary(found, beside)


def _counters(path: Path | None, hardware: Hardware) -> pd.DataFrame | None:
    """A file of counters beside what the model gives their kernels; None without a file."""
    from simtti.validation.judge.counters import compare_counters
    from simtti.validation.measurements.bench.file import read_measurements

    return None if path is None else compare_counters(read_measurements(path)[0].to_pandas(), hardware)


@validate.command()
@measurements_option
@table_option
@click.option(
    "--rows",
    default=400,
    type=click.IntRange(min=1),
    show_default=True,
    help="Rows of a device and a family of fits at most, spread over the times.",
)
@click.option(
    "--captured",
    help="Also write the table for captured times (.csv): noise of launches, from the captures that ship, and residuals of ratios of two devices.",
)
@workers_option
def residuals(files: tuple[str, ...], out: str, rows: int, captured: str | None, workers: int | None) -> None:
    """Write the table of residuals that intervals are made of: quantiles of log(measured / predicted) by family, size and standing.

    Only shapes that set no parameter count. Prints how often the intervals of one half of them hold the other half's measurements.
    The tables that ship are simulator/uncertainty/residuals.csv and, for runs of captured kernel times, captured.csv.

    \b
    simtti validate residuals --measurements measured/ --measurements mine.parquet --out residuals.csv
    simtti validate residuals --measurements measured/ --out residuals.csv --captured captured.csv
    """
    from simtti.files import check_table, write_table
    from simtti.simulator.uncertainty.families import STANDINGS
    from simtti.validation.judge import residuals as judged
    from simtti.validation.measurements.read import read_measurements
    from simtti.validation.report.kernels import print_cover

    check_outputs(out)
    if captured is not None:
        check_table(captured)
    measurements = read_measurements(list(files))
    with stages() as advance:
        found = judged.log_ratios(measurements, most_rows=rows, workers=workers, progress=advance)
    of_model = judged.table(found)
    write_table(of_model, out)
    print_cover(judged.cross_cover(found))
    stretched = ", ".join(f"{stands} {judged.left_out(found, stands):g}" for stands in STANDINGS)
    click.echo(f"Times by which those of all devices are stretched to hold a device left out: {stretched}")
    click.echo(f"{out}: {len(found)} residuals", err=True)
    if captured is not None:
        import pandas as pd

        from simtti.validation.judge import captured_residuals as of_captured

        with stages() as advance:
            ratios = of_captured.ratio_residuals(
                measurements, most_rows=rows, workers=workers, progress=advance
            )
        both = pd.concat([of_captured.launch_noise(rows, workers), ratios], ignore_index=True)
        write_table(of_captured.table(both, of_model), captured)
        print_cover(of_captured.cross_cover(both, of_model))
        click.echo(f"{captured}: {len(both)} residuals", err=True)


@validate.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path())
@click.option("-o", "--out", type=click.Path(), help="A folder for runs.html, runs.md and runs.parquet.")
@click.option(
    "--leave-one-model-out",
    is_flag=True,
    help="Also fit the devices' energy parameters without each model and simulate its runs with them.",
)
@click.option(
    "--traces",
    type=click.Path(),
    help="A folder that keeps recorded traces for the next time; the cache (simtti cache) if not given.",
)
@json_option("the rows with their predictions")
@workers_option
def runs(
    files: tuple[str, ...],
    out: str | None,
    leave_one_model_out: bool,
    traces: str | None,
    json_path: str | None,
    workers: int | None,
) -> None:
    """Simulate every measured whole inference in FILEs and report the error by device, model and batch, and of what
    follows: scaling with the batch, one kind of attention over another, one device over another.

    FILE is a table of measurements or a folder of them. A run at another shape than the shipped one is recorded, which
    needs torch, once for each shape. Interrupted, it keeps the finished runs where -o is given; the same command does
    the rest.

    \b
    simtti validate runs runs.csv -o reports
    simtti validate runs runs.csv -o reports --leave-one-model-out
    """
    from simtti.pages.provenance import provenance
    from simtti.validation.judge.runs import evaluate_runs
    from simtti.validation.measurements.read import read_measurements
    from simtti.validation.report import runs as content
    from simtti.workloads.trace_cache import folder as cache_folder

    check_outputs(json_path)
    folder = report_folder(out)
    measurements = read_measurements(list(files))
    with tempfile.TemporaryDirectory() as scratch:
        place = folder or Path(scratch)
        kept = Path(traces) if traces else cache_folder()
        with stages() as advance:
            found = evaluate_runs(
                measurements,
                place / "runs.parquet",
                traces=kept,
                leave_one_model_out=leave_one_model_out,
                workers=workers,
                progress=advance,
            )
        if folder:
            write_report(content.report(found, provenance(files), kept), folder / "runs")
    if not (json_path and print_json(records(found), json_path)):
        content.print_summary(found)


@validate.command()
@click.option("--hw", default="a100-sxm", show_default=True, help="The device: a name or a YAML file.")
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(),
    help="A folder for study.html, study.md and a CSV a figure.",
)
@workers_option
def study(hw: str, out: str, workers: int | None) -> None:
    """Run the experiments of Golden et al. (ISPASS 2024) on a simulated device and set what they found beside it.

    Interrupted, it keeps what has come out; the same command does the rest. Other sizes than the default ones are recorded,
    which needs torch.

    \b
    simtti validate study --hw a100-sxm -o study
    """
    from simtti.validation.study import study as whole

    folder = report_folder(out)
    assert folder is not None
    with progress("simulate", "points") as advance:
        found = whole.run_study(hw, folder, workers=workers, progress=advance)
    whole.print_findings(found)
    whole.write(found, folder)
    click.echo(f"{folder / 'study.html'}: open it in a browser", err=True)
