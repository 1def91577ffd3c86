"""What lowering says it has no kernel model of, and whose tensors kernels name."""

import pytest
from small_traces import operator, small_trace, use

from simtti.hw_configs.devices import load
from simtti.simulator.lowering.lower import Lowering
from simtti.simulator.policy import Policy
from simtti.simulator.run import run
from simtti.workloads.record import workload_trace
from simtti.workloads.trace import Phase, Step


@pytest.mark.parametrize("dtype", ["fp64", "complex128"])
def test_a_product_whose_rate_no_datasheet_has_is_named_not_guessed(dtype):
    matrices = tuple(use(tensor, (64, 64), dtype=dtype, storage_bytes=64 * 64 * 16) for tensor in range(3))
    product = operator(
        0, op="aten::mm", category="Linear", inputs=matrices[:2], outputs=matrices[2:], attributes={}
    )
    trace = small_trace(phases=(Phase("denoising", (Step(1, (product,)),)),))
    assert run(trace, "h100-sxm", fidelity="closed").unlowered == {"aten::mm": 1.0}


@pytest.mark.parametrize("name", ["sana-1.6b", "stable-diffusion-1.5", "ltx-video"])
def test_kernels_name_the_tensors_of_their_operator_by_slot(name):
    """Operators that are alike share kernels: what these read and write is whatever each has in its slots."""
    hardware = load("h100-sxm")
    lowering, kinds = Lowering(hardware, Policy()), set()
    for each in workload_trace(name).operators():
        if each.is_view or (kind := (each.op, each.inputs and each.inputs[0].dtype)) in kinds:
            continue
        kinds.add(kind)
        lowered, slots = lowering.lower(each), len(each.inputs) + len(each.outputs)
        if not lowered.by_identity:
            for kernel in lowered.kernels:
                assert all(access.tensor < slots for access in (*kernel.reads, *kernel.writes)), each.op
    assert len(kinds) > 20
