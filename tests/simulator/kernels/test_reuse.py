"""Answers that are kept for the devices that share what was read: the same as without, and for no others."""

import itertools

import pytest

from simtti.hw_configs.devices import load
from simtti.simulator.kernels.family import Target
from simtti.simulator.kernels.reuse import asked, by_what_it_reads
from simtti.simulator.lowering.lower import Lowering, alike
from simtti.simulator.lowering.registry import READ_FEW, TOGETHER
from simtti.simulator.policy import Policy
from simtti.workloads.record import workload_trace

H100 = load("h100-sxm")
NUMBERS = {
    "sm_count": 70, "clock_hz": 1.3e9, "l2_capacity_bytes": 3e6, "hbm_bytes_per_s": 5e12, "hbm_latency_s": 9e-7,
    "elementwise.thread_slots": 20.0, "max_threads_per_sm": 1024,
}  # fmt: skip


def target(device):
    return Target(device, Policy())


def test_devices_share_an_answer_where_they_share_what_was_read():
    calls = []

    @by_what_it_reads
    def function(subject, to):
        calls.append(subject)
        device = to.hardware
        return device.sm_count * (2 if device.multiplies("fp8") else 1), to.policy.attention_of("self")

    subject = object()
    first = function(subject, target(H100))
    assert first == (H100.sm_count * 2, "flash")
    assert function(subject, target(H100.replace(clock_hz=1.2e9, **{"gemm_mma.step_cycles": 50.0}))) is first
    assert function(subject, target(H100.replace(sm_count=99)))[0] == 198
    assert function(subject, target(H100.replace(tensor_fp8_flops_per_cycle_sm=0)))[0] == H100.sm_count
    assert function(subject, Target(H100, Policy(attention="efficient")))[1] == "efficient"
    assert len(calls) == 4
    assert function(object(), target(H100)) == first
    assert len(calls) == 5


def test_of_what_is_asked_the_answer_has_to_be_the_same():
    calls = []

    @asked
    def fits(nbytes, device):
        return nbytes <= device.l2_usable_bytes

    @by_what_it_reads
    def function(subject, to):
        calls.append(subject)
        return "fits" if fits(1e7, to.hardware) else "does not"

    subject = object()
    found = [function(subject, target(H100.replace(l2_capacity_bytes=each))) for each in (5e7, 4e7, 5e6, 4e6)]
    assert found == ["fits", "fits", "does not", "does not"]
    assert len(calls) == 2
    assert fits(1e7, H100)


def test_what_is_never_the_same_is_watched_for_a_while_and_stays_right():
    @by_what_it_reads
    def function(subject, to):
        return to.hardware.clock_hz

    subject = object()
    for clock_hz in [1e9 + 1e7 * step for step in range(30)]:
        assert function(subject, target(H100.replace(clock_hz=clock_hz))) == clock_hz


@pytest.mark.parametrize("workload", ["stable-diffusion-1.5", "make-a-video"])
def test_kernels_that_were_kept_are_those_that_a_device_of_its_own_gets(workload):
    """Devices that differ in numbers by turns, so that what one leaves behind meets the next."""
    steps = [step.operators for phase in workload_trace(workload).phases for step in phase.steps]
    operators = {kind: op for step in steps for kind, op in alike(step).members}
    kept = tuple(op for op in operators.values() if op.op in READ_FEW or op.op in TOGETHER)
    kinds = {}
    for op in kept:
        kinds.setdefault(op.op, []).append(op)
    some = tuple(itertools.chain.from_iterable(each[:8] for each in kinds.values()))
    assert len(kinds) > 8
    for name, value in NUMBERS.items():
        device = H100.replace(**{name: value})
        for found, op in zip(Lowering(device, Policy()).lower_all(some), some, strict=True):
            # The same operator as another object, which nothing was kept for.
            alone = Lowering(device, Policy()).lower(type(op)(*(getattr(op, each) for each in op.__slots__)))
            if op.op in TOGETHER:
                assert [_of_run(each) for each in found.kernels] == [_of_run(each) for each in alone.kernels]
            else:
                assert found == alone, (op.op, name)


def _of_run(kernel):
    """A kernel without what a benchmark that repeats it moves."""
    return [getattr(kernel, name) for name in kernel.__slots__ if name != "repeated_hbm_bytes"]
