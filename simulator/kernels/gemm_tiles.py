"""The catalogue of GEMM kernels: their tiles, and which of them fit on a device.

A tile of C[m,n] = A[m,k]·B[k,n] is what one CTA computes, from slices of A and B in a ring of `stages` buffers of shared
memory. What feeds the tensor cores decides how fast it can be. With mma.sync (Volta to Ada) each warp reads its own rows of A
and columns of B, (warp_m + warp_n) elements a k: small warp tiles read more for a FLOP. With wgmma (Hopper) four warps read 64
rows of A and the tile's columns of B once; with tcgen05 (data-centre Blackwell) 128 rows.

fp32 means TF32 where there is one: PyTorch's switch for matrix products is off by default, but every fp32 pipeline measured on an
Ampere ran with it on (SDXL on A100, diffusion-fast: 7.36 s; 7.1 s with TF32, 20.9 s without; Stable Diffusion, lambda-diffusers,
likewise). Elsewhere, and where products may not be rounded to TF32 (policy.tf32), it runs on the CUDA cores (`ampere_sgemm_128x128_nn` and its like): a thread of the larger tiles has 8 x 8
results, so that it issues 64 FMAs to four 16-byte loads from shared memory.

Sources. Tiles: kernel names of cuBLAS 12 and 13 (`ampere_bf16_s16816gemm_bf16_128x128_ldg8_stages_32x5`, `nvjet_..`,
`sm90_xmma_gemm_..tilesize256x128x64_warpgroupsize2x1x1`) and CUTLASS's default configurations; those that made the measured
devices less accurate, or made no difference, were left out. Fragment traffic: PTX ISA, mma.sync and wgmma. What is fitted
stands in hw_configs/families/gemm.yaml.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from simtti.dtypes import ITEM_BYTES
from simtti.errors import InputError
from simtti.hw_configs.hardware import Hardware
from simtti.hw_configs.parameters import GemmStyle
from simtti.simulator import arithmetic
from simtti.simulator.arithmetic import Number
from simtti.simulator.designs import Designs, side_by_side
from simtti.simulator.kernels.machine import (
    FP32_BYTES,
    LANES,
    REGISTER_UNIT,
    RESERVED_SHARED_BYTES,
    TCGEN05_ROWS,
    VECTOR_BYTES,
    WGMMA_ROWS,
    FusedMultiplyAdds,
    fused_multiply_adds,
    has_wgmma,
)
from simtti.simulator.lanes import undecided

MOST_DEVICES = 256  # exact: catalogues kept; the results are the same with any other number
CHAIN_K = 32  # exact: the elements of k that GemmStyle.chain_cycles is counted for
LARGEST_TILE = (256, 128)  # exact: the usual one (kernel names); what reuse is compared with


class Tile(NamedTuple):
    """A kernel of the catalogue: tile m x n, ring of `stages` slots of `k` two-byte elements (half as many of four).

    registers: of a thread. feed_bytes: shared-memory reads for the tensor cores per k, two-byte elements. wide_feed_bytes:
    the same with instructions of 128 rows for pairs of SMs, each of which holds half of B.
    """

    m: int
    n: int
    k: int
    stages: int
    threads: int
    registers: int
    feed_bytes: float
    wide_feed_bytes: float = 0.0

    @property
    def in_clusters(self) -> bool:
        """Whether CTAs work in pairs: wgmma's and tcgen05's do."""
        return self.wide_feed_bytes > 0

    @property
    def ring_bytes(self) -> int:
        return self.stages * (self.m + self.n) * self.k * 2


def mma_tile(m: int, n: int, k: int, stages: int, warp_m: int, warp_n: int, registers: int) -> Tile:
    warps = (m // warp_m) * (n // warp_n)
    return Tile(m, n, k, stages, LANES * warps, registers, warps * (warp_m + warp_n) * 2.0)


def wgmma_tile(m: int, n: int, k: int, stages: int, threads: int, registers: int) -> Tile:
    """m is the side that wgmma takes 64 rows of."""
    feed = m / WGMMA_ROWS * (WGMMA_ROWS + n) * 2.0
    wide = max(m / TCGEN05_ROWS, 1) * (min(m, TCGEN05_ROWS) + n / 2) * 2.0
    return Tile(m, n, k, stages, threads, registers, feed, wide)


def _transposed(tile: Tile) -> Tile:
    """The same kernel for the transposed problem."""
    return tile._replace(m=tile.n, n=tile.m)


# exact: m, n, k, stages, the warp's m and n, registers of a thread (kernel names and CUTLASS's defaults, see above)
MMA_TILES: tuple[Tile, ...] = (
    mma_tile(256, 128, 32, 3, 64, 64, 232),
    mma_tile(128, 256, 32, 3, 64, 64, 232),
    mma_tile(128, 128, 64, 3, 64, 32, 168),
    mma_tile(128, 64, 32, 6, 64, 32, 150),
    mma_tile(64, 128, 32, 6, 32, 64, 150),
    mma_tile(64, 64, 32, 8, 32, 32, 100),
    mma_tile(32, 128, 64, 5, 32, 32, 100),
    mma_tile(32, 64, 64, 6, 16, 32, 80),
)
# exact: of kernels for rows that are no whole words beside nvjet's (`cutlass_75_tensorop_f16_s1688gemm_f16_128x128_tn_align1`,
# `.._64x64_..`, `cutlass_75_wmma_tensorop_f16_s161616gemm_f16_32x32_64x1_..`): tiles from their names, registers as launched, on our own
# H200 and H100; warps after CUTLASS's defaults. They load and store elements of two bytes one by one.
ELEMENT_TILES: tuple[Tile, ...] = (
    mma_tile(128, 128, 32, 2, 64, 64, 254),
    mma_tile(64, 64, 32, 2, 32, 32, 96),
    mma_tile(32, 32, 64, 2, 16, 16, 128),
)
# exact: of nvjet kernels' names on Hopper (`nvjet_sm90_hsh_168x128_64x5_1x2_h_bz_coopA_bias_TNN`): the side of wgmma's rows, the
# other side, both of which may lie along m. cuBLAS has so many that most products of up to an SM's share fill the SMs once.
NVJET_SIDES: tuple[tuple[int, tuple[int, ...]], ...] = (
    (64, (8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 96, 144, 384)),
    (128, (8, 16, 32, 56, 64, 80, 96, 128, 144, 160, 168, 192, 256)),
    (192, (40, 80, 192)),
    (256, (96, 160)),
)
NVJET_K = 64  # exact: the same names: elements of k a ring slot
NVJET_STAGES = 16  # exact: the same names: slots at most
NVJET_THREADS = 384  # exact: a producer's warpgroup and two consumers'
NVJET_REGISTERS = (
    168  # exact: of a thread as launched, so that an SM has one CTA, which takes tile after tile
)
NVJET_RING_BYTES = (
    226 * 1024
)  # exact: an SM's 227 KB without barriers, for the ring and the result on its way out
NVJET_RESULT_BYTES = (
    16 * 1024
)  # exact: of which the result has this at most; both give the stages in the names


def _nvjet_tile(rows: int, other: int) -> Tile:
    """rows: the side that wgmma takes 64 rows of."""
    stages = ring_stages(rows, other, NVJET_K)
    return wgmma_tile(rows, other, NVJET_K, stages, NVJET_THREADS, NVJET_REGISTERS)


def ring_stages(rows: int, other: int, k: int) -> int:
    """Slots of `k` two-byte elements of a ring that fills an SM's shared memory beside the result."""
    slot = (rows + other) * k * 2
    return min((NVJET_RING_BYTES - min(rows * other * 2, NVJET_RESULT_BYTES)) // slot, NVJET_STAGES)


def _nvjet_tiles() -> tuple[Tile, ...]:
    """Each kernel, and the same with the sides exchanged."""
    tiles = [_nvjet_tile(rows, other) for rows, others in NVJET_SIDES for other in others]
    return (*tiles, *(_transposed(tile) for tile in tiles if tile.m != tile.n))


WGMMA_TILES: tuple[Tile, ...] = _nvjet_tiles()
# exact: `sm90_xmma_gemm_.._tilesize256x128x64_warpgroupsize2x1x1_..` and its like, cuBLAS's kernels on Hopper up to 12.4: a CTA
# for each tile, so that nothing hides its prologue and its epilogue; m, n, stages, threads
XMMA_TILES: tuple[Tile, ...] = tuple(
    wgmma_tile(m, n, NVJET_K, stages, threads, NVJET_REGISTERS)
    for m, n, stages, threads in (
        (256, 128, 4, 384),
        (128, 256, 4, 384),
        (128, 128, 5, 256),
        (128, 64, 4, 256),
        (64, 128, 4, 256),
        (64, 64, 6, 256),
    )
)
# exact: m, n, k, stages, the warp's m and n, registers of a thread (kernel names and CUTLASS's defaults, see above)
SGEMM_TILES: tuple[Tile, ...] = (
    mma_tile(128, 128, 16, 3, 32, 64, 122),
    mma_tile(128, 64, 16, 3, 32, 64, 122),
    mma_tile(64, 128, 16, 3, 64, 32, 122),
    mma_tile(64, 64, 16, 4, 32, 32, 90),
    mma_tile(128, 32, 16, 4, 32, 32, 90),
    mma_tile(32, 128, 16, 4, 32, 32, 90),
    mma_tile(32, 32, 16, 6, 16, 32, 64),
)


class Fit(NamedTuple):
    """A tile on a device: how many fit on an SM and on all, elements of k a ring slot, seconds a k of its busiest pipe
    and of its synchronisations, ring slots whose loads are under way at once, and the shortest slice of k."""

    tile: Tile
    per_sm: Number
    slots: Number
    k: Number
    pipe_s_per_k: Number
    wait_s_per_k: Number
    slots_in_flight: Number
    least_slice: Number


class Catalogue(NamedTuple):
    """The kernels that a device can run for a type: what they share, the share of the tensor cores' rate that their instructions
    reach, and each as it fits. on_cuda_cores: they use no tensor cores. column: `fits` side by side, whose amounts are arrays of floats,
    an entry each."""

    style: GemmStyle
    tensor_share: float
    fits: tuple[Fit, ...]
    on_cuda_cores: bool
    column: Fit


def catalogue(
    hardware: Hardware, dtype: str, aligned: bool, stored_whole: bool = False, by_element: bool = False
) -> Catalogue:
    """The kernels for `dtype`. aligned: rows are whole 16 bytes, which wgmma needs for TMA. stored_whole: those of C at least,
    which are written as fast as aligned kernels do it. by_element: rows are no whole words of four bytes.

    Raises:
        InputError: none of them fits on an SM.
    """
    devices = hardware.each if isinstance(hardware, Designs) else (hardware,)
    return _catalogue(devices, dtype, aligned, stored_whole, by_element)


@functools.lru_cache(MOST_DEVICES)
def _catalogue(
    devices: tuple[Hardware, ...], dtype: str, aligned: bool, stored_whole: bool, by_element: bool
) -> Catalogue:
    """Of one device, or of several side by side. It is kept for all paths that these go, so that none may be gone in it."""
    with undecided():
        return _made(side_by_side(devices), dtype, aligned, stored_whole, by_element)


def _made(hardware: Hardware, dtype: str, aligned: bool, stored_whole: bool, by_element: bool) -> Catalogue:
    cuda_cores = on_cuda_cores(hardware, dtype)
    wgmma = aligned and has_wgmma(hardware) and not cuda_cores
    if wgmma:
        # Products in one byte were nvjet's with cuBLAS 12.4 already (nvjet_qqtst_128x256_128x6_1x2_h_bz_TNT).
        older = hardware.has_xmma and ITEM_BYTES[dtype] > 1
        style, tiles = (hardware.gemm_xmma, XMMA_TILES) if older else (hardware.gemm_wgmma, WGMMA_TILES)
    elif cuda_cores:
        style, tiles = hardware.gemm_mma, SGEMM_TILES
    else:
        style, tiles = hardware.gemm_mma if aligned else hardware.gemm_unaligned, MMA_TILES
        if by_element and hardware.matrix_unit == "wgmma" and not hardware.has_xmma:
            style, tiles = hardware.gemm_by_element, ELEMENT_TILES
        if stored_whole:
            style = style._replace(write_efficiency=hardware.gemm_mma.write_efficiency)
    if wgmma and hardware.matrix_unit == "tcgen05":
        # tcgen05.mma takes 128 rows an SM, with cta_group::2 and the columns' half from each (PTX ISA)
        tiles = tuple(tile._replace(feed_bytes=tile.wide_feed_bytes) for tile in tiles)
    fp16_rate = hardware.tensor_fp16_flops_per_cycle_sm
    share = arithmetic.of(fp16_rate).least(style.most_flops_per_cycle / fp16_rate, 1.0) if fp16_rate else 1.0
    rate = 0.0 if cuda_cores else hardware.tensor_flops_per_cycle_sm(dtype) * share
    every = (fit_on(tile, style, rate, ITEM_BYTES[dtype], hardware) for tile in tiles)
    fits = tuple(fit for fit in every if fit is not None)
    if not fits:
        raise InputError(
            f"{hardware.name}: no kernel of a matrix product in {dtype} fits on an SM with {hardware.shared_memory_per_sm_bytes:,} bytes of "
            f"shared memory (shared_memory_per_sm_bytes), {hardware.registers_per_sm:,} registers and {hardware.max_threads_per_sm:,} threads"
        )
    return Catalogue(style, share, fits, cuda_cores, _side_by_side(fits))


def _side_by_side(fits: tuple[Fit, ...]) -> Fit:
    """An entry each; of several devices a row each where they differ."""
    tiles = np.array([fit.tile for fit in fits], dtype=float).reshape(len(fits), len(Tile._fields)).T
    return Fit(Tile(*tiles), *(_beside([fit[at] for fit in fits]) for at in range(1, len(Fit._fields))))


def _beside(amounts: Sequence[Number]) -> np.ndarray:
    return np.stack(np.broadcast_arrays(*amounts), axis=-1).astype(float)


def rows_of(column: Fit, at: np.ndarray) -> Fit:
    """A catalogue's column beside the entries `at` alone."""
    tile, *others = column
    return Fit(tile, *(each if each.ndim == 1 else each[at] for each in others))


def taken(column: Fit, at: np.ndarray, numbers: np.ndarray) -> Fit:
    """Of a catalogue's column, for the entries `at`, the tiles of these numbers."""
    tile, *others = column
    own = (each[numbers] if each.ndim == 1 else each[at, numbers] for each in others)
    of_tiles: list[Any] = [np.asarray(each)[numbers] for each in tile]
    return Fit(Tile(*of_tiles), *own)


def kernels_for(n: int, k: int, batch: int, size: int, dtype: str, hardware: Hardware) -> Catalogue:
    """The kernels for `batch` products of operands of rows k long and a result of rows n long, of elements of `size` bytes.

    A kernel for rows of halves of 16 bytes writes whole rows as fast as an aligned one (a convolution of 4 channels, k = 4, on our own
    H100); one for any rows does not (the products of unfused attention over 77 keys, on our own H200).
    """
    return catalogue(hardware, dtype, *alignment(n, k, batch, size))


def fit_on(tile: Tile, style: GemmStyle, rate: float, size: float, hardware: Hardware) -> Fit | None:
    """`tile` on a device, None if not one fits. rate: of its tensor cores, FLOPs a cycle; 0: CUDA cores. size: bytes of an
    element."""
    clock = hardware.clock_hz
    room = hardware.shared_memory_per_sm_bytes - RESERVED_SHARED_BYTES
    if tile.ring_bytes > room:  # older devices run the same tile with a shorter ring
        tile = tile._replace(stages=room // (tile.ring_bytes // tile.stages))
    if tile.stages < 2:
        return None
    warps = tile.threads // LANES
    per_sm = min(
        hardware.max_ctas_per_sm,
        hardware.max_threads_per_sm // tile.threads,
        hardware.registers_per_sm // (-(-tile.registers * LANES // REGISTER_UNIT) * REGISTER_UNIT * warps),
        int(hardware.shared_memory_per_sm_bytes // (tile.ring_bytes + RESERVED_SHARED_BYTES)),
    )
    if per_sm < 1:
        return None
    macs = float(tile.m * tile.n)
    products = 2.0 * macs / rate if rate else sgemm_products(macs, hardware).cycles(hardware)
    how = arithmetic.of(products, clock, hardware.shared_memory_bytes_per_cycle_sm, hardware.hbm_latency_s)
    pipe = how.largest(
        products,
        (tile.feed_bytes + style.fill_cost * 2 * (tile.m + tile.n))
        * size
        / 2
        / hardware.shared_memory_bytes_per_cycle_sm,
    )
    step = max(int(tile.k * 2 // size), 1)
    # A slot is loaded again only after its products, so that a slow chain of them leaves less under way.
    chain_s = style.chain_cycles * tile.k / CHAIN_K / clock
    in_flight = float(tile.stages)
    if style.chain_cycles:
        in_flight = how.least(tile.stages, hardware.hbm_latency_s / chain_s)
    return Fit(
        tile,
        per_sm,
        per_sm * hardware.sm_count,
        step,
        pipe / clock,
        style.step_cycles / step / clock,
        in_flight,
        int(hardware.gemm_split.least_steps) * step,
    )


def on_cuda_cores(hardware: Hardware, dtype: str) -> bool:
    """Whether products of `dtype` use no tensor cores."""
    return not hardware.multiplies(dtype)


def sgemm_products(macs: float, hardware: Hardware) -> FusedMultiplyAdds:
    """What `macs` products demand of the CUDA cores."""
    cost = hardware.gemm_cuda_cores
    return fused_multiply_adds(macs, cost.efficiency, cost.overhead_slots)


def alignment(n: Number, k: Number, batch: Number, size: int) -> tuple[Any, Any, Any]:
    """Whether rows of A and B (k long) and of C (n long) are whole 16 bytes, as TMA and 16-byte loads need; whether those of C are,
    and the others halves of 16 bytes; and whether any of several products' are no whole words of four bytes (of one product with such rows
    nothing was measured beside nvjet's)."""
    whole = n * size % VECTOR_BYTES == 0
    words = (n * size % FP32_BYTES == 0) & (k * size % FP32_BYTES == 0)
    return (
        whole & (k * size % VECTOR_BYTES == 0),
        whole & (k * size % (VECTOR_BYTES // 2) == 0),
        (batch > 1) & (words ^ True),
    )


@functools.lru_cache(MOST_DEVICES)
def for_products(hardware: Hardware, tf32: bool) -> Hardware:
    """The device as cuBLAS sees it: without TF32 where products of fp32 may not be rounded."""
    return hardware if tf32 else replace(hardware, tensor_tf32_flops_per_cycle_sm=0.0)
