"""What a tile's CTAs do for a product, and how long the library's heuristics think that it takes.

The estimate equals the closed form of the plan's kernels. Its formulas read the same for one product on one tile and for a column of
them: amounts are then arrays of floats, an entry each, and `Fit` and `Traffic` hold arrays. What is fitted stands in
hw_configs/families/gemm.yaml.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from simtti.hw_configs.hardware import Hardware
from simtti.hw_configs.parameters import GemmStyle
from simtti.simulator import arithmetic
from simtti.simulator.arithmetic import Arithmetic, Number
from simtti.simulator.designs import of_entries
from simtti.simulator.kernels.gemm_tiles import MOST_DEVICES, Fit, Tile
from simtti.simulator.kernels.machine import FP32_BYTES

REDUCTION_THREADS = 256  # exact: of splitKreduce, one output element a thread
REDUCED_BYTES = 2.0  # exact: an output element that it writes

# Benchmarks of a product keep its input and go round as many sets of weights, so that the input and the output are still in L2
# where they fit and the weights hardly ever are. The libraries' choices suit operands that are found there.
WEIGHT_SETS = 6  # exact: aiconfigurator's collector


class Traffic(NamedTuple):
    """Unique bytes that a product reads of its input and of its weights and writes of its output."""

    input_bytes: Number
    weight_bytes: Number
    output_bytes: Number

    def repeated(
        self, rates: Rates, partial_bytes: Number = 0.0, weight_sets: int = WEIGHT_SETS
    ) -> tuple[Number, Number]:
        """Bytes to and from HBM of the product and of its reduction in a benchmark that goes round the weights.

        What is touched again after x other bytes is gone from L2 with the chance (x / usable)^loss_power: 1 where lines are
        replaced as if by chance, in the halves of an L2 that each keep copies of the other's; more, where the oldest go first.

        partial_bytes: partial results of split-K, written by the one and read by the other. weight_sets: that it goes round.
        """
        how = arithmetic.of(self.input_bytes)
        usable_bytes, power = rates.l2_usable_bytes, rates.loss_power
        once = self.input_bytes + self.weight_bytes + self.output_bytes
        round_trip = once + (weight_sets - 1) * self.weight_bytes
        misses = how.power(how.least(once / usable_bytes, 1.0), power)
        read = self.input_bytes * misses + self.weight_bytes * how.power(
            how.least(round_trip / usable_bytes, 1.0), power
        )
        written = self.output_bytes * misses
        if not how.some(partial_bytes):
            return read + written, 0.0
        passed = how.least((once - self.output_bytes + partial_bytes) / usable_bytes, 1.0)
        spilled = partial_bytes * how.power(passed, power)
        return read + spilled, spilled + written


class Rates(NamedTuple):
    """The device's numbers that every estimate uses.

    l2_port: bytes/s of one SM. fp32: FLOP/s of one SM. start_s: launch and start. most_splits: slices of k at most;
    most_split_waves: and the waves of CTAs that they make. reduction_in_flight: bytes a CTA of the reduction keeps in flight;
    reduction_per_sm: how many fit on an SM. loss_power: see `Traffic.repeated`.
    """

    sms: Number
    clock_hz: Number
    l2_port: Number
    l2: Number
    hbm: Number
    hbm_latency_s: Number
    fp32: Number
    start_s: Number
    dispatch_s: Number
    l2_usable_bytes: Number
    most_splits: Number
    most_split_waves: Number
    reduction_latency_s: Number
    reduction_in_flight: Number
    reduction_per_sm: Number
    loss_power: Number


def rates_of_entries(hardware: Hardware, device: np.ndarray) -> Rates:
    """Of several devices side by side: those of the device of each entry, where they differ."""
    return _rates(of_entries(hardware, device))


@functools.lru_cache(MOST_DEVICES)
def rates_of(hardware: Hardware) -> Rates:
    return _rates(hardware)


def _rates(hardware: Hardware) -> Rates:
    split = hardware.gemm_split
    in_flight = REDUCTION_THREADS * FP32_BYTES * split.reduction_loads
    return Rates(
        hardware.sm_count,
        hardware.clock_hz,
        hardware.l2_bytes_per_cycle_sm * hardware.clock_hz,
        hardware.l2_attained_bytes_per_s,
        hardware.hbm_attained_bytes_per_s,
        hardware.hbm_latency_s,
        hardware.fp32_flops_per_cycle_sm * hardware.clock_hz,
        hardware.launch_s + hardware.start_s,
        hardware.dispatch_s,
        hardware.l2_usable_bytes,
        int(split.most_slices),
        int(split.most_waves),
        split.reduction_latency_s,
        # What it reads was just written: scaled so that L2's latency, not HBM's, bounds the rate.
        in_flight * hardware.hbm_latency_s / hardware.l2_latency_s,
        min(hardware.max_ctas_per_sm, hardware.max_threads_per_sm // REDUCTION_THREADS),
        hardware.gemm_launch.loss_power,
    )


class Product(NamedTuple):
    """`batch` products of m x k by k x n. size: bytes of an element of A and B; result: of C."""

    m: Number
    n: Number
    k: Number
    batch: Number
    size: float
    result: float

    @property
    def elements(self) -> Number:
        """Of all results."""
        return self.batch * self.m * self.n


class Work(NamedTuple):
    """A CTA's demands, as in `Kernel`, and the grid."""

    grid: Number
    flops: Number
    shared_bytes: Number
    l2_bytes: Number
    latency_s: Number
    bytes_in_flight: Number
    memory_efficiency: Number
    reread_bytes: Number

    def of_kernel(self, tile: Tile, hbm_bytes: float) -> dict[str, Any]:
        """What it says of a `Kernel` that runs `tile`, all but the FLOPs. hbm_bytes: of a repeated launch, without what it reads
        again."""
        return {
            "grid": self.grid,
            "threads": tile.threads,
            "registers": tile.registers,
            "shared_memory_bytes": tile.ring_bytes,
            "shared_bytes": self.shared_bytes,
            "l2_bytes": self.l2_bytes,
            "latency_s": self.latency_s,
            "bytes_in_flight": self.bytes_in_flight,
            "memory_efficiency": self.memory_efficiency,
            "hbm_reread_bytes": self.reread_bytes,
            "repeated_hbm_bytes": hbm_bytes + self.reread_bytes,
        }


def work_of(
    fit: Fit, style: GemmStyle, product: Product, split: Number, rates: Rates, hbm_bytes: Number
) -> Work:
    """What each CTA of `product` in tiles of `fit` does, of `split` slices of k. hbm_bytes: of the product, without what it reads
    again."""
    how, tile, size = arithmetic.of(product.m), fit.tile, product.size
    grid, depth, *others = _work_of(fit, style, product, split, rates, hbm_bytes, how)
    feed_bytes = tile.feed_bytes + style.fill_cost * 2 * (tile.m + tile.n)
    return Work(grid, 2.0 * tile.m * tile.n * depth, feed_bytes * size / 2 * depth, *others)


def _work_of(
    fit: Fit,
    style: GemmStyle,
    product: Product,
    split: Number,
    rates: Rates,
    hbm_bytes: Number,
    how: Arithmetic,
) -> tuple[Number, ...]:
    """The grid, the k that a CTA goes through, and `Work` from l2_bytes on."""
    m, n, k, batch, size, result = product
    tile, step = fit.tile, fit.k
    down, across = how.parts(m, tile.m), how.parts(n, tile.n)
    steps = how.parts(k, split * step)
    depth = steps * step
    rows, columns = m / down, n / across  # of the matrices in a tile, on average
    out_bytes = rows * columns * how.either(split > 1, FP32_BYTES, result)
    operand_bytes = (rows + columns) * how.least(depth, k) * size
    shared = down * across > 1
    l2_bytes = operand_bytes * how.either(shared, style.multicast, 1.0) + out_bytes
    read, written = (m + n) * (k + 0.0), (m + 0.0) * n
    efficiency = (read + written) / (read / style.read_efficiency + written / style.write_efficiency)
    grid = _tiles_of(tile, down, across, how) * split * batch
    reread_bytes: Number = 0.0
    outgrows = (m + n) * k * size >= rates.l2_usable_bytes
    if how.some(outgrows):
        again = batch * _reread_bytes(product, down, across, tile, split, rates, how)
        reread_bytes = how.either(outgrows, again, 0.0)
    # All CTAs of a wave begin to fill their rings at once.
    filled = how.least(tile.stages * step / depth, 1.0) * how.least(grid, fit.slots) / efficiency
    fill_s = filled * how.largest(operand_bytes / rates.l2, (hbm_bytes + reread_bytes) / grid / rates.hbm)
    paired_cycles = how.either(shared & tile.in_clusters, style.cluster_cycles, 0.0)
    latency_s = (
        style.setup_cycles
        + paired_cycles
        + style.step_cycles * steps
        + out_bytes / style.epilogue_bytes_per_cycle
    ) / rates.clock_hz + style.exposed_fill * fill_s
    in_flight = fit.slots_in_flight * (rows + columns) * step * size
    return grid, depth, l2_bytes, latency_s, in_flight, efficiency, reread_bytes


def _tiles_of(tile: Tile, down: Number, across: Number, how: Arithmetic) -> Number:
    """Tiles of a product: where more than one, wgmma's come in pairs, the CTAs of a cluster (`1x2`, `2x1` in nvjet's names), along
    the side that leaves the fewest over."""
    tiles = down * across
    odd = 2 * how.parts(tiles, 2) - tiles
    return tiles + how.either((tiles > 1) & tile.in_clusters, odd * how.least(down, across), 0)


def _reread_bytes(
    product: Product,
    down: Number,
    across: Number,
    tile: Tile,
    split: Number,
    rates: Rates,
    how: Arithmetic,
) -> Number:
    """HBM bytes fetched again in one product whose A and B L2 cannot hold: a wave covers about a square of C; what the next
    wave needs of them again is still there only if it fits."""
    m, n, k, _, size, _ = product
    a_bytes, b_bytes = (m + 0.0) * k * size, (n + 0.0) * k * size
    usable = rates.l2_usable_bytes
    wave = rates.sms / split
    high = how.least(how.largest(how.root(wave * tile.n / tile.m), 1.0), down)
    wide = how.least(how.largest(wave / high, 1.0), across)
    b_again = how.either(b_bytes > usable, (how.ceil(down / high) - 1) * b_bytes, 0.0)
    a_again = how.either(high * tile.m * k * size > usable, (how.ceil(across / wide) - 1) * a_bytes, 0.0)
    return b_again + a_again


def estimate_s(
    fit: Fit,
    style: GemmStyle,
    product: Product,
    split: Number,
    rates: Rates,
    hbm_bytes: Number,
    reduction_bytes: Number,
) -> Number:
    """`lone_time_s` of the plan's kernels. split: slices of k; of a column either 1 for all, or more than 1 for each."""
    how = arithmetic.of(product.m)
    grid, depth, l2_bytes, latency_s, in_flight, efficiency, reread_bytes = _work_of(
        fit, style, product, split, rates, hbm_bytes, how
    )
    macs = 2.0 * fit.tile.m * fit.tile.n
    l2_bytes = l2_bytes / efficiency
    cta_hbm_bytes = (hbm_bytes + reread_bytes) / (grid * efficiency)
    local_s = how.largest(fit.pipe_s_per_k * (macs * depth) / macs, l2_bytes / rates.l2_port)
    time_s = _waves_s(grid, fit.per_sm, local_s, latency_s, l2_bytes, cta_hbm_bytes, in_flight, rates, how)
    if not how.some(split > 1):
        return time_s
    return time_s + _reduction_s(product.elements, split, reduction_bytes, rates, how)


def _waves_s(
    grid: Number,
    per_sm: Number,
    local_s: Number,
    latency_s: Number,
    l2_bytes: Number,
    hbm_bytes: Number,
    bytes_in_flight: Number,
    rates: Rates,
    how: Arithmetic,
) -> Number:
    """The closed form of `kernel.lone_time_s`, from a CTA's busiest pipe and bytes."""
    largest = how.largest
    slots = per_sm * rates.sms
    spread_s = largest(l2_bytes / rates.l2, hbm_bytes / rates.hbm)
    in_flight_s = largest(l2_bytes, hbm_bytes) * rates.hbm_latency_s / bytes_in_flight
    alone_s = largest(in_flight_s, local_s, spread_s)
    waves = how.whole_parts(grid, slots)
    rest = grid - waves * slots
    time_s, full = rates.start_s + latency_s, waves > 0
    if how.some(full):
        full_s = largest(local_s * per_sm, spread_s * slots)
        later_s = (waves - 1) * largest(latency_s + alone_s, full_s)
        time_s = time_s + how.either(full, largest(alone_s, full_s) + later_s + waves * rates.dispatch_s, 0.0)
    if how.some(rest):
        least_s = how.either(full, latency_s + alone_s, alone_s)
        rest_s = largest(least_s, local_s * how.parts(rest, rates.sms), spread_s * rest)
        time_s = time_s + how.either(rest > 0, rest_s + rates.dispatch_s, 0.0)
    return time_s


def _reduction_s(elements: Number, split: Number, hbm_bytes: Number, rates: Rates, how: Arithmetic) -> Number:
    """`lone_time_s` of the kernel that sums the partial results (`gemm.reduction`)."""
    grid = how.parts(elements, REDUCTION_THREADS)
    l2_bytes = reduction_l2_bytes(split)
    local_s = how.largest(l2_bytes / rates.l2_port, REDUCTION_THREADS * split / rates.fp32)
    return _waves_s(
        grid,
        rates.reduction_per_sm,
        local_s,
        rates.reduction_latency_s,
        l2_bytes,
        hbm_bytes / grid,
        rates.reduction_in_flight,
        rates,
        how,
    )


def reduction_l2_bytes(split: Number) -> Number:
    """Bytes of L2 that a CTA of the reduction moves."""
    return REDUCTION_THREADS * (FP32_BYTES * split + REDUCED_BYTES)
