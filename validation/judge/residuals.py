"""The residuals of single operators that intervals are made of: which measurements count, under which standing, and the table of
their quantiles (simulator/uncertainty/residuals.py has its columns).

Calibrated: rows of a device whose file records the family's fit, of the half of the shapes that set nothing. Carried and never
measured: the same rows predicted with another device's parameters, as a device file that states a base and a datasheet would; and
rows of devices that record no fit of the family.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from simtti.hw_configs.devices import DIRECTORY, load, names
from simtti.hw_configs.families import parse
from simtti.hw_configs.hardware import Hardware
from simtti.hw_configs.schema import DEVICE_CALIBRATION
from simtti.simulator.uncertainty.families import (
    CALIBRATED,
    CARRIED,
    FAMILIES,
    NEVER_MEASURED,
    SIZES,
    STANDINGS,
    families_of_rows,
    is_fitted,
    size_class,
    unit,
)
from simtti.simulator.uncertainty.residuals import (
    COLUMNS,
    INTERVAL_LEVELS,
    LEVELS,
    NAMES,
    conformal_quantiles,
    residuals,
)
from simtti.validation.fit.families import families, family_of, half_of, in_training, spread
from simtti.validation.judge.prediction import NOT_SCORED, predicted_us

if TYPE_CHECKING:
    import pandas as pd

MEASURED = "measured"
ALL_SIZES, ALL_FAMILIES = "all sizes", "all families"
# A quantile of fewer residuals says little: the extremes of 20 are its 5th and 95th percentile.
FEWEST_ROWS = 20
FEWEST_OF_A_DEVICE = 40
# The share of a left-out device's residuals that intervals for 9 of 10 are to hold; how far they are stretched for it at most, in what steps.
COVER = 0.9
_MOST_TIMES, _STEP_OF_TIMES = 3.0, 0.01
_DIGITS = 4
# The quantiles at the ends of the intervals, and whether they are lower ends.
_ENDS = tuple((LEVELS.index(level), level < 0.5) for level in INTERVAL_LEVELS)
_MIDDLE, _LOW, _HIGH = LEVELS.index(0.5), LEVELS.index(0.05), LEVELS.index(0.95)


class Predicted(NamedTuple):
    """A measured row and a prediction of it. fit: the family of fits it belongs to. own: by the device's own file, not with another's
    parameters. half: 0 or 1, by hash of the shape. shape: its number, where the rows were picked by shape. log_ratio: measured over
    predicted."""

    fit: str
    family: str
    standing: str
    device: str
    unit: str
    own: bool
    half: int
    shape: int
    measured_us: float
    predicted_us: float
    log_ratio: float


def log_ratios(
    measurements: pd.DataFrame,
    *,
    most_rows: int = 400,
    workers: int | None = None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> pd.DataFrame:
    """A row a residual: the columns of `Predicted`, and size (of the predicted time).

    measurements: see measurements.table. most_rows: of a device and a family of fits, spread over the measured times.
    """
    import pandas as pd

    def pick(rows: pd.DataFrame) -> pd.DataFrame:
        return pd.concat([spread(part, most_rows) for _, part in rows.groupby("hw", sort=True)])

    found = predicted_rows(measurements, pick, workers, progress)
    found = found.sort_values(["device", "fit"], kind="stable", ignore_index=True)
    return found.assign(size=[size_class(us) for us in found.predicted_us])


def predicted_rows(
    measurements: pd.DataFrame,
    pick: Callable[[pd.DataFrame], pd.DataFrame],
    workers: int | None,
    progress: Callable[[str, int, int], None],
) -> pd.DataFrame:
    """`Predicted`, a row a measurement and device that it is predicted as.

    pick: which rows of a family of fits, of those that set no parameter of their device; it may number them (`shape`).
    """
    import pandas as pd

    rows = measurements[(measurements.op != "") & (measurements.what_is_timed != NOT_SCORED)]
    rows = rows[rows.hw.isin(names())].reset_index(drop=True)
    fit, training = family_of(rows, families()), in_training(rows)
    rows = rows.assign(hw=rows.hw.astype(str), fit=fit.where(fit != "", rows.op.astype(str)).astype(str))
    known = fitted_devices()
    fitted = {(device, name) for device, hardware in known.items() for name in hardware.fitted}
    set_nothing = np.array([pair not in fitted for pair in zip(rows.hw, rows.fit, strict=True)], bool)
    rows = rows[~training | set_nothing]
    parts: list[pd.DataFrame] = []
    for name, of_fit in rows.groupby("fit", sort=True):
        picked = pick(of_fit)
        for device, held in picked.groupby("hw", sort=True):
            parts += _predictions(str(device), str(name), held, known, workers, progress)
    return pd.concat(parts, ignore_index=True)


def _predictions(
    device: str,
    name: str,
    held: pd.DataFrame,
    known: dict[str, Hardware],
    workers: int | None,
    progress: Callable[[str, int, int], None],
) -> Iterator[pd.DataFrame]:
    """`Predicted` of rows of one device and family of fits."""
    import pandas as pd

    hardware, family = load(device), families_of_rows(held)
    numbers = held["shape"].tolist() if "shape" in held else [0] * len(held)
    rows = held.drop(columns=["fit", "shape"], errors="ignore")
    half = half_of(rows)
    for stands, other in _predicted_by(hardware, name, known):
        us = predicted_us(rows, other, workers, functools.partial(progress, f"{device} {name}"))
        columns = {
            "fit": name,
            "family": family,
            "standing": stands or [_own_standing(hardware, name, each, known) for each in family],
            "device": device,
            "unit": unit(hardware),
            "own": stands == "",
            "half": half,
            "shape": numbers,
            "measured_us": held.time_us.to_numpy(float),
            "predicted_us": us,
            "log_ratio": np.log(held.time_us.to_numpy(float) / us),
        }
        part = pd.DataFrame(columns)
        yield part[np.isfinite(part.log_ratio)]


def fitted_devices() -> dict[str, Hardware]:
    """The shipped devices whose files record a fit to measurements of them."""
    return {name: device for name in names() if (device := load(name)).fitted}


def _own_standing(hardware: Hardware, fit: str, family: str, known: dict[str, Hardware]) -> str:
    """Of rows of the device with its own file. One library's attention may be fitted and another's not; where no device's file records
    the fit at all, as of what needs none, the family decides."""
    fitted = [other for other in known.values() if fit in other.fitted]
    if fit in hardware.fitted or (not fitted and is_fitted(hardware, family)):
        return CALIBRATED
    fitted = fitted or [other for other in known.values() if is_fitted(other, family)]
    return CARRIED if any(unit(other) == unit(hardware) for other in fitted) else NEVER_MEASURED


def _predicted_by(hardware: Hardware, fit: str, known: dict[str, Hardware]) -> Iterator[tuple[str, Hardware]]:
    """The device itself ('' for the standing it has), and the device as others' parameters have it: those of the devices of its
    architecture and matrix unit that were fitted, and of its base."""
    yield "", hardware
    if fit not in hardware.fitted:
        return
    base = parse(DIRECTORY / f"{hardware.name}.yaml").get("base")
    for name, other in known.items():
        if fit not in other.fitted or name == hardware.name:
            continue
        if unit(other) == unit(hardware):
            yield CARRIED, with_parameters_of(hardware, other)
        elif name == base:
            yield NEVER_MEASURED, with_parameters_of(hardware, other)


def with_parameters_of(hardware: Hardware, other: Hardware) -> Hardware:
    """The device by its datasheet alone, every calibrated parameter another's: as a file with `base: other` and this datasheet.
    Static power is the other's share of the power limit."""
    carried: dict[str, Any] = {name: getattr(other, name) for name in DEVICE_CALIBRATION}
    carried["static_power_w"] *= hardware.power_limit_w / other.power_limit_w
    return replace(hardware, parameters=dict(other.parameters), fitted=(), **carried)


def table(found: pd.DataFrame) -> pd.DataFrame:
    """The table that ships, of `log_ratios`: COLUMNS, a row a family, standing and size, and one of each device that has enough of its own.

    Those of all devices are for one that is not among them: their distances from the median are stretched by what holds a device that is left
    out (`left_out`). Where too few of a size were measured, all sizes of the family stand in; where those are too few, of calibrated ones all
    families, of others the calibrated ones of the family, stretched by what the standing costs the families measured in both.
    """
    import pandas as pd

    calibrated = found[found.standing == CALIBRATED]
    rows = {
        (family, stands, size): _measured(found, family, stands, size)
        for family in FAMILIES
        for stands in STANDINGS
        for size in SIZES
    }
    costs = {stands: _widening(found, rows, stands) for stands in (CARRIED, NEVER_MEASURED)}
    times = {stands: left_out(found, stands) for stands in STANDINGS}
    for family in FAMILIES:
        for stands in STANDINGS:
            mine = found[(found.family == family) & (found.standing == stands)]
            missing = [size for size in SIZES if rows[family, stands, size] is None]
            for size in missing:
                if len(mine) >= FEWEST_ROWS:
                    rows[family, stands, size] = _row(mine, ALL_SIZES, 0)
                elif stands == CALIBRATED:
                    rows[family, stands, size] = _row(calibrated, ALL_FAMILIES, 0)
    lines: list[dict[str, Any]] = []
    for (family, stands, size), row in rows.items():
        if row is None:
            row = _instead(rows[family, CALIBRATED, size], costs[stands])
        units = (
            sorted({unit(device) for device in fitted_devices().values() if is_fitted(device, family)})
            if stands == CALIBRATED
            else []
        )
        head = {"family": family, "standing": stands, "size": size}
        lines.append({**head, "device": "", "units": " ".join(units), **_stretched(row, times[stands])})
        mine = found[
            found.own & (found.family == family) & (found.standing == stands) & (found["size"] == size)
        ]
        lines += [
            {**head, "device": device, "units": "", **_row(part, MEASURED, len(part))}
            for device, part in mine.groupby("device")
            if len(part) >= FEWEST_OF_A_DEVICE
        ]
    return pd.DataFrame(lines, columns=list(COLUMNS))


def left_out(found: pd.DataFrame, stands: str) -> float:
    """How far the residuals of all other devices have to be stretched to hold those of a device that is left out in 9 of 10: on average over
    the families and devices there are, at least 1. Sizes apart, as in the table."""
    mine = found[found.standing == stands]
    ends: dict[tuple[str, str], list[np.ndarray]] = {}
    for (family, _), part in mine.groupby(["family", "size"]):
        for device, held in part.groupby("device"):
            others = part.log_ratio[part.device != device].to_numpy()
            if len(others) >= FEWEST_ROWS:
                low, middle, high = conformal_quantiles(others)[[_LOW, _MIDDLE, _HIGH]]
                ratios = held.log_ratio.to_numpy()
                # What each residual asks for: below the median of the lower end, above of the upper; nothing on the prediction's side.
                asks = np.where(
                    ratios < middle, (middle - ratios) / (middle - low), (ratios - middle) / (high - middle)
                )
                inside = (np.minimum(low, 0.0) <= ratios) & (ratios <= np.maximum(high, 0.0))
                ends.setdefault((str(family), str(device)), []).append(
                    np.where(inside, np.minimum(asks, 1.0), asks)
                )
    if not ends:
        return 1.0
    asked = [np.concatenate(parts) for parts in ends.values()]
    for times in np.arange(1.0, _MOST_TIMES, _STEP_OF_TIMES):
        if np.mean([(each <= times).mean() for each in asked]) >= COVER:
            return round(float(times), 2)
    return _MOST_TIMES


def cross_cover(found: pd.DataFrame) -> pd.DataFrame:
    """How well intervals hold what they were not made of: the shapes of each half, by hash, within the quantiles of the other's. A row a
    family and standing: rows, half and nine_of_ten (shares of them within), half_width (of the interval for 9 of 10, as a share of
    the prediction, the median of them)."""
    import pandas as pd

    scored = []
    for fold in (0, 1):
        rows: list[dict[str, Any]] = table(found[found.half != fold]).to_dict("records")  # type: ignore[assignment]
        made = residuals(rows, "residuals")
        for row in found[found.half == fold].to_dict("records"):
            quantiles = made.of_standing(row["family"], row["standing"], row["size"], row["device"])
            low, first, third, high = (
                min(0.0, quantiles[at]) if lower else max(0.0, quantiles[at]) for at, lower in _ENDS
            )
            ratio = row["log_ratio"]
            scored.append(
                {
                    "family": row["family"],
                    "standing": row["standing"],
                    "half": first <= ratio <= third,
                    "nine_of_ten": low <= ratio <= high,
                    "half_width": float(np.exp(high) - np.exp(low)) / 2,
                }
            )
    scores = pd.DataFrame(scored).groupby(["family", "standing"], sort=False)
    shares = scores[["half", "nine_of_ten"]].mean()
    return shares.join(scores.half_width.median()).join(scores.size().rename("rows")).reset_index()


def _measured(found: pd.DataFrame, family: str, stands: str, size: str) -> dict[str, Any] | None:
    mine = found[(found.family == family) & (found.standing == stands)]
    of_size = mine[mine["size"] == size]
    return _row(of_size, MEASURED, len(of_size)) if len(of_size) >= FEWEST_ROWS else None


def _row(part: pd.DataFrame, basis: str, rows: int) -> dict[str, Any]:
    quantiles = conformal_quantiles(part.log_ratio.to_numpy())
    return {
        "rows": rows,
        "devices": " ".join(sorted(part.device.unique())),
        "basis": basis,
        "least_us": f"{part.predicted_us.min():.4g}",
        "most_us": f"{part.predicted_us.max():.4g}",
        **dict(zip(NAMES, digits(quantiles), strict=True)),
    }


def digits(quantiles: np.ndarray) -> list[float]:
    """As a table has them."""
    return [round(float(quantile), _DIGITS) for quantile in quantiles]


def _widening(found: pd.DataFrame, rows: dict[Any, dict[str, Any] | None], stands: str) -> float:
    """How much wider the middle 90 % of residuals are with a standing than the calibrated ones of the same family, size and devices: the
    median of those measured in both, at least 1."""
    ratios = []
    for (family, standing, size), row in rows.items():
        if standing != stands or row is None:
            continue
        mine = found[(found.family == family) & (found["size"] == size)]
        mine = mine[mine.device.isin(row["devices"].split())]
        with_it, calibrated = mine[mine.standing == stands], mine[mine.standing == CALIBRATED]
        if len(calibrated) >= FEWEST_ROWS:
            ratios.append(_width(with_it) / _width(calibrated))
    return max(1.0, round(float(np.median(ratios)), 2)) if ratios else 1.0


def _width(part: pd.DataFrame) -> float:
    quantiles = conformal_quantiles(part.log_ratio.to_numpy())
    return float(quantiles[_HIGH] - quantiles[_LOW])


def _instead(row: dict[str, Any] | None, times: float) -> dict[str, Any]:
    """Calibrated residuals in place of others."""
    assert row is not None
    kept = {**row, "rows": 0, "devices": "", "basis": CALIBRATED, "least_us": "", "most_us": ""}
    return _stretched(kept, times)


def _stretched(row: dict[str, Any], times: float) -> dict[str, Any]:
    """A row with `times` the distances from its median."""
    if times == 1.0:
        return row
    middle = row[NAMES[_MIDDLE]]
    stretched = {name: round(middle + times * (row[name] - middle), _DIGITS) for name in NAMES}
    return {**row, "basis": f"{row['basis']}, times {times:g}", **stretched}
