"""Collectives between the GPUs of one server: NCCL's kernels, as one of the GPUs runs them."""

from __future__ import annotations

from simtti.hw_configs.hardware import Hardware
from simtti.simulator.kernel import Access, Kernel
from simtti.simulator.kernels.family import Lower, Target, reads_of, writes_of
from simtti.workloads.shard import ALL_TO_ALL, SEND_RECEIVE
from simtti.workloads.trace import Operator

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


def send_receive(sent: tuple[Access, ...], received: tuple[Access, ...], hardware: Hardware) -> Kernel:
    """A batch of sends to one rank and receives from another, on NCCL's stream, beside whatever computes."""
    nbytes = sum(access.nbytes for access in received)
    return Kernel(
        name="ncclDevKernel_SendRecv",
        family="communication",
        grid=CHANNELS,
        threads=THREADS,
        registers=96,
        l2_bytes=2 * nbytes / CHANNELS,
        latency_s=hardware.collectives.latency_s,
        link_bytes=nbytes,
        reads=sent,
        writes=received,
    )


# ---- operators of a trace


def _lower_all_to_all(operator: Operator, target: Target) -> list[Kernel]:
    nbytes, ranks = float(operator.inputs[0].nbytes), int(operator.attributes["ranks"])
    return all_to_all(nbytes, ranks, 0, 1, target.hardware)


def _lower_send_receive(operator: Operator, target: Target) -> list[Kernel]:
    return [send_receive(reads_of(operator), writes_of(operator), target.hardware)]


COLLECTIVES: dict[str, Lower] = {ALL_TO_ALL: _lower_all_to_all, SEND_RECEIVE: _lower_send_receive}
