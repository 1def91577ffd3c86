"""Walks over tensors: sectors, and what L2 loses on the way."""

import dataclasses

import pytest
from streams import H100, pointwise, warm_us

from simtti.hw_configs.devices import load
from simtti.hw_configs.hardware import with_pytorch
from simtti.simulator.closed_form import lone_time_s
from simtti.simulator.kernels import layout
from simtti.simulator.kernels.data_movement import copy

SCATTERED_BYTES = layout.scattered_bytes(H100)


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
    assert layout.refetched_bytes((4096, 64), (64, 1), 2, 6.0, more) == 0


def test_hops_over_more_pages_than_are_kept_translations_of_fetch_them():
    """Make-A-Video's decoder on H200: 8.7 ms a GB where 76 frames of 4 MB make 152 pages, 3.4 where frames are half of that."""
    assert layout.untranslated((76, 1024, 32), (1 << 20, 1024, 1), 2, 4, H100) == 0
    kept = H100.l2_costs.translated_bytes / layout.PAGE_BYTES
    assert layout.untranslated((76, 512, 64), (1 << 21, 4096, 1), 2, 4, H100) == pytest.approx(1 - kept / 152)
    # Frames of 3.1 MB one after another lie in 114 pages, not in two each.
    some = layout.untranslated((76, 1536, 1024), (1572864, 1024, 1), 2, 4, H100)
    assert some == pytest.approx(1 - kept / 114)
    # Channels that share pages are found there.
    assert layout.untranslated((512, 516096), (516096, 1), 2, 4, H100) == 0


# Copies of 76 frames to where they lie fastest (Make-A-Video on our own H200, torch 2.11): channels, pixels, us.
@pytest.mark.parametrize(
    ("channels", "pixels", "us"),
    [(1280, 1024, 674), (640, 4096, 2836), (960, 4096, 5032), (320, 16384, 7022), (640, 16384, 16661)],
)
def test_copies_that_hop_over_pages(channels, pixels, us):
    hardware = with_pytorch(load("h200-sxm"), "2.11")
    shape = (pixels, channels, 76)
    source = layout.Operand(0, (1, pixels, channels * pixels), "fp16")
    assert warm_us(copy(shape, source, layout.dense(1, shape, "fp16"), hardware), hardware) == pytest.approx(
        us, rel=0.16
    )


# Additions of a row-major tensor to one with channels last (fp16; torch 2.11): shape, us on our own H100, on our own H200.
ADDITIONS = [
    ((14, 256, 288, 512), 4269.0, 3422.2),
    ((1, 256, 14 * 288, 512), 8517.0, 8565.1),
    ((1, 128, 14 * 576, 1024), 12964.8, 13184.2),
]


@pytest.mark.parametrize(("shape", "h100_us", "h200_us"), ADDITIONS)
def test_translations_take_as_long_whatever_hbm_is(shape, h100_us, h200_us):
    """Channels that are 2 MB and more apart: SVD on our own H100 and H200, whose HBM alone differs."""
    _n, c, h, w = shape
    last = layout.Operand(0, (c * h * w, 1, w * c, c), "fp16")
    for name, us in (("h100-sxm", h100_us), ("h200-sxm", h200_us)):
        hardware = with_pytorch(load(name), "2.11")
        result = dataclasses.replace(last, tensor=2)
        kernels = pointwise("add", shape, [last, layout.dense(1, shape, "fp16")], result, hardware)
        assert warm_us(kernels, hardware) == pytest.approx(us, rel=0.25)


def test_lone_sectors_take_their_turn_at_the_slices():
    """Channels-last to contiguous (fp16, torch 2.11, L2 emptied before): six fifths of the slices take five sixths of the time,
    which says nothing of streams."""
    shape = (28, 320, 72 * 128)
    source = layout.Operand(0, (320 * 72 * 128, 1, 320), "fp16")
    for name, us in (("h100-sxm", 608.0), ("h200-sxm", 516.3)):
        hardware = with_pytorch(load(name), "2.11")
        (kernel,) = copy(shape, source, layout.dense(1, shape, "fp16"), hardware, cold=True)
        assert lone_time_s(kernel, hardware) * 1e6 == pytest.approx(us, rel=0.05)
    h100, h200 = load("h100-sxm"), load("h200-sxm")
    assert h200.l2_bytes_per_s / h100.l2_bytes_per_s == pytest.approx(1.2, rel=0.01)
    assert h200.l2_attained_bytes_per_s == pytest.approx(h100.l2_attained_bytes_per_s, rel=0.01)


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
