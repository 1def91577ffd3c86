"""A kernel's time alone on an idle device in closed form, what it demands of the device, and what keeps it busy.

The simulation must agree with it wherever nothing overlaps (tests say so). Lowering uses it to choose tiles as a library's
heuristics do, by predicted time; `--fidelity closed` runs whole inferences on it.
"""

from __future__ import annotations

from typing import NamedTuple

from simtti.hw_configs.hardware import Hardware
from simtti.simulator.kernel import Kernel, ctas_per_sm
from simtti.simulator.kernels.machine import ISSUE_LANES
from simtti.simulator.list_schedule import CtaTimes, list_schedule_s


class Demand(NamedTuple):
    """A kernel's demand per CTA in the simulation's units: seconds of an SM's pipe at full rate, bytes of L2 and HBM.

    floor_s is the time a CTA needs alone on an idle device: its latency plus its slowest pipe or its own bandwidth cap.
    own_bytes_per_s is what its bytes in flight let it move.
    latency_s is the kernel's: in the first wave all CTAs wait for it in step, so that nothing hides it.
    """

    tensor_s: float
    fp32_s: float
    issue_s: float
    sfu_s: float
    shared_s: float
    l2_port_s: float
    l2_bytes: float
    hbm_bytes: float
    floor_s: float
    latency_s: float
    own_bytes_per_s: float

    @property
    def own_s(self) -> float:
        """What a CTA alone on an idle device takes beside its latency."""
        return self.floor_s - self.latency_s

    @property
    def local_s(self) -> float:
        """Of the SM's pipes the busiest."""
        return max(self.sm_s)

    @property
    def sm_s(self) -> tuple[float, ...]:
        """The SM-local part, in the order of RESOURCES."""
        return (self.tensor_s, self.fp32_s, self.issue_s, self.sfu_s, self.shared_s, self.l2_port_s)


def demand(kernel: Kernel, hardware: Hardware, hbm_bytes: float) -> Demand:
    """What each CTA of `kernel` demands of `hardware`.

    hbm_bytes: bytes the whole kernel moves to and from HBM, after what L2 keeps; shared evenly by the CTAs.
    """
    clock = hardware.clock_hz
    tensor_s = kernel.tensor_flops / (
        hardware.tensor_flops_per_cycle_sm(kernel.tensor_dtype) * clock * kernel.tensor_efficiency
    )
    fp32_s = kernel.fp32_flops / (hardware.fp32_flops_per_cycle_sm * clock)
    issue_s = kernel.issue_slots / (ISSUE_LANES * clock)
    if kernel.hbm_stall:
        at_once = min(kernel.grid, hardware.sm_count)
        issue_s += kernel.hbm_stall * hbm_bytes / kernel.grid * at_once / hardware.hbm_attained_bytes_per_s
    sfu_s = kernel.sfu_ops / (hardware.sfu_ops_per_cycle_sm * clock)
    shared_s = kernel.shared_bytes / (hardware.shared_memory_bytes_per_cycle_sm * clock)
    l2_bytes = kernel.l2_bytes / kernel.memory_efficiency
    l2_port_s = l2_bytes / (hardware.l2_bytes_per_cycle_sm * clock)
    hbm = hbm_bytes / kernel.grid / kernel.memory_efficiency
    own = kernel.bytes_in_flight / trip_s(kernel, hardware, hbm_bytes)
    floor_s = kernel.latency_s + max(
        tensor_s,
        fp32_s,
        issue_s,
        sfu_s,
        shared_s,
        l2_port_s,
        max(l2_bytes, hbm) / own,
        l2_bytes / hardware.l2_attained_bytes_per_s,
        hbm / hardware.hbm_attained_bytes_per_s,
    )
    return Demand(
        tensor_s, fp32_s, issue_s, sfu_s, shared_s, l2_port_s, l2_bytes, hbm, floor_s, kernel.latency_s, own
    )


def trip_s(kernel: Kernel, hardware: Hardware, hbm_bytes: float) -> float:
    """Seconds that a CTA's bytes are in flight: HBM's latency, or that and L2's by where a chain of loads finds them."""
    if not kernel.chained:
        return hardware.hbm_latency_s
    missed = min(1.0, hbm_bytes / kernel.unique_bytes)
    return missed * hardware.hbm_latency_s + (1 - missed) * hardware.l2_latency_s


def cold_hbm_bytes(kernel: Kernel) -> float:
    """HBM bytes of `kernel` when L2 holds nothing of its operands and must write back all it writes."""
    return kernel.unique_bytes + kernel.hbm_reread_bytes


def repeated_hbm_bytes(kernel: Kernel) -> float:
    """HBM bytes of `kernel` launched again and again, as benchmarks do; cold where that is not known."""
    return cold_hbm_bytes(kernel) if kernel.repeated_hbm_bytes is None else kernel.repeated_hbm_bytes


def lone_time_s(kernel: Kernel, hardware: Hardware, hbm_bytes: float | None = None) -> float:
    """Closed form of `kernel` alone on an idle device, in seconds: launch, start, full waves and the last partial wave.

    The CTAs of the first wave start in step and wait for their latency together; later ones hide theirs behind others.

    The simulation must agree with it (a test says so); lowering uses it to choose tiles as a library's
    heuristics do, by predicted time. hbm_bytes: those of a repeated launch if not given.
    """
    return hardware.launch_s + lone_execution_s(kernel, hardware, hbm_bytes)


def lone_execution_s(kernel: Kernel, hardware: Hardware, hbm_bytes: float | None = None) -> float:
    """`lone_time_s` without the launch: from the kernel's start to its end."""
    need = demand(kernel, hardware, repeated_hbm_bytes(kernel) if hbm_bytes is None else hbm_bytes)
    if kernel.copy_bytes:
        return kernel.started_s(hardware) + max(
            copy_s(kernel, hardware),
            need.hbm_bytes / hardware.hbm_attained_bytes_per_s,
        )
    sms = hardware.sm_count
    per_sm = ctas_per_sm(kernel, hardware)
    if kernel.kinds:
        in_flight_s = max(need.l2_bytes, need.hbm_bytes) / need.own_bytes_per_s
        times = CtaTimes(
            need.local_s, spread_s(need, hardware), in_flight_s, need.own_s, need.latency_s,
            kernel.started_s(hardware), hardware.dispatch_s,
        )  # fmt: skip
        time_s = list_schedule_s(kernel.kinds, times, sms, per_sm)
    else:
        slots = per_sm * sms
        waves, rest = divmod(kernel.grid, slots)
        local, spread = need.local_s, spread_s(need, hardware)
        own_s = need.own_s
        time_s = kernel.started_s(hardware) + need.latency_s
        if waves:
            full_s = max(local * per_sm, spread * slots)
            time_s += (
                max(own_s, full_s) + (waves - 1) * max(need.floor_s, full_s) + waves * hardware.dispatch_s
            )
        if rest:
            least_s = need.floor_s if waves else own_s
            time_s += max(least_s, local * -(-rest // sms), spread * rest) + hardware.dispatch_s
    return max(time_s, link_s(kernel, hardware)) if kernel.link_bytes else time_s


def spread_s(need: Demand, hardware: Hardware) -> float:
    """Seconds for which a CTA keeps the busier of L2 and HBM busy, which all SMs share."""
    return max(
        need.l2_bytes / hardware.l2_attained_bytes_per_s, need.hbm_bytes / hardware.hbm_attained_bytes_per_s
    )


def tail_s(kernel: Kernel, hardware: Hardware, hbm_bytes: float) -> float:
    """Seconds from the placement of the last CTAs of `kernel`, alone on the device, to its end: its last wave. None of it where
    kinds of CTA differ: the order of their ends says nothing simple."""
    if kernel.copy_bytes or kernel.kinds:
        return 0.0
    need = demand(kernel, hardware, hbm_bytes)
    sms, per_sm = hardware.sm_count, ctas_per_sm(kernel, hardware)
    waves, rest = divmod(kernel.grid, per_sm * sms)
    last = rest or per_sm * sms
    least_s = need.floor_s if waves and (rest or waves > 1) else kernel.started_s(hardware) + need.floor_s
    return max(least_s, need.local_s * -(-last // sms), spread_s(need, hardware) * last)


def link_s(kernel: Kernel, hardware: Hardware) -> float:
    """Seconds from the start of `kernel` until what comes over the link has arrived."""
    return kernel.started_s(hardware) + kernel.latency_s + kernel.wire_bytes / hardware.link_bytes_per_s


def copy_s(kernel: Kernel, hardware: Hardware) -> float:
    """Seconds for which a copy between device and host keeps a copy engine busy."""
    return kernel.copy_bytes / (kernel.copy_bytes_per_s or hardware.host_copy_bytes_per_s)


class Busy(NamedTuple):
    """Seconds for which a kernel keeps each resource busy, the SMs' own on the average SM; whatever else runs beside it, what it
    asks of them is the same."""

    tensor: float = 0.0
    fp32: float = 0.0
    issue: float = 0.0
    sfu: float = 0.0
    shared: float = 0.0
    l2_port: float = 0.0
    l2: float = 0.0
    hbm: float = 0.0
    link: float = 0.0
    copy: float = 0.0

    def at(self, clock: float) -> Busy:
        """The same at `clock`, a share of the clock they are for: the SMs' pipes take longer."""
        return Busy._make((*(seconds / clock for seconds in self[:SM_RESOURCES]), *self[SM_RESOURCES:]))


RESOURCES = Busy._fields
SM_RESOURCES = RESOURCES.index("l2")  # how many of them are an SM's own
# A kernel keeps no resource busy for this share of its time: what holds it back is latency, its tail or its start.
LATENCY_BOUND_BELOW = 0.5


def busy(kernel: Kernel, hardware: Hardware, hbm_bytes: float) -> Busy:
    """What `kernel` asks of each resource at the hardware's clock."""
    need = demand(kernel, hardware, hbm_bytes)
    hbm = need.hbm_bytes * kernel.grid / hardware.hbm_attained_bytes_per_s
    if kernel.copy_bytes:
        return Busy(hbm=hbm, copy=copy_s(kernel, hardware))
    per_sm = kernel.grid / hardware.sm_count
    own = Busy(*(seconds * per_sm for seconds in need.sm_s))
    l2 = need.l2_bytes * kernel.grid / hardware.l2_attained_bytes_per_s
    link = kernel.wire_bytes / hardware.link_bytes_per_s if kernel.link_bytes else 0.0
    return own._replace(l2=l2, hbm=hbm, link=link)


def bottleneck(spent: Busy, duration_s: float) -> str:
    """What limits a kernel in an inference: the resource that it keeps busy for longest over its simulated `duration_s`, or
    'latency' where none is busy half of the time. Cheap, for every kernel of every design; `judge.causes` divides the time of a
    kernel alone among its causes, partial waves among them, at twenty times the cost."""
    longest = max(spent)
    if longest < LATENCY_BOUND_BELOW * duration_s:
        return "latency"
    return RESOURCES[spent.index(longest)]
