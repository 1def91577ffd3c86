"""The command line: one thin click command per verb of the Python API."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import click

from simtti.errors import InputError
from simtti.simulator.progress import progress as _progress
from simtti.simulator.progress import stages as _stages
from simtti.validation.commands import validate


class _Group(click.Group):
    """Turns an InputError, a full disk or Ctrl-C of any command into one line and exit code 2."""

    def main(self, *args: Any, **extra: Any) -> Any:
        extra["standalone_mode"] = False
        try:
            return super().main(*args, **extra)
        except InputError as error:
            _fail(str(error))
        except click.exceptions.Exit as stop:
            sys.exit(stop.exit_code)
        except (click.Abort, KeyboardInterrupt):
            _fail("interrupted; finished work is kept, the same command goes on from there")
        except click.ClickException as error:
            _fail(" ".join(error.format_message().split()))
        except BrokenPipeError:
            sys.stderr.close()  # the reader went away (| head): nothing to say, and nobody to say it to
            sys.exit(0)
        except OSError as error:
            _fail(f"{error.filename or 'output'}: {error.strerror or error}")


def _fail(message: str) -> None:
    click.echo(f"simtti: error: {message}", err=True)
    sys.exit(2)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="simtti")
def main() -> None:
    """How fast a GPU, or a chip that does not exist yet, runs text-to-image and text-to-video inference.

    \b
    simtti run stable-diffusion --hw h100-sxm             one inference, with its breakdown
    simtti run sdxl --hw a100-sxm --timeline sdxl.json    open the file in ui.perfetto.dev
    simtti sweep points.csv --out results.csv             many runs
    simtti predict kernels.csv --hw h200-sxm --out t.csv  single operators
    """


def _shape_options(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--batch", type=int, help="Images (or videos) at once.")(
        _shape_options_but_batch(command)
    )


def _shape_options_but_batch(command: Callable[..., Any]) -> Callable[..., Any]:
    options = [
        click.option("--steps", type=int, help="Denoising steps the sampler is asked for."),
        click.option("--height", type=int, help="Image height in pixels."),
        click.option("--width", type=int, help="Image width in pixels."),
        click.option("--frames", type=int, help="Frames of a video."),
        click.option("--prompt-tokens", type=int, help="Tokens of the prompt, where the workload allows it."),
        click.option("--dtype", help="Weights and activations: fp16, bf16 or fp32."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@main.command()
@click.argument("workload", required=False)
@click.option("--hw", required=True, help="A device's name (simtti hw lists them) or a YAML file.")
@_shape_options
@click.option(
    "--attention", default="flash", show_default=True, help="flash, efficient, or baseline: scores in HBM."
)
@click.option(
    "--launch",
    default="eager",
    show_default=True,
    help="eager; graph: a CUDA graph, without the host; compiled: torch.compile.",
)
@click.option("--host", default="default", show_default=True, help="The machine that launches the kernels.")
@click.option("--trace", type=click.Path(), help="Run this trace file instead of a workload.")
@click.option(
    "--fidelity", default="wave", show_default=True, help="wave, or cta: every CTA on its own, slower."
)
@click.option(
    "--timing",
    default="model",
    show_default=True,
    help="With --trace: model, measured (the trace's kernel times), or hybrid (those scaled to --hw).",
)
@click.option("--gpus", default=1, show_default=True, help="GPUs that share the tokens (a crude estimate).")
@click.option("--ulysses", type=int, help="Degree of Ulysses (all-to-all) sequence parallelism.")
@click.option("--ring", type=int, help="Degree of ring sequence parallelism; ulysses x ring = gpus.")
@click.option("--json", "json_path", help="Write the result as JSON to a file, or to - for standard output.")
@click.option("--timeline", help="Write a timeline that ui.perfetto.dev and chrome://tracing open.")
def run(
    workload: str | None, hw: str, json_path: str | None, timeline: str | None, timing: str, **options: Any
) -> None:
    """Simulate one inference of WORKLOAD and print where its time goes.

    \b
    simtti run stable-diffusion --hw a100-sxm
    simtti run sdxl --hw h100-sxm --batch 4 --steps 30 --json -
    simtti run stable-diffusion --hw my-chip.yaml --attention baseline
    simtti run --trace captured.parquet --hw a100-sxm --timing hybrid
    """
    import simtti
    from simtti.simulator import table
    from simtti.simulator.timeline import chrome_trace

    if workload is None and options["trace"] is None:
        raise InputError("give a WORKLOAD (simtti workloads lists them) or --trace FILE")
    for path in (json_path, timeline):
        if path not in (None, "-"):
            table.check_writable(path)
    if timing != "model":
        _replay(options["trace"], hw, timing, json_path)
        return
    result = simtti.run(workload or "", hw, **options)
    if timeline:
        table.write_text(timeline, chrome_trace(result))
    if json_path:
        text = json.dumps(result.to_dict(), indent=2) + "\n"
        if json_path == "-":
            click.echo(text, nl=False)
            return
        table.write_text(json_path, text)
    from simtti.simulator.summary import print_result

    print_result(result)
    if timeline:
        click.echo(f"Timeline: {timeline} (open it in ui.perfetto.dev)")


def _replay(trace_path: str | None, hw: str, timing: str, json_path: str | None) -> None:
    from simtti.hw_configs.hardware import find_reported, load
    from simtti.simulator import table
    from simtti.simulator.replay import replay
    from simtti.workloads.trace import Trace

    if trace_path is None:
        raise InputError(f"--timing {timing} needs --trace FILE, a trace with measured kernels")
    trace = Trace.load(trace_path)
    reported = str(trace.timing.device.get("name", "")) if trace.timing else ""
    result = replay(trace, load(hw), timing, find_reported(reported))
    text = json.dumps(result.to_dict(), indent=2) + "\n"
    if json_path == "-":
        click.echo(text, nl=False)
        return
    if json_path:
        table.write_text(json_path, text)
    from simtti.simulator.summary import print_replay

    print_replay(result)


@main.command()
@click.argument("rows", metavar="TABLE", type=click.Path())
@click.option("--hw", required=True, help="A device's name or a YAML file.")
@click.option("--out", required=True, type=click.Path(), help="Where to write the table: .csv or .parquet.")
@click.option("--workers", type=int, help="Processes; as many as there are cores if not given.")
def predict(rows: str, hw: str, out: str, workers: int | None) -> None:
    """Time single operators: TABLE's rows, with time_us added.

    Each row has an op, a dtype (fp16, bf16, fp32) and the op's shape. Times include the gap to the next
    launch; operands come from HBM. A row that cannot be timed keeps its place, with the reason in `error`.

    \b
    op           columns
    gemm         m n k [batch]                  C[m,n] = A[m,k] B[k,n]
    attention    batch heads q_len kv_len head_dim [causal]
                 [kernel: flash-attention-2 flash-attention-3 flash-attention-4 trtllm-fmha efficient baseline]
    conv2d       n c h w oc kh kw [stride padding groups layout: nchw nhwc]
    conv3d       n c d h w oc kd kh kw [stride padding groups layout]
    group_norm   n c spatial [groups layout]    spatial: the elements of a channel
    layer_norm   rows cols
    rms_norm     rows cols
    softmax      rows cols
    elementwise  numel [inputs function]        inputs: tensors read, 1 by default; function: add mul silu gelu ...
    copy         numel
    permute      rows cols [batch inner]        copy of (batch, rows, cols, inner) to (batch, cols, rows, inner)
    cat          n c c2 spatial                 (n, c, spatial) and (n, c2, spatial) along the second dimension
    embedding    rows cols [table_rows]
    upsample     n c h w scale
    """
    from simtti.simulator.predict import predict as predict_table

    with _progress("predict", "rows") as progress:
        table = predict_table(rows, hw, out, workers=workers, progress=progress)
    failed = int((table["error"] != "").sum())
    click.echo(f"{out}: {len(table) - failed} of {len(table)} rows timed on {hw}", err=True)


@main.command()
@click.argument("points", metavar="TABLE", type=click.Path())
@click.option("--out", required=True, type=click.Path(), help="Where to write the table: .csv or .parquet.")
@click.option("--workers", type=int, help="Processes; as many as there are cores if not given.")
def sweep(points: str, out: str, workers: int | None) -> None:
    """Run every row of TABLE; its columns are options of `simtti run`.

    Adds latency_s, energy_j, peak_memory_bytes, host_bound_share, and error, the reason where a row has no
    result. Interrupted, it keeps the finished rows; the same command does the rest.

    \b
    workload,hw,batch,steps
    stable-diffusion,a100-sxm,1,25
    sdxl,h100-sxm,4,50
    """
    from simtti.simulator.sweep import sweep as sweep_table

    with _progress("sweep", "runs") as progress:
        table = sweep_table(points, out, workers=workers, progress=progress)
    failed = int(table["latency_s"].isna().sum())
    click.echo(f"{out}: {len(table) - failed} of {len(table)} runs", err=True)


@main.command()
@click.argument("spec", type=click.Path())
@click.option("--out", required=True, type=click.Path(), help="The folder for results, report and journal.")
@click.option("--engine", default="local", show_default=True, help="local (processes), ray, or dask.")
@click.option("--workers", type=int, help="Processes; as many as there are cores if not given.")
@click.option("--address", help="A running Ray or Dask cluster; without it, one of this machine.")
@click.option("--report/--no-report", default=True, help="Write report.html, which needs plotly.")
@click.option(
    "--design",
    "numbers",
    multiple=True,
    type=int,
    help="Write this design's device file; may be given again.",
)
def explore(spec: str, out: str, numbers: tuple[int, ...], **options: Any) -> None:
    """Search for better hardware: designs as SPEC.yaml describes them, each evaluated in full.

    Writes results.parquet (a row a design), pareto.csv, sensitivity.csv, limits.parquet, report.html, and the device files of
    the Pareto set (designs/NUMBER.yaml, for run --hw). Interrupted, it keeps what is done; the same command goes on, alone
    or beside another on the same folder. SPEC may be a shipped example: bandwidth-or-sfus, l2-for-sdxl, ttv-600mm2,
    h100-h200-next, edge-sdxl-turbo.

    \b
    simtti explore ttv-600mm2 --out study
    simtti explore my-question.yaml --out study --engine ray --address auto
    """
    from pathlib import Path

    from simtti.explore import api
    from simtti.simulator.summary import print_exploration

    with _progress("explore", "designs") as progress:
        result = api.explore(spec, out, progress=progress, **options)
    for number in numbers:
        click.echo(api.write_design(result, number, Path(out)), err=True)
    print_exploration(result)
    click.echo(
        f"{out}: results.parquet, pareto.csv, designs/" + (", report.html" if options["report"] else ""),
        err=True,
    )


@main.command()
@click.argument("workload")
@click.option("--hw", required=True, help="Devices: names or YAML files with commas between.")
@click.option("--batch", help="Batches, as 1,4,16; the workload's own if not given.")
@_shape_options_but_batch
@click.option(
    "--attention", default="flash", show_default=True, help="flash, efficient, or baseline: scores in HBM."
)
@click.option("--launch", default="eager", show_default=True, help="As for `simtti run`.")
@click.option("--host", default="default", show_default=True, help="The machine that launches the kernels.")
@click.option("--plot", "plot_path", type=click.Path(), help="Also plot it (.png, .svg).")
@click.option("--out", type=click.Path(), help="Also write the table: .csv or .parquet.")
def compare(
    workload: str, hw: str, batch: str | None, plot_path: str | None, out: str | None, **options: Any
) -> None:
    """Compare devices: latency, throughput, energy, memory and bottleneck of WORKLOAD on each, at each batch.

    \b
    simtti compare sdxl --hw a100-sxm,h100-sxm,h200-sxm --batch 1,4,16 --plot sdxl.png
    simtti compare svd --hw l40s,my-chip.yaml --launch graph --out svd.csv
    """
    from simtti.simulator import table
    from simtti.simulator.compare import compare as compare_devices
    from simtti.simulator.compare import plot_comparison
    from simtti.simulator.summary import print_comparison_of_devices

    for path in (plot_path, out):
        if path is not None:
            table.check_writable(path)
    batches: list[int | None] = list(_whole_numbers("--batch", batch)) or [None]
    chosen = {name: value for name, value in options.items() if value is not None}
    with _progress("compare", "runs") as progress:
        found = compare_devices(workload, _names(hw), batches, progress=progress, **chosen)
    if out:
        table.write_table(found, out)
    if plot_path:
        plot_comparison(found, plot_path, workload)
    print_comparison_of_devices(found, workload)


@main.command()
@click.argument("workload")
@_shape_options
@click.option("--guidance", type=float, help="Classifier-free guidance scale; 1 turns it off.")
@click.option("-o", "--out", required=True, type=click.Path(), help="The trace file to write (.parquet).")
def record(workload: str, out: str, **options: Any) -> None:
    """Record the operators of WORKLOAD at a shape, without a GPU: the real modules on torch's meta device.

    \b
    simtti record stable-diffusion-1.5 --height 768 --width 768 --batch 2 -o sd-768.parquet
    """
    import simtti
    from simtti.simulator import table

    table.check_writable(out)
    trace = simtti.record(workload, **options)
    trace.save(out)
    steps = [(phase.name, step.count, len(step.operators)) for phase in trace.phases for step in phase.steps]
    text = ", ".join(f"{name} {count} x {operators} operators" for name, count, operators in steps)
    click.echo(f"{out}: {trace.workload}: {text}", err=True)


@main.command()
@click.argument("workload")
@_shape_options
@click.option("--guidance", type=float, help="Classifier-free guidance scale; 1 turns it off.")
@click.option("--device", default="cuda", show_default=True, help="cuda, or cpu to try it out.")
@click.option("--attention", default="flash", show_default=True, help="flash, efficient or baseline.")
@click.option("--repeats", default=5, show_default=True, help="Clean times to take, without the profiler.")
@click.option(
    "--all-steps",
    is_flag=True,
    help="Run and keep every step, not one of those that are alike with its count.",
)
@click.option(
    "--suite", default="tti", show_default=True, help="With WORKLOAD kernels: which microbenchmarks."
)
@click.option("--budget-s", default=240.0, show_default=True, help="With kernels: seconds to measure for.")
@click.option("--families", help="With kernels: only these families, comma-separated.")
@click.option(
    "--skip", multiple=True, type=click.Path(), help="With kernels: leave out what these files hold."
)
@click.option(
    "--counters", is_flag=True, help="With kernels: hardware counters through Nsight Compute instead."
)
@click.option("-o", "--out", required=True, type=click.Path(), help="The file to write (.parquet).")
def capture(workload: str, out: str, device: str, **options: Any) -> None:
    """Run WORKLOAD on a GPU, with random weights, and keep its operators with the times of their kernels.

    `simtti capture kernels` measures single operators instead: the microbenchmarks. It goes on where OUT ends.

    \b
    simtti capture stable-diffusion-1.5 --batch 2 -o sd-h100.parquet
    simtti capture svd --all-steps -o svd-steps.parquet
    simtti capture kernels --suite tti --budget-s 500 -o kernels.parquet
    """
    from simtti.simulator import table

    table.check_writable(out)
    measuring = {name: options.pop(name) for name in ("suite", "budget_s", "families", "skip", "counters")}
    if workload == "kernels":
        from simtti.validation.measure import measure_suite

        families = measuring["families"].split(",") if measuring["families"] else None
        with _progress("measure", "cases") as progress:
            done = measure_suite(
                device, out, measuring["budget_s"], families, measuring["skip"], measuring["counters"], progress,
                suite_name=measuring["suite"],
            )  # fmt: skip
        click.echo(
            f"{out}: {done.measured} cases measured, {done.failed} of them failed, {done.left} left", err=True
        )
        return
    from simtti.workloads.capture import capture as capture_workload

    trace = capture_workload(workload, device=device, **options)
    trace.save(out)
    kernels = len(trace.timing.kernels) if trace.timing else 0
    click.echo(
        f"{out}: {trace.workload}: {sum(1 for _ in trace.operators())} operators, {kernels} kernels", err=True
    )


@main.command()
@click.option("--hw", required=True, help="The device that was measured: a name or a YAML file.")
@click.option(
    "--measurements",
    "files",
    required=True,
    multiple=True,
    type=click.Path(),
    help="Measurement tables or folders (simtti import measurements makes them); may be given again.",
)
@click.option(
    "-o", "--out", required=True, type=click.Path(), help="The device file to write or update (.yaml)."
)
@click.option("--families", help="Only these families, comma-separated (validation/families.yaml has them).")
@click.option(
    "--parameters", help="Only parameters that match these patterns, as gemm_wgmma.*,hbm_efficiency."
)
@click.option("--rows", default=3000, show_default=True, help="Training rows of a family to use at most.")
@click.option("--workers", type=int, help="Processes; as many as there are cores if not given.")
def calibrate(
    hw: str,
    files: tuple[str, ...],
    out: str,
    families: str | None,
    parameters: str | None,
    rows: int,
    workers: int | None,
) -> None:
    """Fit a device's parameters to measured kernels and write them into a device file.

    Half of the shapes, chosen by a hash, set the parameters; the figures printed are of the other half. The same
    measurements give the same file.

    \b
    simtti calibrate --hw h100-sxm --measurements measured/ -o my-h100.yaml
    simtti calibrate --hw h200-sxm --measurements gemm.parquet --parameters 'hbm_*' -o my-h200.yaml
    """
    from simtti.simulator import table
    from simtti.simulator.summary import print_calibration
    from simtti.validation import calibrate as fitting
    from simtti.validation.measured import read_measurements

    table.check_writable(out)
    with _stages() as progress:
        found = fitting.calibrate(
            hw,
            read_measurements(list(files)),
            only=_names(families),
            parameters=_names(parameters),
            most_rows=rows,
            workers=workers,
            progress=progress,
        )
    fitting.write(found, out)
    print_calibration(found)
    click.echo(f"{out}: {sum(len(fit.parameters) for fit in found.fits)} parameters", err=True)


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip()) if text else ()


@main.group(name="import")
def import_() -> None:
    """Bring traces and measurements of others into simtti's format."""


@import_.command(name="kineto")
@click.argument("file", type=click.Path())
@click.option("--out", type=click.Path(), help="The trace file to write (.parquet).")
@click.option(
    "--json", "json_path", help="Write what was found as JSON to a file, or to - for standard output."
)
def import_kineto(file: str, out: str | None, json_path: str | None) -> None:
    """Import a torch.profiler trace (.json or .json.gz): operators with shapes, kernels with times.

    \b
    simtti import kineto run.pt.trace.json.gz --out run.parquet --json -
    simtti run --trace run.parquet --hw h100-sxm --timing measured
    """
    from simtti.simulator import table
    from simtti.workloads import kineto

    for path in (out, json_path):
        if path not in (None, "-"):
            table.check_writable(path)
    trace = kineto.import_kineto(file)
    if out:
        trace.save(out)
    facts = kineto.summary(trace)
    text = json.dumps(facts, indent=2) + "\n"
    if json_path == "-":
        click.echo(text, nl=False)
        return
    if json_path:
        table.write_text(json_path, text)
    click.echo(
        f"{file}: {facts['device']}: {facts['operators']} operators, {facts['kernels']} kernels of "
        f"{facts['kernel_time_us'] / 1e3:.3f} ms, {facts['kernels_with_shapes']} with shapes",
        err=True,
    )


@import_.command(name="measurements")
@click.argument("kind")
@click.argument("directory", metavar="DIR", type=click.Path())
@click.option("--out", required=True, type=click.Path(), help="Where to write the table: .csv or .parquet.")
def import_measurements(kind: str, directory: str, out: str) -> None:
    """Read a public database of measured GPU times from a clone of your own into simtti's table of measurements.

    \b
    KIND            DIR
    aiconfigurator  a clone of ai-dynamo/aiconfigurator (git lfs pull): GEMM and attention, with power
    ml-energy       a clone of ml-energy/leaderboard: latency and energy of whole diffusion inferences
    folder          gemm.parquet, attention.parquet, convolution.csv, ... already collected

    What simtti cannot predict is left out and counted.

    \b
    simtti import measurements aiconfigurator ~/aiconfigurator --out kernels.parquet
    """
    from simtti.simulator import table
    from simtti.validation.sources import import_measurements as read

    table.check_writable(out)
    found = read(kind, directory)
    table.write_table(found.table, out)
    for reason, count in found.left_out.most_common():
        if count:
            click.echo(f"  left out: {count} of {reason}", err=True)
    devices = ", ".join(sorted(found.table["hw"].unique()))
    click.echo(f"{out}: {len(found.table)} measurements on {devices}", err=True)


@main.group()
def export() -> None:
    """Write traces in the formats of others."""


@export.command(name="chrome")
@click.argument("trace", type=click.Path())
@click.option("-o", "--out", required=True, type=click.Path(), help="The JSON file to write.")
def export_chrome(trace: str, out: str) -> None:
    """Write a timed TRACE as Chrome trace events, which ui.perfetto.dev and HolisticTraceAnalysis read."""
    from simtti.simulator import table
    from simtti.workloads.chrome import trace_to_chrome
    from simtti.workloads.trace import Trace

    table.check_writable(out)
    table.write_text(out, trace_to_chrome(Trace.load(trace)))
    click.echo(f"{out}: open it in ui.perfetto.dev", err=True)


main.add_command(validate)


@main.command()
@click.argument("workload", required=False)
@_shape_options
@click.option("--trace", type=click.Path(), help="Profile this trace file instead of a workload.")
@click.option("--sizes", help="Image sides to compare, such as 256,512,1024: each is recorded (needs torch).")
@click.option(
    "--frame-counts", help="Frame counts to compare, such as 8,16,32: each is recorded (needs torch)."
)
@click.option("--json", "json_path", help="Write the profile as JSON to a file, or to - for standard output.")
@click.option(
    "--plot", "plot_path", type=click.Path(), help="Write the sequence lengths and FLOPs as .png or .svg."
)
def profile(
    workload: str | None,
    trace: str | None,
    sizes: str | None,
    frame_counts: str | None,
    json_path: str | None,
    plot_path: str | None,
    **options: Any,
) -> None:
    """What WORKLOAD asks of any hardware: sequence lengths, FLOPs, bytes, intensity, attention's score matrices.

    \b
    simtti profile stable-diffusion --plot sd.png
    simtti profile svd --json -
    simtti profile stable-diffusion --sizes 256,512,768,1024 --plot sizes.svg
    simtti profile make-a-video --frame-counts 8,16,32
    """
    from simtti.simulator import table
    from simtti.workloads.profile import crossover, plot_profile, print_profile, print_scaling, scaling
    from simtti.workloads.profile import profile as profile_trace
    from simtti.workloads.record import workload_trace
    from simtti.workloads.trace import Trace

    if workload is None and trace is None:
        raise InputError("give a WORKLOAD (simtti workloads lists them) or --trace FILE")
    for path in (json_path, plot_path):
        if path not in (None, "-"):
            table.check_writable(path)
    found = profile_trace(Trace.load(trace) if trace else workload_trace(str(workload), **options))
    found["scaling"] = {}
    if sizes or frame_counts:
        if workload is None:
            raise InputError("--sizes and --frame-counts record a WORKLOAD anew; a trace file has one shape")
        shapes = {
            "sizes": _whole_numbers("--sizes", sizes),
            "frames": _whole_numbers("--frame-counts", frame_counts),
        }
        with _progress("record", "shapes") as progress:
            for name, values in shapes.items():
                recorded = []
                for value in values:
                    shape = {"height": value, "width": value} if name == "sizes" else {"frames": value}
                    recorded.append((value, workload_trace(workload, **{**options, **shape})))
                    progress(len(recorded), len(values))
                if recorded:
                    found["scaling"][name] = scaling(recorded)
        if "frames" in found["scaling"]:
            found["temporal_crossover_frames"] = crossover(found["scaling"]["frames"])
    if plot_path:
        plot_profile(found, plot_path)
    text = json.dumps(found, indent=2) + "\n"
    if json_path == "-":
        click.echo(text, nl=False)
        return
    if json_path:
        table.write_text(json_path, text)
    print_profile(found)
    print_scaling(found)


def _whole_numbers(option: str, text: str | None) -> list[int]:
    try:
        return [int(part) for part in text.split(",")] if text else []
    except ValueError:
        raise InputError(f"{option} is {text!r}; it must be whole numbers with commas between") from None


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def workloads(as_json: bool) -> None:
    """List the workloads: task, architecture, parameters, default shape, source."""
    from simtti.workloads.catalogue import ALIASES, WORKLOADS

    if as_json:
        listing = {
            name: {
                "task": item.task,
                "architecture": item.architecture,
                "parameters": dict(item.parameters),
                "defaults": item.defaults.given(),
                "aliases": [alias for alias, of in ALIASES.items() if of == name],
                "source": item.source,
                "url": item.url,
            }
            for name, item in WORKLOADS.items()
        }
        click.echo(json.dumps(listing, indent=2))
        return
    from simtti.simulator.summary import print_workloads

    print_workloads(WORKLOADS, ALIASES)


@main.command(name="hw")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def hardware(name: str | None, as_json: bool) -> None:
    """List the devices, or show one (NAME or a YAML file) with the source of every number."""
    from simtti.hw_configs import hardware as devices
    from simtti.simulator.summary import print_device, print_devices

    if name is not None:
        devices.load(name)  # validates
        content = devices.read(name)
        if as_json:
            click.echo(json.dumps(content, indent=2))
        else:
            print_device(content)
        return
    known = {device: devices.load(device) for device in devices.names()}
    if as_json:
        import dataclasses

        click.echo(
            json.dumps({device: dataclasses.asdict(found) for device, found in known.items()}, indent=2)
        )
    else:
        print_devices(known)


if __name__ == "__main__":
    main()
