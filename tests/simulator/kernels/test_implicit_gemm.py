"""Implicit GEMM on tensor cores: candidates and the choice among them, and the kernels of VGG-13 measured on an H100."""

import pytest
from convolutions import A100, B200, H100, V100, conv, figures, product, time_s, warm_us

from simtti.hw_configs.hardware import with_parameters
from simtti.simulator.kernel import Access
from simtti.simulator.kernels.implicit_gemm import Problem
from simtti.simulator.kernels.implicit_gemm_choice import candidates, counted_s, tensor_core_kernels
from simtti.simulator.kernels.implicit_gemm_choice import ways as ways_of

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
