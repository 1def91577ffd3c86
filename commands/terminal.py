"""What the command line prints for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.text import Text

from simtti.commands.console import Column, plain_console, print_table
from simtti.hw_configs.hardware import Hardware
from simtti.simulator.result import Result
from simtti.simulator.uncertainty.draws import RunIntervals
from simtti.simulator.uncertainty.outside import of_run
from simtti.simulator.uncertainty.residuals import Interval
from simtti.words import gib, inference_shape, joules, number, seconds

if TYPE_CHECKING:
    from simtti.explore.exploration import Exploration
    from simtti.simulator.engine.replay import Replay
    from simtti.validation.fit.calibrate import Calibration
    from simtti.validation.judge.trace import Comparison
    from simtti.workloads.capture_many import Captured

_BAR = 32
_HELD_WITHIN = 0.03  # of the power limit
_LEAST_SHARE = 0.0005  # what would be printed as 0.0 % is not
_LEAST_BYTES = 0.00005  # the same of 0.00 %
_MOST_PARETO = 15  # rows of a Pareto set on the terminal


def _bar(share: float) -> Text:
    full = share * _BAR
    blocks = "█" * int(full) + ("▌" if full - int(full) >= 0.5 else "")
    return Text(blocks or ("▏" if share > 0 else ""), style="cyan")


def capture_line(found: Captured) -> str:
    """A capture in a line: what it holds, and what the run took."""
    times = found.end_to_end
    whole = times["in_one_go"]
    words = [
        f"{found.operators} operators, {found.kernels} kernels",
        f"{seconds(times['latency_s'])} step by step",
    ]
    if whole["latency_s"] is None:
        words.append(f"not run in one go: {whole['missing']}")
    else:
        drawn = [
            f"{number(whole[name])} {unit}"
            for name, unit in (("energy_j", "J"), ("mean_w", "W"), ("sm_clock_mhz", "MHz"))
            if whole[name] is not None
        ]
        words.append(", ".join([f"{seconds(whole['latency_s'])} in one go", *drawn]))
        if whole["missing"]:
            words.append(f"no {'energy' if not drawn else 'more'}: {whole['missing']}")
    return f"{found.path}: {found.workload}: {'; '.join(words)}"


def _kernels_of(hardware: Hardware) -> str:
    return f", kernels of PyTorch {hardware.pytorch}"


def print_result(result: Result, interval: bool = True) -> None:
    """Latency by phase, breakdown by category, attention's sequence lengths, memory, energy, speed; latency and energy with their
    intervals or without."""
    console, options = plain_console(), result.trace.options
    many = result.several_gpus
    gpus = f"{many.gpus} " if many else ""
    console.print(
        f"[bold]{escape(result.trace.workload)}[/] on [bold]{gpus}{result.hardware.name}[/]   {inference_shape(options)}"
    )
    console.print(
        f"[bold]{seconds(result.latency_s)}[/]   {joules(result.figures()['energy_j'])}   "
        f"attention {result.policy.attention}, launch {result.policy.launch}{_kernels_of(result.hardware)}"
    )
    if interval:
        console.print(_intervals(result.interval), style="dim")
    console.print()
    held = {phase.name: gib(phase.allocated_bytes) for phase in result.memory.phases} if result.memory else {}
    phases = [
        (
            phase.name,
            str(phase.steps),
            seconds(phase.latency_s),
            seconds(phase.step_s),
            held.get(phase.name, ""),
        )
        for phase in result.phases
    ]
    print_table([Column("Phase", "name"), "Steps", "Latency", "Per step", "Memory"], phases)
    console.print()
    _print_breakdown(result.breakdown, result.latency_s)
    console.print()
    use = result.utilisation
    facts = {
        "Waiting for the host": _host(result),
        "Tensor cores busy": f"{use['tensor_cores']:.0%}; {use['peak_flops']:.0%} of the peak FLOP/s attained",
        "HBM busy": f"{use['hbm']:.0%} of {result.hardware.hbm_bytes_per_s / 1e12:.2f} TB/s",
        "Power": _power(result),
        "Attention": _attention(result),
        "Self-attention tokens": _lengths(result.sequence_lengths),
        "Peak memory": _memory(result),
        "Simulated": f"{result.speed:.1f} s of inference per second",
    }
    told = [(Text(name, style="dim"), value) for name, value in facts.items()]
    print_table([Column("", "name"), Column("", "prose")], told)
    if many:
        console.print(
            f"\nOf [bold]{many.gpus} GPUs[/] ({many.degrees}) this is one; joules are of all. "
            f"{many.one_gpu_s / many.latency_s:.2f}x as fast as one alone, {seconds(many.one_gpu_s)}; communication takes "
            f"{seconds(many.communication_s)}"
        )
    for warning in [*result.warnings, *(of_run(result) if interval else ())]:
        console.print(f"[yellow]Warning[/]: {warning}")
    if result.coverage and result.coverage.left_out_us:
        console.print(escape(result.coverage.sentence(result.timing)), style="yellow")
    unlowered = {op: share for op, share in result.unlowered.items() if share >= _LEAST_BYTES}
    if unlowered:
        named = ", ".join(f"{escape(op)} ({share:.2%} of bytes)" for op, share in unlowered.items())
        console.print(f"[yellow]No kernel model for[/] {named}: timed as a stream of their bytes.")


def _print_breakdown(breakdown: Mapping[str, float], latency_s: float) -> None:
    """Seconds by category, but for those of no share."""
    shares = [(category, time_s, time_s / latency_s) for category, time_s in breakdown.items()]
    rows = [
        (category, seconds(time_s), f"{share:.1%}", _bar(share))
        for category, time_s, share in shares
        if share >= _LEAST_SHARE
    ]
    print_table([Column("Category", "name"), "Time", "Share", Column("", "name")], rows)


def _intervals(found: RunIntervals) -> str:
    return f"{_times(found.latency_s)}; {found.energy_j.p05:,.0f} to {found.energy_j.p95:,.0f} J in 9 of 10"


def _times(found: Interval) -> str:
    return f"{seconds(found.p05)} to {seconds(found.p95)} in 9 of 10, {seconds(found.p25)} to {seconds(found.p75)} in half"


def _host(result: Result) -> str:
    text, times = f"{result.host_bound_share:.1%} of the time", result.latency_by_host
    if not times:
        return text
    slowest, *_, fastest = times
    return f"{text}: it decides; {seconds(times[fastest])} to {seconds(times[slowest])} by host ({fastest} to {slowest}, here {result.host.name})"


def _power(result: Result) -> str:
    """Watts on average and at most. A limit is held over a window, to a few per cent: what is drawn then is the limit."""
    found, limit_w = result.power, result.hardware.power_limit_w
    average, most = f"{found['average_w']:.0f} W on average", found["peak_w"]
    if most <= limit_w:
        text = f"{average}, {most:.0f} W at most, of {limit_w:.0f} W"
    elif most <= (1 + _HELD_WITHIN) * limit_w:
        text = f"{average}, at most its limit, {limit_w:.0f} W"
    else:
        text = f"{average}, {most:.0f} W at most: more than the limit of {limit_w:.0f} W, which the lowest clock does not hold"
    return text if found["clock"] > 0.9995 else f"{text}, which lowers the clock to {found['clock']:.0%}"


def _attention(result: Result) -> str:
    """Each library that ran, with how many of the calls, and what was asked for where that is another."""
    found = result.attention_kernels
    calls = sum(row.calls for row in found)
    parts = []
    for row in found:
        of = "" if row.calls == calls else f" in {row.calls:,} of {calls:,} calls"
        instead = f" ({row.asked} asked: {row.because})" if row.because else ""
        parts.append(f"{row.ran}{of}{instead}{row.mask and f', {row.mask}'}")
    return "; ".join(parts) or "none"


def _lengths(lengths: list[int]) -> str:
    """Runs of equal lengths in order, as 4096x2 1024x2 ..."""
    runs: list[tuple[int, int]] = []
    for length in lengths:
        if runs and runs[-1][0] == length:
            runs[-1] = (length, runs[-1][1] + 1)
        else:
            runs.append((length, 1))
    text = " ".join(f"{length}×{count}" if count > 1 else str(length) for length, count in runs)
    return f"{text}  (one pass, in order)" if text else "none"


def _memory(result: Result) -> str:
    held, capacity = result.memory, result.hardware.hbm_capacity_bytes
    if held is None:
        return "not known: an imported trace does not say which tensors are the same"
    text = (
        f"{gib(held.allocated_bytes)} allocated, {gib(held.reserved_bytes)} reserved, {gib(held.device_bytes)} of the device's "
        f"{gib(capacity, 0)} with the CUDA context"
    )
    if result.fits:
        return f"{text}; a batch of {result.largest_batch} would fit" if result.largest_batch else text
    text = f"{text}: does not fit, most in {held.fullest.name}"
    if result.largest_batch:
        return f"{text}; a batch of {result.largest_batch} would"
    if held.fixed_bytes + held.context_bytes > capacity:
        fewer = (
            "group or sequential" if "offload" in result.trace.options else "model, one component at a time"
        )
        return f"{text}; the weights alone take {gib(held.fixed_bytes)}: see --offload {fewer}"
    if result.largest_size:
        height, width = result.largest_size
        return f"{text}; about {width}x{height} would, or fewer frames, or decoding in tiles (--vae tiled)"
    return f"{text} at any batch; take a smaller image, fewer frames, or decode in tiles (--vae tiled)"


def print_replay(result: Replay, interval: bool = True) -> None:
    """Replayed and measured span, and the time by category; with the interval of the latency or without."""
    console = plain_console()
    change = result.latency_s / result.measured_s
    console.print(
        f"[bold]{escape(result.trace.workload)}[/] on [bold]{result.hardware.name}[/], kernels {result.timing}"
    )
    console.print(
        f"[bold]{seconds(result.latency_s)}[/]   measured {seconds(result.measured_s)}, ratio {change:.4f}"
    )
    if interval:
        console.print(_times(result.interval), style="dim")
    console.print()
    _print_breakdown(result.breakdown, result.latency_s)
    if result.unscaled_s:
        console.print(
            f"{seconds(result.unscaled_s)} of kernels have no model: scaled as the others on average",
            style="yellow",
        )


def print_comparison(comparison: Comparison) -> None:
    """Predicted against measured by category, and what could not be compared."""
    console = plain_console()
    console.print(
        f"[bold]{escape(comparison.trace.workload)}[/], predicted for [bold]{comparison.hardware.name}[/]\n"
    )
    rows = [
        (
            str(row["category"]), str(row["operators"]), seconds(row["measured_us"] / 1e6),
            seconds(row["predicted_us"] / 1e6), f"{row['ratio']:.2f}", f"{row['mape']:.1%}", f"{row['median']:.1%}",
            f"{row['bias']:+.1%}",
        )
        for row in comparison.summary.to_dict("records")
    ]  # fmt: skip
    figures = ("Operators", "Measured", "Predicted", "Ratio", "MAPE", "Median", "Bias")
    print_table([Column("Category", "name"), *figures], rows)
    lies, ratio = comparison.interval, 1 / float(comparison.summary.set_index("category").ratio["all"])
    console.print(
        f"Measured over predicted sum {ratio:.3f}; 9 of 10 such lie within {lies.p05:.3f} to {lies.p95:.3f}",
        style="dim",
    )
    for reason, time_us in comparison.unmodelled_us.items():
        console.print(f"not compared: {seconds(time_us / 1e6)} of {escape(reason)}", style="yellow")


def print_calibration(calibration: Calibration) -> None:
    """Each family's parameters, before and after, its error on the held-out rows, and what to be careful about."""
    console = plain_console()
    for fit in calibration.fits:
        console.print(
            f"[bold]{fit.family.name}[/] on [bold]{calibration.measured_on}[/]: MAPE {fit.test.mape:.1%} "
            f"(bias {fit.test.bias:+.1%}) on {fit.test.rows:,} rows held out; {fit.before.mape:.1%} before; "
            f"{fit.train.mape:.1%} on {fit.train.rows:,} training rows, {fit.used_rows:,} of them used"
        )
        rows = [
            (
                item.name,
                f"{item.before:.4g}",
                f"{item.value:.4g}",
                "{:.4g} to {:.4g}".format(*item.interval),
            )
            for item in fit.parameters
            if item.interval is not None
        ]
        print_table([Column("Parameter", "name"), "Before", "After", "95 % interval"], rows)
        for text in fit.warnings():
            console.print(text, style="yellow")
        console.print()


def print_exploration(result: Exploration) -> None:
    """The Pareto set, first rows, and what each parameter does to each objective."""
    console, spec, table = plain_console(), result.spec, result.table
    console.print(f"[bold]{spec.question or 'Exploration'}[/]   base {spec.base}")
    failed = table[table.error != ""]
    console.print(
        f"{len(table)} designs, {int(table.feasible.sum())} feasible, {int(table.pareto.sum())} in the Pareto set"
        + (f", {len(failed)} could not be evaluated: {failed.error.iloc[0]}" if len(failed) else "")
        + "\n"
    )
    front = table[table.pareto].sort_values(spec.objectives[0])
    columns = ["design", *spec.varied, *spec.objectives]
    rows = [
        (*(f"{row[name]:.4g}" for name in columns), row.unsure)
        for _, row in front.head(_MOST_PARETO).iterrows()
    ]
    print_table([*columns, Column("not sure with", "prose")], rows)
    if (front.unsure != "").any():
        console.print(
            "Not sure with: designs whose order with this one in some objective the errors of predictions leave open.",
            style="dim",
        )
    if len(front) > _MOST_PARETO:
        console.print(f"[dim]... and {len(front) - _MOST_PARETO} more in pareto.csv[/]")
    for warning in result.warnings:
        console.print(f"[yellow]Warning[/]: {escape(warning)}")
    console.print(f"\nChange of an objective, in % for each % of a parameter, about {result.about}")
    by_name = [
        (str(name), part.set_index("objective").elasticity)
        for name, part in result.sensitivity.groupby("parameter", sort=False)
    ]
    changes = [(name, *(f"{by[objective]:+.2f}" for objective in spec.objectives)) for name, by in by_name]
    print_table([Column("Parameter", "name"), *spec.objectives], changes)
