"""The governor: at which clock each kernel of an inference runs, so that the board stays within its power limit.

The limit holds for the mean over some tens of milliseconds (`power.RESPONSE_S`), whatever runs in them: large products
beside elementwise kernels, and waiting for the host. So the launches of a step are cut into windows of that length, and
each window gets the highest clock at which its mean power is within the limit; a step that is shorter is a window of its
own, since it repeats.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from simtti.hw_configs.hardware import Hardware
from simtti.simulator.closed_form import Busy, busy, lone_execution_s
from simtti.simulator.column import Column, column, stands_in_column
from simtti.simulator.engine import power
from simtti.simulator.kernel import Kernel

_MOST_CORRECTIONS = 10
# How near the mean power at which a board is held its power has to come: a clock found less exactly would let a better board, which
# draws less, run slower.
_HELD_WITHIN = 2e-4


class Spent:
    """For how long kernels side by side keep each resource busy: worked out when it is asked for, as most designs' never is."""

    def __init__(self, kernels: Column, hardware: Hardware, hbm_bytes: np.ndarray) -> None:
        self._of = kernels, hardware, hbm_bytes

    @functools.cached_property
    def _busy(self) -> list[Busy]:
        seconds = np.broadcast_arrays(*busy(*self._of))
        return [Busy._make(each) for each in np.stack(seconds, axis=1).tolist()]

    def __getitem__(self, place: int) -> Busy:
        return self._busy[place]


class Launched(NamedTuple):
    """A kernel as it would run at the boost clock: what it moves to and from HBM, its time, its energy, and, as entry `place` of
    `spent`, for how long it keeps each resource busy. Launches that are alike share one."""

    kernel: Kernel
    hbm_bytes: float
    boost_s: float
    energy: power.Energy
    spent: Spent | tuple[Busy] = (Busy(),)
    place: int = 0

    @property
    def busy(self) -> Busy:
        return self.spent[self.place]


class Governed(NamedTuple):
    """Of each launch: its time in seconds at the clock it gets, and that clock as a share of the boost clock. energy_j: of all
    of them, beside the board's static power. windows: the launches over which the limit was held, each as the one after its last
    and their joules."""

    seconds: list[float]
    clocks: list[float]
    energy_j: float
    windows: Sequence[tuple[int, float]] = ()


def govern(
    launches: Sequence[Launched],
    host_s: Sequence[float],
    hardware: Hardware,
    streams: Sequence[int] = (),
    known: dict[tuple[object, ...], tuple[float, list[float]]] | None = None,
) -> Governed:
    """Times, clocks and energy of a step's launches in order.

    host_s: what the host spends before each. streams: where each runs, where that is not the main stream for all: what runs
    beside it spends energy, but no time of its own. known: clock and times of the windows met so far on this device, by
    their launches' identities, which must not end before it: the blocks of a long video are the same windows again and again.
    """
    known = {} if known is None else known
    timed = [not stream for stream in streams] if streams else [True] * len(launches)
    seconds: list[float] = []
    clocks: list[float] = []
    energy_j = 0.0
    windows: list[tuple[int, float]] = []
    for begin, end in _windows(launches, timed, host_s, hardware.launch_s):
        window = launches[begin:end]
        spent = power.total(launch.energy for launch in window)
        in_turn = [launch for launch, counts in zip(window, timed[begin:end], strict=True) if counts]
        waited_s = sum(host_s[begin:end])
        key = (tuple(map(id, window)), tuple(timed[begin:end]), waited_s)
        if key not in known:
            clock = _window_clock(in_turn, spent, waited_s, hardware)
            known[key] = clock, _seconds(window, clock, hardware)
        clock, took_s = known[key]
        energy_j += spent.at(clock)
        windows.append((end, spent.at(clock)))
        clocks += [clock] * len(window)
        seconds += took_s
    return Governed(seconds, clocks, energy_j, windows)


def _seconds(window: Sequence[Launched], clock: float, hardware: Hardware) -> list[float]:
    """Of each launch at `clock`, a share of boost."""
    if clock == 1.0:
        return [launch.boost_s for launch in window]
    return _Window(window, hardware).at(clock)


def _windows(
    launches: Sequence[Launched], timed: Sequence[bool], host_s: Sequence[float], gap_s: float
) -> Iterator[tuple[int, int]]:
    """The launches in runs of about RESPONSE_S, as (first, one after the last); a rest that is shorter belongs to the run
    before."""
    cuts, since_s = [0], 0.0
    for index, (launch, counts, before_s) in enumerate(zip(launches, timed, host_s, strict=True), 1):
        busy_s = launch.boost_s + gap_s if counts else 0.0
        since_s += busy_s if busy_s > before_s else before_s
        if since_s >= power.RESPONSE_S:
            cuts.append(index)
            since_s = 0.0
    if len(cuts) > 1:
        cuts[-1] = len(launches)
    else:
        cuts.append(len(launches))
    return ((begin, end) for begin, end in itertools.pairwise(cuts) if end > begin)


def _window_clock(
    window: Sequence[Launched], spent: power.Energy, host_s: float, hardware: Hardware
) -> float:
    """The highest clock, as a share of boost, at which the window's mean power is within the limit."""
    gaps_s = len(window) * hardware.launch_s
    boost_s = sum(launch.boost_s for launch in window)
    whole_s = max(boost_s + gaps_s, host_s)
    if power.power_w(spent, whole_s, hardware) <= power.held_power_w(hardware):
        return 1.0
    # Each kernel's time is nearly linear in the clock's period between boost and half of it; then between boost and the clock that
    # gave, until that clock's own times draw what the board is held at.
    clock, held_w = 0.5, power.held_power_w(hardware)
    slowed = _Window(window, hardware)
    at_clock = slowed.at(clock)
    for _ in range(_MOST_CORRECTIONS):
        busy_s = sum(at_clock)
        slope_s = (busy_s - boost_s) / (1 / clock - 1)  # a period more
        time_s = functools.partial(_time_s, boost_s, slope_s, gaps_s, host_s, hardware.clock_hz)
        clock = power.sustained_clock_hz(spent, time_s, hardware) / hardware.clock_hz
        at_clock = slowed.at(clock)
        takes_s = max(sum(at_clock) + gaps_s, host_s)
        drawn_w = hardware.static_power_w + spent.at(clock) / takes_s
        if abs(drawn_w / held_w - 1) <= _HELD_WITHIN or clock <= power.LOWEST_CLOCK or clock >= 1.0:
            break
    return clock


def _time_s(
    boost_s: float, slope_s: float, gaps_s: float, host_s: float, boost_hz: float, clock_hz: float
) -> float:
    """Seconds of a window at a clock: `slope_s` more for each period of the boost clock more, and not less than the host takes."""
    return max(boost_s + slope_s * (boost_hz / clock_hz - 1) + gaps_s, host_s)


class _Window:
    """A window's launches at other clocks than boost: those that are alike are one."""

    def __init__(self, window: Sequence[Launched], hardware: Hardware) -> None:
        self._hardware = hardware
        distinct = {id(launch): launch for launch in window}
        places = {key: place for place, key in enumerate(distinct)}
        self._which = [places[id(launch)] for launch in window]
        self._boost_s = np.array([launch.boost_s for launch in distinct.values()])
        self._hbm_bytes = np.array([launch.hbm_bytes for launch in distinct.values()])
        plain = [stands_in_column(launch.kernel) for launch in distinct.values()]
        self._plain = np.flatnonzero(plain)
        self._others = [
            (place, launch)
            for place, (launch, stands) in enumerate(zip(distinct.values(), plain, strict=True))
            if not stands
        ]
        kernels = [launch.kernel for launch, stands in zip(distinct.values(), plain, strict=True) if stands]
        self._column = column(kernels, hardware) if kernels else None
        self._alone_s = self._lone_s(1.0)

    def at(self, clock: float) -> list[float]:
        """Seconds at `clock` of each launch of the window: longer by as much as the closed form's, with which the simulation
        agrees."""
        seconds = (self._boost_s * (self._lone_s(clock) / self._alone_s)).tolist()
        return [seconds[place] for place in self._which]

    def _lone_s(self, clock: float) -> np.ndarray:
        device = self._hardware
        if clock != 1.0:
            device = power.at_clock(self._hardware, clock * self._hardware.clock_hz)
        found = np.empty(len(self._boost_s))
        if self._column is not None:
            moved = self._hbm_bytes[self._plain]
            found[self._plain] = lone_execution_s(power.slowed(self._column, clock), device, moved)
        for place, launch in self._others:
            found[place] = lone_execution_s(power.slowed(launch.kernel, clock), device, launch.hbm_bytes)
        return found
