"""A kernel's time alone on an idle device in closed form, what it demands of the device, and what keeps it busy.

The simulation must agree with it wherever nothing overlaps (tests say so). Lowering uses it to choose tiles as a library's
heuristics do, by predicted time; `--fidelity closed` runs whole inferences on it.
"""

from __future__ import annotations

from typing import NamedTuple

from simtti.hw_configs.hardware import Hardware
from simtti.simulator.kernel import Kernel, ctas_per_sm
from simtti.simulator.kernels.machine import ISSUE_LANES


class Demand(NamedTuple):
    """A kernel's demand per CTA in the simulation's units: seconds of an SM's pipe at full rate, bytes of L2 and HBM.

    floor_s is the time a CTA needs alone on an idle device: its latency plus its slowest pipe or its own bandwidth cap.
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

    @property
    def sm_s(self) -> tuple[float, ...]:
        """The SM-local part, in the order of `sm.PIPES`."""
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
    own = kernel.bytes_in_flight / hardware.hbm_latency_s
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
        tensor_s, fp32_s, issue_s, sfu_s, shared_s, l2_port_s, l2_bytes, hbm, floor_s, kernel.latency_s
    )


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
    sms = hardware.sm_count
    slots = ctas_per_sm(kernel, hardware) * sms
    waves, rest = divmod(kernel.grid, slots)
    local = max(need.tensor_s, need.fp32_s, need.issue_s, need.sfu_s, need.shared_s, need.l2_port_s)
    spread = max(
        need.l2_bytes / hardware.l2_attained_bytes_per_s,
        need.hbm_bytes / hardware.hbm_attained_bytes_per_s,
    )
    own_s = need.floor_s - need.latency_s
    time_s = hardware.start_s + need.latency_s
    if waves:
        full_s = max(local * (slots // sms), spread * slots)
        time_s += max(own_s, full_s) + (waves - 1) * max(need.floor_s, full_s) + waves * hardware.dispatch_s
    if rest:
        least_s = need.floor_s if waves else own_s
        time_s += max(least_s, local * -(-rest // sms), spread * rest) + hardware.dispatch_s
    return max(time_s, link_s(kernel, hardware)) if kernel.link_bytes else time_s


def link_s(kernel: Kernel, hardware: Hardware) -> float:
    """Seconds from the start of `kernel` until what comes over the link has arrived."""
    return hardware.start_s + kernel.latency_s + kernel.link_bytes / hardware.link_attained_bytes_per_s


RESOURCES = ("tensor", "fp32", "issue", "sfu", "shared", "l2_port", "l2", "hbm")
# A kernel keeps no resource busy for this share of its time: what holds it back is latency, its tail or its start.
LATENCY_BOUND_BELOW = 0.5


def busy_s(kernel: Kernel, hardware: Hardware, hbm_bytes: float) -> dict[str, float]:
    """Seconds for which `kernel` keeps each of RESOURCES busy, the SM's own on the average SM."""
    need = demand(kernel, hardware, hbm_bytes)
    per_sm = kernel.grid / hardware.sm_count
    busy = {name: seconds * per_sm for name, seconds in zip(RESOURCES, need.sm_s, strict=False)}
    busy["l2"] = need.l2_bytes * kernel.grid / hardware.l2_attained_bytes_per_s
    busy["hbm"] = need.hbm_bytes * kernel.grid / hardware.hbm_attained_bytes_per_s
    return busy


def bottleneck(kernel: Kernel, hardware: Hardware, hbm_bytes: float, duration_s: float) -> str:
    """What limits `kernel` in an inference: the busiest of RESOURCES over its simulated `duration_s`, or 'latency' where
    none is busy half of the time. Cheap, for every kernel of every design; `validation.causes` divides the time of a
    kernel alone among its causes, partial waves among them, at twenty times the cost."""
    busy = busy_s(kernel, hardware, hbm_bytes)
    name = max(busy, key=lambda resource: busy[resource])
    return name if busy[name] >= LATENCY_BOUND_BELOW * duration_s else "latency"
