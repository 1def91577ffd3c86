"""Matrix products: the kernel (or two) that cuBLAS launches for C[m,n] = A[m,k]·B[k,n].

What a GEMM kernel is. C is cut into tiles; a CTA computes one tile, or with split-K one slice of its k range. It
streams slices of A and B through a ring of `stages` buffers in shared memory to the tensor cores and writes the tile
at the end. Its time follows from what that takes:

- tensor cores: the FLOPs of the whole tile, padding included; this is why m = 129 costs what m = 256 costs;
- shared memory: what feeds the tensor cores. With mma.sync (Volta to Ada) each warp reads its own rows of A and
  columns of B, (warp_m + warp_n) elements a k: small warp tiles read more for a FLOP. With wgmma (Hopper) four warps
  read 64 rows of A and the tile's columns of B once; with tcgen05 (Blackwell) 128 rows. Filling the ring takes its
  part;
- L2: (m + n) of the tile a k, less what a cluster's multicast saves on Hopper; HBM: unique bytes, less what L2 still
  holds (`Traffic`), and once more what a wave of CTAs in square raster order cannot keep in L2;
- latency: setting up, filling the ring, one synchronisation a ring slot, and the epilogue that empties the accumulators;
  and no slot takes less than the dependent instructions of its products.

Tile and split are chosen by predicted time, as the library's heuristics do, with a preference for reuse: measured on
A100, more than one wave of CTAs means tiles of 256 x 128, also where three waves of 128 x 128 would end sooner than two
of them. A split needs a second kernel that sums the partial results. m = 1 (or n = 1) may also run as GEMV on the CUDA
cores.

Sources. Tiles: kernel names of cuBLAS 12 and 13 (`ampere_bf16_s16816gemm_bf16_128x128_ldg8_stages_32x5`, `nvjet_..`,
`sm90_xmma_gemm_..tilesize256x128x64_warpgroupsize2x1x1`) and CUTLASS's default configurations; those that made the
measured devices less accurate, or made no difference, were left out. Fragment traffic: PTX ISA, mma.sync and wgmma.
Fitted constants are in hw_configs/libraries.yaml.
"""

from __future__ import annotations

import functools
import math
import operator
from typing import NamedTuple

from simtti.hw_configs.hardware import Hardware
from simtti.hw_configs.parameters import GemmStyle
from simtti.simulator.closed_form import lone_time_s
from simtti.simulator.kernel import Access, Kernel
from simtti.simulator.kernels.family import (
    Cells,
    Column,
    Family,
    Target,
    Work,
    lowered_by,
    needed,
    reads_of,
    writes_of,
)
from simtti.simulator.kernels.machine import FusedMultiplyAdds, fused_multiply_adds, has_wgmma
from simtti.workloads.trace import Operator

ELEMENT_BYTES = {"fp16": 2, "bf16": 2, "fp32": 4, "fp8": 1}

# FLOPs a cycle and SM of mma.sync on fp16, at most: 62 % of an H100's 4,096, whose full rate needs wgmma (Luo et al.,
# Benchmarking and Dissecting the Nvidia Hopper GPU Architecture, 2024, table of mma against wgmma throughput; quoted
# from memory, not looked up again). Blackwell's warps issue no faster.
MOST_MMA_FLOPS_PER_CYCLE = 0.62 * 4096


class Tile(NamedTuple):
    """A kernel of the catalogue: tile m x n, ring of `stages` slots of `k` two-byte elements (half as many of four)."""

    m: int
    n: int
    k: int
    stages: int
    threads: int
    registers: int  # per thread
    feed_bytes: float  # shared-memory reads for the tensor cores per k, two-byte elements
    wide_feed_bytes: float = (
        0.0  # the same with instructions of 128 rows for pairs of SMs, each of which holds half of B
    )

    @property
    def ring_bytes(self) -> int:
        return self.stages * (self.m + self.n) * self.k * 2


def _mma_tile(m: int, n: int, k: int, stages: int, warp_m: int, warp_n: int, registers: int) -> Tile:
    warps = (m // warp_m) * (n // warp_n)
    return Tile(m, n, k, stages, 32 * warps, registers, warps * (warp_m + warp_n) * 2.0)


def _wgmma_tile(m: int, n: int) -> Tile:
    """m is the side that wgmma takes 64 rows of.

    Up to 128 x 128 two tiles fit on an SM (CUTLASS's ping-pong schedule does the same inside one CTA); larger ones
    take it all, with two consumer warpgroups and a producer.
    """
    shares_sm = m * n <= 128 * 128
    threads = 128 * (2 if m == 64 or (shares_sm and n <= 64) else 3)
    stages = min(8, (108 if shares_sm else 222) * 1024 // ((m + n) * 128))
    registers = 168 if not shares_sm else 104 if threads == 384 else 128
    feed = m / 64 * (64 + n) * 2.0
    wide = max(m / 128, 1) * (min(m, 128) + n / 2) * 2.0
    return Tile(m, n, 64, stages, threads, registers, feed, wide)


def _transposed(tile: Tile) -> Tile:
    """The same kernel for the transposed problem."""
    return tile._replace(m=tile.n, n=tile.m)


MMA_TILES = (
    _mma_tile(256, 128, 32, 3, 64, 64, 232),
    _mma_tile(128, 256, 32, 3, 64, 64, 232),
    _mma_tile(128, 128, 64, 3, 64, 32, 168),
    _mma_tile(128, 64, 32, 6, 64, 32, 150),
    _mma_tile(64, 128, 32, 6, 32, 64, 150),
    _mma_tile(64, 64, 32, 8, 32, 32, 100),
    _mma_tile(32, 128, 64, 5, 32, 32, 100),
    _mma_tile(32, 64, 64, 6, 16, 32, 80),
)
WGMMA_TILES = (
    *(
        _wgmma_tile(m, n)
        for m, n in (
            (192, 192), (256, 160), (192, 160), (192, 128), (128, 128), (128, 96),
            (64, 64), (64, 32), (64, 16), (64, 8),
        )
    ),
    *(
        _transposed(_wgmma_tile(m, n))
        for m, n in ((256, 160), (256, 128), (192, 128), (128, 160), (128, 96), (64, 128), (64, 96))
    ),
)  # fmt: skip

# fp32 on the CUDA cores (`ampere_sgemm_128x128_nn` and its like): a thread of the larger tiles has 8 x 8 results, so that
# it issues 64 FMAs to four 16-byte loads from shared memory. Where there is TF32, fp32 means TF32 here: PyTorch's switch
# for matrix products is off by default, but every fp32 pipeline measured on an Ampere ran with it on (SDXL on A100, diffusion-fast:
# 7.36 s; 7.1 s with TF32, 20.9 s without; Stable Diffusion, lambda-diffusers, likewise).
SGEMM_TILES = (
    _mma_tile(128, 128, 16, 3, 32, 64, 122),
    _mma_tile(128, 64, 16, 3, 32, 64, 122),
    _mma_tile(64, 128, 16, 3, 64, 32, 122),
    _mma_tile(64, 64, 16, 4, 32, 32, 90),
    _mma_tile(128, 32, 16, 4, 32, 32, 90),
    _mma_tile(32, 128, 16, 4, 32, 32, 90),
    _mma_tile(32, 32, 16, 6, 16, 32, 64),
)
SGEMM_EFFICIENCY = (
    0.94  # of the FP32 pipes: cuBLAS attains 18.4 of 19.5 TFLOP/s on A100, by memory; nothing measured here
)
# Issue slots beside each FMA: loads, addresses. They count where the FMAs take all slots, on SMs of 128 lanes.
SGEMM_OVERHEAD = 0.12

# Batched products of matrices with a side up to 16 and few products, as temporal attention makes them, run on CUTLASS's wmma
# kernels of one warp (`cutlass_80_wmma_tensorop_bf16_s161616gemm_bf16_16x16_32x1_nn_align8` on H100, TraceLens): 37,632 of
# 8 x 64 x 8, four tiles each, take 108 us, of 8 x 8 x 64 41 us; 12 of 5 x 5 x 64 3.1 us.
TINY = 16
TINY_PRODUCT = 16 * 64 * 64
TINY_SLOTS = 740  # instructions of a thread: iterators, one stage, epilogue through shared memory [200, 1500]
TINY_EFFICIENCY = 0.7  # of attainable HBM and L2 bandwidth, for rows of some tens of bytes [0.4, 1]
TINY_LATENCY_S = 1.0e-6  # first load to last store of one [0.5e-6, 3e-6]

# A slice of split-K keeps at least this many ring slots: below, its prologue outweighs it.
LEAST_SLOTS_OF_A_SLICE = 2
MOST_SPLITS = 128
# Products of a few waves are split as well, so that the last wave is short: cuBLAS does it on A100 where k is over 6,000.
MOST_WAVES_OF_A_SPLIT = 8

LARGEST_TILE = (256, 128)  # the usual one; what reuse is compared with

# The kernel that sums split-K's partial results: one output element a thread, eight loads in flight.
REDUCTION_THREADS = 256
REDUCTION_LOADS = 8
REDUCTION_LATENCY_S = 0.05e-6  # beyond what every kernel's start has; fitted [0, 1e-6]

# Benchmarks of a product keep its input and go round as many sets of weights (aiconfigurator's collector: 6), so that
# the input and the output are still in L2 where they fit and the weights hardly ever are. The libraries' choices
# suit operands that are found there.
WEIGHT_SETS = 6

# GEMV: a CTA of four warps takes `columns` outputs and reads their weights in 16-byte loads, two in flight a thread.
GEMV_COLUMNS = (1, 4, 16)
GEMV_THREADS = 128
GEMV_IN_FLIGHT_BYTES = GEMV_THREADS * 16 * 2
GEMV_LATENCY_CYCLES = 1500.0  # first loads, reduction across the warps
GEMV_EFFICIENCY = 0.85  # of attainable HBM and L2 bandwidth
GEMV_CONVERSIONS = 2.0  # FP32-pipe operations to widen one weight from 16 bit


class Plan(NamedTuple):
    """A choice for one product: the tile, in how many slices of k, and what the estimate says."""

    time_s: float
    fit: _Fit | None  # None: GEMV
    split: int  # slices of k; for GEMV the columns a CTA takes


def gemm(
    m: int,
    n: int,
    k: int,
    batch: int,
    dtype: str,
    hardware: Hardware,
    *,
    a: int = -1,
    b: int = -2,
    c: int = -3,
    workspace: int = -4,
    reads: tuple[Access, ...] | None = None,
    writes: tuple[Access, ...] | None = None,
    name: str = "gemm",
    family: str = "gemm",
) -> list[Kernel]:
    """The kernels of `batch` products C[m,n] = A[m,k]·B[k,n].

    Args:
        dtype: fp16, bf16, fp8, or fp32, which runs as TF32, on the CUDA cores where the device has no TF32.
        a, b, c: tensor identities of the operands, each counted `batch` times.
        workspace: identity of split-K's partial results.
        reads, writes: unique bytes by tensor instead of the three dense matrices, where operands are shared between
            the products, gathered (an implicit GEMM), or more than two (a bias).

    Returns:
        One kernel, or the product and the reduction of split-K.
    """
    if min(m, n, k, batch) < 1:
        raise ValueError(f"gemm {name}: m, n, k and batch must be at least 1, not {m}, {n}, {k}, {batch}")
    size = ELEMENT_BYTES[dtype]
    if reads is None:
        reads = (Access(a, float(batch * m * k * size)), Access(b, float(batch * n * k * size)))
    if writes is None:
        writes = (Access(c, float(batch * m * n * size)),)
    if batch > 1 and min(m, n) <= TINY and m * n * k <= TINY_PRODUCT and not _on_cuda_cores(hardware, dtype):
        return [_tiny_kernel(m, n, k, batch, dtype, hardware, reads, writes, name, family)]
    traffic = Traffic(
        reads[0].nbytes,
        sum(access.nbytes for access in reads[1:]),
        sum(access.nbytes for access in writes),
    )
    plan = choose(m, n, k, batch, dtype, hardware, traffic)
    if plan.fit is None:
        repeated = traffic.repeated(hardware.l2_usable_bytes)[0]
        return [_gemv_kernel(plan.split, max(m, n), k, size, hardware, reads, writes, repeated, name, family)]
    tile, split = plan.fit.tile, plan.split
    style = _catalogue(hardware, dtype, _aligned(n, k, size))[0]
    rates = _rates(hardware)
    partial_bytes = 4.0 * batch * m * n * split if split > 1 else 0.0
    product_bytes, reduction_bytes = traffic.repeated(rates.l2_usable_bytes, partial_bytes)
    work = _Work(*_work(plan.fit, style, m, n, k, batch, split, size, rates, product_bytes))
    cuda_cores = _on_cuda_cores(hardware, dtype)
    product = Kernel(
        name=f"{name}_{tile.m}x{tile.n}" + (f"_splitk{split}" if split > 1 else ""),
        family=family,
        grid=work.grid,
        threads=tile.threads,
        registers=tile.registers,
        shared_memory_bytes=tile.ring_bytes,
        tensor_flops=0.0 if cuda_cores else work.flops,
        fp32_flops=_sgemm_products(work.flops / 2).flops if cuda_cores else 0.0,
        issue_slots=_sgemm_products(work.flops / 2).slots if cuda_cores else 0.0,
        tensor_dtype="fp16" if cuda_cores else dtype,
        tensor_efficiency=_tensor_share(style, hardware),
        shared_bytes=work.shared_bytes,
        l2_bytes=work.l2_bytes,
        latency_s=work.latency_s,
        bytes_in_flight=work.bytes_in_flight,
        memory_efficiency=work.memory_efficiency,
        reads=reads,
        writes=writes if split == 1 else (Access(workspace, partial_bytes),),
        hbm_reread_bytes=work.reread_bytes,
        repeated_hbm_bytes=product_bytes + work.reread_bytes,
        flops=2.0 * batch * m * n * k,
    )
    if split == 1:
        return [product]
    summing = reduction(batch * m * n, split, hardware, workspace, writes, reduction_bytes, name, family)
    return [product, summing]


class Traffic(NamedTuple):
    """Unique bytes that a product reads of its input and of its weights and writes of its output."""

    input_bytes: float
    weight_bytes: float
    output_bytes: float

    def repeated(self, usable_bytes: float, partial_bytes: float = 0.0) -> tuple[float, float]:
        """Bytes to and from HBM of the product and of its reduction in a benchmark that goes round the weights.

        What is touched again after x other bytes is still in L2 with the chance 1 - x / usable: lines are replaced by
        hashed sets, not in strict order.

        usable_bytes: of L2. partial_bytes: partial results of split-K, written by the one and read by the other.
        """
        once = self.input_bytes + self.weight_bytes + self.output_bytes
        round_trip = once + (WEIGHT_SETS - 1) * self.weight_bytes
        misses = min(once / usable_bytes, 1.0)
        read = self.input_bytes * misses + self.weight_bytes * min(round_trip / usable_bytes, 1.0)
        written = self.output_bytes * misses
        if not partial_bytes:
            return read + written, 0.0
        spilled = partial_bytes * min((once - self.output_bytes + partial_bytes) / usable_bytes, 1.0)
        return read + spilled, spilled + written


@functools.lru_cache(maxsize=65536)
def choose(m: int, n: int, k: int, batch: int, dtype: str, hardware: Hardware, traffic: Traffic) -> Plan:
    """The library's choice: the least time, by an estimate that equals `lone_time_s` of the plan's kernels, and times
    its preference for reuse where CTAs outnumber SMs."""
    size = ELEMENT_BYTES[dtype]
    style, fitted = _catalogue(hardware, dtype, _aligned(n, k, size))
    rates = _rates(hardware)
    sms = rates.sms
    hbm_bytes = traffic.repeated(rates.l2_usable_bytes)[0]
    hbm_s = hbm_bytes / rates.hbm
    least_s = rates.start_s + style.setup_cycles / rates.clock_hz
    best = Plan(math.inf, None, 1)
    if batch == 1 and min(m, n) == 1 and size > 1:
        best = _best_gemv(max(m, n), k, size, hardware, hbm_bytes)
    best_s = best.time_s
    # Candidates go in the order of a bound below what they count: once that is more than the best, so is the rest.
    bounds = []
    fewest = _operand_reads(m, n, *LARGEST_TILE)
    elements = batch * m * n
    empty_s = elements / (
        style.epilogue_bytes_per_cycle * rates.clock_hz
    )  # to empty the accumulators of all, a byte each
    for fit in fitted:
        down, across = -(-m // fit.tile.m), -(-n // fit.tile.n)
        tiles = down * across * batch
        penalty = 1.0 + style.reuse_preference * max((down / m + across / n) / fewest - 1.0, 0.0)
        bound_s = least_s + size * empty_s / tiles + _least_s(fit, tiles, k, sms, hbm_s)
        counted_s = penalty * (bound_s - least_s) + least_s if tiles > sms else bound_s
        bounds.append((counted_s, tiles, penalty, fit))
    bounds.sort(key=_first)
    for bound_s, tiles, penalty, fit in bounds:
        if bound_s >= best_s:
            break
        time_s = _estimate_s(fit, style, m, n, k, batch, 1, size, rates, hbm_bytes, 0.0)
        counted_s = penalty * (time_s - least_s) + least_s if tiles > sms else time_s
        if counted_s < best_s:
            best, best_s = Plan(time_s, fit, 1), counted_s
    least_s += rates.start_s + REDUCTION_LATENCY_S
    read_s = 4.0 * elements / rates.l2  # for the reduction to read one part
    split_bounds = []
    for _, tiles, penalty, fit in bounds:
        most = min(MOST_WAVES_OF_A_SPLIT * fit.slots // tiles, k // fit.least_slice, MOST_SPLITS)
        fixed_s = least_s + 4.0 * empty_s / tiles
        if most < 2 or fixed_s + k * (fit.wait_s_per_k / most + fit.pipe_s_per_k * tiles / sms) >= best_s:
            continue
        full = fit.slots // tiles  # slices that fill the device once
        for split in {2, 3, 4, 5, 6, 8, sms // tiles, full, 2 * fit.slots // tiles, most}:
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
        product, summing = traffic.repeated(rates.l2_usable_bytes, 4.0 * elements * split)
        time_s = _estimate_s(fit, style, m, n, k, batch, split, size, rates, product, summing)
        counted_s = counted * (time_s - least_s) + least_s
        if counted_s < best_s:
            best, best_s = Plan(time_s, fit, split), counted_s
    return best


_first = operator.itemgetter(0)


def _operand_reads(m: int, n: int, tile_m: int, tile_n: int) -> float:
    """Elements of A and B that CTAs read for one product, with the better way to lay the tile."""
    return min(1 / min(tile_m, m) + 1 / min(tile_n, n), 1 / min(tile_n, m) + 1 / min(tile_m, n))


def _least_s(fit: _Fit, ctas: int, depth: float, sms: int, hbm_s: float) -> float:
    """A bound below what `ctas` CTAs of `depth` k take: the synchronisations of the first wave, and then the busiest
    SM's pipe, the other waves' synchronisations, or HBM."""
    waves = -(-ctas // fit.slots)
    wait_s = depth * fit.wait_s_per_k
    return wait_s + max(depth * fit.pipe_s_per_k * -(-ctas // sms), (waves - 1) * wait_s, hbm_s)


def _aligned(n: int, k: int, size: int) -> bool:
    """Rows of A and B (k long) and of C (n long) are whole 16 bytes, as TMA and 16-byte loads need."""
    return k * size % 16 == 0 and n * size % 16 == 0


class _Rates(NamedTuple):
    """The device's numbers that every estimate uses."""

    sms: int
    clock_hz: float
    l2_port: float  # bytes/s of one SM
    l2: float
    hbm: float
    hbm_latency_s: float
    fp32: float  # FLOP/s of one SM
    start_s: float  # launch and start
    dispatch_s: float
    l2_usable_bytes: float
    reduction_in_flight: float
    reduction_per_sm: int


@functools.lru_cache(maxsize=64)
def _rates(hardware: Hardware) -> _Rates:
    return _Rates(
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
        # What it reads was just written: scaled so that L2's latency, not HBM's, bounds the rate.
        REDUCTION_THREADS * 4 * REDUCTION_LOADS * hardware.hbm_latency_s / hardware.l2_latency_s,
        min(hardware.max_ctas_per_sm, hardware.max_threads_per_sm // REDUCTION_THREADS),
    )


class _Fit(NamedTuple):
    """A tile on a device: how many fit on an SM and on all, elements of k a ring slot, seconds a k of its busiest pipe
    and of its synchronisations, ring slots whose loads are under way at once, and the shortest slice of k."""

    tile: Tile
    per_sm: int
    slots: int
    k: int
    pipe_s_per_k: float
    wait_s_per_k: float
    slots_in_flight: float
    least_slice: int


@functools.lru_cache(maxsize=256)
def _catalogue(hardware: Hardware, dtype: str, aligned: bool) -> tuple[GemmStyle, tuple[_Fit, ...]]:
    """The kernels the device can run: wgmma needs its generation and, for TMA, rows of whole 16 bytes."""
    cuda_cores = _on_cuda_cores(hardware, dtype)
    wgmma = aligned and has_wgmma(hardware) and not cuda_cores
    style = (
        hardware.gemm_wgmma
        if wgmma
        else hardware.gemm_mma
        if aligned or cuda_cores
        else hardware.gemm_unaligned
    )
    size = ELEMENT_BYTES[dtype]
    clock = hardware.clock_hz
    fitted = []
    wide = wgmma and hardware.architecture == "blackwell"
    for tile in WGMMA_TILES if wgmma else SGEMM_TILES if cuda_cores else MMA_TILES:
        room = hardware.shared_memory_per_sm_bytes - 1024
        if (
            wide
        ):  # tcgen05.mma takes 128 rows an SM, with cta_group::2 and the columns' half from each (PTX ISA)
            tile = tile._replace(feed_bytes=tile.wide_feed_bytes)
        if tile.ring_bytes > room:  # older devices run the same tile with a shorter ring
            tile = tile._replace(stages=room // (tile.ring_bytes // tile.stages))
        if tile.stages < 2:
            continue
        warps = tile.threads // 32
        per_sm = min(
            hardware.max_ctas_per_sm,
            hardware.max_threads_per_sm // tile.threads,
            hardware.registers_per_sm // (-(-tile.registers * 32 // 256) * 256 * warps),
            int(hardware.shared_memory_per_sm_bytes // (tile.ring_bytes + 1024)),
        )
        if per_sm < 1:
            continue
        macs = float(tile.m * tile.n)
        if cuda_cores:
            products = _sgemm_products(macs).cycles(hardware)
        else:
            rate = hardware.tensor_flops_per_cycle_sm(dtype) * _tensor_share(style, hardware)
            products = 2.0 * macs / rate
        pipe = max(
            products,
            (tile.feed_bytes + style.fill_cost * 2 * (tile.m + tile.n))
            * size
            / 2
            / hardware.shared_memory_bytes_per_cycle_sm,
        )
        step = max(tile.k * 2 // size, 1)
        wait = style.step_cycles / step
        # A slot is loaded again only after its products, so that a slow chain of them leaves less under way.
        chain_s = style.chain_cycles * tile.k / 32 / clock
        in_flight = min(tile.stages, hardware.hbm_latency_s / chain_s) if chain_s else float(tile.stages)
        fitted.append(
            _Fit(
                tile,
                per_sm,
                per_sm * hardware.sm_count,
                step,
                pipe / clock,
                wait / clock,
                in_flight,
                LEAST_SLOTS_OF_A_SLICE * step,
            )
        )
    return style, tuple(fitted)


def _tensor_share(style: GemmStyle, hardware: Hardware) -> float:
    """Share of the tensor cores' rate, the same for each type, that the instructions of a style reach."""
    if style is hardware.gemm_wgmma or not hardware.tensor_fp16_flops_per_cycle_sm:
        return 1.0
    return min(MOST_MMA_FLOPS_PER_CYCLE / hardware.tensor_fp16_flops_per_cycle_sm, 1.0)


def _on_cuda_cores(hardware: Hardware, dtype: str) -> bool:
    return dtype == "fp32" and not hardware.tensor_tf32_flops_per_cycle_sm


def _sgemm_products(macs: float) -> FusedMultiplyAdds:
    return fused_multiply_adds(macs, SGEMM_EFFICIENCY, SGEMM_OVERHEAD)


class _Work(NamedTuple):
    """A CTA's demands, as in `Kernel`, and the grid."""

    grid: int
    flops: float
    shared_bytes: float
    l2_bytes: float
    latency_s: float
    bytes_in_flight: float
    memory_efficiency: float
    reread_bytes: float


def _work(
    fit: _Fit,
    style: GemmStyle,
    m: int,
    n: int,
    k: int,
    batch: int,
    split: int,
    size: int,
    rates: _Rates,
    hbm_bytes: float,
) -> tuple[int, float, float, float, float, float, float, float]:
    """The fields of `_Work`, as a plain tuple for speed. hbm_bytes: of the product, without what it reads again."""
    tile = fit.tile
    down, across = -(-m // tile.m), -(-n // tile.n)
    step = fit.k
    steps = -(-k // (split * step))
    depth = steps * step
    rows, columns = m / down, n / across  # of the matrices in a tile, on average
    out_bytes = rows * columns * (4 if split > 1 else size)
    operand_bytes = (rows + columns) * min(depth, k) * size
    shared = down * across > 1
    l2_bytes = operand_bytes * (style.multicast if shared else 1.0) + out_bytes
    read, written = float(m + n) * k, float(m) * n
    efficiency = (read + written) / (read / style.read_efficiency + written / style.write_efficiency)
    grid = down * across * split * batch
    reread_bytes = batch * _reread_bytes(m, n, k, down, across, tile, split, size, rates)
    # All CTAs of a wave begin to fill their rings at once.
    filled = min(tile.stages * step / depth, 1.0) * min(grid, fit.slots) / efficiency
    fill_s = filled * max(operand_bytes / rates.l2, (hbm_bytes + reread_bytes) / grid / rates.hbm)
    latency_s = (
        style.setup_cycles + style.step_cycles * steps + out_bytes / style.epilogue_bytes_per_cycle
    ) / rates.clock_hz + style.exposed_fill * fill_s
    return (
        grid,
        2.0 * tile.m * tile.n * depth,
        (tile.feed_bytes + style.fill_cost * 2 * (tile.m + tile.n)) * size / 2 * depth,
        l2_bytes,
        latency_s,
        fit.slots_in_flight * (rows + columns) * step * size,
        efficiency,
        reread_bytes,
    )


def _reread_bytes(
    m: int, n: int, k: int, down: int, across: int, tile: Tile, split: int, size: int, rates: _Rates
) -> float:
    """HBM bytes fetched again in one product: a wave covers about a square of C; what the next wave needs of A and B
    again is still in L2 only if it fits."""
    a_bytes, b_bytes = float(m * k * size), float(n * k * size)
    usable = rates.l2_usable_bytes
    if a_bytes + b_bytes < usable:
        return 0.0
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
    fit: _Fit,
    style: GemmStyle,
    m: int,
    n: int,
    k: int,
    batch: int,
    split: int,
    size: int,
    rates: _Rates,
    hbm_bytes: float,
    reduction_bytes: float,
) -> float:
    """`lone_time_s` of the plan's kernels, in plain arithmetic: this runs for every candidate."""
    tile = fit.tile
    grid, flops, _, l2_bytes, latency_s, in_flight, efficiency, reread_bytes = _work(
        fit, style, m, n, k, batch, split, size, rates, hbm_bytes
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
    rates: _Rates,
) -> float:
    """The closed form of `kernel.lone_time_s`, from a CTA's busiest pipe and bytes."""
    slots = per_sm * rates.sms
    spread_s = max(l2_bytes / rates.l2, hbm_bytes / rates.hbm)
    own_s = max(l2_bytes, hbm_bytes) * rates.hbm_latency_s / bytes_in_flight
    alone_s = max(local_s, own_s, spread_s)
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


def reduction(
    elements: int,
    split: int,
    hardware: Hardware,
    workspace: int,
    writes: tuple[Access, ...],
    repeated_bytes: float,
    name: str,
    family: str,
) -> Kernel:
    """cuBLAS's splitKreduce: sums `split` FP32 partial results of each output element."""
    return Kernel(
        name=f"{name}_splitk_reduce",
        family=family,
        grid=-(-elements // REDUCTION_THREADS),
        threads=REDUCTION_THREADS,
        registers=32,
        l2_bytes=REDUCTION_THREADS * (4.0 * split + 2),
        fp32_flops=float(REDUCTION_THREADS * split),
        latency_s=REDUCTION_LATENCY_S,
        bytes_in_flight=_rates(hardware).reduction_in_flight,
        reads=(Access(workspace, 4.0 * elements * split),),
        writes=writes,
        repeated_hbm_bytes=repeated_bytes,
        flops=float(elements * (split - 1)),
    )


def _reduction_s(elements: int, split: int, hbm_bytes: float, rates: _Rates) -> float:
    """`lone_time_s` of `reduction`."""
    grid = -(-elements // REDUCTION_THREADS)
    l2_bytes = REDUCTION_THREADS * (4.0 * split + 2)
    hbm_bytes /= grid
    local_s = max(l2_bytes / rates.l2_port, REDUCTION_THREADS * split / rates.fp32)
    return _waves_s(
        grid,
        rates.reduction_per_sm,
        local_s,
        REDUCTION_LATENCY_S,
        l2_bytes,
        hbm_bytes,
        rates.reduction_in_flight,
        rates,
    )


def _tiny_kernel(
    m: int,
    n: int,
    k: int,
    batch: int,
    dtype: str,
    hardware: Hardware,
    reads: tuple[Access, ...],
    writes: tuple[Access, ...],
    name: str,
    family: str,
) -> Kernel:
    """A warp to each 16 x 16 of each product: what it issues around its few products is its time, not the products."""
    size = ELEMENT_BYTES[dtype]
    down, across = -(-m // TINY), -(-n // TINY)
    operand_bytes = (m / down + n / across) * k * size
    return Kernel(
        name=f"{name}_wmma{TINY}x{TINY}",
        family=family,
        grid=batch * down * across,
        threads=32,
        registers=64,
        shared_memory_bytes=4096,
        tensor_flops=2.0 * TINY * TINY * (-(-k // TINY) * TINY),
        tensor_dtype=dtype,
        issue_slots=32 * TINY_SLOTS,
        l2_bytes=operand_bytes + m / down * n / across * size,
        latency_s=TINY_LATENCY_S,
        bytes_in_flight=operand_bytes,
        memory_efficiency=TINY_EFFICIENCY,
        reads=reads,
        writes=writes,
        flops=2.0 * batch * m * n * k,
    )


def _gemv_kernel(
    columns: int,
    outputs: int,
    k: int,
    size: int,
    hardware: Hardware,
    reads: tuple[Access, ...],
    writes: tuple[Access, ...],
    repeated_bytes: float,
    name: str,
    family: str,
) -> Kernel:
    conversions = GEMV_CONVERSIONS if size < 4 else 0.0
    return Kernel(
        name=f"{name}_gemv{columns}",
        family=family,
        grid=-(-outputs // columns),
        threads=GEMV_THREADS,
        registers=64,
        fp32_flops=(2.0 + conversions) * columns * k,
        l2_bytes=(1.0 + columns) * k * size,
        latency_s=GEMV_LATENCY_CYCLES / hardware.clock_hz,
        bytes_in_flight=float(min(GEMV_IN_FLIGHT_BYTES, k * columns * size)),
        memory_efficiency=GEMV_EFFICIENCY,
        reads=reads,
        writes=writes,
        repeated_hbm_bytes=repeated_bytes,
        flops=2.0 * outputs * k,
    )


def _best_gemv(outputs: int, k: int, size: int, hardware: Hardware, hbm_bytes: float) -> Plan:
    """The number of columns a CTA takes that is fastest; `split` carries it."""
    return min(
        (
            Plan(
                lone_time_s(_gemv_kernel(c, outputs, k, size, hardware, (), (), hbm_bytes, "", ""), hardware),
                None,
                c,
            )
            for c in GEMV_COLUMNS
        ),
        key=lambda plan: plan.time_s,
    )


# ---- operators of a trace


def _lower_product(operator: Operator, target: Target) -> list[Kernel]:
    """mm, bmm, addmm, baddbmm: the two matrices are the last inputs; a bias before them goes into the epilogue."""
    a, b = operator.inputs[-2:]
    batch = math.prod(a.shape[:-2])
    if batch > 1 and not b.strides[0]:  # one matrix for all: the rows stand in one taller product
        m, batch = a.shape[-2] * batch, 1
    else:
        m = a.shape[-2]
    return gemm(
        m,
        b.shape[-1],
        a.shape[-1],
        batch,
        a.dtype,
        target.hardware,
        reads=reads_of(operator),
        writes=writes_of(operator),
    )


def _lower_linear(operator: Operator, target: Target) -> list[Kernel]:
    x, weight = operator.inputs[:2]
    rows = math.prod(x.shape[:-1])
    return gemm(
        rows,
        weight.shape[0],
        weight.shape[1],
        1,
        x.dtype,
        target.hardware,
        reads=reads_of(operator),
        writes=writes_of(operator),
    )


# ---- rows of a table


def _kernels(cells: Cells, hardware: Hardware) -> list[Kernel]:
    return gemm(
        cells.whole("m"), cells.whole("n"), cells.whole("k"), cells.whole("batch"), cells.dtype, hardware
    )


def _roofline_work(cells: Cells) -> Work:
    batch, m, n, k = (cells.whole(name) for name in ("batch", "m", "n", "k"))
    return Work(2.0 * batch * m * n * k, float(batch * (m * k + k * n + m * n)))


GEMM = Family(
    op="gemm",
    columns=(*needed("m n k"), Column("batch", 1)),
    note="C[m,n] = A[m,k] B[k,n]",
    kernels=_kernels,
    work=_roofline_work,
    aten=lowered_by(_lower_product, "mm bmm addmm baddbmm addbmm") | lowered_by(_lower_linear, "linear"),
)
