"""The residuals of kernels whose times a capture gives, in place of the model's.

A captured time is one launch's: log(what launches like it take / what it took) is noise. A time scaled to another device by the
model's ratio of the two carries the error of that ratio as well, log((measured there / measured here) / (predicted there / predicted
here)): what the model has wrong of both devices cancels in it.

captured.csv ships; `simtti validate residuals --captured` writes it. Its columns:

    family              see `families`
    relation            of the device asked for to that of the capture: 'same'; 'alike', of one architecture and matrix unit; 'other'
    standing            of the device asked for (see `families`); empty where it is the same
    size                of the time, as captured or as scaled
    rows, devices       how many residuals, of which devices (from>to); 0 rows: none were measured, `basis` says what stands in
    basis               measured, or the rule by which the row follows from another
    q01 ... q99         as residuals.csv has them
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simtti.errors import InputError
from simtti.hw_configs.devices import fingerprint
from simtti.hw_configs.hardware import Hardware
from simtti.simulator.uncertainty.families import FAMILIES, SIZES, STANDINGS, size_class, unit
from simtti.simulator.uncertainty.residuals import (
    INTERVAL_LEVELS,
    LEVELS,
    NAMES,
    Interval,
    Residuals,
    quantiles_of,
)

SHIPPED = Path(__file__).parent / "captured.csv"
SAME, ALIKE, OTHER = RELATIONS = ("same", "alike", "other")
COLUMNS = ("family", "relation", "standing", "size", "rows", "devices", "basis", *NAMES)


def relation(hardware: Hardware, captured_on: Hardware) -> str:
    """One of RELATIONS."""
    if hardware is captured_on or fingerprint(hardware) == fingerprint(captured_on):
        return SAME
    return ALIKE if unit(hardware) == unit(captured_on) else OTHER


@dataclass(frozen=True)
class CapturedResiduals:
    """quantiles: of (family, relation, standing, size), the log ratios at LEVELS."""

    quantiles: Mapping[tuple[str, str, str, str], np.ndarray]

    def noise(self, family: str, size: str) -> np.ndarray:
        """Of launches like a captured one over that one, at LEVELS."""
        return self.quantiles[family, SAME, "", size]

    def scaled(self, captured_on: Hardware, standings: Residuals) -> ScaledResiduals:
        """What `draws.factors` asks of times scaled from `captured_on`."""
        return ScaledResiduals(self, captured_on, standings)


@dataclass(frozen=True)
class ScaledResiduals:
    """The residuals of times captured on one device and scaled to others. standings: who knows a device's."""

    table: CapturedResiduals
    captured_on: Hardware
    standings: Residuals

    def of(self, hardware: Hardware, family: str, size: str) -> np.ndarray:
        """The log ratios at LEVELS: nothing where the device is that of the capture."""
        related = relation(hardware, self.captured_on)
        if related == SAME:
            return np.zeros(len(LEVELS))
        return self.table.quantiles[family, related, self.standings.standing(hardware, family), size]

    def factors(self, hardware: Hardware, family: str, time_us: float) -> Interval:
        """The interval of a single operator whose scaled time is `time_us`, as factors of that time."""
        found = self.of(hardware, family, size_class(time_us))
        return Interval(*(float(np.exp(found[LEVELS.index(level)])) for level in INTERVAL_LEVELS)).around(1.0)


@functools.cache
def shipped() -> CapturedResiduals:
    """The table that ships."""
    with SHIPPED.open(newline="") as file:
        return captured_residuals(csv.DictReader(file), str(SHIPPED))


def captured_residuals(rows: Iterable[Mapping[str, Any]], origin: str) -> CapturedResiduals:
    """A table of COLUMNS, checked.

    Raises:
        InputError: a family, relation, standing or size there is none of, one that is missing; quantiles that are no numbers or fall.
    """
    found: dict[tuple[str, str, str, str], np.ndarray] = {}
    wanted = {
        (family, related, stands, size)
        for family in FAMILIES
        for related in RELATIONS
        for stands in (("",) if related == SAME else STANDINGS)
        for size in SIZES
    }
    for number, row in enumerate(rows, start=1):
        key = (str(row["family"]), str(row["relation"]), str(row.get("standing") or ""), str(row["size"]))
        if key not in wanted:
            raise InputError(
                f"{origin}: row {number}: {', '.join(key)}: there is no such family, relation, standing and size"
            )
        found[key] = quantiles_of(row, f"{origin}: row {number}")
    if missing := sorted(wanted - set(found)):
        raise InputError(f"{origin}: no row of {', '.join(missing[0])}")
    return CapturedResiduals(found)
