"""Collectives between the GPUs of one server: NCCL's kernels, as one of the GPUs runs them.

What is fitted stands in hw_configs/families/communication.yaml.
"""

from __future__ import annotations

from dataclasses import dataclass

from simtti.dtypes import ITEM_BYTES
from simtti.errors import InputError
from simtti.hw_configs.hardware import Hardware
from simtti.simulator.kernel import Access, Kernel
from simtti.simulator.kernels.family import (
    Cells,
    Column,
    Family,
    Target,
    Work,
    needed,
    reads_of,
    writes_of,
)
from simtti.workloads.shard import ALL_TO_ALL as ALL_TO_ALL_OPERATOR
from simtti.workloads.shard import SEND_RECEIVE
from simtti.workloads.trace import Operator

# exact: CTAs (channels), threads and registers of ncclDevKernel_SendRecv on NVLink (NCCL 2.18 and later), as profilers show
CHANNELS, THREADS, REGISTERS = 24, 544, 96


@dataclass(frozen=True, slots=True)
class AllToAll:
    """Each of `ranks` GPUs sends every other its part of `nbytes`, and keeps its own. sent, received: the tensors."""

    nbytes: float
    ranks: int
    sent: int = 0
    received: int = 1


@dataclass(frozen=True, slots=True)
class SendReceive:
    """A batch of sends to one rank and receives from another: tensors with their bytes."""

    sent: tuple[Access, ...]
    received: tuple[Access, ...]


def all_to_all(problem: AllToAll, hardware: Hardware) -> list[Kernel]:
    """NCCL's kernel for it: grouped sends and receives."""
    nbytes = problem.nbytes
    sent, received = (Access(problem.sent, nbytes),), (Access(problem.received, nbytes),)
    return [_exchange(sent, received, nbytes * (problem.ranks - 1) / problem.ranks, hardware)]


def send_receive(problem: SendReceive, hardware: Hardware) -> list[Kernel]:
    """NCCL's kernel for it, on a stream of its own, beside whatever computes."""
    nbytes = sum(access.nbytes for access in problem.received)
    return [_exchange(problem.sent, problem.received, nbytes, hardware)]


def _exchange(
    sent: tuple[Access, ...], received: tuple[Access, ...], link_bytes: float, hardware: Hardware
) -> Kernel:
    """ncclDevKernel_SendRecv; link_bytes: of what is received, those that come from another GPU."""
    return Kernel(
        name="ncclDevKernel_SendRecv",
        family="communication",
        grid=CHANNELS,
        threads=THREADS,
        registers=REGISTERS,
        l2_bytes=2 * sum(access.nbytes for access in received) / CHANNELS,
        latency_s=hardware.collectives.latency_s,
        link_bytes=link_bytes,
        reads=sent,
        writes=received,
    )


# ---- operators of a trace


def _lower_all_to_all(operator: Operator, target: Target) -> list[Kernel]:
    problem = AllToAll(float(operator.inputs[0].nbytes), int(operator.attributes["ranks"]))
    return all_to_all(problem, target.hardware)


def _lower_send_receive(operator: Operator, target: Target) -> list[Kernel]:
    return send_receive(SendReceive(reads_of(operator), writes_of(operator)), target.hardware)


# ---- rows of a table


def _kernels(cells: Cells, hardware: Hardware) -> list[Kernel]:
    nbytes, ranks = float(cells.whole("numel") * ITEM_BYTES[cells.dtype]), cells.whole("ranks")
    if not hardware.link_bytes_per_s:
        raise InputError(f"{hardware.name} has no link between GPUs")
    return all_to_all(AllToAll(nbytes, ranks), hardware)


ALL_TO_ALL = Family(
    op="all_to_all",
    columns=(*needed("numel"), Column("ranks", least=2)),
    note="each of `ranks` GPUs sends every other its part of numel elements",
    kernels=_kernels,
    work=lambda cells: Work(0.0, 2.0 * cells.whole("numel")),
    aten={ALL_TO_ALL_OPERATOR: _lower_all_to_all, SEND_RECEIVE: _lower_send_receive},
)
