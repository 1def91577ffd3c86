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

What is fitted stands in hw_configs/families/elementwise.yaml.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from simtti.hw_configs.hardware import Hardware
from simtti.hw_configs.parameters import FunctionSlots
from simtti.simulator.kernel import Access, Kernel, ctas_per_sm
from simtti.simulator.kernels.family import Cells, Column, Family, Target, Work, lowered_by, needed
from simtti.simulator.kernels.layout import (
    Operand,
    broadcast,
    dense,
    emptied_hbm_bytes,
    in_flight,
    l2_bytes_per_element,
    merge_dimensions,
    missed_share,
    refetched_bytes,
    repeated_bytes,
    scattered_bytes,
    sectors,
    untranslated,
)
from simtti.workloads.trace import Operator, TensorUse

THREADS = 128  # exact: threads of a CTA, num_threads() in native/cuda/thread_constants.h
THREAD_ELEMENTS = 4  # exact: elements of a thread, thread_work_size(), same file
# exact: those of a thread of vectorized_elementwise_kernel by the bytes of an element, torch 2.7 and later
# (elems_per_thread(), native/cuda/CUDALoops.cuh)
VECTORIZED_ELEMENTS = {1: 16, 2: 8}
WIDE_BYTES = (
    4  # exact: results of 4 bytes and more take 2 elements a thread in elementwise_kernel (CUDALoops.cuh)
)
# Registers a thread, as the profiler shows them. exact: 32 vectorized (16 without inputs), 32 unrolled, 20 strided
VECTORIZED_REGISTERS, FILL_REGISTERS, UNROLLED_REGISTERS, STRIDED_REGISTERS = 32, 16, 32, 20  # exact: above

# Special functions of an element: an exponential, and a reciprocal where something is divided by it.
SPECIAL_FUNCTIONS = {
    "gelu": 2, "gelu_tanh": 2, "silu": 2, "sigmoid": 2, "tanh": 2, "exp": 1, "log": 1, "rsqrt": 1, "sqrt": 1, "reciprocal": 1, "div": 1,
    "elu": 1, "softplus": 2,
}  # fmt: skip


# Functors that take or make truths beside one other type, so that nothing is cast: comparisons, choices by a mask.
TRUTHS = frozenset(
    ["eq", "ne", "gt", "ge", "lt", "le", "where", "masked_fill", "isnan", "isinf", "logical_not"]
)


@dataclass(frozen=True, slots=True)
class Walk:
    """A kernel of TensorIterator over the elements of `shape`, the result's.

    name: what it does, a field of FunctionSlots or any other (add, mul, copy, fill ...) that costs one instruction. inputs: what
    is read (none for a fill); Python scalars and zero-dimensional CPU tensors are parameters, not inputs. typed: the functor
    takes mixed dtypes as they are, so that nothing is cast at run time (the apply step of GroupNorm, fp32 to half). cold: L2
    holds nothing of the inputs, as in a benchmark that empties it before.
    """

    name: str
    shape: tuple[int, ...]
    inputs: tuple[Operand, ...]
    output: Operand
    typed: bool = False
    cold: bool = False
    family: str = "elementwise"


def function_slots(name: str, hardware: Hardware) -> float:
    """Issue slots of a function on an element, beside one instruction of arithmetic."""
    return float(getattr(hardware.functions, name, 0.0)) if name in FunctionSlots._fields else 0.0


def walk(problem: Walk, hardware: Hardware) -> Kernel:
    """The kernel that TensorIterator launches."""
    style, costs = hardware.elementwise, hardware.l2_costs
    inputs, output = problem.inputs, problem.output
    operands = (output, *inputs)
    sizes, steps = merge_dimensions(problem.shape, tuple(operand.strides for operand in operands))
    numel = math.prod(sizes)
    casts = 0 if problem.typed or len({operand.dtype for operand in operands}) == 1 else len(operands)
    is_dense = len(sizes) == 1 and all(step == (1,) for step in steps)
    lone_bytes = scattered_bytes(hardware)
    l2_bytes = sum(
        l2_bytes_per_element(sizes, step, operand.item_bytes, lone_bytes)
        * (costs.write if index == 0 else 1.0)
        for index, (step, operand) in enumerate(zip(steps, operands, strict=True))
    )
    elements = THREAD_ELEMENTS
    hbm_stall = 0.0
    latency_s = hardware.hbm_latency_s if inputs else 0.0
    extra_slots = function_slots(problem.name, hardware)
    if is_dense and not casts:
        kind, registers = "vectorized_elementwise_kernel", VECTORIZED_REGISTERS if inputs else FILL_REGISTERS
        elements = VECTORIZED_ELEMENTS.get(min(operand.item_bytes for operand in operands), elements)
        # Counted by the four elements of a thread before torch 2.7; a vector of eight takes twice as many.
        slots = (style.thread_slots + style.load_slots * len(inputs)) * elements / THREAD_ELEMENTS
        slots += elements * extra_slots
    elif is_dense:
        kind, registers = "unrolled_elementwise_kernel", UNROLLED_REGISTERS
        slots = style.thread_slots + elements * (
            style.unrolled_element_slots + style.cast_slots * casts + extra_slots
        )
        latency_s += style.cast_latency_s
        hbm_stall = style.cast_stall
    else:
        kind, registers = "elementwise_kernel", STRIDED_REGISTERS
        if output.item_bytes >= WIDE_BYTES and not casts:
            elements = 2
        index = style.index_dimension_slots + style.index_operand_slots * len(operands)
        in_place = any(operand.tensor == output.tensor for operand in inputs)
        if in_place:
            extra_slots += style.in_place_slots
        slots = style.thread_slots + elements * (
            style.index_element_slots + index * len(sizes) + style.cast_slots * casts + extra_slots
        )
        latency_s += style.cast_latency_s if casts else style.index_latency_s
        # The loads of an element's operands are waited for one after the other. (Of three, GroupNorm's, two are of a channel.)
        hbm_stall = style.cast_stall if casts else style.index_stall * min(len(inputs), 2)
        if in_place:
            hbm_stall += style.in_place_stall
    chain_s = 0.0
    if casts and inputs and kind == "elementwise_kernel":
        # Of a short tensor the last elements of its threads are beyond its end.
        taken = min(elements, -(-numel // THREADS))
        chain_s = max(0.0, taken * _cast_chain_s(problem, hardware) - latency_s)
    elif inputs and kind != "vectorized_elementwise_kernel":
        # Element after element is loaded and stored; of their trips to memory, latency_s has the first.
        chain_s = (elements - 1) * _missed(problem, hardware) * costs.miss_s
    cta_elements = min(THREADS * elements, numel)
    stream = sum(operand.item_bytes for operand, step in zip(operands, steps, strict=True) if step[0] == 1)
    refetched = sum(
        again(sizes, step, operand.item_bytes, stream, hardware)
        for operand, step in zip(inputs, steps[1:], strict=True)
        for again in (refetched_bytes, repeated_bytes)
    )
    l2_bytes += costs.translation_bytes * sum(
        untranslated(sizes, step, operand.item_bytes, elements, hardware)
        for operand, step in zip(inputs, steps[1:], strict=True)
    )
    written = sectors(problem.shape, output)
    writes = (Access(output.tensor, written.nbytes),)
    reads = tuple(Access(operand.tensor, sectors(problem.shape, operand).nbytes) for operand in inputs)
    if written.partial:
        # HBM takes whole sectors: what lies between the elements is read first.
        reads += (Access(output.tensor, written.nbytes),)
    kernel = Kernel(
        name=f"{kind}<{problem.name}>",
        family=problem.family,
        grid=-(-numel // (THREADS * elements)),
        threads=THREADS,
        registers=registers,
        issue_slots=THREADS * slots,
        sfu_ops=float(SPECIAL_FUNCTIONS.get(problem.name, 0)) * cta_elements,
        l2_bytes=l2_bytes * cta_elements,
        latency_s=latency_s,
        bytes_in_flight=in_flight(l2_bytes * cta_elements, chain_s, hardware),
        hbm_stall=hbm_stall,
        reads=reads,
        writes=writes,
        hbm_reread_bytes=refetched,
        flops=float(numel) if inputs and problem.name not in ("copy", "cast") else 0.0,
    )
    return _from_emptied_l2(kernel, hardware) if problem.cold else kernel


def _from_emptied_l2(kernel: Kernel, hardware: Hardware) -> Kernel:
    """`kernel` where L2 holds nothing of what it reads.

    CTAs with one trip to memory wait for it in step, so that what the last of them write goes to L2 when nothing is read any more:
    HBM stands idle meanwhile, which counts here as what it would have moved.
    """
    moved = emptied_hbm_bytes(kernel.reads, kernel.writes, kernel.hbm_reread_bytes, hardware)
    if kernel.reads and kernel.name.startswith("vectorized"):
        last = min(kernel.grid, ctas_per_sm(kernel, hardware) * hardware.sm_count) / kernel.grid
        stored_s = last * hardware.l2_costs.write * kernel.written_bytes / hardware.l2_attained_bytes_per_s
        moved += stored_s * hardware.hbm_attained_bytes_per_s
    return replace(kernel, repeated_hbm_bytes=moved)


def _cast_chain_s(problem: Walk, hardware: Hardware) -> float:
    """What an element takes a thread of elementwise_kernel with run-time dtypes: operand after operand is loaded and, behind a
    switch, converted, which waits for it, so that their trips to memory add up.

    A trip that L2 does not end (`_missed`) costs `l2_costs.miss_s` more.
    """
    inputs, numel = problem.inputs, math.prod(problem.shape)
    touched = [sectors(problem.shape, operand).nbytes for operand in (*inputs, problem.output)]
    first = sum(
        min(1.0, nbytes / (numel * operand.item_bytes))
        for nbytes, operand in zip(touched, inputs, strict=False)
    )
    trips_s = (
        len(inputs) * hardware.l2_latency_s + _missed(problem, hardware) * first * hardware.l2_costs.miss_s
    )
    return len(touched) * hardware.elementwise.cast_chain_s + trips_s


def _missed(problem: Walk, hardware: Hardware) -> float:
    """Share of trips that L2 does not end: of what a kernel touches, as much is found as L2 holds of all that."""
    if problem.cold:
        return 1.0
    operands = (*problem.inputs, problem.output)
    return missed_share(sum(sectors(problem.shape, operand).nbytes for operand in operands), hardware)


# ---- operators of a trace


def lower(operator: Operator, target: Target) -> list[Kernel]:
    """One kernel that walks over the result."""
    out = operator.outputs[0]
    inputs = tuple(
        broadcast(use, slot, out.shape)
        for slot, use in enumerate(operator.inputs)
        if use.numel and not _is_python_number(use, out)
    )
    name = operator.op.removeprefix("aten::").rstrip("_")
    result = broadcast(out, len(operator.inputs), out.shape)
    numbers = {operand.dtype for operand in (*inputs, result)} - {"bool"}
    typed = name in TRUTHS and len(numbers) <= 1
    return [walk(Walk(name, out.shape, inputs, result, typed), target.hardware)]


def _is_python_number(use: TensorUse, out: TensorUse) -> bool:
    """An imported trace lists a Python number among the tensors, without dimensions and in double precision; it is a
    parameter of the launch. (A recorded trace leaves it out.)"""
    return not use.shape and use.dtype in ("fp64", "int64") and use.dtype != out.dtype


def lower_triton(operator: Operator, target: Target) -> list[Kernel]:
    """A Triton kernel of a profile: one walk over its largest operand that reads each operand and writes the last, whole."""
    uses = (*operator.inputs, *operator.outputs)
    numel = max((use.numel for use in uses), default=0)
    if not numel:
        return []
    operands = [
        Operand(slot, (1,) if use.numel == numel else (0,), use.dtype) for slot, use in enumerate(uses)
    ]
    kernel = walk(Walk("triton", (numel,), tuple(operands[:-1]), operands[-1], typed=True), target.hardware)
    reads = tuple(
        Access(slot, float(min(use.nbytes, use.storage_bytes))) for slot, use in enumerate(uses[:-1])
    )
    return [replace(kernel, reads=reads, writes=(Access(len(uses) - 1, float(uses[-1].nbytes)),))]


TRITON = ("triton::pointwise", "triton::reduction")


def lower_unknown(operator: Operator, target: Target) -> list[Kernel]:
    """An operator without a model of its own: a stream over all it reads and writes; nothing where that is not known."""
    uses = [*operator.inputs, *operator.outputs]
    return [
        walk(Walk("unknown", use.shape, (), dense(slot, use.shape, use.dtype)), target.hardware)
        for slot, use in enumerate(uses)
        if use.numel
    ]


# ---- rows of a table

# Functions of one instruction an element.
PLAIN_FUNCTIONS = ("add", "mul", "mul_scalar", "fill")


def _kernels(cells: Cells, hardware: Hardware) -> list[Kernel]:
    shape, count = (cells.whole("numel"),), cells.whole("inputs")
    inputs = tuple(dense(slot, shape, cells.dtype) for slot in range(count))
    function = cells.text("function") or "add"
    result = dense(count, shape, cells.dtype)
    return [walk(Walk(function, shape, inputs, result, cold=True), hardware)]


def _work(cells: Cells) -> Work:
    return Work(0.0, float(cells.whole("numel")) * (cells.whole("inputs") + 1))


# Pointwise operators of aten that the models launch.
POINTWISE = (
    "abs add addcmul addcdiv clamp clamp_min clamp_max cos div eq erf exp floor ge gelu gt le lerp log logical_and logical_not "
    "logical_or lt masked_fill maximum minimum mul ne neg pow reciprocal relu leaky_relu rsqrt rsub rand randn randint rand_like "
    "randn_like squeeze normal uniform sigmoid sign silu sin softplus sqrt sub tanh where hardswish mish elu bitwise_not "
    "bitwise_and bitwise_or round ceil trunc fmod remainder isnan isinf nan_to_num glu"
)


def _cast_kernels(cells: Cells, hardware: Hardware) -> list[Kernel]:
    shape = (cells.whole("numel"),)
    source, result = dense(0, shape, cells.dtype), dense(1, shape, "fp32")
    return [walk(Walk("cast", shape, (source,), result, cold=True), hardware)]


def _broadcast_kernels(cells: Cells, hardware: Hardware) -> list[Kernel]:
    """add_channel: (n, c, rest) and (n, c, 1); add_row: (rows, cols) and (cols)."""
    numel, dtype = cells.whole("numel"), cells.dtype
    if cells.text("function") == "add_row":
        shape: tuple[int, ...] = (-(-numel // cells.whole("cols")), cells.whole("cols"))
        strides: tuple[int, ...] = (0, 1)
    else:
        n, c = cells.whole("n"), cells.whole("c")
        shape, strides = (n, c, -(-numel // (n * c))), (c, 1, 0)
    inputs = (dense(0, shape, dtype), Operand(1, strides, dtype))
    return [walk(Walk("add", shape, inputs, dense(2, shape, dtype), cold=True), hardware)]


def _geglu_kernels(cells: Cells, hardware: Hardware) -> list[Kernel]:
    """GELU of the second half of each row of (rows, 2 cols), then its product with the first half."""
    rows, cols, dtype = cells.whole("rows"), cells.whole("cols"), cells.dtype
    shape = (rows, cols)
    half, result = Operand(0, (2 * cols, 1), dtype), dense(1, shape, dtype)
    product = Walk("mul", shape, (half, result), dense(2, shape, dtype), cold=True)
    return [walk(Walk("gelu", shape, (half,), result, cold=True), hardware), walk(product, hardware)]


ELEMENTWISE = Family(
    op="elementwise",
    columns=(
        *needed("numel"),
        Column("inputs", 1, least=0),
        Column("function", "add", str, words=(*PLAIN_FUNCTIONS, *FunctionSlots._fields)),
    ),
    note="inputs: tensors read, 1 by default; function: add mul silu gelu ...",
    kernels=_kernels,
    work=_work,
    aten=lowered_by(lower, POINTWISE) | dict.fromkeys(TRITON, lower_triton),
    reads_few=True,
)
CAST = Family(
    op="cast",
    columns=needed("numel"),
    note="half precision to fp32",
    kernels=_cast_kernels,
    work=lambda cells: Work(0.0, 2.0 * cells.whole("numel")),
)
BROADCAST = Family(
    op="broadcast",
    columns=(
        *needed("numel"),
        Column("function", "add_channel", str, words=("add_channel", "add_row")),
        *(Column(name, 1) for name in ("n", "c", "cols")),
    ),
    note="add_channel: a number to each of n x c channels; add_row: one of cols numbers to each column",
    kernels=_broadcast_kernels,
    work=lambda cells: Work(0.0, 2.0 * cells.whole("numel")),
)
GEGLU = Family(
    op="geglu",
    columns=needed("rows cols"),
    note="the halves of a row of 2 cols: the first times GELU of the second",
    kernels=_geglu_kernels,
    work=lambda cells: Work(0.0, (2.0 + 1.0) * cells.whole("rows") * cells.whole("cols")),
)
