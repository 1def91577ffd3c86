"""Normalisation, softmax and reductions as PyTorch launches them.

- `native_group_norm` (native/cuda/group_norm_kernel.cu) is three kernels. RowwiseMoments gives one CTA of
  512 threads to each (sample, group); a thread loads one element, waits for it, updates its Welford moments
  with a division, and only then loads the next. So a CTA moves 1 KB (fp16) per memory latency, and a VAE at
  batch 1 has 32 such CTAs on 132 SMs: 6-17 times slower than a fused kernel. ComputeFusedParams makes a
  scale and a shift per channel; an elementwise kernel with two broadcast operands applies them.
  Channels-last input is first copied to NCHW.
- `layer_norm` is one kernel, a CTA of 128 threads per row, Welford moments in vectors of 4; it is two where
  rows do not divide by 4 (layer_norm_kernel.cu).
- `softmax` up to 1024 columns keeps rows in registers, a warp or less to two rows (PersistentSoftmax.cuh);
  above, a CTA of up to 1024 threads takes a row: once through shared memory when rows are 16-byte aligned
  and fit, else in three passes over it (SoftMax.cu).
- Reductions (Reduce.cuh): a warp a row where the reduced dimension is the fastest, shuffles at its end; an output
  vector a lane where it is not. Warps, then CTAs share an output where that leaves a thread many values.

Constants without another source are fitted to operators_h100.csv (TraceLens, H100 SXM, 2026-11-23) and to
the GroupNorm timings of sgl-project/sglang#23938 and #26045 (H200) and pytorch/pytorch#183946 (A100).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from simtti.dtypes import ITEM_BYTES
from simtti.errors import InputError
from simtti.hw_configs.hardware import Hardware
from simtti.simulator.kernel import Access, Kernel
from simtti.simulator.kernels.data_movement import copy
from simtti.simulator.kernels.elementwise import Walk, walk
from simtti.simulator.kernels.family import Cells, Column, Family, Target, Work, lowered_by, needed
from simtti.simulator.kernels.layout import Operand, as_it_lies, dense
from simtti.workloads.trace import Operator

MOMENTS_THREADS = 512  # kCUDABlockReduceNumThreads in native/cuda/block_reduce.h
MOMENTS_SLOTS = 40  # issue slots of one Welford update, with its division; on the chain, not hidden; fitted
PARAMS_THREADS = 256  # ComputeFusedParamsCUDAKernel: kCUDANumThreads
PARAMS_SLOTS = 40  # issue slots of a channel: gather two moments, weight and bias; make scale and shift
CTA_LATENCY_S = 0.9e-6  # first load to last store of a short CTA with a block-wide reduction; fitted

LAYER_NORM_THREADS = 128  # block of vectorized_layer_norm_kernel
LAYER_NORM_VECTOR = 4  # elements of one load, same kernel
LAYER_NORM_LATENCY_S = 1.0e-6  # a row's two dependent passes and block-wide combination; fitted
# Issue slots of a thread outside its loop: shuffles and combinations of moments; fitted
LAYER_NORM_SLOTS = 240
LAYER_NORM_VECTOR_SLOTS = 175  # issue slots of 4 elements: 4 Welford updates, then the second pass; fitted
# RMSNorm runs the same kernel without mean: the same three, for rows of 128 fitted (sgl-project/sglang#20632)
RMS_NORM_LATENCY_S = 0.4e-6
RMS_NORM_SLOTS = 85
RMS_NORM_VECTOR_SLOTS = 75

WARP_SOFTMAX_COLUMNS = 1024  # longest row of softmax_warp_forward (PersistentSoftmax.cuh)
# Issue slots of a thread beside its elements: start, shuffles for maximum and sum; fitted
WARP_SOFTMAX_SLOTS = 130
# Issue slots of an element: load, convert, exponential, divide, store; fitted
WARP_SOFTMAX_ELEMENT_SLOTS = 16
WARP_SOFTMAX_LATENCY_S = 0.3e-6  # a CTA's chain beside its loads: exponentials, shuffles; fitted [0, 1e-6]
BLOCK_SOFTMAX_THREADS = 1024  # SoftMaxForward_getBlockSize for rows above 1024 columns
BLOCK_SOFTMAX_SLOTS = 116  # issue slots of an element in cunn_SoftMaxForward: three passes, exp twice; fitted
BLOCK_SOFTMAX_CTA_SLOTS = 260  # issue slots of a thread for its two block-wide reductions; fitted
SHARED_SOFTMAX_SLOTS = 72  # issue slots of an element in cunn_SoftMaxForwardSmem, one pass; LLMCompass, A100

REDUCE_THREADS = 512  # MAX_NUM_THREADS in native/cuda/Reduce.cuh
REDUCE_VECTOR = 4  # elements of a vector, and loads a thread keeps in flight: vt0, same file
REDUCE_SPLIT_VALUES = (
    16  # values of a thread a warp from which the warps of a CTA share an output: min_values_per_thread
)
REDUCE_MOST_VALUES = 256  # and from which they always do, or CTAs do: max_values_per_thread, same file
# Issue slots of a thread beside its elements: offsets by division, five shuffles, the store, each behind run-time
# switches. Fitted [100, 400] to the mean over 7x7 of ResNet-50 on a V100 (pytorch/kineto, BSD-3): 65,536 warps in 35 us
REDUCE_THREAD_SLOTS = 160
REDUCE_ELEMENT_SLOTS = 4  # issue slots of a reduced element: load, convert, combine
REDUCE_LATENCY_S = 1.7e-6  # a CTA's chain beside its loads: offsets, shuffles, store; fitted [0.5e-6, 3e-6]
# The same with 16 accumulators a thread and a combination through shared memory; fitted [1e-6, 6e-6]
OUTER_REDUCE_LATENCY_S = 4.3e-6
OUTER_REDUCE_STEP_S = 0.09e-6  # what follows each trip to memory there: 16 elements; fitted [0, 0.3e-6]


def _rows_kernel(
    name: str,
    grid: int,
    threads: int,
    registers: int,
    slots: float,
    latency_s: float,
    reads: tuple[Access, ...],
    writes: tuple[Access, ...],
    hardware: Hardware,
    *,
    bytes_in_flight: float = math.inf,
    sfu_ops: float = 0.0,
    shared_memory_bytes: int = 0,
    read_passes: float = 1.0,
    hbm_reread_bytes: float = 0.0,
    family: str = "normalization",
) -> Kernel:
    """A kernel over rows; `slots` are issue slots of the whole CTA, `sfu_ops` of the CTA."""
    read = read_passes * sum(access.nbytes for access in reads)
    written = hardware.l2_costs.write * sum(access.nbytes for access in writes)
    return Kernel(
        name=name,
        family=family,
        grid=grid,
        threads=threads,
        registers=registers,
        shared_memory_bytes=shared_memory_bytes,
        issue_slots=slots,
        sfu_ops=sfu_ops,
        l2_bytes=(read + written) / grid,
        latency_s=latency_s,
        bytes_in_flight=bytes_in_flight,
        reads=reads,
        writes=writes,
        hbm_reread_bytes=hbm_reread_bytes,
    )


def group_norm(
    n: int,
    c: int,
    spatial_numel: int,
    groups: int,
    dtype: str,
    hardware: Hardware,
    *,
    affine: bool = True,
    channels_last: bool = False,
    source: int = 0,
    target: int = 1,
    weight: int = 2,
    bias: int = 3,
    workspace: int = -1,
) -> list[Kernel]:
    """PyTorch's GroupNorm of (n, c, spatial...). Workspaces are `workspace` and the numbers below it."""
    item = ITEM_BYTES[dtype]
    shape = (n, c, spatial_numel)
    kernels = []
    if channels_last and spatial_numel > 1:
        strides = (c * spatial_numel, 1, c)
        kernels += copy(shape, Operand(source, strides, dtype), dense(workspace - 3, shape, dtype), hardware)
        source = workspace - 3
    moments = workspace
    params = workspace - 1
    group_elements = c // groups * spatial_numel
    threads = MOMENTS_THREADS if group_elements >= MOMENTS_THREADS else 32
    kernels.append(_moments(n * groups, group_elements, threads, dtype, hardware, source, moments))
    if not affine:
        rows = (n * groups, group_elements)
        row = Operand(moments, (1, 0), "fp32")
        inputs = (dense(source, rows, dtype), row, row)
        kernels.append(
            walk(
                Walk(
                    "group_norm", rows, inputs, dense(target, rows, dtype), typed=True, family="normalization"
                ),
                hardware,
            )
        )
        return kernels
    kernels.append(
        _rows_kernel(
            "ComputeFusedParamsCUDAKernel",
            -(-n * c // PARAMS_THREADS),
            PARAMS_THREADS,
            24,
            PARAMS_THREADS * PARAMS_SLOTS,
            CTA_LATENCY_S,
            (
                Access(moments, 8.0 * n * groups),
                Access(weight, float(c * item)),
                Access(bias, float(c * item)),
            ),
            (Access(params, 8.0 * n * c),),
            hardware,
        )
    )
    rows = (n * c, spatial_numel)
    column = Operand(params, (1, 0), "fp32")
    inputs = (dense(source, rows, dtype), column, column)
    kernels.append(
        walk(
            Walk("group_norm", rows, inputs, dense(target, rows, dtype), typed=True, family="normalization"),
            hardware,
        )
    )
    return kernels


def _moments(
    rows: int, columns: int, threads: int, dtype: str, hardware: Hardware, source: int, target: int
) -> Kernel:
    """RowwiseMoments: a CTA a row, and in it load after load, each followed by its Welford update."""
    item = ITEM_BYTES[dtype]
    rounds = -(-columns // threads)
    # FP32 instructions, 2 FLOPs a lane: H100 has twice A100's lanes, and its moments take half the cycles.
    chain_s = rounds * threads * MOMENTS_SLOTS * 2 / (hardware.fp32_flops_per_cycle_sm * hardware.clock_hz)
    return _rows_kernel(
        "RowwiseMomentsCUDAKernel",
        rows,
        threads,
        32,
        rounds * threads * MOMENTS_SLOTS,
        CTA_LATENCY_S + chain_s,
        (Access(source, float(rows * columns * item)),),
        (Access(target, 8.0 * rows),),
        hardware,
        bytes_in_flight=threads * item,
    )


def layer_norm(
    rows: int,
    columns: int,
    dtype: str,
    hardware: Hardware,
    *,
    affine: bool = True,
    source: int = 0,
    target: int = 1,
    weight: int = 2,
    bias: int | None = 3,
    workspace: int = -1,
    rms: bool = False,
) -> list[Kernel]:
    """LayerNorm over the last dimension of a dense (rows, columns). bias: None for a weight alone. rms: RMSNorm."""
    item = ITEM_BYTES[dtype]
    loops = -(-columns // (LAYER_NORM_VECTOR * LAYER_NORM_THREADS))
    thread_slots, vector_slots = (
        (RMS_NORM_SLOTS, RMS_NORM_VECTOR_SLOTS) if rms else (LAYER_NORM_SLOTS, LAYER_NORM_VECTOR_SLOTS)
    )
    slots = LAYER_NORM_THREADS * (thread_slots + loops * vector_slots)
    # The second pass finds in L2 what fits there of the rows in flight.
    in_flight = min(rows, hardware.sm_count * hardware.max_threads_per_sm // LAYER_NORM_THREADS)
    missed = max(0.0, 1.0 - hardware.l2_usable_bytes / (in_flight * columns * item))
    reads = [Access(source, float(rows * columns * item))]
    if affine:
        reads += [Access(each, float(columns * item)) for each in (weight, bias) if each is not None]
    if columns % LAYER_NORM_VECTOR or dtype == "fp64":
        rest = tuple(reads[1:])
        return _unvectorized_layer_norm(rows, columns, dtype, hardware, source, target, workspace, rest)
    return [
        _rows_kernel(
            f"vectorized_{'rms' if rms else 'layer'}_norm_kernel",
            rows,
            LAYER_NORM_THREADS,
            34,
            slots,
            (RMS_NORM_LATENCY_S if rms else LAYER_NORM_LATENCY_S)
            + hardware.hbm_latency_s
            + loops * hardware.l2_latency_s,
            tuple(reads),
            (Access(target, float(rows * columns * item)),),
            hardware,
            shared_memory_bytes=24,
            hbm_reread_bytes=missed * rows * columns * item,
        )
    ]


def _unvectorized_layer_norm(
    rows: int,
    columns: int,
    dtype: str,
    hardware: Hardware,
    source: int,
    target: int,
    moments: int,
    parameters: tuple[Access, ...],
) -> list[Kernel]:
    """LayerNorm where rows do not divide into vectors: the moments, a CTA a row, then the application."""
    shape = (rows, columns)
    row = Operand(moments, (1, 0), "fp32")
    column = [Operand(access.tensor, (0, 1), dtype) for access in parameters]
    inputs = (dense(source, shape, dtype), row, row, *column)
    result = dense(target, shape, dtype)
    apply = walk(Walk("layer_norm", shape, inputs, result, typed=True, family="normalization"), hardware)
    return [_moments(rows, columns, MOMENTS_THREADS, dtype, hardware, source, moments), apply]


def rms_norm(
    rows: int,
    columns: int,
    dtype: str,
    hardware: Hardware,
    *,
    source: int = 0,
    target: int = 1,
    weight: int = 2,
) -> list[Kernel]:
    """`aten::_fused_rms_norm` (torch 2.8 and later), which shares LayerNorm's kernel.

    Older versions decompose `rms_norm` into pow, mean, add, rsqrt and mul: then the trace has those
    operators.
    """
    return layer_norm(
        rows, columns, dtype, hardware, source=source, target=target, weight=weight, bias=None, rms=True
    )


def softmax(
    rows: int, columns: int, dtype: str, hardware: Hardware, *, source: int = 0, target: int = 1
) -> list[Kernel]:
    """Softmax over the last dimension of a dense (rows, columns)."""
    item = ITEM_BYTES[dtype]
    moved = float(rows * columns * item)
    reads, writes = (Access(source, moved),), (Access(target, moved),)
    if columns <= WARP_SOFTMAX_COLUMNS:
        padded = 1 << max(0, (columns - 1).bit_length())
        lanes = min(32, padded)
        warp_rows = 2 if padded <= 128 else 1
        cta_rows = 128 // lanes * warp_rows
        per_thread = padded // lanes * warp_rows
        return [
            _rows_kernel(
                "softmax_warp_forward",
                -(-rows // cta_rows),
                128,
                24 + 2 * per_thread,
                128 * (WARP_SOFTMAX_SLOTS + WARP_SOFTMAX_ELEMENT_SLOTS * per_thread),
                WARP_SOFTMAX_LATENCY_S + hardware.hbm_latency_s,
                reads,
                writes,
                hardware,
                sfu_ops=float(min(cta_rows, rows) * padded),
                family="softmax",
            )
        ]
    threads = BLOCK_SOFTMAX_THREADS
    row_bytes = columns * item
    in_shared = row_bytes % 16 == 0 and row_bytes < hardware.shared_memory_per_sm_bytes // 2
    element_slots = SHARED_SOFTMAX_SLOTS if in_shared else BLOCK_SOFTMAX_SLOTS
    cta_slots = 0 if in_shared else BLOCK_SOFTMAX_CTA_SLOTS
    return [
        _rows_kernel(
            "cunn_SoftMaxForwardSmem" if in_shared else "cunn_SoftMaxForward",
            rows,
            threads,
            32,
            columns * element_slots + threads * cta_slots,
            CTA_LATENCY_S + hardware.hbm_latency_s,
            reads,
            writes,
            hardware,
            sfu_ops=2.0 * columns,
            shared_memory_bytes=row_bytes + 128 if in_shared else 128,
            read_passes=1.0 if in_shared else 3.0,
            family="softmax",
        )
    ]


class _Reduction(NamedTuple):
    """How PyTorch launches a reduction (setReduceConfig in native/cuda/Reduce.cuh).

    width, height: threads of a CTA along the fastest dimension and across. outputs: outputs of a CTA. parts: CTAs that
    share an output: so many that all are resident at once (PyTorch rounds up; the few beyond would double the time of
    a GPU with one SM more). trips: dependent trips to memory of a thread. values: elements of a thread.
    """

    width: int
    height: int
    outputs: int
    parts: int
    trips: int
    values: int


def _reduction(outputs: int, reduced: int, inner: bool, hardware: Hardware) -> _Reduction:
    """Lanes go along the reduced dimension if it is the fastest (inner), else along outputs, in vectors. Warps take other
    outputs while that leaves a thread few values, else a part of the same; so do CTAs where outputs are few."""
    vector = REDUCE_VECTOR
    if inner:
        vector = vector if reduced > 128 else 1
        first, second, most = reduced // vector, outputs, REDUCE_THREADS
    else:
        while outputs % vector:
            vector //= 2
        first, second, most = outputs // vector, reduced, REDUCE_THREADS // vector
    first, second = _power_of_2(min(first, most)), _power_of_2(min(second, most))
    height = min(second, most // min(first, 32))
    width = min(first, most // height)
    step, cta_outputs = (width, 1) if inner else (1, width * vector)
    values = -(-reduced // step)
    shared = values >= height * REDUCE_SPLIT_VALUES or values >= REDUCE_MOST_VALUES
    if shared:
        values = -(-values // height)
    else:
        cta_outputs *= height
    parts = 1
    grid = -(-outputs // cta_outputs)
    target = hardware.sm_count * (hardware.max_threads_per_sm // (width * height))
    if shared and values >= REDUCE_MOST_VALUES and grid <= target:
        parts = max(min(target // grid, -(-values // REDUCE_SPLIT_VALUES)), -(-values // REDUCE_MOST_VALUES))
        values = -(-values // parts)
    # A trip fetches REDUCE_VECTOR values, as one vector or as so many loads.
    return _Reduction(width, height, cta_outputs, parts, -(-values // REDUCE_VECTOR), values)


def _power_of_2(number: int) -> int:
    """The largest power of 2 that is not above `number`."""
    return 1 << (max(1, number).bit_length() - 1)


def reduce(
    outputs: int,
    reduced: int,
    dtype: str,
    hardware: Hardware,
    *,
    inner: bool = True,
    name: str = "mean",
    source: int = 0,
    target: int = 1,
) -> list[Kernel]:
    """mean, sum, norm, amax over one dimension of `reduced` elements. inner: it is the fastest dimension.

    An inner reduction of rows gives a warp to a row, 16 to a CTA. Short rows (a head's 64) are bound by the instructions
    around their one load. CTAs that share an output finish it in the same kernel, the last one to arrive.
    """
    item = ITEM_BYTES[dtype]
    launch = _reduction(outputs, reduced, inner, hardware)
    grid = -(-outputs // launch.outputs) * launch.parts
    threads = launch.width * launch.height
    nbytes = float(outputs * reduced * item)
    # What was just written is found in L2, as far as it fits.
    missed = max(0.0, 1.0 - hardware.l2_usable_bytes / nbytes)
    trip_s = hardware.l2_latency_s + missed * (hardware.hbm_latency_s - hardware.l2_latency_s)
    if inner:
        latency_s = REDUCE_LATENCY_S + launch.trips * trip_s
        vector = 1
    else:
        latency_s = OUTER_REDUCE_LATENCY_S + launch.trips * (trip_s + OUTER_REDUCE_STEP_S)
        vector = max(1, launch.outputs // threads)
    if launch.parts > 1:
        latency_s += hardware.l2_latency_s * 2  # the count of CTAs that have finished, then their parts
    slots = REDUCE_THREAD_SLOTS + launch.values * vector * REDUCE_ELEMENT_SLOTS
    return [
        _rows_kernel(
            f"reduce_kernel<{name}>",
            grid,
            threads,
            52 if vector == REDUCE_VECTOR else 32,
            threads * slots,
            latency_s,
            (Access(source, nbytes),),
            (Access(target, float(outputs * item)),),
            hardware,
            family="reduction",
        )
    ]


# ---- operators of a trace


def _lower_group_norm(operator: Operator, target: Target) -> list[Kernel]:
    x = operator.inputs[0]
    spatial = math.prod(x.shape[2:])
    return group_norm(
        x.shape[0], x.shape[1], spatial, int(operator.attributes["num_groups"]), x.dtype, target.hardware,
        channels_last=x.channels_last and not x.contiguous, affine=len(operator.inputs) > 1, source=0, weight=1,
        bias=2, target=len(operator.inputs),
    )  # fmt: skip


def _lower_layer_norm(operator: Operator, target: Target) -> list[Kernel]:
    x = operator.inputs[0]
    columns = math.prod(operator.attributes["normalized_shape"])
    slots: dict[str, Any] = {
        "weight": 1,
        "bias": 2 if len(operator.inputs) > 2 else None,
        "target": len(operator.inputs),
        "affine": len(operator.inputs) > 1,
        "rms": "rms_norm" in operator.op,
    }
    if x.contiguous:
        return layer_norm(x.numel // columns, columns, x.dtype, target.hardware, source=0, **slots)
    # Strided input is made contiguous below the aten level (native/layer_norm.cpp).
    dense_copy = copy(x.shape, as_it_lies(x, 0), dense(-9, x.shape, x.dtype), target.hardware)
    return dense_copy + layer_norm(x.numel // columns, columns, x.dtype, target.hardware, source=-9, **slots)


def _lower_softmax(operator: Operator, target: Target) -> list[Kernel]:
    x = operator.inputs[0]
    columns = x.shape[int(operator.attributes.get("dim", -1))]
    return softmax(x.numel // columns, columns, x.dtype, target.hardware, source=0, target=1)


def _lower_reduction(operator: Operator, target: Target) -> list[Kernel]:
    x, y = operator.inputs[0], operator.outputs[0]
    dims = operator.attributes.get("dim")
    dims = [dims] if isinstance(dims, int) else dims
    inner = not dims or (len(x.shape) - 1) in [dim % len(x.shape) for dim in dims]
    outputs = max(y.numel, 1)
    name = operator.op.removeprefix("aten::")
    return reduce(
        outputs,
        x.numel // outputs,
        x.dtype,
        target.hardware,
        inner=inner,
        name=name,
        source=0,
        target=len(operator.inputs),
    )


# ---- rows of a table


def _group_norm_kernels(cells: Cells, hardware: Hardware) -> list[Kernel]:
    channels, groups = cells.whole("c"), cells.whole("groups")
    if channels % groups:
        raise InputError(f"column 'groups' is {groups}; it must divide c, {channels}")
    return group_norm(
        cells.whole("n"), channels, cells.whole("spatial"), groups, cells.dtype, hardware,
        channels_last=cells.text("layout") == "nhwc",
    )  # fmt: skip


def _rows_work(cells: Cells) -> Work:
    return Work(0.0, 2.0 * cells.whole("rows") * cells.whole("cols"))


_ROWS = needed("rows cols")
_REDUCTIONS = "mean sum amax amin max min argmax argmin any all var std linalg_vector_norm norm prod cumsum"
GROUP_NORM = Family(
    op="group_norm",
    columns=(
        *needed("n c spatial"),
        Column("groups", 32),
        Column("layout", "nchw", str, words=("nchw", "nhwc")),
    ),
    note="spatial: the elements of a channel",
    kernels=_group_norm_kernels,
    work=lambda cells: Work(0.0, 2.0 * cells.whole("n") * cells.whole("c") * cells.whole("spatial")),
    aten=lowered_by(_lower_group_norm, "native_group_norm"),
)
LAYER_NORM = Family(
    op="layer_norm",
    columns=_ROWS,
    kernels=lambda cells, hardware: layer_norm(
        cells.whole("rows"), cells.whole("cols"), cells.dtype, hardware
    ),
    work=_rows_work,
    aten=lowered_by(_lower_layer_norm, "native_layer_norm rms_norm _fused_rms_norm"),
)
RMS_NORM = Family(
    op="rms_norm",
    columns=_ROWS,
    kernels=lambda cells, hardware: rms_norm(cells.whole("rows"), cells.whole("cols"), cells.dtype, hardware),
    work=_rows_work,
)
SOFTMAX = Family(
    op="softmax",
    columns=_ROWS,
    kernels=lambda cells, hardware: softmax(cells.whole("rows"), cells.whole("cols"), cells.dtype, hardware),
    work=_rows_work,
    aten=lowered_by(_lower_softmax, "_softmax _safe_softmax") | lowered_by(_lower_reduction, _REDUCTIONS),
)
