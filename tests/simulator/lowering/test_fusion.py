"""torch.compile: what becomes one kernel, in which order, what it reads and writes, and what whole inferences make of it."""

import math

import pandas as pd
import pytest

from simtti.errors import InputError
from simtti.hw_configs.devices import load
from simtti.hw_configs.hosts import load_host
from simtti.simulator.engine.simulation import simulate
from simtti.simulator.lowering.fusion import groups_of
from simtti.simulator.lowering.lower import Lowering
from simtti.simulator.lowering.nodes import nodes_of
from simtti.simulator.lowering.triton import kernels_of, readers_of, traffic_of
from simtti.simulator.policy import Policy, settled
from simtti.simulator.run import run
from simtti.tests.places import MEASURED
from simtti.workloads.record import workload_trace
from simtti.workloads.trace import Operator, TensorUse, row_major

H100 = load("h100-sxm")
SHAPE = (64, 1024)
PLANE = (2, 320, 64, 64)


def use(tensor, shape=SHAPE, role="activation", dtype="fp16"):
    return TensorUse(tensor, shape, row_major(shape), dtype, 2 * math.prod(shape), role)


def operator(position, op, category, inputs, outputs, **attributes):
    return Operator(
        "denoising", 0, position, "unet", f"aten::{op}", category, inputs, outputs, attributes, False
    )


def fused(operators):
    """The members of each kernel, by the operators that they are part of."""
    nodes = nodes_of(operators, H100)
    return [[nodes[number].operator for number in group.members] for group in groups_of(nodes)]


WEIGHT = use(100, (1024, 1024), "parameter")
VECTOR = use(101, (1024,), "parameter")


@pytest.fixture
def step():
    """linear, gelu, mul by a vector, add of the residual, layer_norm, linear, add."""
    return (
        operator(0, "mm", "Linear", (use(1), WEIGHT), (use(2),)),
        operator(1, "gelu", "Elementwise", (use(2),), (use(3),)),
        operator(2, "mul", "Elementwise", (use(3), VECTOR), (use(4),)),
        operator(3, "add", "Elementwise", (use(4), use(1)), (use(5),)),
        operator(4, "native_layer_norm", "LayerNorm", (use(5),), (use(6),)),
        operator(5, "mm", "Linear", (use(6), WEIGHT), (use(7),)),
        operator(6, "add", "Elementwise", (use(7), use(5)), (use(8),)),
    )


def test_what_stands_between_library_kernels_is_one_kernel(step):
    assert fused(step) == [[0], [1, 2, 3, 4], [5], [6]]


def test_what_lives_inside_a_kernel_is_not_moved(step):
    nodes = nodes_of(step, H100)
    moved = traffic_of(nodes, (1, 2, 3, 4), readers_of(nodes))
    assert set(moved.reads) == {2, 101, 1}
    assert set(moved.writes) == {5, 6}  # the residual is read again, later
    assert set(traffic_of(nodes, (6,), readers_of(nodes)).writes) == {8}


def test_two_streams_in_turn_are_fused_each_for_itself():
    """Image and text tokens of a transformer take turns, operator by operator."""
    text = (16, 1024)
    step = (
        operator(0, "silu", "Elementwise", (use(1),), (use(2),)),
        operator(1, "silu", "Elementwise", (use(11, text),), (use(12, text),)),
        operator(2, "mul", "Elementwise", (use(2), VECTOR), (use(3),)),
        operator(3, "mul", "Elementwise", (use(12, text), VECTOR), (use(13, text),)),
    )
    assert fused(step) == [[0, 2], [1, 3]]


def test_parts_of_a_concatenation_are_made_in_place():
    joined = (80, 1024)
    step = (
        operator(0, "silu", "Elementwise", (use(1),), (use(2),)),
        operator(1, "gelu", "Elementwise", (use(3, (16, 1024)),), (use(4, (16, 1024)),)),
        operator(2, "cat", "Memory", (use(2), use(4, (16, 1024))), (use(5, joined),)),
    )
    assert fused(step) == [[0, 1, 2]]
    nodes = nodes_of(step, H100)
    (kernel,) = kernels_of(nodes, (0, 1, 2), readers_of(nodes), H100)
    assert kernel.unique_bytes == 2 * use(5, joined).nbytes


def test_a_kernel_waits_for_no_library_kernel_that_reads_what_it_makes():
    step = (
        operator(0, "silu", "Elementwise", (use(1),), (use(2),)),
        operator(1, "mm", "Linear", (use(2), WEIGHT), (use(3),)),
        operator(2, "add", "Elementwise", (use(2), use(3)), (use(4),)),
    )
    assert fused(step) == [[0], [1], [2]]


def test_a_row_longer_than_a_block_is_reduced_before_it_is_used():
    parameter = use(100, (320,), "parameter")
    step = (
        operator(0, "add", "Elementwise", (use(1, PLANE), use(2, PLANE)), (use(3, PLANE),)),
        operator(
            1, "native_group_norm", "GroupNorm", (use(3, PLANE), parameter), (use(4, PLANE),), num_groups=32
        ),
        operator(2, "silu", "Elementwise", (use(4, PLANE),), (use(5, PLANE),)),
    )
    assert fused(step) == [[0, 1], [1, 2]]
    nodes = nodes_of(step, H100)
    moments = kernels_of(nodes, (0, 1), readers_of(nodes), H100)
    assert [kernel.name for kernel in moments] == ["triton_fused<2>", "triton_combine"]


def by_its_largest(dim, results):
    """linear, gelu, the largest of all or of each row, a division by it, linear."""
    return (
        operator(0, "mm", "Linear", (use(1), WEIGHT), (use(2),)),
        operator(1, "gelu", "Elementwise", (use(2),), (use(3),)),
        operator(2, "amax", "Other", (use(3),), (use(4, results),), dim=dim),
        operator(3, "div", "Elementwise", (use(3), use(4, results)), (use(5),)),
        operator(4, "mm", "Linear", (use(5), WEIGHT), (use(6),)),
    )


def test_what_waits_for_the_largest_of_a_whole_tensor_is_another_kernel():
    step = by_its_largest([0, 1], (1, 1))
    assert fused(step) == [[0], [2], [1, 3], [4]]
    nodes = nodes_of(step, H100)
    largest, quotient = (traffic_of(nodes, members, readers_of(nodes)) for members in ((2,), (1, 3)))
    assert set(largest.reads) == {2}  # gelu is worked out again, not written
    assert (set(quotient.reads), set(quotient.writes)) == ({2, 4}, {5})
    names = [kernel.name for kernel in kernels_of(nodes, (2,), readers_of(nodes), H100)]
    assert names == ["triton_fused<1>", "triton_combine"]


def test_what_is_made_in_place_is_read_by_what_reduces_all_of_it():
    """What was there before is no longer: it cannot be worked out again. (It once was, for ever.)"""
    step = (
        operator(0, "copy_", "Memory", (use(1), use(2)), (use(1),)),
        operator(1, "mul_", "Elementwise", (use(1),), (use(1),)),
        operator(2, "amax", "Other", (use(1),), (use(3, ()),)),
    )
    assert nodes_of(step, H100)[-1].reads == (use(1),)


def test_the_largest_of_each_row_is_found_where_it_is_used():
    assert fused(by_its_largest([1], (64, 1))) == [[0], [1, 2, 3], [4]]


def test_a_whole_tensor_is_not_reduced_in_the_kernel_that_reduces_its_rows():
    step = (
        operator(0, "native_layer_norm", "LayerNorm", (use(1),), (use(2),)),
        operator(1, "mul", "Elementwise", (use(2), VECTOR), (use(3),)),
        operator(2, "add", "Elementwise", (use(3), use(102, (1024,), "parameter")), (use(4),)),
        operator(3, "amax", "Other", (use(4),), (use(5, (1, 1)),), dim=[0, 1]),
        operator(4, "div", "Elementwise", (use(4), use(5, (1, 1))), (use(6),)),
    )
    assert fused(step) == [[0, 1, 2], [3], [4]]


@pytest.fixture(scope="module")
def sd_trace():
    return workload_trace("stable-diffusion-1.5", steps=3)


@pytest.fixture(scope="module", params=["stable-diffusion-1.5", "flux-dev"])
def denoising(request):
    trace = workload_trace(request.param, steps=1)
    return next(phase for phase in trace.phases if phase.name == "denoising").steps[0].operators


def test_kernels_read_what_others_have_made_before(denoising):
    nodes = nodes_of(denoising, H100)
    groups = groups_of(nodes)
    assert sorted(number for group in groups for number in group.members) == list(range(len(nodes)))
    made_by = {use.tensor: node for node in range(len(nodes)) for use in nodes[node].writes}
    home = {number: at for at, group in enumerate(groups) for number in group.members}
    last: dict[int, int] = {}
    for number, node in enumerate(nodes):
        for read in node.reads:
            if read.tensor in last:
                assert home[last[read.tensor]] <= home[number], (node, nodes[made_by[read.tensor]])
        last.update((written.tensor, number) for written in node.writes)


def test_products_are_kept_and_bytes_are_not_added(denoising):
    def kernels(launch):
        found = Lowering(H100, Policy(launch=launch)).lower_all(denoising)
        return [kernel for one in found for kernel in one.kernels]

    eager, compiled = kernels("eager"), kernels("compiled")
    products = [sum(kernel.flops for kernel in run if kernel.tensor_flops) for run in (eager, compiled)]
    assert products[1] == pytest.approx(products[0], rel=1e-12)
    assert sum(k.unique_bytes for k in compiled) < 0.9 * sum(k.unique_bytes for k in eager)
    assert len(compiled) < 0.8 * len(eager)


def test_only_the_denoiser_is_compiled_unless_all_is_asked_for(sd_trace):
    def runs(launch, compile="denoiser"):
        result = simulate(sd_trace, H100, load_host("default"), Policy(launch=launch, compile=compile))
        return {phase["name"]: phase["latency_s"] for phase in result.to_dict()["phases"]}

    eager, compiled, graph = runs("eager"), runs("compiled"), runs("compiled-graph")
    whole = runs("compiled", "all")
    assert compiled["decoder"] == pytest.approx(eager["decoder"], rel=0.01)
    assert whole["decoder"] < 0.9 * eager["decoder"]
    assert graph["denoising"] <= compiled["denoising"] < eager["denoising"]
    assert graph["denoising"] < runs("graph")["denoising"]


def test_compiled_convolutions_need_no_layout_kernels(sd_trace):
    step = next(phase for phase in sd_trace.phases if phase.name == "denoising").steps[0]
    lowered = Lowering(H100, settled(Policy(launch="compiled"), sd_trace)).lower_all(step.operators)
    names = {kernel.name for one in lowered for kernel in one.kernels}
    assert not names & {"nchwToNhwcKernel", "nhwcToNchwKernel"}
    assert not any("add" in name for name in names)


def test_unknown_ways_to_compile_are_refused():
    with pytest.raises(InputError, match="compile is 'unet'; it must be one of denoiser, all"):
        Policy(compile="unet")


@pytest.mark.skipif(
    not (MEASURED / "questions_2026.csv").exists(), reason="no ../shared/measured/questions_2026.csv"
)
@pytest.mark.parametrize(
    ("hw", "gpu", "attention", "within"),
    # cuDNN's attention is what PyTorch's nightly builds of late 2024 took on Hopper
    [("h100-sxm", "H100 80GB", "cudnn", 0.06), ("a100-sxm", "A100-SXM4-80GB", "flash", 0.09)],
)
def test_compiled_flux_takes_what_was_measured(hw, gpu, attention, within):
    table = pd.read_csv(MEASURED / "questions_2026.csv")
    row = table[
        (table.gpu == gpu) & (table.model == "FLUX.1-dev") & (table.batch == 1) & (table.compile == "yes")
        & (table.quantisation == "none") & (table.width == 1024)
    ].iloc[0]  # fmt: skip
    found = run(
        "flux-dev", hw, steps=int(row.steps), attention=attention, launch="compiled-graph", fidelity="closed"
    )
    assert found.latency_s == pytest.approx(row.latency_s, rel=within)
