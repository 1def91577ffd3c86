"""Quantising a matrix of activations: the kernels that vLLM and torchao launch before a product in fewer bits.

A CTA takes a row (vLLM: `scaled_fp8_quant_kernel_strided`, `dynamic_per_token_scaled_fp8_quant_kernel_strided`, a block of 256
threads of 8 numbers each), goes over it in pieces of 2,048 and writes it in the format. With a scale that is known before
(static) once; with one of each row's own (dynamic) twice, the largest magnitude first, so that the row is read again from L2, or
from HBM where the rows under way do not fit in L2.

Benchmarks repeat it on one input from a CUDA graph, so that L2 holds what fits, nearly to its last byte: one matrix is gone over in order. `computescale` of aiconfigurator is
the dynamic kernel's time less the static one's. What is fitted stands in hw_configs/families/quantize.yaml.
"""

from __future__ import annotations

from dataclasses import dataclass

from simtti.dtypes import DTYPES, ITEM_BYTES
from simtti.hw_configs.hardware import Hardware
from simtti.hw_configs.parameters import QuantizeStyle
from simtti.simulator.kernel import Access, Kernel
from simtti.simulator.kernels.elementwise import lower_unknown
from simtti.simulator.kernels.family import (
    Cells,
    Column,
    Family,
    Lower,
    Target,
    Work,
    lowered_by,
    needed,
)
from simtti.workloads.trace import Operator

THREADS = 256  # exact: of a CTA (vLLM, csrc/quantization/w8a8/fp8/common.cu)
THREAD_NUMBERS = 8  # exact: 16 bytes of halves a thread
PIECE = THREADS * THREAD_NUMBERS  # exact: of a row that a CTA takes at once
REGISTERS = 32  # exact: of a thread, few enough that CTAs fill an SM's threads
SCALE_BYTES = 4  # exact: an fp32 scale
FORMATS = ("fp8",)  # exact: what vLLM's two kernels write
WIDE = ("bf16", "fp16", "fp32")  # exact: what is quantised
SOURCE = "bf16"  # exact: activations

# Identities where a caller gives none.
SOURCE_TENSOR, QUANTIZED, SCALES = -1, -2, -3  # exact: our own; negative ones are no tensors of a trace


@dataclass(frozen=True, slots=True)
class Quantize:
    """Rows of `columns` numbers in `source`, written in `target`.

    passes: over each row, 2 where the scale is the row's own. scale_every: numbers that share a scale which is written, 0 where
    none is. reads, writes: instead of the dense ones. name, family: of the kernel.
    """

    rows: int
    columns: int
    target: str = "fp8"
    source: str = SOURCE
    passes: int = 1
    scale_every: int = 0
    reads: tuple[Access, ...] = ()
    writes: tuple[Access, ...] = ()
    name: str = "quantize"
    family: str = "quantize"

    @property
    def source_bytes(self) -> float:
        return float(self.rows * self.columns * ITEM_BYTES[self.source])

    @property
    def target_bytes(self) -> float:
        """Of the numbers and of their scales."""
        numbers = self.rows * self.columns
        scales = numbers / self.scale_every * SCALE_BYTES if self.scale_every else 0.0
        return numbers * ITEM_BYTES[self.target] / DTYPES[self.target].packed + scales


def quantize(problem: Quantize, style: QuantizeStyle, hardware: Hardware) -> Kernel:
    """The kernel of `problem`, a CTA a row."""
    pieces = -(-problem.columns // PIECE)
    source, target = problem.source_bytes, problem.target_bytes
    read_again = (problem.passes - 1) * source
    fits_bytes = style.kept * hardware.l2_capacity_bytes
    resident = hardware.sm_count * hardware.max_threads_per_sm // THREADS
    under_way = min(resident, problem.rows) / problem.rows * source
    again = read_again * min(under_way / fits_bytes, 1.0) ** style.loss_power
    gone = min((source + target) / fits_bytes, 1.0) ** style.loss_power
    trips = problem.passes * pieces
    return Kernel(
        name=problem.name,
        family=problem.family,
        grid=problem.rows,
        threads=THREADS,
        registers=REGISTERS,
        issue_slots=style.row_slots + (trips - 1) * style.piece_slots,
        l2_bytes=(source + read_again + target) / problem.rows,
        latency_s=style.latency_s + (problem.passes - 1) * style.scale_s + (trips - 1) * style.trip_s,
        memory_efficiency=style.efficiency,
        reads=problem.reads or (Access(SOURCE_TENSOR, source),),
        writes=problem.writes or (Access(QUANTIZED, target),),
        hbm_reread_bytes=again,
        repeated_hbm_bytes=(source + target) * gone + again,
    )


# ---- operators of a trace


def _lower(operator: Operator, target: Target, style: str, passes: int) -> list[Kernel]:
    """Rows of 16 bits or more in, the same in one byte or four bits out, whichever arguments the library gives them by."""
    uses = (*operator.inputs, *operator.outputs)
    source = next((use for use in uses if use.dtype in WIDE and len(use.shape) > 1), None)
    quantized = next((use for use in uses if ITEM_BYTES[use.dtype] == 1), None)
    if source is None or quantized is None:
        return lower_unknown(operator, target)
    columns = source.shape[-1]
    problem = Quantize(
        source.numel // columns, columns, quantized.dtype, source.dtype, passes,
        reads=(Access(uses.index(source), float(source.nbytes)),),
        writes=tuple(
            Access(slot, float(use.nbytes)) for slot, use in enumerate(uses) if use is not source and use.numel > 1
        ),
        name=operator.op.partition("::")[2],
    )  # fmt: skip
    return [quantize(problem, getattr(target.hardware, style), target.hardware)]


def _lowered(style: str, passes: int, names: str) -> dict[str, Lower]:
    def lower(operator: Operator, target: Target) -> list[Kernel]:
        return _lower(operator, target, style, passes)

    return lowered_by(lower, names)


# ---- rows of a table


def _static(cells: Cells, hardware: Hardware) -> list[Kernel]:
    problem = Quantize(cells.whole("m"), cells.whole("k"), cells.dtype, name="static_scaled_quant")
    return [quantize(problem, hardware.quantize_static, hardware)]


def _dynamic(cells: Cells, hardware: Hardware) -> list[Kernel]:
    m, k = cells.whole("m"), cells.whole("k")
    problem = Quantize(m, k, cells.dtype, passes=2, scale_every=k, name="dynamic_per_token_scaled_quant")
    return [quantize(problem, hardware.quantize_token, hardware)]


def _work(cells: Cells) -> Work:
    return Work(0.0, 2.0 * cells.whole("m") * cells.whole("k"))


SCALE_MATRIX = Family(
    op="scale_matrix",
    columns=(*needed("m k"), Column("kernel", None, str)),
    note="m x k activations in the dtype, with a scale known before",
    kernels=_static,
    work=_work,
    aten=_lowered("quantize_static", 1, "_C::static_scaled_fp8_quant")
    | _lowered("quantize_token", 2, "_C::dynamic_per_token_scaled_fp8_quant _C::dynamic_scaled_int8_quant")
    | _lowered("quantize_group", 1, "_C::per_token_group_fp8_quant")
    | _lowered("quantize_fp4", 1, "_C::scaled_fp4_quant"),
    dtypes=FORMATS,
)
COMPUTE_SCALE = Family(
    op="computescale",
    columns=(*needed("m k"), Column("kernel", None, str)),
    note="what it takes longer with a scale of each row's own (two times subtracted)",
    kernels=_dynamic,
    baseline=_static,
    work=_work,
    dtypes=FORMATS,
)
