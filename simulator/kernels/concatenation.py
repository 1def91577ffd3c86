"""Concatenation as PyTorch launches it (native/cuda/Shape.cu).

One kernel copies all inputs: in vectors of 16 bytes where each lies dense and in whole vectors, element by element
elsewhere. It takes up to four dimensions; above, which is what a video VAE's 5-D tensors meet, each input is a strided copy.

What is fitted stands in hw_configs/families/data_movement.yaml.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from simtti.dtypes import ITEM_BYTES
from simtti.hw_configs.hardware import Hardware
from simtti.simulator.kernel import Access, Kernel
from simtti.simulator.kernels.data_movement import copy
from simtti.simulator.kernels.elementwise import Walk, walk
from simtti.simulator.kernels.family import Cells, Column, Family, Target, Work, lowered_by, needed
from simtti.simulator.kernels.layout import (
    Operand,
    as_it_lies,
    dense,
    l2_bytes_per_element,
    lies_dense,
    merge_dimensions,
    scattered_bytes,
    streamed_l2_bytes,
    unique_bytes,
)
from simtti.simulator.kernels.machine import VECTOR_BYTES
from simtti.simulator.kernels.reuse import asked
from simtti.workloads.trace import Operator

CAT_THREADS = (
    512  # exact: a CTA of CatArrayBatchedCopy (native/cuda/Shape.cu; torch.profiler traces of H100s)
)
CAT_REGISTERS = 29  # exact: its registers a thread in the same traces
CAT_CTAS_PER_SM = 2  # exact: CTAs that cat launches per SM and input (getCatGrid, same file)
# exact: the vectorised kernel of torch 2.8 and later: its CTA, registers (H200), and CTAs per SM and input (getCatGridContig)
CAT_VECTOR_THREADS, CAT_VECTOR_REGISTERS, CAT_VECTOR_CTAS_PER_SM = 128, 18, 32  # exact: see above
CAT_MAX_DIMENSIONS = 4  # exact: CAT_ARRAY_MAX_INPUT_DIMS, same file
CAT_ALIGNED_BYTES = (4, 8)  # exact: elements that the aligned16 variant takes, same file
INDEX_LIMIT = 2**31  # exact: elements that PyTorch's kernels index with 32 bits


@dataclass(frozen=True, slots=True)
class Cat:
    """Tensors (`inputs`, each of its shape) one after another in `target`, whose strides are the result's.

    vectors: the library copies in vectors where all lies so that it can, as torch 2.8 and later do.
    """

    shapes: tuple[tuple[int, ...], ...]
    inputs: tuple[Operand, ...]
    target: Operand
    vectors: bool = True

    @property
    def pieces(self) -> list[tuple[tuple[int, ...], Operand]]:
        """The inputs that are not empty, with their shapes."""
        return [
            (shape, each) for shape, each in zip(self.shapes, self.inputs, strict=True) if math.prod(shape)
        ]


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
    return [_cat_vectors(problem, hardware) if _in_vectors(problem) else _cat_kernel(problem, hardware)]


def _in_vectors(problem: Cat) -> bool:
    """Whether CatArrayBatchedCopy_vectorized takes it: dense in row-major order, and what each input gives to a row of the
    result is a whole number of vectors (parallel_cat in native/cuda/Shape.cu)."""
    item = ITEM_BYTES[problem.target.dtype]
    return problem.vectors and all(
        lies_dense(shape, each.strides)
        and merge_dimensions(shape, (problem.target.strides, each.strides))[0][0] * item % VECTOR_BYTES == 0
        for shape, each in problem.pieces
    )


def _cat_vectors(problem: Cat, hardware: Hardware) -> Kernel:
    """CatArrayBatchedCopy_vectorized: a vector of 16 bytes a thread at a time, the same CTAs for each input."""
    style, pieces, target = hardware.cat, problem.pieces, problem.target
    item = ITEM_BYTES[target.dtype]
    counts = [math.prod(shape) for shape, _ in pieces]
    vectors = [count * item / VECTOR_BYTES for count in counts]
    grid = _vector_grid(tuple(vectors), hardware)
    reads = tuple(Access(each.tensor, unique_bytes(shape, each)) for shape, each in pieces)
    writes = (Access(target.tensor, float(sum(counts) * item)),)
    return Kernel(
        name="CatArrayBatchedCopy_vectorized",
        family="memory",
        grid=grid,
        threads=CAT_VECTOR_THREADS,
        registers=CAT_VECTOR_REGISTERS,
        issue_slots=sum(vectors) * style.vector_slots / grid,
        l2_bytes=streamed_l2_bytes(reads, writes, hardware) / grid,
        latency_s=hardware.hbm_latency_s + style.vector_latency_s,
        reads=reads,
        writes=writes,
    )


@asked
def _vector_grid(vectors: tuple[float, ...], hardware: Hardware) -> int:
    """Every input gets the CTAs of the longest; those that find nothing to copy end at once and are not counted."""
    most = CAT_VECTOR_CTAS_PER_SM * hardware.sm_count
    return sum(min(most, math.ceil(each / CAT_VECTOR_THREADS)) for each in vectors)


@asked
def _grid(total: int, busy: int, hardware: Hardware) -> int:
    """Every input gets the same CTAs, of which those of `busy` inputs stay busy."""
    return min(CAT_CTAS_PER_SM * hardware.sm_count * busy, -(-total // CAT_THREADS))


def _cat_kernel(problem: Cat, hardware: Hardware) -> Kernel:
    """CatArrayBatchedCopy: all inputs in one kernel, the same CTAs for each."""
    style, costs = hardware.cat, hardware.l2_costs
    pieces, target = problem.pieces, problem.target
    counts = [math.prod(shape) for shape, _ in pieces]
    total, item = sum(counts), ITEM_BYTES[target.dtype]
    l2_bytes, lone_bytes = 0.0, scattered_bytes(hardware)
    all_dense = True
    for count, (shape, each) in zip(counts, pieces, strict=True):
        sizes, (target_steps, steps) = merge_dimensions(shape, (target.strides, each.strides))
        # Dense, and in the result's order of dimensions: contiguous in its memory format (native/cuda/Shape.cu).
        dense_piece = merge_dimensions(shape, (each.strides,))[1] == ((1,),)
        all_dense = all_dense and dense_piece and _order(shape, each) == _order(shape, target)
        l2_bytes += count * l2_bytes_per_element(sizes, steps, item, lone_bytes)
        l2_bytes += count * l2_bytes_per_element(sizes, target_steps, item, lone_bytes) * costs.write
    slots = style.dense_slots if all_dense else style.strided_slots
    name = "CatArrayBatchedCopy_contig" if all_dense else "CatArrayBatchedCopy"
    if all_dense and item in CAT_ALIGNED_BYTES:
        slots, name = style.aligned_slots, "CatArrayBatchedCopy_aligned16_contig"
    # Only the CTAs of inputs about as long as the longest stay busy.
    grid = _grid(total, max(1, round(total / max(counts))), hardware)
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


# ---- operators of a trace


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


# ---- rows of a table


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


CAT = Family(
    op="cat",
    columns=(*needed("n c c2"), Column("spatial", None), Column("h", None), Column("w", None)),
    note="(n, c, spatial) and (n, c2, spatial) along the second dimension; spatial may be given as h and w",
    kernels=_cat_kernels,
    work=lambda cells: Work(
        0.0, 2.0 * cells.whole("n") * (cells.whole("c") + cells.whole("c2")) * _cat_spatial(cells)
    ),
    aten=lowered_by(_lower_cat, "cat stack"),
    reads_few=True,
)
