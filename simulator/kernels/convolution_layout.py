"""What stands before and behind cuDNN's products: kernels that change NCHW to NHWC and back, and that pad channels.

`nchwToNhwcKernel` and `nhwcToNchwKernel` move tiles of 32 x 32 elements through shared memory, so 16-bit types use half a
128-byte line at a time, and spend about 160 instructions on a thread (operators_h100.csv). Padded copies are cleared by a
Memset first; weights whose output channels are padded go through cuDNN's generic transformation. On Hopper's newest cuDNN
`nhwcToNchwKernel` takes 2 ns a CTA on an H100 and on an H200 alike: it is their loads in flight that hold it back, not HBM.

What is fitted stands in hw_configs/families/convolution.yaml (conv_layout).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from simtti.dtypes import ITEM_BYTES
from simtti.hw_configs.hardware import Hardware
from simtti.simulator.closed_form import cold_hbm_bytes
from simtti.simulator.kernel import Access, Kernel
from simtti.simulator.kernels.data_movement import memset
from simtti.simulator.kernels.machine import LINE_BYTES

CHANNEL_ALIGNMENT = 8  # exact: channels of a 16-byte vector in fp16; cuDNN pads to it
PART_ALIGNMENT = 4  # exact: of 8 bytes, with which cuDNN's kernels without shared memory take NHWC as it lies (`.._aligna4`, H200)
LAYOUT_TILE = 32  # exact: rows and columns of a layout kernel's tile, by its shared memory (32 x 33 elements)
LAYOUT_THREADS = 256  # exact: threads of a CTA in the H100 traces, as the registers
TO_NHWC_REGISTERS, TO_NCHW_REGISTERS = 32, 36  # exact: see above


@dataclass(frozen=True, slots=True)
class Conversion:
    """A tensor of n x c x positions elements from one layout to the other.

    source, target: what is read and written. is_padded: the target has more channels than are written.
    """

    n: int
    c: int
    positions: int
    dtype: str
    source: Access
    target: Access
    is_padded: bool = False


class Cost(NamedTuple):
    """What a layout kernel spends: issue slots of a thread, attained share of bandwidth with half lines, Kernel.hbm_stall, and the
    elements that a CTA keeps in flight, 0 where they hold nothing back."""

    thread_slots: float
    half_line_efficiency: float
    stall: float
    in_flight: float = 0.0


def aligned(channels: int) -> int:
    """Channels as cuDNN pads them."""
    return -(-channels // CHANNEL_ALIGNMENT) * CHANNEL_ALIGNMENT


def to_nhwc(problem: Conversion, hardware: Hardware) -> list[Kernel]:
    """Activations or weights to NHWC; a padded result is cleared first."""
    clear = [memset(problem.target.tensor, problem.target.nbytes, hardware)] if problem.is_padded else []
    style = hardware.conv_layout
    cost = Cost(style.to_nhwc_slots, style.half_line_efficiency, style.to_nhwc_stall)
    return [*clear, _transpose("nchwToNhwcKernel", problem, cost, TO_NHWC_REGISTERS, hardware)]


def to_nchw(problem: Conversion, hardware: Hardware) -> Kernel:
    """A result to NCHW."""
    style = hardware.conv_layout
    cost = Cost(style.to_nchw_slots, style.to_nchw_efficiency, style.to_nchw_stall, style.to_nchw_in_flight)
    return _transpose("nhwcToNchwKernel", problem, cost, TO_NCHW_REGISTERS, hardware)


def _transpose(name: str, problem: Conversion, cost: Cost, registers: int, hardware: Hardware) -> Kernel:
    """A CTA transposes 32 channels by 32 positions in shared memory."""
    item, style = ITEM_BYTES[problem.dtype], hardware.conv_layout
    grid = problem.n * -(-problem.c // LAYOUT_TILE) * -(-problem.positions // LAYOUT_TILE)
    return Kernel(
        name=name,
        family="convolution_layout",
        grid=grid,
        threads=LAYOUT_THREADS,
        registers=registers,
        shared_memory_bytes=LAYOUT_TILE * (LAYOUT_TILE + 1) * item,
        issue_slots=LAYOUT_THREADS * cost.thread_slots,
        l2_bytes=(problem.source.nbytes + problem.target.nbytes) / grid,
        latency_s=hardware.hbm_latency_s + style.latency_s,
        memory_efficiency=cost.half_line_efficiency if LAYOUT_TILE * item < LINE_BYTES else 1.0,
        hbm_stall=cost.stall,
        bytes_in_flight=cost.in_flight * item or math.inf,
        chained=cost.in_flight > 0,
        reads=(problem.source,),
        writes=(problem.target,),
    )


def pad_weights(source: Access, target: Access, hardware: Hardware) -> list[Kernel]:
    """Weights whose output channels are padded: Memset and cuDNN's generic transformation."""
    style = hardware.conv_layout
    grid = max(1, math.ceil(source.nbytes / style.pad_cta_bytes))
    transform = Kernel(
        name="tensorTransformGeneric",
        family="convolution_layout",
        grid=grid,
        threads=int(style.pad_threads),
        registers=int(style.pad_registers),
        issue_slots=style.pad_threads * style.pad_slots,
        l2_bytes=2 * source.nbytes / grid,
        latency_s=style.pad_latency_s,
        reads=(source,),
        writes=(target,),
    )
    return [memset(target.tensor, target.nbytes, hardware), transform]


def in_a_row(kernels: Sequence[Kernel], hardware: Hardware) -> list[Kernel]:
    """The kernels with what each moves to and from HBM when the operator runs from a cold L2: not what those before it have
    written or read and L2 still holds: all of it while no more than its share of L2 has been used since, nothing from twice that
    on, as the first to go is what would be needed next."""
    capacity = hardware.conv_layout.l2_share * hardware.l2_capacity_bytes
    since: dict[int, float] = {}  # tensor -> bytes of others used since it was
    found = []
    for kernel in kernels:
        moved = cold_hbm_bytes(kernel) if kernel.repeated_hbm_bytes is None else kernel.repeated_hbm_bytes
        used = {access.tensor: access.nbytes for access in (*kernel.reads, *kernel.writes)}
        for access in (*kernel.reads, *kernel.writes):
            if access.tensor in since:
                passed = since[access.tensor] + sum(used.values())
                moved -= access.nbytes * min(1.0, max(0.0, 2.0 - passed / capacity))
        for tensor, nbytes in used.items():
            since = {each: others + nbytes for each, others in since.items() if each != tensor}
            since[tensor] = 0.0
        found.append(replace(kernel, repeated_hbm_bytes=max(moved, 0.0)))
    return found
