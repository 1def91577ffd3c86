"""L2 between kernels: which bytes of which tensor it still holds, and so what each kernel fetches from HBM.

Tensors are kept whole or in part, least recently used out first; dirty bytes are written to HBM when they leave.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from simtti.simulator.kernel import Kernel

_NOTHING = (0.0, 0.0)


class L2:
    """Residency by tensor within `capacity_bytes`. `touch` runs a kernel's accesses through it."""

    def __init__(self, capacity_bytes: float) -> None:
        self.capacity_bytes = capacity_bytes
        self._full = capacity_bytes * (1 + 1e-12)
        self._footprints: dict[int, tuple[Kernel, float]] = {}  # bytes that a kernel touches, by its identity
        # tensor -> (bytes held, of them dirty), least recently used first
        self._held: OrderedDict[int, tuple[float, float]] = OrderedDict()
        self._used = 0.0

    @property
    def state(self) -> tuple[tuple[int, tuple[float, float]], ...]:
        """What is held, (tensor, (bytes, dirty bytes)) in order of use: equal states mean equal futures."""
        return tuple(self._held.items())

    def copy(self) -> L2:
        """Another L2 in this one's state."""
        other = L2(self.capacity_bytes)
        other._held, other._used = self._held.copy(), self._used
        other._footprints = self._footprints
        return other

    def touch(self, kernel: Kernel, tensor_of: Mapping[int, int]) -> float:
        """Bytes that `kernel` moves to and from HBM: reads that miss, write-backs, and its own re-reads.

        A kernel that touches more than L2 holds finds only a share of what was there before it, and leaves only that share of
        what it writes dirty: its own stream pushes the rest out first. Write-backs within 13 kernels on our own H200 agree
        (docs/accuracy.md, counters).
        """
        capacity, full, all_held = self.capacity_bytes, self._full, self._held
        known = self._footprints.get(id(kernel))
        footprint = self._footprint(kernel) if known is None else known[1]
        kept = capacity / footprint if footprint > capacity else 1.0
        moved, used = kernel.hbm_reread_bytes, self._used
        # One loop for both, without a call for each: every launch of an inference comes through here.
        for accesses, dirty in ((kernel.reads, False), (kernel.writes, True)):
            for slot, nbytes in accesses:
                tensor = tensor_of[slot]
                held, was_dirty = all_held.pop(tensor, _NOTHING)
                if not dirty:
                    moved += nbytes - (held if held < nbytes else nbytes) * kept
                # Hold it as the most recently used.
                size = held if held > nbytes else nbytes
                if size > capacity:
                    size = capacity
                if dirty and nbytes > was_dirty:
                    was_dirty = nbytes
                left = was_dirty * kept  # the kernel's own stream pushes the rest to HBM while it runs
                if left > size:
                    left = size
                moved += was_dirty - left
                was_dirty = left
                all_held[tensor] = (size, was_dirty)
                used += size - held
                if used > full:
                    self._used = used
                    moved += self._make_room()
                    used = self._used
        self._used = used
        return moved

    def _footprint(self, kernel: Kernel) -> float:
        footprint = 0.0
        for _, nbytes in (*kernel.reads, *kernel.writes):
            footprint += nbytes
        self._footprints[id(kernel)] = kernel, footprint
        return footprint

    def _make_room(self) -> float:
        """Let the least recently used go until all fits. Returns the dirty bytes among them, which are written back."""
        all_held, capacity, full, used = self._held, self.capacity_bytes, self._full, self._used
        written = 0.0
        while used > full:
            oldest = next(iter(all_held))
            size, dirty = all_held[oldest]
            out = used - capacity
            if size - out <= 1e-9 * size:  # all of it: what would be left is nothing but rounding
                del all_held[oldest]
                used -= size
                written += dirty
            else:
                # The clean part leaves as likely as the dirty one.
                dirty_out = dirty * out / size
                written += dirty_out
                used -= out
                all_held[oldest] = (size - out, dirty - dirty_out)
        self._used = used
        return written
