"""What the kernels of a matrix product ask of the device: of its tiles, and of the reduction of split-K.

Fields of `Kernel` by name, which read the same for one product and for a column of them: amounts are then arrays, an entry each.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from simtti.hw_configs.hardware import Hardware
from simtti.simulator import arithmetic
from simtti.simulator.arithmetic import Number
from simtti.simulator.kernel import Kernel
from simtti.simulator.kernels.data_movement import memset
from simtti.simulator.kernels.gemm_estimate import (
    REDUCTION_THREADS,
    Product,
    rates_of,
    reduction_l2_bytes,
    work_of,
)
from simtti.simulator.kernels.gemm_tiles import Catalogue, Fit, Tile, on_cuda_cores, sgemm_products
from simtti.simulator.kernels.machine import LANES

REDUCTION_REGISTERS = 32  # exact: of a thread, few enough that CTAs fill an SM's threads

TINY = 16  # exact: rows and columns of wmma kernels' tiles, by their names
TINY_REGISTERS = 64  # exact: of a thread; one warp a CTA, so that they limit nothing
TINY_SHARED_BYTES = 4 * 1024  # exact: the operands and the result of a tile, so that they limit nothing
# exact: products of one launch, CUDA's limit of a grid's z; 65,536 are launched as 65,535 and 1
MOST_BATCH = 65535

COUNTER, COUNTER_BYTES = -5, 4.0  # exact: our own identity of the counter of tiles; its bytes

# How a product is launched and what L2 holds: again and again from a graph, by itself, or by itself after a flush of L2.
REPLAYED, EAGER, COLD = "replayed", "eager", "cold"  # exact: our own words


# exact: the tile of cuBLAS's persistent kernels on Hopper before nvjet (`tilesize128x128x64_.._execute_segment_k_off_kernel` on 120
# CTAs, with a Memset of their counter before): as fast as nvjet's, six products of TimeSformer within 11 %
PERSISTENT_TILE = (128, 128)


def is_persistent(m: Number, n: Number, batch: Number, hardware: Hardware) -> Any:
    """Whether a library of before nvjet runs its persistent kernels."""
    if not hardware.has_xmma:
        return False
    parts, (tile_m, tile_n) = arithmetic.of(m).parts, PERSISTENT_TILE
    tiles = parts(m, tile_m) * parts(n, tile_n) * batch
    return tiles > hardware.gemm_launch.persistent_tiles * hardware.sm_count


def is_tiny(m: Number, n: Number, k: Number, batch: Number, dtype: str, hardware: Hardware) -> Any:
    """Whether products run on the kernels of one warp: several of few multiply-adds with a side up to 16."""
    narrow = (batch > 1) & (arithmetic.of(m).least(m, n) <= TINY)
    few = m * n * k <= hardware.gemm_tiny.most_macs
    return narrow & few & (not on_cuda_cores(hardware, dtype))


def tiny(product: Product, dtype: str, hardware: Hardware) -> dict[str, Any]:
    """Of a kernel that gives a warp to each 16 x 16 of each product: what it issues around its few products is its time, not the
    products."""
    style, (m, n, k, batch, size, _) = hardware.gemm_tiny, product
    parts = arithmetic.of(m).parts
    down, across = parts(m, TINY), parts(n, TINY)
    operand_bytes = (m / down + n / across) * k * size
    return {
        "grid": batch * down * across,
        "threads": LANES,
        "registers": TINY_REGISTERS,
        "shared_memory_bytes": TINY_SHARED_BYTES,
        "tensor_flops": 2.0 * TINY * TINY * (parts(k, TINY) * TINY),
        "tensor_dtype": dtype,
        "issue_slots": LANES * style.thread_slots,
        "l2_bytes": operand_bytes + m / down * n / across * size,
        "latency_s": style.latency_s,
        "bytes_in_flight": operand_bytes,
        "memory_efficiency": style.efficiency,
    }


def draws_tiles(tiles: Number, hardware: Hardware) -> Any:
    """Whether the CTAs of a kernel launched by itself draw its tiles from a counter, which a Memset before it clears."""
    return tiles > hardware.gemm_launch.counter_waves * hardware.sm_count


def counter(family: str, hardware: Hardware) -> Kernel:
    """That Memset."""
    return dataclasses.replace(memset(COUNTER, COUNTER_BYTES, hardware), family=family)


def tiled_name(name: str, tile: Tile, split: int) -> str:
    return f"{name}_{tile.m}x{tile.n}" + (f"_splitk{split}" if split > 1 else "")


def reduction_name(name: str) -> str:
    return f"{name}_splitk_reduce"


def tiled(
    product: Product,
    dtype: str,
    kernels: Catalogue,
    fit: Fit,
    split: Number,
    hbm_bytes: Number,
    hardware: Hardware,
) -> dict[str, Any]:
    """Of the product in tiles of `fit`. hbm_bytes: of a repeated launch, without what it reads again."""
    work = work_of(fit, kernels.style, product, split, rates_of(hardware), hbm_bytes)
    own = work.of_kernel(fit.tile, hbm_bytes) | {"tensor_efficiency": kernels.tensor_share}
    if not kernels.on_cuda_cores:
        return own | {"tensor_flops": work.flops, "tensor_dtype": dtype}
    fused = sgemm_products(work.flops / 2, hardware)
    return own | {"fp32_flops": fused.flops, "issue_slots": fused.slots, "tensor_dtype": "fp16"}


def reduction(elements: Number, split: Number, hbm_bytes: Number, hardware: Hardware) -> dict[str, Any]:
    """Of cuBLAS's splitKreduce, which sums `split` FP32 partial results of each output element."""
    rates = rates_of(hardware)
    return {
        "grid": arithmetic.of(elements).parts(elements, REDUCTION_THREADS),
        "threads": REDUCTION_THREADS,
        "registers": REDUCTION_REGISTERS,
        "l2_bytes": reduction_l2_bytes(split),
        "fp32_flops": REDUCTION_THREADS * (split + 0.0),
        "latency_s": rates.reduction_latency_s,
        "bytes_in_flight": rates.reduction_in_flight,
        "repeated_hbm_bytes": hbm_bytes,
    }


def started_s(launched: str, bias: bool, hardware: Hardware) -> float:
    """What the first wave of a product waits for beyond its CTAs' latency, by how it is launched."""
    if launched == REPLAYED:
        return 0.0
    style = hardware.gemm_launch
    return style.start_s + (style.cold_s if launched == COLD else 0.0) + (style.bias_s if bias else 0.0)
