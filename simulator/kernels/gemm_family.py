"""Matrix products as operators of a trace and as rows of a table: what each asks of `gemm`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from simtti.dtypes import DTYPES, predicted
from simtti.hw_configs.hardware import PYTORCH, Hardware, with_pytorch
from simtti.simulator.designs import of_each
from simtti.simulator.kernel import Kernel
from simtti.simulator.kernels.dot_products import WORD, of_words
from simtti.simulator.kernels.exact_products import Products, exact_products
from simtti.simulator.kernels.family import (
    CellColumns,
    Cells,
    Column,
    Family,
    Target,
    Work,
    lowered_by,
    needed,
    reads_of,
    writes_of,
)
from simtti.simulator.kernels.gemm import LAYOUTS, Gemm, gemm, prepare_products
from simtti.simulator.kernels.gemm_kernels import (
    COLD,
    REPLAYED,
)
from simtti.simulator.kernels.gemm_rows import products
from simtti.simulator.kernels.gemm_tiles import for_products
from simtti.simulator.kernels.packed_weights import packed_product
from simtti.simulator.kernels.scaled_gemm import (
    FORMATS,
    ScaledGemm,
    check_format,
    lower_low_rank,
    scaled_gemm,
)
from simtti.simulator.side_by_side import Operators
from simtti.workloads.trace import Operator

# ---- operators of a trace


def _lower_product(operator: Operator, target: Target) -> list[Kernel]:
    problem = _product(operator, target)
    if isinstance(problem, Products):
        return exact_products(problem, target.hardware)
    return gemm(problem, of_each(for_products, target.hardware, target.policy.tf32))


def _product(operator: Operator, target: Target) -> Gemm | Products:
    """mm, bmm, addmm, baddbmm: the two matrices are the last inputs; a bias before them goes into the epilogue. Of a batch in fp32 cuBLAS
    splits no k, which `exact_products` knows (Sana's linear attention, 32 products of 33 x 16,384 x 32 in 32 CTAs, on our own H100)."""
    a, b = operator.inputs[-2:]
    m, batch = a.shape[-2], math.prod(a.shape[:-2])
    if batch > 1 and not b.strides[0]:  # one matrix for all: the rows stand in one taller product
        m, batch = m * batch, 1
    n, k, reads, writes = b.shape[-1], a.shape[-1], reads_of(operator), writes_of(operator)
    if batch > 1 and a.dtype == "fp32" and len(reads) == 2 and not target.policy.tf32:
        slots = reads[0].tensor, reads[1].tensor, writes[0].tensor
        return Products(batch, m, n, k, *slots, name="gemm")
    matrices_first = (*reads[-2:], *reads[:-2])
    return Gemm(m, n, k, batch, a.dtype, matrices_first, writes, bias=len(reads) > 2)


def _lower_linear(operator: Operator, target: Target) -> list[Kernel]:
    return gemm(_linear(operator, target), of_each(for_products, target.hardware, target.policy.tf32))


def _linear(operator: Operator, target: Target) -> Gemm:
    x, weight = operator.inputs[:2]
    m, n, k = math.prod(x.shape[:-1]), weight.shape[0], weight.shape[1]
    reads, writes = reads_of(operator), writes_of(operator)
    return Gemm(m, n, k, dtype=x.dtype, reads=reads, writes=writes, bias=len(reads) > 2)


PRODUCTS, LINEAR = "mm bmm addmm baddbmm addbmm", "linear"  # exact: aten's names


def _prepare(operators: Sequence[Operator], target: Target) -> None:
    """Choose the kernels of all products at once that `_lower_product` and `_lower_linear` will ask for."""
    made = {f"aten::{name}": _product for name in PRODUCTS.split()} | {f"aten::{LINEAR}": _linear}
    hardware = of_each(for_products, target.hardware, target.policy.tf32)
    problems = (made[each.op](each, target) for each in operators if each.op in made)
    prepare_products([problem for problem in problems if isinstance(problem, Gemm)], hardware)


SCALED_OPERANDS = 4  # exact: of aten::_scaled_mm before the bias: two matrices and their scales


def _lower_scaled(operator: Operator, target: Target) -> list[Kernel]:
    """aten::_scaled_mm: with a scale of each tensor cuBLAS's kernels in fp8; with scales of rows or blocks, and fp4, CUTLASS's. Scales that are
    powers of two are mxfp8's."""
    a, b = operator.inputs[:2]
    packed = DTYPES[a.dtype].packed
    m, n, k = a.shape[0], b.shape[1], a.shape[1] * packed
    scales = operator.inputs[2].numel if len(operator.inputs) > 2 else 1
    reads, writes = reads_of(operator), writes_of(operator)
    if scales == 1 and packed == 1:
        check_format("fp8", target.hardware)
        bias = len(reads) > SCALED_OPERANDS
        return gemm(Gemm(m, n, k, dtype="fp8", reads=reads, writes=writes, bias=bias), target.hardware)
    if packed > 1:
        dtype = "nvfp4"
    elif scales > 1 and operator.inputs[2].dtype == "fp8_e8m0":
        dtype = "mxfp8"
    else:
        dtype = "fp8_block" if scales > m else "fp8"
    return scaled_gemm(ScaledGemm(m, n, k, dtype, reads, writes), target.hardware)


def _lower_integer(operator: Operator, target: Target) -> list[Kernel]:
    """aten::_int_mm: int8 by int8, results in int32, by cuBLAS; scaled results in 16 bits are those of torch.compile's own kernel."""
    check_format("int8", target.hardware)
    (m, k), n = operator.inputs[0].shape, operator.inputs[1].shape[1]
    reads, writes = reads_of(operator), writes_of(operator)
    if operator.outputs[0].dtype != "int32":
        return scaled_gemm(ScaledGemm(m, n, k, "int8", reads, writes, name="triton_mm"), target.hardware)
    if operator.inputs[1].strides[0] != 1:
        words = Gemm(m, n, -(-k // WORD), dtype="fp32", reads=reads, writes=writes, name="igemm_dp4a")
        return of_words(gemm(words, of_each(for_products, target.hardware, False)), target.hardware)
    return gemm(Gemm(m, n, k, dtype="int8", reads=reads, writes=writes), target.hardware)


def _lower_int4(operator: Operator, target: Target) -> list[Kernel]:
    """aten::_weight_int4pack_mm: see `packed_weights`. The third operand is the group's size, the fourth its scales and zeros."""
    x, n = operator.inputs[0], operator.outputs[0].shape[-1]
    scales = operator.inputs[-1]
    group = max(1, round(x.shape[1] * n * 2 / max(scales.numel, 1)))
    reads, writes = reads_of(operator), writes_of(operator)
    return [packed_product(x.shape[0], n, x.shape[1], group, reads, writes, target.hardware, x.dtype)]


# ---- rows of a table


def _kernels(cells: Cells, hardware: Hardware) -> list[Kernel]:
    m, n, k, batch = (cells.whole(name) for name in ("m", "n", "k", "batch"))
    if _is_scaled(cells):
        return scaled_gemm(ScaledGemm(m, n, k, cells.dtype, linear=True), hardware)
    problem = Gemm(m, n, k, batch, cells.dtype, launched=_launch(cells), bias=cells.flag("bias"))
    return gemm(problem, _chosen_for(cells, hardware))


def _side_by_side(cells: CellColumns, hardware: Hardware) -> Iterable[Operators]:
    if _is_scaled(cells):
        return ()
    sizes = tuple(cells.whole(name) for name in ("m", "n", "k", "batch"))
    launched, bias = _launch(cells), cells.flag("bias")
    return products(sizes, cells.dtype, launched, bias, _chosen_for(cells, hardware), hardware)


def _is_scaled(cells: Cells) -> bool:
    return cells.dtype in FORMATS and cells.dtype != "int8" and cells.text("pytorch") is None


def _launch(cells: Cells) -> str:
    return COLD if cells.text("layout") else REPLAYED


def _chosen_for(cells: Cells, hardware: Hardware) -> Hardware:
    release = cells.text("pytorch") or PYTORCH[0]
    return with_pytorch(for_products(hardware, cells.flag("tf32")), release)


def _roofline_work(cells: Cells) -> Work:
    batch, m, n, k = (cells.whole(name) for name in ("batch", "m", "n", "k"))
    return Work(2.0 * batch * m * n * k, 1.0 * batch * (m * k + k * n + m * n))


GEMM = Family(
    op="gemm",
    columns=(
        *needed("m n k"),
        Column("batch", 1),
        Column("layout", None, str, words=LAYOUTS),
        Column("bias", False, bool),
        Column("pytorch", None, str, words=PYTORCH),
        Column("tf32", False, bool),
    ),
    note="C[m,n] = A[m,k] B[k,n]; layout: of a product launched by itself on a cold L2; without, of one repeated from a graph",
    kernels=_kernels,
    side_by_side=_side_by_side,
    prepare=_prepare,
    work=_roofline_work,
    dtypes=(*predicted(), *FORMATS),
    aten=lowered_by(_lower_product, PRODUCTS)
    | lowered_by(_lower_linear, LINEAR)
    | lowered_by(_lower_scaled, "_scaled_mm")
    | lowered_by(lower_low_rank, "nunchaku::gemm_w4a4")
    | lowered_by(_lower_integer, "_int_mm")
    | lowered_by(_lower_int4, "_weight_int4pack_mm"),
)
