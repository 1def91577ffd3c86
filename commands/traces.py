"""Traces: recorded, measured on a GPU, and what one asks of any hardware."""

from __future__ import annotations

from typing import Any

import click

from simtti.commands.options import check_outputs, json_option, print_json, shape_options, whole_numbers
from simtti.commands.progress import progress
from simtti.errors import InputError


@click.command()
@click.argument("workload")
@shape_options
@click.option("--guidance", type=float, help="Classifier-free guidance scale; 1 turns it off.")
@click.option("-o", "--out", required=True, type=click.Path(), help="The trace file to write (.parquet).")
def record(workload: str, out: str, **options: Any) -> None:
    """Record the operators of WORKLOAD at a shape, without a GPU: the real modules on torch's meta device.

    \b
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
@click.argument("workload")
@shape_options
@click.option("--guidance", type=float, help="Classifier-free guidance scale; 1 turns it off.")
@click.option("--device", default="cuda", show_default=True, help="cuda, or cpu to try it out.")
@click.option(
    "--attention", default="flash", show_default=True, help="flash, efficient or math (unfused, in fp32)."
)
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
    check_outputs(out)
    measuring = {name: options.pop(name) for name in ("suite", "budget_s", "families", "skip", "counters")}
    if workload == "kernels":
        from simtti.validation.measurements.bench.measure import measure_suite

        families = measuring["families"].split(",") if measuring["families"] else None
        with progress("measure", "cases") as advance:
            done = measure_suite(
                device, out, measuring["budget_s"], families, measuring["skip"], measuring["counters"], advance,
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
    from simtti.commands.terminal import print_profile, print_scaling
    from simtti.workloads.profile import crossover, scaling
    from simtti.workloads.profile import profile as profile_trace
    from simtti.workloads.record import workload_trace
    from simtti.workloads.trace import Trace

    if workload is None and trace is None:
        raise InputError("give a WORKLOAD (simtti workloads lists them) or --trace FILE")
    check_outputs(json_path, plot_path)
    found = profile_trace(Trace.load(trace) if trace else workload_trace(str(workload), **options))
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
