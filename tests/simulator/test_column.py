"""Kernels side by side take what each takes alone: the closed form is one, for a kernel and for a column of them."""

import dataclasses

import numpy as np
import pytest

from simtti.hw_configs.devices import load
from simtti.simulator.closed_form import busy, lone_execution_s
from simtti.simulator.column import column, stands_in_column
from simtti.simulator.engine import power
from simtti.simulator.kernel import CtaKind, Kernel
from simtti.simulator.lowering.lower import Lowering
from simtti.simulator.policy import Policy
from simtti.workloads.record import workload_trace

DEVICES = [load(name) for name in ("h100-sxm", "a100-sxm", "l4")]


def kernels_of(name, hardware):
    """Those of a workload that stand in a column, and what each moves to and from HBM: nothing, a third, all."""
    lowering = Lowering(hardware, Policy())
    found = {
        id(kernel): kernel
        for phase in workload_trace(name).phases
        for step in phase.steps
        for lowered in lowering.lower_all(step.operators)
        for kernel in lowered.kernels
        if stands_in_column(kernel)
    }
    kernels = list(found.values())
    return kernels, [kernel.unique_bytes * (number % 3) / 2 for number, kernel in enumerate(kernels)]


@pytest.mark.parametrize("hardware", DEVICES, ids=lambda each: each.name)
def test_each_kernel_takes_asks_and_spends_what_it_does_alone(hardware):
    kernels, moved = kernels_of("stable-diffusion", hardware)
    side_by_side, bytes_of = column(kernels, hardware), np.array(moved)
    assert any(kernel.hbm_stall for kernel in kernels)
    assert any(kernel.chained for kernel in kernels)
    alone_s = lone_execution_s(side_by_side, hardware, bytes_of)
    seconds = busy(side_by_side, hardware, bytes_of)
    joules = power.energy(side_by_side, bytes_of, hardware, alone_s=alone_s)
    for number, (kernel, hbm_bytes) in enumerate(zip(kernels, moved, strict=True)):
        assert alone_s[number] == lone_execution_s(kernel, hardware, hbm_bytes)
        own = busy(kernel, hardware, hbm_bytes)
        assert [float(np.broadcast_to(each, len(kernels))[number]) for each in seconds] == list(own)
        assert tuple(each[number] for each in joules) == power.energy(kernel, hbm_bytes, hardware)


def test_a_slower_clock_is_the_same_for_a_column():
    hardware = DEVICES[0]
    kernels, moved = kernels_of("stable-diffusion", hardware)
    slower = power.at_clock(hardware, 0.7 * hardware.clock_hz)
    found = lone_execution_s(power.slowed(column(kernels, hardware), 0.7), slower, np.array(moved))
    alone = [
        lone_execution_s(power.slowed(kernel, 0.7), slower, hbm_bytes)
        for kernel, hbm_bytes in zip(kernels, moved, strict=True)
    ]
    assert found.tolist() == alone


def test_what_differs_within_a_kernel_stands_in_no_column():
    plain = Kernel("k", "gemm", 10, l2_bytes=1.0)
    assert stands_in_column(plain)
    assert not stands_in_column(dataclasses.replace(plain, kinds=(CtaKind(4), CtaKind(6))))
    assert not stands_in_column(dataclasses.replace(plain, copy_bytes=1.0))
    assert not stands_in_column(dataclasses.replace(plain, link_bytes=1.0))
