"""The power limit: energies add up, the clock falls where it must, and a better device is not slower for it."""

import dataclasses

import places
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtti.explore.design import make
from simtti.hw_configs.devices import load
from simtti.hw_configs.voltage import SWITCHED, VOLTAGE_FLOOR
from simtti.simulator.closed_form import lone_execution_s, lone_time_s
from simtti.simulator.engine import power
from simtti.simulator.engine.device import execution_time_s
from simtti.simulator.kernel import Kernel
from simtti.simulator.kernels.gemm import Gemm, gemm
from simtti.simulator.lowering.registry import kernels_of
from simtti.simulator.predict import benchmark_energy, operator_time_s, sustained_clock_hz, time_at_clock_s

A100, H100, H200 = load("a100-sxm"), load("h100-sxm"), load("h200-sxm")
MEASURED = places.MEASURED

devices = st.sampled_from([A100, H100, H200])
sizes = st.sampled_from([64, 512, 1024, 3000, 4096, 8192, 16384])
some = settings(max_examples=40, deadline=None, derandomize=True)


def without_limit(device):
    return dataclasses.replace(device, power_limit_w=1e5)


def sustained(kernels, device):
    """(clock, time, power) of an operator repeated without end."""
    clock_hz = sustained_clock_hz(kernels, device)
    clock, time_s = clock_hz / device.clock_hz, time_at_clock_s(kernels, device, clock_hz)
    spent = benchmark_energy(kernels, device)
    return clock, time_s, device.static_power_w + spent.at(clock) / time_s


def test_energy_is_that_of_the_kernels_flops_and_bytes():
    kernel = Kernel("k", "f", grid=10, tensor_flops=1e9, fp32_flops=1e6, l2_bytes=1e5)
    spent = power.energy(kernel, 1e6, H100)
    core_j = 1e10 * H100.tensor_j_per_flop + 1e7 * H100.fp32_j_per_flop + 1e6 * H100.l2_j_per_byte
    # Ten CTAs keep ten SMs' clocks running.
    core_j += 10 * lone_execution_s(kernel, H100, 1e6) * H100.clock_hz * H100.sm_cycle_j
    assert spent.core_j == pytest.approx(core_j)
    assert spent.memory_j == pytest.approx(1e6 * H100.hbm_j_per_byte)
    idle = power.energy(kernel, 1e6, H100, activity=0.0)
    assert idle.memory_j == 0.0
    assert 0.0 < idle.core_j < spent.core_j, "the clock runs whatever the operands do"


def test_a_clock_bound_work_of_twice_the_power_runs_at_the_cube_root():
    spent = power.Energy(2.0 * (power.held_power_w(H100) - H100.static_power_w), 0.0)
    clock = power.sustained_clock_hz(spent, lambda clock_hz: H100.clock_hz / clock_hz, H100) / H100.clock_hz
    assert clock == pytest.approx(0.5 ** (1 / 3), abs=0.002)


def test_voltage_has_a_floor():
    assert power.Energy(1.0, 0.0).at(0.2) == power.Energy(1.0, 0.0).at(VOLTAGE_FLOOR)
    assert power.Energy(0.0, 1.0).at(0.2) == 1.0, "HBM has a supply of its own"


@some
@given(sizes, sizes, sizes, devices)
def test_the_sustained_clock_keeps_to_the_limit_and_wastes_none_of_it(m, n, k, device):
    clock, _, power_w = sustained(gemm(Gemm(m, n, k, dtype="bf16"), device), device)
    assert 0.5 < clock <= 1
    assert power_w <= power.held_power_w(device) * 1.001
    if clock < 0.999:
        assert power_w > 0.98 * power.held_power_w(device)


def test_a_large_product_slows_down_and_a_stream_of_weights_does_not():
    clock, time_s, _ = sustained(gemm(Gemm(8192, 8192, 8192, dtype="bf16"), H100), H100)
    assert 0.75 < clock < 0.95
    assert time_s > 1.05 * operator_time_s(
        gemm(Gemm(8192, 8192, 8192, dtype="bf16"), H100), without_limit(H100)
    )
    stream = gemm(Gemm(4, 16384, 16384, dtype="bf16"), H100)
    _, time_s, _ = sustained(stream, H100)
    assert time_s == pytest.approx(sum(lone_time_s(kernel, H100) for kernel in stream), rel=0.02)


def test_only_what_outlasts_the_response_is_slowed():
    short, long = (
        gemm(Gemm(2048, 2048, 4096, dtype="bf16"), H100),
        gemm(Gemm(16384, 16384, 16384, dtype="bf16"), H100),
    )
    assert operator_time_s(short, H100) == operator_time_s(short, without_limit(H100))
    assert operator_time_s(long, H100) == pytest.approx(sustained(long, H100)[1], rel=0.02), (
        "after half a second the clock is the sustained one"
    )


@pytest.mark.parametrize("device", [A100, H100], ids=lambda device: device.name)
@pytest.mark.parametrize("size", [1024, 4096, 8192])
def test_fidelities_and_closed_form_agree_at_the_sustained_clock(device, size):
    kernels = gemm(Gemm(size, 4096, 8192, dtype="bf16"), device)
    clock_hz = sustained_clock_hz(kernels, device)
    slower, clock = power.at_clock(device, clock_hz), clock_hz / device.clock_hz
    closed_s = time_at_clock_s(kernels, device, clock_hz)
    for fidelity in ("wave", "cta"):
        simulated_s = sum(
            device.launch_s + execution_time_s(power.slowed(kernel, clock), slower, fidelity=fidelity)
            for kernel in kernels
        )
        assert simulated_s == pytest.approx(closed_s, rel=0.01)


@some
@given(
    sizes,
    sizes,
    sizes,
    devices,
    st.sampled_from(["clock_hz", "hbm_bytes_per_s", "l2_bytes_per_s", "power_limit_w"]),
)
def test_a_better_device_is_not_slower_at_its_limit(m, n, k, device, field):
    better = dataclasses.replace(device, **{field: getattr(device, field) * 1.3})
    times = [operator_time_s(gemm(Gemm(m, n, k, dtype="bf16"), each), each) for each in (device, better)]
    assert times[1] <= 1.02 * times[0]


@pytest.mark.skipif(not MEASURED.exists(), reason=f"no measurements at {MEASURED}")
def test_board_power_of_long_products():
    """Sampled every 100 ms over a run of 0.3 to 1 s: what takes less than 60 us a launch is over before the sensor
    follows (3,000 replays of six launches at most)."""
    import pandas as pd

    table = pd.read_parquet(MEASURED / "gemm_power.parquet")
    table = table[table.time_us > 60].sample(400, random_state=3)
    predicted = [
        sustained(gemm(Gemm(row.m, row.n, row.k, dtype="bf16"), H200), H200)[2] for row in table.itertuples()
    ]
    assert abs(predicted / table.power_w - 1).mean() < 0.15


@pytest.mark.parametrize("lanes", [0.5, 2.0])
def test_an_instruction_costs_the_same_whatever_the_number_of_fp32_lanes(lanes):
    row = {"op": "layer_norm", "rows": 4096, "cols": 1280, "dtype": "fp16"}
    fields = {"fp32_flops_per_cycle_sm": H100.fp32_flops_per_cycle_sm * lanes}
    spent = [
        power.total(power.energy(kernel, 0.0, device) for kernel in kernels_of(row, device)).core_j
        for device in (H100, dataclasses.replace(H100, **fields))
    ]
    assert spent[0] == pytest.approx(spent[1], rel=1e-12)


@pytest.mark.parametrize(
    "work", ["sfu_ops", "shared_bytes", "issue_slots", "fp32_flops", "tensor_flops", "l2_bytes"]
)
def test_all_work_costs_energy(work):
    kernel = Kernel("k", "test", 132, **{work: 1e6})
    assert power.energy(kernel, 0.0, H100).core_j > 0


@pytest.mark.parametrize("share", [0.5, 0.8, 1.1])
def test_a_device_file_at_another_clock_has_the_energies_that_explore_gives_it(tmp_path, share):
    path = tmp_path / "slow.yaml"
    clock_hz = share * H100.clock_hz
    path.write_text(
        f"base: h100-sxm\nname: slow\ndatasheet:\n  clock_hz: {{value: {clock_hz!r}, source: 'what if'}}\n"
    )
    device, design = load(str(path)), make("h100-sxm", {"clock_hz": clock_hz}).hardware
    for name in SWITCHED:
        assert getattr(device, name) == pytest.approx(getattr(design, name), rel=1e-12), name
        assert getattr(device, name) == pytest.approx(
            getattr(H100, name) * max(share, VOLTAGE_FLOOR) ** 2, rel=1e-12
        )
    assert device.hbm_j_per_byte == H100.hbm_j_per_byte
