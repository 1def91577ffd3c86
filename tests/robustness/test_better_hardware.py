"""Better hardware does not slow a run, power stays within the limit, phases add up: over workloads, datasheet fields and factors."""

import random
from dataclasses import replace
from functools import cache

import pytest

from simtti.hw_configs.devices import load
from simtti.simulator.run import run
from simtti.workloads.record import workload_trace

# What a library's choice may cost, which goes by the time of the kernel alone at the boost clock. A product that a faster device splits
# in k launches a second kernel: a run that waits for its host is slower by what the host spends on it (Parti, which is not among
# WORKLOADS, with half as much bandwidth again: 4.1 % on H100, 4.8 % on A100). Another tile of a convolution draws more: a board that
# its power limit holds runs slower (T4 with half as much shared memory again: 2.7 %). What is left is below 0.8 %: CTAs more at once
# end later together, and the last wave begins later.
LIBRARY_CHOICE = 1.03
MORE = (
    "clock_hz", "tensor_fp16_flops_per_cycle_sm", "tensor_tf32_flops_per_cycle_sm", "fp32_flops_per_cycle_sm", "sfu_ops_per_cycle_sm",
    "registers_per_sm", "shared_memory_per_sm_bytes", "shared_memory_bytes_per_cycle_sm", "max_threads_per_sm", "max_ctas_per_sm",
    "l2_capacity_bytes", "l2_bytes_per_cycle_sm", "l2_bytes_per_s", "hbm_bytes_per_s", "power_limit_w", "sm_count",
)  # fmt: skip
LESS = ("l2_latency_s", "hbm_latency_s")
WORKLOADS = ("phenaki", "muse", "stable-diffusion-1.5")
DEVICES = ("h100-sxm", "a100-sxm", "b200-sxm", "t4")
COMBINATIONS = random.Random(0).sample(
    [
        (workload, device, field, factor)
        for workload in WORKLOADS
        for device in DEVICES
        for field in (*MORE, *LESS)
        for factor in (1.1, 1.5, 2.0)
    ],
    24,
)
# A board that its power limit holds at half its clock: what it gains has to come out as speed, however far the clock falls.
HELD = [
    ("stable-diffusion-1.5", "t4", field, 2.0)
    for field in ("sm_count", "clock_hz", "tensor_fp16_flops_per_cycle_sm")
]


@cache
def trace(workload):
    return workload_trace(workload, steps=2)


@cache
def plain(workload, device):
    return run(trace(workload), device, fidelity="closed")


@pytest.mark.parametrize(("workload", "device", "field", "factor"), [*COMBINATIONS, *HELD])
def test_better_hardware_is_no_slower(workload, device, field, factor):
    before, hardware = plain(workload, device), load(device)
    value = getattr(hardware, field) * (factor if field in MORE else 1 / factor)
    value = int(value) if isinstance(getattr(hardware, field), int) else value
    after = run(trace(workload), replace(hardware, **{field: value}), fidelity="closed")
    assert after.latency_s <= before.latency_s * LIBRARY_CHOICE
    for result in (before, after):
        assert result.power["average_w"] <= result.power["peak_w"] <= result.hardware.power_limit_w
        assert sum(phase.latency_s for phase in result.phases) == pytest.approx(result.latency_s)
        assert sum(result.breakdown.values()) == pytest.approx(result.latency_s)
        assert all(0 <= share <= 1 for share in result.utilisation.values())
