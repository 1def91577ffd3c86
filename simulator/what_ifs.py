"""What a run would take with more of one of the device's resources: which of them is worth having more of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from simtti.errors import InputError
from simtti.hw_configs.hardware import Hardware
from simtti.hw_configs.hosts import Host
from simtti.simulator.engine.simulation import simulate
from simtti.simulator.result import Result

MORE = 1.1
# Name, what is more of it, fields of the device; of fields in seconds, less.
_RESOURCES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("Tensor cores", "FLOPs a cycle of each", tuple(f"tensor_{name}_flops_per_cycle_sm" for name in ("fp16", "tf32", "fp8", "fp4", "int8", "int4"))),
    ("CUDA cores", "FP32 and special functions a cycle", ("fp32_flops_per_cycle_sm", "sfu_ops_per_cycle_sm")),
    ("SMs", "of them, with their tensor cores", ("sm_count",)),
    ("SM clock", "Hz, at the voltage that takes", ("clock_hz",)),
    ("Shared memory", "bytes a cycle", ("shared_memory_bytes_per_cycle_sm",)),
    ("L2 bandwidth", "bytes a second, and a cycle of each SM", ("l2_bytes_per_s", "l2_bytes_per_cycle_sm")),
    ("L2 capacity", "bytes", ("l2_capacity_bytes",)),
    ("HBM bandwidth", "bytes a second", ("hbm_bytes_per_s",)),
    ("HBM latency", "less time", ("hbm_latency_s",)),
    ("Kernel launches", "less time between two kernels, and of their starts", ("launch_s", "start_s")),
    ("Power limit", "watts", ("power_limit_w",)),
)  # fmt: skip
_LINK = ("Link between GPUs", "bytes a second", ("link_bytes_per_s",))
_COPIES = ("Link to the host", "bytes a second", ("host_copy_bytes_per_s", "host_link_bytes_per_s"))
_HOST = ("Host", "of all it does in a second")


class WhatIf(NamedTuple):
    """What the inference would take, in seconds, with MORE times as much of a resource. more: of what, in words."""

    resource: str
    more: str
    latency_s: float


def what_ifs(result: Result) -> list[WhatIf]:
    """Each main resource MORE times as good, everything else as it is, the fastest first. None where kernels have measured times, which
    no resource changes, and of a stage of a pipeline over GPUs, whose waits for the others are worked out beforehand.

    In the closed form, in which kernels do not contend: the run's latency times the ratio of the closed form's.
    """
    if result.timing != "model" or (result.several_gpus and result.several_gpus.pipefusion > 1):
        return []
    # What the layout changes has been changed in the trace.
    policy = replace(result.policy, layout="recorded")

    def latency_s(hardware: Hardware, host: Host) -> float:
        return simulate(result.trace, hardware, host, policy, "closed").latency_s

    base_s = latency_s(result.hardware, result.host)
    found = [
        WhatIf(name, more, result.latency_s * latency_s(device, result.host) / base_s)
        for name, more, device in _devices(result)
    ]
    faster_s = latency_s(result.hardware, result.host.faster(MORE))
    found.append(WhatIf(*_HOST, result.latency_s * faster_s / base_s))
    return sorted(found, key=lambda each: each.latency_s)


def _devices(result: Result) -> Iterator[tuple[str, str, Hardware]]:
    """Those that a device file could say: an efficient resource may have no room for more."""
    resources = list(_RESOURCES)
    if result.several_gpus:
        resources.append(_LINK)
    if "offload" in result.trace.options:
        resources.append(_COPIES)
    for name, more, fields in resources:
        values = {field: float(getattr(result.hardware, field)) for field in fields}
        changes = {field: _more(field, value) for field, value in values.items() if value}
        try:
            yield name, more, result.hardware.replace(**changes)
        except InputError:
            continue


def _more(field: str, value: float) -> float:
    if field.endswith("_s") and not field.endswith("per_s"):
        return value / MORE
    return round(value * MORE) if field == "sm_count" else value * MORE
