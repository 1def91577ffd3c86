"""Which kernel the library takes for a matrix product: an estimate of each candidate's time, and the choice.

Tile and split are chosen by predicted time, as the library's heuristics do, with a preference for reuse: measured on A100, more
than one wave of CTAs means tiles of 256 x 128, also where three waves of 128 x 128 would end sooner than two of them. A split
into slices of k needs a second kernel that sums the partial results. m = 1 (or n = 1) may also run as GEMV (gemv.py).

The choice is made for a column of products at once, one product being a column of one: arrays of products by candidates hold bounds
below what the estimate counts, and the estimate (gemm_estimate.py) is asked for those candidates whose bound is below the least
that is known. What is fitted stands in hw_configs/families/gemm.yaml.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from simtti.dtypes import ITEM_BYTES
from simtti.hw_configs.hardware import Hardware
from simtti.simulator.arithmetic import Number
from simtti.simulator.kernels.gemm_estimate import Product, Rates, Traffic, estimate_s, rates_of
from simtti.simulator.kernels.gemm_tiles import (
    LARGEST_TILE,
    Catalogue,
    Fit,
    alignment,
    catalogue,
    taken,
)
from simtti.simulator.kernels.gemv import fastest_columns
from simtti.simulator.kernels.machine import FP32_BYTES, WGMMA_ROWS

MOST_CHOICES = 65536  # exact: choices kept; the results are the same with any other number
SPLITS = (2, 3, 4, 5, 6, 8)  # exact: what is tried beside the splits that fill the device
FEW = 512  # exact: candidates that are estimated at once, as to rule some out first would take as long; the results are the same


def result_bytes(dtype: str) -> int:
    """Of an element of C: operands of one byte give results of two (fp8: bf16) or four (int8: int32)."""
    size = ITEM_BYTES[dtype]
    if size > 1:
        return size
    return ITEM_BYTES["int32" if dtype == "int8" else "bf16"]


class Plan(NamedTuple):
    """A choice for one product: the tile, in how many slices of k, and what the estimate says."""

    time_s: float
    fit: Fit | None  # None: GEMV
    split: int  # slices of k; for GEMV the columns a CTA takes


class Plans(NamedTuple):
    """Choices for a column of products, an entry each: the number of the catalogue's tile, -1 for GEMV, and as of `Plan`."""

    time_s: np.ndarray
    number: np.ndarray
    split: np.ndarray


@functools.lru_cache(MOST_CHOICES)
def choose(m: int, n: int, k: int, batch: int, dtype: str, traffic: Traffic, hardware: Hardware) -> Plan:
    """The library's choice: the least time, by an estimate that equals `lone_time_s` of the plan's kernels, and times
    its preference for reuse where CTAs outnumber SMs."""
    sizes = np.array((m, n, k, batch, *traffic), dtype=float)[:, None]
    ((_, kernels, found),) = choices(*sizes[:4], dtype, Traffic(*sizes[4:]), hardware)
    number = int(found.number[0])
    fit = None if number < 0 else kernels.fits[number]
    return Plan(float(found.time_s[0]), fit, int(found.split[0]))


def choices(
    m: np.ndarray,
    n: np.ndarray,
    k: np.ndarray,
    batch: np.ndarray,
    dtype: str,
    traffic: Traffic,
    hardware: Hardware,
) -> Iterator[tuple[np.ndarray, Catalogue, Plans]]:
    """`choose` for a column of products, amounts as floats: in parts that have the same kernels, each with where in the column it
    is, its kernels and its plans."""
    size = ITEM_BYTES[dtype]
    aligned, stored_whole = alignment(n, k, size)
    for kind in np.unique(aligned * 2 + stored_whole).tolist():
        where = np.flatnonzero(aligned * 2 + stored_whole == kind)
        product = Product(m[where], n[where], k[where], batch[where], size, result_bytes(dtype))
        kernels = catalogue(hardware, dtype, bool(kind & 2), bool(kind & 1))
        its = Traffic(*(nbytes[where] for nbytes in traffic))
        yield where, kernels, _plans(_Asked(product, its, kernels, hardware, rates_of(hardware)))


class _Best(NamedTuple):
    """What is known of each product while candidates are gone through: the least, counted with the preference, what that takes, and
    the candidate."""

    counted_s: np.ndarray
    time_s: np.ndarray
    number: np.ndarray
    split: np.ndarray


class _Candidates(NamedTuple):
    """Ways to run products, an entry each, in the order of the products `at`: the tile's number, slices of k, what the time counts for, and
    a bound below what the estimate counts."""

    at: np.ndarray
    number: np.ndarray
    split: np.ndarray
    penalty: np.ndarray
    bound_s: np.ndarray

    def of(self, which: np.ndarray) -> _Candidates:
        places = np.flatnonzero(which)
        return _Candidates(*(each[places] for each in self))


class _Asked(NamedTuple):
    """Products that have the same kernels, a column of them, and the device."""

    product: Product
    traffic: Traffic
    kernels: Catalogue
    hardware: Hardware
    rates: Rates

    @property
    def least_s(self) -> float:
        """What nothing shortens: the preference for reuse counts for the rest."""
        return self.rates.start_s + self.kernels.style.setup_cycles / self.rates.clock_hz

    @property
    def empty_s(self) -> Number:
        """To empty the accumulators of all CTAs one after another, a byte of each element."""
        return self.product.elements / (self.kernels.style.epilogue_bytes_per_cycle * self.rates.clock_hz)

    def of(self, at: np.ndarray) -> tuple[Product, Traffic]:
        *sizes, size, result = self.product
        m, n, k, batch, *nbytes = np.array((*sizes, *self.traffic))[:, at]
        return Product(m, n, k, batch, size, result), Traffic(*nbytes)


class _Cuts(NamedTuple):
    """Products by tiles, arrays of two dimensions: how many tiles each cuts its product into, what their time counts for, of the reuse
    they lack, where they outnumber the SMs; and the bound below what the estimate counts, infinite where the library does not consider them."""

    tiles: np.ndarray
    penalty: np.ndarray
    bound_s: np.ndarray


def _plans(asked: _Asked) -> Plans:
    """`choose` for a column of products that have the same kernels."""
    hbm_bytes = asked.traffic.repeated(asked.hardware)[0]
    cuts = _cuts(asked, hbm_bytes)
    best = _vectors(asked, hbm_bytes)
    best = _whole(asked, cuts, hbm_bytes, best)
    best = _sliced(asked, cuts, best)
    return Plans(best.time_s, best.number, best.split)


def _vectors(asked: _Asked, hbm_bytes: np.ndarray) -> _Best:
    """GEMV's, for a product of a vector; nothing is known of the others."""
    m, n, k, batch, size, _ = asked.product
    count = len(m)
    best = _Best(np.full(count, math.inf), np.full(count, math.inf), np.full(count, -1), np.ones(count))
    for one in np.flatnonzero((batch == 1) & (np.minimum(m, n) == 1) & (size > 1)).tolist():
        outputs, depth = int(max(m[one], n[one])), int(k[one])
        time_s, _, columns = fastest_columns(outputs, depth, size, float(hbm_bytes[one]), asked.hardware)
        best.counted_s[one] = best.time_s[one] = time_s
        best.split[one] = columns
    return best


def _cuts(asked: _Asked, hbm_bytes: np.ndarray) -> _Cuts:
    """How each tile cuts each product. Not considered are those that together cover more than `most_padding` times what the least cover:
    the time of padding may hide behind memory, its energy does not (two rows in a tile of 256: 128 times the multiply-adds)."""
    product, rates, fits, style = asked.product, asked.rates, asked.kernels.column, asked.kernels.style
    m, n, tile = _down(product.m), _down(product.n), fits.tile
    down, across = np.ceil(m / tile.m), np.ceil(n / tile.n)
    area = down * tile.m * across * tile.n
    least = area.min(axis=1, keepdims=True)
    considered = (area <= style.most_padding * least) & ((area == least) | ~_down(_least_padded(asked)))
    tiles = down * across * _down(product.batch)
    fewest = _down(_operand_reads(product.m, product.n, *LARGEST_TILE))
    penalty = 1.0 + style.reuse_preference * np.maximum((down / m + across / n) / fewest - 1.0, 0.0)
    own_s = _least_s(fits, tiles, _down(product.k), rates.sms, _down(hbm_bytes / rates.hbm))
    bound_s = asked.least_s + _down(product.result * asked.empty_s) / tiles + own_s
    bound_s = _counted_s(bound_s, penalty, tiles, asked)
    return _Cuts(tiles, penalty, np.where(considered, bound_s, math.inf))


def _counted_s(time_s: np.ndarray, penalty: np.ndarray, tiles: np.ndarray, asked: _Asked) -> np.ndarray:
    """What a time counts for, of tiles that may outnumber the SMs."""
    least_s = asked.least_s
    return np.where(tiles > asked.rates.sms, penalty * (time_s - least_s) + least_s, time_s)


def _least_padded(asked: _Asked) -> np.ndarray:
    """Of which products only those tiles are considered that pad least. For many with a side that wgmma has to pad: the library counts the
    multiply-adds of tiles, not what each takes beside them (our own H200: 16,384 of 8 x 160 x 8 run as four tiles of 64 x 8 each,
    in four times the time of one of 128 x 16)."""
    product = asked.product
    padded = np.minimum(product.m, product.n) < WGMMA_ROWS
    in_clusters = asked.kernels.fits[0].tile.in_clusters
    return in_clusters & padded & (product.batch > 1) & (product.batch > asked.rates.sms)


def _operand_reads(m: np.ndarray, n: np.ndarray, tile_m: int, tile_n: int) -> np.ndarray:
    """Elements of A and B that CTAs read for one product, with the better way to lay the tile."""
    least = np.minimum
    return least(1 / least(tile_m, m) + 1 / least(tile_n, n), 1 / least(tile_n, m) + 1 / least(tile_m, n))


def _least_s(fit: Fit, ctas: np.ndarray, depth: np.ndarray, sms: int, hbm_s: Number) -> np.ndarray:
    """A bound below what `ctas` CTAs of `depth` k take: the synchronisations of the first wave, and then the busiest
    SM's pipe, the other waves' synchronisations, or HBM."""
    wait_s = depth * fit.wait_s_per_k
    busiest_s = depth * fit.pipe_s_per_k * np.ceil(ctas / sms)
    others_s = (np.ceil(ctas / fit.slots) - 1) * wait_s
    return wait_s + np.maximum(np.maximum(busiest_s, others_s), hbm_s)


def _whole(asked: _Asked, cuts: _Cuts, hbm_bytes: np.ndarray, best: _Best) -> _Best:
    """The best of each product, of what is known and of the tiles that go through all of k."""

    def estimate(some: _Candidates) -> tuple[np.ndarray, np.ndarray]:
        fit, (product, _) = taken(asked.kernels.column, some.number), asked.of(some.at)
        time_s = estimate_s(fit, asked.kernels.style, product, 1, asked.rates, hbm_bytes[some.at], 0.0)
        return _counted_s(time_s, some.penalty, cuts.tiles[some.at, some.number], asked), time_s

    at, number = np.nonzero(cuts.bound_s < _down(best.counted_s))
    penalty, bound_s = cuts.penalty[at, number], cuts.bound_s[at, number]
    return _better(best, _Candidates(at, number, np.ones(len(at)), penalty, bound_s), estimate)


def _sliced(asked: _Asked, cuts: _Cuts, best: _Best) -> _Best:
    """The same, of what is known and of the tiles that go through slices of k: of numbers of slices that are always tried, and those
    that give each SM one or fill the device once or twice."""
    product, traffic, kernels, hardware, rates = asked
    fits, sms = kernels.column, rates.sms
    least_s = asked.least_s + (rates.start_s + rates.reduction_latency_s)

    def estimate(some: _Candidates) -> tuple[np.ndarray, np.ndarray]:
        fit, (its, of_its) = taken(fits, some.number), asked.of(some.at)
        moved, summed = of_its.repeated(hardware, FP32_BYTES * its.elements * some.split)
        time_s = estimate_s(fit, kernels.style, its, some.split, rates, moved, summed)
        return some.penalty * (time_s - least_s) + least_s, time_s

    k, tiles = _down(product.k), cuts.tiles
    by_waves = np.floor(rates.most_split_waves * fits.slots / tiles)
    most = np.minimum(np.minimum(by_waves, np.floor(k / fits.least_slice)), rates.most_splits)
    fixed_s = least_s + _down(FP32_BYTES * asked.empty_s) / tiles
    read_s = FP32_BYTES * product.elements / rates.l2  # for the reduction to read one part
    own_s = k * (fits.wait_s_per_k / np.maximum(most, 1) + fits.pipe_s_per_k * tiles / sms)
    worth = (most >= 2) & (cuts.bound_s < math.inf) & (fixed_s + own_s < _down(best.counted_s - 2 * read_s))
    at, number = np.nonzero(worth)
    if not len(at):
        return best
    fit, ctas, most = taken(fits, _down(number)), _down(tiles[worth]), _down(most[worth])
    filling = (np.floor(sms / ctas), np.floor(fit.slots / ctas), np.floor(2 * fit.slots / ctas), most)
    split = np.concatenate([np.broadcast_to(SPLITS, (len(at), len(SPLITS))), *filling], axis=1)
    split = np.where((split >= 2) & (split <= most), split, most)
    ctas = ctas * split
    own_s = _least_s(fit, ctas, k[at] / split, sms, 0.0)
    bound_s = _down(fixed_s[worth]) + split * _down(read_s[at]) + own_s
    penalty = np.where(ctas > sms, _down(cuts.penalty[worth]), 1.0)
    bound_s = penalty * (bound_s - least_s) + least_s
    tried = split.shape[1]
    candidates = _Candidates(
        np.repeat(at, tried), np.repeat(number, tried), split.ravel(), penalty.ravel(), bound_s.ravel()
    )
    return _better(best, candidates, estimate)


# What candidates count for, and what they take.
_Estimate = Callable[[_Candidates], tuple[np.ndarray, np.ndarray]]


def _better(best: _Best, candidates: _Candidates, estimate: _Estimate) -> _Best:
    """The best of what is known and of `candidates`: of each product the one of the least bound is estimated, and then those that it did not
    rule out. Of equals the one of the least bound is taken, then the first."""
    candidates = candidates.of(candidates.bound_s < best.counted_s[candidates.at])
    if len(candidates.at) > FEW:
        first = candidates.bound_s == _least_of_each(candidates.bound_s, candidates.at)
        best = _estimated(best, candidates.of(first), estimate)
        candidates = candidates.of(~first & (candidates.bound_s < best.counted_s[candidates.at]))
    return _estimated(best, candidates, estimate) if len(candidates.at) else best


def _estimated(best: _Best, candidates: _Candidates, estimate: _Estimate) -> _Best:
    """`_better`, with all of `candidates` estimated."""
    counted_s, time_s = estimate(candidates)
    at = candidates.at
    least = np.flatnonzero(counted_s == _least_of_each(counted_s, at))
    if len(least) > 1:
        least = least[np.lexsort((candidates.bound_s[least], at[least]))]
        least = least[_first_of_each(at[least])]
    least = least[counted_s[least] < best.counted_s[at[least]]]
    found = _Best(*(each.copy() for each in best))
    for known, new in zip(found, (counted_s, time_s, candidates.number, candidates.split), strict=True):
        known[at[least]] = new[least]
    return found


def _first_of_each(at: np.ndarray) -> np.ndarray:
    """Where in a column the entries of each product begin, which stand together."""
    starts = np.ones(len(at), dtype=bool)
    np.not_equal(at[1:], at[:-1], out=starts[1:])
    return np.flatnonzero(starts)


def _least_of_each(amounts: np.ndarray, at: np.ndarray) -> np.ndarray:
    """For each entry the least of its product's."""
    begin = _first_of_each(at)
    least = np.minimum.reduceat(amounts, begin)
    return least if len(begin) == len(at) else np.repeat(least, np.diff(begin, append=len(at)))


def _down(each: np.ndarray) -> np.ndarray:
    """A column beside the tiles' row."""
    return each[:, None]
