"""The governor: windows within the power limit, nothing lost below it, what waits for the host cools the board."""

import dataclasses
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simtti
from simtti.hw_configs.devices import load
from simtti.simulator.closed_form import lone_execution_s
from simtti.simulator.engine import power
from simtti.simulator.engine.governor import Launched, govern
from simtti.simulator.kernel import Kernel

H100 = load("h100-sxm")
# A kernel that keeps all tensor cores busy for 5 ms, and one that streams through HBM for 4 ms.
PRODUCT = Kernel("product", "gemm", 132 * 100, threads=256, registers=200, tensor_flops=3.2e8)
STREAM = Kernel("stream", "memory", 132 * 64, l2_bytes=1e6)


def launched(kernel, hardware):
    hbm_bytes = kernel.l2_bytes * kernel.grid
    return Launched(
        kernel,
        hbm_bytes,
        lone_execution_s(kernel, hardware, hbm_bytes),
        power.energy(kernel, hbm_bytes, hardware),
    )


def mean_power_w(launches, governed, hardware):
    joules = sum(launch.energy.at(clock) for launch, clock in zip(launches, governed.clocks, strict=True))
    gaps_s = hardware.launch_s * len(launches)
    return hardware.static_power_w + joules / (sum(governed.seconds) + gaps_s)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    st.lists(st.sampled_from([PRODUCT, STREAM]), min_size=1, max_size=60),
    st.floats(250, 900),
)
def test_every_window_stays_within_the_limit(kernels, limit_w):
    device = dataclasses.replace(H100, power_limit_w=limit_w)
    launches = [launched(kernel, device) for kernel in kernels]
    governed = govern(launches, [0.0] * len(launches), device)
    for _, part in itertools.groupby(range(len(launches)), key=lambda at: governed.clocks[at]):
        inside = list(part)
        some = [launches[at] for at in inside]
        times = type(governed)(
            [governed.seconds[at] for at in inside], [governed.clocks[at] for at in inside], 0.0
        )
        assert mean_power_w(some, times, device) <= limit_w * (1 + 1e-6)
    for launch, seconds, clock in zip(launches, governed.seconds, governed.clocks, strict=True):
        assert clock <= 1.0
        assert seconds >= launch.boost_s * (1 - 1e-9)
    joules = sum(launch.energy.at(clock) for launch, clock in zip(launches, governed.clocks, strict=True))
    assert governed.energy_j == pytest.approx(joules)


def test_a_board_within_its_limit_runs_at_the_boost_clock():
    device = dataclasses.replace(H100, power_limit_w=5000.0)
    launches = [launched(PRODUCT, device)] * 20
    governed = govern(launches, [0.0] * 20, device)
    assert set(governed.clocks) == {1.0}
    assert governed.seconds == [launch.boost_s for launch in launches]


def test_the_memory_bound_kernel_loses_less_than_the_product():
    device = dataclasses.replace(H100, power_limit_w=400.0)
    launches = [launched(PRODUCT, device), launched(STREAM, device)] * 6
    governed = govern(launches, [0.0] * 12, device)
    product, stream = (governed.seconds[at] / launches[at].boost_s for at in (0, 1))
    assert product > 1.1
    assert 1.0 <= stream < product


def test_waiting_for_the_host_leaves_power_to_the_kernels():
    device = dataclasses.replace(H100, power_limit_w=450.0)
    products = [launched(PRODUCT, device)] * 20
    busy = govern(products, [0.0] * 20, device)
    waiting = govern(products, [0.04] * 20, device)
    assert busy.clocks[0] < 1.0
    assert set(waiting.clocks) == {1.0}


@pytest.mark.parametrize("limit_w", [250.0, 330.0])
def test_a_lower_limit_is_slower_and_is_kept_by_a_whole_inference(limit_w):
    device = dataclasses.replace(H100, power_limit_w=limit_w)
    free = simtti.run("stable-diffusion", H100, steps=4, batch=None, launch="graph")
    limited = simtti.run("stable-diffusion", device, steps=4, launch="graph")
    assert limited.latency_s > free.latency_s
    assert limited.power["clock"] < 1.0
    assert limited.power["average_w"] <= limit_w * (1 + 1e-6)
    assert limited.energy_j < free.energy_j  # a lower voltage
