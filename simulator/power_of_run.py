"""A run's power and clocks: on average, at most, and over time by the windows that the governor holds the limit over."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from simtti.simulator.engine import power

if TYPE_CHECKING:
    from simtti.simulator.result import Result  # circle: a type only


class PowerWindow(NamedTuple):
    """A stretch of the inference: from start_s to end_s, its mean board power in watts, the clock of its kernels as a share of the
    boost clock."""

    start_s: float
    end_s: float
    power_w: float
    clock: float


def power_figures(result: Result) -> dict[str, float]:
    """Board power in watts, on average and over the most demanding window; and the mean clock of kernels as a share of the boost
    clock. A window is what the limit is held over: launches of `power.RESPONSE_S`, or so many short steps."""
    peak_w = end_s = spent_j = lasted_s = 0.0
    passed_over = False
    for item in result.repetitions:
        if passed_over and item.launches:
            end_s = item.ran.start_s[0]
        passed_over = item.times > 1
        for end, joules in item.governed.windows:
            begin_s, end_s = end_s, max(end_s, item.ran.end_s[end - 1])
            spent_j += joules * item.times
            lasted_s += (end_s - begin_s) * item.times
            if lasted_s >= power.RESPONSE_S:
                peak_w = max(peak_w, spent_j / lasted_s)
                spent_j = lasted_s = 0.0
    kernel_s = sum(interval.duration_s * times for interval, times in result.distinct_kernels)
    clocked_s = sum(
        interval.clock * interval.duration_s * times for interval, times in result.distinct_kernels
    )
    average_w = result.energy_j / result.latency_s
    return {
        "average_w": average_w,
        "peak_w": max(average_w, peak_w + result.hardware.static_power_w),
        "clock": clocked_s / kernel_s if kernel_s else 1.0,
    }


def power_over_time(result: Result) -> list[PowerWindow]:
    """The windows of a run in order, without gaps, to its end. Repetitions that were passed over are one window of what they draw on
    average. Their energy adds up to the run's."""
    static_w, found, end_s = result.hardware.static_power_w, list[PowerWindow](), 0.0
    skipped = iter(sorted(result.outcome.skipped))
    for item in result.repetitions:
        first_s = end_s
        for end, joules in item.governed.windows:
            begin_s, end_s = end_s, max(end_s, item.ran.end_s[end - 1])
            if end_s > begin_s:
                watts = static_w + joules / (end_s - begin_s)
                found.append(PowerWindow(begin_s, end_s, watts, item.governed.clocks[end - 1]))
        if item.times > 1 and (span := next(skipped, None)) is not None:
            begin_s, end_s = end_s, max(end_s, span[1])
            if end_s > begin_s:
                watts = static_w + item.governed.energy_j * (item.times - 1) / (end_s - begin_s)
                clock = _mean_clock(window for window in found if window.start_s >= first_s)
                found.append(PowerWindow(begin_s, end_s, watts, clock))
    if end_s < result.latency_s:
        found.append(PowerWindow(end_s, result.latency_s, static_w, 1.0))
    return found


def _mean_clock(windows: Iterable[PowerWindow]) -> float:
    lasted = [(window.end_s - window.start_s, window.clock) for window in windows]
    whole_s = sum(each_s for each_s, _ in lasted)
    return sum(each_s * clock for each_s, clock in lasted) / whole_s if whole_s else 1.0
