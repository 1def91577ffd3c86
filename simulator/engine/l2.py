"""L2 between kernels: which bytes of which tensor it still holds, and so what each kernel fetches from HBM.

Tensors are kept whole or in part, least recently used out first; dirty bytes are written to HBM when they leave.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from simtti.simulator.kernel import Kernel

# To add it and take it away rounds bytes to 2**-20 of one: a repetition that goes like the one before has to be seen to, whatever the
# sums of many bytes lose.
_TO_PARTS = 1.5 * 2.0**32


class _Touched(NamedTuple):
    """What a kernel touches: of what was there before it the share that it finds, and that it leaves dirty of what it writes; bytes
    that it reads again; (slot, bytes, whether they are written) of each access."""

    kernel: Kernel
    kept: float
    reread_bytes: float
    accesses: list[tuple[int, float, bool]]


class L2:
    """Residency by tensor within `capacity_bytes`. `touch` runs a kernel's accesses through it, `run` those of many in a row."""

    def __init__(self, capacity_bytes: float) -> None:
        self.capacity_bytes = capacity_bytes
        self._full = capacity_bytes * (1 + 1e-12)
        self._touched: dict[int, _Touched] = {}  # by a kernel's identity
        # tensor -> (bytes held, of them dirty), least recently used first
        self._held: dict[int, tuple[float, float]] = {}
        self._used = 0.0

    @property
    def state(self) -> tuple[tuple[int, tuple[float, float]], ...]:
        """What is held, (tensor, (bytes, dirty bytes)) in order of use: equal states mean equal futures."""
        return tuple(self._held.items())

    def copy(self) -> L2:
        """Another L2 in this one's state."""
        other = L2(self.capacity_bytes)
        other._held, other._used = self._held.copy(), self._used
        other._touched = self._touched
        return other

    def touch(self, kernel: Kernel, tensor_of: Mapping[int, int]) -> float:
        """Bytes that `kernel` moves to and from HBM: reads that miss, write-backs, and its own re-reads.

        A kernel that touches more than L2 holds finds only a share of what was there before it, and leaves only that share of
        what it writes dirty: its own stream pushes the rest out first. Write-backs within 13 kernels on our own H200 agree
        (docs/accuracy.md, counters).
        """
        return self.run([(kernel, tensor_of)])[0]

    def run(self, launches: Iterable[tuple[Kernel, Mapping[int, int]]]) -> list[float]:
        """`touch` of each kernel in turn; with it, the tensors behind its slots.

        One loop without calls: every launch of an inference comes through here.
        """
        capacity, full, all_held, used = self.capacity_bytes, self._full, self._held, self._used
        known, take = self._touched.get, all_held.pop
        # The least recently used, once some of it has had to go, and what is held of it: no longer what `all_held` says.
        oldest, oldest_size, oldest_dirty = None, 0.0, 0.0
        found = []
        for kernel, tensor_of in launches:
            _, kept, moved, accesses = known(id(kernel)) or self._first(kernel)
            for slot, nbytes, writes in accesses:
                tensor = slot if slot < 0 else tensor_of[slot]  # a workspace stands for itself
                there = take(tensor, None)
                if there is None:
                    dirty = 0.0
                    size = nbytes if nbytes < capacity else capacity
                    used += size
                    if not writes:
                        moved += nbytes
                else:
                    held, dirty = there
                    if tensor == oldest:
                        held, dirty, oldest = oldest_size, oldest_dirty, None
                    if held < nbytes:
                        size = nbytes if nbytes < capacity else capacity
                        used += size - held
                        if not writes:
                            moved += nbytes - held * kept
                    else:
                        size = held
                        if not writes:
                            moved += nbytes - nbytes * kept
                if writes and dirty < nbytes:
                    dirty = nbytes
                if dirty:  # the kernel's own stream pushes the rest to HBM while it runs
                    left = dirty * kept
                    if left > size:
                        left = size
                    moved += dirty - left
                    dirty = left
                all_held[tensor] = size, dirty  # as the most recently used
                if used <= full:
                    continue
                # Let the least recently used go until all fits; what of it is dirty is written back.
                written = 0.0
                while used > full:
                    if oldest is None:
                        oldest = next(iter(all_held))
                        oldest_size, oldest_dirty = all_held[oldest]
                    left = capacity - (used - oldest_size + _TO_PARTS - _TO_PARTS)
                    if left <= 1e-9 * oldest_size:  # all of it: the rest is nothing but rounding
                        del all_held[oldest]
                        used -= oldest_size
                        written += oldest_dirty
                        oldest = None
                    else:  # the clean part leaves as likely as the dirty one
                        used = capacity
                        if oldest_dirty:
                            dirty_out = oldest_dirty * (oldest_size - left) / oldest_size
                            written += dirty_out
                            oldest_dirty -= dirty_out
                        oldest_size = left
                moved += written
            found.append(moved)
        if oldest is not None:
            all_held[oldest] = oldest_size, oldest_dirty
        self._used = used
        return found

    def _first(self, kernel: Kernel) -> _Touched:
        accesses = [(slot, nbytes, False) for slot, nbytes in kernel.reads]
        accesses += [(slot, nbytes, True) for slot, nbytes in kernel.writes]
        footprint = 0.0
        for _, nbytes, _ in accesses:
            footprint += nbytes
        kept = self.capacity_bytes / footprint if footprint > self.capacity_bytes else 1.0
        touched = self._touched[id(kernel)] = _Touched(kernel, kept, kernel.hbm_reread_bytes, accesses)
        return touched
