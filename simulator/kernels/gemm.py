"""Matrix products: the kernel (or two) that cuBLAS launches for C[m,n] = A[m,k]·B[k,n].

What a GEMM kernel is. C is cut into tiles; a CTA computes one tile, or with split-K one slice of its k range. It
streams slices of A and B through a ring of `stages` buffers in shared memory to the tensor cores and writes the tile
at the end. Its time follows from what that takes:

- tensor cores: the FLOPs of the whole tile, padding included; this is why m = 129 costs what m = 256 costs;
- shared memory: what feeds the tensor cores (gemm_tiles.py), and filling the ring;
- L2: (m + n) of the tile a k, less what a cluster's multicast saves on Hopper; HBM: unique bytes, less what L2 still
  holds (`Traffic`), and once more what a wave of CTAs in square raster order cannot keep in L2;
- latency: setting up, filling the ring, one synchronisation a ring slot, and the epilogue that empties the accumulators;
  and no slot takes less than the dependent instructions of its products.

The tiles there are stand in gemm_tiles.py, which of them is taken in gemm_choice.py, products of few rows on the CUDA cores in
gemv.py; what is fitted in hw_configs/families/gemm.yaml.

How it is timed. Benchmarks of products (aiconfigurator) repeat one from a CUDA graph, so that its input is in L2 and the next
launch's start is hidden; our own suite launches each by itself, after L2 was flushed (its rows say how the operands lie:
`layout`), so that code, parameters and operands come from HBM. In an inference they are launched by themselves, and what L2
holds is the simulation's to say.

cuBLAS 13 on Hopper (our own H200: every kernel of 269 products is an nvjet one) launches no more CTAs than SMs, which take tile
after tile. Beyond two tiles an SM a Memset sets their counter first. At most 65,535 products of a batch go into one launch.

Batched products of matrices with a side up to 16 and few products, as temporal attention makes them, run on CUTLASS's wmma
kernels of one warp (`cutlass_80_wmma_tensorop_bf16_s161616gemm_bf16_16x16_32x1_nn_align8` on H100, TraceLens): 37,632 of
8 x 64 x 8, four tiles each, take 108 us, of 8 x 8 x 64 41 us; 12 of 5 x 5 x 64 3.1 us.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from simtti.dtypes import DTYPES, ITEM_BYTES, predicted
from simtti.hw_configs.hardware import PYTORCH, Hardware, with_pytorch
from simtti.simulator.designs import Designs, of_each
from simtti.simulator.kernel import Access, Kernel
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
from simtti.simulator.kernels.gemm_choice import Choice, Plan, choose, result_bytes
from simtti.simulator.kernels.gemm_column import choose_on_each, prepare, prepare_on_each
from simtti.simulator.kernels.gemm_estimate import Product, Traffic, rates_of
from simtti.simulator.kernels.gemm_kernels import (
    COLD,
    EAGER,
    MOST_BATCH,
    REPLAYED,
    TINY,
    counter,
    draws_tiles,
    is_persistent,
    is_tiny,
    reduction,
    reduction_name,
    started_s,
    tiled,
    tiled_name,
    tiny,
)
from simtti.simulator.kernels.gemm_rows import products
from simtti.simulator.kernels.gemm_tiles import for_products, kernels_for
from simtti.simulator.kernels.gemv import gemv
from simtti.simulator.kernels.machine import FP32_BYTES
from simtti.simulator.kernels.packed_weights import packed_product
from simtti.simulator.kernels.scaled_gemm import (
    FORMATS,
    ScaledGemm,
    check_format,
    lower_low_rank,
    scaled_gemm,
)
from simtti.simulator.lanes import along_paths
from simtti.simulator.side_by_side import Operators
from simtti.workloads.trace import Operator

LAYOUTS = ("nn", "nt", "tn", "tt")  # exact: of A and B, as BLAS says it

# Identities where a caller gives none: of the matrices, and of split-K's partial results.
A, B, C, WORKSPACE = -1, -2, -3, -4  # exact: our own; negative ones are no tensors of a trace


@dataclass(frozen=True, slots=True)
class Gemm:
    """`batch` products C[m,n] = A[m,k]·B[k,n].

    dtype: fp16, bf16, fp8, or fp32, which runs as TF32, on the CUDA cores where the device has no TF32.
    a, b, c: tensor identities of the operands, each counted `batch` times. workspace: identity of split-K's partial results.
    reads, writes: unique bytes by tensor instead of the three dense matrices, where operands are shared between the products,
    or more than two (a bias), the two matrices first. name, family: of its kernels. launched: how (REPLAYED, EAGER, COLD). bias: whether one is added to
    each row of C.
    """

    m: int
    n: int
    k: int
    batch: int = 1
    dtype: str = "fp16"
    reads: tuple[Access, ...] = ()
    writes: tuple[Access, ...] = ()
    a: int = A
    b: int = B
    c: int = C
    workspace: int = WORKSPACE
    name: str = "gemm"
    family: str = "gemm"
    launched: str = EAGER
    bias: bool = False

    def __post_init__(self) -> None:
        if min(self.m, self.n, self.k, self.batch) < 1:
            sizes = f"{self.m}, {self.n}, {self.k}, {self.batch}"
            raise ValueError(f"gemm {self.name}: m, n, k and batch must be at least 1, not {sizes}")

    @property
    def item_bytes(self) -> int:
        return ITEM_BYTES[self.dtype]

    @property
    def elements(self) -> int:
        """Of all results."""
        return self.batch * self.m * self.n

    @property
    def flops(self) -> float:
        """Useful ones, a multiply-add being two."""
        return 2.0 * self.batch * self.m * self.n * self.k

    @property
    def sizes(self) -> Product:
        return Product(self.m, self.n, self.k, self.batch, self.item_bytes, result_bytes(self.dtype))

    @property
    def all_reads(self) -> tuple[Access, ...]:
        size = self.batch * self.k * self.item_bytes
        return self.reads or (Access(self.a, float(size * self.m)), Access(self.b, float(size * self.n)))

    @property
    def all_writes(self) -> tuple[Access, ...]:
        return self.writes or (Access(self.c, float(self.elements * result_bytes(self.dtype))),)


def gemm(problem: Gemm, hardware: Hardware) -> list[Kernel]:
    """One kernel, or the product and the reduction of split-K; so many for each part of a batch too large for one launch."""
    if is_tiny(problem.m, problem.n, problem.k, problem.batch, problem.dtype, hardware):
        return [_tiny(problem, hardware)]
    if problem.batch <= MOST_BATCH:
        return _launched(problem, hardware)
    batches = [MOST_BATCH] * (problem.batch // MOST_BATCH)
    rest = problem.batch % MOST_BATCH
    return [
        kernel
        for batch in (*batches, *([rest] if rest else []))
        for kernel in _launched(_part(problem, batch), hardware)
    ]


def _part(problem: Gemm, batch: int) -> Gemm:
    """`batch` of the products, with their share of the bytes."""
    share = batch / problem.batch
    reads, writes = (
        tuple(access._replace(nbytes=access.nbytes * share) for access in accesses)
        for accesses in (problem.all_reads, problem.all_writes)
    )
    return dataclasses.replace(problem, batch=batch, reads=reads, writes=writes)


def _choice(problem: Gemm, hardware: Hardware) -> Choice:
    """What decides which kernel one call of the library takes."""
    if is_persistent(problem.m, problem.n, problem.batch, hardware):
        hardware = of_each(with_pytorch, hardware, PYTORCH[0])
    reads, writes = problem.all_reads, problem.all_writes
    traffic = Traffic(
        reads[0].nbytes,
        sum(access.nbytes for access in reads[1:]),
        sum(access.nbytes for access in writes),
    )
    return Choice(problem.m, problem.n, problem.k, problem.batch, problem.dtype, traffic, hardware)


def _launched(problem: Gemm, hardware: Hardware) -> list[Kernel]:
    """The kernels of one call of the library."""
    choice = _choice(problem, hardware)
    several = isinstance(choice.hardware, Designs)
    plan, traffic, hardware = (
        choose_on_each(choice) if several else choose(choice),
        choice.traffic,
        choice.hardware,
    )
    m, n, k, reads, writes = problem.m, problem.n, problem.k, problem.all_reads, problem.all_writes
    if plan.fit is None:
        hbm_bytes = traffic.repeated(rates_of(hardware))[0]
        found = gemv(plan.split, max(m, n), k, problem.item_bytes, hbm_bytes, hardware)
        name = f"{problem.name}_{found.name}"
        kernel = dataclasses.replace(found, name=name, family=problem.family, reads=reads, writes=writes)
        return [_started(kernel, problem, 1, hardware)]
    split = plan.split
    partial_bytes = float(FP32_BYTES * problem.elements * split) if split > 1 else 0.0
    product_bytes, reduction_bytes = traffic.repeated(rates_of(hardware), partial_bytes)
    if split == 1:
        product = _tiled(problem, plan, reads, writes, product_bytes, hardware)
        return [
            *_counter(problem, product.grid, hardware),
            _started(product, problem, plan.fit.slots, hardware),
        ]
    partial = (Access(problem.workspace, partial_bytes),)
    product = _tiled(problem, plan, reads, partial, product_bytes, hardware)
    summing = _reduction(problem, split, partial, writes, reduction_bytes, hardware)
    if problem.launched == EAGER:
        return [_started(product, problem, plan.fit.slots, hardware), _started(summing, problem, 1, hardware)]
    return [_started(product, problem, plan.fit.slots, hardware), summing]


def _started(kernel: Kernel, problem: Gemm, slots: int, hardware: Hardware) -> Kernel:
    """`kernel` as it is launched. slots: CTAs at once; what only the first wave waits for is shared by all of them."""
    if problem.launched == REPLAYED:
        return kernel
    waves = -(-kernel.grid // slots) if slots > 1 else 1
    latency_s = kernel.latency_s + started_s(problem.launched, problem.bias, hardware) / waves
    held = None if problem.launched == COLD else kernel.repeated_hbm_bytes
    return dataclasses.replace(kernel, latency_s=latency_s, repeated_hbm_bytes=held)


def _counter(problem: Gemm, tiles: int, hardware: Hardware) -> list[Kernel]:
    """The Memset that goes before a kernel whose CTAs draw many tiles from a counter."""
    if problem.launched == REPLAYED or not draws_tiles(tiles, hardware):
        return []
    return [counter(problem.family, hardware)]


def _tiled(
    problem: Gemm,
    plan: Plan,
    reads: tuple[Access, ...],
    writes: tuple[Access, ...],
    hbm_bytes: float,
    hardware: Hardware,
) -> Kernel:
    """The product by the plan's tiles. hbm_bytes: of a repeated launch, without what it reads again."""
    assert plan.fit is not None
    kernels = kernels_for(problem.n, problem.k, problem.item_bytes, problem.dtype, hardware)
    return Kernel(
        name=tiled_name(problem.name, plan.fit.tile, plan.split),
        family=problem.family,
        reads=reads,
        writes=writes,
        flops=problem.flops,
        **tiled(problem.sizes, problem.dtype, kernels, plan.fit, plan.split, hbm_bytes, hardware),
    )


def _reduction(
    problem: Gemm,
    split: int,
    reads: tuple[Access, ...],
    writes: tuple[Access, ...],
    hbm_bytes: float,
    hardware: Hardware,
) -> Kernel:
    """cuBLAS's splitKreduce: sums `split` FP32 partial results of each output element."""
    return Kernel(
        name=reduction_name(problem.name),
        family=problem.family,
        reads=reads,
        writes=writes,
        flops=float(problem.elements * (split - 1)),
        **reduction(problem.elements, split, hbm_bytes, hardware),
    )


def _tiny(problem: Gemm, hardware: Hardware) -> Kernel:
    """A warp to each 16 x 16 of each product."""
    return Kernel(
        name=f"{problem.name}_wmma{TINY}x{TINY}",
        family=problem.family,
        reads=problem.all_reads,
        writes=problem.all_writes,
        flops=problem.flops,
        **tiny(problem.sizes, problem.dtype, hardware),
    )


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


def prepare_products(problems: Sequence[Gemm], hardware: Hardware) -> None:
    """Choose the kernels of all products at once that `gemm` will be asked for."""
    if not isinstance(hardware, Designs):
        prepare(_choice(problem, hardware) for problem in problems)
        return
    count = len(hardware.each)
    prepare_on_each(
        choice
        for problem in problems
        for _, choice in along_paths(functools.partial(_choice, problem, hardware), count)
    )


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
