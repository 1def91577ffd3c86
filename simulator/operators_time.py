"""Times of operators in a benchmark, for a column of them at once: `predict.operator_time_s` of each, to the last bit."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from simtti.errors import InputError
from simtti.hw_configs.hardware import Hardware
from simtti.hw_configs.voltage import energy_factor
from simtti.simulator import arithmetic
from simtti.simulator.arithmetic import Number
from simtti.simulator.closed_form import lone_execution_s
from simtti.simulator.engine import power
from simtti.simulator.lowering.rows import side_by_side
from simtti.simulator.side_by_side import Launches, Operators

# Launches of a benchmark: aiconfigurator's collector replays a graph of six, three times before it times six replays.
WARM_UP_LAUNCHES = 18
TIMED_LAUNCHES = 36


class OperatorsTime(NamedTuple):
    """Seconds of operators: of the stream, gaps included; and of their kernels alone."""

    time_s: np.ndarray
    alone_s: np.ndarray


class Timed(NamedTuple):
    """Rows of a table side by side, an entry each: where each stands, the names of its kernels in order, and its time."""

    row: Sequence[int]
    names: Sequence[str]
    time: OperatorsTime


def rows_side_by_side(
    rows: Sequence[Mapping[str, Any]], device_of: Callable[[Mapping[str, Any]], Hardware]
) -> Iterator[Timed]:
    """Those of the rows that can be timed in columns. device_of: the device of a row, an InputError where it has none."""
    by_device: dict[Hardware, list[int]] = {}
    for number, row in enumerate(rows):
        with contextlib.suppress(InputError):
            by_device.setdefault(device_of(row), []).append(number)
    for hardware, numbers in by_device.items():
        for operators in side_by_side([rows[number] for number in numbers], hardware):
            own = [numbers[at] for at in operators.row.tolist()]
            yield Timed(own, operators.names, operators_time_s(operators, hardware))


def limited(boost_s: Number) -> Number:
    """The share of a benchmark's timed launches that the board's power limit acts on, at most nought where it ends before; boost_s: of one
    at the boost clock."""
    benchmark_s = (WARM_UP_LAUNCHES + TIMED_LAUNCHES) * boost_s
    late = (benchmark_s - power.RESPONSE_S) / (TIMED_LAUNCHES * boost_s)
    return arithmetic.of(boost_s).least(late, 1.0)


def slowed_s(boost_s: Number, limited: Number, slowdown: Number) -> Number:
    """The mean over launches of which a share are slower."""
    return boost_s * (1 + limited * (slowdown - 1))


def operators_time_s(operators: Operators, hardware: Hardware) -> OperatorsTime:
    launches, count = operators.launches, len(operators.row)
    kernels_s = lone_execution_s(launches.kernels, hardware, launches.hbm_bytes)
    gaps_s = hardware.operator_gap_s + np.bincount(launches.operator, minlength=count) * hardware.launch_s
    time_s = gaps_s + _sums(kernels_s, launches, count)
    share = limited(time_s)
    late = np.flatnonzero(share > 0)
    if len(late):
        number = np.full(count, -1)
        number[late] = np.arange(len(late))
        at = np.flatnonzero(number[launches.operator] >= 0)
        own = launches.of(at)
        own = own._replace(operator=number[own.operator])
        slowdown = _slowdown(own, len(late), kernels_s[at], operators.products, hardware)
        time_s[late] = slowed_s(time_s[late], share[late], slowdown)
    return OperatorsTime(time_s, time_s - gaps_s)


def _sums(amounts: np.ndarray, launches: Launches, count: int) -> np.ndarray:
    """Of each operator's kernels, one after another."""
    return np.bincount(launches.operator, amounts, count)


def _slowdown(
    launches: Launches, count: int, kernels_s: np.ndarray, products: bool, hardware: Hardware
) -> np.ndarray:
    """Of operators repeated without end, by the power limit."""
    activity = hardware.gemm_benchmark_activity if products else hardware.benchmark_activity
    spent: tuple[Any, ...] = power.energy(launches.kernels, launches.hbm_bytes, hardware, activity, kernels_s)
    core_j, memory_j = (_sums(joules, launches, count) for joules in spent)
    boost_s = _at_clock_s(launches, np.ones(count), hardware)
    clock = _sustained_clock(launches, core_j, memory_j, boost_s, hardware)
    return _at_clock_s(launches, clock, hardware) / boost_s


def _at_clock_s(launches: Launches, clock: np.ndarray, hardware: Hardware) -> np.ndarray:
    """`predict.time_at_clock_s` of each operator at a clock of its own, a share of the boost clock."""
    device = dataclasses.replace(hardware, clock_hz=(clock * hardware.clock_hz)[launches.operator])
    share = device.clock_hz / hardware.clock_hz
    kernels_s = lone_execution_s(power.slowed(launches.kernels, share), device, launches.hbm_bytes)
    return hardware.operator_gap_s + _sums(hardware.launch_s + kernels_s, launches, len(clock))


def _sustained_clock(
    launches: Launches,
    core_j: np.ndarray,
    memory_j: np.ndarray,
    boost_s: np.ndarray,
    hardware: Hardware,
) -> np.ndarray:
    """`power.sustained_clock_hz` of each operator, as a share of the boost clock: the range of all is halved at once."""
    budget_w = power.held_power_w(hardware) - hardware.static_power_w

    def left_j(clock: np.ndarray, time_s: np.ndarray | None = None) -> np.ndarray:
        factors = np.array([energy_factor(each) for each in clock.tolist()])
        time_s = _at_clock_s(launches, clock, hardware) if time_s is None else time_s
        return budget_w * time_s - (core_j * factors + memory_j)

    low, high = np.full(len(boost_s), power.LOWEST_CLOCK), np.ones(len(boost_s))
    high_j = left_j(high, boost_s)
    held = high_j < 0
    if not held.any():
        return high
    low_j = left_j(low)
    found = np.where(low_j <= 0, low, high)
    held &= low_j > 0
    while (high - low).max() > 1e-3:
        middle = (low + high) / 2
        middle_j = left_j(middle)
        enough = middle_j >= 0
        low, low_j = np.where(enough, middle, low), np.where(enough, middle_j, low_j)
        high, high_j = np.where(enough, high, middle), np.where(enough, high_j, middle_j)
    return np.where(held, low + (high - low) * low_j / (low_j - high_j), found)
