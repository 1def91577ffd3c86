"""Many devices in one call give what each gives alone, to the last bit, or say why they do not."""

import dataclasses

import pytest
from recorded_traces import shipped

from simtti.errors import InputError
from simtti.hw_configs.devices import load
from simtti.hw_configs.hosts import load_host
from simtti.simulator.engine.simulation import simulate, simulate_many
from simtti.simulator.policy import Policy

HOST = load_host("default")
BASE = load("a100-sxm")
DEVICES = [
    dataclasses.replace(
        BASE, sm_count=60 + 7 * number, clock_hz=1e9 + 6e7 * number, l2_capacity_bytes=2e7 + 3e6 * number
    )
    for number in range(12)
]


def figures(result):
    return result.latency_s, result.energy_j, result.peak_memory_bytes, result.breakdown


@pytest.mark.parametrize(
    "policy",
    [Policy(), Policy(launch="compiled-graph"), Policy(attention="math", layout="channels-last")],
    ids=["eager", "compiled", "math"],
)
def test_each_gets_what_it_gets_alone(policy):
    trace = shipped("stable-diffusion-1.5")
    found = dict(simulate_many(trace, DEVICES, HOST, policy))
    assert sorted(found) == list(range(len(DEVICES)))
    for number in (0, 5, 11):
        alone = simulate(trace, DEVICES[number], HOST, policy, fidelity="closed")
        assert figures(found[number]) == figures(alone)
        assert found[number].hardware is DEVICES[number]


def test_one_that_cannot_run_it_says_so_and_costs_the_others_nothing():
    trace = shipped("stable-diffusion-1.5")
    small = dataclasses.replace(BASE, shared_memory_per_sm_bytes=16 * 1024)
    found = dict(simulate_many(trace, [small, *DEVICES[:9], small], HOST))
    assert {number for number, one in found.items() if isinstance(one, InputError)} == {0, 10}
    assert "no kernel of a matrix product in fp16 fits on an SM with 16,384 bytes of shared memory" in str(
        found[0]
    )
    assert figures(found[3]) == figures(simulate(trace, DEVICES[2], HOST, fidelity="closed"))


def test_each_may_have_a_host_of_its_own():
    trace = shipped("stable-diffusion-1.5")
    hosts = [HOST.faster(0.2), HOST.faster(5.0)]
    found = dict(simulate_many(trace, DEVICES[:2], hosts, fidelity="wave"))
    for number, host in enumerate(hosts):
        assert figures(found[number]) == figures(simulate(trace, DEVICES[number], host))


def test_a_fidelity_that_there_is_not_is_named():
    with pytest.raises(InputError, match="fidelity is 'fast'"):
        next(simulate_many(shipped("stable-diffusion-1.5"), DEVICES, HOST, fidelity="fast"))
