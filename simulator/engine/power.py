"""Power: what a kernel's work costs in energy, and the clock at which the board stays within its power limit.

Energy. Each FLOP, instruction, special function and byte costs its own energy at the boost clock's voltage (`Hardware`:
tensor_j_per_flop, fp32_j_per_flop, instruction_j, sfu_j_per_op, shared_j_per_byte, l2_j_per_byte, hbm_j_per_byte), and each
cycle of an SM that has CTAs the clock's (sm_cycle_j: clock tree, schedulers, pipelines that switch whatever they do), beside
the board's static power.

Clock. What energies are at another clock says `hw_configs.voltage`. So at clock f, as a share of the boost clock, the cores' energy is max(f, floor)² of what it is at boost, and a kernel that the
cores bind draws f³ of its dynamic power: one that would draw half as much again runs at 0.87 of the clock. A kernel
that the memory binds loses nothing until the clock binds it.

Time. The limit is held over tens of milliseconds. On A100, H100 and H200 alike the rate of large matrix products falls
where the runs that time them get longer than about that (aiconfigurator database: products of up to 0.5 ms, timed 36
in a row, run at the boost clock, those over 1.5 ms do not).

`sustained_clock_hz` is for a kernel, an operator, or the mean of a whole inference: it takes energies and a function
that gives the time at a clock.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import NamedTuple, TypeVar

import numpy as np

from simtti.hw_configs.hardware import Hardware
from simtti.hw_configs.voltage import energy_factor
from simtti.simulator.arithmetic import Number
from simtti.simulator.closed_form import lone_execution_s
from simtti.simulator.column import Column
from simtti.simulator.kernel import Kernel

LOWEST_CLOCK = 0.1  # of the boost clock; where even that draws too much the limit is not met
# How long a board draws more than its limit before the clock falls. Fitted [0.01, 0.2]: see above.
RESPONSE_S = 0.030


# Of the limit, the mean power at which a board that is held back settles: 388 of 400 W (Stable Diffusion 3 on A100), 678 of
# 700 W (Wan 2.1 on H100), as ML.ENERGY measured them [0.9, 1].
HELD_SHARE = 0.97


class Energy(NamedTuple):
    """Dynamic energy at the boost clock, in joules: the SMs' and L2's, which falls with the voltage, and HBM's."""

    core_j: float
    memory_j: float

    def at(self, clock: float) -> float:
        """Joules at `clock`, a share of the boost clock."""
        return self.core_j * energy_factor(clock) + self.memory_j


def energy(
    kernel: Kernel | Column,
    hbm_bytes: Number,
    hardware: Hardware,
    activity: float = 1.0,
    alone_s: Number | None = None,
) -> Energy:
    """What one launch of `kernel` adds to the board's static power; of a column, arrays of what each adds.

    hbm_bytes: what it moves to and from HBM. activity: how often its operands' wires toggle, as a share of a model's; the clock
    toggles whatever they do. alone_s: what it takes alone in closed form, where that is known already.
    """
    tensor_j = kernel.tensor_j if isinstance(kernel, Column) else hardware.tensor_j(kernel.tensor_dtype)
    per_cta = (
        kernel.tensor_flops * tensor_j
        + kernel.fp32_flops * hardware.fp32_j_per_flop
        + kernel.issue_slots * hardware.instruction_j
        + kernel.sfu_ops * hardware.sfu_j_per_op
        + kernel.shared_bytes * hardware.shared_j_per_byte
        + kernel.l2_bytes * hardware.l2_j_per_byte
    )
    clocked_j = sm_cycles(kernel, hbm_bytes, hardware, alone_s) * hardware.sm_cycle_j
    return Energy(
        activity * kernel.grid * per_cta + clocked_j, activity * hbm_bytes * hardware.hbm_j_per_byte
    )


def sm_cycles(
    kernel: Kernel | Column, hbm_bytes: Number, hardware: Hardware, alone_s: Number | None = None
) -> Number:
    """Cycles, summed over the SMs that have CTAs, of a launch alone at the boost clock. alone_s: as of `energy`."""
    if alone_s is None:
        alone_s = lone_execution_s(kernel, hardware, hbm_bytes)
    sms = hardware.sm_count
    busy_sms = np.minimum(kernel.grid, sms) if isinstance(kernel, Column) else min(kernel.grid, sms)
    return busy_sms * alone_s * hardware.clock_hz


def total(energies: Iterable[Energy]) -> Energy:
    cores, memories = zip(*energies, strict=True)
    return Energy(sum(cores), sum(memories))


def held_power_w(hardware: Hardware) -> float:
    """The mean power at which the power limit holds a board."""
    return HELD_SHARE * hardware.power_limit_w


def power_w(spent: Energy, time_s: float, hardware: Hardware) -> float:
    """Board power of work that takes `time_s` at the hardware's clock, whatever the limit."""
    return hardware.static_power_w + (spent.core_j + spent.memory_j) / time_s


def sustained_clock_hz(spent: Energy, time_s: Callable[[float], float], hardware: Hardware) -> float:
    """The highest clock at which work repeated without a pause stays within the power limit.

    Args:
        spent: its energy at the boost clock.
        time_s: its time in seconds at a clock in Hz.
    """
    budget_w = held_power_w(hardware) - hardware.static_power_w

    def left_j(clock: float) -> float:
        return budget_w * time_s(clock * hardware.clock_hz) - spent.at(clock)

    if left_j(1.0) >= 0:
        return hardware.clock_hz
    low, high = LOWEST_CLOCK, 1.0
    low_j, high_j = left_j(low), left_j(high)
    if low_j <= 0:
        return low * hardware.clock_hz
    while high - low > 1e-3:
        middle = (low + high) / 2
        middle_j = left_j(middle)
        if middle_j >= 0:
            low, low_j = middle, middle_j
        else:
            high, high_j = middle, middle_j
    # Between two clocks so near each other the balance is a line. A clock to the nearest thousandth would let a board that draws
    # less run slower.
    return (low + (high - low) * low_j / (low_j - high_j)) * hardware.clock_hz


@functools.lru_cache(maxsize=4096)  # the search for a clock halves the same range each time
def at_clock(hardware: Hardware, clock_hz: float) -> Hardware:
    """The same device at another SM clock."""
    return replace(hardware, clock_hz=clock_hz)


_Work = TypeVar("_Work", Kernel, Column)


def slowed(kernel: _Work, clock: float) -> _Work:
    """`kernel` at `clock`, a share of the clock it was lowered for: its latencies are mostly cycles of the SM."""
    if isinstance(kernel, Column):
        return kernel._replace(latency_s=kernel.latency_s / clock)
    return replace(kernel, latency_s=kernel.latency_s / clock)
