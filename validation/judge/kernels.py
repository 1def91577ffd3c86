"""Every measured kernel beside its prediction, with what is needed to judge it: the split, the roofline baseline, the
measurement's own noise, and what the model says the kernel waits for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from simtti.errors import InputError
from simtti.hw_configs.devices import load, names, read
from simtti.hw_configs.hardware import Hardware
from simtti.hw_configs.schema import DATASHEET
from simtti.simulator.lowering.registry import kernels_of
from simtti.simulator.uncertainty.families import families_of_rows
from simtti.simulator.uncertainty.residuals import Interval, shipped
from simtti.validation.fit.families import families, family_of, in_training, shapes, spread
from simtti.validation.judge.causes import LATENCY, PARTIAL_WAVE, Causes, causes
from simtti.validation.judge.error_figures import Figures, figures
from simtti.validation.judge.prediction import NOT_SCORED, Row, by_rows, of_release, prediction_s
from simtti.validation.judge.roofline import roofline_s
from simtti.validation.measurements.table import shape_of

if TYPE_CHECKING:
    import pandas as pd

UNSEEN = "unseen"
INTERVAL_US = tuple(f"{name}_us" for name in Interval._fields)
# By the measured time: launches and latencies decide, then partial waves, then bandwidths and pipes.
SIZES = ("under 10 us", "10-100 us", "over 100 us")
_SIZE_LIMITS_US = (10.0, 100.0)
# An extreme shape: outside this share of its family's rows at either end.
RARE = 0.02
# A loss worth a word in an explanation.
NOTABLE_LOSS = 0.15
NOTABLE_PADDING = 1.25
NOTABLE_SLOWING = 1.03
MOST_ODD_SIZES = 3
# Sizes that the tensor cores' loads want in multiples of 16 bytes.
_ALIGNED = {"gemm": ("n", "k"), "attention": ("head_dim",), "conv2d": ("c", "oc"), "conv3d": ("c", "oc")}


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `simtti validate kernels` found.

    table: the measured rows (columns of `measurements.table` that are filled) with
        family (the row's group, else its fit's family, else its op), fit (the family of a fit that it belongs to, '' if none),
        split (train, test, unseen), size (see `size_class`), scored
        predicted_us, error (why there is no prediction), ratio (predicted / measured)
        p05_us, p25_us, p75_us, p95_us (as `simtti predict` has them)
        roofline_us, other_us (what other sources measured of the same call on this device; NaN where none did)
        bottleneck (the largest cause) and the rest of `causes.Causes`
    measured_as: the device the measurements name.
    fitted: families whose fit the device file records.
    """

    hardware: Hardware
    measured_as: str
    fitted: tuple[str, ...]
    table: pd.DataFrame

    @property
    def scored(self) -> pd.DataFrame:
        return self.table[self.table.scored]

    @property
    def shown_apart(self) -> pd.DataFrame:
        """Wall times: the host's share of them is not predicted."""
        return self.table[~self.table.scored]


def evaluate(
    hw: str | Hardware,
    measurements: pd.DataFrame,
    *,
    most_rows: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Predict every measured kernel of a device.

    Args:
        hw: a device's name or file. Its `fits` say which families were fitted; a Hardware has none.
        measurements: see validation.measurements.table.
        most_rows: of a family, spread evenly over the measured times; all if 0.

    Raises:
        InputError: no measurement of this device.
    """
    import pandas as pd

    hardware = hw if isinstance(hw, Hardware) else load(hw)
    fitted = tuple(read(hw).get("fits", {})) if isinstance(hw, str) else ()
    single = measurements[measurements.op != ""] if "op" in measurements else measurements.iloc[:0]
    measured_as = _measured_as(hardware, sorted(set(single.hw.astype(str))))
    mine = single[single.hw == measured_as].reset_index(drop=True)
    fit = family_of(mine, families())
    family = mine["group"].where(mine["group"] != "", fit) if "group" in mine else fit
    mine = mine.assign(family=family.where(family != "", mine.op))
    mine["fit"], mine["other_us"] = fit, other_measurements(mine)
    if most_rows:
        parts = [spread(part, most_rows) for _, part in mine.groupby("family", sort=False)]
        mine = pd.concat(parts).sort_index().reset_index(drop=True)
    training = in_training(mine.drop(columns=["family", "fit", "other_us"]))
    mine["split"] = np.where(mine.fit.isin(fitted), np.where(training, "train", "test"), UNSEEN)
    mine["size"] = [size_class(time) for time in mine.time_us]
    mine["scored"] = mine.what_is_timed != NOT_SCORED
    inputs = mine.drop(columns=["family", "fit", "other_us", "split", "size", "scored"])
    judged: list[Any] = by_rows(_judge, inputs, hardware, workers, progress)
    table = pd.concat([mine, pd.DataFrame(judged, index=mine.index)], axis=1)
    table["ratio"] = table.predicted_us / table.time_us
    table[list(INTERVAL_US)] = _intervals(table, hardware)
    return Evaluation(hardware, measured_as, fitted, _without_empty(table))


def _intervals(table: pd.DataFrame, hardware: Hardware) -> np.ndarray:
    """INTERVAL_US of each row, NaN where it has no prediction."""
    known = shipped()
    found = [
        known.factors(hardware, family, us).times(us) if us > 0 else (math.nan,) * 4
        for family, us in zip(families_of_rows(table), table.predicted_us, strict=True)
    ]
    return np.array(found, float).reshape(len(table), 4)


def _without_empty(table: pd.DataFrame) -> pd.DataFrame:
    """Without the columns of `measurements.table` that no row fills."""
    kept = ["error", "other_us", "predicted_us", "ratio", *INTERVAL_US]
    return table[
        [name for name in table if name in kept or (table[name].notna() & (table[name] != "")).any()]
    ]


def size_class(time_us: float) -> str:
    """Which of SIZES a measured time is."""
    return SIZES[sum(time_us >= limit for limit in _SIZE_LIMITS_US)]


def size_order(size: str) -> int:
    """A size class's place in SIZES."""
    return SIZES.index(size)


def other_measurements(table: pd.DataFrame) -> np.ndarray:
    """Of each row, what other sources measured of the same call on the same device: their geometric mean in us, or NaN."""
    by_call: dict[Any, dict[str, list[float]]] = {}
    calls = [
        (shape, hw, timed)
        for shape, hw, timed in zip(
            shapes(table.drop(columns=["family"], errors="ignore")),
            table.hw,
            table.what_is_timed,
            strict=True,
        )
    ]
    for call, source, time in zip(calls, table.source, table.time_us, strict=True):
        by_call.setdefault(call, {}).setdefault(str(source), []).append(math.log(time))
    found = []
    for call, source in zip(calls, table.source, strict=True):
        others = [np.mean(logs) for name, logs in by_call[call].items() if name != source]
        found.append(math.exp(float(np.mean(others))) if others else math.nan)
    return np.array(found, float)


def noise(table: pd.DataFrame) -> Figures:
    """How far two sources' measurements of the same call differ: figures of the one as a prediction of the other."""
    both = table[table.other_us.notna()]
    return figures(both.other_us, both.time_us)


def explain(row: Row, table: pd.DataFrame) -> str:
    """In a few words, what the model says bounds a row and what is unusual about it among `table`, its family's rows."""
    if row["error"]:
        return f"no prediction: {row['error']}"
    parts = [f"{row['bottleneck']} {100 * row['bottleneck_share']:.0f} %"]
    if row["partial_wave_share"] > NOTABLE_LOSS or row["bottleneck"] == PARTIAL_WAVE:
        which = "its only wave" if row["waves"] == 1 else f"last of {row['waves']:.0f} waves"
        parts.append(
            f"{which} {100 * row['last_wave_fill']:.0f} % full, costs {100 * row['partial_wave_share']:.0f} %"
        )
    if row["tile_padding"] > NOTABLE_PADDING:
        parts.append(f"tiles do {row['tile_padding']:,.1f} times the useful FLOPs")
    if row["predicted_us"] > NOTABLE_SLOWING * row["boost_us"]:
        parts.append(f"the power limit costs {100 * (1 - row['boost_us'] / row['predicted_us']):.0f} %")
    floor_us = row["launch_share"] * row["boost_us"]
    if row["time_us"] < floor_us:
        parts.append(f"measured below the launch floor of {floor_us:.3g} us")
    elif row["launch_share"] > NOTABLE_LOSS and row["bottleneck"] != LATENCY:
        parts.append(f"launch {100 * row['launch_share']:.0f} %")
    if row["time_us"] < 0.95 * row["roofline_us"]:
        parts.append(f"measured faster than the roofline ({row['roofline_us']:.3g} us)")
    parts += _odd_sizes(row, table)
    if row["other_us"] == row["other_us"]:
        parts.append(f"another source measured {row['other_us']:.3g} us")
    return "; ".join(parts)


def _odd_sizes(row: Row, table: pd.DataFrame) -> list[str]:
    """Shape columns whose value keeps the tensor cores' loads from being aligned, or is rare in the family."""
    found = [
        f"{name} {row[name]:.0f} is no multiple of 8" for name in _ALIGNED.get(row["op"], ()) if row[name] % 8
    ]
    for name in dimensions(table):
        for side, beyond in (("largest", table[name] >= row[name]), ("smallest", table[name] <= row[name])):
            if 0 < beyond.mean() < RARE:
                found.append(f"{name} {row[name]:.0f} is among the {side}")
    return found[:MOST_ODD_SIZES]


def dimensions(table: pd.DataFrame) -> list[str]:
    """The numeric shape columns that vary in a table of rows, in the order of `predict`'s help."""
    known = dict.fromkeys(name for op in table.op.unique() for name in shape_of(op).names)
    numbers = table.select_dtypes("number")
    return [name for name in known if name in numbers and numbers[name].nunique() > 1]


_COMMON = {"batch": 1, "groups": 1, "stride": 1, "padding": 0}


def shape_text(row: Row) -> str:
    """A row's shape in a line: 'm 128, n 4096, k 320'."""
    words = []
    for name in shape_of(row["op"]).names:
        value = row.get(name)
        if value is None or value != value or value == "" or value is False:
            continue
        if value is True:
            words.append(name)
        elif isinstance(value, str):
            words.append(value)
        elif value != _COMMON.get(name):
            words.append(f"{name} {value:.0f}")
    return ", ".join(words)


def _measured_as(hardware: Hardware, measured: list[str]) -> str:
    """The device that the measurements call what `hardware` describes: its own name, or that of a shipped device with the
    same datasheet, as of a calibrated copy.

    Raises:
        InputError: there is none.
    """
    if hardware.name in measured:
        return hardware.name
    for name in measured:
        if name in names() and all(
            getattr(load(name), field) == getattr(hardware, field) for field in DATASHEET
        ):
            return name
    raise InputError(
        f"no measurement of a kernel on {hardware.name}; the table has: {', '.join(measured[:8]) or 'none'}"
    )


def _judge(rows: list[Row], hardware: Hardware) -> list[Row]:
    return [_judge_row(row, hardware) for row in rows]


def _judge_row(row: Row, hardware: Hardware) -> Row:
    nothing: Row = dict.fromkeys(Causes._fields, math.nan) | {"bottleneck": ""}
    found: Row = {"predicted_us": math.nan, "roofline_us": math.nan, **nothing, "error": ""}
    try:
        hardware = of_release(row, hardware)
        kernels = kernels_of(row, hardware)
        found["predicted_us"] = prediction_s(row, kernels, hardware) * 1e6
        found["roofline_us"] = roofline_s(row, hardware) * 1e6
        if kernels:  # a move that changes no order is a view
            found |= causes(kernels, hardware, warm=row["what_is_timed"] == "kernels")._asdict()
    except InputError as error:
        found["error"] = str(error)
    return found
