"""Copies and concatenation."""

import dataclasses
import math

import pytest
from streams import A100, H100, add, cold_s, warm_us

from simtti.hw_configs.devices import load
from simtti.hw_configs.hardware import with_pytorch
from simtti.simulator.kernels import layout
from simtti.simulator.kernels.concatenation import Cat, cat
from simtti.simulator.kernels.data_movement import Gather, copy, embedding


@pytest.mark.parametrize("hardware", [H100, A100], ids=lambda hardware: hardware.name)
def test_long_streams_attain_hbm_bandwidth(hardware):
    shape = (64, 4096, 4096)
    kernels = add(shape, "fp32", hardware)
    nbytes = sum(kernel.unique_bytes for kernel in kernels)
    assert nbytes / cold_s(kernels, hardware) == pytest.approx(hardware.hbm_attained_bytes_per_s, rel=0.1)
    kernels = copy(shape, layout.dense(0, shape, "fp16"), layout.dense(1, shape, "fp16"), hardware)
    nbytes = sum(kernel.unique_bytes for kernel in kernels)
    assert nbytes / cold_s(kernels, hardware) == pytest.approx(hardware.hbm_attained_bytes_per_s, rel=0.1)


def test_cat_of_five_dimensions_is_a_copy_per_input():
    shapes = [(1, 96, 2, 64, 64), (1, 96, 4, 64, 64)]
    target = layout.dense(9, (1, 96, 6, 64, 64), "bf16")
    inputs = [layout.dense(index, shape, "bf16") for index, shape in enumerate(shapes)]
    assert len(cat(Cat(tuple(shapes), tuple(inputs), target), H100)) == 2
    flat = [(96, 2, 4096), (96, 4, 4096)]
    inputs = [layout.dense(index, shape, "bf16") for index, shape in enumerate(flat)]
    (kernel,) = cat(Cat(tuple(flat), tuple(inputs), layout.dense(9, (96, 6, 4096), "bf16")), H100)
    assert kernel.name == "CatArrayBatchedCopy_vectorized"


def test_cat_copies_in_vectors_where_rows_are_whole_ones():
    """On an H200 two inputs of (4, 512, 32, 32) were 2 x 2,048 CTAs of 128 threads."""

    def kernel(*shapes):
        inputs = [layout.dense(index, shape, "fp16") for index, shape in enumerate(shapes)]
        n, _, pixels = shapes[0]
        target = layout.dense(9, (n, sum(shape[1] for shape in shapes), pixels), "fp16")
        return cat(Cat(shapes, tuple(inputs), target), H100)[0]

    assert kernel((4, 512, 1024), (4, 512, 1024)).grid == 2 * 2048
    assert kernel((4, 512, 1024), (4, 512, 1024)).name == "CatArrayBatchedCopy_vectorized"
    assert kernel((4, 3, 9), (4, 512, 9)).name == "CatArrayBatchedCopy_contig"
    assert kernel((1, 3, 9), (1, 512, 9)).name == "CatArrayBatchedCopy_contig"


def test_strides_of_single_elements_say_nothing_of_how_cat_copies():
    """A slice of one batch keeps the stride of the whole: (57188352, 3072, 1) of (1, 18360, 3072). On our own H100 (torch 2.11,
    HunyuanVideo) CatArrayBatchedCopy_vectorized took 79.7 us for it."""
    hardware = with_pytorch(H100, "2.11")
    inputs = (
        layout.Operand(0, (57188352, 3072, 1), "bf16"),
        layout.Operand(1, (57188352, 3072, 1), "bf16"),
    )
    target = layout.dense(2, (1, 18616, 3072), "bf16")
    (kernel,) = cat(Cat(((1, 18360, 3072), (1, 256, 3072)), inputs, target), hardware)
    assert kernel.name == "CatArrayBatchedCopy_vectorized"
    assert warm_us([kernel], hardware) == pytest.approx(79.7, rel=0.08)


# copy_ and stack into every other element in captures of our own H100 and H200 (torch 2.11): source, its dtype, its strides, us.
INTERLEAVED = [
    ("h100-sxm", (11440, 24, 64), "fp32", (1536, 64, 1), 76.0),
    ("h200-sxm", (32760, 12, 64), "fp32", (768, 64, 1), 83.2),
    ("h100-sxm", (18360, 24, 64), "bf16", (1536, 64, 1), 217.5 / 2),
]


@pytest.mark.parametrize(("name", "shape", "dtype", "strides", "us"), INTERLEAVED)
def test_what_is_written_in_part_is_read_first(name, shape, dtype, strides, us):
    hardware = with_pytorch(load(name), "2.11")
    target = layout.Operand(1, tuple(2 * step for step in layout.dense_strides(shape)), "bf16")
    kernels = copy(shape, layout.Operand(0, strides, dtype), target, hardware)
    source_bytes = math.prod(shape) * layout.ITEM_BYTES[dtype]
    sectors = 2 * 2 * math.prod(shape)
    (kernel,) = kernels
    assert kernel.unique_bytes == pytest.approx(source_bytes + 2 * sectors, rel=1e-3)
    assert warm_us(kernels, hardware) == pytest.approx(us, rel=0.13)


@pytest.mark.parametrize(
    ("name", "rows", "us"),
    [("h100-sxm", 1 << 18, 159.1), ("h200-sxm", 1 << 18, 159.3), ("h100-sxm", 226**2, 32.3), ("h100-sxm", 1 << 14, 11.4)],
)  # fmt: skip
def test_short_rows_wait_for_their_ctas_to_start(name, rows, us):
    """Positions looked up in a table of 32 rows of 64 in bf16, a CTA a row: captures of our own H100 and H200 (torch 2.11)."""
    hardware = with_pytorch(load(name), "2.11")
    (kernel,) = embedding(Gather(rows, 64, 32, "bf16"), hardware)
    assert kernel.grid == rows
    assert warm_us([kernel], hardware) == pytest.approx(us, rel=0.08)
    # More SMs, or a faster clock, are never slower, but for the CTAs of a wave that is not full.
    for change in ({"sm_count": 264}, {"clock_hz": 2 * hardware.clock_hz}):
        more = dataclasses.replace(hardware, **change)
        assert warm_us(embedding(Gather(1 << 18, 64, 32, "bf16"), more), more) < 1.02 * warm_us(
            embedding(Gather(1 << 18, 64, 32, "bf16"), hardware), hardware
        )
