"""Reductions as PyTorch launches them (native/cuda/Reduce.cuh): mean, sum, norm, amax and their like.

A warp takes a row where the reduced dimension is the fastest, with shuffles at its end; an output vector is a
lane's where it is not. Warps, then CTAs share an output where that leaves a thread many values.

What is fitted stands in hw_configs/families/normalization.yaml.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from simtti.dtypes import ITEM_BYTES
from simtti.hw_configs.hardware import Hardware
from simtti.simulator.kernel import Access, Kernel
from simtti.simulator.kernels.family import Cells, Column, Family, Target, Work, lowered_by, needed
from simtti.simulator.kernels.layout import missed_share, streamed_l2_bytes
from simtti.simulator.kernels.machine import LANES
from simtti.workloads.trace import Operator

THREADS = 512  # exact: MAX_NUM_THREADS in native/cuda/Reduce.cuh
VECTOR = 4  # exact: elements of a vector, and loads a thread keeps in flight: vt0, same file
SCALAR_ELEMENTS = 128  # exact: rows up to this are read element by element: setReduceConfig, same file
# exact: values of a thread a warp from which the warps of a CTA share an output: min_values_per_thread, same file
SPLIT_VALUES = 16
MOST_VALUES = 256  # exact: and from which they always do, or CTAs do: max_values_per_thread, same file
REGISTERS, VECTOR_REGISTERS = (
    32,
    52,
)  # exact: with one accumulator and a vector of them, in traces of H100s


@dataclass(frozen=True, slots=True)
class Reduction:
    """`reduced` elements to each of `outputs`, from the tensor `source` to `target`. inner: the reduced dimension is the
    fastest. name: what it does."""

    outputs: int
    reduced: int
    dtype: str
    inner: bool = True
    name: str = "mean"
    source: int = 0
    target: int = 1


class Launch(NamedTuple):
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


def launch_of(problem: Reduction, hardware: Hardware) -> Launch:
    """Lanes go along the reduced dimension if it is the fastest, else along outputs, in vectors. Warps take other outputs
    while that leaves a thread few values, else a part of the same; so do CTAs where outputs are few."""
    outputs, reduced, inner = problem.outputs, problem.reduced, problem.inner
    vector = VECTOR
    if inner:
        vector = vector if reduced > SCALAR_ELEMENTS else 1
        first, second, most = reduced // vector, outputs, THREADS
    else:
        while outputs % vector:
            vector //= 2
        first, second, most = outputs // vector, reduced, THREADS // vector
    first, second = _power_of_2(min(first, most)), _power_of_2(min(second, most))
    height = min(second, most // min(first, LANES))
    width = min(first, most // height)
    step, cta_outputs = (width, 1) if inner else (1, width * vector)
    values = -(-reduced // step)
    shared = values >= height * SPLIT_VALUES or values >= MOST_VALUES
    if shared:
        values = -(-values // height)
    else:
        cta_outputs *= height
    parts = 1
    grid = -(-outputs // cta_outputs)
    target = hardware.sm_count * (hardware.max_threads_per_sm // (width * height))
    if shared and values >= MOST_VALUES and grid <= target:
        parts = max(min(target // grid, -(-values // SPLIT_VALUES)), -(-values // MOST_VALUES))
        values = -(-values // parts)
    # A trip fetches VECTOR values, as one vector or as so many loads.
    return Launch(width, height, cta_outputs, parts, -(-values // VECTOR), values)


def _power_of_2(number: int) -> int:
    """The largest power of 2 that is not above `number`."""
    return 1 << (max(1, number).bit_length() - 1)


def reduce(problem: Reduction, hardware: Hardware) -> list[Kernel]:
    """mean, sum, norm, amax over one dimension.

    An inner reduction of rows gives a warp to a row, 16 to a CTA. Short rows (a head's 64) are bound by the instructions
    around their one load. CTAs that share an output finish it in the same kernel, the last one to arrive.
    """
    style, item = hardware.reduction, ITEM_BYTES[problem.dtype]
    launch = launch_of(problem, hardware)
    grid = -(-problem.outputs // launch.outputs) * launch.parts
    threads = launch.width * launch.height
    nbytes = float(problem.outputs * problem.reduced * item)
    # What was just written is found in L2, as far as it fits.
    missed = missed_share(nbytes, hardware)
    trip_s = hardware.l2_latency_s + missed * (hardware.hbm_latency_s - hardware.l2_latency_s)
    if problem.inner:
        latency_s = style.latency_s + launch.trips * trip_s
        vector = 1
    else:
        latency_s = style.outer_latency_s + launch.trips * (trip_s + style.outer_trip_s)
        vector = max(1, launch.outputs // threads)
    if launch.parts > 1:
        latency_s += hardware.l2_latency_s * 2  # the count of CTAs that have finished, then their parts
    slots = style.thread_slots + launch.values * vector * style.element_slots
    reads = (Access(problem.source, nbytes),)
    writes = (Access(problem.target, float(problem.outputs * item)),)
    return [
        Kernel(
            name=f"reduce_kernel<{problem.name}>",
            family="reduction",
            grid=grid,
            threads=threads,
            registers=VECTOR_REGISTERS if vector == VECTOR else REGISTERS,
            issue_slots=threads * slots,
            l2_bytes=streamed_l2_bytes(reads, writes, hardware) / grid,
            latency_s=latency_s,
            reads=reads,
            writes=writes,
        )
    ]


# ---- operators of a trace


def _lower(operator: Operator, target: Target) -> list[Kernel]:
    x, y = operator.inputs[0], operator.outputs[0]
    dims = operator.attributes.get("dim")
    dims = [dims] if isinstance(dims, int) else dims
    inner = not dims or (len(x.shape) - 1) in [dim % len(x.shape) for dim in dims]
    outputs = max(y.numel, 1)
    name, result = operator.op.removeprefix("aten::"), len(operator.inputs)
    problem = Reduction(outputs, x.numel // outputs, x.dtype, inner, name, target=result)
    return reduce(problem, target.hardware)


# ---- rows of a table


def _kernels(cells: Cells, hardware: Hardware) -> list[Kernel]:
    rows, columns = cells.whole("rows"), cells.whole("cols")
    inner = cells.text("over") == "cols"
    outputs, reduced = (rows, columns) if inner else (columns, rows)
    return reduce(Reduction(outputs, reduced, cells.dtype, inner), hardware)


def _work(cells: Cells) -> Work:
    rows, columns = cells.whole("rows"), cells.whole("cols")
    return Work(0.0, float(rows * columns + (rows if cells.text("over") == "cols" else columns)))


_REDUCTIONS = "mean sum amax amin max min argmax argmin any all var std linalg_vector_norm norm prod cumsum"
REDUCTION = Family(
    op="reduction",
    columns=(*needed("rows cols"), Column("over", "cols", str, words=("cols", "rows"))),
    note="mean of (rows, cols) over cols, the fastest dimension, or over rows",
    kernels=_kernels,
    work=_work,
    aten=lowered_by(_lower, _REDUCTIONS),
    reads_few=True,
)
