"""Products with weights of four bits that the kernel itself unpacks: PyTorch's tinygemm (aten::_weight_int4pack_mm).

Written for a few rows of input: a CTA of eight warps makes one tile of 16 x 8 results (`tinygemm_m16n8k16_chunk_kernel`, grid of m by n
tiles), the warps share k, and what they have is added up in shared memory. Nothing stays in shared memory for the next tile: rows
of the input come from L2 for every eight columns, weights for every sixteen rows, and are unpacked again. With the thousands of
tokens of an image it is many times slower than a product in 16 bits. What was judged stands in hw_configs/families/gemm.yaml (gemm_packed).
"""

from __future__ import annotations

from collections.abc import Sequence

from simtti.hw_configs.hardware import Hardware
from simtti.simulator.kernel import Access, Kernel

# exact: rows, columns and depth of a tensor-core instruction, and of a tile
TILE_M, TILE_N, TILE_K = 16, 8, 16
THREADS = 256  # exact: eight warps (__launch_bounds__(Warps * kWarpSize))
WARPS = 8  # exact: that share k
HALF_BYTES, WEIGHT_BYTES, SCALE_BYTES = (
    2.0,
    0.5,
    4.0,
)  # exact: of an input, of a weight, of a group's scale and zero


def packed_product(
    m: int,
    n: int,
    k: int,
    group: int,
    reads: Sequence[Access],
    writes: Sequence[Access],
    hardware: Hardware,
    dtype: str,
) -> Kernel:
    """Inputs of m x k in 16 bits, weights of n x k in four, with a scale and a zero for each `group` of k."""
    style = hardware.gemm_packed
    steps = -(-k // TILE_K)
    loaded = TILE_M * k * HALF_BYTES + TILE_N * (k * WEIGHT_BYTES + -(-k // group) * SCALE_BYTES)
    return Kernel(
        name="tinygemm_int4",
        family="gemm",
        grid=-(-m // TILE_M) * -(-n // TILE_N),
        threads=THREADS,
        registers=int(style.registers),
        tensor_flops=2.0 * TILE_M * TILE_N * TILE_K * steps,
        tensor_dtype=dtype,
        issue_slots=style.step_slots * steps * (THREADS / WARPS),
        l2_bytes=loaded + TILE_M * TILE_N * HALF_BYTES,
        latency_s=style.latency_cycles / hardware.clock_hz,
        memory_efficiency=style.efficiency,
        reads=tuple(reads),
        writes=tuple(writes),
        flops=2.0 * m * n * k,
    )
