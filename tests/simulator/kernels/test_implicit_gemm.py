"""Implicit GEMM of a tile given: what persistent grids spend, and whose tiles a convolution runs on."""

import dataclasses

import pytest
from convolutions import A100, B200, V100, conv
from hypothesis import given, settings
from hypothesis import strategies as st

from simtti.hw_configs.devices import load
from simtti.simulator.closed_form import lone_time_s
from simtti.simulator.kernel import Access, ctas_per_sm
from simtti.simulator.kernels.implicit_gemm import (
    Problem,
    cut,
    persistent_kernels,
    persistent_style,
)
from simtti.simulator.kernels.implicit_gemm_choice import (
    SM90,
    Way,
    candidates_for,
    choose,
    discount,
    of_few_frames,
    split_of,
    tensor_core_kernels,
    tiles_for,
    tuned_for,
)

H200 = load("h200-sxm")
SIZES = st.sampled_from((64, 192, 320, 640, 1280))
PROBLEM = Problem(
    m=1, n=64, channels=64, taps=9, groups=1, dtype="fp16", reads=(Access(0, 1.0), Access(1, 1.0)), write=Access(2, 1.0),
    useful_flops=1.0,
)  # fmt: skip


@given(rows=st.integers(1, 300_000), channels=SIZES, columns=SIZES, tile=st.sampled_from(SM90))
@settings(deadline=None)
def test_persistent_kernels_spend_what_their_tiles_take(rows, channels, columns, tile):
    """However full the last round is, each tile is multiplied once: that is what is spent; the busiest CTA says when it ends."""
    problem = dataclasses.replace(PROBLEM, m=rows, n=columns, channels=channels)
    of, kernel = cut(problem, tile), persistent_kernels(problem, tile, H200)[-1]
    depth = of.steps * of.row_step_bytes / problem.item_bytes
    assert kernel.grid * kernel.tensor_flops == pytest.approx(
        2.0 * problem.tiles(tile) * tile.m * tile.n * depth, rel=1e-12
    )
    attained = persistent_style(H200).efficiency * tile.fitted(H200).tensor_share
    assert kernel.tensor_efficiency <= attained * (1 + 1e-12)


def ways(problem, hardware):
    """What comes into question, one at a time."""
    for tile in tiles_for(problem, hardware):
        yield Way(tile)
        if not tile.persistent and not of_few_frames(problem, hardware):
            of = cut(problem, tile)
            split = int(split_of(of.tiles, of.steps, ctas_per_sm(tile, hardware), hardware))
            if split > 1:
                yield Way(tile, split)


@pytest.mark.parametrize("hardware", [A100, H200, V100, B200], ids=lambda each: each.name)
@pytest.mark.parametrize(
    "options",
    [{}, {"filters": "frames", "frames": 4}, {"filters": "spatial"}, {"plain": True}, {"padded": True}],
)
def test_the_ways_of_problems_side_by_side_are_those_that_are_least_of_all_built(hardware, options):
    shapes = [(8192, 320, 320), (64, 512, 512), (200704, 64, 8), (1024, 1280, 2560), (4608, 640, 960)]
    problems = []
    for m, n, channels in shapes:
        reads = (Access(0, 2.0 * m * channels), Access(1, 18.0 * n * channels))
        problems.append(
            Problem(
                m,
                n,
                channels,
                9,
                1,
                "fp16",
                reads,
                Access(3, 2.0 * m * n),
                18.0 * m * n * channels,
                **options,
            )
        )
    chosen = choose([candidates_for(problem, hardware) for problem in problems], hardware)
    for way, problem in zip(chosen, problems, strict=True):
        tuned = tuned_for(problem, hardware)
        possible = list(ways(problem, hardware))
        counted = [
            sum(lone_time_s(kernel, hardware) for kernel in each.kernels(tuned, hardware))
            * discount(each.tile, tuned, hardware)
            for each in possible
        ]
        assert way == possible[counted.index(min(counted))]
        assert tensor_core_kernels(problem, hardware) == way.kernels(problem, hardware)


def test_planes_in_fp16_run_on_the_tiles_of_the_nearest_power_of_two_of_rows():
    def tile(side, dtype):
        kernels = conv(2, 960, (side, side), 640, (3, 3), 1, 1, hardware=H200, layout="nhwc", dtype=dtype)
        return next(kernel.name for kernel in kernels if "implicit_gemm" in kernel.name)

    # 4,608 rows and 4,050; those of 4,096, which 132 SMs take at once, take them two rounds
    assert tile(48, "fp16") == tile(45, "fp16")
    assert tile(48, "bf16") != tile(48, "fp16")
