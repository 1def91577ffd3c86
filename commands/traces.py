"""Traces: recorded, measured on a GPU, and what one asks of any hardware."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Any

import click

from simtti.commands.options import (
    check_outputs,
    json_option,
    print_json,
    shape_options,
    strength_option,
    whole_numbers,
)
from simtti.commands.progress import progress
from simtti.errors import InputError, unknown


@click.command()
@click.argument("workload")
@shape_options
@click.option("--guidance", type=float, help="Classifier-free guidance scale; 1 turns it off.")
@strength_option
@click.option("-o", "--out", required=True, type=click.Path(), help="The trace file to write (.parquet).")
def record(workload: str, out: str, **options: Any) -> None:
    """Record the operators of WORKLOAD at a shape, without a GPU: the real modules on torch's meta device.

    WORKLOAD may be FILE.py:FUNCTION, a function that returns a module with its inputs, (module, *inputs, dict of keyword inputs), a
    pipeline of diffusers', (pipeline, dict of what it is called with), or a trace. Options are passed on to it; --steps is how often
    the module is run.

    \b
    simtti record my_model.py:denoiser --steps 30 -o mine.parquet
    simtti record stable-diffusion-1.5 --height 768 --width 768 --batch 2 -o sd-768.parquet
    """
    import simtti

    check_outputs(out)
    trace = simtti.record(workload, **options)
    trace.save(out)
    steps = [(phase.name, step.count, len(step.operators)) for phase in trace.phases for step in phase.steps]
    text = ", ".join(f"{name} {count} x {operators} operators" for name, count, operators in steps)
    click.echo(f"{out}: {trace.workload}: {text}", err=True)


@click.command()
@click.argument("workloads", nargs=-1, required=True, metavar="WORKLOAD...")
@shape_options
@click.option("--guidance", type=float, help="Classifier-free guidance scale; 1 turns it off.")
@click.option("--device", default="cuda", show_default=True, help="cuda, or cpu to try it out.")
@click.option(
    "--attention",
    default="flash",
    show_default=True,
    help="flash, efficient, baseline (unfused, in the model's dtype) or math (PyTorch's unfused, in fp32); several, comma-separated.",
)
@click.option(
    "--launch",
    default="eager",
    show_default=True,
    help="eager, graph, compiled or compiled-graph: of the model in the denoising loop; several, comma-separated.",
)
@click.option("--repeats", default=5, show_default=True, help="Clean times to take, without the profiler.")
@click.option(
    "--all-steps",
    is_flag=True,
    help="Run and keep every step, not one of those that are alike with its count.",
)
@click.option(
    "--longest-s",
    default=30.0,
    show_default=True,
    help="Run an inference of at most so many seconds in one go as well, for energy, power and clock; 0: none.",
)
@click.option(
    "--workers",
    type=int,
    help="With several captures: processes; six, or as many as there are cores, if not given.",
)
@click.option(
    "--suite", default="tti", show_default=True, help="With WORKLOAD kernels: which microbenchmarks."
)
@click.option(
    "--budget-s",
    type=float,
    help="Seconds to measure for, if not given 240 with kernels, 900 with campaign; of several captures no end.",
)
@click.option("--families", help="With kernels: only these families, comma-separated.")
@click.option(
    "--skip", multiple=True, type=click.Path(), help="With kernels: leave out what these files hold."
)
@click.option(
    "--counters", is_flag=True, help="With kernels: hardware counters through Nsight Compute instead."
)
@click.option("--results", type=click.Path(), help="With campaign: a folder of what earlier ones brought.")
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(),
    help="The file to write (.parquet); of several captures the folder.",
)
def capture(workloads: tuple[str, ...], out: str, device: str, **options: Any) -> None:
    """Run WORKLOAD on a GPU, with random weights, and keep its operators with the times of their kernels.

    Several workloads, or several kinds of attention, go into a folder: the host's work in parallel processes, the GPU for one at
    a time. One that fails costs the others nothing; the same command goes on where it was stopped. `all` stands for every
    workload.

    `simtti capture host` measures this machine as a host, for `--host OUT`; where there is no GPU, as far as its CPU shows it.

    `simtti capture kernels` measures single operators instead: the microbenchmarks. It goes on where OUT ends. `simtti capture
    campaign` does all that a quarter of an hour on a GPU gives: captures, microbenchmarks and counters, in a folder.

    \b
    simtti capture stable-diffusion-1.5 --batch 2 -o sd-h100.parquet
    simtti capture svd --all-steps -o svd-steps.parquet
    simtti capture sdxl svd muse --attention flash,baseline -o captures/
    simtti capture host -o my-host.yaml
    simtti capture kernels --suite tti --budget-s 500 -o kernels.parquet
    simtti capture campaign --budget-s 900 -o day/
    """
    single = {name: options.pop(name) for name in ("suite", "families", "skip", "counters")}
    budget_s, results = options.pop("budget_s"), options.pop("results")
    if len(workloads) > 1 and {"host", "kernels", "campaign"} & set(workloads):
        raise InputError("host, kernels and campaign are captured on their own, not beside other workloads")
    if workloads == ("host",):
        _capture_host(out, device)
    elif workloads == ("kernels",):
        _capture_kernels(out, device, 240.0 if budget_s is None else budget_s, **single)
    elif workloads == ("campaign",):
        from simtti.validation.measurements.campaign import take

        done = take("day", Path(out), Path(results) if results else None, budget_s or 900.0, device)
        if done:
            raise InputError(f"the campaign is not complete; what came out, and why not all, is in {out}")
    else:
        _capture_workloads(workloads, out, device, budget_s, **options)


def _capture_host(out: str, device: str) -> None:
    from simtti.workloads.capture import DEVICES, has_cuda
    from simtti.workloads.capture_host import capture_host, write_host

    if Path(out).suffix not in (".yaml", ".yml"):
        raise InputError(f"--out is {out!r}; a host is written as .yaml")
    check_outputs(out)
    if device not in DEVICES:
        raise unknown("device to capture on", device, DEVICES)
    if device == "cuda" and not has_cuda():
        device = "cpu"
        click.echo("No GPU here: what only a GPU's libraries cost is scaled, as the file says.", err=True)
    stated = capture_host(device)
    write_host(stated, out)
    click.echo(f"{out}: {stated['source']}", err=True)


def _capture_kernels(
    out: str, device: str, budget_s: float, suite: str, families: str | None, skip: tuple[str, ...], counters: bool
) -> None:  # fmt: skip
    from simtti.validation.measurements.bench.measure import measure_suite

    check_outputs(out)
    only = families.split(",") if families else None
    with progress("measure", "cases") as advance:
        done = measure_suite(device, out, budget_s, only, skip, counters, advance, suite_name=suite)
    click.echo(
        f"{out}: {done.measured} cases measured, {done.failed} of them failed, {done.left} left", err=True
    )


def _capture_workloads(
    workloads: tuple[str, ...], out: str, device: str, budget_s: float | None, attention: str, repeats: int,
    launch: str, all_steps: bool, longest_s: float, workers: int | None, **shape: Any,
) -> None:  # fmt: skip
    from simtti.commands.terminal import capture_line
    from simtti.jobs import Failure
    from simtti.workloads.capture import capture as capture_workload
    from simtti.workloads.capture_many import Job, capture_many, captured, is_taken
    from simtti.workloads.catalogue import WORKLOADS, find

    given = tuple((name, value) for name, value in shape.items() if value is not None)
    chosen = tuple(WORKLOADS) if workloads == ("all",) else [find(name).name for name in workloads]
    jobs = [
        Job(name, given, kind, all_steps, way)
        for way in launch.split(",")
        for kind in attention.split(",")
        for name in chosen
    ]
    if len(jobs) == 1 and not Path(out).is_dir() and not out.endswith(os.sep):
        check_outputs(out)
        trace = capture_workload(
            chosen[0], device=device, attention=attention, repeats=repeats, all_steps=all_steps, longest_s=longest_s,
            launch=launch, **dict(given),
        )  # fmt: skip
        trace.save(out)
        click.echo(capture_line(captured(trace, Path(out))), err=True)
        return
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    check_outputs(str(folder / "captures.parquet"))
    todo = [job for job in dict.fromkeys(jobs) if not is_taken(job, folder, device)]
    if len(todo) < len(jobs):
        click.echo(f"{folder}: {len(jobs) - len(todo)} of {len(jobs)} captures are there already", err=True)
    end_s = math.inf if budget_s is None else time.monotonic() + budget_s
    failed = done = 0
    with progress("capture", "workloads") as advance:
        for job, found in capture_many(
            todo, folder, device=device, repeats=repeats, longest_s=longest_s, workers=workers, end_s=end_s
        ):
            done += 1
            advance(done, len(todo))
            if isinstance(found, Failure):
                failed += 1
                click.echo(f"{job.name}: failed: {found.reason}", err=True)
            else:
                click.echo(capture_line(found), err=True)
    if done < len(todo):
        click.echo(f"{folder}: {len(todo) - done} captures left when the time was up", err=True)
    if failed:
        raise InputError(f"{failed} of {done} captures failed; the others are in {folder}")


@click.command()
@click.argument("workload", required=False)
@shape_options
@click.option("--trace", type=click.Path(), help="Profile this trace file instead of a workload.")
@click.option("--sizes", help="Image sides to compare, such as 256,512,1024: each is recorded (needs torch).")
@click.option(
    "--frame-counts", help="Frame counts to compare, such as 8,16,32: each is recorded (needs torch)."
)
@json_option("the profile")
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
    from simtti.commands.plots import plot_profile
    from simtti.commands.terminal_profile import print_profile, print_scaling
    from simtti.workloads.profile import crossover, scaling
    from simtti.workloads.profile import profile as profile_trace
    from simtti.workloads.record import workload_trace
    from simtti.workloads.trace import Trace

    if workload is None and trace is None:
        raise InputError("give a WORKLOAD (simtti workloads lists them) or --trace FILE")
    check_outputs(json_path, plot_path)
    found = profile_trace(Trace.load(trace)) if trace else profile_trace(str(workload), **options)
    found["scaling"] = {}
    if sizes or frame_counts:
        if workload is None:
            raise InputError("--sizes and --frame-counts record a WORKLOAD anew; a trace file has one shape")
        shapes = {
            "sizes": whole_numbers("--sizes", sizes),
            "frames": whole_numbers("--frame-counts", frame_counts),
        }
        with progress("record", "shapes") as advance:
            for name, values in shapes.items():
                recorded = []
                for value in values:
                    shape = {"height": value, "width": value} if name == "sizes" else {"frames": value}
                    recorded.append((value, workload_trace(workload, **{**options, **shape})))
                    advance(len(recorded), len(values))
                if recorded:
                    found["scaling"][name] = scaling(recorded)
        if "frames" in found["scaling"]:
            found["temporal_crossover_frames"] = crossover(found["scaling"]["frames"])
    if plot_path:
        plot_profile(found, plot_path)
    if json_path and print_json(found, json_path):
        return
    print_profile(found)
    print_scaling(found)
