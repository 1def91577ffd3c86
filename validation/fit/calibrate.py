"""Calibration: a device's parameters from measured kernels, through the simulator's own model.

Families (families.yaml) are fitted one after another: those before set what the later ones build on. Half of the shapes set
the parameters (`families.in_training`), the figures of error are of the other half. A row that the model cannot predict
with the parameters that the device has takes no part, and is counted.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from simtti.errors import InputError, unknown
from simtti.hw_configs.devices import load
from simtti.hw_configs.hardware import Hardware, parameter, with_parameters
from simtti.hw_configs.schema import calibration
from simtti.hw_configs.write import update_device_file
from simtti.jobs import Pool
from simtti.validation.fit.energy import EnergyModel
from simtti.validation.fit.families import FitFamily, families, family_of, in_training, spread
from simtti.validation.fit.solve import Solution, solve
from simtti.validation.judge.error_figures import Figures, figures
from simtti.validation.judge.prediction import NOT_SCORED, predicted_us, times_us

if TYPE_CHECKING:
    import pandas as pd

# A parameter is reported as poorly known when its 95 % interval is wider than this share of its value.
WIDE_INTERVAL = 0.5


@dataclass(frozen=True)
class FittedParameter:
    """A parameter before and after. interval: 95 %; None where the data do not touch it."""

    name: str
    before: float
    value: float
    interval: tuple[float, float] | None

    @property
    def is_poorly_known(self) -> bool:
        if self.interval is None:
            return False
        return self.interval[1] - self.interval[0] > WIDE_INTERVAL * abs(self.value)


@dataclass(frozen=True)
class Fit:
    """The fit of one family. correlations: pairs of parameters that trade off, strongest first."""

    family: FitFamily
    parameters: tuple[FittedParameter, ...]
    correlations: tuple[tuple[str, str, float], ...]
    train: Figures
    test: Figures
    before: Figures  # on the test rows, with the values it started from
    used_rows: int  # of the training rows
    unpredicted_rows: (
        int  # training rows that the model could not predict to begin with; not among the used ones
    )
    data_sha256: str
    sources: tuple[str, ...]

    def warnings(self) -> list[str]:
        """What a person should know before believing the parameters."""
        found = [
            f"{self.family.name}: the data hardly identify {item.name}: "
            f"{item.value:.4g}, 95 % between {item.interval[0]:.4g} and {item.interval[1]:.4g}"
            for item in self.parameters
            if item.interval is not None and item.is_poorly_known
        ]
        found += [
            f"{self.family.name}: {one} and {other} cannot be told apart (correlation {value:+.2f})"
            for one, other, value in self.correlations
        ]
        bounds = {name: calibration()[name][1:3] for name in (item.name for item in self.parameters)}
        if self.unpredicted_rows:
            found.append(
                f"{self.family.name}: training rows without a prediction, which took no part: {self.unpredicted_rows:,}"
            )
        found += [
            f"{self.family.name}: {item.name} ends at its bound, {item.value:.4g}"
            for item in self.parameters
            if item.interval is not None and item.value in bounds[item.name]
        ]
        return found


@dataclass(frozen=True)
class Calibration:
    """What `calibrate` found: the device measured, the same with its new parameters, and each family's fit."""

    measured_on: str
    hardware: Hardware
    fits: tuple[Fit, ...]


def write(calibration: Calibration, path: str | os.PathLike[str]) -> None:
    """Put what was fitted into the device file at `path` (see hw_configs.write). Parameters that the data do not touch
    are left out; the same calibration gives the same bytes."""
    parameters: dict[str, dict[str, Any]] = {}
    fits = {}
    for fit in calibration.fits:
        source = (
            f"simtti calibrate, family {fit.family.name}: {fit.used_rows:,} rows of {calibration.measured_on}"
        )
        for item in fit.parameters:
            if item.interval is not None:
                parameters[item.name] = {
                    "value": item.value,
                    "status": "fitted",
                    "interval": list(item.interval),
                    "source": source,
                }
        fits[fit.family.name] = {
            "used_rows": fit.used_rows,
            "train_rows": fit.train.rows,
            "test_rows": fit.test.rows,
            "train_mape": fit.train.mape,
            "test_mape": fit.test.mape,
            "test_bias": fit.test.bias,
            "data_sha256": fit.data_sha256,
            "sources": ", ".join(fit.sources),
        }
    update_device_file(path, calibration.measured_on, parameters, fits)


def calibrate(
    hw: str | Hardware,
    measurements: pd.DataFrame,
    *,
    only: tuple[str, ...] = (),
    parameters: tuple[str, ...] = (),
    most_rows: int = 3000,
    keep: bool = False,
    workers: int | None = None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Calibration:
    """Fit the parameters of `hw` to the measurements of it.

    Args:
        measurements: rows of `simtti predict` with hw and time_us (see validation.measurements.table).
        only: names of families; all of families.yaml if empty.
        parameters: fit only those that match one of these patterns.
        most_rows: training rows of a family that are used, spread evenly over the times measured.
        keep: fit nothing; find only how far off the device is, as it stands, on both halves.
        progress: called with (family, evaluations done, evaluations at most).

    Raises:
        InputError: an unknown family, or no measurement of this device in any.
    """
    hardware = hw if isinstance(hw, Hardware) else load(hw)
    known = families()
    for name in only:
        if name not in {family.name for family in known}:
            raise unknown("family", name, [family.name for family in known])
    mine = measurements[measurements.hw == hardware.name]
    if "what_is_timed" in mine:
        mine = mine[mine.what_is_timed != NOT_SCORED]
    names = family_of(mine, known)
    fits = []
    for family in known:
        if only and family.name not in only:
            continue
        rows = mine[names == family.name]
        rows = rows[rows[family.target].notna()] if family.target in rows else rows[:0]
        wanted = tuple(
            name
            for name in family.parameters
            if not parameters or any(fnmatch.fnmatch(name, pattern) for pattern in parameters)
        )
        if rows.empty or not wanted:
            continue
        fit = _fit_family(hardware, family, rows, () if keep else wanted, most_rows, workers, progress)
        hardware = with_parameters(hardware, {item.name: item.value for item in fit.parameters})
        fits.append(fit)
    if not fits:
        raise InputError(
            f"no measurement of {hardware.name} belongs to "
            f"{'family ' + ', '.join(only) if only else 'any family'}; the table has: "
            f"{', '.join(sorted(set(measurements.hw.astype(str)))[:8])}"
        )
    return Calibration(hardware.name, hardware, tuple(fits))


def _fit_family(
    hardware: Hardware,
    family: FitFamily,
    rows: pd.DataFrame,
    wanted: tuple[str, ...],
    most_rows: int,
    workers: int | None,
    progress: Callable[[str, int, int], None],
) -> Fit:
    training = in_training(rows)
    train, test = rows[training], rows[~training]
    if train.empty:
        train = test
    used = spread(train, most_rows, family.target)
    whole = None
    if family.target == "energy_j":
        whole = EnergyModel(
            rows, hardware, workers, lambda done, total: progress(f"{family.name} runs", done, total)
        )
    if not wanted:
        found = Solution({}, {}, (), 0)
    elif whole is not None:
        found = solve(whole.only(rows.index.isin(used.index)), hardware, family, wanted, progress)
    else:
        with Pool(workers) as pool:
            found = solve(KernelModel(used, pool), hardware, family, wanted, progress)
    start = {name: parameter(hardware, name) for name in wanted}
    after = with_parameters(hardware, found.values)
    scored = test if len(test) else train

    def error(part: pd.DataFrame, device: Hardware) -> Figures:
        if whole is None:
            return figures(predicted_us(part, device, workers), part.time_us)
        inside = rows.index.isin(part.index)
        return figures(whole.predicted(device)[inside], part.energy_j)

    return Fit(
        family=family,
        parameters=tuple(
            FittedParameter(name, start[name], found.values[name], found.intervals.get(name))
            for name in wanted
        ),
        correlations=found.correlations,
        train=error(train, after),
        test=error(scored, after),
        before=error(scored, hardware),
        used_rows=len(used) - found.unpredicted,
        unpredicted_rows=found.unpredicted,
        data_sha256=_table_hash(rows),
        sources=tuple(sorted(set(rows.source.dropna().astype(str)))) if "source" in rows else (),
    )


def _table_hash(rows: pd.DataFrame) -> str:
    text = rows[sorted(rows.columns)].sort_values(sorted(rows.columns)).to_csv(index=False)
    return hashlib.sha256(text.encode()).hexdigest()


class KernelModel:
    """Measured rows, timed again and again on devices that differ in their parameters."""

    def __init__(self, rows: pd.DataFrame, pool: Pool) -> None:
        records: list[dict[str, Any]] = rows.drop(columns=["time_us"]).to_dict("records")  # type: ignore[assignment]
        count = max(1, min(pool.workers, len(records) // 100))
        # Neighbours in size go to different workers.
        self.order = np.argsort(np.arange(len(records)) % count, kind="stable")
        self.chunks = [records[part::count] for part in range(count)]
        self.log_measured = np.log(rows.time_us.to_numpy(float))
        self.pool = pool

    def log_ratios(self, hardware: Hardware) -> np.ndarray:
        """log(predicted / measured) of each row; NaN where the model has no time."""
        jobs = {part: (chunk, hardware) for part, chunk in enumerate(self.chunks)}
        found = dict(self.pool.as_done(times_us, jobs))
        times = np.empty(len(self.log_measured))
        times[self.order] = np.concatenate([found[part] for part in jobs])
        return np.log(times) - self.log_measured
