"""Collectives between the GPUs of one server: NCCL's kernels, as one of the GPUs runs them."""

from __future__ import annotations

from simtti.hw_configs.hardware import Hardware
from simtti.simulator.kernel import Access, Kernel

# NCCL's send and receive kernels: CTAs (channels) and threads on NVLink (ncclDevKernel_SendRecv; NCCL 2.18 and later).
CHANNELS, THREADS = 24, 544


def all_to_all(nbytes: float, ranks: int, sent: int, received: int, hardware: Hardware) -> list[Kernel]:
    """Each rank sends every other its part of `nbytes`, and keeps its own."""
    return [
        Kernel(
            name="ncclDevKernel_SendRecv",
            family="communication",
            grid=CHANNELS,
            threads=THREADS,
            registers=96,
            l2_bytes=2 * nbytes / CHANNELS,
            latency_s=hardware.collectives.latency_s,
            link_bytes=nbytes * (ranks - 1) / ranks,
            reads=(Access(sent, nbytes),),
            writes=(Access(received, nbytes),),
        )
    ]
