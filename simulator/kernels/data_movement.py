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

from simtti.dtypes import HALF_TYPES, ITEM_BYTES
from simtti.hw_configs.hardware import Hardware
from simtti.simulator.kernel import Access, Kernel
from simtti.simulator.kernels.elementwise import Walk, walk
from simtti.simulator.kernels.family import Cells, Column, Family, Target, Work, lowered_by, needed
from simtti.simulator.kernels.layout import (
    Operand,
    as_it_lies,
    broadcast,
    dense,
    l2_bytes_per_element,
    merge_dimensions,
    unique_bytes,
)
from simtti.workloads.trace import Operator

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
    return [walk(Walk(name, tuple(shape), (source,), target, typed=typed, family="memory"), hardware)]


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
        issue_slots=MEMCPY_THREADS * MEMCPY_THREAD_SLOTS,
        l2_bytes=cta_bytes * (len(reads) + hardware.l2_costs.write),
        latency_s=hardware.hbm_latency_s * len(reads),
        reads=reads,
        writes=(Access(target, nbytes),),
    )


def fill(shape: Sequence[int], target: Operand, hardware: Hardware) -> list[Kernel]:
    """`fill_`, `zero_` of a strided tensor, `full`: FillFunctor over the elements."""
    return [walk(Walk("fill", tuple(shape), (), target, family="memory"), hardware)]


def constant_pad(
    shape: Sequence[int], source: Operand, padded_shape: Sequence[int], target: Operand, hardware: Hardware
) -> list[Kernel]:
    """`constant_pad_nd`: fill the padded result, then copy the source into its middle."""
    body = walk(Walk("copy", tuple(shape), (source,), target, family="memory"), hardware)
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
        return [
            walk(Walk("copy", shape, (each,), target, family="memory"), hardware) for shape, each in pieces
        ]
    item = ITEM_BYTES[target.dtype]
    l2_bytes = 0.0
    all_dense = True
    for count, (shape, each) in zip(counts, pieces, strict=True):
        sizes, (target_steps, steps) = merge_dimensions(shape, (target.strides, each.strides))
        # Dense, and in the result's order of dimensions: contiguous in its memory format (native/cuda/Shape.cu).
        dense_piece = merge_dimensions(shape, (each.strides,))[1] == ((1,),)
        all_dense = all_dense and dense_piece and _order(shape, each) == _order(shape, target)
        l2_bytes += count * l2_bytes_per_element(sizes, steps, item, hardware.l2_costs.scattered_bytes)
        l2_bytes += (
            count
            * l2_bytes_per_element(sizes, target_steps, item, hardware.l2_costs.scattered_bytes)
            * hardware.l2_costs.write
        )
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
            issue_slots=total * slots / grid,
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
            issue_slots=UPSAMPLE_THREADS * UPSAMPLE_SLOTS,
            l2_bytes=cta_elements * item * (hardware.l2_costs.write + min(1.0, numel_in / numel_out)),
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
            issue_slots=-(-numel // grid) * GATHER_SLOTS,
            l2_bytes=(1 + hardware.l2_costs.write) * moved / grid,
            latency_s=hardware.hbm_latency_s + GATHER_LATENCY_S,
            reads=(Access(table, min(moved, float(table_rows * columns * item))),),
            writes=(Access(target, moved),),
        )
    ]


# ---- operators of a trace


def _lower_copy(operator: Operator, target: Target) -> list[Kernel]:
    if operator.attributes.get("transfer"):
        return [_host_copy(operator, target.hardware)]
    # copy_(target, source) has two inputs; clone, _to_copy and the like one.
    source, out = operator.inputs[-1], operator.outputs[0]
    result = broadcast(out, len(operator.inputs), out.shape)
    return copy(out.shape, broadcast(source, len(operator.inputs) - 1, out.shape), result, target.hardware)


def _host_copy(operator: Operator, hardware: Hardware) -> Kernel:
    """A copy between host and device, by a copy engine: no SM works, the host's pageable memory is the limit."""
    nbytes = float(sum(use.nbytes for use in operator.inputs or operator.outputs))
    reads = tuple(Access(slot, float(use.nbytes)) for slot, use in enumerate(operator.inputs))
    latency_s = nbytes / hardware.host_copy_bytes_per_s
    return Kernel("Memcpy host", "memory", 1, threads=32, latency_s=latency_s, reads=reads)


def _lower_cat(operator: Operator, target: Target) -> list[Kernel]:
    out = operator.outputs[0]
    shapes = [use.shape for use in operator.inputs]
    if operator.op == "aten::stack":
        dim = int(operator.attributes.get("dim", 0)) % len(out.shape)
        shapes = [(*shape[:dim], 1, *shape[dim:]) for shape in shapes]
        inputs = [
            Operand(slot, (*use.strides[:dim], 0, *use.strides[dim:]), use.dtype)
            for slot, use in enumerate(operator.inputs)
        ]
    else:
        inputs = [as_it_lies(use, slot) for slot, use in enumerate(operator.inputs)]
    return cat(shapes, inputs, as_it_lies(out, len(operator.inputs)), target.hardware)


def _lower_upsample(operator: Operator, target: Target) -> list[Kernel]:
    x, out = operator.inputs[0], operator.outputs[0]
    return upsample_nearest(
        x.numel, out.numel, x.dtype, target.hardware, source=0, target=len(operator.inputs)
    )


def _lower_embedding(operator: Operator, target: Target) -> list[Kernel]:
    table, out = operator.inputs[0], operator.outputs[0]
    columns = min(table.shape[-1] if len(table.shape) > 1 else 1, out.numel)
    rows = -(-out.numel // columns)
    return embedding(
        rows, columns, table.shape[0], out.dtype, target.hardware, table=0, target=len(operator.inputs)
    )


def _lower_pad(operator: Operator, target: Target) -> list[Kernel]:
    x, out = operator.inputs[0], operator.outputs[0]
    return constant_pad(x.shape, as_it_lies(x, 0), out.shape, as_it_lies(out, 1), target.hardware)


def _lower_fill(operator: Operator, target: Target) -> list[Kernel]:
    slot = len(operator.inputs)
    return [
        kernel
        for index, out in enumerate(operator.outputs)
        for kernel in fill(out.shape, as_it_lies(out, slot + index), target.hardware)
    ]


def _lower_scalar_to_host(operator: Operator, target: Target) -> list[Kernel]:
    return [_host_copy(operator, target.hardware)]


# ---- rows of a table


def _copy_kernels(cells: Cells, hardware: Hardware) -> list[Kernel]:
    shape = (cells.whole("numel"),)
    return copy(shape, dense(0, shape, cells.dtype), dense(1, shape, cells.dtype), hardware)


def _permute_kernels(cells: Cells, hardware: Hardware) -> list[Kernel]:
    """(batch, rows, cols, inner) to (batch, cols, rows, inner)."""
    batch, rows, cols, inner = (cells.whole(name) for name in ("batch", "rows", "cols", "inner"))
    shape = (batch, cols, rows, inner)
    source = Operand(0, (rows * cols * inner, inner, cols * inner, 1), cells.dtype)
    return copy(shape, source, dense(1, shape, cells.dtype), hardware)


def _cat_spatial(cells: Cells) -> int:
    """Elements of a channel: spatial, or h times w."""
    return cells.optional("spatial") or (cells.optional("h") or 1) * (cells.optional("w") or 1)


def _cat_kernels(cells: Cells, hardware: Hardware) -> list[Kernel]:
    """(n, c, spatial) and (n, c2, spatial) to (n, c + c2, spatial)."""
    n, spatial = cells.whole("n"), _cat_spatial(cells)
    shapes = [(n, cells.whole(column), spatial) for column in ("c", "c2")]
    inputs = [dense(slot, shape, cells.dtype) for slot, shape in enumerate(shapes)]
    out = (n, shapes[0][1] + shapes[1][1], spatial)
    return cat(shapes, inputs, dense(2, out, cells.dtype), hardware)


def _embedding_kernels(cells: Cells, hardware: Hardware) -> list[Kernel]:
    return embedding(
        cells.whole("rows"), cells.whole("cols"), cells.whole("table_rows"), cells.dtype, hardware
    )


def _embedding_work(cells: Cells) -> Work:
    rows = cells.whole("rows")
    return Work(0.0, float(cells.whole("cols") * (min(rows, cells.whole("table_rows")) + rows)))


def _upsample_kernels(cells: Cells, hardware: Hardware) -> list[Kernel]:
    numel = _pixels(cells)
    return upsample_nearest(numel, numel * cells.whole("scale") ** 2, cells.dtype, hardware)


def _pixels(cells: Cells) -> int:
    return math.prod(cells.whole(name) for name in ("n", "c", "h", "w"))


# A thread finds its output's source by division: upsampling, padding by neighbours, shuffling pixels.
_ONE_THREAD_AN_OUTPUT = """upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact2d
replication_pad1d replication_pad2d replication_pad3d reflection_pad1d reflection_pad2d pixel_shuffle pixel_unshuffle
avg_pool2d _adaptive_avg_pool2d upsample_bilinear2d upsample_bicubic2d"""
_FILLS = "arange zeros ones full zeros_like ones_like full_like zero fill new_zeros new_ones new_full scalar_tensor linspace eye"

COPY = Family(
    op="copy",
    columns=needed("numel"),
    kernels=_copy_kernels,
    work=lambda cells: Work(0.0, 2.0 * cells.whole("numel")),
    aten=lowered_by(_lower_copy, "clone copy _to_copy contiguous repeat roll flip")
    | lowered_by(_lower_fill, _FILLS)
    | lowered_by(_lower_pad, "constant_pad_nd")
    | lowered_by(_lower_scalar_to_host, "_local_scalar_dense"),
)
PERMUTE = Family(
    op="permute",
    columns=(*needed("rows cols"), Column("batch", 1), Column("inner", 1)),
    note="copy of (batch, rows, cols, inner) to (batch, cols, rows, inner)",
    kernels=_permute_kernels,
    work=lambda cells: Work(
        0.0, 2.0 * math.prod(cells.whole(name) for name in ("batch", "rows", "cols", "inner"))
    ),
)
CAT = Family(
    op="cat",
    columns=(*needed("n c c2"), Column("spatial", None), Column("h", None), Column("w", None)),
    note="(n, c, spatial) and (n, c2, spatial) along the second dimension; spatial may be given as h and w",
    kernels=_cat_kernels,
    work=lambda cells: Work(
        0.0, 2.0 * cells.whole("n") * (cells.whole("c") + cells.whole("c2")) * _cat_spatial(cells)
    ),
    aten=lowered_by(_lower_cat, "cat stack"),
)
EMBEDDING = Family(
    op="embedding",
    columns=(*needed("rows cols"), Column("table_rows", 49408)),
    kernels=_embedding_kernels,
    work=_embedding_work,
    aten=lowered_by(_lower_embedding, "embedding index index_select gather"),
)
UPSAMPLE = Family(
    op="upsample",
    columns=(*needed("n c h w"), Column("scale", 2)),
    kernels=_upsample_kernels,
    work=lambda cells: Work(0.0, _pixels(cells) * (1.0 + cells.whole("scale") ** 2)),
    aten=lowered_by(_lower_upsample, _ONE_THREAD_AN_OUTPUT),
)
