"""What a whole inference may take: many draws of every operator's residual, of the host's speed and of the energies, walked through
host and stream.

A residual is drawn for each operator that differs, from the quantiles of its family, its size and the device's standing. One normal
number decides it: the sum of one that all families of a run share, of one of the family, of one that the operator has on all devices alike,
and of one of its own, with the shares of the variance in draws.yaml. Each residual alone is then distributed as it was measured; how much of it an inference keeps in
its sum depends on the shares.

Draws go by what they are of, so that two runs of one inference share what they have in common: devices of one architecture and matrix
unit the errors of a family, of the run and of the energy and a part of each operator's, all runs on one host those of the host. What the two have in common cancels
in their ratio (`compare`, `explore`); a device's own part of each operator does not.

Kernels whose times a capture gives (`run`'s timing 'measured' and 'hybrid') draw from `captured` instead: each launch its own noise, and
where times were scaled to another device the residual of the ratio.

How the draws of operators and host make those of a run: `walk`.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simtti.files import read_yaml
from simtti.hw_configs.hardware import Hardware
from simtti.simulator.uncertainty import captured
from simtti.simulator.uncertainty.captured import ScaledResiduals
from simtti.simulator.uncertainty.families import STANDINGS, family_of_operator, size_class, standing, unit
from simtti.simulator.uncertainty.residuals import INTERVAL_LEVELS, NORMAL, Interval, Residuals, shipped
from simtti.simulator.uncertainty.walk import Factors, walk

if TYPE_CHECKING:
    from simtti.simulator.result import Result  # circle: a type only

SHARES = Path(__file__).parent / "draws.yaml"
DRAWS = 200
# Share of the draws in which one of two has to be the better for their order to be sure.
SURE = 0.95
_FREEDOM = 3  # of Student's t; see `heavy`
_BLOCK = 64  # rows drawn at a time


@dataclass(frozen=True)
class Shares:
    """draws.yaml: the shares of a residual's variance that all of a run and that a family have in common; alike, last, the share that an operator
    has in common with itself on another device of the architecture and matrix unit; the standard deviation of the
    host's costs, in logs; the scale of what software and machine add to a whole run, in logs, by standing; the standard deviation of its
    energy, in logs, by standing, and the units (see `families.unit`) on which energies were fitted; what an engine whose operators nobody
    traced adds to whole_scale, and each doubling of the GPUs, in logs; what stands in for whole_scale on the device that the kernels' times
    were captured on."""

    run: float
    family: float
    host_sd: float
    whole_scale: Mapping[str, float]
    energy_sd: Mapping[str, float]
    energy_units: tuple[str, ...] = ()
    engine_scale: float = 0.0
    gpus_scale: float = 0.0
    captured_scale: float = 0.0
    alike: float = 0.0


class Draws(NamedTuple):
    """What a run takes on all its GPUs, by draw, in seconds and joules; and each of its phases, in seconds."""

    latency_s: np.ndarray
    energy_j: np.ndarray
    phases_s: Mapping[str, np.ndarray]


class RunIntervals(NamedTuple):
    """Intervals of a run's latency in seconds and energy in joules."""

    latency_s: Interval
    energy_j: Interval

    def to_dict(self) -> dict[str, dict[str, float]]:
        """As `simtti run --json` has it."""
        return {
            "interval": self.latency_s.in_seconds(),
            "energy_interval": {f"{name}_j": value for name, value in self.energy_j._asdict().items()},
        }

    def columns(self) -> dict[str, float]:
        """As columns of `simtti sweep`."""
        return {
            **{f"latency_{name}_s": value for name, value in self.latency_s._asdict().items()},
            **{f"energy_{name}_j": value for name, value in self.energy_j._asdict().items()},
        }


# The columns of RunIntervals.columns.
COLUMNS = tuple(
    f"{figure}_{name}_{unit}"
    for figure, unit in (("latency", "s"), ("energy", "j"))
    for name in Interval._fields
)
# Of a sweep and of costs, those of the stages.
STAGE_COLUMNS = tuple(
    f"{stage}_{name}_s"
    for stage in ("text_encoder", "denoising", "step", "decoder")
    for name in Interval._fields
)


@functools.cache
def shares() -> Shares:
    """What ships."""
    content = read_yaml(SHARES)
    values = {name: content[name]["value"] for name in Shares.__dataclass_fields__}
    return Shares(**values | {"energy_units": tuple(values["energy_units"])})


def run_draws(result: Result) -> Draws:
    """The draws of a run, by the tables that ship. The same run has the same; of two runs of one inference those in the same place
    go together."""
    return draws(result, shipped(), shares())


def run_intervals(result: Result) -> RunIntervals:
    """The intervals of a run. The same run has the same."""
    whole = result.several_gpus or result
    return RunIntervals(
        interval_of(result.draws.latency_s, whole.latency_s),
        interval_of(result.draws.energy_j, whole.energy_j),
    )


def phase_intervals(result: Result) -> dict[str, Interval]:
    """Between what the seconds of each phase lie."""
    drawn = result.draws.phases_s
    return {
        each.name: interval_of(drawn[each.name], each.latency_s)
        for each in result.phases
        if each.name in drawn
    }


def stage_intervals(result: Result) -> dict[str, Interval]:
    """Between what the seconds of `Result.stages` and of a step of denoising lie, by the figure's name ('step_s'); of those there are."""
    drawn: dict[str, np.ndarray] = {}
    for name, phases in result.phases_of_stages.items():
        if there := [result.draws.phases_s[phase] for phase in phases if phase in result.draws.phases_s]:
            drawn[name] = np.sum(there, axis=0)
    found = {name: interval_of(values, result.stages[name]) for name, values in drawn.items()}
    if result.step_s and "denoising_s" in found:
        found["step_s"] = found["denoising_s"].times(result.step_s / result.stages["denoising_s"])
    return found


def stage_columns(result: Result) -> dict[str, float]:
    """STAGE_COLUMNS of a run, those there are."""
    return {
        f"{name.removesuffix('_s')}_{part}_s": value
        for name, interval in stage_intervals(result).items()
        for part, value in interval._asdict().items()
    }


def sum_interval(operators: Sequence[tuple[str, float]], hardware: Hardware, *content: object) -> Interval:
    """Of the measured over the predicted sum of operators on `hardware`, whatever the host does.

    operators: the family and the predicted microseconds of each; those of equal family and time are alike. content: seeds the draws.
    """
    times: dict[tuple[str, float], float] = {}
    for family, us in operators:
        kind = (family, float(f"{us:.6g}"))
        times[kind] = times.get(kind, 0.0) + us
    cells = [(family, size_class(us)) for family, us in times]
    found = factors(cells, hardware, shipped(), shares(), Normals(DRAWS, *content))
    weights = np.array(list(times.values()))
    return interval_of(weights @ found / weights.sum(), 1.0)


def interval_of(drawn: np.ndarray, value: float) -> Interval:
    """The interval of a figure that is predicted as `value`, by its draws."""
    # np.quantile's default, without the import of masked arrays that it brings.
    places = np.array(INTERVAL_LEVELS) * (len(drawn) - 1)
    found = np.interp(places, np.arange(len(drawn)), np.sort(drawn))
    return Interval(*found.tolist()).around(value)


def draws(result: Result, table: Residuals, common: Shares, count: int = DRAWS) -> Draws:
    """Seconds and joules of `count` draws of a run, on all its GPUs."""
    normal = Normals(count, result.trace.workload, sorted(result.trace.options.items()))
    hardware = result.hardware
    found = operator_factors(result, table, common, normal)
    host = np.exp(common.host_sd * normal.of("host"))
    on_all = result.several_gpus or result
    gpus = result.several_gpus.gpus if result.several_gpus else 1
    scale = (
        common.captured_scale if is_captured(result) else common.whole_scale[worst_standing(result, table)]
    )
    whole = np.exp(
        scale * heavy(normal.of("whole", unit(hardware)))
        + _engine_scale(result, common) * heavy(normal.of("engine"))
        + common.gpus_scale * np.log2(gpus) * normal.of("gpus", gpus)
    )
    # The prediction itself, walked beside the draws, ties them to what the simulation found with contention.
    with_own = np.hstack([np.ones((len(found.factors), 1)), found.factors])
    ends = walk(result, found._replace(factors=with_own), np.hstack([1.0, host]))
    latency_s = ends.latency_s[1:] * whole * (on_all.latency_s / ends.latency_s[0])
    phases_s = {
        each.name: took_s[1:] * whole * (each.latency_s / took_s[0])
        for each in result.phases
        if (took_s := ends.phases_s.get(each.name)) is not None and took_s[0] > 0
    }
    static_j = hardware.static_power_w * latency_s * gpus
    static_of_value_j = hardware.static_power_w * on_all.latency_s * gpus
    energy_j = static_j + max(on_all.energy_j - static_of_value_j, 0.0)
    stands = standing(hardware, "energy", common.energy_units)
    energy_j *= np.exp(common.energy_sd[stands] * normal.of("energy", unit(hardware)))
    return Draws(latency_s, energy_j, phases_s)


def is_captured(result: Result) -> bool:
    """Whether the kernels' times are what a capture on this very device says."""
    if result.timing == "hybrid" and result.captured_on is not None:
        return captured.relation(result.hardware, result.captured_on) == captured.SAME
    return result.timing == "measured"


def _engine_scale(result: Result, common: Shares) -> float:
    return 0.0 if result.engine is None or result.engine.traced else common.engine_scale


def heavy(normal: np.ndarray) -> np.ndarray:
    """Student's t of 3 degrees of freedom of standard normal draws: most runs differ little from what is modelled, some by much.
    Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5, its first term."""
    return normal + (normal**3 + normal) / (4 * _FREEDOM)


def worst_standing(result: Result, table: Residuals) -> str:
    """The standing that the device has in at least half of the run's kernel time."""
    by_family: dict[str, float] = {}
    for (family, _), time_s in family_seconds(result).items():
        by_family[family] = by_family.get(family, 0.0) + time_s
    return standing_of_most(by_family, result.hardware, table)


def standing_of_most(by_family: Mapping[str, float], hardware: Hardware, table: Residuals) -> str:
    """The standing that a device has in at least half of these seconds by family: that of the median second."""
    seconds = dict.fromkeys(STANDINGS, 0.0)
    for family, time_s in by_family.items():
        seconds[table.standing(hardware, family)] += time_s
    half, reached = sum(seconds.values()) / 2, 0.0
    for stands in STANDINGS:
        reached += seconds[stands]
        if reached >= half:
            return stands
    return STANDINGS[-1]


def family_seconds(result: Result) -> dict[tuple[str, str], float]:
    """Seconds of kernels by family and size class over the whole inference."""
    found: dict[tuple[str, str], float] = {}
    same = result.kinds
    for operator, time_s, times in zip(same.operators, same.seconds, same.times, strict=True):
        key = (family_of_operator(*operator), size_class(time_s * 1e6))
        found[key] = found.get(key, 0.0) + time_s * times
    return found


class Normals:
    """Standard normal draws, `count` at a time: the middles of as many equal slices of the distribution, shuffled, so that each variable's
    quantiles are exact. A variable's draws follow from its name and from `content`, what all are of, and from nothing else.
    RandomState's stream does not change with numpy's version (numpy's compatibility policy)."""

    def __init__(self, count: int, *content: object) -> None:
        self.count, self._content, self._slices = count, content, _slices(count)

    def of(self, *name: object) -> np.ndarray:
        return self._random(name).permutation(self._slices)

    def many(self, rows: int, *name: object) -> np.ndarray:
        """rows x count, independent."""
        return self._random(name).standard_normal((rows, self.count))

    def of_rows(self, rows: Sequence[int], *name: object) -> np.ndarray:
        """rows x count, independent; the same for a row whichever others are asked for."""
        found = np.empty((len(rows), self.count))
        places: dict[int, list[int]] = {}
        for place, row in enumerate(rows):
            places.setdefault(row // _BLOCK, []).append(place)
        for block, mine in places.items():
            found[mine] = self.many(_BLOCK, *name, block)[[rows[place] % _BLOCK for place in mine]]
        return found

    def _random(self, name: tuple[object, ...]) -> np.random.RandomState:
        digest = hashlib.sha256(repr((self._content, name)).encode()).digest()
        return np.random.RandomState(int.from_bytes(digest[:4], "big"))


@functools.cache
def _slices(count: int) -> np.ndarray:
    normal = NormalDist()
    return np.array([normal.inv_cdf((number + 0.5) / count) for number in range(count)])


def operator_factors(result: Result, table: Residuals, common: Shares, normal: Normals) -> Factors:
    """What each operator's kernels take in each draw over what is predicted."""
    numbers: dict[tuple[int, str], int] = {}  # operators that are alike share one `Lowered`
    cells: list[tuple[str, str]] = []
    rows: list[int] = []
    of_kinds: list[int] = []
    same = result.kinds
    for (operator, lowered), time_s, row in zip(
        same.operators, same.seconds, _first_rows(result), strict=True
    ):
        key = (id(lowered), size_class(time_s * 1e6))
        if key not in numbers:
            numbers[key] = len(cells)
            cells.append((family_of_operator(operator, lowered), key[1]))
            rows.append(row)
        of_kinds.append(numbers[key])
    if result.timing == "model":
        found = factors(cells, result.hardware, table, common, normal, rows)
    else:
        scaled_from = None if is_captured(result) else result.captured_on
        found = captured_factors(cells, result.hardware, scaled_from, table, common, normal, rows)
    return Factors(found, np.array(of_kinds, int))


def _first_rows(result: Result) -> list[int]:
    """Of each of the run's kinds the first operator, as a row of the trace: the same on every device."""
    found: dict[int, int] = {}
    seen: set[int] = set()
    for item, of_spans in zip(result.repetitions, result.kinds.of_spans, strict=True):
        if id(of_spans) not in seen:
            seen.add(id(of_spans))
            for (row, _, _), kind in zip(item.spans, of_spans, strict=True):
                found.setdefault(kind, row)
    return [found[kind] for kind in range(len(result.kinds.seconds))]


def captured_factors(
    cells: Sequence[tuple[str, str]],
    hardware: Hardware,
    scaled_from: Hardware | None,
    table: Residuals,
    common: Shares,
    normal: Normals,
    rows: Sequence[int] | None = None,
) -> np.ndarray:
    """As `factors`, of operators whose times a capture gives, scaled from another device or as they are (None). Noise is each launch's own:
    what like kernels take in two captures of a device differs by little more than that (docs/accuracy.md)."""
    known = captured.shipped()
    own = normal.many(len(cells), "launch")
    found = np.empty_like(own)
    for (family, size), mine in _numbers(cells).items():
        found[mine] = np.exp(np.interp(own[mine], NORMAL, known.noise(family, size)))
    if scaled_from is not None:
        found *= factors(cells, hardware, known.scaled(scaled_from, table), common, normal, rows)
    return found


def _numbers(cells: Sequence[tuple[str, str]]) -> dict[tuple[str, str], list[int]]:
    """The places of each cell."""
    found: dict[tuple[str, str], list[int]] = {}
    for number, cell in enumerate(cells):
        found.setdefault(cell, []).append(number)
    return found


def factors(
    cells: Sequence[tuple[str, str]],
    hardware: Hardware,
    table: Residuals | ScaledResiduals,
    common: Shares,
    normal: Normals,
    rows: Sequence[int] | None = None,
) -> np.ndarray:
    """Measured over predicted time of operators that differ, a row each, by draw. cells: the family and size class of each. rows: where each
    stands in the trace; as they come if None."""
    shared = normal.of("run", unit(hardware)) * common.run**0.5
    of_family = {
        family: normal.of("family", family, unit(hardware)) * common.family**0.5
        for family in dict.fromkeys(family for family, _ in cells)
    }
    rows = range(len(cells)) if rows is None else rows
    own = normal.of_rows(rows, "alike", unit(hardware)) * common.alike**0.5
    own += (
        normal.many(len(cells), "own", hardware)
        * max(0.0, 1 - common.run - common.family - common.alike) ** 0.5
    )
    found = np.ones((len(cells), normal.count))
    for (family, size), mine in _numbers(cells).items():
        quantiles = table.of(hardware, family, size)
        found[mine] = np.exp(np.interp(own[mine] + of_family[family] + shared, NORMAL, quantiles))
    return found
