"""Where a prediction leaves what was measured, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simtti.hw_configs.hardware import Hardware
from simtti.simulator.uncertainty.draws import family_seconds
from simtti.simulator.uncertainty.families import NEVER_MEASURED, UNMODELLED, family_of_operator
from simtti.simulator.uncertainty.residuals import Residuals, shipped

if TYPE_CHECKING:
    from simtti.simulator.result import Result  # circle: a type only

# A share of an inference's kernel time that is worth a word.
NOTABLE = 0.1


def of_run(result: Result) -> tuple[str, ...]:
    """Of a run, a sentence each: kernel families that no GPU like this one was measured in, and kernels shorter or longer than any
    measured, where they take a notable share of the time."""
    table, hardware = shipped(), result.hardware
    seconds: dict[str, float] = {}
    for (family, _), time_s in family_seconds(result).items():
        seconds[family] = seconds.get(family, 0.0) + time_s
    total_s = sum(seconds.values()) or 1.0
    never = {
        family: time_s / total_s
        for family, time_s in seconds.items()
        if family != UNMODELLED and table.standing(hardware, family) == NEVER_MEASURED
    }
    words = []
    if sum(never.values()) >= NOTABLE:
        named = ", ".join(sorted(never, key=lambda family: -never[family]))
        words.append(
            f"{sum(never.values()):.0%} of the kernel time is {named}, which no GPU like {hardware.name} was measured in: its "
            "parameters are another's, and the interval is that of such predictions"
        )
    beyond = _beyond(result, table)
    for family, time_s in sorted(beyond.items(), key=lambda item: -item[1]):
        if time_s / total_s >= NOTABLE:
            words.append(f"{time_s / total_s:.0%} of the kernel time is {_range(family, table)}")
    return tuple(words)


def of_operator(family: str, time_us: float, hardware: Hardware, table: Residuals) -> str:
    """Of a single operator; '' where it is within what was measured."""
    words = []
    if table.standing(hardware, family) == NEVER_MEASURED:
        words.append(f"no GPU like {hardware.name} was measured in {family}")
    if table.outside(family, time_us):
        words.append(_range(family, table))
    return "; ".join(words)


def _range(family: str, table: Residuals) -> str:
    least, most = table.range_us[family]
    return f"{family} outside the {least:.3g} us to {most / 1e3:.3g} ms that were measured"


def _beyond(result: Result, table: Residuals) -> dict[str, float]:
    """Seconds by family of operators that take longer or shorter than any measured."""
    found: dict[str, float] = {}
    same = result.kinds
    for operator, each_s, times in zip(same.operators, same.seconds, same.times, strict=True):
        family = family_of_operator(*operator)
        if table.outside(family, each_s * 1e6):
            found[family] = found.get(family, 0.0) + each_s * times
    return found
