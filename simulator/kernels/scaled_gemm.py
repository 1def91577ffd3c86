"""Matrix products of scaled numbers in fewer bits: CUTLASS's and DeepGEMM's kernels as vLLM and torch launch them.

C[m,n] = (scales of A · A[m,k]) · (scales of B · B[k,n]), results in bf16. The kernels are those of gemm.py in another format: the
same ring of buffers, in which a slot of 128 bytes holds 128 numbers of fp8 or 256 of fp4; the tensor cores at the format's rate; beside
the numbers their scales. What differs:

- The tile is mostly not chosen by time but by a rule on the shape: vLLM's dispatch for each architecture, as its source has it.
- Scales by blocks of 128 (fp8_block) on Hopper and Ada: tensor cores cannot apply them, so that every 128 of k each accumulator
  is scaled and added in fp32 on the CUDA cores (DeepGEMM: promotion). Blackwell's tensor cores take scales of blocks themselves.
- int4 is nunchaku's (SVDQuant): scales of 64 numbers, which the CUDA cores apply as above. Nothing was measured of it; rates and tile aside, it
  is taken to run as the device's fp8 does.
- int8 is TorchInductor's template in Triton, with the tokens' scales in its epilogue. Nothing was measured of it: tiles and parameters are
  fp8's, a generated or CUTLASS's kernel where cuBLAS's own is not to be had.
- nvfp4 has an fp8 scale for each 16 numbers of k, mxfp8 a power of two for each 32, which the tensor cores of Blackwell apply. Of
  mxfp8 nothing was measured: tiles and quantisation are nvfp4's, the rate and the rest those of fp8.

How it is measured (aiconfigurator, collector/vllm/collect_gemm.py): a linear layer of vLLM is called, so that its input is
quantised first. In fp8 six layers with a weight each go round from a CUDA graph, the input with a scale known before; nvfp4 is one layer
from a graph, so that its weight is in L2 where it fits; fp8_block is one layer without a graph, called from Python, and what no call
takes less than is the host's time.

Sources of tiles: vLLM, csrc/quantization/w8a8/cutlass/c3x/scaled_mm_sm90_fp8_dispatch.cuh, scaled_mm_sm100_fp8_dispatch.cuh,
scaled_mm_c2x_sm89_fp8_dispatch.cuh, csrc/quantization/fp4/nvfp4_scaled_mm_kernels.cu (Apache-2.0). What is fitted stands in
hw_configs/families/scaled_gemm.yaml.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from dataclasses import dataclass
from typing import NamedTuple

from simtti.dtypes import DTYPES
from simtti.errors import InputError
from simtti.hw_configs.hardware import Hardware
from simtti.hw_configs.parameters import GemmStyle, QuantizeStyle
from simtti.simulator.closed_form import lone_time_s
from simtti.simulator.kernel import Access, Kernel
from simtti.simulator.kernels.family import Target, reads_of, writes_of
from simtti.simulator.kernels.gemm_choice import MOST_CHOICES
from simtti.simulator.kernels.gemm_estimate import WEIGHT_SETS, Product, Traffic, rates_of, work_of
from simtti.simulator.kernels.gemm_tiles import (
    MOST_DEVICES,
    NVJET_REGISTERS,
    NVJET_THREADS,
    Fit,
    Tile,
    fit_on,
    mma_tile,
    ring_stages,
    wgmma_tile,
)
from simtti.simulator.kernels.machine import LANES, has_wgmma
from simtti.simulator.kernels.quantize import Quantize, quantize
from simtti.workloads.trace import Operator

RESULT_BYTES = 2  # exact: bf16
BLOCK = 128  # exact: k that shares a scale in fp8_block
INT4_GROUP = 64  # exact: the same in int4 (nunchaku)
PROMOTED = {
    "fp8_block": BLOCK,
    "int4": INT4_GROUP,
}  # exact: formats whose scales the CUDA cores apply, Blackwell's fp8_block aside
A, B, C, QUANTIZED = -1, -2, -3, -6  # exact: our own; negative ones are no tensors of a trace


class Format(NamedTuple):
    """How numbers of a format lie in memory.

    item_bytes: of a number. scale_bytes: of the scales that come with it. slot: numbers of k in a ring slot. weight_sets: layers
    whose weights a benchmark goes round. quantized_by: the group of the kernel that quantises the input. style: the group of the product. scale_every: numbers of the
    input to four bytes of scales, 0 where there is one for all.
    """

    item_bytes: float
    scale_bytes: float
    slot: int
    weight_sets: int
    quantized_by: str
    style: str
    scale_every: int


FORMATS = {  # exact: the formats' definitions, and the collector's loops
    "fp8": Format(1.0, 0.0, 128, WEIGHT_SETS, "quantize_linear", "scaled_fp8", 0),
    "fp8_block": Format(1.0, 4 / BLOCK, 128, 1, "quantize_group", "scaled_block", BLOCK),
    "nvfp4": Format(0.5, 1 / 16, 256, 1, "quantize_fp4", "scaled_fp4", 64),
    "int4": Format(0.5, 2 / INT4_GROUP, 256, 1, "quantize_fp4", "scaled_fp8", 128),
    "int8": Format(1.0, 0.0, 128, WEIGHT_SETS, "quantize_linear", "scaled_fp8", 0),
    "mxfp8": Format(1.0, 1 / 32, 128, 1, "quantize_fp4", "scaled_fp8", 128),
}


@dataclass(frozen=True, slots=True)
class ScaledGemm:
    """A product of m x k by k x n in `dtype`, one of FORMATS.

    reads, writes: unique bytes by tensor instead of the dense matrices, the two operands first. linear: with the quantisation of its
    input before it, as a layer of vLLM that a benchmark repeats.
    """

    m: int
    n: int
    k: int
    dtype: str
    reads: tuple[Access, ...] = ()
    writes: tuple[Access, ...] = ()
    linear: bool = False
    name: str = "scaled_gemm"

    @property
    def format(self) -> Format:
        return FORMATS[self.dtype]

    @property
    def number_bytes(self) -> float:
        """Of an operand's number with its share of the scales."""
        return self.format.item_bytes + self.format.scale_bytes

    @property
    def all_reads(self) -> tuple[Access, ...]:
        size = self.k * self.number_bytes
        return self.reads or (Access(A, size * self.m), Access(B, size * self.n))

    @property
    def all_writes(self) -> tuple[Access, ...]:
        return self.writes or (Access(C, float(self.m * self.n * RESULT_BYTES)),)


def scaled_gemm(problem: ScaledGemm, hardware: Hardware) -> list[Kernel]:
    """The product, after the quantisation of its input where it is a layer's.

    Raises:
        InputError: the device's tensor cores do not take the format.
    """
    check_format(problem.dtype, hardware)
    product = _product(problem, hardware)
    return [*_quantization(problem, hardware), product] if problem.linear else [product]


def check_format(dtype: str, hardware: Hardware) -> None:
    """Raises:
    InputError: the device has no tensor cores for `dtype`; the message says what it has.
    """
    hardware.tensor_flops_per_cycle_sm(dtype)


def _quantization(problem: ScaledGemm, hardware: Hardware) -> list[Kernel]:
    style: QuantizeStyle = getattr(hardware, problem.format.quantized_by)
    rows = Quantize(
        problem.m,
        problem.k,
        problem.dtype,
        scale_every=problem.format.scale_every,
        name=f"{problem.name}_quantize",
        family="gemm",
    )
    return [quantize(rows, style, hardware)]


def _product(problem: ScaledGemm, hardware: Hardware) -> Kernel:
    m, n, k = problem.m, problem.n, problem.k
    kernels = [_tiled(problem, tile, hardware) for tile in tiles_of_format(m, n, k, problem.dtype, hardware)]
    if len(kernels) == 1:
        return kernels[0]
    return min(kernels, key=lambda kernel: lone_time_s(kernel, hardware))


def _tiled(problem: ScaledGemm, tile: Tile, hardware: Hardware) -> Kernel:
    m, n, k, form = problem.m, problem.n, problem.k, problem.format
    style: GemmStyle = getattr(hardware, form.style)
    fit = fit_of(tile, problem.dtype, hardware)
    reads, writes = problem.all_reads, problem.all_writes
    traffic = Traffic(
        reads[0].nbytes,
        sum(access.nbytes for access in reads[1:]),
        sum(access.nbytes for access in writes),
    )
    hbm_bytes = traffic.repeated(rates_of(hardware), weight_sets=form.weight_sets)[0]
    product = Product(m, n, k, 1, problem.number_bytes, RESULT_BYTES)
    work = work_of(fit, style, product, 1, rates_of(hardware), hbm_bytes)
    return Kernel(
        name=f"{problem.name}_{problem.dtype}_{fit.tile.m}x{fit.tile.n}",
        family="gemm",
        tensor_flops=work.flops,
        tensor_dtype=problem.dtype,
        tensor_efficiency=tensor_share(style, hardware),
        issue_slots=promotion_slots(fit.tile, k, problem.dtype, hardware),
        reads=reads,
        writes=writes,
        flops=2.0 * m * n * k,
        host_s=host_s(problem, hardware),
        **work.of_kernel(fit.tile, hbm_bytes),
    )


def host_s(problem: ScaledGemm, hardware: Hardware) -> float:
    """Seconds that a benchmark's host takes for a layer that no graph repeats: DeepGEMM's where n is of whole 64s and k of whole blocks, on
    Hopper another kernel for few rows, which it exchanges with the columns, on Blackwell after rows are filled up to whole
    fours; everything else goes to a kernel in Triton."""
    if not problem.linear or problem.dtype != "fp8_block":
        return 0.0
    host = hardware.scaled_host
    if not has_wgmma(hardware) or problem.n % DEEP_COLUMNS or problem.k % BLOCK:
        return host.triton_s
    if hardware.matrix_unit == "tcgen05":
        return host.filled_s if problem.m % DEEP_ROWS else host.blocks_s
    return host.few_rows_s if problem.m < FEW_ROWS else host.blocks_s


FEW_ROWS = 32  # exact: rows below which vLLM takes FlashInfer's kernel with the operands exchanged on Hopper
DEEP_COLUMNS = 64  # exact: columns that DeepGEMM takes are whole ones of these (vLLM, should_use_deepgemm_for_fp8_linear)
DEEP_ROWS = 4  # exact: the same of rows on Blackwell, where scales of four lie in one word


def tensor_share(style: GemmStyle, hardware: Hardware) -> float:
    """The share of the tensor cores' rate that the instructions of a style reach."""
    return min(style.most_flops_per_cycle / hardware.tensor_fp16_flops_per_cycle_sm, 1.0)


def promotion_slots(tile: Tile, k: int, dtype: str, hardware: Hardware) -> float:
    """Instructions with which a CTA scales its accumulators and adds them up in fp32, where tensor cores cannot."""
    if dtype not in PROMOTED or hardware.matrix_unit == "tcgen05":
        return 0.0
    return hardware.scaled_promotion.element_slots * tile.m * tile.n * -(-k // PROMOTED[dtype])


@functools.lru_cache(MOST_DEVICES)
def fit_of(tile: Tile, dtype: str, hardware: Hardware) -> Fit:
    """A tile on the device.

    Raises:
        InputError: its shared memory holds not even two slots of the ring.
    """
    style: GemmStyle = getattr(hardware, FORMATS[dtype].style)
    rate = hardware.tensor_flops_per_cycle_sm(dtype) * tensor_share(style, hardware)
    found = fit_on(tile, style, rate, FORMATS[dtype].item_bytes, hardware)
    if found is None:
        raise InputError(f"{hardware.name} has no room for a tile of {tile.m} x {tile.n} in {dtype}")
    return found


# ---- an operator of a trace


LOW_RANK_OPERANDS = (
    6  # exact: ours, of workloads/quantized_layers.py: products' two, their scales, the branch's two
)


def lower_low_rank(operator: Operator, target: Target) -> list[Kernel]:
    """nunchaku::gemm_w4a4: products of four bits, to which the up-projection of the low-rank branch is added before the results leave
    the CTA, 16-bit products on the same tensor cores."""
    a, b, *_, low, _ = operator.inputs[:LOW_RANK_OPERANDS]
    hardware, rank = target.hardware, low.shape[-1]
    m, k, n = a.shape[0], a.shape[1] * DTYPES[a.dtype].packed, b.shape[1]
    (product,) = scaled_gemm(
        ScaledGemm(m, n, k, a.dtype, reads_of(operator), writes_of(operator), name="gemm_w4a4"), hardware
    )
    slower = hardware.tensor_flops_per_cycle_sm(a.dtype) / hardware.tensor_flops_per_cycle_sm("fp16")
    return [
        dataclasses.replace(
            product,
            tensor_flops=product.tensor_flops * (1 + slower * rank / k),
            flops=product.flops + 2.0 * m * n * rank,
        )
    ]


# ---- the tiles, by the rules of vLLM's dispatch


SLOT_BYTES = 128  # exact: what TMA's widest swizzle takes of a row, 128 numbers of fp8


class Rule(NamedTuple):
    """A line of a dispatch: for up to `rows` of m and `columns` of n a tile `m` x `n`, `slot_bytes` of a row in a ring slot. exchanged: of
    the transposed product, so that `m` is of n."""

    rows: float
    columns: float
    m: int
    n: int
    slot_bytes: int = SLOT_BYTES
    exchanged: bool = False


ANY = math.inf
# exact: scaled_mm_sm90_fp8_dispatch.cuh
WGMMA_FP8 = (
    Rule(16, ANY, 64, 16, 256, exchanged=True),
    Rule(64, 1280, 64, 16, 256, exchanged=True),
    Rule(64, ANY, 64, 64, 256, exchanged=True),
    Rule(128, ANY, 64, 128),
    Rule(ANY, ANY, 128, 128),
)
# exact: the same: from so many rows and so much k on 256 x 128
MANY_ROWS, MUCH_K, LARGE = 8192, 6144, Rule(ANY, ANY, 256, 128)
# exact: scaled_mm_sm100_fp8_dispatch.cuh; 128 x 128 and 256 x 128 by instructions of two SMs, half of the rows each
TCGEN05_FP8 = (
    Rule(16, ANY, 128, 32, exchanged=True),
    Rule(64, ANY, 128, 64, 256, exchanged=True),
    Rule(256, ANY, 64, 128),
    Rule(ANY, ANY, 128, 128),
)
# exact: the same: rows that are not exchanged while k is short
WHOLE_ROWS, SHORT_K, SQUARE = 64, 4096, Rule(64, ANY, 64, 64)
# exact: an SM's share of the tactics in FlashInfer's fp4_gemm_template_sm100.h: rows, and columns
FP4_ROWS, FP4_COLUMNS = 128, (64, 128, 192, 256)
# exact: DeepGEMM, get_best_configs: blocks of rows, for up to so many; and of columns
DEEP_BLOCKS = ((64, (64,)), (128, (64, 128)), (ANY, (128, 256)))
DEEP_WIDTHS = tuple(range(16, 129, 16))  # exact: the same


class WarpTile(NamedTuple):
    """A tile of mma.sync: numbers of one byte a slot, stages, the warp's share."""

    m: int
    n: int
    k: int
    stages: int
    warp_m: int
    warp_n: int


# exact: scaled_mm_c2x_sm89_fp8_dispatch.cuh: for up to so many rows and columns, these rounded up to a power of 2
MMA_FP8: tuple[tuple[float, float, WarpTile], ...] = (
    (16, 8192, WarpTile(16, 64, 128, 5, 16, 64)),
    (16, 16384, WarpTile(16, 128, 64, 5, 16, 64)),
    (16, ANY, WarpTile(32, 64, 128, 5, 16, 64)),
    (32, 8192, WarpTile(32, 64, 128, 5, 16, 64)),
    (32, 16384, WarpTile(32, 128, 128, 4, 32, 64)),
    (32, ANY, WarpTile(32, 64, 128, 5, 16, 64)),
    (64, 8192, WarpTile(64, 64, 128, 5, 32, 64)),
    (64, 16384, WarpTile(64, 128, 128, 3, 64, 64)),
    (64, ANY, WarpTile(64, 64, 128, 5, 32, 64)),
    (128, 8192, WarpTile(64, 128, 128, 3, 64, 64)),
    (128, 16384, WarpTile(128, 128, 64, 5, 64, 64)),
    (128, ANY, WarpTile(128, 64, 128, 3, 64, 64)),
    (256, 4096, WarpTile(64, 128, 128, 3, 64, 64)),
    (256, ANY, WarpTile(128, 128, 64, 5, 64, 64)),
    (ANY, 4096, WarpTile(128, 128, 64, 5, 64, 64)),
    (ANY, 8192, WarpTile(256, 128, 64, 3, 64, 64)),
    (ANY, ANY, WarpTile(128, 128, 64, 5, 64, 64)),
)
# exact: vLLM's Triton kernel (w8a8_triton_block_scaled_mm) without a tuned configuration for the shape
MMA_BLOCK: tuple[tuple[float, float, WarpTile], ...] = (
    (16, ANY, WarpTile(16, 128, 128, 2, 16, 64)),
    (ANY, ANY, WarpTile(64, 128, 128, 2, 32, 64)),
)
# exact: nunchaku, gemm_w4a4: 256 x 128 for eight warps, 64 numbers at once
MMA_INT4: tuple[tuple[float, float, WarpTile], ...] = ((ANY, ANY, WarpTile(256, 128, 32, 3, 32, 128)),)
MMA_TILES = {"fp8_block": MMA_BLOCK, "int4": MMA_INT4}
# exact: of a thread: most, and what it needs beside the accumulators of its warp's tile (fragments, addresses; CUTLASS's kernels)
MOST_REGISTERS, OTHER_REGISTERS = 255, 96


def tiles_of_format(m: int, n: int, k: int, dtype: str, hardware: Hardware) -> tuple[Tile, ...]:
    """The tiles that a product of m x k by k x n may run on, of which the library takes the fastest; mostly one, by a rule."""
    if hardware.matrix_unit == "tcgen05":
        if dtype in ("nvfp4", "mxfp8"):
            return _tcgen05_fp4()
        whole = m == WHOLE_ROWS and k < SHORT_K
        return (_on_pairs(_warpgroups(SQUARE if whole else _rule(TCGEN05_FP8, m, n))),)
    if hardware.matrix_unit == "wgmma":
        if dtype == "fp8_block":
            return (_deep_gemm(m, n, hardware.sm_count),)
        large = m >= MANY_ROWS and k >= MUCH_K
        return (_warpgroups(LARGE if large else _rule(WGMMA_FP8, m, n)),)
    columns = 1 << (n - 1).bit_length()
    table = MMA_TILES.get(dtype, MMA_FP8)
    return (_mma(next(tile for most_m, most_n, tile in table if m <= most_m and columns <= most_n)),)


def _rule(rules: tuple[Rule, ...], m: int, n: int) -> Rule:
    return next(rule for rule in rules if m <= rule.rows and n <= rule.columns)


@functools.cache
def _warpgroups(rule: Rule) -> Tile:
    """The tile of a rule, with as long a ring as fits; wgmma takes 64 rows of its m."""
    k = rule.slot_bytes // 2
    tile = wgmma_tile(rule.m, rule.n, k, ring_stages(rule.m, rule.n, k), NVJET_THREADS, NVJET_REGISTERS)
    return tile._replace(m=tile.n, n=tile.m) if rule.exchanged else tile


@functools.lru_cache(MOST_CHOICES)
def _deep_gemm(m: int, n: int, sms: int) -> Tile:
    """Of DeepGEMM's blocks those that make the fewest waves on `sms` SMs, then the fullest last one, then the widest."""
    rows = next(blocks for most, blocks in DEEP_BLOCKS if m <= most)

    def worth(block: tuple[int, int]) -> tuple[int, int, int, int]:
        tiles = -(-m // block[0]) * -(-n // block[1])
        waves = -(-tiles // sms)
        return -waves, tiles % sms or sms, block[1], -block[0]

    return _warpgroups(Rule(ANY, ANY, *max(itertools.product(rows, DEEP_WIDTHS), key=worth)))


@functools.cache
def _tcgen05_fp4() -> tuple[Tile, ...]:
    return tuple(_on_pairs(_warpgroups(Rule(ANY, ANY, FP4_ROWS, columns))) for columns in FP4_COLUMNS)


def _on_pairs(tile: Tile) -> Tile:
    """The tile as tcgen05 feeds it, instructions of 128 rows for pairs of SMs."""
    return tile._replace(feed_bytes=tile.wide_feed_bytes)


@functools.cache
def _mma(tile: WarpTile) -> Tile:
    accumulators = tile.warp_m * tile.warp_n // LANES
    registers = min(accumulators + OTHER_REGISTERS, MOST_REGISTERS)
    return mma_tile(tile.m, tile.n, tile.k // 2, tile.stages, tile.warp_m, tile.warp_n, registers)
