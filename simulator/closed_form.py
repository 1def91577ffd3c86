"""A kernel's time alone on an idle device in closed form, what it demands of the device, and what keeps it busy.

The simulation must agree with it wherever nothing overlaps (tests say so). Lowering uses it to choose tiles as a library's
heuristics do, by predicted time; `--fidelity closed` runs whole inferences on it.

`demand`, `lone_execution_s` and `busy` read the same for one kernel and for a `Column` of them: numbers are then arrays, an entry a
kernel, and so are hbm_bytes.
"""

from __future__ import annotations

from typing import NamedTuple

from simtti.hw_configs.hardware import Hardware
from simtti.simulator.arithmetic import ARRAYS, NUMBERS, Arithmetic, Number
from simtti.simulator.column import Column
from simtti.simulator.kernel import Kernel, ctas_per_sm
from simtti.simulator.kernels.machine import ISSUE_LANES
from simtti.simulator.list_schedule import CtaTimes, list_schedule_s


class Demand(NamedTuple):
    """A kernel's demand per CTA in the simulation's units: seconds of an SM's pipe at full rate, bytes of L2 and HBM.

    floor_s is the time a CTA needs alone on an idle device: its latency plus its slowest pipe or its own bandwidth cap.
    own_bytes_per_s is what its bytes in flight let it move. spread_s is for how long it keeps the busier of L2 and HBM busy, which all
    SMs share.
    latency_s is the kernel's: in the first wave all CTAs wait for it in step, so that nothing hides it.
    """

    tensor_s: Number
    fp32_s: Number
    issue_s: Number
    sfu_s: Number
    shared_s: Number
    l2_port_s: Number
    l2_bytes: Number
    hbm_bytes: Number
    floor_s: Number
    latency_s: Number
    own_bytes_per_s: Number
    spread_s: Number

    @property
    def own_s(self) -> Number:
        """What a CTA alone on an idle device takes beside its latency."""
        return self.floor_s - self.latency_s

    @property
    def local_s(self) -> float:
        """Of the SM's pipes the busiest."""
        return max(self.sm_s)

    @property
    def sm_s(self) -> tuple[Number, ...]:
        """The SM-local part, in the order of RESOURCES."""
        return (self.tensor_s, self.fp32_s, self.issue_s, self.sfu_s, self.shared_s, self.l2_port_s)


def demand(kernel: Kernel | Column, hardware: Hardware, hbm_bytes: Number) -> Demand:
    """What each CTA of `kernel` demands of `hardware`.

    hbm_bytes: bytes the whole kernel moves to and from HBM, after what L2 keeps; shared evenly by the CTAs.
    """
    rate: Number
    if isinstance(kernel, Column):
        how, rate = ARRAYS, kernel.tensor_rate
    else:
        how, rate = NUMBERS, hardware.tensor_flops_per_cycle_sm(kernel.tensor_dtype)
    clock, hbm_bytes_per_s = hardware.clock_hz, hardware.hbm_attained_bytes_per_s
    tensor_s = kernel.tensor_flops / (rate * clock * kernel.tensor_efficiency)
    fp32_s = kernel.fp32_flops / (hardware.fp32_flops_per_cycle_sm * clock)
    at_once = how.least(kernel.grid, hardware.sm_count)
    stalled_s = kernel.hbm_stall * hbm_bytes / kernel.grid * at_once / hbm_bytes_per_s
    issue_s = kernel.issue_slots / (ISSUE_LANES * clock) + stalled_s
    sfu_s = kernel.sfu_ops / (hardware.sfu_ops_per_cycle_sm * clock)
    shared_s = kernel.shared_bytes / (hardware.shared_memory_bytes_per_cycle_sm * clock)
    l2_bytes = kernel.l2_bytes / kernel.memory_efficiency
    l2_port_s = l2_bytes / (hardware.l2_bytes_per_cycle_sm * clock)
    hbm = hbm_bytes / kernel.grid / kernel.memory_efficiency
    own = kernel.bytes_in_flight / trip_s(kernel, hardware, hbm_bytes)
    spread_s = how.largest(l2_bytes / hardware.l2_attained_bytes_per_s, hbm / hbm_bytes_per_s)
    floor_s = kernel.latency_s + how.largest(
        tensor_s,
        fp32_s,
        issue_s,
        sfu_s,
        shared_s,
        l2_port_s,
        how.largest(l2_bytes, hbm) / own,
        spread_s,
    )
    return Demand(
        tensor_s, fp32_s, issue_s, sfu_s, shared_s, l2_port_s, l2_bytes, hbm, floor_s, kernel.latency_s, own, spread_s,
    )  # fmt: skip


def trip_s(kernel: Kernel | Column, hardware: Hardware, hbm_bytes: Number) -> Number:
    """Seconds that a CTA's bytes are in flight: HBM's latency, or that and L2's by where a chain of loads finds them."""
    how = ARRAYS if isinstance(kernel, Column) else NUMBERS
    if how is NUMBERS and not kernel.chained:
        return hardware.hbm_latency_s
    missed = how.least(1.0, hbm_bytes / kernel.unique_bytes)
    chained_s = missed * hardware.hbm_latency_s + (1 - missed) * hardware.l2_latency_s
    return how.either(kernel.chained, chained_s, hardware.hbm_latency_s)


def cold_hbm_bytes(kernel: Kernel) -> float:
    """HBM bytes of `kernel` when L2 holds nothing of its operands and must write back all it writes."""
    return kernel.unique_bytes + kernel.hbm_reread_bytes


def repeated_hbm_bytes(kernel: Kernel) -> float:
    """HBM bytes of `kernel` launched again and again, as benchmarks do; cold where that is not known."""
    return cold_hbm_bytes(kernel) if kernel.repeated_hbm_bytes is None else kernel.repeated_hbm_bytes


def lone_time_s(kernel: Kernel | Column, hardware: Hardware, hbm_bytes: Number | None = None) -> Number:
    """Closed form of `kernel` alone on an idle device, in seconds: launch, start, full waves and the last partial wave.

    The CTAs of the first wave start in step and wait for their latency together; later ones hide theirs behind others.

    The simulation must agree with it (a test says so); lowering uses it to choose tiles as a library's
    heuristics do, by predicted time. hbm_bytes: those of a repeated launch if not given.
    """
    return hardware.launch_s + lone_execution_s(kernel, hardware, hbm_bytes)


def lone_execution_s(kernel: Kernel | Column, hardware: Hardware, hbm_bytes: Number | None = None) -> Number:
    """`lone_time_s` without the launch: from the kernel's start to its end. Of a column hbm_bytes have to be given."""
    if isinstance(kernel, Column):
        return _in_waves_s(
            kernel, hardware, demand(kernel, hardware, hbm_bytes), hardware.sm_count * kernel.per_sm, ARRAYS
        )
    need = demand(kernel, hardware, repeated_hbm_bytes(kernel) if hbm_bytes is None else hbm_bytes)
    if kernel.copy_bytes:
        return kernel.started_s(hardware) + max(
            copy_s(kernel, hardware),
            need.hbm_bytes / hardware.hbm_attained_bytes_per_s,
        )
    sms, per_sm = hardware.sm_count, ctas_per_sm(kernel, hardware)
    if kernel.kinds:
        in_flight_s = max(need.l2_bytes, need.hbm_bytes) / need.own_bytes_per_s
        times = CtaTimes(
            need.local_s, need.spread_s, in_flight_s, need.own_s, need.latency_s,
            kernel.started_s(hardware), hardware.dispatch_s,
        )  # fmt: skip
        time_s = list_schedule_s(kernel.kinds, times, sms, per_sm)
    else:
        time_s = _in_waves_s(kernel, hardware, need, sms * per_sm, NUMBERS)
    return max(time_s, link_s(kernel, hardware)) if kernel.link_bytes else time_s


def _in_waves_s(
    kernel: Kernel | Column, hardware: Hardware, need: Demand, slots: Number, how: Arithmetic
) -> Number:
    """Seconds of a grid of CTAs that are alike: full waves of `slots` at a time, and a last one of the rest."""
    sms, dispatch_s = hardware.sm_count, hardware.dispatch_s
    waves, rest = divmod(kernel.grid, slots)
    largest, local_s, own_s = how.largest, how.largest(*need.sm_s), need.own_s
    time_s = kernel.started_s(hardware) + need.latency_s
    if how.some(waves):
        full_s = largest(local_s * (slots // sms), need.spread_s * slots)
        waves_s = largest(own_s, full_s) + (waves - 1) * largest(need.floor_s, full_s) + waves * dispatch_s
        time_s = time_s + how.either(waves > 0, waves_s, 0.0)
    if how.some(rest):
        least_s = how.either(waves > 0, need.floor_s, own_s)
        rest_s = largest(least_s, local_s * -(-rest // sms), need.spread_s * rest) + dispatch_s
        time_s = time_s + how.either(rest > 0, rest_s, 0.0)
    return time_s


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
    return max(least_s, need.local_s * -(-last // sms), need.spread_s * last)


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


def busy(kernel: Kernel | Column, hardware: Hardware, hbm_bytes: Number) -> Busy:
    """What `kernel` asks of each resource at the hardware's clock."""
    need = demand(kernel, hardware, hbm_bytes)
    hbm = need.hbm_bytes * kernel.grid / hardware.hbm_attained_bytes_per_s
    link = 0.0
    if not isinstance(kernel, Column):
        if kernel.copy_bytes:
            return Busy(hbm=hbm, copy=copy_s(kernel, hardware))
        if kernel.link_bytes:
            link = kernel.wire_bytes / hardware.link_bytes_per_s
    per_sm = kernel.grid / hardware.sm_count
    own = Busy(*(seconds * per_sm for seconds in need.sm_s))
    l2 = need.l2_bytes * kernel.grid / hardware.l2_attained_bytes_per_s
    return own._replace(l2=l2, hbm=hbm, link=link)


def bottleneck(spent: Busy, duration_s: float) -> str:
    """What limits a kernel in an inference: the resource that it keeps busy for longest over its simulated `duration_s`, or
    'latency' where none is busy half of the time. Cheap, for every kernel of every design; `judge.causes` divides the time of a
    kernel alone among its causes, partial waves among them, at twenty times the cost."""
    longest = max(spent)
    if longest < LATENCY_BOUND_BELOW * duration_s:
        return "latency"
    return RESOURCES[spent.index(longest)]
