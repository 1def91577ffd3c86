"""Elementwise kernels: what PyTorch's TensorIterator launches for add, mul, SiLU, casts, copies and the like.

TensorIterator (aten/src/ATen/TensorIterator.cpp, native/cuda/Loops.cuh, CUDALoops.cuh) sorts the dimensions
by stride, merges those that lie densely in every operand, and launches one of three kernels:

- `vectorized_elementwise_kernel`: all operands dense in the same order and of the functor's type. 128
  threads, 4 elements each, vector loads.
- `unrolled_elementwise_kernel`: dense, but a dtype differs: every element goes through a run-time switch.
- `elementwise_kernel`: broadcast or strided. 128 threads, 4 elements each (2 when the result has 4 bytes or
  more), and for every element and operand the offset is worked out by a division per dimension.

None of these is limited by HBM alone. The last two spend 80-160 instructions on an element, so they run at
300-400 Gelements/s on an H100, whether 2 or 4 bytes wide, in L2 or not. A vectorised kernel spends some 150
instructions on a thread (start, parameters, 4 elements, exit), which caps 16-bit types near 3 TB/s even in
L2. Instructions are counted as issue slots: 4 warp schedulers of 32 lanes, one instruction each a cycle,
the same on V100, A100 and H100 (CUDA C++ Programming Guide, compute capabilities). They load the `fp32`
pipe.

Constants without another source are fitted to operators_h100.csv (TraceLens, torch 2.x bf16 on H100 SXM,
2026-11-23).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from simtti.hw_configs.hardware import Hardware
from simtti.simulator.kernel import Access, Kernel
from simtti.workloads.trace import ITEM_BYTES as TRACE_ITEM_BYTES

ITEM_BYTES = {**TRACE_ITEM_BYTES, "fp8": 1}
HALF_TYPES = ("fp16", "bf16")

THREADS = 128  # threads of a CTA: num_threads() in native/cuda/thread_constants.h
THREAD_ELEMENTS = 4  # elements of a thread: thread_work_size(), same file
ISSUE_LANES = 128  # instructions an SM issues in a cycle: 4 schedulers of 32 lanes
LANES = 32  # threads of a warp
SECTOR_BYTES = 32  # what L2 moves at least (CUDA C++ Best Practices Guide, coalesced access)
LINE_BYTES = 128  # what L2 makes room for, of four sectors (same guide)
# L2 bandwidth that a lone 32-byte sector costs: a slice serves up to 64 B a request; fitted
SCATTERED_BYTES = 56
L2_WRITE_COST = 2.0  # L2 bandwidth of a written byte in read bytes; fitted (fp32 and memcpy in L2: 4.8 TB/s)

THREAD_SLOTS = 85  # issue slots of a thread before and after its elements: start, parameters, exit; fitted
LOAD_SLOTS = 58  # issue slots of a thread to load and unpack one more vector; fitted
# Issue slots of an element in elementwise_kernel: loop, bounds, load, convert, store; fitted
INDEX_ELEMENT_SLOTS = 40
INDEX_DIMENSION_SLOTS = 3  # issue slots to divide an element's index by a dimension; fitted
INDEX_OPERAND_SLOTS = 1.8  # issue slots to add a dimension's share to an operand's offset; fitted
# Issue slots of one operand of an element with a run-time dtype (fetch_and_cast, c10/core/DynamicCast.h)
CAST_SLOTS = 13.4
# Issue slots of an element in unrolled_elementwise_kernel, beside its casts; fitted
UNROLLED_ELEMENT_SLOTS = 33.6

# `Kernel.hbm_stall` of kernels that work out one element's place or type after another [0, 1]; fitted
INDEX_STALL = 0.12
CAST_STALL = 0.28

# A CTA's chain beside its loads with offset tables and one element after another; fitted. A vectorised one has none.
INDEX_LATENCY_S = 0.87e-6
# The same with run-time dtype switches, code that misses the instruction cache; fitted
CAST_LATENCY_S = 1.25e-6

# Extra issue slots and special-function operations of an element, beside one instruction of arithmetic.
# The slots of gelu, silu, sigmoid and div are fitted, the others estimates of the instruction sequences.
COST = {
    "gelu": (15.0, 2.0),
    "silu": (13.0, 2.0),
    "sigmoid": (13.0, 2.0),
    "tanh": (8.0, 2.0),
    "exp": (4.0, 1.0),
    "log": (6.0, 1.0),
    "sin": (20.0, 0.0),
    "cos": (20.0, 0.0),
    "rsqrt": (2.0, 1.0),
    "sqrt": (6.0, 1.0),
    "reciprocal": (6.0, 1.0),
    "div": (3.0, 1.0),
    "pow": (2.0, 0.0),
    "elu": (6.0, 1.0),
    "softplus": (14.0, 2.0),
}


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor as a kernel walks it: its storage's identity, dtype and stride in each dimension of the walk.

    A stride of 0 broadcasts. `strides` are in elements and as long as the shape of the walk.
    """

    tensor: int
    strides: tuple[int, ...]
    dtype: str

    @property
    def item_bytes(self) -> int:
        return ITEM_BYTES[self.dtype]


def dense_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Row-major strides of a tensor without gaps."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


def dense(tensor: int, shape: Sequence[int], dtype: str) -> Operand:
    """A tensor that lies in row-major order."""
    return Operand(tensor, dense_strides(shape), dtype)


def broadcast(
    tensor: int, shape: Sequence[int], strides: Sequence[int], dtype: str, walk: Sequence[int]
) -> Operand:
    """A tensor of `shape` seen under the (longer or larger) shape of the walk, by NumPy's rules."""
    missing = len(walk) - len(shape)
    seen = tuple(0 if size == 1 else stride for size, stride in zip(shape, strides, strict=True))
    return Operand(tensor, (0,) * missing + seen, dtype)


def issue_flops(slots: float, hardware: Hardware) -> float:
    """Issue slots as the FP32 FLOPs that occupy the SM equally long."""
    return slots * hardware.fp32_flops_per_cycle_sm / ISSUE_LANES


def fma_flops(macs: float, efficiency: float, overhead: float, hardware: Hardware) -> float:
    """FP32 FLOPs that occupy the SM as long as the products of a matrix kernel.

    efficiency: share of the FP32 pipe's peak. overhead: issue slots beside each fused multiply-add.
    """
    return max(2.0 * macs / efficiency, issue_flops(macs * (1 + overhead), hardware))


def unique_bytes(shape: Sequence[int], operand: Operand) -> float:
    """Bytes of the distinct elements that a walk over `shape` touches."""
    elements = 1
    for size, stride in zip(shape, operand.strides, strict=True):
        if stride:
            elements *= size
    return float(elements * operand.item_bytes)


@functools.lru_cache(4096)
def merge_dimensions(
    shape: tuple[int, ...], strides: tuple[tuple[int, ...], ...]
) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """The walk as TensorIterator runs it: fastest dimension first, merged where all operands are dense.

    The first operand (the result) gives the order; broadcast dimensions of it, the next one.
    """
    order = sorted(
        (index for index, size in enumerate(shape) if size != 1),
        key=lambda index: tuple(operand[index] for operand in strides),
    )
    sizes: list[int] = []
    steps: list[list[int]] = []
    for index in order:
        step = [operand[index] for operand in strides]
        if sizes and all(now == sizes[-1] * before for now, before in zip(step, steps[-1], strict=True)):
            sizes[-1] *= shape[index]
        else:
            sizes.append(shape[index])
            steps.append(step)
    if not sizes:
        return (1,), tuple((1,) for _ in strides)
    return tuple(sizes), tuple(tuple(step[operand] for step in steps) for operand in range(len(strides)))


@functools.lru_cache(4096)
def l2_bytes_per_element(sizes: tuple[int, ...], steps: tuple[int, ...], item_bytes: int) -> float:
    """Bytes of L2 bandwidth that an element costs: the sectors of a warp's 32 lanes, over the lanes.

    sizes, steps: the merged walk, fastest dimension first. Lanes side by side share a sector, a broadcast
    operand is one sector for all, and a transposed one is a sector for each lane.
    """
    if steps[0] == 1 and sizes[0] % LANES == 0:
        return float(item_bytes)
    offsets = [0]
    for size, step in zip(sizes, steps, strict=True):
        offsets = [index * step + offset for index in range(min(size, LANES)) for offset in offsets][:LANES]
        if len(offsets) == LANES:
            break
    sectors = len({offset * item_bytes // SECTOR_BYTES for offset in offsets})
    requests = len({offset * item_bytes // (2 * SECTOR_BYTES) for offset in offsets})
    return max(sectors * SECTOR_BYTES, requests * SCATTERED_BYTES) / len(offsets)


def refetched_bytes(
    sizes: tuple[int, ...], steps: tuple[int, ...], item_bytes: int, stream_bytes: float, l2_bytes: float
) -> float:
    """Bytes that come from HBM again because L2 has lost a sector before the walk needs its other elements.

    A walk along another dimension than the one that lies dense uses an element of each sector and comes back to it after
    all of the dimensions in between. Meanwhile L2 keeps whole lines, whatever part of them is asked for.

    sizes, steps: the merged walk, fastest dimension first. stream_bytes: what an element moves of other operands. l2_bytes:
    what L2 holds; least recently used out first, so that a round trip longer than that finds nothing.
    """
    if 1 not in steps or steps[0] in (0, 1):
        return 0.0
    dense_dimension = steps.index(1)
    visits = math.prod(sizes[:dense_dimension])
    lines = math.prod(size for size, step in zip(sizes[:dense_dimension], steps, strict=False) if step)
    if lines * min(LINE_BYTES, steps[0] * item_bytes) + visits * stream_bytes <= l2_bytes:
        return 0.0
    return math.prod(sizes) * float(SECTOR_BYTES - item_bytes)


def elementwise(
    op: str, shape: Sequence[int], inputs: Sequence[Operand], output: Operand, hardware: Hardware
) -> list[Kernel]:
    """One elementwise operator: the result's every element from the inputs' elements at the same place.

    op: a name in `COST`, or any other (add, mul, copy, fill ...) that costs one instruction. shape: the
    result's shape, which is the walk. inputs: what is read (none for a fill). Python scalars and
    zero-dimensional CPU tensors are parameters, not inputs.
    """
    slots, sfu = COST.get(op, (0.0, 0.0))
    return [walk(op, tuple(shape), tuple(inputs), output, hardware, slots, sfu)]


def walk(
    name: str,
    shape: tuple[int, ...],
    inputs: tuple[Operand, ...],
    output: Operand,
    hardware: Hardware,
    extra_slots: float = 0.0,
    sfu_ops: float = 0.0,
    typed: bool = False,
    family: str = "elementwise",
) -> Kernel:
    """The kernel of TensorIterator for a walk over `shape`.

    extra_slots, sfu_ops: per element, of the functor. typed: the functor takes mixed dtypes as they are, so
    that nothing is cast at run time (the apply step of GroupNorm, fp32 to half).
    """
    operands = (output, *inputs)
    sizes, steps = merge_dimensions(shape, tuple(operand.strides for operand in operands))
    numel = math.prod(sizes)
    casts = 0 if typed or len({operand.dtype for operand in operands}) == 1 else len(operands)
    is_dense = len(sizes) == 1 and all(step == (1,) for step in steps)
    l2_bytes = sum(
        l2_bytes_per_element(sizes, step, operand.item_bytes) * (L2_WRITE_COST if index == 0 else 1.0)
        for index, (step, operand) in enumerate(zip(steps, operands, strict=True))
    )
    elements = THREAD_ELEMENTS
    hbm_stall = 0.0
    latency_s = hardware.hbm_latency_s if inputs else 0.0
    if is_dense and not casts:
        kind, registers = "vectorized_elementwise_kernel", 24
        slots = THREAD_SLOTS + LOAD_SLOTS * len(inputs) + elements * extra_slots
    elif is_dense:
        kind, registers = "unrolled_elementwise_kernel", 32
        slots = THREAD_SLOTS + elements * (UNROLLED_ELEMENT_SLOTS + CAST_SLOTS * casts + extra_slots)
        latency_s += CAST_LATENCY_S
        hbm_stall = CAST_STALL
    else:
        kind, registers = "elementwise_kernel", 20
        if output.item_bytes >= 4 and not casts:
            elements = 2
        index = INDEX_DIMENSION_SLOTS + INDEX_OPERAND_SLOTS * len(operands)
        slots = THREAD_SLOTS + elements * (
            INDEX_ELEMENT_SLOTS + index * len(sizes) + CAST_SLOTS * casts + extra_slots
        )
        latency_s += CAST_LATENCY_S if casts else INDEX_LATENCY_S
        hbm_stall = CAST_STALL if casts else INDEX_STALL
    cta_elements = min(THREADS * elements, numel)
    stream = sum(operand.item_bytes for operand, step in zip(operands, steps, strict=True) if step[0] == 1)
    refetched = sum(
        refetched_bytes(sizes, step, operand.item_bytes, stream, hardware.l2_usable_bytes)
        for operand, step in zip(inputs, steps[1:], strict=True)
    )
    return Kernel(
        name=f"{kind}<{name}>",
        family=family,
        grid=-(-numel // (THREADS * elements)),
        threads=THREADS,
        registers=registers,
        fp32_flops=issue_flops(THREADS * slots, hardware),
        sfu_ops=sfu_ops * cta_elements,
        l2_bytes=l2_bytes * cta_elements,
        latency_s=latency_s,
        hbm_stall=hbm_stall,
        reads=tuple(Access(operand.tensor, unique_bytes(shape, operand)) for operand in inputs),
        writes=(Access(output.tensor, unique_bytes(shape, output)),),
        hbm_reread_bytes=refetched,
        flops=float(numel) if inputs and name not in ("copy", "cast") else 0.0,
    )
