"""Implicit GEMM of a tile given: what persistent grids spend, and whose tiles a convolution runs on."""

import dataclasses

import pytest
from convolutions import conv
from hypothesis import given, settings
from hypothesis import strategies as st

from simtti.hw_configs.devices import load
from simtti.simulator.kernel import Access
from simtti.simulator.kernels.implicit_gemm import Problem, persistent_loop
from simtti.simulator.kernels.implicit_gemm_choice import SM90

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
    loop = persistent_loop(problem, tile, H200)
    depth = loop.steps * loop.step_bytes / problem.item_bytes
    assert loop.grid * loop.tensor_flops == pytest.approx(
        2.0 * problem.tiles(tile) * tile.m * tile.n * depth, rel=1e-12
    )
    assert loop.rounds * loop.grid >= problem.tiles(tile) * (1 - 1e-12)


def test_planes_in_fp16_run_on_the_tiles_of_the_nearest_power_of_two_of_rows():
    def tile(side, dtype):
        kernels = conv(2, 960, (side, side), 640, (3, 3), 1, 1, hardware=H200, layout="nhwc", dtype=dtype)
        return next(kernel.name for kernel in kernels if "implicit_gemm" in kernel.name)

    # 4,608 rows and 4,050; those of 4,096, which 132 SMs take at once, take them two rounds
    assert tile(48, "fp16") == tile(45, "fp16")
    assert tile(48, "bf16") != tile(48, "fp16")
