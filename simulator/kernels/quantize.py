"""Quantising a matrix of activations: the kernels that vLLM and torchao launch before a product in fewer bits.

A CTA takes a row (vLLM, csrc/quantization/w8a8/fp8/common.cu: `scaled_fp8_quant_kernel_strided`,
`dynamic_per_token_scaled_fp8_quant_kernel_strided`), goes over it in pieces and writes it in the format. With a scale that is known
before (static) once; with one of each row's own (dynamic) twice, the largest magnitude first, so that the row is read again: from L1
where the rows of an SM's CTAs fit in it, else from L2, or from HBM where the rows under way do not fit in L2. The two differ in more
than the pass:

- the static kernel multiplies by the inverse of the scale, the dynamic one divides each number by it, some twenty instructions, so
  that long rows are bound by instructions where L2 or HBM would be faster;
- the first wave's CTAs are all in their first pass, then all in their second: what HBM gives in the first and what instructions take in the
  second do not overlap, as they do later when CTAs are anywhere;
- the dynamic CTA's warps wait for each other's largest magnitude twice, and the SM holds so many CTAs as its threads allow: a short row
  costs its share of an SM's threads for that time. A row shorter than a CTA has no more threads than numbers (`min(hidden_size, 256)`),
  where the static kernel has 256 always; down there both take what the device needs to place a CTA.

Both start sooner than products, whose first loads go through descriptors and a ring (start_share).

Benchmarks repeat it on one input from a CUDA graph, so that L2 holds what fits, nearly to its last byte: one matrix is gone over in
order, by both kernels alike. `computescale` of aiconfigurator is the dynamic kernel's time less the static one's. What is fitted stands in
hw_configs/families/quantize.yaml.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

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
    reads_of,
    writes_of,
)
from simtti.simulator.kernels.machine import ISSUE_LANES, LANES
from simtti.workloads.trace import Operator

THREADS = 256  # exact: of a CTA (vLLM, csrc/quantization/w8a8/fp8/common.cu)
PIECE = THREADS * 8  # exact: of a row that a CTA takes at once: 16 bytes of halves a thread
STRIDED_PIECE = THREADS * 16  # exact: the same of the two kernels above (vectorize_with_alignment<16>)
REGISTERS = 32  # exact: of a thread, few enough that CTAs fill an SM's threads
# exact: a warp for each of an SM's four schedulers; that CTAs of two warps take an SM for as long is seen on H100, B200 and L40S
FEWEST_THREADS = 128
STRIDED = ("quantize_static", "quantize_token")  # exact: the groups of the two kernels above
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
    none is. strided: one of the two kernels of vLLM that the module
    describes. reads, writes: instead of the dense ones. name, family: of the kernel.
    """

    rows: int
    columns: int
    target: str = "fp8"
    source: str = SOURCE
    passes: int = 1
    scale_every: int = 0
    strided: bool = False
    reads: tuple[Access, ...] = ()
    writes: tuple[Access, ...] = ()
    name: str = "quantize"
    family: str = "quantize"

    @property
    def threads(self) -> int:
        """Of a CTA."""
        return min(self.columns, THREADS) if self.strided and self.passes > 1 else THREADS

    @property
    def share_of_sm(self) -> float:
        """For how long a row's CTA keeps others off its SM while its warps wait for each other, over what 256 threads do. One warp
        waits for nobody."""
        if self.threads <= LANES:
            return 0.0
        return max(self.threads, FEWEST_THREADS) / THREADS

    @property
    def pieces(self) -> int:
        """In which a CTA goes over its row once."""
        return -(-self.columns // (STRIDED_PIECE if self.strided else PIECE))

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
    source, target = problem.source_bytes, problem.target_bytes
    read_again = (problem.passes - 1) * source
    resident = min(hardware.max_threads_per_sm // max(problem.threads, LANES), hardware.max_ctas_per_sm)
    first = min(hardware.sm_count * resident, problem.rows)  # rows of the first wave
    under_way = first / problem.rows * source
    lost = _lost(under_way, style, hardware)
    again = read_again * lost
    in_l1 = resident * source / problem.rows <= hardware.l1_per_sm_bytes
    placing = hardware.quantize_static if problem.strided else style
    gone = _lost(source + target, placing, hardware)
    trips = problem.passes * problem.pieces
    own_slots = style.row_slots * problem.share_of_sm + (trips - 1) * style.piece_slots
    number_slots = problem.columns * style.number_slots
    ctas = -(-first // hardware.sm_count)
    second_s = ctas * number_slots * (1 - 1 / problem.passes) / (ISSUE_LANES * hardware.clock_hz)
    apart_s = min(under_way * gone / hardware.hbm_attained_bytes_per_s, second_s * (1 - lost))
    least_slots = placing.row_slots if problem.strided else 0.0
    return Kernel(
        name=problem.name,
        family=problem.family,
        grid=problem.rows,
        threads=problem.threads,
        registers=REGISTERS,
        issue_slots=max(own_slots + number_slots, least_slots),
        l2_bytes=(source + (0.0 if in_l1 else read_again) + target) / problem.rows,
        start_s=style.start_share * hardware.start_s + apart_s,
        latency_s=style.latency_s + (trips - 1) * style.trip_s,
        memory_efficiency=placing.efficiency,
        reads=problem.reads or (Access(SOURCE_TENSOR, source),),
        writes=problem.writes or (Access(QUANTIZED, target),),
        hbm_reread_bytes=again,
        repeated_hbm_bytes=(source + target) * gone + again,
    )


def _lost(nbytes: float, style: QuantizeStyle, hardware: Hardware) -> float:
    """The share of `nbytes` that L2 has no more when they are touched again."""
    return min(nbytes / (style.kept * hardware.l2_capacity_bytes), 1.0) ** style.loss_power


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
        source.numel // columns, columns, quantized.dtype, source.dtype, passes, strided=style in STRIDED,
        reads=(Access(uses.index(source), float(source.nbytes)),),
        writes=tuple(
            Access(slot, float(use.nbytes)) for slot, use in enumerate(uses) if use is not source and use.numel > 1
        ),
        name=operator.op.partition("::")[2],
    )  # fmt: skip
    return [quantize(problem, getattr(target.hardware, style), target.hardware)]


def _lower_low_rank(operator: Operator, target: Target) -> list[Kernel]:
    """nunchaku::quantize_w4a4_act_fuse_lora: rows in four bits, and in the same pass their products with the first factor of the low-rank
    branch, by the tensor cores in 16 bits."""
    (x, low), (numbers, *_) = operator.inputs, operator.outputs
    (rows, columns), rank = x.shape, low.shape[-1]
    problem = Quantize(
        rows, columns, numbers.dtype, x.dtype, reads=reads_of(operator), writes=writes_of(operator), name="quantize_w4a4",
    )  # fmt: skip
    kernel = quantize(problem, target.hardware.quantize_fp4, target.hardware)
    flops = 2.0 * columns * rank
    return [replace(kernel, tensor_flops=flops, tensor_dtype=x.dtype, flops=flops * rows)]


def _lowered(style: str, passes: int, names: str) -> dict[str, Lower]:
    def lower(operator: Operator, target: Target) -> list[Kernel]:
        return _lower(operator, target, style, passes)

    return lowered_by(lower, names)


# ---- rows of a table


def _static(cells: Cells, hardware: Hardware) -> list[Kernel]:
    problem = Quantize(
        cells.whole("m"), cells.whole("k"), cells.dtype, strided=True, name="static_scaled_quant"
    )
    return [quantize(problem, hardware.quantize_static, hardware)]


def _dynamic(cells: Cells, hardware: Hardware) -> list[Kernel]:
    m, k = cells.whole("m"), cells.whole("k")
    problem = Quantize(
        m, k, cells.dtype, passes=2, scale_every=k, strided=True, name="dynamic_per_token_scaled_quant"
    )
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
    | _lowered("quantize_fp4", 1, "_C::scaled_fp4_quant torchao::triton_to_mxfp8_dim0")
    | lowered_by(_lower_low_rank, "nunchaku::quantize_w4a4_act_fuse_lora"),
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
