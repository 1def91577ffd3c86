"""A kernel on a device: closed forms, both fidelities against each other, conservation, monotonicity."""

import dataclasses

import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from simtti.errors import InputError
from simtti.hw_configs.devices import load
from simtti.simulator.closed_form import demand, lone_time_s
from simtti.simulator.engine.device import Device, execution_time_s
from simtti.simulator.kernel import Access, Kernel, ctas_per_sm

H100 = load("h100-sxm")
SMALL = dataclasses.replace(H100, name="small", sm_count=20)


def kernel(grid=1, **fields):
    return Kernel(**{"name": "k", "family": "test", "grid": grid, **fields})


kernels = st.builds(
    Kernel,
    name=st.just("k"),
    family=st.just("test"),
    grid=st.one_of(st.integers(1, 450), st.sampled_from([20, 40, 160])),
    threads=st.sampled_from([32, 128, 256, 512, 1024]),
    registers=st.sampled_from([32, 64, 128]).filter(lambda r: r <= 64),
    shared_memory_bytes=st.sampled_from([0, 20_000, 60_000, 200_000]),
    tensor_flops=st.sampled_from([0.0, 1e6, 3e7]),
    fp32_flops=st.sampled_from([0.0, 1e5]),
    sfu_ops=st.sampled_from([0.0, 1e4]),
    shared_bytes=st.sampled_from([0.0, 1e5]),
    l2_bytes=st.sampled_from([0.0, 1e4, 5e5]),
    latency_s=st.sampled_from([0.0, 1e-6, 3e-6]),
    bytes_in_flight=st.sampled_from([float("inf"), 8192.0, 32768.0]),
    reads=st.sampled_from([(), (Access(1, 1e4),), (Access(1, 1e7),)]),
)


@given(kernels)
def test_a_lone_kernel_equals_its_closed_form(k):
    expected = lone_time_s(k, SMALL) - SMALL.launch_s
    assert execution_time_s(k, SMALL) == pytest.approx(expected, rel=1e-6)


@given(kernels)
@settings(max_examples=40, deadline=None)
def test_wave_and_cta_agree_on_a_lone_kernel(k):
    assert execution_time_s(k, SMALL, fidelity="cta") == pytest.approx(execution_time_s(k, SMALL), rel=1e-6)


def run_mix(streams, fidelity):
    """Streams of (delay, kernel) on one device -> when the last kernel ended, and the device."""
    env = simpy.Environment()
    device = Device(env, SMALL, fidelity)

    def stream(items):
        for delay_s, k in items:
            yield env.timeout(delay_s)
            yield device.execute(k)

    env.run(until=env.all_of([env.process(stream(items)) for items in streams]))
    device.hbm.settle()
    device.l2.settle()
    return env.now, device


mixes = st.lists(
    st.lists(st.tuples(st.floats(0, 3e-6), kernels), min_size=1, max_size=3), min_size=1, max_size=4
)


@given(mixes)
@settings(max_examples=60, deadline=None)
def test_wave_and_cta_agree_on_any_mix_of_kernels(streams):
    wave, _ = run_mix(streams, "wave")
    cta, _ = run_mix(streams, "cta")
    assert wave == pytest.approx(cta, rel=0.01)


@given(mixes)
@settings(max_examples=60, deadline=None)
def test_every_byte_is_moved_and_bandwidth_is_never_exceeded(streams):
    end_s, device = run_mix(streams, "wave")
    launched = [k for items in streams for _, k in items]
    needs = [(k.grid, demand(k, SMALL, k.unique_bytes)) for k in launched]
    assert device.hbm.served == pytest.approx(
        sum(grid * need.hbm_bytes for grid, need in needs), rel=1e-6, abs=1
    )
    assert device.l2.served == pytest.approx(
        sum(grid * need.l2_bytes for grid, need in needs), rel=1e-6, abs=1
    )
    assert device.hbm.served <= SMALL.hbm_attained_bytes_per_s * end_s * (1 + 1e-6)
    for pipe in range(5):
        work_s = sum(grid * need.sm_s[pipe] for grid, need in needs)
        assert work_s <= SMALL.sm_count * end_s * (1 + 1e-6)


def test_an_empty_kernel_takes_its_start():
    assert execution_time_s(kernel(), H100) == pytest.approx(H100.start_s + H100.dispatch_s)


def test_one_cta_takes_its_floor():
    one = kernel(latency_s=5e-6, tensor_flops=1e7)
    own = 5e-6 + 1e7 / (H100.tensor_flops_per_cycle_sm("fp16") * H100.clock_hz)
    assert execution_time_s(one, H100) == pytest.approx(H100.start_s + H100.dispatch_s + own)


def test_one_full_wave_takes_a_wave_and_one_cta_more_another():
    full = kernel(H100.sm_count, tensor_flops=1e9, shared_memory_bytes=200_000)
    assert ctas_per_sm(full, H100) == 1
    wave_s = execution_time_s(full, H100) - H100.start_s
    more = dataclasses.replace(full, grid=H100.sm_count + 1)
    assert execution_time_s(more, H100) - H100.start_s == pytest.approx(2 * wave_s)


def test_a_long_stream_attains_the_bandwidth():
    nbytes = 4e9
    stream = kernel(100_000, reads=(Access(1, nbytes),), l2_bytes=nbytes / 100_000, latency_s=1e-6)
    expected = nbytes / H100.hbm_attained_bytes_per_s
    assert execution_time_s(stream, H100) == pytest.approx(expected, rel=0.02)


@given(kernels, st.sampled_from(["clock_hz", "hbm_bytes_per_s", "l2_bytes_per_s"]), st.floats(1, 3))
def test_a_faster_device_is_never_slower(k, field, factor):
    faster = dataclasses.replace(SMALL, **{field: getattr(SMALL, field) * factor})
    assert execution_time_s(k, faster) <= execution_time_s(k, SMALL) * (1 + 1e-9)


def test_a_cta_that_does_not_fit_is_refused():
    with pytest.raises(InputError, match="does not fit"):
        execution_time_s(kernel(shared_memory_bytes=300_000), H100)
