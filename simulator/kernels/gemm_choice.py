"""Which kernel the library takes for a matrix product: an estimate of each candidate's time, and the choice.

Tile and split are chosen by predicted time, as the library's heuristics do, with a preference for reuse: measured on A100, more
than one wave of CTAs means tiles of 256 x 128, also where three waves of 128 x 128 would end sooner than two of them. A split
into slices of k needs a second kernel that sums the partial results. m = 1 (or n = 1) may also run as GEMV (gemv.py).

Candidates go in the order of a bound below what they count for (gemm_bounds.py): once that is more than the best's count by the
estimate (gemm_estimate.py), so is the rest. A column of products is gone through side by side (gemm_column.py), with the same
choices. What is fitted stands in hw_configs/families/gemm.yaml.
"""

from __future__ import annotations

import math
import operator
from typing import NamedTuple

from simtti.dtypes import ITEM_BYTES
from simtti.hw_configs.hardware import Hardware
from simtti.simulator.arithmetic import Number
from simtti.simulator.kernels import gemm_bounds
from simtti.simulator.kernels.gemm_bounds import SPLITS, Asked
from simtti.simulator.kernels.gemm_estimate import Product, Traffic
from simtti.simulator.kernels.gemm_tiles import Fit, kernels_for
from simtti.simulator.kernels.gemv import fastest_columns

MOST_CHOICES = 65536  # exact: choices kept; the results are the same with any other number


def result_bytes(dtype: str) -> int:
    """Of an element of C: operands of one byte give results of two (fp8: bf16) or four (int8: int32)."""
    size = ITEM_BYTES[dtype]
    if size > 1:
        return size
    return ITEM_BYTES["int32" if dtype == "int8" else "bf16"]


class Plan(NamedTuple):
    """A choice for one product: the tile, in how many slices of k, and what the estimate says."""

    time_s: Number
    fit: Fit | None  # None: GEMV
    split: int  # slices of k; for GEMV the columns a CTA takes


class Choice(NamedTuple):
    """A product that a kernel is to be chosen for: `batch` of m x k by k x n."""

    m: int
    n: int
    k: int
    batch: int
    dtype: str
    traffic: Traffic
    hardware: Hardware


_made: dict[Choice, Plan] = {}


def keep(choice: Choice, plan: Plan) -> None:
    """What `choose` says from now on."""
    if len(_made) >= MOST_CHOICES:
        _made.pop(next(iter(_made)), None)
    _made[choice] = plan


def is_made(choice: Choice) -> bool:
    return choice in _made


def choose(choice: Choice) -> Plan:
    """The library's choice: the least time, by an estimate that equals `lone_time_s` of the plan's kernels, and times
    its preference for reuse where CTAs outnumber SMs."""
    plan = _made.get(choice)
    if plan is None:
        plan = _searched(choice)
        keep(choice, plan)
    return plan


def _searched(choice: Choice) -> Plan:
    m, n, k, batch, dtype, traffic, hardware = choice
    size = ITEM_BYTES[dtype]
    product = Product(m, n, k, batch, size, result_bytes(dtype))
    asked = gemm_bounds.asked(product, traffic, kernels_for(n, k, batch, size, dtype, hardware), hardware)
    best = _vector(asked)
    best_s = best.time_s
    ways = _ways(asked)
    for bound_s, tiles, penalty, fit in ways:
        if bound_s >= best_s:
            break
        if gemm_bounds.whole_waves(asked, fit, tiles, penalty) >= best_s:
            continue
        time_s = gemm_bounds.whole_s(asked, fit)
        counted_s = gemm_bounds.counted_s(asked, time_s, tiles, penalty)
        if counted_s < best_s:
            best, best_s = Plan(time_s, fit, 1), counted_s
    for bound_s, split, tiles, penalty, fit in _split_ways(asked, ways, best_s):
        if bound_s >= best_s:
            break
        if gemm_bounds.in_slices_waves(asked, fit, tiles, penalty, split) >= best_s:
            continue
        time_s = gemm_bounds.split_s(asked, fit, split)
        counted_s = gemm_bounds.split_counted_s(asked, time_s, tiles * split, penalty)
        if counted_s < best_s:
            best, best_s = Plan(time_s, fit, split), counted_s
    return best


def _vector(asked: Asked) -> Plan:
    """GEMV's plan; of a product that is none of a vector, one that takes without end."""
    m, n, k, batch, size, _ = asked.product
    if batch > 1 or min(m, n) > 1 or size == 1:
        return Plan(math.inf, None, 1)
    return Plan(*fastest_columns(max(m, n), k, size, asked.hbm_bytes, asked.hardware))


def _ways(asked: Asked) -> list[tuple[float, int, float, Fit]]:
    """Bound, tiles, penalty and tile of each candidate that goes through all of k, in the order of the bounds."""
    cuts = [(fit, *gemm_bounds.cut(asked, fit.tile)) for fit in asked.kernels.fits]
    most = gemm_bounds.most_area(asked, min(area for *_, area in cuts))
    ways = []
    for fit, down, across, area in cuts:
        if area <= most:
            tiles, penalty = gemm_bounds.tiles(asked, down, across)
            ways.append((gemm_bounds.whole(asked, fit, tiles, penalty), tiles, penalty, fit))
    return sorted(ways, key=_first)


def _split_ways(
    asked: Asked, ways: list[tuple[float, int, float, Fit]], best_s: float
) -> list[tuple[float, int, int, float, Fit]]:
    """The same of those that go through slices of k, with the number of slices after the bound, where that is below the best."""
    found: list[tuple[float, int, int, float, Fit]] = []
    if gemm_bounds.any_slices(asked) >= best_s:
        return found
    for _, tiles, penalty, fit in ways:
        most = gemm_bounds.most_slices(asked, fit, tiles)
        if most < 2 or gemm_bounds.sliced(asked, fit, tiles, most) >= best_s:
            continue
        for split in {*SPLITS, *gemm_bounds.filling(asked, fit, tiles), most}:
            if 2 <= split <= most:
                bound_s = gemm_bounds.in_slices(asked, fit, tiles, penalty, split)
                if bound_s < best_s:
                    found.append((bound_s, split, tiles, penalty, fit))
    return sorted(found, key=_first)


_first = operator.itemgetter(0)
