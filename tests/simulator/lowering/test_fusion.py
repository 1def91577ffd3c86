"""torch.compile's fusion: what becomes one kernel, what it reads and writes."""

import pytest

from simtti.hw_configs.devices import load
from simtti.hw_configs.hosts import load_host
from simtti.simulator.engine.simulation import simulate
from simtti.simulator.lowering.fusion import chains, fused_kernel
from simtti.simulator.policy import Policy
from simtti.workloads.trace import Operator, TensorUse, row_major

H100 = load("h100-sxm")
SHAPE = (64, 1024)


def use(tensor, shape=SHAPE, role="activation", dtype="fp16"):
    nbytes = 2
    for size in shape:
        nbytes *= size
    return TensorUse(tensor, shape, row_major(shape), dtype, nbytes, role)


def operator(position, op, category, inputs, outputs):
    return Operator("denoising", 0, position, "unet", f"aten::{op}", category, inputs, outputs, {}, False)


@pytest.fixture
def step():
    """linear, gelu, mul by a vector, add of the residual, layer_norm, linear."""
    weight = use(100, (1024, 1024), "parameter")
    return (
        operator(0, "mm", "Linear", (use(1), weight), (use(2),)),
        operator(1, "gelu", "Elementwise", (use(2),), (use(3),)),
        operator(2, "mul", "Elementwise", (use(3), use(101, (1024,), "parameter")), (use(4),)),
        operator(3, "add", "Elementwise", (use(4), use(1)), (use(5),)),
        operator(4, "native_layer_norm", "LayerNorm", (use(5),), (use(6),)),
        operator(5, "mm", "Linear", (use(6), weight), (use(7),)),
        operator(6, "add", "Elementwise", (use(7), use(5)), (use(8),)),
    )


def test_chains_end_at_library_kernels(step):
    assert chains(step) == [(1, 2, 3, 4), (6,)]


def test_what_lives_inside_a_chain_is_not_moved(step):
    kernel = fused_kernel(step, (1, 2, 3, 4), H100)
    assert {access.tensor for access in kernel.reads} == {2, 101, 1}
    assert {access.tensor for access in kernel.writes} == {5, 6}  # the residual is read again, later
    last = fused_kernel(step, (6,), H100)
    assert {access.tensor for access in last.writes} == {8}


def test_a_compiled_inference_is_faster_and_moves_less(sd_trace):
    runs = {
        launch: simulate(sd_trace, H100, load_host("default"), Policy(launch=launch))
        for launch in ("eager", "graph", "compiled")
    }
    assert runs["compiled"].latency_s < runs["graph"].latency_s < runs["eager"].latency_s
    assert runs["compiled"].totals["hbm_bytes"] < runs["graph"].totals["hbm_bytes"]
    assert runs["compiled"].totals["kernels"] < 0.8 * runs["graph"].totals["kernels"]
    for category in ("Convolution", "Attention"):
        assert runs["compiled"].breakdown[category] == pytest.approx(
            runs["graph"].breakdown[category], rel=0.05
        )


@pytest.fixture(scope="module")
def sd_trace():
    from simtti.workloads.record import workload_trace

    return workload_trace("stable-diffusion-1.5", steps=3)
