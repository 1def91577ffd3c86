"""Which kernel the library takes for a matrix product: an estimate of each candidate's time, and the choice.

Tile and split are chosen by predicted time, as the library's heuristics do, with a preference for reuse: measured on A100, more
than one wave of CTAs means tiles of 256 x 128, also where three waves of 128 x 128 would end sooner than two of them. A split
into slices of k needs a second kernel that sums the partial results. m = 1 (or n = 1) may also run as GEMV (gemv.py).

The estimate equals the closed form of the plan's kernels; it is plain arithmetic because it runs for every candidate of every
product. What is fitted stands in hw_configs/families/gemm.yaml.
"""

from __future__ import annotations

import functools
import math
import operator
from typing import Any, NamedTuple

from simtti.dtypes import ITEM_BYTES
from simtti.hw_configs.hardware import Hardware
from simtti.hw_configs.parameters import GemmStyle
from simtti.simulator.kernels.gemm_tiles import (
    LARGEST_TILE,
    MOST_DEVICES,
    Fit,
    Tile,
    kernels_for,
)
from simtti.simulator.kernels.gemv import fastest_columns
from simtti.simulator.kernels.machine import FP32_BYTES, WGMMA_ROWS

MOST_CHOICES = 65536  # exact: choices kept; the results are the same with any other number
SPLITS = (2, 3, 4, 5, 6, 8)  # exact: what is tried beside the splits that fill the device
REDUCTION_THREADS = 256  # exact: of splitKreduce, one output element a thread
REDUCED_BYTES = 2.0  # exact: an output element that it writes

# Benchmarks of a product keep its input and go round as many sets of weights, so that the input and the output are still in L2
# where they fit and the weights hardly ever are. The libraries' choices suit operands that are found there.
WEIGHT_SETS = 6  # exact: aiconfigurator's collector


def result_bytes(dtype: str) -> int:
    """Of an element of C: operands of one byte give results of two (fp8: bf16) or four (int8: int32)."""
    size = ITEM_BYTES[dtype]
    if size > 1:
        return size
    return ITEM_BYTES["int32" if dtype == "int8" else "bf16"]


class Traffic(NamedTuple):
    """Unique bytes that a product reads of its input and of its weights and writes of its output."""

    input_bytes: float
    weight_bytes: float
    output_bytes: float

    def repeated(
        self, hardware: Hardware, partial_bytes: float = 0.0, weight_sets: int = WEIGHT_SETS
    ) -> tuple[float, float]:
        """Bytes to and from HBM of the product and of its reduction in a benchmark that goes round the weights.

        What is touched again after x other bytes is gone from L2 with the chance (x / usable)^loss_power: 1 where lines are
        replaced as if by chance, in the halves of an L2 that each keep copies of the other's; more, where the oldest go first.

        partial_bytes: partial results of split-K, written by the one and read by the other. weight_sets: that it goes round.
        """
        usable_bytes, power = hardware.l2_usable_bytes, hardware.gemm_launch.loss_power
        once = self.input_bytes + self.weight_bytes + self.output_bytes
        round_trip = once + (weight_sets - 1) * self.weight_bytes
        misses = min(once / usable_bytes, 1.0) ** power
        read = self.input_bytes * misses + self.weight_bytes * min(round_trip / usable_bytes, 1.0) ** power
        written = self.output_bytes * misses
        if not partial_bytes:
            return read + written, 0.0
        passed = min((once - self.output_bytes + partial_bytes) / usable_bytes, 1.0)
        spilled = partial_bytes * passed**power
        return read + spilled, spilled + written


class Plan(NamedTuple):
    """A choice for one product: the tile, in how many slices of k, and what the estimate says."""

    time_s: float
    fit: Fit | None  # None: GEMV
    split: int  # slices of k; for GEMV the columns a CTA takes


@functools.lru_cache(MOST_CHOICES)
def choose(m: int, n: int, k: int, batch: int, dtype: str, traffic: Traffic, hardware: Hardware) -> Plan:
    """The library's choice: the least time, by an estimate that equals `lone_time_s` of the plan's kernels, and times
    its preference for reuse where CTAs outnumber SMs."""
    size, result = ITEM_BYTES[dtype], result_bytes(dtype)
    style, _, fitted, _ = kernels_for(n, k, size, dtype, hardware)
    rates = rates_of(hardware)
    sms = rates.sms
    hbm_bytes = traffic.repeated(hardware)[0]
    least_s = rates.start_s + style.setup_cycles / rates.clock_hz
    best = Plan(math.inf, None, 1)
    if batch == 1 and min(m, n) == 1 and size > 1:
        best = Plan(*fastest_columns(max(m, n), k, size, hbm_bytes, hardware))
    best_s = best.time_s
    # Candidates go in the order of a bound below what they count: once that is more than the best, so is the rest.
    bounds = []
    hbm_s = hbm_bytes / rates.hbm
    fewest = _operand_reads(m, n, *LARGEST_TILE)
    elements = batch * m * n
    # To empty the accumulators of all, a byte each.
    empty_s = elements / (style.epilogue_bytes_per_cycle * rates.clock_hz)
    candidates = _least_padded(fitted, m, n, batch, sms)
    for fit, down, across in _cuts(candidates, m, n, style.most_padding):
        tiles = down * across * batch
        penalty = 1.0 + style.reuse_preference * max((down / m + across / n) / fewest - 1.0, 0.0)
        bound_s = least_s + result * empty_s / tiles + _least_s(fit, tiles, k, sms, hbm_s)
        counted_s = penalty * (bound_s - least_s) + least_s if tiles > sms else bound_s
        bounds.append((counted_s, tiles, penalty, fit))
    bounds.sort(key=_first)
    for bound_s, tiles, penalty, fit in bounds:
        if bound_s >= best_s:
            break
        time_s = _estimate_s(fit, style, m, n, k, batch, 1, size, result, rates, hbm_bytes, 0.0)
        counted_s = penalty * (time_s - least_s) + least_s if tiles > sms else time_s
        if counted_s < best_s:
            best, best_s = Plan(time_s, fit, 1), counted_s
    # Slices of k.
    least_s += rates.start_s + rates.reduction_latency_s
    read_s = FP32_BYTES * elements / rates.l2  # for the reduction to read one part
    split_bounds = []
    most_waves, most_splits = rates.most_split_waves, rates.most_splits
    for _, tiles, penalty, fit in bounds:
        slots = fit.slots
        most = min(most_waves * slots // tiles, k // fit.least_slice, most_splits)
        fixed_s = least_s + FP32_BYTES * empty_s / tiles
        if most < 2 or fixed_s + k * (fit.wait_s_per_k / most + fit.pipe_s_per_k * tiles / sms) >= best_s:
            continue
        # And those that give each SM one, or fill the device once or twice.
        for split in {*SPLITS, sms // tiles, slots // tiles, 2 * slots // tiles, most}:
            if 2 <= split <= most:
                ctas = tiles * split
                bound_s = fixed_s + split * read_s + _least_s(fit, ctas, k / split, sms, 0.0)
                counted = penalty if ctas > sms else 1.0
                counted_s = counted * (bound_s - least_s) + least_s
                if counted_s < best_s:
                    split_bounds.append((counted_s, split, counted, fit))
    split_bounds.sort(key=_first)
    for bound_s, split, counted, fit in split_bounds:
        if bound_s >= best_s:
            break
        product, summing = traffic.repeated(hardware, float(FP32_BYTES * elements * split))
        time_s = _estimate_s(fit, style, m, n, k, batch, split, size, result, rates, product, summing)
        counted_s = counted * (time_s - least_s) + least_s
        if counted_s < best_s:
            best, best_s = Plan(time_s, fit, split), counted_s
    return best


_first = operator.itemgetter(0)


def _least_padded(fitted: tuple[Fit, ...], m: int, n: int, batch: int, sms: int) -> tuple[Fit, ...]:
    """The candidates for a product. For many with a side that wgmma has to pad, those that pad least: the library counts the
    multiply-adds of tiles, not what each takes beside them (our own H200: 16,384 of 8 x 160 x 8 run as four tiles of 64 x 8 each,
    in four times the time of one of 128 x 16)."""
    if batch == 1 or min(m, n) >= WGMMA_ROWS or not fitted[0].tile.in_clusters:
        return fitted
    areas = [-(-m // fit.tile.m) * fit.tile.m * -(-n // fit.tile.n) * fit.tile.n for fit in fitted]
    least = min(areas)
    chosen = tuple(fit for fit, area in zip(fitted, areas, strict=True) if area == least)
    return chosen if batch > sms else fitted


def _cuts(fitted: tuple[Fit, ...], m: int, n: int, most_padding: float) -> list[tuple[Fit, int, int]]:
    """The candidates with the tiles that each cuts C into, down and across, but for those that together cover more than `most_padding`
    times what the least cover: the time of padding may hide behind memory, its energy does not (two rows in a tile of 256: 128 times
    the multiply-adds)."""
    cuts = [(fit, -(-m // fit.tile.m), -(-n // fit.tile.n)) for fit in fitted]
    areas = [down * fit.tile.m * across * fit.tile.n for fit, down, across in cuts]
    most = most_padding * min(areas)
    return [cut for cut, area in zip(cuts, areas, strict=True) if area <= most]


def _operand_reads(m: int, n: int, tile_m: int, tile_n: int) -> float:
    """Elements of A and B that CTAs read for one product, with the better way to lay the tile."""
    return min(1 / min(tile_m, m) + 1 / min(tile_n, n), 1 / min(tile_n, m) + 1 / min(tile_m, n))


def _least_s(fit: Fit, ctas: int, depth: float, sms: int, hbm_s: float) -> float:
    """A bound below what `ctas` CTAs of `depth` k take: the synchronisations of the first wave, and then the busiest
    SM's pipe, the other waves' synchronisations, or HBM."""
    wait_s = depth * fit.wait_s_per_k
    busiest_s = depth * fit.pipe_s_per_k * -(-ctas // sms)
    others_s = (-(-ctas // fit.slots) - 1) * wait_s
    if others_s > busiest_s:
        busiest_s = others_s
    return wait_s + (hbm_s if hbm_s > busiest_s else busiest_s)


class Rates(NamedTuple):
    """The device's numbers that every estimate uses.

    l2_port: bytes/s of one SM. fp32: FLOP/s of one SM. start_s: launch and start. most_splits: slices of k at most;
    most_split_waves: and the waves of CTAs that they make. reduction_in_flight: bytes a CTA of the reduction keeps in flight;
    reduction_per_sm: how many fit on an SM.
    """

    sms: int
    clock_hz: float
    l2_port: float
    l2: float
    hbm: float
    hbm_latency_s: float
    fp32: float
    start_s: float
    dispatch_s: float
    l2_usable_bytes: float
    most_splits: int
    most_split_waves: int
    reduction_latency_s: float
    reduction_in_flight: float
    reduction_per_sm: int


@functools.lru_cache(MOST_DEVICES)
def rates_of(hardware: Hardware) -> Rates:
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
    )


class Work(NamedTuple):
    """A CTA's demands, as in `Kernel`, and the grid."""

    grid: int
    flops: float
    shared_bytes: float
    l2_bytes: float
    latency_s: float
    bytes_in_flight: float
    memory_efficiency: float
    reread_bytes: float

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
    fit: Fit,
    style: GemmStyle,
    m: int,
    n: int,
    k: int,
    batch: int,
    split: int,
    size: float,
    rates: Rates,
    hbm_bytes: float,
    result_bytes: float = 0.0,
) -> tuple[int, float, float, float, float, float, float, float]:
    """The fields of `Work`, as a plain tuple for speed. hbm_bytes: of the product, without what it reads again. result_bytes: of
    an element of C, `size` as of A's and B's where it is 0."""
    tile, slots, step = fit.tile, fit.slots, fit.k
    tile_m, tile_n = tile.m, tile.n
    down, across = -(-m // tile_m), -(-n // tile_n)
    steps = -(-k // (split * step))
    depth = steps * step
    rows, columns = m / down, n / across  # of the matrices in a tile, on average
    out_bytes = rows * columns * (FP32_BYTES if split > 1 else result_bytes or size)
    operand_bytes = (rows + columns) * min(depth, k) * size
    shared = down * across > 1
    l2_bytes = operand_bytes * (style.multicast if shared else 1.0) + out_bytes
    read, written = float(m + n) * k, float(m) * n
    efficiency = (read + written) / (read / style.read_efficiency + written / style.write_efficiency)
    grid = tiles_of(tile, down, across) * split * batch
    reread_bytes = 0.0
    if (m + n) * k * size >= rates.l2_usable_bytes:
        reread_bytes = batch * _reread_bytes(m, n, k, down, across, tile, split, size, rates)
    # All CTAs of a wave begin to fill their rings at once.
    filled = min(tile.stages * step / depth, 1.0) * min(grid, slots) / efficiency
    fill_s = filled * max(operand_bytes / rates.l2, (hbm_bytes + reread_bytes) / grid / rates.hbm)
    paired_cycles = style.cluster_cycles if shared and tile.in_clusters else 0.0
    latency_s = (
        style.setup_cycles
        + paired_cycles
        + style.step_cycles * steps
        + out_bytes / style.epilogue_bytes_per_cycle
    ) / rates.clock_hz + style.exposed_fill * fill_s
    return (
        grid,
        2.0 * tile_m * tile_n * depth,
        (tile.feed_bytes + style.fill_cost * 2 * (tile_m + tile_n)) * size / 2 * depth,
        l2_bytes,
        latency_s,
        fit.slots_in_flight * (rows + columns) * step * size,
        efficiency,
        reread_bytes,
    )


def tiles_of(tile: Tile, down: int, across: int) -> int:
    """Tiles of a product: where more than one, wgmma's come in pairs, the CTAs of a cluster (`1x2`, `2x1` in nvjet's names), along
    the side that leaves the fewest over."""
    tiles = down * across
    if tiles == 1 or tiles % 2 == 0 or not tile.in_clusters:
        return tiles
    return tiles + min(down, across)


def _reread_bytes(
    m: int, n: int, k: int, down: int, across: int, tile: Tile, split: int, size: float, rates: Rates
) -> float:
    """HBM bytes fetched again in one product whose A and B L2 cannot hold: a wave covers about a square of C; what the next
    wave needs of them again is still there only if it fits."""
    a_bytes, b_bytes = float(m * k * size), float(n * k * size)
    usable = rates.l2_usable_bytes
    wave = rates.sms / split
    high = min(max(math.sqrt(wave * tile.n / tile.m), 1.0), down)
    wide = min(max(wave / high, 1.0), across)
    again = 0.0
    if b_bytes > usable:
        again += (math.ceil(down / high) - 1) * b_bytes
    if high * tile.m * k * size > usable:
        again += (math.ceil(across / wide) - 1) * a_bytes
    return again


def _estimate_s(
    fit: Fit,
    style: GemmStyle,
    m: int,
    n: int,
    k: int,
    batch: int,
    split: int,
    size: int,
    result: int,
    rates: Rates,
    hbm_bytes: float,
    reduction_bytes: float,
) -> float:
    """`lone_time_s` of the plan's kernels, in plain arithmetic: this runs for every candidate."""
    tile = fit.tile
    grid, flops, _, l2_bytes, latency_s, in_flight, efficiency, reread_bytes = work_of(
        fit, style, m, n, k, batch, split, size, rates, hbm_bytes, result
    )
    l2_bytes /= efficiency
    hbm_bytes = (hbm_bytes + reread_bytes) / (grid * efficiency)
    local_s = max(fit.pipe_s_per_k * flops / (2.0 * tile.m * tile.n), l2_bytes / rates.l2_port)
    time_s = _waves_s(grid, fit.per_sm, local_s, latency_s, l2_bytes, hbm_bytes, in_flight, rates)
    return time_s + _reduction_s(batch * m * n, split, reduction_bytes, rates) if split > 1 else time_s


def _waves_s(
    grid: int,
    per_sm: int,
    local_s: float,
    latency_s: float,
    l2_bytes: float,
    hbm_bytes: float,
    bytes_in_flight: float,
    rates: Rates,
) -> float:
    """The closed form of `kernel.lone_time_s`, from a CTA's busiest pipe and bytes. Comparisons, where max would be called, cost
    a third."""
    slots = per_sm * rates.sms
    from_l2_s, from_hbm_s = l2_bytes / rates.l2, hbm_bytes / rates.hbm
    spread_s = from_l2_s if from_l2_s > from_hbm_s else from_hbm_s
    most_bytes = l2_bytes if l2_bytes > hbm_bytes else hbm_bytes
    alone_s = most_bytes * rates.hbm_latency_s / bytes_in_flight
    if local_s > alone_s:
        alone_s = local_s
    if spread_s > alone_s:
        alone_s = spread_s
    waves, rest = divmod(grid, slots)
    time_s = rates.start_s + latency_s
    if waves:
        full_s = max(local_s * per_sm, spread_s * slots)
        time_s += (
            max(alone_s, full_s) + (waves - 1) * max(latency_s + alone_s, full_s) + waves * rates.dispatch_s
        )
    if rest:
        least_s = latency_s + alone_s if waves else alone_s
        time_s += max(least_s, local_s * -(-rest // rates.sms), spread_s * rest) + rates.dispatch_s
    return time_s


def _reduction_s(elements: int, split: int, hbm_bytes: float, rates: Rates) -> float:
    """`lone_time_s` of the kernel that sums the partial results (`gemm.reduction`)."""
    grid = -(-elements // REDUCTION_THREADS)
    l2_bytes = reduction_l2_bytes(split)
    hbm_bytes /= grid
    local_s = max(l2_bytes / rates.l2_port, REDUCTION_THREADS * split / rates.fp32)
    return _waves_s(
        grid,
        rates.reduction_per_sm,
        local_s,
        rates.reduction_latency_s,
        l2_bytes,
        hbm_bytes,
        rates.reduction_in_flight,
        rates,
    )


def reduction_l2_bytes(split: int) -> float:
    """Bytes of L2 that a CTA of the reduction moves."""
    return REDUCTION_THREADS * (FP32_BYTES * split + REDUCED_BYTES)
