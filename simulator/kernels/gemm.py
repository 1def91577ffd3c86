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
from collections.abc import Sequence
from dataclasses import dataclass

from simtti.dtypes import ITEM_BYTES
from simtti.hw_configs.hardware import PYTORCH, Hardware, with_pytorch
from simtti.simulator.designs import Designs, of_each
from simtti.simulator.kernel import Access, Kernel
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
from simtti.simulator.kernels.gemm_tiles import kernels_for
from simtti.simulator.kernels.gemv import gemv
from simtti.simulator.kernels.machine import FP32_BYTES
from simtti.simulator.lanes import along_paths

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
            *(_counter(problem, product.grid, hardware) if plan.fit.tile.in_clusters else ()),
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
    kernels = kernels_for(problem.n, problem.k, problem.batch, problem.item_bytes, problem.dtype, hardware)
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
