"""A kernel on a device: closed forms, both fidelities against each other, conservation, monotonicity."""

import dataclasses
import itertools

import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from simtti.errors import InputError
from simtti.hw_configs.devices import load
from simtti.simulator.closed_form import demand, lone_execution_s, lone_time_s, repeated_hbm_bytes
from simtti.simulator.engine.block_scheduler import HBM, L2, BlockScheduler, run_of
from simtti.simulator.engine.device import Device, execution_time_s, played_s
from simtti.simulator.kernel import Access, CtaKind, Kernel, ctas_per_sm

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


@given(kernels, st.sampled_from([0.0, 4e-6]))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_a_kernel_may_start_sooner_or_later_than_the_device_says(k, start_s):
    other = dataclasses.replace(k, start_s=start_s)
    for fidelity in ("wave", "cta"):
        took, as_ever = (run_mix([[(0.0, each)]], fidelity)[0] for each in (other, k))
        assert took - as_ever == pytest.approx(start_s - SMALL.start_s, abs=1e-12)
    assert lone_time_s(other, SMALL) - lone_time_s(k, SMALL) == pytest.approx(
        start_s - SMALL.start_s, abs=1e-12
    )


@given(kernels)
def test_a_lone_kernel_equals_its_closed_form(k):
    expected = lone_time_s(k, SMALL) - SMALL.launch_s
    assert execution_time_s(k, SMALL) == pytest.approx(expected, rel=1e-12)
    assert played_s(k, SMALL, repeated_hbm_bytes(k), "wave") == pytest.approx(expected, rel=1e-9)


@given(kernels)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_wave_and_cta_agree_on_a_lone_kernel(k):
    assert execution_time_s(k, SMALL, fidelity="cta") == pytest.approx(execution_time_s(k, SMALL), rel=1e-9)


def with_kinds(draw, k):
    """`k` with CTAs of several kinds, whose work and latency are 1 on average."""
    cuts = sorted(draw(st.sets(st.integers(1, k.grid - 1), min_size=1, max_size=4))) if k.grid > 1 else []
    sizes = [end - begin for begin, end in itertools.pairwise([0, *cuts, k.grid])]
    factors = []
    for _ in range(2):
        drawn = [draw(st.sampled_from([0.1, 0.5, 1.0, 2.0, 5.0])) for _ in sizes]
        mean = sum(size * factor for size, factor in zip(sizes, drawn, strict=True)) / k.grid
        factors.append([factor / mean for factor in drawn])
    kinds = tuple(CtaKind(*each) for each in zip(sizes, *factors, strict=True))
    return dataclasses.replace(k, kinds=kinds)


unequal = st.composite(lambda draw: with_kinds(draw, draw(kernels)))()


@given(unequal)
@settings(max_examples=120, deadline=None, derandomize=True)
def test_events_and_closed_form_agree_on_ctas_of_several_kinds(k):
    """Causal rows, edge tiles, sequences of different lengths: two ways of working them out, neither made from the other."""
    closed = lone_execution_s(k, SMALL)
    for fidelity in ("wave", "cta"):
        played = played_s(k, SMALL, repeated_hbm_bytes(k), fidelity)
        assert played == pytest.approx(closed, rel=0.01), fidelity


def run_mix(streams, fidelity):
    """Streams of (delay, kernel) on one device -> when the last kernel ended, and the device."""
    env = simpy.Environment()
    device = Device(env, SMALL, fidelity)

    def stream(items):
        for delay_s, k in items:
            yield env.timeout(delay_s)
            yield device.execute(k)

    env.run(until=env.all_of([env.process(stream(items)) for items in streams]))
    return env.now, device


mixes = st.lists(
    st.lists(st.tuples(st.floats(0, 3e-6), st.one_of(kernels, unequal)), min_size=1, max_size=3),
    min_size=1,
    max_size=4,
)


@given(mixes)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_wave_and_cta_agree_on_any_mix_of_kernels(streams):
    wave, _ = run_mix(streams, "wave")
    cta, _ = run_mix(streams, "cta")
    assert wave == pytest.approx(cta, rel=0.01)


@given(mixes)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_company_hardly_ever_helps_and_costs_no_more_than_taking_turns(streams):
    """Beside others a stream takes as long as by itself or longer, but for a dispatch that comes earlier for somebody else's sake
    and for the order in which lists are scheduled: a long CTA that comes to stand last ends late (Graham, 1969)."""
    together, _ = run_mix(streams, "wave")
    alone = [run_mix([items], "wave")[0] for items in streams]
    assert together >= max(alone) * (1 - 0.05)
    assert together <= sum(alone) * (1 + 0.3)


@given(st.lists(st.tuples(st.floats(0, 3e-6), st.one_of(kernels, unequal)), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_every_byte_is_moved_and_no_pipe_is_used_beyond_its_rate(launches):
    """Of kernels that all contend."""
    scheduler, at_s = BlockScheduler(SMALL, "wave"), 0.0
    needs = []
    for delay_s, k in launches:
        at_s += delay_s
        while scheduler.next_s < at_s:
            scheduler.advance(at_s)
        scheduler.advance(at_s)
        need = demand(k, SMALL, k.unique_bytes)
        scheduler.launch(run_of(k, need, SMALL))
        needs.append((k.grid, need))
    while scheduler.running:
        scheduler.advance(scheduler.next_s)
    moved = {"l2_bytes": scheduler.memories[L2], "hbm_bytes": scheduler.memories[HBM]}
    for name, memory in moved.items():
        asked = sum(grid * getattr(need, name) for grid, need in needs)
        assert memory.served == pytest.approx(asked, rel=1e-6, abs=1)
        assert memory.served <= memory.capacity * memory.busy_s * (1 + 1e-6)
    assert scheduler.placed == sum(grid for grid, _ in needs)
    for pipe in range(len(needs[0][1].sm_s)):
        work_s = sum(grid * need.sm_s[pipe] for grid, need in needs)
        assert work_s <= SMALL.sm_count * scheduler.now * (1 + 1e-6)


def stream_of(nbytes, grid=4000):
    """A kernel that the memory binds."""
    return kernel(grid, reads=(Access(1, nbytes),), l2_bytes=nbytes / grid, latency_s=1e-6)


def test_two_streams_of_bytes_share_the_memory():
    one, _ = run_mix([[(0.0, stream_of(4e8))]], "wave")
    two, device = run_mix([[(0.0, stream_of(4e8))], [(0.0, stream_of(4e8))]], "wave")
    assert two == pytest.approx(2 * one, rel=0.05)
    assert device.contended == 2


def test_a_product_hides_a_copy_and_a_stream_of_bytes_does_not():
    """From the host's memory as fast as HBM could take it."""
    device = dataclasses.replace(SMALL, host_copy_bytes_per_s=1e12)
    copy = kernel(copy_bytes=4e8, reads=(Access(1, 4e8),))
    product = kernel(4000, tensor_flops=3e7)
    copy_s = execution_time_s(copy, device)
    together = {}
    for k in (product, stream_of(1e9)):
        env = simpy.Environment()
        shared = Device(env, device)
        env.run(until=env.all_of([shared.execute(k), shared.execute(copy)]))
        together[k.tensor_flops > 0] = env.now / max(execution_time_s(k, device), copy_s)
    assert together[True] == pytest.approx(1.0, rel=0.02)
    assert together[False] > 1.1


def test_a_kernel_that_gets_company_late_has_done_what_it_had_done():
    first, second = kernel(2000, tensor_flops=3e7), kernel(20, tensor_flops=3e7)
    whole = execution_time_s(first, SMALL)
    end_s, _ = run_mix([[(0.0, first)], [(0.9 * whole, second)]], "wave")
    assert whole < end_s < 1.2 * whole


def test_what_comes_over_a_link_goes_on_beside_the_ctas():
    quick = kernel(20, tensor_flops=1e6, link_bytes=1e6)
    arrives_s = SMALL.start_s + 1e6 / SMALL.link_bytes_per_s
    assert execution_time_s(quick, SMALL) == pytest.approx(arrives_s)
    for fidelity in ("wave", "cta"):
        assert played_s(quick, SMALL, 0.0, fidelity) == pytest.approx(arrives_s)


@pytest.mark.parametrize("kinds", [(CtaKind(3), CtaKind(3)), (CtaKind(2, work=2.0), CtaKind(2, work=0.5))])
def test_kinds_that_do_not_add_up_are_a_bug(kinds):
    with pytest.raises(ValueError, match="kinds"):
        kernel(4, kinds=kinds)


def test_an_empty_kernel_takes_its_start():
    assert execution_time_s(kernel(), H100) == pytest.approx(H100.start_s + H100.dispatch_s)
    assert execution_time_s(kernel(start_s=3e-6), H100) == pytest.approx(3e-6 + H100.dispatch_s)


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
