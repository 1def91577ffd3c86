"""What the tests of convolutions share: devices, convolutions with one number for all dimensions, durations, errors."""

import dataclasses

import numpy as np

from simtti.hw_configs.devices import load
from simtti.simulator.closed_form import lone_time_s
from simtti.simulator.kernels.convolution import convolution
from simtti.simulator.kernels.convolution_problem import Convolution

H100, A100 = load("h100-sxm"), load("a100-sxm")
# The SM of a V100 as far as it decides which kernels run: no TF32, little shared memory.
V100 = dataclasses.replace(
    A100, name="volta", architecture="volta", sm_count=80, clock_hz=1.53e9, tensor_fp16_flops_per_cycle_sm=1024.0,
    tensor_tf32_flops_per_cycle_sm=0.0, shared_memory_per_sm_bytes=98304, l2_capacity_bytes=6291456.0,
    l2_bytes_per_s=3.1e12, hbm_bytes_per_s=9.0e11,
)  # fmt: skip
B200 = dataclasses.replace(
    H100, name="blackwell", architecture="blackwell", sm_count=148, tensor_fp16_flops_per_cycle_sm=8192.0,
    l2_bytes_per_s=1.4e13, hbm_bytes_per_s=8.0e12,
)  # fmt: skip


def conv(n, c, spatial, oc, kernel, stride=1, padding=0, groups=1, dtype="fp16", hardware=H100, **options):
    rank = len(spatial)
    problem = Convolution(
        n, c, spatial, oc, kernel, (stride,) * rank, (padding,) * rank, (1,) * rank, groups, dtype, **options
    )
    return convolution(problem, hardware)


def warm_us(kernels, hardware):
    """Durations as a profiler gives them: without the gap between kernels, operands that fit found in L2."""
    return (
        sum(
            lone_time_s(kernel, hardware, 0.0 if kernel.unique_bytes <= hardware.l2_usable_bytes else None)
            - hardware.launch_s
            for kernel in kernels
        )
        * 1e6
    )


def time_s(kernels, hardware):
    return sum(lone_time_s(kernel, hardware) for kernel in kernels)


def names(kernels):
    return [kernel.name.split("<")[0].split("_")[0] for kernel in kernels]


def product(kernels):
    """The kernel that does the FLOPs."""
    return max(kernels, key=lambda kernel: kernel.flops)


def figures(predicted, actual):
    predicted, actual = np.array(predicted), np.array(actual)
    return np.abs(predicted / actual - 1).mean(), np.exp(np.log(predicted / actual).mean()) - 1
