"""Simulating: one inference, many, single operators, devices side by side, hardware that does not exist."""

from __future__ import annotations

import sys
from typing import Any

import click

from simtti.commands.memory import collect_seldom
from simtti.commands.options import (
    attention_option,
    cache_option,
    check_outputs,
    engine_option,
    guidance_option,
    host_option,
    interval_option,
    json_option,
    lora_option,
    mask_option,
    names,
    offload_option,
    pinned_option,
    print_json,
    pytorch_option,
    quantization_option,
    records,
    set_option,
    shape_options,
    shape_options_but_batch,
    strength_option,
    table_option,
    tf32_option,
    whole_numbers,
    workers_option,
)
from simtti.commands.progress import progress
from simtti.errors import InputError
from simtti.words import plain


@click.command()
@click.argument("workload", required=False)
@click.option("--hw", required=True, help="A device's name (simtti hw lists them) or a YAML file.")
@set_option
@shape_options
@engine_option
@attention_option
@mask_option
@pytorch_option
@quantization_option
@guidance_option
@strength_option
@cache_option
@lora_option
@offload_option
@pinned_option
@click.option(
    "--launch",
    default="",
    help="As the engine has it; eager; graph: a CUDA graph, without the host; compiled: torch.compile; compiled-graph: both (reduce-overhead).",
)
@click.option(
    "--compile",
    default="denoiser",
    show_default=True,
    help="What torch.compile takes: denoiser, with text encoder and decoder eager; or all.",
)
@click.option(
    "--layout",
    default="recorded",
    show_default=True,
    help="recorded, or channels-last: weights brought into that memory format.",
)
@host_option
@click.option("--trace", type=click.Path(), help="Run this trace file instead of a workload.")
@click.option(
    "--fidelity",
    default="wave",
    show_default=True,
    help="wave: CTAs that start together as one; cta: each on its own, slower; closed: closed form, no contention.",
)
@click.option(
    "--dependent-launch",
    is_flag=True,
    help="Programmatic dependent launch: a kernel is set up while the one before it drains.",
)
@tf32_option
@click.option(
    "--timing",
    default="model",
    show_default=True,
    help="model; measured: the kernel times of a capture; hybrid: those scaled to --hw. A capture is --trace FILE, whose host "
    "times count too, or one that ships (simtti workloads lists them), under the host model.",
)
@click.option(
    "--partial",
    is_flag=True,
    help="With a measured trace: time what the model covers of it, though more than 20 % of its kernel time is left out.",
)
@click.option(
    "--trace-hw",
    help="With hybrid: the device --trace was taken on, a name or a YAML file, where the one it reports is not known.",
)
@click.option(
    "--gpus",
    default=1,
    show_default=True,
    help="GPUs that share the inference: ulysses x ring x cfg-parallel x tensor x pipefusion x patches.",
)
@click.option(
    "--ulysses",
    type=int,
    help="Degree of Ulysses (all-to-all) sequence parallelism, of a transformer's tokens; what the others leave if not given.",
)
@click.option("--ring", type=int, help="Degree of ring sequence parallelism.")
@click.option(
    "--cfg-parallel",
    default=1,
    show_default=True,
    help="2: each half of classifier-free guidance on GPUs of its own; UNets too.",
)
@click.option(
    "--tensor",
    default=1,
    show_default=True,
    help="Degree of tensor parallelism: of the weights of a transformer's blocks.",
)
@click.option(
    "--pipefusion",
    default=1,
    show_default=True,
    help="Degree of PipeFusion: stages of a transformer's blocks, which the image passes in patches.",
)
@click.option("--pipefusion-patches", type=int, help="Patches of the image; as many as stages if not given.")
@click.option(
    "--warmup-steps",
    type=int,
    help="Steps of PipeFusion before it has patches, 1 if not given; of a UNet's patches before they take what others had, 5.",
)
@click.option(
    "--patches",
    default=1,
    show_default=True,
    help="GPUs that have a band of a UNet's image each (DistriFusion), with the others' of the step before.",
)
@click.option(
    "--parallel-vae",
    is_flag=True,
    help="All GPUs share the VAE's decoder: its rows, or its tiles where it is tiled.",
)
@interval_option
@json_option("the result")
@click.option("--timeline", help="Write a timeline that ui.perfetto.dev opens (.json, .json.gz).")
@click.option(
    "--report",
    help="Write a page of the run (HTML): where time goes and why, and what more of each resource would buy.",
)
def run(
    workload: str | None,
    hw: str,
    changes: tuple[str, ...],
    json_path: str | None,
    timeline: str | None,
    report: str | None,
    timing: str,
    trace_hw: str | None,
    interval: bool,
    **options: Any,
) -> None:
    """Simulate one inference of WORKLOAD and print where its time goes.

    WORKLOAD is a name, a trace file (.parquet), or FILE.py:FUNCTION (see simtti record).

    \b
    simtti run my.parquet --hw a100-sxm
    simtti run stable-diffusion --hw a100-sxm
    simtti run sdxl --hw h100-sxm --batch 4 --steps 30 --json -
    simtti run sdxl --hw h100-sxm --set hbm_bytes_per_s=1.5x --set power_limit_w=500
    simtti run stable-diffusion --hw my-chip.yaml --attention baseline
    simtti run stable-diffusion --hw a100-sxm --report run.html
    simtti run stable-diffusion --hw a100-sxm --timing hybrid
    simtti run --trace captured.parquet --hw a100-sxm --timing hybrid
    """
    collect_seldom()
    import simtti
    from simtti.hw_configs.changes import joined as changed_name
    from simtti.workloads.named import is_trace_file

    if is_trace_file(workload) and options["trace"] is None:
        workload, options["trace"] = None, workload
    if workload is None and options["trace"] is None:
        raise InputError("give a WORKLOAD (simtti workloads lists them) or --trace FILE")
    check_outputs(json_path, timeline, report)
    if report:
        from simtti.pages.page import check_available

        check_available()
    hw = changed_name(hw, changes)
    if timing != "model" and options["trace"] is not None:
        for name in ("cache", "lora", "guidance", "strength"):
            if options[name] is not None:
                raise InputError(
                    f"--{name} cannot be put into a measured trace; use --timing model and a recorded one"
                )
        if report:
            raise InputError(
                "--report shows a simulated run, which a replayed trace is not; use --timing model"
            )
        _replay(options["trace"], hw, timing, json_path, trace_hw, options["partial"], interval)
        return
    if trace_hw is not None:
        raise InputError("--trace-hw says what a --trace was taken on; it needs --trace FILE --timing hybrid")
    options["timing"] = timing
    with progress("simulate", "operators") as advance:
        result = simtti.run(workload or "", hw, by_host=True, progress=advance, **options)
    if timeline:
        result.timeline(timeline)
    if report:
        simtti.report(result, report, interval=interval)
        click.echo(f"{report}: open it in a browser", err=True)
    if json_path and print_json(result.to_dict(interval), json_path):
        return
    from simtti.commands.terminal import print_result

    print_result(result, interval)
    if timeline:
        click.echo(f"Timeline: {timeline} (open it in ui.perfetto.dev)")


def _say(text: str) -> None:
    click.echo(text, err=True)


def _replay(
    trace_path: str, hw: str, timing: str, json_path: str | None, trace_hw: str | None, partial: bool, interval: bool
) -> None:  # fmt: skip
    from simtti.hw_configs.devices import find_reported, load
    from simtti.simulator.engine.replay import replay
    from simtti.workloads.trace import Trace

    trace = Trace.load(trace_path)
    reported = str(trace.timing.device.get("name", "")) if trace.timing else ""
    captured_on = load(trace_hw) if trace_hw else find_reported(reported)
    result = replay(trace, load(hw), timing, captured_on, partial)
    if json_path and print_json(result.to_dict(interval), json_path):
        return
    from simtti.commands.terminal import print_replay

    print_replay(result, interval)


class _PredictCommand(click.Command):
    """Its help ends with the families there are."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from simtti.simulator.lowering.registry import FAMILIES

        with formatter.section("op and its columns, those in brackets may be left out"):
            formatter.write_dl([(op, family.usage) for op, family in FAMILIES.items()])


@click.command(cls=_PredictCommand)
@click.argument("rows", metavar="TABLE", type=click.Path())
@click.option("--hw", required=True, help="A device's name or a YAML file.")
@tf32_option
@interval_option
@table_option
@workers_option
def predict(rows: str, hw: str, tf32: bool, interval: bool, out: str, workers: int | None) -> None:
    """Time single operators: TABLE's rows, with time_us, kernel_us and kernels added.

    Each row has an op, a dtype (fp16, bf16, fp32) and the op's shape. time_us is what the operator takes of its stream, gaps
    included; kernel_us its kernels alone, as a profiler counts them; operands come from HBM. Kernels are those of PyTorch 2.8 and
    later, where a column `pytorch` does not say 2.6. A row that cannot be timed keeps its place, with the reason in `error`.
    p05_us to p95_us: half of such predictions lie between p25 and p75 of the measured time, 9 of 10 between p05 and p95; `warnings`
    says where a row leaves what was measured. Interrupted, it keeps the finished rows; the same command does the rest.

    \b
    simtti predict kernels.csv --hw h200-sxm --out times.csv
    """
    from simtti.simulator.predict import predict as predict_table

    with progress("predict", "rows") as advance:
        table = predict_table(
            rows, hw, out, tf32=tf32, interval=interval, workers=workers, progress=advance, say=_say
        )
    failed = int((table["error"] != "").sum())
    click.echo(f"{out}: {len(table) - failed} of {len(table)} rows timed on {hw}", err=True)


@click.command()
@click.argument("points", metavar="TABLE", type=click.Path())
@interval_option
@table_option
@json_option("the table's rows")
@workers_option
def sweep(points: str, interval: bool, out: str, json_path: str | None, workers: int | None) -> None:
    """Run every row of TABLE; its columns are options of `simtti run`.

    Adds latency_s, energy_j, peak_memory_bytes, host_bound_share, latency_p05_s to latency_p95_s and energy_p05_j to energy_p95_j
    (half of such runs lie between p25 and p75, 9 of 10 between p05 and p95), and error, the reason where a row has no result: exit code
    1 then, and the rows are named. Interrupted, it keeps the finished rows; the same command does the rest.

    \b
    workload,hw,batch,steps
    stable-diffusion,a100-sxm,1,25
    sdxl,h100-sxm,4,50
    """
    from simtti.simulator.sweep import sweep as sweep_table

    check_outputs(json_path)
    with progress("sweep", "runs") as advance:
        table = sweep_table(points, out, interval=interval, workers=workers, progress=advance, say=_say)
    if json_path:
        print_json(records(table), json_path)
    failed = table[table["latency_s"].isna()]
    click.echo(f"{out}: {len(table) - len(failed)} of {len(table)} runs", err=True)
    for row, reason in failed["error"].items():
        click.echo(f"row {int(str(row)) + 1}: {plain(str(reason))}", err=True)
    if len(failed):
        sys.exit(1)


@click.command()
@click.argument("workload", required=False)
@click.option("--hw", required=True, help="Devices: names or YAML files with commas between.")
@set_option
@click.option("--batch", help="Batches, as 1,4,16; the workload's own if not given.")
@shape_options_but_batch
@engine_option
@attention_option
@mask_option
@pytorch_option
@quantization_option
@guidance_option
@strength_option
@cache_option
@lora_option
@offload_option
@pinned_option
@click.option("--launch", default="", help="As for `simtti run`.")
@tf32_option
@host_option
@interval_option
@click.option("--gpus", default=1, show_default=True, help="GPUs that share the inference.")
@click.option("--trace", type=click.Path(), help="Run this trace file instead of a workload.")
@click.option(
    "--prices",
    type=click.Path(),
    help="US dollars a GPU-hour by device: a YAML like hw_configs/prices.yaml, instead of it.",
)
@click.option("--fps", type=float, help="Frames a second of a video: also what a second of it costs.")
@json_option("the table's rows")
@click.option("--plot", "plot_path", type=click.Path(), help="Also plot it (.png, .svg).")
@click.option("--out", type=click.Path(), help="Also write the table: .csv or .parquet.")
def compare(
    workload: str | None,
    hw: str,
    changes: tuple[str, ...],
    batch: str | None,
    plot_path: str | None,
    out: str | None,
    json_path: str | None,
    **options: Any,
) -> None:
    """Compare devices: latency, throughput, energy, cost, memory and bottleneck of WORKLOAD on each, at each batch.

    x is over the first device at the same batch. With --set, each device stands beside itself as changed.

    \b
    simtti compare sdxl --hw a100-sxm,h100-sxm,h200-sxm --batch 1,4,16 --plot sdxl.png
    simtti compare svd --hw l40s,my-chip.yaml --launch graph --out svd.csv
    simtti compare flux-dev --hw h100-sxm --set hbm_bytes_per_s=1.5x
    simtti compare wan2.1-14b --hw h100-sxm,h200-sxm --gpus 4 --fps 16 --json -
    """
    from simtti.commands.plots import plot_comparison_of_devices
    from simtti.commands.terminal_answers import print_comparison_of_devices
    from simtti.files import write_table
    from simtti.hw_configs.changes import joined as changed_name
    from simtti.simulator.compare import compare as compare_devices

    if workload is None and options["trace"] is None:
        raise InputError("give a WORKLOAD (simtti workloads lists them) or --trace FILE")
    check_outputs(plot_path, out, json_path)
    devices = [each for name in names(hw) for each in dict.fromkeys((name, changed_name(name, changes)))]
    batches: list[int | None] = list(whole_numbers("--batch", batch)) or [None]
    chosen = {name: value for name, value in options.items() if value is not None}
    with progress("compare", "runs") as advance:
        found = compare_devices(workload or "", devices, batches, progress=advance, **chosen)
    title = workload or str(options["trace"])
    if out:
        write_table(found, out)
    if plot_path:
        plot_comparison_of_devices(found, plot_path, title)
    if json_path and print_json(records(found), json_path):
        return
    print_comparison_of_devices(found, title)


@click.command()
@click.argument("spec", type=click.Path())
@click.option("--out", required=True, type=click.Path(), help="The folder for results, report and journal.")
@click.option("--engine", default="local", show_default=True, help="local (processes), ray, or dask.")
@workers_option
@click.option("--address", help="A running Ray or Dask cluster; without it, one of this machine.")
@click.option(
    "--report/--no-report",
    default=None,
    help="Write report.html, which needs matplotlib and Jinja2; without either option, where these are installed.",
)
@click.option(
    "--design",
    "numbers",
    multiple=True,
    type=int,
    help="Write this design's device file; may be given again.",
)
@json_option("the designs")
def explore(spec: str, out: str, numbers: tuple[int, ...], json_path: str | None, **options: Any) -> None:
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

    from simtti.commands.terminal import print_exploration
    from simtti.explore import api

    check_outputs(json_path)
    options["report"] = api.can_report(options["report"], _say)
    with progress("explore", "designs") as advance:
        result = api.explore(spec, out, progress=advance, say=_say, **options)
    for number in numbers:
        click.echo(api.write_design(result, number, Path(out)), err=True)
    if not (json_path and print_json(records(result.table), json_path)):
        print_exploration(result)
    click.echo(
        f"{out}: results.parquet, pareto.csv, designs/" + (", report.html" if options["report"] else ""),
        err=True,
    )
