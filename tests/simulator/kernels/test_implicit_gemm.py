"""Implicit GEMM on tensor cores: candidates and the choice among them, and the kernels of VGG-13 measured on an H100."""

import dataclasses
from dataclasses import replace

import pytest
from convolutions import A100, B200, H100, V100, conv, figures, product, time_s, warm_us

from simtti.hw_configs.devices import load
from simtti.hw_configs.hardware import with_parameters, with_pytorch
from simtti.simulator.kernel import Access
from simtti.simulator.kernels.implicit_gemm import Problem, mma_kernels, persistent_kernels
from simtti.simulator.kernels.implicit_gemm_choice import (
    SM80_TALL_NARROW,
    SM90,
    candidates,
    counted_s,
    tensor_core_kernels,
)
from simtti.simulator.kernels.implicit_gemm_choice import ways as ways_of
from simtti.validation.judge.prediction import warm_time_s

# Kernels in microseconds. VGG-13 training in TF32 on an H100, forward (sarchlab/triosim, MIT): samples, channels, size,
# output channels, the sm90 kernel.
VGG = [
    (512, 64, 224, 64, 8803, "256x64"),
    (512, 128, 112, 128, 4864, "128x128"),
    (512, 256, 56, 256, 4228, "128x256"),
    (512, 256, 28, 512, 2110, "128x256"),
    (512, 512, 28, 512, 4064, "128x256"),
    (512, 512, 14, 512, 1033, "128x256"),
]


def problem(m, n, channels, taps=9, **options):
    reads = (Access(0, 2.0 * m * channels), Access(1, 2.0 * n * channels * taps))
    flops = 2.0 * m * n * channels * taps
    return Problem(m, n, channels, taps, 1, "fp16", reads, Access(3, 2.0 * m * n), flops, **options)


@pytest.mark.parametrize("hardware", [A100, H100, V100, B200], ids=lambda each: each.name)
@pytest.mark.parametrize("shape", [(8192, 320, 320), (64, 512, 512), (200704, 64, 8), (1024, 1280, 2560)])
def test_every_candidate_does_all_products_and_the_choice_is_the_fastest(shape, hardware):
    products = problem(*shape)
    possible = [(way.tile, way.kernels(products, hardware)) for way in ways_of(products, hardware)]
    ways = [kernels for _, kernels in possible]
    for kernels in ways:
        assert sum(kernel.grid * kernel.tensor_flops for kernel in kernels) >= products.useful_flops
        assert kernels[-1].writes == (products.write,)
    chosen = tensor_core_kernels(products, hardware)
    counted = {id(kernels): counted_s(tile, kernels, products, hardware) for tile, kernels in possible}
    if hardware is not H100:
        assert time_s(chosen, hardware) == min(time_s(kernels, hardware) for kernels in ways)
    assert any(chosen is kernels or chosen == kernels for _, kernels in possible)
    least = min(possible, key=lambda way: counted[id(way[1])])[1]
    assert hardware is not H100 or chosen == least


def test_only_a_grid_of_few_tiles_is_split():
    def parts(m):
        return [way for way in candidates(problem(m, 512, 512), A100) if len(way) == 2]

    assert parts(64)
    assert not parts(65536)


def test_narrow_and_padded_channels_take_mma_kernels_everywhere():
    for hardware in (A100, H100, B200):
        for products in (problem(8192, 32, 320), problem(8192, 320, 8, padded=True)):
            assert all(way[0].name.startswith("sm80") for way in candidates(products, hardware))


def test_a_tile_can_be_calibrated_by_its_own_group():
    products = problem(65536, 512, 512, filters="spatial")
    (before,) = candidates(products, H100)[0][-1:]
    tile = before.name.split("x64_")[0]
    less = with_parameters(H100, {f"conv_{tile}.l2_share": 0.3})
    (after,) = candidates(products, less)[0][-1:]
    assert after.l2_bytes < before.l2_bytes


def test_blackwell_pairs_share_their_filters():
    shape = (2, 640, (64, 64), 640, (3, 3), 1, 1)
    kernel = product(conv(*shape, hardware=B200, layout="nhwc", bias=False))
    assert kernel.name.startswith("sm100")
    assert time_s([kernel], B200) < time_s(conv(*shape, layout="nhwc", bias=False), H100)


def test_tf32_on_hopper_takes_the_traced_tiles_and_times():
    predicted = []
    for n, c, size, oc, _, tile in VGG:
        kernel = product(conv(n, c, (size, size), oc, (3, 3), 1, 1, dtype="fp32", bias=False))
        assert f"sm90_{tile}x" in kernel.name
        predicted.append(warm_us([kernel], H100))
    error, bias = figures(predicted, [row[4] for row in VGG])
    assert error < 0.07
    assert abs(bias) < 0.05


H200, NEW_H100 = load("h200-sxm"), with_pytorch(H100, "2.11")
# Products of 3x3x3 convolutions in bf16 of our own H100 and H200 (2026-11, captures of VAEs): device, positions, channels out and
# in, the tile taken and what it took in us.
VAES = [
    (NEW_H100, 1024 * 1024, 96, 96, "sm80_256x32", 2103.0),  # Qwen-Image
    (NEW_H100, 768 * 1360, 96, 96, "sm80_256x32", 2074.1),  # Cosmos
    (H200, 4 * 256 * 256, 96, 96, "sm80_256x32", 452.3),  # Wan 2.1
    (NEW_H100, 1024 * 1024, 3, 96, "sm80_256x32", 775.1),
    (NEW_H100, 64 * 64, 12, 256, "sm80_256x32", 62.2),  # Wan 2.2
    (NEW_H100, 256 * 256, 384, 384, "sm90", 881.2),  # Qwen-Image
    (NEW_H100, 192 * 340, 384, 384, "sm90", 877.9),  # Cosmos
    (NEW_H100, 10 * 256 * 256, 128, 128, "sm90_256x128", 695.5),
]


def spatial(m, n, channels, dtype="bf16"):
    return replace(problem(m, n, channels, 27, filters="spatial"), dtype=dtype)


def time_us(kernels, hardware):
    return sum(warm_time_s(kernel, hardware) for kernel in kernels) * 1e6


def test_vaes_take_the_captured_tiles_and_times():
    predicted = []
    for hardware, m, n, channels, tile, _ in VAES:
        kernels = tensor_core_kernels(spatial(m, n, channels), hardware)
        assert any(kernel.name.startswith(tile) for kernel in kernels)
        predicted.append(time_us(kernels, hardware))
    error, bias = figures(predicted, [row[-1] for row in VAES])
    assert error < 0.1
    assert abs(bias) < 0.08


def test_clusters_take_columns_in_pairs():
    (tile,) = (tile for tile in SM90 if tile.column_pairs)
    rows, columns = 25, 3
    products = spatial(rows * tile.m, columns * tile.n, 384)
    assert products.tiles(tile) == rows * 4
    assert products.tiles(tile) == persistent_kernels(products, tile, NEW_H100)[-1].grid
    assert replace(products, n=tile.n).tiles(tile) == rows
    assert replace(products, filters="planar").tiles(tile) == rows * columns


def test_gathering_takes_a_look_up_of_each_row_beside_its_bytes():
    (kernel,) = mma_kernels(spatial(4096, 32, 256), SM80_TALL_NARROW, 1, NEW_H100)
    cycles = kernel.shared_bytes / NEW_H100.shared_memory_bytes_per_cycle_sm
    assert cycles == 27 * 8 * (256 + 32) * 2
    wide = dataclasses.replace(NEW_H100, l2_bytes_per_cycle_sm=1e9)
    (free,) = mma_kernels(spatial(4096, 32, 256), SM80_TALL_NARROW, 1, wide)
    assert free.shared_bytes == 27 * 8 * 64 * (256 * 2 + 32 * 5)  # what warps read, and one writes


def test_an_sm_gathers_no_faster_for_more_ctas():
    one, two = (time_us(mma_kernels(spatial(256 * ctas, 12, 256), SM80_TALL_NARROW, 1, NEW_H100), NEW_H100) for ctas in (132, 264))  # fmt: skip
    assert two == pytest.approx(2 * one, rel=0.1)


def test_nothing_is_split_over_a_reduction_on_the_newest_release():
    assert all(len(way) == 1 or way[0].grid == 1 for way in candidates(spatial(128, 1024, 1024), NEW_H100))
