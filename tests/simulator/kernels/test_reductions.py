"""Reductions: launches as PyTorch makes them, along the fastest dimension and along another."""

import pytest
from streams import H100

from simtti.errors import InputError
from simtti.hw_configs.devices import load
from simtti.simulator.closed_form import lone_time_s
from simtti.simulator.kernels.reductions import Reduction, reduce
from simtti.simulator.lowering.registry import kernels_of


@pytest.mark.parametrize(
    ("outputs", "reduced", "inner", "grid", "threads"),
    [
        (16 * 559, 1024, True, 559, 512),  # Qwen 1.5: a warp a row
        (5184, 768, True, 324, 512),  # OWLv2
        (1, 768, True, 1, 128),  # a row alone
        (4096, 512, False, 32, 128),  # VGG-13's gradient of a bias: its warps share an output
        (768, 8, False, 2, 128),  # TimeSformer's mean over 8 frames: too few for that
        (512, 512 * 28 * 28, True, 512 * 4, 512),  # and CTAs share one
    ],
)
def test_reductions_are_launched_as_pytorch_does(outputs, reduced, inner, grid, threads):
    """Grids and blocks of torch.profiler traces taken on H100s (TraceLens; sarchlab/triosim)."""
    (kernel,) = reduce(Reduction(outputs, reduced, "fp32", inner), H100)
    assert (kernel.grid, kernel.threads) == (grid, threads)


def test_short_rows_are_bound_by_the_instructions_around_one_load():
    """pytorch/kineto: the mean of 65,536 rows of 49 takes 35.3 us on a V100, 2.5 times as long as its bytes."""
    hardware = load("v100-sxm")
    (kernel,) = reduce(Reduction(65536, 49, "fp32"), hardware)
    assert lone_time_s(kernel, hardware) - hardware.launch_s == pytest.approx(35.3e-6, rel=0.15)
    assert lone_time_s(kernel, hardware, 0.0) == lone_time_s(kernel, hardware)


def test_a_table_names_the_dimension_that_is_reduced():
    row = {"op": "reduction", "dtype": "fp16", "rows": 4096, "cols": 512}
    assert kernels_of(row, H100) == reduce(Reduction(4096, 512, "fp16"), H100)
    assert kernels_of({**row, "over": "rows"}, H100) == reduce(
        Reduction(512, 4096, "fp16", inner=False), H100
    )
    with pytest.raises(InputError, match="column 'over' is 'both'; it must be one of cols, rows"):
        kernels_of({**row, "over": "both"}, H100)
