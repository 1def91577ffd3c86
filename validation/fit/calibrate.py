"""Calibration: a device's parameters from measured kernels, by robust least squares through the simulator's own model.

Families (families.yaml) are fitted one after another: those before set what the later ones build on. Within a family the
sum of soft-L1 losses of log(predicted / measured) is made small over the training rows; a weak pull towards the values it
started from holds what the data say nothing about. Rows are split by a hash of their shape, so that a shape is in
training or in test on every device and in every file.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import yaml

from simtti.errors import InputError, unknown
from simtti.hw_configs.devices import load
from simtti.hw_configs.hardware import Hardware, parameter, with_parameters
from simtti.hw_configs.schema import calibration
from simtti.validation.fit.energy import EnergyModel
from simtti.validation.judge.error_figures import Figures, figures
from simtti.validation.judge.prediction import NOT_SCORED, predicted_us, times_us

if TYPE_CHECKING:
    import pandas as pd

FAMILIES = Path(__file__).parent / "families.yaml"
# Columns that say where a row was measured, not what.
NOT_SHAPE = ("hw", "time_us", "power_w", "latency_s", "energy_j", "source", "what_is_timed", "error")
TARGETS = ("time_us", "energy_j")
_FIELDS = ("rows", "parameters", "target", "pull")
TRAIN_SHARE = 0.5
# Log ratio beyond which a residual counts linearly, not squared: about the noise between two measurements of a call.
SOFT_L1_LOG_RATIO = 0.05
# The pull towards the starting value: doubling a parameter costs as much as one row that is this log ratio off.
PRIOR_LOG_RATIO = 0.01
# Relative step of the finite differences: wide enough to see past a change of tile.
DIFFERENCE_STEP = 0.02
MOST_EVALUATIONS = 12
# A parameter is reported as poorly known when its 95 % interval is wider than this share of its value.
WIDE_INTERVAL = 0.5
STRONG_CORRELATION = 0.95
SIGNIFICANT_DIGITS = 4


@dataclass(frozen=True)
class Family:
    """Rows of a measurement table (column: allowed values) and the parameters they decide.

    target: the measured column, time_us of single kernels or energy_j of whole inferences. pull: how strongly parameters
    are held at the values they start from; doubling one costs as much as one row that is this log ratio off.
    """

    name: str
    rows: Mapping[str, tuple[Any, ...]]
    parameters: tuple[str, ...]
    target: str = "time_us"
    pull: float = PRIOR_LOG_RATIO


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
class FamilyFit:
    """The fit of one family. correlations: pairs of parameters that trade off, strongest first."""

    family: Family
    parameters: tuple[FittedParameter, ...]
    correlations: tuple[tuple[str, str, float], ...]
    train: Figures
    test: Figures
    before: Figures  # on the test rows, with the values it started from
    used_rows: int  # of the training rows
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
        found += [
            f"{self.family.name}: {item.name} ends at its bound, {item.value:.4g}"
            for item in self.parameters
            if item.interval is not None and item.value in bounds[item.name]
        ]
        return found


class Solution(NamedTuple):
    """Values of the parameters that were asked for; of those that the data touch the 95 % intervals, and the pairs that
    trade off."""

    values: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    correlations: tuple[tuple[str, str, float], ...]


@dataclass(frozen=True)
class Calibration:
    """What `calibrate` found: the device measured, the same with its new parameters, and each family's fit."""

    measured_on: str
    hardware: Hardware
    fits: tuple[FamilyFit, ...]


def write(calibration: Calibration, path: str | os.PathLike[str]) -> None:
    """Put what was fitted into the device file at `path` (see hw_configs.write). Parameters that the data do not touch
    are left out; the same calibration gives the same bytes."""
    from simtti.hw_configs.write import update_device_file

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


def families(path: Path = FAMILIES) -> tuple[Family, ...]:
    """The families of a YAML file, with `group.*` written out.

    Raises:
        InputError: the file is missing or malformed, or names a parameter that does not exist.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
    found = []
    for name, fields in content.items():
        if not isinstance(fields, dict) or not {"rows", "parameters"} <= set(fields) <= set(_FIELDS):
            raise InputError(
                f"{path}: {name}: a family has {', '.join(_FIELDS)}; the last two may be left out"
            )
        chosen: list[str] = []
        for pattern in fields["parameters"]:
            matches = fnmatch.filter(calibration(), pattern)
            if not matches:
                raise unknown(f"parameter in {path}: {name}:", pattern, calibration())
            chosen += matches
        rows = {
            column: tuple(value) if isinstance(value, list) else (value,)
            for column, value in fields["rows"].items()
        }
        target = fields.get("target", TARGETS[0])
        if target not in TARGETS:
            raise InputError(f"{path}: {name}: target is {target!r}; it must be {' or '.join(TARGETS)}")
        found.append(Family(name, rows, tuple(chosen), target, float(fields.get("pull", PRIOR_LOG_RATIO))))
    return tuple(found)


def family_of(table: pd.DataFrame, known: tuple[Family, ...]) -> pd.Series:
    """The name of each row's family, '' where it has none."""
    import pandas as pd

    names = pd.Series("", index=table.index)
    for family in known:
        inside = names == ""
        for column, values in family.rows.items():
            inside &= table[column].isin(values) if column in table else False
        names[inside] = family.name
    return names


def in_training(table: pd.DataFrame) -> pd.Series:
    """Whether a row's shape, whatever the device and source, falls into the training half."""
    import pandas as pd

    limit = int(TRAIN_SHARE * 2**32)
    return pd.Series([_hash(shape) < limit for shape in shapes(table)], index=table.index)


def shapes(table: pd.DataFrame) -> list[tuple[tuple[str, Any], ...]]:
    """What was measured, row by row: the filled columns in alphabetical order with their values, whatever other columns
    the table has for other rows."""
    columns = sorted(column for column in table.columns if column not in NOT_SHAPE)
    rows = table[columns].astype(object).itertuples(index=False, name=None)
    return [
        tuple(
            (name, int(cell) if isinstance(cell, float) and cell.is_integer() else cell)
            for name, cell in zip(columns, row, strict=True)
            if cell is not None and cell == cell and cell != ""
        )
        for row in rows
    ]


def _hash(shape: tuple[tuple[str, Any], ...]) -> int:
    return int.from_bytes(hashlib.sha256(repr(shape).encode()).digest()[:4], "big")


def calibrate(
    hw: str | Hardware,
    measurements: pd.DataFrame,
    *,
    only: tuple[str, ...] = (),
    parameters: tuple[str, ...] = (),
    most_rows: int = 3000,
    workers: int | None = None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Calibration:
    """Fit the parameters of `hw` to the measurements of it.

    Args:
        measurements: rows of `simtti predict` with hw and time_us (see validation.measurements.table).
        only: names of families; all of families.yaml if empty.
        parameters: fit only those that match one of these patterns.
        most_rows: training rows of a family that are used, spread evenly over the times measured.
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
        fit = _fit_family(hardware, family, rows, wanted, most_rows, workers, progress)
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
    family: Family,
    rows: pd.DataFrame,
    wanted: tuple[str, ...],
    most_rows: int,
    workers: int | None,
    progress: Callable[[str, int, int], None],
) -> FamilyFit:
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
    with _Predictor(used, workers) if whole is None else whole.only(rows.index.isin(used.index)) as model:
        found = solve(model, hardware, family, wanted, progress)
    start = {name: parameter(hardware, name) for name in wanted}
    after = with_parameters(hardware, found.values)
    scored = test if len(test) else train

    def error(part: pd.DataFrame, device: Hardware) -> Figures:
        if whole is None:
            return figures(predicted_us(part, device, workers), part.time_us)
        inside = rows.index.isin(part.index)
        return figures(whole.predicted(device)[inside], part.energy_j)

    return FamilyFit(
        family=family,
        parameters=tuple(
            FittedParameter(name, start[name], found.values[name], found.intervals.get(name))
            for name in wanted
        ),
        correlations=found.correlations,
        train=error(train, after),
        test=error(scored, after),
        before=error(scored, hardware),
        used_rows=len(used),
        data_sha256=_table_hash(rows),
        sources=tuple(sorted(set(rows.source.dropna().astype(str)))) if "source" in rows else (),
    )


def solve(
    model: _Predictor | EnergyModel,
    hardware: Hardware,
    family: Family,
    wanted: tuple[str, ...],
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Solution:
    """Parameters of `hardware` with which the model is nearest to its measurements, searched from those it has."""
    from scipy.optimize import least_squares

    values = {name: parameter(hardware, name) for name in wanted}
    touched = _touched(model, hardware, values)
    if not touched:
        return Solution(values, {}, ())
    scale = np.array([_scale(name, values[name]) for name in touched])
    x0 = np.array([values[name] for name in touched]) / scale
    low = np.array([calibration()[name][1] for name in touched]) / scale
    high = np.array([calibration()[name][2] for name in touched]) / scale
    done = 0

    def residuals(x: np.ndarray) -> np.ndarray:
        nonlocal done
        done += 1
        progress(family.name, done, MOST_EVALUATIONS * (1 + len(touched)))
        tried = dict(zip(touched, (x * scale).tolist(), strict=True))
        logs = model.log_ratios(with_parameters(hardware, tried))
        pull = (x - x0) * family.pull
        return np.concatenate([logs, pull])

    found = least_squares(
        residuals,
        np.clip(x0, low + 1e-6, high - 1e-6),
        bounds=(low, high),
        loss="soft_l1",
        f_scale=SOFT_L1_LOG_RATIO,
        diff_step=DIFFERENCE_STEP,
        max_nfev=MOST_EVALUATIONS,
        xtol=1e-4,
        ftol=1e-4,
    )
    values |= dict(zip(touched, (_rounded(v) for v in np.clip(found.x, low, high) * scale), strict=True))
    deviations, correlations = _uncertainty(found.jac, found.fun, touched)
    intervals = {}
    for name, size, unit in zip(touched, deviations, scale, strict=True):
        half = 1.96 * float(size * unit)
        intervals[name] = (
            _rounded(max(values[name] - half, calibration()[name][1])),
            _rounded(min(values[name] + half, calibration()[name][2])),
        )
    return Solution(values, intervals, correlations)


def spread(rows: pd.DataFrame, most: int, column: str = "time_us") -> pd.DataFrame:
    """At most `most` rows, evenly spread over the measured times (or another column)."""
    if len(rows) <= most:
        return rows
    ordered = rows.sort_values(column, kind="stable")
    return ordered.iloc[np.linspace(0, len(rows) - 1, most).round().astype(int)]


def _scale(name: str, value: float) -> float:
    """What one unit of the fit's variable is: the value it starts from, or where that is 0 a tenth of its range."""
    return value or 0.1 * (calibration()[name][2] - calibration()[name][1])


def _touched(model: _Predictor | EnergyModel, hardware: Hardware, start: dict[str, float]) -> list[str]:
    """The parameters that change any prediction at all."""
    base = model.log_ratios(hardware)
    found = []
    for name, value in start.items():
        low, high = calibration()[name][1:3]
        step = DIFFERENCE_STEP * _scale(name, value)
        moved = value + step if value + step <= high else max(value - step, low)
        if np.any(model.log_ratios(with_parameters(hardware, {name: moved})) != base):
            found.append(name)
    return found


def _uncertainty(
    jacobian: np.ndarray, residuals: np.ndarray, names: list[str]
) -> tuple[np.ndarray, tuple[tuple[str, str, float], ...]]:
    """Standard deviations in the fit's units and the strong correlations, from rows whose errors are independent.

    The larger of two estimates: the usual one, which grows without limit (but for the pull's) where the data say nothing,
    and the sandwich, which holds where rows differ in the size of their errors.
    """
    bread = np.linalg.inv(jacobian.T @ jacobian + 1e-12 * np.eye(len(names)))
    # scipy scales row i of the Jacobian by (1 + z)^-3/4, z = (residual / soft limit)^2; the gradient of the soft-L1 loss
    # is the unscaled row times the residual times (1 + z)^-1/2.
    z = (residuals / SOFT_L1_LOG_RATIO) ** 2
    scores = jacobian * (residuals * (1 + z) ** 0.25)[:, None]
    sandwich = bread @ (scores.T @ scores) @ bread
    usual = bread * float(np.mean(residuals**2 / np.sqrt(1 + z)))
    deviations = np.sqrt(np.maximum(np.diag(usual), np.diag(sandwich)))
    sizes = np.sqrt(np.diag(usual))
    matrix = usual / np.outer(sizes, sizes)
    pairs = [
        (names[i], names[j], round(float(matrix[i, j]), 3))
        for i in range(len(names))
        for j in range(i)
        if abs(matrix[i, j]) > STRONG_CORRELATION
    ]
    return deviations, tuple(sorted(pairs, key=lambda pair: -abs(pair[2])))


def _rounded(value: float) -> float:
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")


def _table_hash(rows: pd.DataFrame) -> str:
    text = rows[sorted(rows.columns)].sort_values(sorted(rows.columns)).to_csv(index=False)
    return hashlib.sha256(text.encode()).hexdigest()


class _Predictor:
    """The training rows, timed again and again on devices that differ in their parameters, in parallel."""

    def __init__(self, rows: pd.DataFrame, workers: int | None) -> None:
        records: list[dict[str, Any]] = rows.drop(columns=["time_us"]).to_dict("records")  # type: ignore[assignment]
        count = max(1, min(workers or os.cpu_count() or 1, len(records) // 100))
        # Neighbours in size go to different workers.
        self.order = np.argsort(np.arange(len(records)) % count, kind="stable")
        self.chunks = [records[part::count] for part in range(count)]
        self.log_measured = np.log(rows.time_us.to_numpy(float))
        self.pool = ProcessPoolExecutor(count) if count > 1 else None

    def __enter__(self) -> _Predictor:
        return self

    def __exit__(self, *_: object) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)

    def log_ratios(self, hardware: Hardware) -> np.ndarray:
        """log(predicted / measured) of each row; 0 where the model has no time."""
        run = map if self.pool is None else self.pool.map
        parts = list(run(times_us, self.chunks, [hardware] * len(self.chunks)))
        times = np.empty(len(self.log_measured))
        times[self.order] = np.concatenate(parts)
        logs = np.log(times) - self.log_measured
        return np.where(np.isfinite(logs), logs, 0.0)
