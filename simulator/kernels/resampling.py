"""Kernels whose threads each make one output element and find its source by division: upsampling, padding by neighbours, pooling.

Each thread turns its number into coordinates by divisions and remainders in 64 bits, a chain of them for each dimension, so that
these kernels run at a rate of elements whatever their bytes are: some 410 issue slots for an element of a volume, 200 of a picture
with channels last. (`upsample_nearest2d` of row-major pictures divides once for several outputs, and is held back by memory as well.)
Input that lies otherwise than the kernel walks is made contiguous first.

What is fitted stands in hw_configs/families/data_movement.yaml.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

from simtti.dtypes import ITEM_BYTES
from simtti.hw_configs.hardware import Hardware
from simtti.simulator.kernel import Access, Kernel
from simtti.simulator.kernels.data_movement import REGISTERS, copy
from simtti.simulator.kernels.family import Cells, Column, Family, Target, Work, lowered_by, needed
from simtti.simulator.kernels.layout import as_it_lies, dense, in_flight
from simtti.workloads.trace import Operator, TensorUse

UPSAMPLE_THREADS = 512  # exact: a CTA's, MAX_THREADS in native/cuda/UpSampleNearest2d.cu
UPSAMPLE_ELEMENTS = 4  # exact: outputs of a thread, one after another, same file
CONTIGUOUS = -1  # exact: by definition: the workspace of the input made contiguous


class OneOutput(NamedTuple):
    """A kernel with an output element a thread. slots: the field of UpsampleStyle that says what one costs."""

    kernel: str
    threads: int
    registers: int
    slots: str


# What launches which, and with channels last. exact: threads from the files of native/cuda, registers as the profiler shows
# them (torch 2.11 on our own H100 and H200)
ONE_OUTPUT = {
    "upsample_nearest3d": OneOutput("upsample_nearest3d_out_frame", 512, 32, "volume_slots"),
    "replication_pad": OneOutput("replication_pad_forward_kernel", 256, 22, "replication_slots"),
    "avg_pool2d": OneOutput("avg_pool2d_out_cuda_frame", 1024, 32, "pool_slots"),
}
CHANNELS_LAST = {  # exact: as above
    "upsample_nearest2d": OneOutput("upsample_nearest2d_nhwc_out_frame", 1024, 26, "channels_last_slots"),
    "avg_pool2d": OneOutput("avg_pool2d_out_cuda_frame_nhwc", 1024, 40, "pool_channels_last_slots"),
}
# Other names of those above.
_SAME = {
    "_upsample_nearest_exact2d": "upsample_nearest2d",
    "replication_pad1d": "replication_pad",
    "replication_pad2d": "replication_pad",
    "replication_pad3d": "replication_pad",
}

# Those that take their input as it lies; the others make it contiguous first.
STRIDED = ("pixel_shuffle", "pixel_unshuffle", "_adaptive_avg_pool2d")


@dataclass(frozen=True, slots=True)
class Upsample:
    """numel_out elements, each found among numel_in by its coordinates; from the tensor `source` to `target`. cold: L2
    holds nothing of it. by: the kernel, where it is one with an output a thread."""

    numel_in: int
    numel_out: int
    dtype: str
    source: int = 0
    target: int = 1
    cold: bool = False
    by: OneOutput | None = None


def upsample_nearest(problem: Upsample, hardware: Hardware) -> list[Kernel]:
    """`upsample_nearest2d` and its relatives: a thread makes some output elements, coordinates by division."""
    if problem.by is not None:
        return [_one_output(problem, problem.by, hardware)]
    style, numel = hardware.upsample, problem.numel_out
    l2_bytes = _l2_bytes(problem, UPSAMPLE_THREADS * UPSAMPLE_ELEMENTS, hardware)
    chain_s = (UPSAMPLE_ELEMENTS - 1) * hardware.l2_costs.miss_s if problem.cold else 0.0
    reads, writes = _moved(problem)
    return [
        Kernel(
            name="upsample_nearest_out_frame",
            family="memory",
            grid=-(-numel // (UPSAMPLE_THREADS * UPSAMPLE_ELEMENTS)),
            threads=UPSAMPLE_THREADS,
            registers=REGISTERS,
            issue_slots=UPSAMPLE_THREADS * UPSAMPLE_ELEMENTS * style.element_slots,
            l2_bytes=l2_bytes,
            latency_s=hardware.hbm_latency_s + style.latency_s,
            bytes_in_flight=in_flight(l2_bytes, chain_s, hardware),
            hbm_stall=style.stall,
            reads=reads,
            writes=writes,
        )
    ]


def _one_output(problem: Upsample, by: OneOutput, hardware: Hardware) -> Kernel:
    reads, writes = _moved(problem)
    return Kernel(
        name=by.kernel,
        family="memory",
        grid=-(-problem.numel_out // by.threads),
        threads=by.threads,
        registers=by.registers,
        issue_slots=by.threads * float(getattr(hardware.upsample, by.slots)),
        l2_bytes=_l2_bytes(problem, by.threads, hardware),
        latency_s=hardware.hbm_latency_s + hardware.upsample.latency_s,
        reads=reads,
        writes=writes,
    )


def _l2_bytes(problem: Upsample, cta_elements: int, hardware: Hardware) -> float:
    """Of a CTA."""
    share = min(1.0, problem.numel_in / problem.numel_out)
    elements = min(problem.numel_out, cta_elements)
    return elements * ITEM_BYTES[problem.dtype] * (hardware.l2_costs.write + share)


def _moved(problem: Upsample) -> tuple[tuple[Access, ...], tuple[Access, ...]]:
    item = ITEM_BYTES[problem.dtype]
    reads = (Access(problem.source, float(problem.numel_in * item)),)
    return reads, (Access(problem.target, float(problem.numel_out * item)),)


# ---- operators of a trace


def _is_channels_last(use: TensorUse) -> bool:
    return use.channels_last and not use.contiguous


def _lower_upsample(operator: Operator, target: Target) -> list[Kernel]:
    x, out = operator.inputs[0], operator.outputs[0]
    name = operator.op.removeprefix("aten::")
    name = _SAME.get(name, name)
    last = _is_channels_last(out) and name in CHANNELS_LAST
    by = CHANNELS_LAST[name] if last else ONE_OUTPUT.get(name)
    problem = Upsample(x.numel, out.numel, x.dtype, target=len(operator.inputs), by=by)
    if last or x.contiguous or name in STRIDED:
        return upsample_nearest(problem, target.hardware)
    contiguous = copy(x.shape, as_it_lies(x, 0), dense(CONTIGUOUS, x.shape, x.dtype), target.hardware)
    return contiguous + upsample_nearest(replace(problem, source=CONTIGUOUS), target.hardware)


# ---- rows of a table


def _upsample_kernels(cells: Cells, hardware: Hardware) -> list[Kernel]:
    numel = _pixels(cells)
    return upsample_nearest(
        Upsample(numel, numel * cells.whole("scale") ** 2, cells.dtype, cold=True), hardware
    )


def _pixels(cells: Cells) -> int:
    return math.prod(cells.whole(name) for name in ("n", "c", "h", "w"))


_ONE_THREAD_AN_OUTPUT = """upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact2d
replication_pad1d replication_pad2d replication_pad3d reflection_pad1d reflection_pad2d pixel_shuffle pixel_unshuffle
avg_pool2d _adaptive_avg_pool2d upsample_bilinear2d upsample_bicubic2d"""

UPSAMPLE = Family(
    op="upsample",
    columns=(*needed("n c h w"), Column("scale", 2)),
    kernels=_upsample_kernels,
    work=lambda cells: Work(0.0, _pixels(cells) * (1.0 + cells.whole("scale") ** 2)),
    aten=lowered_by(_lower_upsample, _ONE_THREAD_AN_OUTPUT),
    reads_few=True,
)
