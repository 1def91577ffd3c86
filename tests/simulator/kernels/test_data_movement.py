"""Copies and concatenation."""

import pytest
from streams import A100, H100, add, cold_s

from simtti.simulator.kernels import layout
from simtti.simulator.kernels.data_movement import Cat, cat, copy


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
    assert kernel.name == "CatArrayBatchedCopy_contig"
