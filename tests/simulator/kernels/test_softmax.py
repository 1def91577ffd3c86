"""Softmax: rows in registers, in shared memory, in three passes."""

import pytest
from streams import H100

from simtti.hw_configs.devices import load
from simtti.simulator.kernels.softmax import Softmax, softmax


@pytest.mark.parametrize(
    ("columns", "name", "grid"),
    [
        (64, "softmax_warp_forward", 512),  # two rows a warp, four warps a CTA
        (1024, "softmax_warp_forward", 1024),
        (1032, "cunn_SoftMaxForwardSmem", 4096),
        (1033, "cunn_SoftMaxForward", 4096),  # rows that are not aligned to 16 bytes
        (1 << 17, "cunn_SoftMaxForward", 4096),  # and rows that do not fit
    ],
)
def test_the_kernel_follows_from_the_length_of_a_row(columns, name, grid):
    (kernel,) = softmax(Softmax(4096, columns, "fp16"), H100)
    assert (kernel.name, kernel.grid) == (name, grid)


@pytest.mark.parametrize(
    ("columns", "name", "grid"),
    [
        (1025, "softmax_warp_forward", 1024),
        (2049, "cunn_SoftMaxForwardReg", 4096),
        (9216, "cunn_SoftMaxForwardReg", 4096),  # nine elements a thread
        (9224, "cunn_SoftMaxForwardSmem", 4096),
        (9217, "cunn_SoftMaxForward", 4096),  # rows that are not aligned to 16 bytes
        (1 << 17, "cunn_SoftMaxForward", 4096),  # and rows that do not fit
    ],
)
def test_torch_since_2_8_keeps_longer_rows_in_registers(columns, name, grid):
    """The kernels, grids and registers of profiles of an H200."""
    (kernel,) = softmax(Softmax(4096, columns, "fp16"), load("h200-sxm"))
    assert (kernel.name, kernel.grid) == (name, grid)


@pytest.mark.parametrize(
    ("columns", "registers"), [(1024, 48), (2048, 80), (2304, 28), (4096, 30), (9216, 40)]
)
def test_registers_follow_from_the_elements_of_a_thread(columns, registers):
    (kernel,) = softmax(Softmax(4096, columns, "fp16"), load("h200-sxm"))
    assert kernel.registers == registers


def test_rows_that_are_not_kept_are_read_three_times():
    (kept,), (read_again,) = (softmax(Softmax(4096, columns, "fp16"), H100) for columns in (9224, 9225))
    written = H100.l2_costs.write
    assert read_again.l2_bytes / kept.l2_bytes == pytest.approx((3 + written) / (1 + written), rel=0.01)
