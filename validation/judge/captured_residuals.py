"""The residuals of kernels whose times a capture gives (simulator/uncertainty/captured.py has the table's columns): how far launches
that are alike lie apart, from the captures that ship; and how far ratios of two devices' times are off, from operators measured on both.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from simtti.hw_configs.devices import load
from simtti.jobs import Pool
from simtti.simulator.lowering.lower import Lowering
from simtti.simulator.policy import captured_with
from simtti.simulator.uncertainty.captured import ALIKE, COLUMNS, OTHER, RELATIONS, SAME
from simtti.simulator.uncertainty.families import FAMILIES, SIZES, STANDINGS, family_of_operator, size_class
from simtti.simulator.uncertainty.residuals import INTERVAL_LEVELS, LEVELS, NAMES, conformal_quantiles
from simtti.validation.fit.families import shapes, spread
from simtti.validation.judge.residuals import (
    ALL_SIZES,
    FEWEST_ROWS,
    MEASURED,
    Predicted,
    digits,
    predicted_rows,
)
from simtti.workloads.measured import Capture, captures
from simtti.workloads.trace import Trace

if TYPE_CHECKING:
    import pandas as pd

# Launches of a kind that its median is of at least.
FEWEST_ALIKE = 4
# Of fewer a size's 5th and 95th percentiles are its extremes, in pairs often one row of one device.
FEWEST_OF_A_SIZE = 40
ALL_FAMILIES = "all families"
_LOW, _HIGH = LEVELS.index(0.05), LEVELS.index(0.95)


def launch_noise(most_rows: int = 400, workers: int | None = None) -> pd.DataFrame:
    """A row a launch of the captures that ship: family, relation (SAME), standing (''), size, pair (the device), half (0 or 1, by hash of what is
    alike), log_ratio (the median of the operators that are alike over this one).

    Alike are operators of one capture with equal shapes, types and kernels. most_rows: of a capture and family, spread over the times.
    """
    import pandas as pd

    with Pool(workers) as pool:
        jobs = {at: (each, most_rows) for at, each in enumerate(captures())}
        done = dict(pool.as_done(_noise_of, jobs))
    return pd.concat([done[at] for at in sorted(done)], ignore_index=True)


def _noise_of(capture: Capture, most_rows: int) -> pd.DataFrame:
    import pandas as pd

    trace = Trace.load(capture.path)
    lowering, operators = Lowering(load(capture.device), captured_with(trace)), list(trace.operators())
    launched = defaultdict(list)
    for kernel in trace.timing.kernels if trace.timing else ():
        if kernel.operator is not None and kernel.duration_us > 0:
            launched[kernel.operator].append(kernel)
    alike: dict[Any, list[tuple[int, float]]] = defaultdict(list)
    for row, kernels in launched.items():
        operator = operators[row]
        uses = tuple((use.shape, use.strides, use.dtype) for use in (*operator.inputs, *operator.outputs))
        kind = operator.op, uses, tuple((kernel.name, kernel.grid) for kernel in kernels)
        alike[kind].append((row, sum(kernel.duration_us for kernel in kernels)))
    rows = []
    for kind, took in alike.items():
        if len(took) < FEWEST_ALIKE:
            continue
        operator = operators[took[0][0]]
        family = family_of_operator(operator, lowering.lower(operator))
        half = hashlib.sha256(repr(kind).encode()).digest()[0] % 2
        middle = float(np.median([us for _, us in took]))
        rows += [(family, us, half, np.log(middle / us)) for _, us in took]
    found = pd.DataFrame(rows, columns=["family", "us", "half", "log_ratio"])
    parts = [spread(part, most_rows, "us") for _, part in found.groupby("family", sort=True)]
    found = pd.concat(parts, ignore_index=True)
    size = [size_class(us) for us in found.us]
    return found.assign(relation=SAME, standing="", size=size, pair=capture.device).drop(columns="us")


def ratio_residuals(
    measurements: pd.DataFrame,
    *,
    most_rows: int = 400,
    workers: int | None = None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> pd.DataFrame:
    """A row a shape and an ordered pair of devices that it was measured on, and a standing of the second: family, relation, standing, size
    (of the first's measured time, scaled), pair (first>second), half (0 or 1, by hash of the shape), log_ratio (see `captured`).

    measurements: see measurements.table; shapes that set a parameter of either device are left out. most_rows: shapes of a family of
    fits, spread over the times.
    """
    import pandas as pd

    pick = functools.partial(_measured_on_several, most_rows=most_rows)
    one = predicted_rows(measurements, pick, workers, progress)
    return pd.DataFrame(
        [row for _, part in one.groupby("fit", sort=True) for row in _pairs(part)],
        columns=["family", "relation", "standing", "size", "pair", "half", "log_ratio"],
    )


def _measured_on_several(rows: pd.DataFrame, most_rows: int) -> pd.DataFrame:
    """Of a family's rows those whose shape was measured on several devices, one of each, with `shape`, the number of it."""
    keys = [repr(key) for key in shapes(rows.drop(columns=["fit"]))]
    rows = rows.assign(shape=keys).drop_duplicates(["shape", "hw", "what_is_timed"])
    rows = rows.assign(shape=rows["shape"] + rows.what_is_timed.astype(str))
    rows = rows[rows.groupby("shape").hw.transform("nunique") > 1]
    middles = np.exp(np.log(rows.time_us).groupby(rows["shape"]).mean()).reset_index()
    chosen = spread(middles, most_rows)["shape"]
    numbers = {shape: number for number, shape in enumerate(chosen)}
    rows = rows[rows["shape"].isin(numbers)]
    return rows.assign(shape=rows["shape"].map(numbers))


def _pairs(part: pd.DataFrame) -> list[tuple[Any, ...]]:
    """The pairs among a family's `Predicted` rows."""
    found = []
    by_shape: dict[int, list[Predicted]] = defaultdict(list)
    for record in part.to_dict("records"):
        row = Predicted(**{str(name): value for name, value in record.items()})
        by_shape[row.shape].append(row)
    for rows in by_shape.values():
        there = [row for row in rows if row.own]
        for first, second in itertools.product(there, rows):
            if first.device == second.device:
                continue
            related = ALIKE if first.unit == second.unit else OTHER
            scaled_us = first.measured_us * second.predicted_us / first.predicted_us
            pair = f"{first.device}>{second.device}"
            ratio = second.log_ratio - first.log_ratio
            found.append(
                (second.family, related, second.standing, size_class(scaled_us), pair, second.half, ratio)
            )
    return found


def table(found: pd.DataFrame, of_model: pd.DataFrame) -> pd.DataFrame:
    """The table that ships: COLUMNS, a row a family, relation, standing and size.

    found: `launch_noise` and `ratio_residuals`, one table. of_model: the model's own residuals (residuals.table). Where too few
    were measured all sizes of the family stand in; where those are too few, of noise all families, and of ratios the model's residuals of the same
    family, standing and size, their distances from the median times what that comes to in the families measured in both.
    """
    import pandas as pd

    own = _by_cell(of_model)
    cells = {key: part for key, part in found.groupby(["family", "relation", "standing", "size"])}
    of_all = {key: part for key, part in found.groupby(["family", "relation", "standing"])}
    lines = []
    for related in RELATIONS:
        for stands in ("",) if related == SAME else STANDINGS:
            pooled = found[(found.relation == related) & (found.standing == stands)]
            times = 1.0 if related == SAME else _times(cells, own, related, stands)
            for family, size in itertools.product(FAMILIES, SIZES):
                mine, all_mine = (
                    cells.get((family, related, stands, size)),
                    of_all.get((family, related, stands)),
                )
                if mine is not None and len(mine) >= FEWEST_OF_A_SIZE:
                    row = _row(mine, MEASURED, len(mine))
                elif related == SAME:
                    of_size = pooled[pooled["size"] == size]
                    row = _row(of_size, ALL_FAMILIES, 0)
                elif all_mine is not None and len(all_mine) >= FEWEST_ROWS:
                    row = _row(all_mine, ALL_SIZES, 0)
                else:
                    row = _of_model(own[family, stands, size], times)
                lines.append({"family": family, "relation": related, "standing": stands, "size": size, **row})
    return pd.DataFrame(lines, columns=list(COLUMNS))


def cross_cover(found: pd.DataFrame, of_model: pd.DataFrame) -> pd.DataFrame:
    """How well the table of one half of the shapes holds the other's. A row a family, relation and standing: rows, half and nine_of_ten (shares
    of them within), half_width (the median, of the interval for 9 of 10, as a share of the time)."""
    import pandas as pd

    keys = ["family", "relation", "standing", "size"]
    ends = [NAMES[LEVELS.index(level)] for level in INTERVAL_LEVELS]
    scored = []
    for half in (0, 1):
        made = table(found[found.half != half], of_model).set_index(keys)[ends].astype(float)
        held = found[found.half == half].join(made, on=keys)
        low, first, third, high = (held[name] for name in ends)
        scored.append(
            held[keys[:3]].assign(
                half=(first.clip(upper=0) <= held.log_ratio) & (held.log_ratio <= third.clip(lower=0)),
                nine_of_ten=(low.clip(upper=0) <= held.log_ratio) & (held.log_ratio <= high.clip(lower=0)),
                half_width=(np.exp(high.clip(lower=0)) - np.exp(low.clip(upper=0))) / 2,
            )
        )
    scores = pd.concat(scored).groupby(keys[:3], sort=False)
    shares = scores[["half", "nine_of_ten"]].mean()
    return shares.join(scores.half_width.median()).join(scores.size().rename("rows")).reset_index()


def _by_cell(of_model: pd.DataFrame) -> dict[tuple[str, str, str], np.ndarray]:
    """The model's residuals at LEVELS, of all devices, by family, standing and size."""
    return {
        (row["family"], row["standing"], row["size"]): np.array([float(row[name]) for name in NAMES])
        for row in of_model[of_model.device == ""].to_dict("records")
    }


def _times(
    cells: dict[Any, pd.DataFrame], own: dict[tuple[str, str, str], np.ndarray], related: str, stands: str
) -> float:
    """How wide the middle 90 % of ratios' residuals are over the model's own of the same family, standing and size: the median of those measured
    in both; of all standings where there are none of this one."""
    found: dict[bool, list[float]] = {True: [], False: []}
    for (family, kin, standing, size), part in cells.items():
        if kin == related and len(part) >= FEWEST_ROWS:
            quantiles = own[family, standing, size]
            found[standing == stands].append(_width(part) / float(quantiles[_HIGH] - quantiles[_LOW]))
    ratios = found[True] or found[False] or [1.0]
    return round(float(np.median(ratios)), 2)


def _width(part: pd.DataFrame) -> float:
    quantiles = conformal_quantiles(part.log_ratio.to_numpy())
    return float(quantiles[_HIGH] - quantiles[_LOW])


def _row(part: pd.DataFrame, basis: str, rows: int) -> dict[str, Any]:
    quantiles = conformal_quantiles(part.log_ratio.to_numpy())
    devices = " ".join(sorted(part.pair.unique()))
    return {
        "rows": rows,
        "devices": devices,
        "basis": basis,
        **dict(zip(NAMES, digits(quantiles), strict=True)),
    }


def _of_model(quantiles: np.ndarray, times: float) -> dict[str, Any]:
    """The model's own residuals, around 0: what it has wrong of one device need not be wrong of two."""
    stretched = digits(times * (quantiles - quantiles[LEVELS.index(0.5)]))
    basis = f"the model's, times {times:g}"
    return {"rows": 0, "devices": "", "basis": basis, **dict(zip(NAMES, stretched, strict=True))}
