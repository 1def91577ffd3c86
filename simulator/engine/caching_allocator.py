"""PyTorch's caching allocator of device memory: what it counts as allocated and what it has taken from the device.

    allocator = CachingAllocator()
    block = allocator.allocate(3 * 2**20)
    allocator.free(block)
    allocator.peak_allocated_bytes, allocator.peak_reserved_bytes  # 3 MiB of a segment of 20 MiB

As c10/cuda/CUDACachingAllocator.cpp has it, with its defaults: the best fit among free blocks, split where enough is left;
segments are kept for the next allocation, and given back, those that are free as a whole, only when the device has no room for
another. A block that is not split counts with all its bytes.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from dataclasses import dataclass

# exact: c10/cuda/CUDACachingAllocator.cpp, kMinBlockSize, kSmallSize, kSmallBuffer, kMinLargeAlloc, kLargeBuffer, kRoundLarge.
BLOCK_BYTES = 512
SMALL_BYTES = 1 << 20
SMALL_SEGMENT_BYTES = 2 << 20
LARGE_BYTES = 10 << 20
LARGE_SEGMENT_BYTES = 20 << 20
SEGMENT_MULTIPLE_BYTES = 2 << 20


@dataclass(slots=True, eq=False)
class Block:
    """Bytes at an address within a segment, with its neighbours there."""

    address: int
    nbytes: int
    small: bool
    before: Block | None = None
    after: Block | None = None
    used: bool = False


class CachingAllocator:
    """Allocations and what has come of them, in bytes.

    capacity_bytes: what the device has for it; where that is not enough it goes on, and peak_reserved_bytes exceeds it.
    allocated_bytes: of the blocks in use now; reserved_bytes: of all segments; peak_...: the most of each so far.
    """

    def __init__(self, capacity_bytes: float = math.inf) -> None:
        self.capacity_bytes = capacity_bytes
        self.allocated_bytes = self.peak_allocated_bytes = 0
        self.reserved_bytes = self.peak_reserved_bytes = 0
        self._next_address = 0
        # Free blocks by size and address, of small and of large segments.
        self._free: dict[bool, list[tuple[int, int, Block]]] = {True: [], False: []}

    def allocate(self, nbytes: int) -> Block:
        """A block of at least `nbytes`, which may be 0."""
        wanted = max(BLOCK_BYTES, rounded_up(nbytes, BLOCK_BYTES))
        small = wanted <= SMALL_BYTES
        free = self._free[small]
        found = bisect_left(free, (wanted, -1))
        block = free.pop(found)[2] if found < len(free) else self._segment(wanted, small)
        left = block.nbytes - wanted
        if left >= BLOCK_BYTES if small else left > SMALL_BYTES:
            rest = Block(block.address + wanted, left, small, block, block.after)
            if block.after is not None:
                block.after.before = rest
            block.after, block.nbytes = rest, wanted
            insort(free, (rest.nbytes, rest.address, rest))
        block.used = True
        self.allocated_bytes += block.nbytes
        self.peak_allocated_bytes = max(self.peak_allocated_bytes, self.allocated_bytes)
        return block

    def free(self, block: Block) -> None:
        """Give a block back, joined with free neighbours."""
        block.used = False
        self.allocated_bytes -= block.nbytes
        for other in (block.before, block.after):
            if other is not None and not other.used:
                self._take(other)
                block.address = min(block.address, other.address)
                block.nbytes += other.nbytes
                if other is block.before:
                    block.before = other.before
                    if block.before is not None:
                        block.before.after = block
                else:
                    block.after = other.after
                    if block.after is not None:
                        block.after.before = block
        insort(self._free[block.small], (block.nbytes, block.address, block))

    def _segment(self, wanted: int, small: bool) -> Block:
        if small:
            nbytes = SMALL_SEGMENT_BYTES
        elif wanted < LARGE_BYTES:
            nbytes = LARGE_SEGMENT_BYTES
        else:
            nbytes = rounded_up(wanted, SEGMENT_MULTIPLE_BYTES)
        if self.reserved_bytes + nbytes > self.capacity_bytes:
            self.give_back()
        block = Block(self._next_address, nbytes, small)
        self._next_address += nbytes
        self.reserved_bytes += nbytes
        self.peak_reserved_bytes = max(self.peak_reserved_bytes, self.reserved_bytes)
        return block

    def give_back(self) -> None:
        """Segments that are free as a whole, to the device (release_cached_blocks; torch.cuda.empty_cache)."""
        for free in self._free.values():
            whole = [entry for entry in free if entry[2].before is None and entry[2].after is None]
            self.reserved_bytes -= sum(entry[0] for entry in whole)
            gone = {entry[1] for entry in whole}
            free[:] = [entry for entry in free if entry[1] not in gone]

    def _take(self, block: Block) -> None:
        free = self._free[block.small]
        del free[bisect_left(free, (block.nbytes, block.address))]


def rounded_up(nbytes: int, multiple: int) -> int:
    """The next multiple that is not less.

    >>> rounded_up(513, 512)
    1024
    """
    return -(-nbytes // multiple) * multiple
