"""Products as the search for their kernels sees them: which tiles and slices of k come into question, what the library's preference
makes of their times, and bounds below what they count for.

As the estimate's, these formulas read the same for one product, for a column of products, and for a column beside a catalogue's tiles.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from simtti.hw_configs.hardware import Hardware
from simtti.simulator import arithmetic
from simtti.simulator.arithmetic import Arithmetic, Number
from simtti.simulator.kernels.gemm_estimate import (
    Product,
    Rates,
    Traffic,
    estimate_s,
    rates_of,
    rates_of_entries,
)
from simtti.simulator.kernels.gemm_tiles import LARGEST_TILE, Catalogue, Fit, Tile
from simtti.simulator.kernels.machine import FP32_BYTES, WGMMA_ROWS

SPLITS = (2, 3, 4, 5, 6, 8)  # exact: what is tried beside the splits that fill the device


class Asked(NamedTuple):
    """A product and its kernels on a device, or a column of products that have the same.

    hbm_bytes: of the product if its k is not split. fewest_reads: elements of A and B that CTAs of the largest tile would read for an
    element of k and of C. empty_s: to empty the accumulators of all CTAs one after another, a byte of each element. part_s: for
    the reduction to read one part. least_s: what nothing shortens; the preference for reuse counts for the rest. more_s: the same
    that a split adds. device: of a column for several devices which of them each entry is for; hardware is then all of them, and rates
    are arrays.
    """

    product: Product
    traffic: Traffic
    hbm_bytes: Number
    fewest_reads: Number
    empty_s: Number
    part_s: Number
    least_s: Number
    more_s: Number
    kernels: Catalogue
    hardware: Hardware
    rates: Rates
    how: Arithmetic
    device: np.ndarray | None = None

    def of(self, at: np.ndarray) -> Asked:
        """The products `at`, of a column."""
        return self._with(self._amounts()[:, at])._on(lambda each: each[at])

    def beside_tiles(self) -> Asked:
        """The products of a column, beside a row of tiles."""
        return self._with(self._amounts()[:, :, None])._on(lambda each: each[:, None])

    def _amounts(self) -> np.ndarray:
        *sizes, _, _ = self.product
        others = (self.hbm_bytes, self.fewest_reads, self.empty_s, self.part_s)
        return np.array((*sizes, *self.traffic, *others), dtype=float)

    def _on(self, of_entries: Callable[[np.ndarray], np.ndarray]) -> Asked:
        """Where entries are for several devices, with these numbers of the devices."""
        if self.device is None:
            return self
        own = (self.least_s, self.more_s, *self.rates)
        least_s, more_s, *rates = (of_entries(each) if isinstance(each, np.ndarray) else each for each in own)
        return self._replace(least_s=least_s, more_s=more_s, rates=Rates(*rates))

    def _with(self, amounts: np.ndarray) -> Asked:
        m, n, k, batch, read, weights, written, *others = amounts
        product = Product(m, n, k, batch, self.product.size, self.product.result)
        return Asked(product, Traffic(read, weights, written), *others, *self[_AMOUNTS:])


_AMOUNTS = 6  # exact: by definition, of the fields of Asked those that hold amounts


def asked(
    product: Product,
    traffic: Traffic,
    kernels: Catalogue,
    hardware: Hardware,
    device: np.ndarray | None = None,
) -> Asked:
    rates = rates_of(hardware) if device is None else rates_of_entries(hardware, device)
    style, how = kernels.style, arithmetic.of(product.m)
    elements = product.elements
    return Asked(
        product,
        traffic,
        traffic.repeated(rates)[0],
        _fewest_reads(product, how),
        elements / (style.epilogue_bytes_per_cycle * rates.clock_hz),
        FP32_BYTES * elements / rates.l2,
        rates.start_s + style.setup_cycles / rates.clock_hz,
        rates.start_s + rates.reduction_latency_s,
        kernels,
        hardware,
        rates,
        how,
        device,
    )


def _fewest_reads(product: Product, how: Arithmetic) -> Number:
    """With the better way to lay the largest tile."""
    (m, n, *_), (tile_m, tile_n), least = product, LARGEST_TILE, how.least
    return least(1 / least(tile_m, m) + 1 / least(tile_n, n), 1 / least(tile_n, m) + 1 / least(tile_m, n))


def counted_s(asked: Asked, time_s: Number, ctas: Number, penalty: Number) -> Number:
    """What the time of so many CTAs counts for, with the preference for reuse."""
    preferred_s = penalty * (time_s - asked.least_s) + asked.least_s
    return asked.how.either(ctas > asked.rates.sms, preferred_s, time_s)


def split_counted_s(asked: Asked, time_s: Number, ctas: Number, penalty: Number) -> Number:
    """The same of a product whose k is split."""
    least_s = asked.least_s + asked.more_s
    factor = asked.how.either(ctas > asked.rates.sms, penalty, 1.0)
    return factor * (time_s - least_s) + least_s


def whole_s(asked: Asked, fit: Fit) -> Number:
    """The estimate of what a product takes without a split."""
    return estimate_s(fit, asked.kernels.style, asked.product, 1, asked.rates, asked.hbm_bytes, 0.0)


def split_s(asked: Asked, fit: Fit, split: Number) -> Number:
    """The estimate of what a product takes in `split` slices, with their reduction."""
    product = asked.product
    partial_bytes = FP32_BYTES * product.elements * split
    moved, summed = asked.traffic.repeated(asked.rates, partial_bytes)
    return estimate_s(fit, asked.kernels.style, product, split, asked.rates, moved, summed)


def cut(asked: Asked, tile: Tile) -> tuple[Number, Number, Number]:
    """How many tiles lie in each product, down and across, and the elements that they cover."""
    parts, product = asked.how.parts, asked.product
    down, across = parts(product.m, tile.m), parts(product.n, tile.n)
    return down, across, down * tile.m * across * tile.n


def most_area(asked: Asked, least: Number) -> Number:
    """Elements that tiles which the library considers cover together, at most. least: that any do.

    Tiles that cover more than `most_padding` times the least are not considered: the time of padding may hide behind memory, its energy
    does not (two rows in a tile of 256: 128 times the multiply-adds). For many products with a side that wgmma has to pad, only those are
    that pad least: the library counts the multiply-adds of tiles, not what each takes beside them (our own H200: 16,384 of 8 x 160 x 8
    run as four tiles of 64 x 8 each, in four times the time of one of 128 x 16).
    """
    (m, n, _, batch, *_), kernels = asked.product, asked.kernels
    padded = kernels.fits[0].tile.in_clusters & (asked.how.least(m, n) < WGMMA_ROWS)
    many = padded & (batch > 1) & (batch > asked.rates.sms)
    return least * asked.how.either(many, 1.0, kernels.style.most_padding)


def tiles(asked: Asked, down: Number, across: Number) -> tuple[Number, Number]:
    """Tiles of all products, and what their time counts for where they outnumber the SMs, for the reuse that they lack."""
    product = asked.product
    lost = (down / product.m + across / product.n) / asked.fewest_reads - 1.0
    penalty = 1.0 + asked.kernels.style.reuse_preference * asked.how.largest(lost, 0.0)
    return down * across * product.batch, penalty


def whole(asked: Asked, fit: Fit, tiles: Number, penalty: Number) -> Number:
    """A bound below what products whose k is not split count for: by the busiest SM's pipe or HBM."""
    product, result = asked.product, asked.product.result
    own_s = _pipes_s(asked, fit, tiles, product.k, asked.hbm_bytes / asked.rates.hbm)
    return counted_s(asked, asked.least_s + result * asked.empty_s / tiles + own_s, tiles, penalty)


def whole_waves(asked: Asked, fit: Fit, tiles: Number, penalty: Number) -> Number:
    """Another: by the latency of each wave."""
    cta_s = asked.product.result * asked.empty_s / tiles + _cta_s(asked, fit, asked.product.k)
    time_s = asked.rates.start_s + asked.how.parts(tiles, fit.slots) * cta_s
    return counted_s(asked, time_s, tiles, penalty)


def any_slices(asked: Asked) -> Number:
    """A bound below what slices of k count for, of any tile and number: the second kernel's start, and its reads of two parts."""
    return asked.least_s + asked.more_s + 2 * asked.part_s


def most_slices(asked: Asked, fit: Fit, tiles: Number) -> Number:
    """Slices of k that come into question, at most."""
    how, rates = asked.how, asked.rates
    by_waves = how.whole_parts(rates.most_split_waves * fit.slots, tiles)
    by_depth = how.whole_parts(asked.product.k, fit.least_slice)
    return how.least(how.least(by_waves, by_depth), rates.most_splits)


def sliced(asked: Asked, fit: Fit, tiles: Number, most: Number) -> Number:
    """A bound below what any number of slices counts for."""
    work_s = fit.wait_s_per_k / most + fit.pipe_s_per_k * tiles / asked.rates.sms
    return any_slices(asked) + FP32_BYTES * asked.empty_s / tiles + asked.product.k * work_s


def filling(asked: Asked, fit: Fit, tiles: Number) -> tuple[Number, Number, Number]:
    """Slices of k with which each SM has one, and the device is full once, and twice."""
    parts = asked.how.whole_parts
    return parts(asked.rates.sms, tiles), parts(fit.slots, tiles), parts(2 * fit.slots, tiles)


def in_slices(asked: Asked, fit: Fit, tiles: Number, penalty: Number, split: Number) -> Number:
    """`whole` of products in `split` slices."""
    ctas = tiles * split
    fixed_s = asked.least_s + asked.more_s + FP32_BYTES * asked.empty_s / tiles
    own_s = _pipes_s(asked, fit, ctas, asked.product.k / split, 0.0)
    return split_counted_s(asked, fixed_s + split * asked.part_s + own_s, ctas, penalty)


def in_slices_waves(asked: Asked, fit: Fit, tiles: Number, penalty: Number, split: Number) -> Number:
    """`whole_waves` of products in `split` slices."""
    ctas = tiles * split
    cta_s = FP32_BYTES * asked.empty_s / tiles + _cta_s(asked, fit, asked.product.k / split)
    fixed_s = asked.rates.start_s + asked.more_s + split * asked.part_s
    return split_counted_s(asked, fixed_s + asked.how.parts(ctas, fit.slots) * cta_s, ctas, penalty)


def _pipes_s(asked: Asked, fit: Fit, ctas: Number, depth: Number, hbm_s: Number) -> Number:
    """What `ctas` CTAs of `depth` k take at least: the synchronisations of the first wave, and then the busiest
    SM's pipe, the other waves' synchronisations, or HBM."""
    parts = asked.how.parts
    wait_s = depth * fit.wait_s_per_k
    busiest_s = depth * fit.pipe_s_per_k * parts(ctas, asked.rates.sms)
    others_s = (parts(ctas, fit.slots) - 1) * wait_s
    return wait_s + asked.how.largest(busiest_s, others_s, hbm_s)


def _cta_s(asked: Asked, fit: Fit, depth: Number) -> Number:
    """What a CTA of `depth` k takes at least before it empties its accumulators."""
    setup_s = asked.least_s - asked.rates.start_s
    return setup_s + depth * (fit.wait_s_per_k + fit.pipe_s_per_k)
