"""GroupNorm, LayerNorm and RMSNorm as PyTorch launches them.

- `native_group_norm` (native/cuda/group_norm_kernel.cu) is three kernels. RowwiseMoments gives one CTA of
  512 threads to each (sample, group); a thread loads one element, waits for it, updates its Welford moments
  with a division, and only then loads the next. So a CTA moves 1 KB (fp16) per memory latency, and a VAE at
  batch 1 has 32 such CTAs on 132 SMs: 6-17 times slower than a fused kernel. ComputeFusedParams makes a
  scale and a shift per channel; an elementwise kernel with two broadcast operands applies them.
  Channels-last input is first copied to NCHW.
- `layer_norm` is one kernel, a CTA of 128 threads per row, Welford moments in vectors of 4; it is two where
  rows do not divide by 4 (layer_norm_kernel.cu). Its registers decide how many rows an SM holds, in fp32 three
  quarters of those in half precision; the second pass finds a row in L2, if the rows in flight leave it there.
- RMSNorm (`aten::_fused_rms_norm`, torch 2.8 and later) runs LayerNorm's kernel without the mean. Older
  versions decompose `rms_norm` into pow, mean, add, rsqrt and mul: then the trace has those operators.

What is fitted stands in hw_configs/families/normalization.yaml.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

from simtti.dtypes import ITEM_BYTES
from simtti.errors import InputError
from simtti.hw_configs.hardware import Hardware
from simtti.simulator.kernel import Access, Kernel, ctas_per_sm
from simtti.simulator.kernels.data_movement import copy
from simtti.simulator.kernels.elementwise import Walk, walk
from simtti.simulator.kernels.family import Cells, Column, Family, Target, Work, lowered_by, needed
from simtti.simulator.kernels.layout import (
    Operand,
    as_it_lies,
    dense,
    emptied_hbm_bytes,
    in_flight,
    lost_share,
    missed_share,
    streamed_l2_bytes,
)
from simtti.simulator.kernels.machine import FP32_BYTES, LANES
from simtti.simulator.kernels.reuse import asked, by_what_it_reads
from simtti.workloads.trace import Operator

MOMENTS_THREADS = (
    512  # exact: kCUDABlockReduceNumThreads in native/cuda/block_reduce.h; rows shorter take a warp
)
PARAMS_THREADS = 256  # exact: kCUDANumThreads of ComputeFusedParamsCUDAKernel
MOMENTS_BYTES = 2 * FP32_BYTES  # exact: a mean and a reciprocal deviation, a scale and a shift
WEIGHT, BIAS = 2, 3  # exact: slots of a table's row, behind source and target
ROW_THREADS = 128  # exact: block of vectorized_layer_norm_kernel
ROW_VECTOR = 4  # exact: elements of one load, vec_size of the same kernel
ROW_SHARED_BYTES = 24  # exact: of its 4 warps, two hand over 3 moments each, nshared in layer_norm_kernel.cu
# Workspaces of equal number are the same memory, as from one operator to the next the allocator gives it again.
NCHW_BELOW = 3  # exact: by definition: the copy in NCHW, counted down from the first workspace, behind moments and scales
CONTIGUOUS = -9  # exact: by definition: LayerNorm's copy of strided input
# exact: registers a thread in profiles: 27 and 22 (H200; allocated in eights)
MOMENTS_REGISTERS, PARAMS_REGISTERS = 32, 24


@dataclass(frozen=True, slots=True)
class GroupNorm:
    """GroupNorm of (n, c, spatial...): `groups` groups of channels, each of `spatial` elements.

    affine: with weight and bias. channels_last: the source lies so. cold: L2 holds nothing of it. source, target, weight, bias:
    the tensors; workspaces are `workspace` and the numbers below it.
    """

    n: int
    c: int
    spatial: int
    groups: int
    dtype: str
    affine: bool = True
    channels_last: bool = False
    cold: bool = False
    source: int = 0
    target: int = 1
    weight: int = WEIGHT
    bias: int = BIAS
    workspace: int = -1

    @property
    def moments(self) -> Moments:
        """The moments of each sample's groups."""
        rows, columns = self.n * self.groups, self.c // self.groups * self.spatial
        threads = MOMENTS_THREADS if columns >= MOMENTS_THREADS else LANES
        return Moments(rows, columns, self.dtype, self.source, self.workspace, threads, self.channels_last)


@dataclass(frozen=True, slots=True)
class RowNorm:
    """LayerNorm, or RMSNorm (rms), over the last dimension of a dense (rows, columns). cold: L2 holds nothing of it.

    parameters: the tensors of weight and bias, of a weight alone, or none. source, target: the tensors; workspace: that of
    the moments, where rows do not divide into vectors.
    """

    rows: int
    columns: int
    dtype: str
    rms: bool = False
    cold: bool = False
    parameters: tuple[int, ...] = ()
    source: int = 0
    target: int = 1
    workspace: int = -1

    @property
    def nbytes(self) -> float:
        return float(self.rows * self.columns * ITEM_BYTES[self.dtype])


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and deviation of each row of a dense (rows, columns): a CTA of `threads` a row. copied: the kernel before has just
    written them."""

    rows: int
    columns: int
    dtype: str
    source: int
    target: int
    threads: int = MOMENTS_THREADS
    copied: bool = False


@dataclass(frozen=True, slots=True)
class Application:
    """Two fp32 numbers a row (`scales`), and `parameters` a column, applied to a dense `shape` from `source` to `target`."""

    name: str
    shape: tuple[int, int]
    dtype: str
    source: int
    target: int
    scales: int
    parameters: tuple[int, ...] = ()


class Around(NamedTuple):
    """A GroupNorm: the kernels before its moments, the moments, and the kernels after."""

    before: list[Kernel]
    moments: Moments
    after: list[Kernel]

    def kernels(self, hardware: Hardware) -> list[Kernel]:
        return [*self.before, _moments(self.moments, hardware), *self.after]


def group_norm(problem: GroupNorm, hardware: Hardware) -> list[Kernel]:
    """PyTorch's GroupNorm: the moments, the scales and shifts of channels, their application."""
    return around(problem, hardware).kernels(hardware)


def around(problem: GroupNorm, hardware: Hardware) -> Around:
    """A GroupNorm, its moments, which depend on the clock, left open."""
    n, c, spatial, dtype = problem.n, problem.c, problem.spatial, problem.dtype
    before, after = [], []
    if problem.channels_last and spatial > 1:
        shape, nchw = (n, c, spatial), problem.workspace - NCHW_BELOW
        source = Operand(problem.source, (c * spatial, 1, c), dtype)
        before = copy(shape, source, dense(nchw, shape, dtype), hardware, problem.cold)
        problem = replace(problem, source=nchw)
    moments = problem.moments
    rows, scales = (moments.rows, moments.columns), problem.workspace
    if problem.affine:
        after = [_fused_params(problem, hardware)]
        rows, scales = (n * c, spatial), problem.workspace - 1
    application = Application("group_norm", rows, dtype, problem.source, problem.target, scales)
    return Around(before, moments, [*after, _apply(application, hardware)])


def _apply(problem: Application, hardware: Hardware) -> Kernel:
    """The elementwise kernel of an application; its functor takes fp32 numbers with half operands."""
    shape, dtype = problem.shape, problem.dtype
    row = Operand(problem.scales, (1, 0), "fp32")
    columns = (Operand(each, (0, 1), dtype) for each in problem.parameters)
    inputs = (dense(problem.source, shape, dtype), row, row, *columns)
    result = dense(problem.target, shape, dtype)
    return walk(Walk(problem.name, shape, inputs, result, typed=True, family="normalization"), hardware)


def _fused_params(problem: GroupNorm, hardware: Hardware) -> Kernel:
    """ComputeFusedParams: a scale and a shift of each sample's channels, a thread each."""
    n, c = problem.n, problem.c
    grid = -(-n * c // PARAMS_THREADS)
    parameter_bytes = float(c * ITEM_BYTES[problem.dtype])
    reads = (
        Access(problem.workspace, float(MOMENTS_BYTES * n * problem.groups)),
        Access(problem.weight, parameter_bytes),
        Access(problem.bias, parameter_bytes),
    )
    writes = (Access(problem.workspace - 1, float(MOMENTS_BYTES * n * c)),)
    return Kernel(
        name="ComputeFusedParamsCUDAKernel",
        family="normalization",
        grid=grid,
        threads=PARAMS_THREADS,
        registers=PARAMS_REGISTERS,
        issue_slots=PARAMS_THREADS * hardware.group_norm.channel_slots,
        l2_bytes=streamed_l2_bytes(reads, writes, hardware) / grid,
        latency_s=hardware.group_norm.latency_s,
        reads=reads,
        writes=writes,
    )


def _moments(problem: Moments, hardware: Hardware) -> Kernel:
    """RowwiseMoments: a CTA a row, and in it load after load, each followed by its Welford update."""
    style = hardware.group_norm
    rows, columns, threads = problem.rows, problem.columns, problem.threads
    item = ITEM_BYTES[problem.dtype]
    slots = -(-columns // threads) * threads * style.update_slots
    # FP32 instructions, 2 FLOPs a lane: H100 has twice A100's lanes, and its moments take half the cycles.
    chain_s = slots * 2 / (hardware.fp32_flops_per_cycle_sm * hardware.clock_hz)
    nbytes = float(rows * columns * item)
    reads = (Access(problem.source, nbytes),)
    writes = (Access(problem.target, float(MOMENTS_BYTES * rows)),)
    # A table's row is an operator from a cold L2: but for a source that the kernel before has left there beside its own, least
    # recently used out first, so that all of a longer round trip is lost.
    found = problem.copied and 2 * nbytes < hardware.l2_usable_bytes
    # Within warps, then between them.
    stages = 1 if threads == LANES else 2
    return Kernel(
        name="RowwiseMomentsCUDAKernel",
        family="normalization",
        grid=rows,
        threads=threads,
        registers=MOMENTS_REGISTERS,
        issue_slots=slots,
        l2_bytes=streamed_l2_bytes(reads, writes, hardware) / rows,
        latency_s=stages * style.stage_latency_s + chain_s,
        bytes_in_flight=threads * item,  # a trip to memory for each element of a thread
        chained=True,
        reads=reads,
        writes=writes,
        repeated_hbm_bytes=writes[0].nbytes if found else None,
    )


def layer_norm(problem: RowNorm, hardware: Hardware) -> list[Kernel]:
    """PyTorch's LayerNorm or RMSNorm."""
    rows, columns, item = problem.rows, problem.columns, ITEM_BYTES[problem.dtype]
    if columns % ROW_VECTOR or problem.dtype == "fp64":
        return _unvectorized(problem, hardware)
    style = hardware.rms_norm if problem.rms else hardware.layer_norm
    loops = -(-columns // (ROW_VECTOR * ROW_THREADS))
    # Whole warps work, those that the row leaves without vectors do not.
    vectors = -(-columns // (ROW_VECTOR * LANES)) * LANES
    parameters = (Access(each, float(columns * item)) for each in problem.parameters)
    vector_slots = style.vector_slots + len(problem.parameters) * style.parameter_slots
    reads = (Access(problem.source, problem.nbytes), *parameters)
    writes = (Access(problem.target, problem.nbytes),)
    l2_bytes = streamed_l2_bytes(reads, writes, hardware) / rows
    kernel = Kernel(
        name=f"vectorized_{'rms' if problem.rms else 'layer'}_norm_kernel",
        family="normalization",
        grid=rows,
        threads=ROW_THREADS,
        registers=int(style.wide_registers if item >= FP32_BYTES else style.registers),
        shared_memory_bytes=ROW_SHARED_BYTES,
        issue_slots=ROW_THREADS * style.thread_slots + vectors * vector_slots,
        l2_bytes=l2_bytes,
        latency_s=style.latency_s + hardware.hbm_latency_s,
        reads=reads,
        writes=writes,
    )
    at_once = ctas_per_sm(kernel, hardware) * hardware.sm_count
    # A round of the loop waits for its load; of those of the first pass some L2 does not end, and the more rows are in flight,
    # the longer they wait for each other at HBM.
    missed = 1.0 if problem.cold else missed_share(2 * problem.nbytes, hardware)
    queue_s = min(rows, at_once) * columns * item / hardware.hbm_attained_bytes_per_s
    trips_s = loops * (hardware.l2_latency_s + style.loop_latency_s + missed * hardware.l2_costs.miss_s)
    chain_s = trips_s + missed * style.queued * queue_s
    again = problem.nbytes * _lost_between(min(rows, 2 * at_once) * columns * item, hardware)
    return [
        replace(
            kernel,
            bytes_in_flight=in_flight(l2_bytes, chain_s, hardware),
            hbm_reread_bytes=again,
            repeated_hbm_bytes=emptied_hbm_bytes(reads, writes, again, hardware) if problem.cold else None,
        )
    ]


@asked
def _lost_between(nbytes: int, hardware: Hardware) -> float:
    """Share of a row that L2 has lost before the second pass over it: it has taken in so many bytes since, what rows in flight read
    and, but for the first of them, which begin in step, what others wrote meanwhile."""
    return lost_share(1.0 * nbytes, hardware.l2_costs.spill_from, hardware)


def _unvectorized(problem: RowNorm, hardware: Hardware) -> list[Kernel]:
    """LayerNorm where rows do not divide into vectors: the moments, a CTA a row, then the application."""
    shape, dtype, moments = (problem.rows, problem.columns), problem.dtype, problem.workspace
    application = Application(
        "layer_norm", shape, dtype, problem.source, problem.target, moments, problem.parameters
    )
    return [
        _moments(Moments(*shape, dtype, problem.source, moments), hardware),
        _apply(application, hardware),
    ]


# ---- operators of a trace


def _lower_group_norm(operator: Operator, target: Target) -> list[Kernel]:
    return _around(operator, target).kernels(target.hardware)


@by_what_it_reads
def _around(operator: Operator, target: Target) -> Around:
    x, slots = operator.inputs[0], len(operator.inputs)
    problem = GroupNorm(
        x.shape[0],
        x.shape[1],
        math.prod(x.shape[2:]),
        int(operator.attributes["num_groups"]),
        x.dtype,
        affine=slots > 1,
        channels_last=x.channels_last and not x.contiguous,
        target=slots,
        weight=1,
        bias=2,
    )
    return around(problem, target.hardware)


def _lower_row_norm(operator: Operator, target: Target) -> list[Kernel]:
    x, slots = operator.inputs[0], len(operator.inputs)
    columns = math.prod(operator.attributes["normalized_shape"])
    problem = RowNorm(
        x.numel // columns,
        columns,
        x.dtype,
        rms="rms_norm" in operator.op,
        parameters=(1, 2)[: slots - 1],
        target=slots,
    )
    if x.contiguous:
        return layer_norm(problem, target.hardware)
    # Strided input is made contiguous below the aten level (native/layer_norm.cpp).
    dense_copy = copy(x.shape, as_it_lies(x, 0), dense(CONTIGUOUS, x.shape, x.dtype), target.hardware)
    return dense_copy + layer_norm(replace(problem, source=CONTIGUOUS), target.hardware)


# ---- rows of a table


def _group_norm_kernels(cells: Cells, hardware: Hardware) -> list[Kernel]:
    channels, groups = cells.whole("c"), cells.whole("groups")
    if channels % groups:
        raise InputError(f"column 'groups' is {groups}; it must divide c, {channels}")
    nhwc = cells.text("layout") == "nhwc"
    problem = GroupNorm(
        cells.whole("n"), channels, cells.whole("spatial"), groups, cells.dtype, channels_last=nhwc, cold=True
    )
    return group_norm(problem, hardware)


def _layer_norm_kernels(cells: Cells, hardware: Hardware) -> list[Kernel]:
    rows, columns = cells.whole("rows"), cells.whole("cols")
    return layer_norm(RowNorm(rows, columns, cells.dtype, cold=True, parameters=(WEIGHT, BIAS)), hardware)


def _rms_norm_kernels(cells: Cells, hardware: Hardware) -> list[Kernel]:
    rows, columns = cells.whole("rows"), cells.whole("cols")
    return layer_norm(
        RowNorm(rows, columns, cells.dtype, rms=True, cold=True, parameters=(WEIGHT,)), hardware
    )


def _rows_work(cells: Cells) -> Work:
    return Work(0.0, 2.0 * cells.whole("rows") * cells.whole("cols"))


_DEFAULT_GROUPS = 32  # exact: groups of the GroupNorms of diffusion's UNets and VAEs
GROUP_NORM = Family(
    op="group_norm",
    columns=(
        *needed("n c spatial"),
        Column("groups", _DEFAULT_GROUPS),
        Column("layout", "nchw", str, words=("nchw", "nhwc")),
    ),
    note="spatial: the elements of a channel",
    kernels=_group_norm_kernels,
    work=lambda cells: Work(0.0, 2.0 * cells.whole("n") * cells.whole("c") * cells.whole("spatial")),
    aten=lowered_by(_lower_group_norm, "native_group_norm"),
)
LAYER_NORM = Family(
    op="layer_norm",
    columns=needed("rows cols"),
    kernels=_layer_norm_kernels,
    work=_rows_work,
    aten=lowered_by(_lower_row_norm, "native_layer_norm rms_norm _fused_rms_norm"),
    reads_few=True,
)
RMS_NORM = Family(op="rms_norm", columns=needed("rows cols"), kernels=_rms_norm_kernels, work=_rows_work)
