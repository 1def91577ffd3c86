"""Weights with channels last: what convolutions and norms launch then, and where views lead."""

import pytest

from simtti.errors import InputError
from simtti.hw_configs.devices import load
from simtti.simulator.lowering.channels_last import channels_last
from simtti.simulator.lowering.lower import Lowering
from simtti.simulator.policy import Policy
from simtti.simulator.run import run
from simtti.workloads.record import workload_trace

H100 = load("h100-sxm")


@pytest.fixture(scope="module")
def steps():
    """A step of Stable Diffusion's UNet as recorded, and with channels last."""
    trace = workload_trace("stable-diffusion-1.5", steps=1)
    return [
        next(phase for phase in each.phases if phase.name == "denoising").steps[0].operators
        for each in (trace, channels_last(trace))
    ]


def kernels(step, op):
    found = Lowering(H100, Policy()).lower_all(step)
    return [
        kernel.name
        for operator, one in zip(step, found, strict=True)
        if operator.op == f"aten::{op}"
        for kernel in one.kernels
    ]


def test_convolutions_convert_nothing(steps):
    recorded, last = (kernels(step, "convolution") for step in steps)
    assert "nchwToNhwcKernel" in recorded
    assert "nhwcToNchwKernel" in recorded
    assert "nchwToNhwcKernel" not in last
    assert "nhwcToNchwKernel" not in last


def test_group_norm_copies_first(steps):
    recorded, last = (kernels(step, "native_group_norm") for step in steps)
    assert len(last) > len(recorded)


def test_a_view_sees_the_same_elements(steps):
    """The image as a sequence of pixels is dense where channels come last: LayerNorm need not copy it."""
    at = next(i for i, each in enumerate(steps[0]) if each.op == "aten::native_layer_norm")
    recorded, last = steps[0][at], steps[1][at]
    assert not recorded.inputs[0].contiguous
    assert last.inputs[0].contiguous
    assert recorded.inputs[0].shape == last.inputs[0].shape


def test_captured_kernels_keep_their_layout():
    with pytest.raises(InputError, match="layout is channels-last"):
        run("stable-diffusion-1.5", "h200-sxm", timing="measured", layout="channels-last")
