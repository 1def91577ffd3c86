"""TensorIterator's kernels: which one runs, what it reads, what it waits for."""

import dataclasses

import pytest
from small_traces import operator, use
from streams import H100, moved, pointwise, warm_us

from simtti.hw_configs.devices import load
from simtti.hw_configs.hardware import with_pytorch
from simtti.simulator.closed_form import lone_time_s, repeated_hbm_bytes
from simtti.simulator.kernels import layout
from simtti.simulator.kernels.data_movement import copy
from simtti.simulator.kernels.elementwise import lower
from simtti.simulator.kernels.family import Target
from simtti.simulator.lowering.registry import kernels_of
from simtti.simulator.policy import Policy
from simtti.simulator.predict import operator_time_s


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


def _row(function, numel, inputs, hardware):
    """A row of a table, of fp16."""
    row = {"op": "elementwise", "dtype": "fp16", "numel": numel, "inputs": inputs, "function": function}
    return kernels_of(row, hardware)[0]


# Sums of two tensors of fp16 from an emptied L2, event to event (torch 2.11): device, elements, us.
SUMS = [
    ("h100-sxm", 2621440, 7.3),
    ("h100-sxm", 5242880, 10.9),
    ("h100-sxm", 82575360, 157.1),
    ("h200-sxm", 2949120, 7.0),
    ("h200-sxm", 10485760, 16.0),
]


@pytest.mark.parametrize(("name", "numel", "us"), SUMS)
def test_an_emptied_l2_takes_what_is_written(name, numel, us):
    """What still fits L2 at the end is not written to HBM, and the last CTAs' results go there after all reads."""
    hardware = with_pytorch(load(name), "2.11")
    kernel = _row("add", numel, 2, hardware)
    assert operator_time_s([kernel], hardware) * 1e6 == pytest.approx(us, rel=0.08)
    read = kernel.read_bytes
    assert read < repeated_hbm_bytes(kernel) < read + kernel.written_bytes
    # Where instructions take longer than HBM, they hide that.
    busy = _row("gelu", 1 << 21, 1, hardware)
    assert lone_time_s(busy, hardware) == lone_time_s(busy, hardware, busy.read_bytes)


def test_operands_of_an_element_are_waited_for_one_after_the_other():
    hardware = with_pytorch(load("h100-sxm"), "2.11")
    shape = (1, 18360, 24, 128)
    rows = layout.Operand(1, (0, 128, 0, 1), "fp32")
    whole, result = layout.dense(0, shape, "fp32"), layout.dense(2, shape, "fp32")
    one, two = (pointwise("mul", shape, given, result, hardware)[0] for given in ([rows], [whole, rows]))
    assert two.hbm_stall == 2 * one.hbm_stall > 0
    # HunyuanVideo's rotary embedding on our own H100.
    assert warm_us([two], hardware) == pytest.approx(203.2, rel=0.12)


# Products of bf16 and fp32 into fp32 in captures (torch 2.11): device, shape, the fp32 operand's strides, us.
MIXED = [
    ("h100-sxm", (4096, 24, 128), (24, 1, 0), 55.4),
    ("h100-sxm", (32, 24, 128), (24, 1, 0), 4.19),
    ("h100-sxm", (11440, 3072), (18432, 1), 223.3),
    ("h100-sxm", (128, 456192), (0, 1), 277.8),
    ("h200-sxm", (32760, 1536), (0, 1), 221.2),
]


@pytest.mark.parametrize(("name", "shape", "strides", "us"), MIXED)
def test_operands_with_runtime_dtypes_are_loaded_one_after_another(name, shape, strides, us):
    hardware = with_pytorch(load(name), "2.11")
    inputs = [layout.dense(0, shape, "bf16"), layout.Operand(1, strides, "fp32")]
    kernels = pointwise("mul", shape, inputs, layout.dense(2, shape, "fp32"), hardware)
    assert warm_us(kernels, hardware) == pytest.approx(us, rel=0.15)


def test_a_broadcast_operand_is_read_again_where_l2_lost_it():
    """LTX-Video's norm over channels that lie slowest: 14.5 MB repeated for each of 128 channels, 36 MB of everything apart. On
    our own H100 (torch 2.11): 2,656 us, 5.7 us a million elements; a quarter of the picture took 4.8."""

    def mul(pixels):
        shape = (128, pixels)
        inputs = [layout.dense(0, shape, "bf16"), layout.Operand(1, (0, 1), "fp32")]
        return pointwise("mul", shape, inputs, layout.dense(2, shape, "fp32"), H100)[0]

    pixels = 161 * 128 * 176
    assert mul(pixels // 4).hbm_reread_bytes == 0
    assert 0 < mul(pixels).hbm_reread_bytes < 127 * 4 * pixels
    assert mul(8 * pixels).hbm_reread_bytes == 127 * 4 * 8 * pixels


def test_comparisons_and_choices_cast_nothing():
    """`where` by a mask over bf16 was elementwise_kernel without casts in captures of our own H100: 93.8 us for 33.5 million."""
    shape = (1, 128, 512, 512)
    uses = (use(0, (1, 1, 512, 512), None, "bool"), use(1, shape, (128, 1, 65536, 128), "bf16"))
    made = operator(
        op="aten::where", inputs=uses, outputs=(use(2, shape, (33554432, 1, 65536, 128), "bf16"),)
    )
    hardware = with_pytorch(H100, "2.11")
    kernels = lower(made, Target(hardware, Policy()))
    assert warm_us(kernels, hardware) == pytest.approx(93.8, rel=0.1)
