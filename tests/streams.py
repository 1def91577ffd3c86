"""What tests of kernels that stream bytes share: times, bytes, and kernels made in a line."""

from simtti.hw_configs.devices import load
from simtti.simulator.closed_form import lone_time_s
from simtti.simulator.kernels import layout
from simtti.simulator.kernels.elementwise import Walk, walk

H100, A100 = load("h100-sxm"), load("a100-sxm")


def pointwise(name, shape, inputs, output, hardware):
    return [walk(Walk(name, tuple(shape), tuple(inputs), output), hardware)]


def cold_s(kernels, hardware):
    return sum(lone_time_s(kernel, hardware) for kernel in kernels)


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


def moved(kernels, tensor):
    return [a.nbytes for kernel in kernels for a in (*kernel.reads, *kernel.writes) if a.tensor == tensor]


def add(shape, dtype, hardware):
    operands = [layout.dense(tensor, shape, dtype) for tensor in range(3)]
    return pointwise("add", shape, operands[:2], operands[2], hardware)
