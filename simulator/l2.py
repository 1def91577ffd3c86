"""L2 between kernels: which bytes of which tensor it still holds, and so what each kernel fetches from HBM.

Tensors are kept whole or in part, least recently used out first; dirty bytes are written to HBM when they leave.
"""

from __future__ import annotations

from collections.abc import Callable

from simtti.simulator.kernel import Kernel

_NOTHING = (0.0, 0.0)


class L2:
    """Residency by tensor within `capacity_bytes`. `touch` runs a kernel's accesses through it."""

    def __init__(self, capacity_bytes: float) -> None:
        self.capacity_bytes = capacity_bytes
        # tensor -> (bytes held, of them dirty), least recently used first
        self._held: dict[int, tuple[float, float]] = {}
        self._used = 0.0

    @property
    def state(self) -> tuple[tuple[int, float, float], ...]:
        """What is held, in order of use: equal states mean equal futures."""
        return tuple((tensor, held, dirty) for tensor, (held, dirty) in self._held.items())

    def touch(self, kernel: Kernel, tensor_of: Callable[[int], int]) -> float:
        """Bytes that `kernel` moves to and from HBM: reads that miss, write-backs, and its own re-reads.

        A kernel that touches more than L2 holds finds only a share of what was there before it: its own stream pushes
        the rest out first.
        """
        reads = [(tensor_of(tensor), nbytes) for tensor, nbytes in kernel.reads]
        writes = [(tensor_of(tensor), nbytes) for tensor, nbytes in kernel.writes]
        footprint = 0.0
        for _, nbytes in reads:
            footprint += nbytes
        for _, nbytes in writes:
            footprint += nbytes
        kept = self.capacity_bytes / footprint if footprint > self.capacity_bytes else 1.0
        moved = kernel.hbm_reread_bytes
        for tensor, nbytes in reads:
            held = self._held.get(tensor, _NOTHING)[0]
            moved += nbytes - (held if held < nbytes else nbytes) * kept + self._keep(tensor, nbytes, False)
        for tensor, nbytes in writes:
            moved += self._keep(tensor, nbytes, True)
        return moved

    def _keep(self, tensor: int, nbytes: float, dirty: bool) -> float:
        """Hold `nbytes` of `tensor` as the most recently used. Returns the dirty bytes written back to make room."""
        capacity = self.capacity_bytes
        held, was_dirty = self._held.pop(tensor, _NOTHING)
        size = held if held > nbytes else nbytes
        if size > capacity:
            size = capacity
        most_dirty = nbytes if dirty and nbytes > was_dirty else was_dirty
        stays_dirty = most_dirty if most_dirty < size else size
        # Dirty bytes beyond what L2 can hold go to HBM within this kernel.
        written = most_dirty - stays_dirty
        self._held[tensor] = (size, stays_dirty)
        self._used += size - held
        if self._used > capacity * (1 + 1e-12):
            written += self._make_room()
        return written

    def _make_room(self) -> float:
        """Let the least recently used go until all fits. Returns the dirty bytes among them."""
        written = 0.0
        while self._used > self.capacity_bytes * (1 + 1e-12):
            oldest = next(iter(self._held))
            old_size, old_dirty = self._held[oldest]
            out = min(old_size, self._used - self.capacity_bytes)
            # The clean part leaves as likely as the dirty one.
            dirty_out = old_dirty * out / old_size if old_size else 0.0
            written += dirty_out
            self._used -= out
            left = old_size - out
            if left <= 1e-9 * old_size:  # nothing but rounding
                del self._held[oldest]
            else:
                self._held[oldest] = (left, min(old_dirty - dirty_out, left))
        return written
