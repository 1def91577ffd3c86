"""Kernels with an output element a thread: upsampling, padding by neighbours, pooling."""

import math

import pytest
from small_traces import operator, use
from streams import warm_us

from simtti.hw_configs.devices import load
from simtti.hw_configs.hardware import with_pytorch
from simtti.simulator.kernels.machine import ISSUE_LANES
from simtti.simulator.lowering.lower import Lowering
from simtti.simulator.policy import Policy

H100, H200 = (with_pytorch(load(name), "2.11") for name in ("h100-sxm", "h200-sxm"))


def last(shape):
    _n, c, h, w = shape
    return (c * h * w, 1, w * c, c)


def lower(op, given, out, hardware=H100, strides=(None, None)):
    inputs = (use(0, given, strides[0], "bf16"),)
    outputs = (use(1, out, strides[1], "bf16"),)
    made = operator(op=f"aten::{op}", category="Memory", inputs=inputs, outputs=outputs, attributes={})
    return Lowering(hardware, Policy()).lower(made).kernels


# What captures of our own H100 and H200 saw (torch 2.11, workloads/traces/measured): the kernel's CTAs, and its us.
SEEN = [
    ("upsample_nearest2d", (14, 256, 288, 512), (14, 256, 576, 1024), True, H100, 2064384, 13240.5),
    ("upsample_nearest2d", (14, 256, 288, 512), (14, 256, 576, 1024), True, H200, 2064384, 13346.8),
    ("upsample_nearest2d", (1, 256, 512, 512), (1, 256, 1024, 1024), True, H100, 262144, 1670.3),
    ("upsample_nearest3d", (1, 256, 8, 128, 128), (1, 256, 16, 256, 256), False, H100, 524288, 3300.9),
    ("avg_pool2d", (76, 640, 128, 128), (76, 640, 64, 64), False, H200, 194560, 2302.7),
    ("avg_pool2d", (152, 1024, 32, 32), (152, 1024, 16, 16), True, H200, 38912, 965.6),
]


@pytest.mark.parametrize(("op", "given", "out", "lies_last", "hardware", "ctas", "us"), SEEN)
def test_as_captures_saw_it(op, given, out, lies_last, hardware, ctas, us):
    strides = (last(given), last(out)) if lies_last else (None, None)
    (kernel,) = lower(op, given, out, hardware, strides)
    assert kernel.grid == ctas
    assert warm_us([kernel], hardware) == pytest.approx(us, rel=0.06)


def test_padding_as_captures_saw_it():
    """Of HunyuanVideo's VAE on our H100: 1198 us for planes of 4,941 CTAs of 256 threads, 128 of them."""
    (kernel,) = lower("replication_pad3d", (1, 128, 17, 256, 256), (1, 128, 19, 258, 258))
    assert kernel.grid == pytest.approx(4941 * 128, rel=1e-3)
    assert warm_us([kernel], H100) == pytest.approx(1198.2, rel=0.06)


def test_they_run_at_a_rate_of_elements_whatever_their_bytes():
    """The closed form: issue slots of all elements over what the SMs issue, not HBM."""
    out = (16, 256, 512, 512)
    slots = math.prod(out) * H100.upsample.channels_last_slots
    us = slots / (ISSUE_LANES * H100.sm_count * H100.clock_hz) * 1e6
    for hardware in (H100, H200):
        kernels = lower(
            "upsample_nearest2d", (16, 256, 256, 256), out, hardware, (last((16, 256, 256, 256)), last(out))
        )
        assert warm_us(kernels, hardware) == pytest.approx(us, rel=0.04)


def test_the_result_says_which_kernel_and_other_layouts_are_copied_first():
    """At batch 1 what lies channels last but for its first stride is row-major to torch."""
    given, out = (1, 512, 128, 128), (1, 512, 256, 256)
    names = [
        kernel.name
        for kernel in lower("upsample_nearest2d", given, out, strides=((512, 1, 65536, 512), None))
    ]
    assert names == ["elementwise_kernel<copy>", "upsample_nearest_out_frame"]
    names = [kernel.name for kernel in lower("upsample_nearest2d", given, out)]
    assert names == ["upsample_nearest_out_frame"]
    (kernel,) = lower("upsample_nearest2d", given, out, strides=(last(given), last(out)))
    assert kernel.name == "upsample_nearest2d_nhwc_out_frame"
