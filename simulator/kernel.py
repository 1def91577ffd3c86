"""A kernel: what one CUDA kernel launch asks of the device, per CTA and in all.

Everything the simulation knows about the work is here. Lowering writes kernels, the simulation reads them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from simtti.errors import InputError
from simtti.hw_configs.hardware import Hardware


class Access(NamedTuple):
    """Unique bytes of one tensor that a kernel reads or writes.

    tensor: identity of the tensor's storage in the trace; negative for a workspace that lives for the kernel only.
    nbytes: unique bytes touched.
    """

    tensor: int
    nbytes: float


class CtaKind(NamedTuple):
    """CTAs of a grid that do equally much: edge tiles, rows under a causal mask, sequences of one length.

    ctas: how many, in the order of dispatch. work: their demands as a share of the kernel's per CTA; latency: the same of its
    latency. Over all CTAs both are 1 on average.
    """

    ctas: int
    work: float = 1.0
    latency: float = 1.0


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel launch: a grid of CTAs, all alike or of several kinds.

    Per CTA, on average (what it demands of the pipes, with the padding of its tile):
      tensor_flops      tensor-core FLOPs, in `tensor_dtype`
      fp32_flops        FP32 FLOPs of the CUDA cores
      issue_slots       instructions of single threads, whatever they do; an SM issues machine.ISSUE_LANES of them a cycle
      sfu_ops           special-function operations (exponentials, reciprocals)
      shared_bytes      bytes through the SM's shared memory
      l2_bytes          bytes asked of L2, reads and writes
      latency_s         what a CTA waits for whatever the bandwidths are: pipeline fill, dependent phases, epilogue.
                        Co-resident CTAs hide each other's; a CTA alone on its SM does not.
      bytes_in_flight   bytes the CTA keeps in flight; with the memory latency this caps its own bandwidth
                        (Little's law)
      chained           each load waits for the one before it, so that it pays L2's latency or HBM's by what L2 holds;
                        loads of other kernels run ahead, and are held to HBM's
    Per kernel:
      reads, writes     unique bytes by tensor; what HBM moves follows from what L2 holds
      link_bytes        bytes that arrive over the link from other GPUs meanwhile
      link_efficiency   attained share of the link's bandwidth: flags beside the payload, channels that wait
      copy_bytes        bytes that a copy engine moves between device and host; then no CTA works
      copy_bytes_per_s  at which rate, the host's memory and the link to it considered; 0: the device's host_copy_bytes_per_s
      kinds             the kinds of CTA, in the order of dispatch; none where all are alike
      hbm_reread_bytes  bytes fetched again because the working set of a wave outgrows L2
      repeated_hbm_bytes  bytes to and from HBM when a benchmark launches the operator again and again on the same input
                        with other weights, so that L2 holds some of it already; None: nothing is known, L2 is cold
      host_s            what the library's own code on the host takes to launch it, where a benchmark calls it without a graph, so
                        that no shorter time is seen; whole inferences have a host of their own
      start_s           what passes before its first CTAs work, once a launch; None: the device's start_s
      flops             useful FLOPs, without padding: for reports
      tensor_efficiency attained share of the tensor cores' peak while the pipeline is full
      memory_efficiency attained share of the attainable HBM and L2 bandwidth, below 1 for uncoalesced access
      hbm_stall         share of the time its HBM traffic takes in which the instructions of its CTAs stand still: loads
                        that miss L2 and index arithmetic alternate, and too few warps are ready to fill the gaps
    """

    name: str
    family: str
    grid: int
    threads: int = 128
    registers: int = 64
    shared_memory_bytes: int = 0
    tensor_flops: float = 0.0
    tensor_dtype: str = "fp16"
    tensor_efficiency: float = 1.0
    fp32_flops: float = 0.0
    issue_slots: float = 0.0
    sfu_ops: float = 0.0
    shared_bytes: float = 0.0
    l2_bytes: float = 0.0
    latency_s: float = 0.0
    bytes_in_flight: float = float("inf")
    chained: bool = False
    memory_efficiency: float = 1.0
    hbm_stall: float = 0.0
    reads: tuple[Access, ...] = ()
    writes: tuple[Access, ...] = ()
    link_bytes: float = 0.0
    link_efficiency: float = 1.0
    copy_bytes: float = 0.0
    copy_bytes_per_s: float = 0.0
    hbm_reread_bytes: float = 0.0
    repeated_hbm_bytes: float | None = None
    flops: float = 0.0
    kinds: tuple[CtaKind, ...] = ()
    host_s: float = 0.0
    start_s: float | None = None

    def __post_init__(self) -> None:
        if self.grid < 1:
            raise ValueError(f"kernel {self.name}: grid must be at least 1 CTA, not {self.grid}")
        if self.kinds:
            self._check_kinds()

    def _check_kinds(self) -> None:
        ctas = sum(kind.ctas for kind in self.kinds)
        if ctas != self.grid or min(kind.ctas for kind in self.kinds) < 1:
            raise ValueError(f"kernel {self.name}: kinds of {ctas} CTAs in a grid of {self.grid}")
        for what in ("work", "latency"):
            mean = sum(kind.ctas * getattr(kind, what) for kind in self.kinds) / ctas
            if not math.isclose(mean, 1.0, rel_tol=1e-6):
                raise ValueError(
                    f"kernel {self.name}: {what} of its kinds is {mean} on average; it must be 1"
                )

    @property
    def cta_kinds(self) -> tuple[CtaKind, ...]:
        """The kinds of CTA, in the order of dispatch."""
        return self.kinds or (CtaKind(self.grid),)

    @property
    def read_bytes(self) -> float:
        return sum([access.nbytes for access in self.reads])

    @property
    def written_bytes(self) -> float:
        return sum([access.nbytes for access in self.writes])

    @property
    def wire_bytes(self) -> float:
        """What `link_bytes` occupy the link for, in bytes at its full rate."""
        return self.link_bytes / self.link_efficiency

    def started_s(self, hardware: Hardware) -> float:
        """Seconds from its start on the device to the work of its first CTAs, their latency apart."""
        return hardware.start_s if self.start_s is None else self.start_s

    @property
    def unique_bytes(self) -> float:
        """Bytes that a cold L2 must fetch once, plus bytes written."""
        return self.read_bytes + self.written_bytes


def check(kernel: Kernel, hardware: Hardware) -> None:
    """What every kernel must be when it leaves lowering: finite, at least nothing, small enough for an SM.

    Raises:
        InputError: a CTA does not fit on an SM of this device.
        ValueError: a figure that no work can have: a bug in a kernel model.
    """
    amounts = (
        kernel.tensor_flops, kernel.fp32_flops, kernel.issue_slots, kernel.sfu_ops, kernel.shared_bytes, kernel.l2_bytes,
        kernel.latency_s, kernel.link_bytes, kernel.copy_bytes, kernel.copy_bytes_per_s, kernel.hbm_reread_bytes,
        kernel.unique_bytes, kernel.flops, kernel.started_s(hardware),
    )  # fmt: skip
    for amount in amounts:
        if not 0 <= amount < math.inf:
            raise ValueError(
                f"kernel {kernel.name}: an amount of work below nought or without end: {amounts}"
            )
    shares = (kernel.tensor_efficiency, kernel.memory_efficiency, kernel.link_efficiency)
    if not all(0 < share < math.inf for share in shares) or not kernel.bytes_in_flight > 0:
        raise ValueError(
            f"kernel {kernel.name}: it could never end: {shares}, {kernel.bytes_in_flight} bytes in flight"
        )
    if not kernel.copy_bytes:
        ctas_per_sm(kernel, hardware)


class Occupying(Protocol):
    """What takes room on an SM: a kernel's CTA, or the tile of a kernel that is still to be chosen."""

    @property
    def name(self) -> str: ...

    @property
    def threads(self) -> int: ...

    @property
    def registers(self) -> int: ...

    @property
    def shared_memory_bytes(self) -> int: ...


def ctas_per_sm(kernel: Occupying, hardware: Hardware) -> int:
    """Resident CTAs of `kernel` on one SM: the occupancy limit of threads, registers, shared memory and slots.

    Registers are given out per warp in units of 256, shared memory with 1 KiB of the system's per CTA
    (CUDA C++ Programming Guide, section on occupancy).

    Raises:
        InputError: a single CTA does not fit on the SM.
    """
    warps = -(-kernel.threads // 32)
    registers_per_warp = -(-kernel.registers * 32 // 256) * 256
    limits = (
        hardware.max_ctas_per_sm,
        hardware.max_threads_per_sm // (warps * 32),
        hardware.registers_per_sm // max(registers_per_warp * warps, 1),
        hardware.shared_memory_per_sm_bytes // (kernel.shared_memory_bytes + 1024)
        if kernel.shared_memory_bytes
        else hardware.max_ctas_per_sm,
    )
    fits = int(min(limits))
    if fits < 1:
        raise InputError(
            f"kernel {kernel.name}: a CTA of {kernel.threads} threads, {kernel.registers} registers and "
            f"{kernel.shared_memory_bytes} bytes of shared memory does not fit on an SM of {hardware.name}"
        )
    return fits
