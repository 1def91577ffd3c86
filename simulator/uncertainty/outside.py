"""Where a prediction leaves what was measured, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simtti.hw_configs.hardware import Hardware
from simtti.simulator.uncertainty.captured import SAME, relation
from simtti.simulator.uncertainty.draws import family_seconds
from simtti.simulator.uncertainty.families import NEVER_MEASURED, UNMODELLED, family_of_operator
from simtti.simulator.uncertainty.residuals import Residuals, shipped

if TYPE_CHECKING:
    from simtti.simulator.result import Result  # circle: a type only

# A share of an inference's kernel time that is worth a word.
NOTABLE = 0.1


def of_run(result: Result) -> tuple[str, ...]:
    """Of a run, a sentence each: kernel families that no GPU like this one was timed in, and kernels shorter or longer than any
    measured, where they take a notable share of the time. Of captured times only what was scaled is asked about."""
    table, hardware = shipped(), result.hardware
    if result.timing != "model":
        return _of_captured(result, table)
    never = _never_measured(result, table)
    words = []
    if sum(never.values()) >= NOTABLE:
        words.append(
            f"{sum(never.values()):.0%} of the kernel time is {_named(never)}: no kernel timed on a GPU like {hardware.name} set a parameter "
            "of these or is among the residuals; the interval is that of such predictions"
        )
    total_s = sum(family_seconds(result).values()) or 1.0
    beyond = _beyond(result, table)
    for family, time_s in sorted(beyond.items(), key=lambda item: -item[1]):
        if time_s / total_s >= NOTABLE:
            words.append(f"{time_s / total_s:.0%} of the kernel time is {_range(family, table)}")
    return tuple(words)


def _of_captured(result: Result, table: Residuals) -> tuple[str, ...]:
    """Of kernels whose times a capture gives."""
    captured_on = result.captured_on
    if captured_on is None or relation(result.hardware, captured_on) == SAME:
        return ()
    if result.timing == "measured":
        return (
            f"the kernels take what they took on {captured_on.name}, not what they would on {result.hardware.name}: timing hybrid scales "
            "them; the interval is that of the former",
        )
    words = []
    never = _never_measured(result, table)
    if sum(never.values()) >= NOTABLE:
        words.append(
            f"{sum(never.values()):.0%} of the kernel time is {_named(never)}: no kernel timed on a GPU like {result.hardware.name} set a "
            f"parameter of these; scaled from {captured_on.name}, their interval is that of such ratios, or of the model where none were measured"
        )
    seconds = family_seconds(result)
    unscaled_s = sum(time_s for (family, _), time_s in seconds.items() if family == UNMODELLED)
    if unscaled_s:
        share = unscaled_s / sum(seconds.values())
        words.append(
            f"{share:.1%} of the kernel time is of operators that the model does not cover: scaled as streams of their bytes, or as the rest on "
            "average, with the interval of all families"
        )
    return tuple(words)


def _named(shares: dict[str, float]) -> str:
    return ", ".join(sorted(shares, key=lambda family: -shares[family]))


def _never_measured(result: Result, table: Residuals) -> dict[str, float]:
    """The shares of the kernel time of families that the device was never measured in."""
    seconds: dict[str, float] = {}
    for (family, _), time_s in family_seconds(result).items():
        seconds[family] = seconds.get(family, 0.0) + time_s
    total_s = sum(seconds.values()) or 1.0
    return {
        family: time_s / total_s
        for family, time_s in seconds.items()
        if family != UNMODELLED and table.standing(result.hardware, family) == NEVER_MEASURED
    }


def of_operator(family: str, time_us: float, hardware: Hardware, table: Residuals) -> str:
    """Of a single operator; '' where it is within what was measured."""
    words = []
    if table.standing(hardware, family) == NEVER_MEASURED:
        words.append(
            f"no {family} timed on a GPU like {hardware.name} set a parameter or is among the residuals"
        )
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
