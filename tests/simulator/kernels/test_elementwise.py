"""TensorIterator's kernels: which one runs, what it reads, what it waits for."""

import dataclasses

from streams import H100, moved, pointwise

from simtti.simulator.closed_form import lone_time_s
from simtti.simulator.kernels import layout
from simtti.simulator.kernels.data_movement import (
    copy,
)


def test_broadcast_counts_the_small_operand_once():
    shape = (8, 64, 1024)
    channel = layout.Operand(1, (0, 1, 0), "fp16")
    (kernel,) = pointwise(
        "mul",
        shape,
        [layout.dense(0, shape, "fp16"), channel],
        layout.dense(2, shape, "fp16"),
        H100,
    )
    assert moved([kernel], 1) == [128]
    assert kernel.name.startswith("elementwise_kernel")


def test_the_kernel_follows_from_layout_and_dtype():
    shape = (4, 64, 256)
    half, single = layout.dense(0, shape, "fp16"), layout.dense(1, shape, "fp32")
    transposed = layout.Operand(2, (16384, 1, 64), "fp16")

    def name(kernels):
        return kernels[0].name.split("<")[0]

    assert name(pointwise("add", shape, [half, half], half, H100)) == "vectorized_elementwise_kernel"
    assert name(pointwise("silu", shape, [transposed], transposed, H100)) == "vectorized_elementwise_kernel"
    assert name(pointwise("add", shape, [half, single], single, H100)) == "unrolled_elementwise_kernel"
    assert name(pointwise("add", shape, [half, transposed], half, H100)) == "elementwise_kernel"
    assert name(copy(shape, single, half, H100)) == "vectorized_elementwise_kernel"
    assert name(copy(shape, half, single, H100)) == "unrolled_elementwise_kernel"
    assert name(copy(shape, half, half, H100)) == "Memcpy DtoD"
    assert name(copy(shape, transposed, half, H100)) == "elementwise_kernel"


def test_instructions_wait_for_hbm_but_not_for_l2():
    """A cast that finds its source in L2 is not slowed down by the share of HBM's time it would wait."""

    def cast(numel):
        return copy((numel,), layout.dense(0, (numel,), "fp16"), layout.dense(1, (numel,), "fp32"), H100)[0]

    kernel = cast(1 << 18)
    assert kernel.hbm_stall > 0
    free = dataclasses.replace(kernel, hbm_stall=0.0)
    assert lone_time_s(kernel, H100, 0.0) == lone_time_s(free, H100, 0.0)
    assert lone_time_s(kernel, H100) >= lone_time_s(free, H100)
    kernel = cast(1 << 26)
    free = dataclasses.replace(kernel, hbm_stall=0.0)
    assert lone_time_s(kernel, H100) > lone_time_s(free, H100)
