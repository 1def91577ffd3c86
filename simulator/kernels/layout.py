"""How tensors lie and how kernels walk over them: operands, merged dimensions, sectors, what L2 loses on the way."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from simtti.dtypes import ITEM_BYTES
from simtti.hw_configs.hardware import Hardware
from simtti.simulator.kernel import Access
from simtti.simulator.kernels.machine import LANES, LINE_BYTES, SECTOR_BYTES
from simtti.simulator.kernels.reuse import asked
from simtti.workloads.trace import TensorUse


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


def as_it_lies(use: TensorUse, slot: int) -> Operand:
    """A tensor of a trace in its own shape; slot: its place among the operator's tensors."""
    return Operand(slot, use.strides, use.dtype)


def broadcast(use: TensorUse, slot: int, walk: Sequence[int]) -> Operand:
    """A tensor of a trace seen under the (longer or larger) shape of the walk, by NumPy's rules."""
    missing = len(walk) - len(use.shape)
    seen = tuple(0 if size == 1 else stride for size, stride in zip(use.shape, use.strides, strict=True))
    return Operand(slot, (0,) * missing + seen, use.dtype)


def unique_bytes(shape: Sequence[int], operand: Operand) -> float:
    """Bytes of the distinct elements that a walk over `shape` touches."""
    elements = 1
    for size, stride in zip(shape, operand.strides, strict=True):
        if stride:
            elements *= size
    return float(elements * operand.item_bytes)


def lies_dense(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether a tensor is contiguous as torch asks it: strides of dimensions of size 1 say nothing."""
    dense_ones = dense_strides(shape)
    return all(size == 1 or strides[index] == dense_ones[index] for index, size in enumerate(shape))


class Sectors(NamedTuple):
    """What a walk touches of a tensor in memory's units. nbytes: its sectors, gaps between elements among them. partial: no
    sector is touched whole, as of every other element, so that what is written waits for the rest of its sector to be read."""

    nbytes: float
    partial: bool


def sectors(shape: Sequence[int], operand: Operand) -> Sectors:
    """The sectors that a walk over `shape` touches of an operand; of a dense one its elements' bytes.

    Elements less than a sector apart share sectors, whatever is left out between them; runs that are further apart take at least
    a sector each. (Where a run begins in its sector is not known: nothing is added at its ends.)
    """
    item = operand.item_bytes
    extent, runs, partial = float(item), 1, False
    for step, size in sorted(zip(operand.strides, shape, strict=True)):
        if not step or size == 1:
            continue
        if runs == 1 and step * item < extent + SECTOR_BYTES:
            partial = partial or (extent < SECTOR_BYTES and step * item > extent)
            extent += step * item * (size - 1)
        else:
            runs *= size
    if runs == 1 or extent >= SECTOR_BYTES:
        return Sectors(runs * extent, partial)
    return Sectors(float(runs * SECTOR_BYTES), True)


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
def l2_bytes_per_element(
    sizes: tuple[int, ...], steps: tuple[int, ...], item_bytes: int, scattered_bytes: float
) -> float:
    """Bytes of L2 bandwidth that an element costs: the sectors of a warp's 32 lanes, over the lanes.

    sizes, steps: the merged walk, fastest dimension first. Lanes side by side share a sector, a broadcast
    operand is one sector for all, and a transposed one is a sector for each lane. scattered_bytes: what a lone sector costs
    (`scattered_bytes`).
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
    return max(sectors * SECTOR_BYTES, requests * scattered_bytes) / len(offsets)


def scattered_bytes(hardware: Hardware) -> float:
    """Bytes of L2's attained bandwidth that a lone sector costs: it takes a slice's turn, and slices are as many as L2's whole
    bandwidth has, of which streams attain what the way to the SMs lets through."""
    return hardware.l2_costs.scattered_bytes * hardware.l2_efficiency


PAGE_BYTES = 2 * 1024**2  # exact: CUDA's pages of large allocations


def _pages(sizes: tuple[int, ...], steps: tuple[int, ...], item_bytes: int, elements: int) -> int:
    """Pages that the first `elements` of a walk lie in."""
    pages, walked, span = 1, 1, 0
    for size, step in zip(sizes, steps, strict=True):
        taken = min(size, -(-elements // walked))
        pages *= (
            taken if step * item_bytes >= PAGE_BYTES else -(-taken * step * item_bytes // PAGE_BYTES) or 1
        )
        walked *= taken
        span += (taken - 1) * step * item_bytes
    return min(pages, span // PAGE_BYTES + 1)


@asked
def _pages_at_once(
    sizes: tuple[int, ...], steps: tuple[int, ...], item_bytes: int, thread_elements: int, hardware: Hardware
) -> int:
    """Pages that the elements lie in on which the device's threads work at once."""
    resident = hardware.sm_count * hardware.max_threads_per_sm * thread_elements
    return _pages(sizes, steps, item_bytes, resident)


@asked
def missed_share(nbytes: float, hardware: Hardware) -> float:
    """Of so many bytes what L2 does not hold."""
    return max(0.0, 1.0 - hardware.l2_usable_bytes / nbytes)


@asked
def lost_share(trip_bytes: float, spill_from: float, hardware: Hardware) -> float:
    """Of sectors that are needed again after so many bytes what L2 has lost."""
    return min(max(trip_bytes / hardware.l2_usable_bytes - spill_from, 0.0), 1.0)


def untranslated(
    sizes: tuple[int, ...], steps: tuple[int, ...], item_bytes: int, thread_elements: int, hardware: Hardware
) -> float:
    """Share of a walk's elements for which the translation of their page has to be fetched.

    So it is where every element lies in another page than the one before, and the pages between which the walk goes in turn are
    more than the device keeps translations of. It finds as large a share as it keeps: which one makes room is as good as drawn by
    lot. (Hops of powers of two find fewer still.)

    sizes, steps: the merged walk, fastest dimension first. thread_elements: of a thread; the device's threads work on theirs at once.
    """
    if 1 not in steps or steps[0] * item_bytes < PAGE_BYTES:
        return 0.0
    pages = _pages_at_once(sizes, steps, item_bytes, thread_elements, hardware)
    return max(0.0, 1.0 - hardware.l2_costs.translated_bytes / (PAGE_BYTES * pages))


def refetched_bytes(
    sizes: tuple[int, ...],
    steps: tuple[int, ...],
    item_bytes: int,
    stream_bytes: float,
    hardware: Hardware,
) -> float:
    """Bytes that come from HBM again because L2 has lost a sector before the walk needs its other elements.

    A walk along another dimension than the one that lies dense uses an element of each sector and comes back to it after
    all of the dimensions in between. Meanwhile L2 keeps whole lines, whatever part of them is asked for.

    sizes, steps: the merged walk, fastest dimension first. stream_bytes: what an element moves of other operands. A round trip begins
    to lose sectors at `spill_from` of what L2 holds, and has lost all of them when it is longer by all that L2 holds.
    """
    if 1 not in steps or steps[0] in (0, 1):
        return 0.0
    dense_dimension = steps.index(1)
    visits = math.prod(sizes[:dense_dimension])
    lines = math.prod(size for size, step in zip(sizes[:dense_dimension], steps, strict=False) if step)
    round_trip_bytes = lines * min(LINE_BYTES, steps[0] * item_bytes) + visits * stream_bytes
    costs = hardware.l2_costs
    lost = lost_share(round_trip_bytes, costs.spill_from, hardware)
    return lost * math.prod(sizes) * (costs.lone_sector_bytes - item_bytes)


def repeated_bytes(
    sizes: tuple[int, ...],
    steps: tuple[int, ...],
    item_bytes: int,
    stream_bytes: float,
    hardware: Hardware,
) -> float:
    """Bytes of a broadcast operand that come from HBM again, as L2 has lost them before the walk repeats them.

    It does after all that the dimensions inside the broadcast one hold of every operand; from when sectors are lost, and the
    arguments: see `refetched_bytes`.
    """
    again, inside, walked = 0.0, 1, 1
    for index, (size, step) in enumerate(zip(sizes, steps, strict=True)):
        if not step and inside > 1:
            lost = lost_share(walked * stream_bytes, hardware.l2_costs.spill_from, hardware)
            again += lost * inside * item_bytes * (size - 1) * math.prod(sizes[index + 1 :])
        inside *= size if step else 1
        walked *= size
    return again


def in_flight(l2_bytes: float, chain_s: float, hardware: Hardware) -> float:
    """Bytes that a CTA keeps in flight if its `l2_bytes` take it at least `chain_s`, whatever the bandwidths are: dependent
    trips to memory, which instructions of other CTAs fill, as they do not fill Kernel.latency_s in a first wave."""
    return l2_bytes * hardware.hbm_latency_s / chain_s if chain_s else math.inf


def streamed_l2_bytes(
    reads: Sequence[Access], writes: Sequence[Access], hardware: Hardware, passes: float = 1.0
) -> float:
    """L2 bandwidth of a kernel that reads its dense operands `passes` times and writes its results, in read bytes."""
    read = passes * sum(access.nbytes for access in reads)
    return read + hardware.l2_costs.write * sum(access.nbytes for access in writes)


def emptied_hbm_bytes(
    reads: Sequence[Access], writes: Sequence[Access], reread_bytes: float, hardware: Hardware
) -> float:
    """HBM bytes until a kernel ends that found L2 emptied, as a table's rows are timed: of what it writes L2 still holds as large a
    share as of all that it touches (as engine/l2.py has it)."""
    read = sum(access.nbytes for access in reads)
    written = sum(access.nbytes for access in writes)
    held = min(1.0, hardware.l2_usable_bytes / (read + written)) if written else 0.0
    return read + reread_bytes + written * (1.0 - held)
