"""Batched matrix products in fp32 that may not be rounded to TF32: the default of torch.bmm, as math attention calls it.

cuBLAS takes them on the CUDA cores: `sm80_xmma_gemm_f32f32_f32f32_f32_nn_n_tilesize64x64x8_stage3_warpsize1x4x1_ffma` and smaller
tiles, slices of 8 of k; for results up to 8 x 8 `gemmSN_NN_kernel`, four rows to a CTA; and for a few rows of more than 128
columns MAGMA's of 16 x 64. A launch takes as many products as the third dimension of a grid. Grids, threads and registers as
in traces of torch 2.11 on H200.

What is fitted stands in hw_configs/families/attention.yaml, group exact_products.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from simtti.hw_configs.hardware import Hardware
from simtti.simulator.closed_form import cold_hbm_bytes, lone_execution_s
from simtti.simulator.kernel import Access, Kernel
from simtti.simulator.kernels.machine import FP32_BYTES

MOST_BATCH = 65535  # exact: of a grid's third dimension (CUDA C++ Programming Guide)
STEP = 8  # exact: slice of k, in the kernels' names
SMALL = 8  # exact: rows and columns of results up to which gemmSN_NN is launched
SMALL_ROWS, SMALL_THREADS, SMALL_REGISTERS = (
    4,
    128,
    72,
)  # exact: rows of its CTA, in its grids; threads; registers
WIDE = 128  # exact: columns beyond which few rows are MAGMA's


class Tile(NamedTuple):
    """Rows and columns of a CTA's result, its threads, their registers."""

    m: int
    n: int
    threads: int
    registers: int


# exact: names and launches of the kernels
TILES = (
    Tile(32, 32, 64, 80),
    Tile(32, 64, 64, 102),
    Tile(128, 32, 128, 118),
    Tile(64, 64, 128, 121),
    Tile(128, 64, 128, 224),
)
WIDE_TILE = Tile(16, 64, 64, 72)  # exact: magma_sgemmEx_kernel, the same


@dataclass(frozen=True, slots=True)
class Products:
    """`batch` products C[m,n] = A[m,k] B[k,n] of tensors a, b and c."""

    batch: int
    m: int
    n: int
    k: int
    a: int
    b: int
    c: int
    name: str = "products"


def exact_products(problem: Products, hardware: Hardware) -> list[Kernel]:
    """The launches, each of as many products as a grid takes."""
    kernels: list[Kernel] = []
    left = problem.batch
    while left:
        batch = min(left, MOST_BATCH)
        kernels.append(_launch(problem, batch, hardware))
        left -= batch
    return kernels


def _launch(problem: Products, batch: int, hardware: Hardware) -> Kernel:
    """Of the kernels that take it the fastest."""
    m, n = problem.m, problem.n
    if batch >= hardware.exact_products.small_batches:
        if max(m, n) <= SMALL:
            return _small(problem, batch, hardware)
        if m <= SMALL and n > WIDE:
            return _tiled(problem, batch, WIDE_TILE, hardware)
    kernels = [_tiled(problem, batch, tile, hardware) for tile in TILES]
    return min(kernels, key=lambda kernel: lone_execution_s(kernel, hardware, cold_hbm_bytes(kernel)))


def _tiled(problem: Products, batch: int, tile: Tile, hardware: Hardware) -> Kernel:
    """A CTA to each tile: its products, padding included, and what is done once for each of its elements."""
    style, elements = hardware.exact_products, tile.m * tile.n
    down, across, steps = -(-problem.m // tile.m), -(-problem.n // tile.n), -(-problem.k // STEP)
    macs = float(elements * steps * STEP)
    rows, columns = problem.m / down, problem.n / across
    return _kernel(
        problem, batch, f"{tile.m}x{tile.n}", down * across, tile.threads, tile.registers,
        fp32_flops=2.0 * macs / style.efficiency,
        issue_slots=macs * (1 / style.efficiency + style.side_slots * (1 / tile.m + 1 / tile.n))
        + elements * style.element_slots,
        operand_elements=(rows + columns) * problem.k + rows * columns,
        latency_s=style.setup_s + steps * style.step_cycles / hardware.clock_hz,
        hardware=hardware,
    )  # fmt: skip


def _small(problem: Products, batch: int, hardware: Hardware) -> Kernel:
    """Four rows of a result to a CTA, whose threads share out k."""
    style, down = hardware.exact_products, -(-problem.m // SMALL_ROWS)
    rows, steps = problem.m / down, -(-problem.k // STEP)
    slots = steps * STEP * style.small_step_slots
    return _kernel(
        problem, batch, f"small{SMALL_ROWS}x{SMALL}", down, SMALL_THREADS, SMALL_REGISTERS,
        fp32_flops=2.0 * SMALL_ROWS * SMALL * problem.k,
        issue_slots=SMALL_THREADS * slots + SMALL_ROWS * WIDE_TILE.n * style.element_slots,
        operand_elements=(rows + problem.n) * problem.k + rows * problem.n,
        latency_s=style.setup_s + steps * style.step_cycles / hardware.clock_hz,
        hardware=hardware,
    )  # fmt: skip


def _kernel(
    problem: Products, batch: int, kind: str, ctas: int, threads: int, registers: int, *, fp32_flops: float, issue_slots: float,
    operand_elements: float, latency_s: float, hardware: Hardware,
) -> Kernel:  # fmt: skip
    sizes = (problem.m * problem.k, problem.k * problem.n, problem.m * problem.n)
    a, b, c = (float(FP32_BYTES * batch * size) for size in sizes)
    return Kernel(
        name=f"{problem.name}_fp32_{kind}",
        family="gemm",
        grid=batch * ctas,
        threads=threads,
        registers=registers,
        fp32_flops=fp32_flops,
        issue_slots=issue_slots,
        l2_bytes=FP32_BYTES * operand_elements,
        latency_s=hardware.hbm_latency_s + latency_s,
        hbm_stall=hardware.exact_products.hbm_stall,
        reads=(Access(problem.a, a), Access(problem.b, b)),
        writes=(Access(problem.c, c),),
        flops=2.0 * batch * problem.m * problem.n * problem.k,
    )
