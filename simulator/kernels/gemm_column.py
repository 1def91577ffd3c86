"""The choices of `gemm_choice` for a column of matrix products at once.

Arrays of products by tiles hold the bounds, and columns of candidates the estimates of those whose bound is below the least that is known.
The choices are those that each product gets alone, to the last bit of what is said of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from simtti.dtypes import ITEM_BYTES
from simtti.hw_configs.hardware import Hardware
from simtti.simulator.designs import each_of, of_entries, side_by_side
from simtti.simulator.kernels import gemm_bounds
from simtti.simulator.kernels.gemm_bounds import SPLITS, Asked
from simtti.simulator.kernels.gemm_choice import Choice, Plan, is_made, keep, result_bytes
from simtti.simulator.kernels.gemm_estimate import Product, Traffic
from simtti.simulator.kernels.gemm_tiles import (
    Catalogue,
    alignment,
    catalogue,
    rows_of,
    taken,
)
from simtti.simulator.kernels.gemv import fastest_of_each
from simtti.simulator.lanes import agreed, lanes, undecided

FEW = 512  # exact: candidates that are estimated at once, as to rule some out first would take as long; the results are the same
WORTH = 8  # exact: products that take less side by side than one after another; the results are the same
MOST = 1024  # exact: products side by side, whose arrays a core's caches hold; the results are the same with any other number

MOST_ON_EACH = 1024  # exact: products whose choices on several devices are kept; the results are the same with any other number


class Plans(NamedTuple):
    """Choices for a column of products, an entry each: as of `Plan`, the tile by its number in the catalogue, -1 for GEMV."""

    time_s: np.ndarray
    number: np.ndarray
    split: np.ndarray


def choices(
    m: np.ndarray,
    n: np.ndarray,
    k: np.ndarray,
    batch: np.ndarray,
    dtype: str,
    traffic: Traffic,
    hardware: Hardware,
    device: np.ndarray | None = None,
) -> Iterator[tuple[np.ndarray, Catalogue, Plans]]:
    """`choose` for a column of products, amounts as floats: in parts that have the same kernels, each with where in the column it
    is, its kernels and its plans. device: where `hardware` is several side by side, which of them each product is for."""
    size = ITEM_BYTES[dtype]
    flags = alignment(n, k, batch, size)
    (kinds,) = np.packbits(np.array(flags), axis=0)
    for kind in sorted(set(kinds.tolist())):
        like = dtype, *np.unpackbits(np.array([kind], np.uint8))[: len(flags)].astype(bool).tolist()
        kernels = catalogue(hardware, *like)
        alike = np.flatnonzero(kinds == kind)
        for where in np.array_split(alike, -(-len(alike) // MOST)):
            product = Product(m[where], n[where], k[where], batch[where], size, result_bytes(dtype))
            its = Traffic(*(nbytes[where] for nbytes in traffic))
            own = None if device is None else device[where]
            beside = kernels if own is None else kernels._replace(column=rows_of(kernels.column, own))
            yield where, kernels, _plans(gemm_bounds.asked(product, its, beside, hardware, own))


def prepare(wanted: Iterable[Choice]) -> None:
    """Make choices side by side that `choose` will be asked for, where they are enough to be worth it."""
    groups: dict[tuple[str, Hardware], list[Choice]] = {}
    for choice in dict.fromkeys(wanted):
        if not is_made(choice):
            groups.setdefault((choice.dtype, choice.hardware), []).append(choice)
    for (dtype, hardware), own in groups.items():
        if len(own) < WORTH:
            continue
        amounts = np.array([(each.m, each.n, each.k, each.batch, *each.traffic) for each in own], float).T
        m, n, k, batch, *nbytes = amounts
        for where, kernels, plans in choices(m, n, k, batch, dtype, Traffic(*nbytes), hardware):
            times_s, numbers, splits = (each.tolist() for each in plans)
            for at, time_s, number, split in zip(where.tolist(), times_s, numbers, splits, strict=True):
                fit = kernels.fits[number] if number >= 0 else None
                keep(own[at], Plan(time_s, fit, int(split)))


# A choice but for the device, and the devices -> the kernels and the plan on each.
_Asked = tuple[tuple[Any, ...], tuple[Hardware, ...]]
_made_on_each: dict[_Asked, tuple[Catalogue, Plans]] = {}


def choose_on_each(choice: Choice) -> Plan:
    """`choose` on several devices side by side: what the first of them takes, with those that take it (`lanes`)."""
    prepare_on_each([choice])
    kernels, plans = _made_on_each[_asked(choice)]
    number, split = agreed(list(zip(*(each.astype(int).tolist() for each in plans[1:]), strict=True)))
    return Plan(lanes(plans.time_s), kernels.fits[number] if number >= 0 else None, split)


def prepare_on_each(wanted: Iterable[Choice]) -> None:
    """Make choices side by side that `choose_on_each` will be asked for. They are kept for all paths that the devices go, so that none
    may be gone in them."""
    groups: dict[tuple[str, tuple[Hardware, ...]], dict[_Asked, Choice]] = {}
    for choice in wanted:
        asked = _asked(choice)
        if asked not in _made_on_each:
            groups.setdefault((choice.dtype, asked[1]), {})[asked] = choice
    for (dtype, devices), own in groups.items():
        if len(_made_on_each) >= MOST_ON_EACH:
            _made_on_each.clear()
        with undecided():
            _made_on_each.update(zip(own, _on_each(list(own.values()), dtype, devices), strict=True))


def _asked(choice: Choice) -> _Asked:
    return choice[:-1], each_of(choice.hardware)


def _on_each(
    wanted: Sequence[Choice], dtype: str, devices: tuple[Hardware, ...]
) -> Iterator[tuple[Catalogue, Plans]]:
    """The kernels of each product, and its plans on each device."""
    count = len(devices)
    amounts = np.array([(each.m, each.n, each.k, each.batch, *each.traffic) for each in wanted], float).T
    m, n, k, batch, *nbytes = np.repeat(amounts, count, axis=1)
    device, hardware = np.tile(np.arange(count), len(wanted)), side_by_side(devices)
    found = np.empty((len(Plans._fields), len(m)))
    kernels_of: dict[int, Catalogue] = {}
    for where, kernels, plans in choices(m, n, k, batch, dtype, Traffic(*nbytes), hardware, device):
        found[:, where] = plans
        kernels_of |= dict.fromkeys((where // count).tolist(), kernels)
    for number in range(len(wanted)):
        yield kernels_of[number], Plans(*found[:, number * count : (number + 1) * count])


class _Known(NamedTuple):
    """What is known of each product while candidates are gone through: the least that any counts for, what that takes, and the
    candidate."""

    counted_s: np.ndarray
    time_s: np.ndarray
    number: np.ndarray
    split: np.ndarray


class _Candidates(NamedTuple):
    """Ways to run products, an entry each, in the order of the products `at`: the tile's number, the tiles, what time counts for, slices of
    k, and bounds below what the estimate counts for: the higher one, and by the pipes alone."""

    at: np.ndarray
    number: np.ndarray
    tiles: np.ndarray
    penalty: np.ndarray
    split: np.ndarray
    bound_s: np.ndarray
    pipes_s: np.ndarray

    def of(self, which: np.ndarray) -> _Candidates:
        places = np.flatnonzero(which)
        return _Candidates(*(each[places] for each in self))


# What candidates count for, and what they take.
_Estimate = Callable[[_Candidates], tuple[np.ndarray, np.ndarray]]


def _plans(asked: Asked) -> Plans:
    """For products that have the same kernels."""
    fits, beside, best = asked.kernels.column, asked.beside_tiles(), _vectors(asked)

    def whole(some: _Candidates) -> tuple[np.ndarray, np.ndarray]:
        its = asked.of(some.at)
        time_s = gemm_bounds.whole_s(its, taken(fits, some.at, some.number))
        return gemm_bounds.counted_s(its, time_s, some.tiles, some.penalty), time_s

    def split(some: _Candidates) -> tuple[np.ndarray, np.ndarray]:
        its = asked.of(some.at)
        time_s = gemm_bounds.split_s(its, taken(fits, some.at, some.number), some.split)
        ctas = some.tiles * some.split
        return gemm_bounds.split_counted_s(its, time_s, ctas, some.penalty), time_s

    down, across, area = gemm_bounds.cut(beside, fits.tile)
    considered = area <= gemm_bounds.most_area(beside, area.min(axis=1, keepdims=True))
    tiles, penalty = gemm_bounds.tiles(beside, down, across)
    pipes_s = gemm_bounds.whole(beside, fits, tiles, penalty)
    bound_s = np.maximum(pipes_s, gemm_bounds.whole_waves(beside, fits, tiles, penalty))
    bound_s = np.where(considered, bound_s, np.inf)

    def candidates(at: np.ndarray, number: np.ndarray) -> _Candidates:
        own = (each[at, number] for each in (tiles, penalty, np.ones_like(tiles), bound_s, pipes_s))
        return _Candidates(at, number, *own)

    first = candidates(np.arange(len(bound_s)), bound_s.argmin(axis=1))
    limit_s = np.minimum(best.counted_s, whole(first)[0])
    best = _best(best, candidates(*np.nonzero(bound_s <= limit_s[:, None])), whole)
    left = np.flatnonzero(gemm_bounds.any_slices(asked) < best.counted_s)
    if not len(left):
        return Plans(best.time_s, best.number, best.split)
    beside, tiles, best_s = asked.of(left).beside_tiles(), tiles[left], best.counted_s[left][:, None]
    beside_fits = rows_of(fits, left)
    most = gemm_bounds.most_slices(beside, beside_fits, tiles)
    bound_s = gemm_bounds.sliced(beside, beside_fits, tiles, np.maximum(most, 1.0))
    at, number = np.nonzero(considered[left] & (most >= 2) & (bound_s < best_s))
    ways = (tiles[at, number], penalty[left[at], number], most[at, number])
    best = _better(best, _splits(asked, left[at], number, *ways, best.counted_s), split)
    return Plans(best.time_s, best.number, best.split)


def _splits(
    asked: Asked,
    at: np.ndarray,
    number: np.ndarray,
    tiles: np.ndarray,
    penalty: np.ndarray,
    most: np.ndarray,
    best_s: np.ndarray,
) -> _Candidates:
    """Products `at` and tiles that are worth a look in each number of slices that may be better than what is known."""
    its, fit = asked.of(at[:, None]), taken(asked.kernels.column, at[:, None], number[:, None])
    tiles, penalty, most = tiles[:, None], penalty[:, None], most[:, None]
    always = np.broadcast_to(np.array(SPLITS, float), (len(at), len(SPLITS)))
    split = np.concatenate((always, *gemm_bounds.filling(its, fit, tiles), most), axis=1)
    tried = (split >= 2) & (split <= most)
    split = np.where(tried, split, most)
    pipes_s = gemm_bounds.in_slices(its, fit, tiles, penalty, split)
    where, which = np.nonzero(tried & (pipes_s < best_s[at][:, None]))
    at, number, split, pipes_s = at[where], number[where], split[where, which], pipes_s[where, which]
    own = (tiles[where, 0], penalty[where, 0], split)
    waves_s = gemm_bounds.in_slices_waves(asked.of(at), taken(asked.kernels.column, at, number), *own)
    return _Candidates(at, number, *own, np.maximum(pipes_s, waves_s), pipes_s)


def _vectors(asked: Asked) -> _Known:
    """GEMV's, for a product of a vector; nothing is known of the others."""
    m, n, k, batch, size, _ = asked.product
    best_s, split = np.full(len(m), math.inf), np.ones(len(m))
    at = np.flatnonzero((batch == 1) & (np.minimum(m, n) == 1) & (size > 1))
    if len(at):
        outputs = np.maximum(m, n)[at]
        hardware = asked.hardware if asked.device is None else of_entries(asked.hardware, asked.device[at])
        best_s[at], split[at] = fastest_of_each(outputs, k[at], size, asked.hbm_bytes[at], hardware)
    return _Known(best_s, best_s.copy(), np.full(len(m), -1), split)


def _better(best: _Known, candidates: _Candidates, estimate: _Estimate) -> _Known:
    """`_best`, of each product with the candidate of the least bound before those that it does not rule out."""
    candidates = candidates.of(candidates.bound_s < best.counted_s[candidates.at])
    if len(candidates.at) > FEW:
        first = candidates.of(candidates.bound_s == _least_of_each(candidates.bound_s, candidates.at))
        limit_s = best.counted_s.copy()
        np.minimum.at(limit_s, first.at, estimate(first)[0])
        candidates = candidates.of(candidates.bound_s <= limit_s[candidates.at])
    return _best(best, candidates, estimate)


def _best(best: _Known, candidates: _Candidates, estimate: _Estimate) -> _Known:
    """The best of what is known and of `candidates`; of equals what is known, then the one of the least bound by the pipes, then the
    first."""
    at = candidates.at
    if not len(at):
        return best
    counted_s, time_s = estimate(candidates)
    least = np.flatnonzero(counted_s == _least_of_each(counted_s, at))
    least = least[np.lexsort((candidates.pipes_s[least], at[least]))]
    least = least[_first_of_each(at[least])]
    least = least[counted_s[least] < best.counted_s[at[least]]]
    found = _Known(*(each.copy() for each in best))
    for known, new in zip(found, (counted_s, time_s, candidates.number, candidates.split), strict=True):
        known[at[least]] = new[least]
    return found


def _first_of_each(at: np.ndarray) -> np.ndarray:
    """Where in a column the entries of each product begin, which stand together."""
    return np.flatnonzero(np.diff(at, prepend=-1))


def _least_of_each(amounts: np.ndarray, at: np.ndarray) -> np.ndarray:
    """For each entry the least of its product's."""
    begin = _first_of_each(at)
    return np.repeat(np.minimum.reduceat(amounts, begin), np.diff(begin, append=len(at)))
