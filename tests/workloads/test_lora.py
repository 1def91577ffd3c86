"""Adapters of low rank beside the attention projections, and images to start from."""

import pytest
from recorded_traces import denoising, shipped
from small_traces import timed_trace

import simtti
from simtti.errors import InputError
from simtti.workloads.caching import cached
from simtti.workloads.flops import flops
from simtti.workloads.lora import TARGETS, with_lora
from simtti.workloads.quantization import quantized
from simtti.workloads.quantized_layers import linear_of

RANK = 16


def projections(operators):
    """The products of attention projections: rows, inputs and outputs of each."""
    found = [
        linear_of(one) for one in operators if any(one.module.endswith(f".{target}") for target in TARGETS)
    ]
    return [(linear.m, linear.k, linear.n) for linear in found if linear is not None]


@pytest.mark.parametrize("name", ["sdxl", "flux-dev"])
def test_an_adapter_is_two_products_of_the_rank_at_each_projection(name):
    before = denoising(shipped(name)).operators
    after = denoising(with_lora(shipped(name), RANK)).operators
    work = sum(2 * m * RANK * (k + n) for m, k, n in projections(before))
    assert projections(before)
    assert sum(map(flops, after)) - sum(map(flops, before)) == work
    added = len([one for one in after if one.op == "aten::mm" and ".lora_" in one.module])
    assert added == 2 * len(projections(before))


def test_weights_grow_by_both_matrices():
    before, after = shipped("sdxl"), with_lora(shipped("sdxl"), RANK)
    expected = sum(RANK * (k + n) for _, k, n in projections(denoising(before).operators))
    assert after.parameters["unet"] - before.parameters["unet"] == expected
    assert after.parameter_bytes["unet"] - before.parameter_bytes["unet"] == 2 * expected
    assert after.parameter_bytes["vae"] == before.parameter_bytes["vae"]


def test_what_reads_a_projection_reads_the_sum():
    trace = with_lora(shipped("flux-dev"), RANK)
    operators = denoising(trace).operators
    total = next(
        one
        for one in operators
        if one.op == "aten::add" and one.module.endswith("transformer_blocks.0.attn.to_q")
    )
    base = total.inputs[0].tensor
    reads = [one for one in operators[total.position + 1 :] if any(use.tensor == base for use in one.inputs)]
    assert not reads
    assert any(
        use.tensor == total.outputs[0].tensor for one in operators[total.position + 1 :] for use in one.inputs
    )


def test_two_passes_have_one_adapter():
    """Wan runs guidance in turn."""
    trace = with_lora(shipped("wan2.1-1.3b"), RANK)
    products = [
        one for one in denoising(trace).operators if one.module.endswith("lora_A") and one.op == "aten::mm"
    ]
    assert len(products) == 2 * len({one.inputs[1].tensor for one in products})


def test_it_costs_time_and_the_rank_hardly_matters():
    none, low, high = (
        simtti.run("flux-dev", "h100-sxm", steps=4, fidelity="closed", lora=rank).latency_s
        for rank in (None, 16, 64)
    )
    assert none < low < high < 1.1 * low


def test_it_goes_together_with_a_cache_and_fewer_bits():
    trace = with_lora(quantized(cached(shipped("flux-dev"), "fbcache:0.5"), "fp8"), RANK)
    *_, hit = next(phase for phase in trace.phases if phase.name == "denoising").steps
    modules = {one.module for one in hit.operators if one.module.endswith("lora_A")}
    assert len(modules) == 8  # of the one block that runs: four projections a stream
    assert any(one.op == "aten::_scaled_mm" for one in hit.operators)


@pytest.mark.parametrize(
    ("trace", "rank", "message"),
    [
        (lambda: shipped("sdxl"), 0, "lora is 0; it must be a rank"),
        (timed_trace, 16, "use timing model"),
        (lambda: shipped("llama2-7b"), 16, "no attention projection named to_q"),
    ],
)
def test_what_cannot_be(trace, rank, message):
    with pytest.raises(InputError, match=message):
        with_lora(trace(), rank)
