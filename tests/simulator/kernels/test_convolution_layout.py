"""Kernels that change layouts: those of captures of our own H100 and H200, and what holds them back."""

import dataclasses
import math

import pytest
from convolutions import A100, H100, figures

from simtti.hw_configs.devices import load
from simtti.hw_configs.hardware import with_pytorch
from simtti.simulator.closed_form import cold_hbm_bytes, lone_execution_s
from simtti.simulator.kernel import Access
from simtti.simulator.kernels.convolution_layout import Conversion, to_nchw, to_nhwc
from simtti.validation.judge.prediction import warm_time_s

H200, NEW_H100 = load("h200-sxm"), with_pytorch(H100, "2.11")
# Device, channels, positions and us (workloads/traces/measured): Qwen-Image, LTX-Video, Wan 2.1.
TO_NCHW = [
    (NEW_H100, 96, 1024 * 1024, 195.2), (NEW_H100, 48, 161 * 128 * 176, 440.4), (NEW_H100, 1024, 8 * 16, 2.2),
    (H200, 96, 4 * 256 * 256, 47.1), (H200, 96, 256 * 256, 10.7),
]  # fmt: skip
TO_NHWC = [
    (NEW_H100, 96, 3 * 1026 * 1026, 643.3), (NEW_H100, 128, 163 * 128 * 176, 976.1), (NEW_H100, 1024, 3 * 10 * 18, 2.3),
    (H200, 96, 6 * 258 * 258, 75.3), (H200, 96, 3 * 258 * 258, 37.8),
]  # fmt: skip


def conversion(channels, positions, dtype="bf16"):
    nbytes = float(2 * channels * positions)
    return Conversion(1, channels, positions, dtype, Access(0, nbytes), Access(-1, nbytes))


def result(channels, positions, device, dtype="bf16"):
    return to_nchw(conversion(channels, positions, dtype), device)


def input_(channels, positions, device):
    return to_nhwc(conversion(channels, positions), device)[-1]


@pytest.mark.parametrize(("rows", "build"), [(TO_NCHW, result), (TO_NHWC, input_)])
def test_times_of_captures(rows, build):
    predicted = [warm_time_s(build(*row[1:3], row[0]), row[0]) * 1e6 for row in rows]
    error, bias = figures(predicted, [row[-1] for row in rows])
    assert error < 0.12
    assert abs(bias) < 0.1


def test_a_faster_memory_hardly_helps_what_waits_for_its_latency():
    """An H100 and an H200, whose HBM differs by 1.4, take 1.98 and 1.87 ns a CTA."""
    kernel = result(96, 1024 * 1024, NEW_H100)
    faster = dataclasses.replace(NEW_H100, hbm_bytes_per_s=1.4 * NEW_H100.hbm_bytes_per_s)
    slow_s, fast_s = (
        lone_execution_s(kernel, device, cold_hbm_bytes(kernel)) for device in (NEW_H100, faster)
    )
    assert 0.95 * slow_s < fast_s <= slow_s
    assert slow_s / kernel.grid == pytest.approx(1.98e-9, rel=0.1)


def test_a_result_in_l2_waits_less():
    kernel = result(96, 128 * 128, NEW_H100)
    assert lone_execution_s(kernel, NEW_H100, 0.0) < lone_execution_s(
        kernel, NEW_H100, cold_hbm_bytes(kernel)
    )


def test_elements_in_flight_count_by_their_bytes_and_only_where_they_were_seen():
    halves, singles = (result(96, 1024, NEW_H100, dtype).bytes_in_flight for dtype in ("bf16", "fp32"))
    assert singles == 2 * halves
    assert result(96, 1024, A100).bytes_in_flight == math.inf
