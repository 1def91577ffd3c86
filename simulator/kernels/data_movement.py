"""Kernels that only move data: copies, casts, concatenation, upsampling, padding, embedding, memset.

PyTorch has no special kernel for a transposition: `contiguous()` walks the result's elements in order and
reads the source wherever it lies, each lane another sector (see `elementwise.l2_bytes_per_element`). A
dense copy of the same dtype is a cudaMemcpyAsync. `cat` has a kernel of its own for up to four dimensions
and falls back to a strided copy per input above (native/cuda/Shape.cu); that is what a video VAE's 5-D
tensors meet.

Constants without another source are fitted to operators_h100.csv (TraceLens, H100 SXM, 2026-11-23).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from simtti.hw_configs.hardware import Hardware
from simtti.simulator.kernel import Access, Kernel
from simtti.simulator.kernels.elementwise import (
    HALF_TYPES,
    ITEM_BYTES,
    L2_WRITE_COST,
    Operand,
    issue_flops,
    l2_bytes_per_element,
    merge_dimensions,
    unique_bytes,
    walk,
)

MEMCPY_CTA_BYTES = 16384  # bytes a CTA of the driver's copy kernel moves; 128 threads, 8 vectors of 16 B each
MEMCPY_THREADS = 128
MEMCPY_THREAD_SLOTS = 120  # issue slots of a thread: 8 loads and stores of 16 B, start and exit

CAT_THREADS = 512  # CatArrayBatchedCopy's CTA
CAT_CTAS_PER_SM = 2  # CTAs that cat launches per SM and input (getCatGrid in native/cuda/Shape.cu)
CAT_DENSE_SLOTS = 56  # issue slots of an element in CatArrayBatchedCopy_contig; fitted
CAT_STRIDED_SLOTS = 110  # issue slots of an element in CatArrayBatchedCopy; fitted
# `Kernel.hbm_stall` of cat: above 1, as two CTAs per SM with one element a thread in flight do not fill HBM [0, 2]; fitted
CAT_STALL = 1.4
CAT_LATENCY_S = 0.8e-6  # offsets by division before the first load; fitted [0, 2e-6]
CAT_MAX_DIMENSIONS = 4  # CAT_ARRAY_MAX_INPUT_DIMS in native/cuda/Shape.cu
CAT_ALIGNED_SLOTS = 45  # the same of the aligned16 variant, whose loads alone are vectors; estimate
INDEX_LIMIT = 2**31  # elements that PyTorch's kernels index with 32 bits

UPSAMPLE_THREADS = 256
UPSAMPLE_SLOTS = 64  # issue slots of an output element in upsample_nearest2d_out_frame; fitted
UPSAMPLE_STALL = 0.5  # its `Kernel.hbm_stall` [0, 1]; fitted

GATHER_THREADS = 128
GATHER_CTAS_PER_SM = 8  # indexSelectLargeIndex: min(needed, 8 per SM) CTAs (native/cuda/Indexing.cu)
# Issue slots of an element in indexSelectLargeIndex: two divisions and an index load; fitted
GATHER_SLOTS = 190
# Index, then row: dependent loads and divisions before the first byte moves; fitted
GATHER_LATENCY_S = 1.7e-6


def copy(shape: Sequence[int], source: Operand, target: Operand, hardware: Hardware) -> list[Kernel]:
    """`copy_`, `contiguous`, `clone`, `to`: the elements of `source` into the place and dtype of `target`."""
    _, steps = merge_dimensions(tuple(shape), (target.strides, source.strides))
    same_order = all(step == (1,) for step in steps)
    if same_order and source.dtype == target.dtype:
        return [memcpy(source.tensor, target.tensor, unique_bytes(shape, target), hardware)]
    # fp32 to half has a typed functor (bfloat16_copy_kernel_cuda and its like in native/cuda/Copy.cu).
    typed = source.dtype == "fp32" and target.dtype in HALF_TYPES
    name = "copy" if source.dtype == target.dtype else "cast"
    return [walk(name, tuple(shape), (source,), target, hardware, typed=typed, family="memory")]


def memcpy(source: int, target: int, nbytes: float, hardware: Hardware) -> Kernel:
    """Device-to-device copy of one dense block."""
    return _block("Memcpy DtoD", nbytes, (Access(source, nbytes),), target, hardware)


def memset(target: int, nbytes: float, hardware: Hardware) -> Kernel:
    """Set one dense block to a byte."""
    return _block("Memset", nbytes, (), target, hardware)


def _block(name: str, nbytes: float, reads: tuple[Access, ...], target: int, hardware: Hardware) -> Kernel:
    cta_bytes = min(nbytes, MEMCPY_CTA_BYTES)
    return Kernel(
        name=name,
        family="memory",
        grid=max(1, math.ceil(nbytes / MEMCPY_CTA_BYTES)),
        threads=MEMCPY_THREADS,
        registers=32,
        fp32_flops=issue_flops(MEMCPY_THREADS * MEMCPY_THREAD_SLOTS, hardware),
        l2_bytes=cta_bytes * (len(reads) + L2_WRITE_COST),
        latency_s=hardware.hbm_latency_s * len(reads),
        reads=reads,
        writes=(Access(target, nbytes),),
    )


def fill(shape: Sequence[int], target: Operand, hardware: Hardware) -> list[Kernel]:
    """`fill_`, `zero_` of a strided tensor, `full`: FillFunctor over the elements."""
    return [walk("fill", tuple(shape), (), target, hardware, family="memory")]


def constant_pad(
    shape: Sequence[int], source: Operand, padded_shape: Sequence[int], target: Operand, hardware: Hardware
) -> list[Kernel]:
    """`constant_pad_nd`: fill the padded result, then copy the source into its middle."""
    body = walk("copy", tuple(shape), (source,), target, hardware, family="memory")
    return [*fill(padded_shape, target, hardware), body]


def cat(
    shapes: Sequence[Sequence[int]], inputs: Sequence[Operand], target: Operand, hardware: Hardware
) -> list[Kernel]:
    """`cat` of `inputs`, each of its shape, into `target`; `target.strides` are the result's.

    One input is a plain copy; more than four dimensions, or 2^31 elements, are one strided copy per input.
    """
    pieces = [(tuple(shape), each) for shape, each in zip(shapes, inputs, strict=True) if math.prod(shape)]
    counts = [math.prod(shape) for shape, _ in pieces]
    total = sum(counts)
    same_type = len({each.dtype for _, each in pieces} | {target.dtype}) == 1
    if len(pieces) == 1:
        return copy(pieces[0][0], pieces[0][1], target, hardware)
    if len(target.strides) > CAT_MAX_DIMENSIONS or total >= INDEX_LIMIT or not same_type:
        # The part of the result that an input fills is strided by the result's larger size.
        return [walk("copy", shape, (each,), target, hardware, family="memory") for shape, each in pieces]
    item = ITEM_BYTES[target.dtype]
    l2_bytes = 0.0
    all_dense = True
    for count, (shape, each) in zip(counts, pieces, strict=True):
        sizes, (target_steps, steps) = merge_dimensions(shape, (target.strides, each.strides))
        # Dense, and in the result's order of dimensions: contiguous in its memory format (native/cuda/Shape.cu).
        dense_piece = merge_dimensions(shape, (each.strides,))[1] == ((1,),)
        all_dense = all_dense and dense_piece and _order(shape, each) == _order(shape, target)
        l2_bytes += count * l2_bytes_per_element(sizes, steps, item)
        l2_bytes += count * l2_bytes_per_element(sizes, target_steps, item) * L2_WRITE_COST
    slots = float(CAT_DENSE_SLOTS if all_dense else CAT_STRIDED_SLOTS)
    name = "CatArrayBatchedCopy_contig" if all_dense else "CatArrayBatchedCopy"
    if all_dense and item in (4, 8):
        slots = float(CAT_ALIGNED_SLOTS)
        name = "CatArrayBatchedCopy_aligned16_contig"
    # Every input gets the same CTAs, so only those of inputs about as long as the longest stay busy.
    busy = max(1, round(total / max(counts)))
    grid = min(CAT_CTAS_PER_SM * hardware.sm_count * busy, -(-total // CAT_THREADS))
    return [
        Kernel(
            name=name,
            family="memory",
            grid=grid,
            threads=CAT_THREADS,
            registers=29,
            fp32_flops=issue_flops(total * slots / grid, hardware),
            l2_bytes=l2_bytes / grid,
            latency_s=hardware.hbm_latency_s + CAT_LATENCY_S,
            hbm_stall=CAT_STALL,
            reads=tuple(Access(each.tensor, unique_bytes(shape, each)) for shape, each in pieces),
            writes=(Access(target.tensor, float(total * item)),),
        )
    ]


def _order(shape: Sequence[int], operand: Operand) -> list[int]:
    """Its dimensions from the slowest to the fastest, without those of size 1."""
    return sorted((i for i, size in enumerate(shape) if size != 1), key=lambda i: -operand.strides[i])


def upsample_nearest(
    numel_in: int, numel_out: int, dtype: str, hardware: Hardware, *, source: int = 0, target: int = 1
) -> list[Kernel]:
    """`upsample_nearest2d` and its relatives: a thread an output element, coordinates by division."""
    item = ITEM_BYTES[dtype]
    cta_elements = min(numel_out, UPSAMPLE_THREADS)
    return [
        Kernel(
            name="upsample_nearest_out_frame",
            family="memory",
            grid=-(-numel_out // UPSAMPLE_THREADS),
            threads=UPSAMPLE_THREADS,
            registers=32,
            fp32_flops=issue_flops(UPSAMPLE_THREADS * UPSAMPLE_SLOTS, hardware),
            l2_bytes=cta_elements * item * (L2_WRITE_COST + min(1.0, numel_in / numel_out)),
            latency_s=hardware.hbm_latency_s,
            hbm_stall=UPSAMPLE_STALL,
            reads=(Access(source, float(numel_in * item)),),
            writes=(Access(target, float(numel_out * item)),),
        )
    ]


def embedding(
    rows: int,
    columns: int,
    table_rows: int,
    dtype: str,
    hardware: Hardware,
    *,
    table: int = 0,
    target: int = 1,
) -> list[Kernel]:
    """`embedding`, `index_select` along the first dimension: `rows` rows of a table of `table_rows`."""
    item = ITEM_BYTES[dtype]
    numel = rows * columns
    grid = min(GATHER_CTAS_PER_SM * hardware.sm_count, -(-numel // GATHER_THREADS))
    moved = float(numel * item)
    return [
        Kernel(
            name="indexSelectLargeIndex",
            family="memory",
            grid=grid,
            threads=GATHER_THREADS,
            registers=32,
            fp32_flops=issue_flops(-(-numel // grid) * GATHER_SLOTS, hardware),
            l2_bytes=(1 + L2_WRITE_COST) * moved / grid,
            latency_s=hardware.hbm_latency_s + GATHER_LATENCY_S,
            reads=(Access(table, min(moved, float(table_rows * columns * item))),),
            writes=(Access(target, moved),),
        )
    ]
