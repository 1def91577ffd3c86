"""The governor: at which clock each kernel of an inference runs, so that the board stays within its power limit.

The limit holds for the mean over some tens of milliseconds (`power.RESPONSE_S`), whatever runs in them: large products
beside elementwise kernels, and waiting for the host. So the launches of a step are cut into windows of that length, and
each window gets the highest clock at which its mean power is within the limit; a step that is shorter is a window of its
own, since it repeats.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from simtti.hw_configs.hardware import Hardware
from simtti.simulator import power
from simtti.simulator.kernel import Kernel, lone_execution_s


class Launched(NamedTuple):
    """A launch as it would be at the boost clock: its kernel, what it moves to and from HBM, its time, its energy, and what
    the host spends before it."""

    kernel: Kernel
    hbm_bytes: float
    boost_s: float
    energy: power.Energy
    host_s: float


class Governed(NamedTuple):
    """Of each launch: its time in seconds at the clock it gets, and that clock as a share of the boost clock."""

    seconds: list[float]
    clocks: list[float]


def govern(launches: Sequence[Launched], hardware: Hardware) -> Governed:
    """Times and clocks of a step's launches in order."""
    seconds: list[float] = []
    clocks: list[float] = []
    for window in _windows(launches, hardware.launch_s):
        clock = _window_clock(window, hardware)
        clocks += [clock] * len(window)
        if clock == 1.0:
            seconds += [launch.boost_s for launch in window]
        else:
            slower: dict[tuple[int, float], float] = {}
            for launch in window:
                key = (id(launch.kernel), launch.hbm_bytes)
                if key not in slower:
                    slower[key] = launch.boost_s * _stretch(launch, hardware, clock)
                seconds.append(slower[key])
    return Governed(seconds, clocks)


def _windows(launches: Sequence[Launched], gap_s: float) -> list[Sequence[Launched]]:
    """The launches in runs of about RESPONSE_S; a rest that is shorter belongs to the run before."""
    cuts, since_s = [0], 0.0
    for index, launch in enumerate(launches):
        since_s += max(launch.boost_s + gap_s, launch.host_s)
        if since_s >= power.RESPONSE_S:
            cuts.append(index + 1)
            since_s = 0.0
    if len(cuts) > 1:
        cuts[-1] = len(launches)
    else:
        cuts.append(len(launches))
    return [launches[begin:end] for begin, end in itertools.pairwise(cuts) if end > begin]


def _window_clock(window: Sequence[Launched], hardware: Hardware) -> float:
    """The highest clock, as a share of boost, at which the window's mean power is within the limit."""
    spent = power.total(launch.energy for launch in window)
    host_s = sum(launch.host_s for launch in window)
    gaps_s = len(window) * hardware.launch_s
    boost_s = sum(launch.boost_s for launch in window)
    whole_s = max(boost_s + gaps_s, host_s)
    if power.power_w(spent, whole_s, hardware) <= power.held_power_w(hardware):
        return 1.0
    # Each kernel's time is near enough linear in the clock's period between boost and half of it.
    half: dict[tuple[int, float], float] = {}
    half_s = 0.0
    for launch in window:
        key = (id(launch.kernel), launch.hbm_bytes)
        if key not in half:
            half[key] = launch.boost_s * _stretch(launch, hardware, 0.5)
        half_s += half[key]
    slope_s = half_s - boost_s  # a period more

    def time_s(clock_hz: float) -> float:
        return max(boost_s + slope_s * (hardware.clock_hz / clock_hz - 1) + gaps_s, host_s)

    return power.sustained_clock_hz(spent, time_s, hardware) / hardware.clock_hz


def _stretch(launch: Launched, hardware: Hardware, clock: float) -> float:
    """How much longer a kernel takes at `clock`: the closed form's, with which the simulation agrees."""
    slowed = lone_execution_s(
        power.slowed(launch.kernel, clock),
        power.at_clock(hardware, clock * hardware.clock_hz),
        launch.hbm_bytes,
    )
    return slowed / lone_execution_s(launch.kernel, hardware, launch.hbm_bytes)
