"""Kernels that only move data: copies, casts, padding by a constant, embedding, memset.

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
from dataclasses import dataclass, replace

from simtti.dtypes import HALF_TYPES, ITEM_BYTES
from simtti.errors import InputError
from simtti.hw_configs.hardware import Hardware
from simtti.simulator.kernel import Access, Kernel, ctas_per_sm
from simtti.simulator.kernels.elementwise import Walk, walk
from simtti.simulator.kernels.family import Cells, Column, Family, Target, Work, lowered_by, needed
from simtti.simulator.kernels.layout import (
    Operand,
    as_it_lies,
    broadcast,
    dense,
    in_flight,
    merge_dimensions,
    unique_bytes,
)
from simtti.simulator.kernels.machine import LANES, VECTOR_BYTES
from simtti.workloads.offload import TO_DEVICE
from simtti.workloads.trace import OFFLOAD, Operator

# exact: by definition, as the driver's kernel is not published; issue slots of a thread are counted for its 2 vectors
MEMCPY_THREADS, MEMCPY_VECTORS = 128, 2
MEMCPY_CTA_BYTES = MEMCPY_THREADS * MEMCPY_VECTORS * VECTOR_BYTES
REGISTERS = 32  # exact: a thread's of upsampling and look-ups in torch.profiler traces of H100s

# exact: most threads of vectorized_gather_kernel (native/cuda/IndexKernelUtils.cu), torch 2.8 and later
GATHER_VECTOR_THREADS = 256
GATHER_SMALL_ROWS = 16  # exact: look-ups up to which indexSelectSmallIndex is launched (Indexing.cu)
GATHER_THREADS = 128  # exact: a CTA of indexSelectLargeIndex (native/cuda/Indexing.cu)
GATHER_CTAS_PER_SM = 8  # exact: its CTAs: min(needed, 8 per SM), same file


@dataclass(frozen=True, slots=True)
class Pad:
    """A tensor of `shape` in the middle of a result of `padded_shape`, the rest of which is constant."""

    shape: tuple[int, ...]
    source: Operand
    padded_shape: tuple[int, ...]
    target: Operand


@dataclass(frozen=True, slots=True)
class Gather:
    """`rows` rows of `columns` elements, looked up in a table of `table_rows`; from the tensor `table` to `target`.

    vectors: the library copies rows in vectors where they divide into them, as torch 2.8 and later do. cold: L2 holds nothing of it.
    """

    rows: int
    columns: int
    table_rows: int
    dtype: str
    table: int = 0
    target: int = 1
    vectors: bool = True
    cold: bool = False


def copy(
    shape: Sequence[int], source: Operand, target: Operand, hardware: Hardware, cold: bool = False
) -> list[Kernel]:
    """`copy_`, `contiguous`, `clone`, `to`: the elements of `source` into the place and dtype of `target`. cold: L2 holds
    nothing of it."""
    _, steps = merge_dimensions(tuple(shape), (target.strides, source.strides))
    same_order = all(step == (1,) for step in steps)
    if same_order and source.dtype == target.dtype:
        return [memcpy(source.tensor, target.tensor, unique_bytes(shape, target), hardware)]
    # fp32 to half has a typed functor (bfloat16_copy_kernel_cuda and its like in native/cuda/Copy.cu).
    typed = source.dtype == "fp32" and target.dtype in HALF_TYPES
    name = "copy" if source.dtype == target.dtype else "cast"
    return [walk(Walk(name, tuple(shape), (source,), target, typed, cold, "memory"), hardware)]


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


def embedding(problem: Gather, hardware: Hardware) -> list[Kernel]:
    """`embedding`, `index_select` along the first dimension."""
    style, item = hardware.embedding, ITEM_BYTES[problem.dtype]
    numel, row_bytes = problem.rows * problem.columns, problem.columns * item
    moved, table_bytes = float(numel * item), float(problem.table_rows * row_bytes)
    # The row's load depends on that of the index; of their trips to memory, latency_s has one.
    latency_s = hardware.hbm_latency_s + (hardware.l2_costs.miss_s if problem.cold else 0.0)
    if problem.vectors and problem.rows > GATHER_SMALL_ROWS and row_bytes % VECTOR_BYTES == 0:
        vectors = row_bytes // VECTOR_BYTES
        name, threads = "vectorized_gather_kernel", min(GATHER_VECTOR_THREADS, -(-vectors // LANES) * LANES)
        grid = problem.rows * -(-vectors // GATHER_VECTOR_THREADS)
        slots, latency_s = threads * style.vector_slots, latency_s + style.vector_latency_s
    else:
        if problem.rows <= GATHER_SMALL_ROWS:
            # Its threads look up one row after another: an index, then an element.
            name, latency_s = (
                "indexSelectSmallIndex",
                latency_s + (2 * problem.rows - 1) * hardware.hbm_latency_s,
            )
        else:
            name, latency_s = "indexSelectLargeIndex", latency_s + style.latency_s
        threads = GATHER_THREADS
        grid = min(GATHER_CTAS_PER_SM * hardware.sm_count, -(-numel // GATHER_THREADS))
        slots = -(-numel // grid) * style.element_slots
    kernel = Kernel(
        name=name,
        family="memory",
        grid=grid,
        threads=threads,
        registers=REGISTERS,
        issue_slots=slots,
        l2_bytes=(1 + hardware.l2_costs.write) * moved / grid,
        latency_s=latency_s,
        reads=(Access(problem.table, min(moved, table_bytes)),),
        writes=(Access(problem.target, moved),),
    )
    # CTAs of short rows end before the device has started as many others as it holds: each takes their turn, an even share of
    # the time in which all are started.
    at_once = ctas_per_sm(kernel, hardware) * hardware.sm_count
    started_s = grid / -(-grid // at_once) / (style.ctas_per_cycle * hardware.clock_hz)
    turn_s = max(0.0, started_s - latency_s - hardware.dispatch_s)
    return [replace(kernel, bytes_in_flight=in_flight(kernel.l2_bytes, turn_s, hardware))]


# ---- operators of a trace


def _lower_copy(operator: Operator, target: Target) -> list[Kernel]:
    if operator.category == OFFLOAD:
        return [weights_copy(operator, target.hardware)]
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


def weights_copy(operator: Operator, hardware: Hardware) -> Kernel:
    """A copy of weights that are offloaded, at the rate of the link to the host or of the host's memory, whichever is less.

    Raises:
        InputError: the device does not say what its link to the host is.
    """
    to_device, pinned = operator.attributes["transfer"] == TO_DEVICE, bool(operator.attributes["pinned"])
    place, moved = ("Pinned" if pinned else "Pageable"), operator.outputs if to_device else operator.inputs
    accesses = tuple(Access(slot, float(use.nbytes)) for slot, use in enumerate(moved))
    return Kernel(
        f"Memcpy HtoD ({place} -> Device)" if to_device else f"Memcpy DtoH (Device -> {place})",
        "memory",
        1,
        copy_bytes=sum(access.nbytes for access in accesses),
        copy_bytes_per_s=offload_bytes_per_s(hardware, to_device=to_device, pinned=pinned),
        reads=() if to_device else accesses,
        writes=accesses if to_device else (),
    )


def offload_bytes_per_s(hardware: Hardware, *, to_device: bool, pinned: bool) -> float:
    """The rate of a long copy between device and host. Copies to pageable memory go to pages that the host first has to map, as a
    result's does; the rate of those from it is that of memory that has been written before.

    Raises:
        InputError: the device does not say what its link to the host is.
    """
    if not hardware.host_link_bytes_per_s:
        raise InputError(
            f"{hardware.name} does not say what its link to the host is; give host_link_bytes_per_s in its datasheet"
        )
    attained = hardware.host_link_bytes_per_s * hardware.host_link.pinned_efficiency
    if pinned:
        return attained
    return min(
        attained, hardware.host_link.pageable_bytes_per_s if to_device else hardware.host_copy_bytes_per_s
    )


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


def _embedding_kernels(cells: Cells, hardware: Hardware) -> list[Kernel]:
    problem = Gather(cells.whole("rows"), cells.whole("cols"), _table_rows(cells), cells.dtype, cold=True)
    return embedding(problem, hardware)


def _table_rows(cells: Cells) -> int:
    return cells.optional("table_rows") or cells.optional("entries") or CLIP_TOKENS


def _embedding_work(cells: Cells) -> Work:
    rows = cells.whole("rows")
    return Work(0.0, float(cells.whole("cols") * (min(rows, _table_rows(cells)) + rows)))


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
    reads_few=True,
)
EMBEDDING = Family(
    op="embedding",
    columns=(*needed("rows cols"), Column("table_rows", None), Column("entries", None)),
    note="table_rows, or entries: rows of the table, CLIP's 49408 by default",
    kernels=_embedding_kernels,
    work=_embedding_work,
    aten=lowered_by(_lower_embedding, "embedding index index_select gather"),
    reads_few=True,
)
