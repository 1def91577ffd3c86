"""L2 between kernels: which bytes of which tensor it still holds, and so what each kernel fetches from HBM.

Tensors are kept whole or in part, least recently used out first; dirty bytes are written to HBM when they leave.
"""

from __future__ import annotations

from collections.abc import Callable

from simtti.simulator.kernel import Kernel


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
        reads = [(tensor_of(access.tensor), access.nbytes) for access in kernel.reads]
        writes = [(tensor_of(access.tensor), access.nbytes) for access in kernel.writes]
        footprint = sum(nbytes for _, nbytes in reads) + sum(nbytes for _, nbytes in writes)
        kept = min(1.0, self.capacity_bytes / footprint) if footprint else 1.0
        moved = kernel.hbm_reread_bytes
        for tensor, nbytes in reads:
            held, _ = self._held.get(tensor, (0.0, 0.0))
            moved += nbytes - min(nbytes, held) * kept
            moved += self._keep(tensor, nbytes, dirty=False)
        for tensor, nbytes in writes:
            moved += self._keep(tensor, nbytes, dirty=True)
        return moved

    def _keep(self, tensor: int, nbytes: float, dirty: bool) -> float:
        """Hold `nbytes` of `tensor` as the most recently used. Returns the dirty bytes written back to make room."""
        held, was_dirty = self._held.pop(tensor, (0.0, 0.0))
        self._used -= held
        size = min(max(held, nbytes), self.capacity_bytes)
        stays_dirty = min(max(was_dirty, nbytes), size) if dirty else min(was_dirty, size)
        # Dirty bytes beyond what L2 can hold go to HBM within this kernel.
        written = max(nbytes, was_dirty) - stays_dirty if dirty else was_dirty - stays_dirty
        self._held[tensor] = (size, stays_dirty)
        self._used += size
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
