"""Walks over tensors: sectors, and what L2 loses on the way."""

import dataclasses

import pytest
from streams import H100, pointwise, warm_us

from simtti.simulator.kernels import layout

SCATTERED_BYTES = H100.l2_costs.scattered_bytes


def test_a_transposed_read_costs_a_sector_an_element():
    steps_in, steps_out = (4096,), (1,)
    assert layout.l2_bytes_per_element((4096,), steps_in, 2, SCATTERED_BYTES) == SCATTERED_BYTES
    assert layout.l2_bytes_per_element((4096,), steps_out, 2, SCATTERED_BYTES) == 2
    assert (
        layout.l2_bytes_per_element((8, 64), (64, 1), 2, SCATTERED_BYTES) < SCATTERED_BYTES
    )  # four lanes share each of 8 sectors


def test_sectors_that_l2_loses_before_their_other_elements_are_needed_come_again():
    """TraceLens: T5's position bias, heads fastest, added to scores of 64 heads of 512x512: 197 us, of which the bytes
    account for 33. A head's sweep touches a line for each element, of which L2 loses a part."""

    def add(heads, tokens):
        shape = (heads, tokens * tokens)
        scores = layout.dense(0, shape, "bf16")
        bias = layout.Operand(1, (1, heads), "bf16")
        return pointwise("add", shape, [scores, bias], scores, H100)

    assert add(64, 256)[0].hbm_reread_bytes == 0
    (kernel,) = add(64, 512)
    assert 0 < kernel.hbm_reread_bytes < 64 * 512 * 512 * 93
    assert warm_us([kernel], H100) == pytest.approx(197, rel=0.1)
    more = dataclasses.replace(H100, l2_capacity_bytes=2 * H100.l2_capacity_bytes)
    assert (
        layout.refetched_bytes((4096, 64), (64, 1), 2, 6.0, more.l2_usable_bytes, H100.l2_costs, 1 << 20) == 0
    )


def test_hops_over_more_pages_than_are_translated_cost_sectors():
    """Make-A-Video's decoder on H200: 8.7 ms a GB where 76 frames of 4 MB make 152 pages, 3.4 where frames are half of that."""
    costs, l2_bytes = H100.l2_costs, 33.5e6
    near = layout.refetched_bytes((76, 1024, 32), (1 << 20, 1024, 1), 2, 2.0, l2_bytes, costs, 1 << 20)
    far = layout.refetched_bytes((76, 512, 64), (1 << 21, 4096, 1), 2, 2.0, l2_bytes, costs, 1 << 20)
    assert near == 0
    assert 0.5 < far / (76 * 512 * 64 * (costs.lone_sector_bytes - 2)) < 1


@pytest.mark.parametrize(
    ("shape", "strides", "nbytes", "partial"),
    [
        ((4, 8), (8, 1), 64, False),  # dense
        ((4, 8), (1, 4), 64, False),  # dense in another order
        ((1, 8), (512, 1), 16, False),  # a dimension of one element says nothing
        ((4, 8), (0, 1), 16, False),  # broadcast
        ((1024,), (2,), 4094, True),  # every other element: all sectors between
        ((1024,), (16,), 1023 * 32 + 2, True),  # an element a sector
        ((1024,), (64,), 1024 * 32, True),  # lone elements take sectors
        ((1024, 64), (128, 1), 1024 * 128, False),  # rows with gaps of whole sectors
        ((1024, 4), (64, 1), 1024 * 32, True),  # short rows
    ],
)
def test_sectors(shape, strides, nbytes, partial):
    found = layout.sectors(shape, layout.Operand(0, strides, "fp16"))
    assert found == (nbytes, partial)
