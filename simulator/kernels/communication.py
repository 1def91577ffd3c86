"""Collectives between the GPUs of one server: NCCL's kernels, as one of the GPUs runs them.

A ring (all-gather, reduce-scatter, all-reduce) passes chunks of 1/n of the buffer from neighbour to neighbour in n - 1 steps, an
all-reduce twice that. On one server NCCL's tree is a chain with as many hops and less bandwidth, so that the ring stands for both;
of reductions in the switch (NVLS) no measured row shows any. An exchange (all-to-all, sends and receives) takes one step, of
whatever goes to each of the others. NCCL moves both by protocols (https://arxiv.org/abs/2507.04786, "Demystifying NCCL"):

    LL      8 bytes a store, half of them flags: least latency, a small share of the wire
    LL128   a flag to 120 bytes: little latency, more of the wire
    Simple  whole slices through a buffer in the receiver's memory, with fences: most latency, nearly all of the wire

    time = setup + steps * hop + bytes of this rank / (link bandwidth of one direction * the protocol's efficiency)

and, as NCCL's tuner does, takes the protocol of the least predicted time. Simple's buffer adds a step's copy: the rank's own chunk
goes through the same CTAs as those that it passes on. An exchange between few peers is held back by the channels that each peer
gets. GPUs whose bytes pass through the host's PCI Express share it: contention.

What is fitted stands in hw_configs/families/communication.yaml, by what connects the GPUs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from simtti.dtypes import DTYPES, ITEM_BYTES
from simtti.errors import InputError
from simtti.hw_configs.collective_parameters import Collectives
from simtti.hw_configs.hardware import Hardware
from simtti.simulator.kernel import Access, Kernel
from simtti.simulator.kernels.family import (
    Cells,
    Column,
    Family,
    Lower,
    Target,
    Work,
    needed,
    reads_of,
    writes_of,
)
from simtti.workloads.parallel import operands
from simtti.workloads.trace import Operator

# exact: CTAs (channels), threads and registers of NCCL's kernels on NVLink (NCCL 2.18 and later), as profilers show
CHANNELS, THREADS, REGISTERS = 24, 544, 96


@dataclass(frozen=True, slots=True)
class Ring:
    """A collective that goes round all `ranks`: passes of the ring, 1 or 2 (all-reduce), of a whole buffer of `nbytes`.

    sent, received: the tensors of this rank with their bytes. gpus: of the server that exchange meanwhile, other groups among them;
    the ranks where it is less.
    """

    name: str
    nbytes: float
    ranks: int
    passes: int
    sent: Access
    received: Access
    gpus: int = 0


@dataclass(frozen=True, slots=True)
class AllToAll:
    """Each of `ranks` GPUs sends every other its part of `nbytes`, and keeps its own. sent, received: the tensors. gpus: as of a ring."""

    nbytes: float
    ranks: int
    sent: int = 0
    received: int = 1
    gpus: int = 0


@dataclass(frozen=True, slots=True)
class SendReceive:
    """A batch of sends to one rank and receives from another, in a group of `ranks`: tensors with their bytes."""

    sent: tuple[Access, ...]
    received: tuple[Access, ...]
    ranks: int = 2


class Path(NamedTuple):
    """One way to run a collective: its protocol, the seconds that pass before and between bytes, and the share of the link's
    bandwidth that its payload attains."""

    protocol: str
    latency_s: float
    efficiency: float

    def time_s(self, link_bytes: float, hardware: Hardware) -> float:
        return self.latency_s + link_bytes / (hardware.link_bytes_per_s * self.efficiency)


def ring(problem: Ring, hardware: Hardware) -> list[Kernel]:
    """NCCL's kernel for it, in the protocol of the least predicted time."""
    costs, ranks = hardware.collective_costs, problem.ranks
    steps = problem.passes * (ranks - 1)
    link_bytes = problem.nbytes * steps / ranks
    shared = _shared(costs, max(ranks, problem.gpus))
    paths = [
        Path("LL", costs.setup_s + steps * costs.ll_hop_s, shared * costs.ll_efficiency),
        Path("LL128", costs.setup_s + steps * costs.ll128_hop_s, shared * costs.ll128_efficiency),
        Path(
            "SIMPLE",
            costs.setup_s + steps * costs.simple_hop_s,
            shared * costs.simple_efficiency * steps / (steps + 1),
        ),
    ]
    best = min(paths, key=lambda path: path.time_s(link_bytes, hardware))
    name = f"ncclDevKernel_{problem.name}_RING_{best.protocol}"
    return [_kernel(name, (problem.sent,), (problem.received,), link_bytes, best)]


def all_to_all(problem: AllToAll, hardware: Hardware) -> list[Kernel]:
    """NCCL's kernel for it: grouped sends and receives."""
    nbytes = problem.nbytes
    sent, received = (Access(problem.sent, nbytes),), (Access(problem.received, nbytes),)
    peers = problem.ranks - 1
    sharing = max(problem.ranks, problem.gpus)
    return [_exchange(sent, received, nbytes * peers / problem.ranks, peers, sharing, hardware)]


def send_receive(problem: SendReceive, hardware: Hardware) -> list[Kernel]:
    """NCCL's kernel for it, on a stream of its own, beside whatever computes."""
    # Both directions of a link go on at once.
    nbytes = max(sum(access.nbytes for access in each) for each in (problem.sent, problem.received))
    return [_exchange(problem.sent, problem.received, nbytes, 1, problem.ranks, hardware)]


def _exchange(
    sent: tuple[Access, ...],
    received: tuple[Access, ...],
    link_bytes: float,
    peers: int,
    sharing: int,
    hardware: Hardware,
) -> Kernel:
    """ncclDevKernel_SendRecv; link_bytes: of what is received, those that come from another GPU; sharing: GPUs that exchange at once."""
    costs = hardware.collective_costs
    shared, connected_s = _shared(costs, sharing), costs.peer_s * peers
    widest = min(costs.exchange_efficiency, costs.peer_efficiency * peers)
    paths = [
        Path("LL", costs.exchange_setup_s + connected_s, shared * costs.exchange_ll_efficiency),
        Path("SIMPLE", costs.exchange_simple_s + connected_s, shared * widest),
    ]
    best = min(paths, key=lambda path: path.time_s(link_bytes, hardware))
    return _kernel("ncclDevKernel_SendRecv", sent, received, link_bytes, best)


def _shared(costs: Collectives, gpus: int) -> float:
    """The share of its link's bandwidth that a GPU keeps when `gpus` exchange at once; 1 for two."""
    return float((gpus / 2) ** -costs.contention)


def _kernel(
    name: str, sent: tuple[Access, ...], received: tuple[Access, ...], link_bytes: float, path: Path
) -> Kernel:
    return Kernel(
        name=name,
        family="communication",
        grid=CHANNELS,
        threads=THREADS,
        registers=REGISTERS,
        l2_bytes=2 * sum(access.nbytes for access in received) / CHANNELS,
        latency_s=path.latency_s,
        link_bytes=link_bytes,
        link_efficiency=path.efficiency,
        reads=sent,
        writes=received,
    )


# ---- operators of a trace


def _lower_all_to_all(operator: Operator, target: Target) -> list[Kernel]:
    # Where shares differ, a GPU receives more than it sends, or the other way round.
    nbytes = float(max(operator.inputs[0].nbytes, operator.outputs[0].nbytes))
    problem = AllToAll(nbytes, int(operator.attributes["ranks"]), gpus=_gpus(operator))
    return _in_a_run(all_to_all(problem, target.hardware), target)


def _lower_ring(name: str, passes: int) -> Lower:
    """Lowers a collective that goes round, which NCCL calls `name`."""

    def lower(operator: Operator, target: Target) -> list[Kernel]:
        (sent,), (received,) = reads_of(operator), writes_of(operator)
        nbytes = float(max(operator.inputs[0].nbytes, operator.outputs[0].nbytes))
        problem = Ring(name, nbytes, int(operator.attributes["ranks"]), passes, sent, received)
        return _in_a_run(ring(problem, target.hardware), target)

    return lower


def _gpus(operator: Operator) -> int:
    return int(operator.attributes.get("gpus", 0))


def _lower_send_receive(operator: Operator, target: Target) -> list[Kernel]:
    ranks = int(operator.attributes.get("ranks", 2))
    problem = SendReceive(reads_of(operator), writes_of(operator), ranks)
    return _in_a_run(send_receive(problem, target.hardware), target)


def _lower_receive(operator: Operator, target: Target) -> list[Kernel]:
    """NCCL's kernel that is there from the receive's launch and spins until the sender is ready, `wait_s` of it; what then comes is in
    operators of its own."""
    wait_s = float(operator.attributes.get("wait_s", 0.0))
    if not wait_s:
        return []
    return [_kernel("ncclDevKernel_SendRecv", (), (), 0.0, Path("SIMPLE", wait_s, 1.0))]


def _in_a_run(kernels: list[Kernel], target: Target) -> list[Kernel]:
    """Collectives of an eager run take longer than in a benchmark that does nothing else: the ranks' hosts launch apart, and the
    first to arrive waits; what is measured of it grows with the bytes."""
    if target.policy.launch != "eager":
        return kernels
    late_s = target.hardware.collective_costs.eager_s_per_byte
    return [replace(one, latency_s=one.latency_s + late_s * one.link_bytes) for one in kernels]


# ---- rows of a table

# (buffer's bytes, ranks) of a row -> its kernels
Model = Callable[[float, int, Hardware], list[Kernel]]


def _all_gather(nbytes: float, ranks: int, hardware: Hardware) -> list[Kernel]:
    return ring(Ring("AllGather", nbytes, ranks, 1, Access(0, nbytes / ranks), Access(1, nbytes)), hardware)


def _reduce_scatter(nbytes: float, ranks: int, hardware: Hardware) -> list[Kernel]:
    return ring(
        Ring("ReduceScatter_Sum", nbytes, ranks, 1, Access(0, nbytes), Access(1, nbytes / ranks)), hardware
    )


def _all_reduce(nbytes: float, ranks: int, hardware: Hardware) -> list[Kernel]:
    return ring(Ring("AllReduce_Sum", nbytes, ranks, 2, Access(0, nbytes), Access(1, nbytes)), hardware)


def _all_to_all(nbytes: float, ranks: int, hardware: Hardware) -> list[Kernel]:
    return all_to_all(AllToAll(nbytes, ranks), hardware)


def _family(
    op: str, note: str, model: Model, also: tuple[str, ...] = (), aten: dict[str, Lower] | None = None
) -> Family:
    def kernels(cells: Cells, hardware: Hardware) -> list[Kernel]:
        nbytes, ranks = float(cells.whole("numel") * ITEM_BYTES[cells.dtype]), cells.whole("gpus")
        if not hardware.link_bytes_per_s:
            raise InputError(f"{hardware.name} has no link between GPUs")
        return model(nbytes, ranks, hardware)

    return Family(
        op=op,
        columns=(*needed("numel"), Column("gpus", least=2)),
        note=note,
        kernels=kernels,
        work=lambda cells: Work(0.0, 2.0 * cells.whole("numel")),
        aten=aten or {},
        dtypes=tuple(DTYPES),
        also=also,
    )


ALL_GATHER = _family("all_gather", "each of `gpus` GPUs ends with numel elements, a part from each", _all_gather, aten={operands.ALL_GATHER: _lower_ring("AllGather", 1)})  # fmt: skip
REDUCE_SCATTER = _family("reduce_scatter", "each of `gpus` GPUs ends with its part of the sum of numel elements of all", _reduce_scatter)  # fmt: skip
ALL_REDUCE = _family("all_reduce", "each of `gpus` GPUs ends with the sum of numel elements of all", _all_reduce, aten={operands.ALL_REDUCE: _lower_ring("AllReduce_Sum", 2)})  # fmt: skip
ALL_TO_ALL = _family(
    "all_to_all",
    "each of `gpus` GPUs sends every other its part of numel elements",
    _all_to_all,
    also=("alltoall",),
    aten={
        operands.ALL_TO_ALL: _lower_all_to_all,
        operands.SEND_RECEIVE: _lower_send_receive,
        operands.RECEIVE: _lower_receive,
    },
)
