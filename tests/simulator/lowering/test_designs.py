"""Operators lowered for many devices side by side are those that each device gets alone, to the last bit."""

import dataclasses
import random

import pytest
from one_of_each import one_of_each
from recorded_traces import shipped

from simtti.hw_configs.devices import load
from simtti.hw_configs.hardware import with_pytorch
from simtti.simulator.designs import Designs, groups, side_by_side
from simtti.simulator.lowering.designs import lower_side_by_side
from simtti.simulator.lowering.lower import Lowering, kinds_of
from simtti.simulator.policy import Policy, settled

FIELDS = (
    "sm_count", "clock_hz", "hbm_bytes_per_s", "l2_capacity_bytes", "l2_bytes_per_s", "hbm_latency_s", "l2_latency_s",
    "tensor_fp16_flops_per_cycle_sm", "fp32_flops_per_cycle_sm", "sfu_ops_per_cycle_sm", "shared_memory_bytes_per_cycle_sm",
)  # fmt: skip
BASES = {
    "wgmma": with_pytorch(load("h100-sxm"), "2.11"),
    "xmma": with_pytorch(load("h100-sxm"), "2.6"),
    "mma": load("a100-sxm"),
    "mma_registers": load("v100-sxm"),
    "tcgen05": load("b200-sxm"),
}


def designs_of(base, count, seed=0):
    """Devices that differ from `base` in everything that moves a tile or a byte, by up to three times."""
    chance = random.Random(seed)
    found = []
    for _ in range(count):
        own = {field: getattr(base, field) * chance.uniform(0.5, 1.7) for field in FIELDS}
        own["sm_count"] = round(own["sm_count"])
        found.append(dataclasses.replace(base, **own))
    return found


def check(steps, devices, policy):
    found = lower_side_by_side(steps, devices, policy)
    kinds = kinds_of(steps)
    for device, own in zip(devices, found, strict=True):
        alone = Lowering(device, policy)
        alone.lower_ahead(steps)
        assert not kinds.keys() - own.keys(), [kinds[kind].op for kind in kinds.keys() - own.keys()]
        for kind, operator in kinds.items():
            assert own[kind] == alone.lower(operator), operator
            assert own[kind].traits == alone.lower(operator).traits
            for one, other in zip(own[kind].kernels, alone.lower(operator).kernels, strict=True):
                assert type(one.grid) is int is type(other.grid)


@pytest.mark.parametrize("unit", BASES)
def test_devices_side_by_side_get_what_each_gets_alone(unit):
    trace = shipped("stable-diffusion-1.5")
    policy = settled(Policy(), trace)
    check(
        [step.operators for phase in trace.phases for step in phase.steps],
        designs_of(BASES[unit], 10),
        policy,
    )


@pytest.mark.parametrize("name", one_of_each())
def test_of_every_workload(name):
    trace = shipped(name)
    policy = settled(Policy(), trace)
    check(
        [step.operators for phase in trace.phases for step in phase.steps],
        designs_of(BASES["wgmma"], 2),
        policy,
    )


def test_devices_with_other_room_on_an_sm_stand_elsewhere():
    base = BASES["mma"]
    small = dataclasses.replace(base, shared_memory_per_sm_bytes=base.shared_memory_per_sm_bytes // 2)
    fitted = dataclasses.replace(base, parameters=dict(base.parameters))
    devices = [base, small, *designs_of(base, 3), fitted]
    assert list(groups(devices, 3)) == [[0, 2, 3], [4], [1], [5]]


def test_numbers_in_common_stay_numbers():
    base = BASES["mma"]
    faster = dataclasses.replace(base, clock_hz=2 * base.clock_hz)
    both = side_by_side([base, faster])
    assert isinstance(both, Designs)
    assert both.clock_hz.tolist() == [base.clock_hz, faster.clock_hz]
    assert both.sm_count == base.sm_count
    assert side_by_side([base]) is base
