"""The supply voltage that a clock needs, and what energies become at another clock.

Switching energy goes with the square of the voltage (CV²), and the voltage that a clock needs is about proportional to the
clock, down to a floor below which it is not lowered any more. HBM has a supply of its own.
"""

from __future__ import annotations

# Voltage at low clocks as a share of that at boost: at nominal voltage 0.6-0.7 V against 1.0-1.1 V. Reasoning; no
# measured kernel comes near it.
VOLTAGE_FLOOR = 0.6
# Energies of logic on the die: those that follow the voltage.
SWITCHED = (
    "sm_cycle_j",
    "tensor_j_per_flop",
    "fp32_j_per_flop",
    "instruction_j",
    "sfu_j_per_op",
    "shared_j_per_byte",
    "l2_j_per_byte",
)


def voltage(clock: float) -> float:
    """Supply voltage that `clock` needs, both as shares of their values at the boost clock."""
    return max(clock, VOLTAGE_FLOOR)


def energy_factor(clock: float) -> float:
    """What a switched energy is at `clock`, a share of the boost clock, as a share of what it is at boost."""
    return voltage(clock) ** 2
