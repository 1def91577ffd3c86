"""What lowering says it has no kernel model of."""

import pytest
from small_traces import operator, small_trace, use

from simtti.simulator.run import run
from simtti.workloads.trace import Phase, Step


@pytest.mark.parametrize("dtype", ["fp64", "complex128"])
def test_a_product_whose_rate_no_datasheet_has_is_named_not_guessed(dtype):
    matrices = tuple(use(tensor, (64, 64), dtype=dtype, storage_bytes=64 * 64 * 16) for tensor in range(3))
    product = operator(
        0, op="aten::mm", category="Linear", inputs=matrices[:2], outputs=matrices[2:], attributes={}
    )
    trace = small_trace(phases=(Phase("denoising", (Step(1, (product,)),)),))
    assert run(trace, "h100-sxm", fidelity="closed").unlowered == {"aten::mm": 1.0}
