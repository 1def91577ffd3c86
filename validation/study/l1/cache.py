"""A cache that sees addresses: what it still holds when a kernel asks for a sector again.

Set-associative, least recently used out first, lines of 128 bytes filled by sectors of 32 (L1 and L2 of NVIDIA's GPUs
since Volta; CUDA C++ Best Practices Guide, coalesced access). The set of a line is a hash of its number, so that
operands at a stride of a power of two do not all fall into one set; GPUs hash as well, by functions not published.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from simtti.hw_configs.hardware import Hardware
from simtti.simulator.kernel import Kernel, ctas_per_sm

SECTOR_BYTES = 32
LINE_BYTES = 128
SECTORS = LINE_BYTES // SECTOR_BYTES
# Sets of an L1: few, so that it is all but fully associative (Jia et al. 2018, Dissecting the NVIDIA Volta GPU
# architecture via microbenchmarking: 4 in V100's; quoted from memory).
L1_SETS = 4
# Shared memory the system takes of every CTA (CUDA C++ Programming Guide, compute capability 8.0 and later).
SYSTEM_SHARED_BYTES = 1024


class Hits(NamedTuple):
    """Sectors asked for, and of them found."""

    lookups: int
    hits: int

    @property
    def rate(self) -> float:
        return self.hits / self.lookups if self.lookups else 0.0

    def __add__(self, other: object) -> Hits:
        if not isinstance(other, Hits):
            return NotImplemented
        return Hits(self.lookups + other.lookups, self.hits + other.hits)


class Cache:
    """A cache of `capacity_bytes` in `sets` sets. Capacity that is no whole number of lines a set is left unused."""

    def __init__(self, capacity_bytes: float, sets: int = L1_SETS) -> None:
        self.ways = int(capacity_bytes // (LINE_BYTES * sets))
        # By set: line -> bits of the sectors held, least recently used first.
        self._held: list[dict[int, int]] = [{} for _ in range(sets)]

    def read(self, sectors: np.ndarray) -> Hits:
        """Ask for `sectors` (numbers of 32 bytes each), in order."""
        lines = sectors // SECTORS
        index = set_of(lines, len(self._held))
        bits = np.left_shift(1, sectors % SECTORS)
        hits = 0
        held, ways = self._held, self.ways
        for number, line, bit in zip(index.tolist(), lines.tolist(), bits.tolist(), strict=True):
            lines_held = held[number]
            found = lines_held.pop(line, 0)
            if found & bit:
                hits += 1
            if ways:
                lines_held[line] = found | bit
                if len(lines_held) > ways:
                    del lines_held[next(iter(lines_held))]
        return Hits(len(lines), hits)


def set_of(lines: np.ndarray, sets: int) -> np.ndarray:
    """The set of each line: the high bits of a product with the golden ratio (Knuth's multiplicative hash)."""
    mixed = lines.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return ((mixed >> np.uint64(33)) % np.uint64(sets)).astype(np.int64)


def l1_bytes(kernel: Kernel, hardware: Hardware) -> int:
    """What is left of an SM's L1 beside the shared memory of the CTAs resident with `kernel`."""
    shared = kernel.shared_memory_bytes + SYSTEM_SHARED_BYTES
    return max(0, int(hardware.l1_per_sm_bytes) - ctas_per_sm(kernel, hardware) * shared)
