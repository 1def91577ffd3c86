"""Copies and concatenation."""

import pytest
from streams import A100, H100, add, cold_s

from simtti.simulator.kernels import layout
from simtti.simulator.kernels.concatenation import Cat, cat
from simtti.simulator.kernels.data_movement import copy


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
