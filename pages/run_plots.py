"""The plots of a run's report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

from simtti.pages.colours import THEME, named, series
from simtti.pages.document import Drawing
from simtti.pages.drawing import Part, Plot, bars, drawing, few_ticks, log_axis
from simtti.simulator.closed_form import bottleneck
from simtti.simulator.power_of_run import PowerWindow, power_over_time
from simtti.simulator.result import Result
from simtti.simulator.what_ifs import WhatIf
from simtti.words import BOUNDS, gib, label, percent, seconds, si

LEAST_SHARE = 0.0005  # of what is a bar or a row
_MOST_DOTS = 150  # kernels of a roofline


class KernelUse(NamedTuple):
    """What all launches of a kernel in a category come to. bound: what limits most of their time. HBM bytes: after what L2 holds."""

    name: str
    category: str
    launches: int
    time_s: float
    flops: float
    hbm_bytes: float
    tensor_dtype: str  # '' where no tensor core multiplies
    bound: str


def kernel_uses(result: Result) -> list[KernelUse]:
    """The kernels of a run by name and category, most time first."""
    sums: dict[tuple[str, str, str], list[float]] = defaultdict(lambda: [0, 0.0, 0.0, 0.0])
    bounds: dict[tuple[str, str, str], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for interval, times in result.distinct_kernels:
        kernel = interval.kernel
        dtype = kernel.tensor_dtype if kernel.tensor_flops else ""
        key = (kernel.name, result.rows[interval.operator][0].category, dtype)
        spent_s = interval.duration_s * times
        for at, value in enumerate((times, spent_s, kernel.flops * times, interval.hbm_bytes * times)):
            sums[key][at] += value
        bounds[key][bottleneck(interval.busy, interval.duration_s)] += spent_s
    found = [
        KernelUse(key[0], key[1], int(times), time_s, flops, nbytes, key[2], max(bounds[key], key=lambda name: bounds[key][name]))
        for key, (times, time_s, flops, nbytes) in sums.items()
    ]  # fmt: skip
    return sorted(found, key=lambda use: (-use.time_s, use.name, use.category))


def breakdown(result: Result) -> Drawing:
    return _shares("run-breakdown", result, {name: (name, time_s) for name, time_s in result.breakdown.items()},
                   "Time by category")  # fmt: skip


def limits(result: Result) -> Drawing:
    """Time by what holds the inference back."""
    found = {name: (BOUNDS[name], time_s) for name, time_s in result.bottlenecks.items()}
    return _shares("run-limits", result, found, "Time by what limits it")


def _shares(name: str, result: Result, found: dict[str, tuple[str, float]], title: str) -> Drawing:
    shown = {key: row for key, row in found.items() if row[1] >= LEAST_SHARE * result.latency_s}
    rows = []
    for key, (said, time_s) in shown.items():
        share = percent(time_s / result.latency_s)
        rows.append(
            (
                said,
                [
                    Part(
                        said,
                        time_s / result.latency_s * 100,
                        named(key).light,
                        f"{said}: {seconds(time_s)}, {share}",
                    )
                ],
            )
        )
    marks = [f"{seconds(time_s)}  {percent(time_s / result.latency_s)}" for _, time_s in shown.values()]
    draw = bars(rows, "share of the latency, %", marks=marks, legend=False)
    return drawing(name, draw, 60 + 24 * len(rows), title=title)


def by_phase(result: Result) -> Drawing:
    phases = len(result.phases)
    return drawing(
        "run-phases", bars_by_phase(result), 60 + 44 * phases, narrow_height_px=60 + 48 * phases, title="Time of each phase by category"
    )  # fmt: skip


def bars_by_phase(result: Result) -> Callable[[Plot], None]:
    """What draws a bar a phase, of its categories."""
    rows = []
    for phase in result.phases:
        parts = [
            Part(name, 100 * time_s / phase.latency_s, named(name).light,
             f"{label(phase.name)}, {name}: {seconds(time_s)}, {percent(time_s / phase.latency_s)}")
            for name, time_s in result.breakdown_by_phase[phase.name].items()
            if time_s >= LEAST_SHARE * phase.latency_s
        ]  # fmt: skip
        rows.append((f"{label(phase.name)}\n{seconds(phase.latency_s)}", parts))
    return bars(rows, "share of the phase, %")


def roofline(result: Result, uses: list[KernelUse]) -> Drawing | None:
    """FLOP/s against FLOPs a byte of HBM traffic, a dot a kernel; None where no kernel computes and reads HBM."""
    hardware = result.hardware
    dots = [use for use in uses if use.flops and use.hbm_bytes and use.time_s][:_MOST_DOTS]
    if not dots:
        return None
    dtypes = sorted(
        {use.tensor_dtype for use in dots if use.tensor_dtype and hardware.multiplies(use.tensor_dtype)}
    )
    # Of data types whose tensor cores are as fast one roof.
    peaks: dict[float, list[str]] = defaultdict(list)
    for dtype in dtypes:
        peaks[hardware.peak_flops(dtype)].append("TF32" if dtype == "fp32" else dtype)
    roofs = {f"tensor cores, {', '.join(names)}": peak for peak, names in peaks.items()}
    roofs["CUDA cores, fp32"] = hardware.fp32_flops_per_cycle_sm * hardware.clock_hz * hardware.sm_count
    intensity = [use.flops / use.hbm_bytes for use in dots]
    attained = [use.flops / use.time_s for use in dots]
    left, right = min(intensity) / 2, max(*intensity, 2 * max(roofs.values()) / hardware.hbm_bytes_per_s) * 2

    def draw(plot: Plot) -> None:
        axes = plot.figure.add_subplot()
        for name, peak in roofs.items():
            ridge = peak / hardware.hbm_bytes_per_s
            points = [each for each in (left, ridge, right) if left <= each <= right]
            axes.plot(
                points,
                [min(peak, each * hardware.hbm_bytes_per_s) for each in points],
                color=THEME["muted"].light,
                linewidth=1,
            )
            axes.text(
                right,
                peak * 1.08,
                f"{name}: {si(peak, 'FLOP/s')}",
                ha="right",
                va="bottom",
                color=THEME["muted"].light,
            )
        axes.text(left * 1.1, left * 1.1 * hardware.hbm_bytes_per_s * 1.6, f"HBM: {si(hardware.hbm_bytes_per_s, 'B/s')}", va="bottom",
                  color=THEME["muted"].light)  # fmt: skip
        for use, x, y in zip(reversed(dots), reversed(intensity), reversed(attained), strict=True):
            size = 4 + 30 * (use.time_s / result.latency_s) ** 0.5
            (mark,) = axes.plot(
                [x], [y], "o", color=named(use.category).light, markersize=size, alpha=0.75, markeredgewidth=0
            )
            plot.tip(mark, f"{said(use.name)} ({use.category}): {si(y, 'FLOP/s')} at {si(x, 'FLOP')} a byte; "
                           f"{percent(use.time_s / result.latency_s)} of the latency, limited by {BOUNDS[use.bound]}")  # fmt: skip
        log_axis(axes, "x", plot, lambda value: si(value, "").strip())
        log_axis(axes, "y", plot, lambda value: si(value, ""))
        axes.set(xlabel="arithmetic intensity, FLOP a byte of HBM traffic", ylabel="attained FLOP/s")
        axes.set_xlim(left, right)
        axes.set_ylim(min(attained) / 2, max(roofs.values()) * 3)
        axes.grid()
        from matplotlib.lines import Line2D

        categories = sorted({use.category for use in dots})
        plot.legend(
            {name: Line2D([], [], linestyle="", marker="o", color=named(name).light) for name in categories}
        )

    return drawing(
        "run-roofline", draw, 460, "A dot is a kernel, all its launches together; the larger, the more of the latency it takes.",
        narrow_height_px=380, title="Roofline of the kernels",
    )  # fmt: skip


def memory(result: Result) -> Drawing | None:
    """Allocated bytes at the fullest moment of each phase; None where memory is not known."""
    held = result.memory
    if held is None:
        return None
    rows = []
    for phase in held.phases:
        # Weights that are offloaded differ from phase to phase.
        fixed = 0 if "offload" in result.trace.options else min(held.fixed_bytes, phase.allocated_bytes)
        working = phase.allocated_bytes - fixed - phase.workspace_bytes
        parts = [
            ("weights and cuBLAS's workspace", fixed, 0),
            ("activations" if fixed else "weights and activations", max(0, working), 1),
            ("workspace of the kernel then", phase.workspace_bytes + min(0, working), 2),
        ]
        rows.append(
            (label(phase.name), [Part(what, nbytes / 2**30, series(at).light, f"{label(phase.name)}, {what}: {gib(nbytes)}")
                                 for what, nbytes, at in parts])
        )  # fmt: skip
    marks = [gib(phase.allocated_bytes) for phase in held.phases]
    caption = (
        f"Allocated at each phase's fullest moment; of the device {gib(held.device_bytes)} of "
        f"{gib(result.hardware.hbm_capacity_bytes, 0)} are taken at most, with what the allocator keeps and the CUDA context."
    )
    draw = bars(rows, "GiB", marks=marks)
    return drawing("run-memory", draw, 60 + 34 * len(rows), caption, title="Memory by phase")


def power(result: Result) -> Drawing:
    windows = power_over_time(result)
    ends = [window.start_s for window in windows] + [windows[-1].end_s]
    limit_w = result.hardware.power_limit_w

    def draw(plot: Plot) -> None:
        upper, lower = plot.figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
        for axes, values, at in (
            (upper, [window.power_w for window in windows], 0),
            (lower, [100 * window.clock for window in windows], 1),
        ):
            axes.stairs(values, ends, color=series(at).light, linewidth=1.8, baseline=None)
            axes.grid()
            for window in _coarse(windows):
                place = axes.axvspan(
                    window.start_s, window.end_s, color=series(at).light, alpha=0.06, linewidth=0
                )
                plot.tip(place, f"{seconds(window.start_s)} to {seconds(window.end_s)}: {window.power_w:.0f} W, "
                                f"{percent(window.clock, 0)} of the boost clock")  # fmt: skip
        upper.axhline(limit_w, color=THEME["bad"].light, linewidth=1, linestyle="--")
        upper.text(0, limit_w, f" limit {limit_w:.0f} W", va="bottom", color=THEME["bad"].light)
        upper.set_ylabel("power, W")
        upper.set_ylim(0, 1.15 * max(limit_w, *(window.power_w for window in windows)))
        lower.set_ylabel("clock, %" if plot.narrow else "clock, % of boost")
        lower.set_ylim(0, 108)
        lower.set_xlim(0, ends[-1])
        lower.set_xlabel("time, s")
        few_ticks(lower.xaxis, plot, lambda value: f"{value:g}")
        for axes in (upper, lower):
            few_ticks(axes.yaxis, plot, lambda value: f"{value:g}")
        phase_s = 0.0
        for phase in result.phases:
            phase_s += phase.latency_s
            for axes in (upper, lower):
                axes.axvline(phase_s, color=THEME["line"].light, linewidth=1)

    return drawing(
        "run-power", draw, 360, "Means over the windows that the power limit is held over; upright lines: ends of phases.",
        narrow_height_px=320, title="Board power and clock over time",
    )  # fmt: skip


def _coarse(windows: list[PowerWindow]) -> list[PowerWindow]:
    """At most _MOST_DOTS windows, several that follow each other as their mean."""
    run = -(-len(windows) // _MOST_DOTS)
    found = []
    for at in range(0, len(windows), run):
        part = windows[at : at + run]
        start_s, end_s = part[0].start_s, part[-1].end_s
        power_w, clock = (
            sum(getattr(each, column) * (each.end_s - each.start_s) for each in part) / (end_s - start_s)
            for column in ("power_w", "clock")
        )
        found.append(PowerWindow(start_s, end_s, power_w, clock))
    return found


def lengths(result: Result) -> Drawing | None:
    """Tokens of each self-attention call of a step; None where there is none."""
    found = result.sequence_lengths
    if not found:
        return None

    def draw(plot: Plot) -> None:
        axes = plot.figure.add_subplot()
        axes.stairs(
            found, range(1, len(found) + 2), baseline=None, color=named("Attention").light, linewidth=1.8
        )
        if len(found) <= _MOST_DOTS:
            for at, length in enumerate(found, 1):
                (mark,) = axes.plot([at + 0.5], [length], "o", color=named("Attention").light, markersize=5)
                plot.tip(mark, f"call {at}: {length:,} tokens")
        log_axis(axes, "y", plot, lambda value: f"{value:,.0f}", base=2)
        few_ticks(axes.xaxis, plot, lambda value: f"{value:g}")
        axes.set_ylim(min(found) / 2, max(found) * 2)
        axes.set(xlabel="self-attention call of a step, in order", ylabel="tokens")
        axes.grid()

    return drawing(
        "run-lengths", draw, 300, "Query tokens of each call of self-attention over one step of the phase that attends most.",
        narrow_height_px=260, title="Sequence lengths",
    )  # fmt: skip


def what_if_bars(result: Result, found: list[WhatIf]) -> Drawing:
    rows = [
        (each.resource, [Part(each.resource, 100 * (1 - each.latency_s / result.latency_s), series(0).light,
                          f"{each.resource}: {seconds(each.latency_s)}")])
        for each in found
    ]  # fmt: skip
    draw = bars(rows, "latency saved, %", legend=False)
    return drawing(
        "run-what-ifs", draw, 60 + 24 * len(rows), title="Latency saved by 10 % more of each resource"
    )


def said(name: str) -> str:
    """A kernel's name as words that a line can break between."""
    return name.replace("_", " ")
