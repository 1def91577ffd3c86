"""Softmax as PyTorch launches it.

Up to 2048 columns rows stay in registers, a warp or less to two rows (PersistentSoftmax.cuh); above, a CTA of
up to 1024 threads takes a row (SoftMax.cu): in registers up to 9 elements a thread, else once through shared memory
when rows are 16-byte aligned and fit, else in three passes over it. (Before torch 2.8 nothing above 1024
columns stayed in registers: softmax.kept_columns.)

What is fitted stands in hw_configs/families/normalization.yaml.
"""

from __future__ import annotations

from dataclasses import dataclass

from simtti.dtypes import ITEM_BYTES
from simtti.hw_configs.hardware import Hardware
from simtti.simulator.kernel import Access, Kernel
from simtti.simulator.kernels.family import Cells, Family, Target, Work, lowered_by, needed
from simtti.simulator.kernels.layout import in_flight, streamed_l2_bytes
from simtti.simulator.kernels.machine import FP32_BYTES, LANES, VECTOR_BYTES
from simtti.workloads.trace import Operator

WARP_COLUMNS = 2048  # exact: longest row of softmax_warp_forward (PersistentSoftmax.cuh)
WARP_THREADS = 128  # exact: threads_per_block, same file
TWO_ROWS_COLUMNS = (
    128  # exact: rows up to this, padded to a power of 2, are two to a warp: WARP_BATCH, same file
)
BLOCK_THREADS = 1024  # exact: SoftMaxForward_getBlockSize for rows above 1024 columns (SoftMax.cu)
BLOCK_REGISTERS = 32  # exact: a thread's in torch.profiler traces of H100s
BLOCK_SHARED_BYTES = (
    BLOCK_THREADS // LANES * FP32_BYTES
)  # exact: a warp's part of a block-wide reduction each
BLOCK_ELEMENTS = 9  # exact: most elements of a thread in cunn_SoftMaxForwardReg (host_softmax, same file)
# exact: its registers a thread: so many and two an element (28 with 3, 30 with 4, 40 with 9: profiles of an H200)
KEPT_REGISTERS, KEPT_ELEMENT_REGISTERS = 22, 2  # exact: see above
BLOCK_PASSES = 3.0  # exact: maximum, sum and result each read the row in cunn_SoftMaxForward


@dataclass(frozen=True, slots=True)
class Softmax:
    """Softmax over the last dimension of a dense (rows, columns), from the tensor `source` to `target`."""

    rows: int
    columns: int
    dtype: str
    source: int = 0
    target: int = 1

    @property
    def row_bytes(self) -> int:
        return self.columns * ITEM_BYTES[self.dtype]

    @property
    def reads(self) -> tuple[Access, ...]:
        return (Access(self.source, float(self.rows * self.row_bytes)),)

    @property
    def writes(self) -> tuple[Access, ...]:
        return (Access(self.target, float(self.rows * self.row_bytes)),)


def softmax(problem: Softmax, hardware: Hardware) -> list[Kernel]:
    """The kernel that PyTorch chooses by the length of a row."""
    kept = min(hardware.softmax.kept_columns, BLOCK_ELEMENTS * BLOCK_THREADS)
    if problem.columns <= min(kept, WARP_COLUMNS):
        return [_warp(problem, hardware)]
    make = _block_in_registers if problem.columns <= kept else _block
    return [make(problem, hardware)]


def _warp(problem: Softmax, hardware: Hardware) -> Kernel:
    """softmax_warp_forward: rows in registers."""
    style = hardware.softmax
    padded = 1 << max(0, (problem.columns - 1).bit_length())
    lanes = min(LANES, padded)
    warp_rows = 2 if padded <= TWO_ROWS_COLUMNS else 1
    cta_rows = WARP_THREADS // lanes * warp_rows
    thread_elements = padded // lanes * warp_rows
    grid = -(-problem.rows // cta_rows)
    l2_bytes = streamed_l2_bytes(problem.reads, problem.writes, hardware) / grid
    return Kernel(
        name="softmax_warp_forward",
        family="softmax",
        grid=grid,
        threads=WARP_THREADS,
        registers=round(style.warp_registers + style.element_registers * thread_elements),
        issue_slots=WARP_THREADS * (style.warp_thread_slots + style.warp_element_slots * thread_elements)
        + style.warp_value_slots * cta_rows * problem.columns,
        sfu_ops=float(min(cta_rows, problem.rows) * padded),
        l2_bytes=l2_bytes,
        latency_s=style.warp_latency_s + hardware.hbm_latency_s,
        bytes_in_flight=in_flight(l2_bytes, style.warp_chain_s * thread_elements, hardware),
        reads=problem.reads,
        writes=problem.writes,
    )


def _block_in_registers(problem: Softmax, hardware: Hardware) -> Kernel:
    """cunn_SoftMaxForwardReg: a CTA a row, whose elements its threads keep; element after element is loaded."""
    style = hardware.softmax
    elements = -(-problem.columns // BLOCK_THREADS)
    return Kernel(
        name="cunn_SoftMaxForwardReg",
        family="softmax",
        grid=problem.rows,
        threads=BLOCK_THREADS,
        registers=KEPT_REGISTERS + KEPT_ELEMENT_REGISTERS * elements,
        shared_memory_bytes=BLOCK_SHARED_BYTES,
        issue_slots=BLOCK_THREADS * (style.kept_thread_slots + elements * style.kept_element_slots),
        sfu_ops=2.0 * problem.columns,
        l2_bytes=streamed_l2_bytes(problem.reads, problem.writes, hardware) / problem.rows,
        latency_s=style.kept_latency_s + hardware.hbm_latency_s,
        reads=problem.reads,
        writes=problem.writes,
    )


def _block(problem: Softmax, hardware: Hardware) -> Kernel:
    """cunn_SoftMaxForward, or its form that keeps the row in shared memory: a CTA a row."""
    style, row_bytes = hardware.softmax, problem.row_bytes
    in_shared = row_bytes % VECTOR_BYTES == 0 and row_bytes < hardware.shared_memory_per_sm_bytes // 2
    if in_shared:
        slots = problem.columns * style.shared_element_slots
    else:
        slots = problem.columns * style.block_element_slots + BLOCK_THREADS * style.block_thread_slots
    passes = 1.0 if in_shared else BLOCK_PASSES
    return Kernel(
        name="cunn_SoftMaxForwardSmem" if in_shared else "cunn_SoftMaxForward",
        family="softmax",
        grid=problem.rows,
        threads=BLOCK_THREADS,
        registers=BLOCK_REGISTERS,
        shared_memory_bytes=BLOCK_SHARED_BYTES + (row_bytes if in_shared else 0),
        issue_slots=slots,
        sfu_ops=2.0 * problem.columns,
        l2_bytes=streamed_l2_bytes(problem.reads, problem.writes, hardware, passes) / problem.rows,
        latency_s=style.block_latency_s + hardware.hbm_latency_s,
        reads=problem.reads,
        writes=problem.writes,
    )


# ---- operators of a trace


def _lower(operator: Operator, target: Target) -> list[Kernel]:
    x = operator.inputs[0]
    columns = x.shape[int(operator.attributes.get("dim", -1))]
    return softmax(Softmax(x.numel // columns, columns, x.dtype), target.hardware)


# ---- rows of a table


def _kernels(cells: Cells, hardware: Hardware) -> list[Kernel]:
    return softmax(Softmax(cells.whole("rows"), cells.whole("cols"), cells.dtype), hardware)


SOFTMAX = Family(
    op="softmax",
    columns=needed("rows cols"),
    kernels=_kernels,
    work=lambda cells: Work(0.0, 2.0 * cells.whole("rows") * cells.whole("cols")),
    aten=lowered_by(_lower, "_softmax _safe_softmax"),
    reads_few=True,
)
