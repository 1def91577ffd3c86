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
- Reductions (Reduce.cuh): threads loop over the reduced dimension and combine through shared memory.

Constants without another source are fitted to operators_h100.csv (TraceLens, H100 SXM, 2026-11-23) and to
the GroupNorm timings of sgl-project/sglang#23938 and #26045 (H200) and pytorch/pytorch#183946 (A100).
"""

from __future__ import annotations

import math

from simtti.hw_configs.hardware import Hardware
from simtti.simulator.kernel import Access, Kernel
from simtti.simulator.kernels.elementwise import (
    ITEM_BYTES,
    L2_WRITE_COST,
    Operand,
    dense,
    issue_flops,
    walk,
)
from simtti.simulator.kernels.memory import copy

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
BLOCK_SOFTMAX_THREADS = 1024  # SoftMaxForward_getBlockSize for rows above 1024 columns
BLOCK_SOFTMAX_SLOTS = 116  # issue slots of an element in cunn_SoftMaxForward: three passes, exp twice; fitted
BLOCK_SOFTMAX_CTA_SLOTS = 260  # issue slots of a thread for its two block-wide reductions; fitted
SHARED_SOFTMAX_SLOTS = 72  # issue slots of an element in cunn_SoftMaxForwardSmem, one pass; LLMCompass, A100

REDUCE_THREADS = 512  # MAX_NUM_THREADS / output vector in native/cuda/Reduce.cuh
# Loads of 4 elements that a thread of an outer reduction keeps in flight; fitted (vt0 = 4)
REDUCE_VECTORS = 8
REDUCE_ELEMENT_SLOTS = 6  # issue slots of a reduced element: load, convert, combine
REDUCE_LATENCY_S = 1.6e-6  # index calculator, combination in the warp, final store; fitted
# The same with 16 accumulators a thread and a combination through shared memory; fitted
OUTER_REDUCE_LATENCY_S = 4.6e-6


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
    written = L2_WRITE_COST * sum(access.nbytes for access in writes)
    return Kernel(
        name=name,
        family=family,
        grid=grid,
        threads=threads,
        registers=registers,
        shared_memory_bytes=shared_memory_bytes,
        fp32_flops=issue_flops(slots, hardware),
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
                "group_norm",
                rows,
                inputs,
                dense(target, rows, dtype),
                hardware,
                typed=True,
                family="normalization",
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
            "group_norm",
            rows,
            inputs,
            dense(target, rows, dtype),
            hardware,
            typed=True,
            family="normalization",
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
    apply = walk("layer_norm", shape, inputs, result, hardware, typed=True, family="normalization")
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
                hardware.hbm_latency_s,
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

    An inner reduction gives a warp to a row, 16 rows to a CTA, or a whole CTA to a row where rows are few.
    An outer one gives 4 neighbouring outputs to a lane and splits the reduced dimension over the 4 warps of
    a CTA.
    """
    item = ITEM_BYTES[dtype]
    vector_bytes = 4 * item
    if inner:
        cta_outputs = 16 if outputs >= 16 else 1
        threads = REDUCE_THREADS
        in_flight = float(threads * vector_bytes)
    else:
        cta_outputs = 128
        threads = 128
        in_flight = float(threads * vector_bytes * REDUCE_VECTORS)
    grid = -(-outputs // cta_outputs)
    return [
        _rows_kernel(
            f"reduce_kernel<{name}>",
            grid,
            threads,
            32 if inner else 52,
            min(outputs, cta_outputs) * reduced * REDUCE_ELEMENT_SLOTS,
            REDUCE_LATENCY_S if inner else OUTER_REDUCE_LATENCY_S,
            (Access(source, float(outputs * reduced * item)),),
            (Access(target, float(outputs * item)),),
            hardware,
            bytes_in_flight=in_flight,
            family="reduction",
        )
    ]
