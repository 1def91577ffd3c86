"""The residuals of the model, log(measured / predicted), by family, the device's standing and size: what intervals are made of.

residuals.csv ships; `simtti validate residuals` writes it from measurements whose shapes set no parameter. Its columns:

    family, standing, size    see `families`
    device                    whose residuals alone these are; empty: of all devices, stretched for one that is not among them
    rows, devices             how many residuals, of which devices; 0 rows: none were measured, `basis` says what stands in
    basis                     measured, or the rule by which the row follows from another; times what it was stretched by
    units                     (standing calibrated) where the family was fitted: architecture/matrix unit, with blanks between
    least_us, most_us         the shortest and longest prediction among them, microseconds
    q01 ... q99               quantiles of the log ratio, each at the level that split-conformal prediction takes for so few rows
                              (Vovk et al., Algorithmic Learning in a Random World, 2005; Lei et al., JASA 2018)
"""

from __future__ import annotations

import csv
import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from simtti.errors import InputError
from simtti.hw_configs.hardware import Hardware
from simtti.simulator.uncertainty.families import CALIBRATED, SIZES, STANDINGS, size_class, standing

SHIPPED = Path(__file__).parent / "residuals.csv"
LEVELS = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
NAMES = tuple(f"q{round(100 * level):02d}" for level in LEVELS)
# The levels as standard normal values: a draw z gives the residual by interpolation among them.
NORMAL = np.array([NormalDist().inv_cdf(level) for level in LEVELS])
COLUMNS = (
    "family",
    "standing",
    "size",
    "device",
    "rows",
    "devices",
    "basis",
    "units",
    "least_us",
    "most_us",
    *NAMES,
)
# A prediction this many times beyond the shortest or longest that was measured is said to be outside.
BEYOND = 1.5


class Interval(NamedTuple):
    """What a figure is below with a probability of 5, 25, 75 and 95 %: the middle 50 and 90 % lie between."""

    p05: float
    p25: float
    p75: float
    p95: float

    def around(self, value: float) -> Interval:
        """Widened where it leaves `value` out: a prediction lies within its own intervals."""
        return Interval(
            min(self.p05, value), min(self.p25, value), max(self.p75, value), max(self.p95, value)
        )

    def in_seconds(self) -> dict[str, float]:
        """As JSON has an interval of seconds."""
        return {f"{name}_s": value for name, value in self._asdict().items()}

    def times(self, value: float) -> Interval:
        return Interval(*(each * value for each in self))


INTERVAL_LEVELS = (0.05, 0.25, 0.75, 0.95)


@dataclass(frozen=True)
class Residuals:
    """quantiles: of (family, standing, size, device or ''), the log ratios at LEVELS. units: of a family, where it was fitted; range_us:
    the shortest and longest time of it that was measured."""

    quantiles: Mapping[tuple[str, str, str, str], np.ndarray]
    units: Mapping[str, tuple[str, ...]]
    range_us: Mapping[str, tuple[float, float]]

    def standing(self, hardware: Hardware, family: str) -> str:
        """The device's standing in a family, one of STANDINGS."""
        return standing(hardware, family, self.units.get(family, ()))

    def of(self, hardware: Hardware, family: str, size: str) -> np.ndarray:
        """The log ratios at LEVELS: the device's own where it has enough, else those of all devices of its standing.

        Raises:
            InputError: the table has no such row.
        """
        return self.of_standing(family, self.standing(hardware, family), size, hardware.name)

    def of_standing(self, family: str, stands: str, size: str, name: str) -> np.ndarray:
        """As `of`, of a device called `name` that has the standing `stands`."""
        for device in (name, ""):
            if (found := self.quantiles.get((family, stands, size, device))) is not None:
                return found
        raise InputError(f"residuals: no row of {family}, {stands}, {size}")

    def factors(self, hardware: Hardware, family: str, time_us: float) -> Interval:
        """The interval of a single operator that is predicted to take `time_us`, as factors of that time."""
        found = self.of(hardware, family, size_class(time_us))
        chosen = (float(found[LEVELS.index(level)]) for level in INTERVAL_LEVELS)
        return Interval(*map(math.exp, chosen)).around(1.0)

    def outside(self, family: str, time_us: float) -> bool:
        """Whether `time_us` is beyond what was measured of the family."""
        least, most = self.range_us.get(family, (0.0, math.inf))
        return not least / BEYOND <= time_us <= most * BEYOND


@functools.cache
def shipped() -> Residuals:
    """The table that ships."""
    with SHIPPED.open(newline="") as file:
        return residuals(csv.DictReader(file), str(SHIPPED))


def residuals(rows: Iterable[Mapping[str, Any]], origin: str) -> Residuals:
    """A table of COLUMNS, checked.

    Raises:
        InputError: a standing or size there is none of; quantiles that are no numbers or fall.
    """
    quantiles: dict[tuple[str, str, str, str], np.ndarray] = {}
    units: dict[str, tuple[str, ...]] = {}
    ranges: dict[str, tuple[float, float]] = {}
    for number, row in enumerate(rows, start=1):
        family, stands, size = (str(row[name]) for name in ("family", "standing", "size"))
        if stands not in STANDINGS or size not in SIZES:
            raise InputError(
                f"{origin}: row {number}: standing {stands!r}, size {size!r}; there are {', '.join((*STANDINGS, *SIZES))}"
            )
        found = quantiles_of(row, f"{origin}: row {number}")
        quantiles[family, stands, size, str(row.get("device") or "")] = found
        if stands == CALIBRATED and row.get("units"):
            units[family] = tuple(str(row.get("units") or "").split())
        if row.get("least_us") not in (None, "") and float(row["rows"]) > 0:
            least, most = ranges.get(family, (math.inf, 0.0))
            ranges[family] = min(least, float(row["least_us"])), max(most, float(row["most_us"]))
    return Residuals(quantiles, units, ranges)


def quantiles_of(row: Mapping[str, Any], origin: str) -> np.ndarray:
    """The log ratios at LEVELS in a row of a table.

    Raises:
        InputError: they are no numbers, or fall.
    """
    try:
        found = np.array([float(row[name]) for name in NAMES])
    except (TypeError, ValueError):
        found = np.array([math.nan])
    if not (np.diff(found) >= 0).all() or not np.isfinite(found).all():
        raise InputError(f"{origin}: {NAMES[0]} to {NAMES[-1]} must be numbers that do not fall")
    return found


def conformal_quantiles(log_ratios: np.ndarray) -> np.ndarray:
    """Quantiles at LEVELS such that the next residual lies between two of them at least as often as they say: of n residuals the
    level p above the middle is taken at p (n + 1) / n, those below likewise from the other end."""
    n = len(log_ratios)
    levels = [
        min(1.0, level * (n + 1) / n)
        if level > 0.5
        else max(0.0, 1 - (1 - level) * (n + 1) / n)
        if level < 0.5
        else 0.5
        for level in LEVELS
    ]
    return np.maximum.accumulate(np.quantile(log_ratios, levels))
