"""Kernels that only move data: copies, casts, concatenation, upsampling, padding, embedding, memset.

PyTorch has no special kernel for a transposition: `contiguous()` walks the result's elements in order and
reads the source wherever it lies, each lane another sector (see `layout.l2_bytes_per_element`). A
dense copy of the same dtype is a cudaMemcpyAsync. `cat` has a kernel of its own for up to four dimensions
and falls back to a strided copy per input above (native/cuda/Shape.cu); that is what a video VAE's 5-D
tensors meet.

What is fitted stands in hw_configs/families/data_movement.yaml.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

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
from simtti.simulator.kernels.machine import VECTOR_BYTES
from simtti.workloads.trace import Operator

# exact: by definition, as the driver's kernel is not published; issue slots of a thread are counted for its 8 vectors
MEMCPY_THREADS, MEMCPY_VECTORS = 128, 8
MEMCPY_CTA_BYTES = MEMCPY_THREADS * MEMCPY_VECTORS * VECTOR_BYTES
REGISTERS = 32  # exact: a thread's of upsampling and look-ups in torch.profiler traces of H100s

CAT_THREADS = (
    512  # exact: a CTA of CatArrayBatchedCopy (native/cuda/Shape.cu; torch.profiler traces of H100s)
)
CAT_REGISTERS = 29  # exact: its registers a thread in the same traces
CAT_CTAS_PER_SM = 2  # exact: CTAs that cat launches per SM and input (getCatGrid, same file)
CAT_MAX_DIMENSIONS = 4  # exact: CAT_ARRAY_MAX_INPUT_DIMS, same file
CAT_ALIGNED_BYTES = (4, 8)  # exact: elements that the aligned16 variant takes, same file
INDEX_LIMIT = 2**31  # exact: elements that PyTorch's kernels index with 32 bits

# exact: by definition: slots and stall were fitted to CTAs of this size; profilers show 512
UPSAMPLE_THREADS = 256

GATHER_THREADS = 128  # exact: a CTA of indexSelectLargeIndex (native/cuda/Indexing.cu)
GATHER_CTAS_PER_SM = 8  # exact: its CTAs: min(needed, 8 per SM), same file


@dataclass(frozen=True, slots=True)
class Cat:
    """Tensors (`inputs`, each of its shape) one after another in `target`, whose strides are the result's."""

    shapes: tuple[tuple[int, ...], ...]
    inputs: tuple[Operand, ...]
    target: Operand

    @property
    def pieces(self) -> list[tuple[tuple[int, ...], Operand]]:
        """The inputs that are not empty, with their shapes."""
        return [
            (shape, each) for shape, each in zip(self.shapes, self.inputs, strict=True) if math.prod(shape)
        ]


@dataclass(frozen=True, slots=True)
class Pad:
    """A tensor of `shape` in the middle of a result of `padded_shape`, the rest of which is constant."""

    shape: tuple[int, ...]
    source: Operand
    padded_shape: tuple[int, ...]
    target: Operand


@dataclass(frozen=True, slots=True)
class Upsample:
    """numel_out elements, each found among numel_in by its coordinates; from the tensor `source` to `target`."""

    numel_in: int
    numel_out: int
    dtype: str
    source: int = 0
    target: int = 1


@dataclass(frozen=True, slots=True)
class Gather:
    """`rows` rows of `columns` elements, looked up in a table of `table_rows`; from the tensor `table` to `target`."""

    rows: int
    columns: int
    table_rows: int
    dtype: str
    table: int = 0
    target: int = 1


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
        registers=REGISTERS,
        issue_slots=MEMCPY_THREADS * hardware.memcpy.thread_slots,
        l2_bytes=cta_bytes * (len(reads) + hardware.l2_costs.write),
        latency_s=hardware.hbm_latency_s * len(reads),
        reads=reads,
        writes=(Access(target, nbytes),),
    )


def fill(shape: Sequence[int], target: Operand, hardware: Hardware) -> list[Kernel]:
    """`fill_`, `zero_` of a strided tensor, `full`: FillFunctor over the elements."""
    return [walk(Walk("fill", tuple(shape), (), target, family="memory"), hardware)]


def constant_pad(problem: Pad, hardware: Hardware) -> list[Kernel]:
    """`constant_pad_nd`: fill the padded result, then copy the source into its middle."""
    target = problem.target
    body = walk(Walk("copy", problem.shape, (problem.source,), target, family="memory"), hardware)
    return [*fill(problem.padded_shape, target, hardware), body]


def cat(problem: Cat, hardware: Hardware) -> list[Kernel]:
    """`cat`: one input is a plain copy; more than four dimensions, or 2^31 elements, are one strided copy per input."""
    pieces, target = problem.pieces, problem.target
    total = sum(math.prod(shape) for shape, _ in pieces)
    same_type = len({each.dtype for _, each in pieces} | {target.dtype}) == 1
    if len(pieces) == 1:
        return copy(pieces[0][0], pieces[0][1], target, hardware)
    if len(target.strides) > CAT_MAX_DIMENSIONS or total >= INDEX_LIMIT or not same_type:
        # The part of the result that an input fills is strided by the result's larger size.
        return [
            walk(Walk("copy", shape, (each,), target, family="memory"), hardware) for shape, each in pieces
        ]
    return [_cat_kernel(problem, hardware)]


def _cat_kernel(problem: Cat, hardware: Hardware) -> Kernel:
    """CatArrayBatchedCopy: all inputs in one kernel, the same CTAs for each."""
    style, costs = hardware.cat, hardware.l2_costs
    pieces, target = problem.pieces, problem.target
    counts = [math.prod(shape) for shape, _ in pieces]
    total, item = sum(counts), ITEM_BYTES[target.dtype]
    l2_bytes = 0.0
    all_dense = True
    for count, (shape, each) in zip(counts, pieces, strict=True):
        sizes, (target_steps, steps) = merge_dimensions(shape, (target.strides, each.strides))
        # Dense, and in the result's order of dimensions: contiguous in its memory format (native/cuda/Shape.cu).
        dense_piece = merge_dimensions(shape, (each.strides,))[1] == ((1,),)
        all_dense = all_dense and dense_piece and _order(shape, each) == _order(shape, target)
        l2_bytes += count * l2_bytes_per_element(sizes, steps, item, costs.scattered_bytes)
        l2_bytes += (
            count * l2_bytes_per_element(sizes, target_steps, item, costs.scattered_bytes) * costs.write
        )
    slots = style.dense_slots if all_dense else style.strided_slots
    name = "CatArrayBatchedCopy_contig" if all_dense else "CatArrayBatchedCopy"
    if all_dense and item in CAT_ALIGNED_BYTES:
        slots, name = style.aligned_slots, "CatArrayBatchedCopy_aligned16_contig"
    # Every input gets the same CTAs, so only those of inputs about as long as the longest stay busy.
    busy = max(1, round(total / max(counts)))
    grid = min(CAT_CTAS_PER_SM * hardware.sm_count * busy, -(-total // CAT_THREADS))
    return Kernel(
        name=name,
        family="memory",
        grid=grid,
        threads=CAT_THREADS,
        registers=CAT_REGISTERS,
        issue_slots=total * slots / grid,
        l2_bytes=l2_bytes / grid,
        latency_s=hardware.hbm_latency_s + style.latency_s,
        hbm_stall=style.stall,
        reads=tuple(Access(each.tensor, unique_bytes(shape, each)) for shape, each in pieces),
        writes=(Access(target.tensor, float(total * item)),),
    )


def _order(shape: Sequence[int], operand: Operand) -> list[int]:
    """Its dimensions from the slowest to the fastest, without those of size 1."""
    return sorted((i for i, size in enumerate(shape) if size != 1), key=lambda i: -operand.strides[i])


def upsample_nearest(problem: Upsample, hardware: Hardware) -> list[Kernel]:
    """`upsample_nearest2d` and its relatives: a thread an output element, coordinates by division."""
    style, item, numel = hardware.upsample, ITEM_BYTES[problem.dtype], problem.numel_out
    cta_elements = min(numel, UPSAMPLE_THREADS)
    return [
        Kernel(
            name="upsample_nearest_out_frame",
            family="memory",
            grid=-(-numel // UPSAMPLE_THREADS),
            threads=UPSAMPLE_THREADS,
            registers=REGISTERS,
            issue_slots=UPSAMPLE_THREADS * style.element_slots,
            l2_bytes=cta_elements * item * (hardware.l2_costs.write + min(1.0, problem.numel_in / numel)),
            latency_s=hardware.hbm_latency_s,
            hbm_stall=style.stall,
            reads=(Access(problem.source, float(problem.numel_in * item)),),
            writes=(Access(problem.target, float(numel * item)),),
        )
    ]


def embedding(problem: Gather, hardware: Hardware) -> list[Kernel]:
    """`embedding`, `index_select` along the first dimension."""
    style, item = hardware.embedding, ITEM_BYTES[problem.dtype]
    numel = problem.rows * problem.columns
    grid = min(GATHER_CTAS_PER_SM * hardware.sm_count, -(-numel // GATHER_THREADS))
    moved = float(numel * item)
    table_bytes = float(problem.table_rows * problem.columns * item)
    return [
        Kernel(
            name="indexSelectLargeIndex",
            family="memory",
            grid=grid,
            threads=GATHER_THREADS,
            registers=REGISTERS,
            issue_slots=-(-numel // grid) * style.element_slots,
            l2_bytes=(1 + hardware.l2_costs.write) * moved / grid,
            latency_s=hardware.hbm_latency_s + style.latency_s,
            reads=(Access(problem.table, min(moved, table_bytes)),),
            writes=(Access(problem.target, moved),),
        )
    ]


# ---- operators of a trace


def _lower_copy(operator: Operator, target: Target) -> list[Kernel]:
    if operator.attributes.get("transfer"):
        return [_host_copy(operator)]
    # copy_(target, source) has two inputs; clone, _to_copy and the like one.
    source, out = operator.inputs[-1], operator.outputs[0]
    result = broadcast(out, len(operator.inputs), out.shape)
    return copy(out.shape, broadcast(source, len(operator.inputs) - 1, out.shape), result, target.hardware)


def _host_copy(operator: Operator) -> Kernel:
    """A copy between host and device, by a copy engine: no SM works, the host's pageable memory is the limit."""
    nbytes = float(sum(use.nbytes for use in operator.inputs or operator.outputs))
    reads = tuple(Access(slot, float(use.nbytes)) for slot, use in enumerate(operator.inputs))
    return Kernel("Memcpy host", "memory", 1, copy_bytes=nbytes, reads=reads)


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
    problem = Cat(tuple(shapes), tuple(inputs), as_it_lies(out, len(operator.inputs)))
    return cat(problem, target.hardware)


def _lower_upsample(operator: Operator, target: Target) -> list[Kernel]:
    x, out = operator.inputs[0], operator.outputs[0]
    problem = Upsample(x.numel, out.numel, x.dtype, target=len(operator.inputs))
    return upsample_nearest(problem, target.hardware)


def _lower_embedding(operator: Operator, target: Target) -> list[Kernel]:
    table, out = operator.inputs[0], operator.outputs[0]
    columns = min(table.shape[-1] if len(table.shape) > 1 else 1, out.numel)
    rows = -(-out.numel // columns)
    problem = Gather(rows, columns, table.shape[0], out.dtype, target=len(operator.inputs))
    return embedding(problem, target.hardware)


def _lower_pad(operator: Operator, target: Target) -> list[Kernel]:
    x, out = operator.inputs[0], operator.outputs[0]
    return constant_pad(Pad(x.shape, as_it_lies(x, 0), out.shape, as_it_lies(out, 1)), target.hardware)


def _lower_fill(operator: Operator, target: Target) -> list[Kernel]:
    slot = len(operator.inputs)
    return [
        kernel
        for index, out in enumerate(operator.outputs)
        for kernel in fill(out.shape, as_it_lies(out, slot + index), target.hardware)
    ]


def _lower_scalar_to_host(operator: Operator, target: Target) -> list[Kernel]:
    return [_host_copy(operator)]


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
    shapes = tuple((n, cells.whole(column), spatial) for column in ("c", "c2"))
    inputs = tuple(dense(slot, shape, cells.dtype) for slot, shape in enumerate(shapes))
    out = (n, shapes[0][1] + shapes[1][1], spatial)
    return cat(Cat(shapes, inputs, dense(2, out, cells.dtype)), hardware)


def _embedding_kernels(cells: Cells, hardware: Hardware) -> list[Kernel]:
    rows, columns, table_rows = (cells.whole(name) for name in ("rows", "cols", "table_rows"))
    return embedding(Gather(rows, columns, table_rows, cells.dtype), hardware)


def _embedding_work(cells: Cells) -> Work:
    rows = cells.whole("rows")
    return Work(0.0, float(cells.whole("cols") * (min(rows, cells.whole("table_rows")) + rows)))


def _upsample_kernels(cells: Cells, hardware: Hardware) -> list[Kernel]:
    numel = _pixels(cells)
    return upsample_nearest(Upsample(numel, numel * cells.whole("scale") ** 2, cells.dtype), hardware)


def _pixels(cells: Cells) -> int:
    return math.prod(cells.whole(name) for name in ("n", "c", "h", "w"))


# A thread finds its output's source by division: upsampling, padding by neighbours, shuffling pixels.
_ONE_THREAD_AN_OUTPUT = """upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact2d
replication_pad1d replication_pad2d replication_pad3d reflection_pad1d reflection_pad2d pixel_shuffle pixel_unshuffle
avg_pool2d _adaptive_avg_pool2d upsample_bilinear2d upsample_bicubic2d"""
_FILLS = "arange zeros ones full zeros_like ones_like full_like zero fill new_zeros new_ones new_full scalar_tensor linspace eye"

CLIP_TOKENS = 49408  # exact: rows of CLIP's table of tokens

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
    columns=(*needed("rows cols"), Column("table_rows", CLIP_TOKENS)),
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
