"""Quantisation as a pass over a trace: what is replaced, what stays, memory, and what runs show of it."""

import dataclasses
import json

import places
import pytest
from small_traces import operator, small_trace, timed_trace, use

import simtti
from simtti.errors import InputError
from simtti.hw_configs import devices
from simtti.simulator.lowering.lower import Lowering
from simtti.simulator.policy import Policy
from simtti.workloads.kineto import import_kineto
from simtti.workloads.quantization import SCHEMES, quantized
from simtti.workloads.quantized_layers import linear_of
from simtti.workloads.record import workload_trace
from simtti.workloads.trace import Phase, Step

M, N, K = 512, 256, 1024
SCALED_MM = places.SHARED / "field" / "scaled_mm_fp8.json"


def layer(position, tensor, n=N, k=K, out=100):
    """A linear layer of 16-bit numbers that reads tensor 50."""
    bias = use(tensor + 1, (n,), dtype="bf16", role="parameter", storage_bytes=2 * n)
    x = use(50, (M, k), dtype="bf16", storage_bytes=2 * M * k)
    weight = use(tensor, (k, n), (1, k), "bf16", 2 * n * k, "parameter")
    result = use(out + position, (M, n), dtype="bf16", storage_bytes=2 * M * n)
    return operator(
        position,
        op="aten::addmm",
        category="Linear",
        inputs=(bias, x, weight),
        outputs=(result,),
        attributes={},
        module="unet.blocks.0.linear",
    )


def trace_of(*layers, phase="denoising"):
    nbytes = sum(one.inputs[2].storage_bytes for one in layers)
    steps = (Step(2, layers),)
    return small_trace(phases=(Phase(phase, steps),), parameter_bytes={"unet": nbytes + 7})


def names(trace):
    return [one.op for one in trace.operators()]


@pytest.mark.parametrize("name", sorted(SCHEMES))
def test_layers_are_replaced_and_their_weights_shrink(name):
    before = trace_of(layer(0, 10))
    after = quantized(before, name)
    weight = next(u for one in after.operators() for u in one.inputs if u.tensor == 10)
    bytes_a_number = 0.5 if SCHEMES[name].numbers == 2 else 1
    assert weight.storage_bytes == N * K * bytes_a_number
    saved = before.parameter_bytes["unet"] - after.parameter_bytes["unet"]
    assert (
        (0.6 if "svdq" in name else 0.8) * (2 - bytes_a_number) * N * K < saved < (2 - bytes_a_number) * N * K
    )
    assert after.options["quantization"] == name
    last = list(after.operators())[-1]
    assert last.outputs == layer(0, 10).outputs, "what follows reads the same tensor"
    assert [one.position for one in after.operators()] == list(range(len(names(after))))


def test_layers_that_read_one_input_quantise_it_once_where_it_is_compiled():
    three = trace_of(layer(0, 10), layer(1, 20), layer(2, 30))
    eager, compiled = quantized(three, "fp8"), quantized(three, "fp8", compiled=True)
    assert names(eager).count("aten::amax") == 3
    assert names(compiled).count("aten::amax") == 1
    assert names(compiled).count("aten::_scaled_mm") == 3
    numbers = {one.inputs[0].tensor for one in compiled.operators() if one.op == "aten::_scaled_mm"}
    assert len(numbers) == 1


def test_int8_is_multiplied_by_inductor_where_it_is_compiled_and_by_dot_products_where_not():
    (compiled,) = [
        one
        for one in quantized(trace_of(layer(0, 10)), "int8", compiled=True).operators()
        if "_int_mm" in one.op
    ]
    assert [u.dtype for u in (*compiled.inputs, *compiled.outputs)] == ["int8", "int8", "fp32", "bf16"]
    eager = quantized(trace_of(layer(0, 10)), "int8")
    (turned,) = [one for one in eager.operators() if one.op == "aten::clone"]
    assert turned.inputs[0].strides == (1, K)
    assert turned.outputs[0].strides == (N, 1)
    target = Lowering(devices.load("h100-sxm"), Policy())
    (kernel,) = target.lower(compiled).kernels
    assert kernel.tensor_dtype == "int8"
    (product,) = [one for one in eager.operators() if one.op == "aten::_int_mm"]
    words = target.lower(product).kernels[0]
    assert words.tensor_flops == 0
    assert sum(one.flops for one in target.lower(product).kernels) == pytest.approx(2.0 * M * N * K)


def test_int8_of_few_rows_goes_to_the_host():
    few = layer(0, 10)
    few = dataclasses.replace(
        few,
        inputs=(few.inputs[0], use(50, (8, K), dtype="bf16", storage_bytes=2 * 8 * K), few.inputs[2]),
        outputs=(use(100, (8, N), dtype="bf16", storage_bytes=2 * 8 * N),),
    )
    moved = [one for one in quantized(trace_of(few), "int8").operators() if one.attributes.get("transfer")]
    assert [one.attributes["transfer"] for one in moved] == [
        "device_to_host",
        "device_to_host",
        "host_to_device",
    ]
    assert moved[1].inputs[0].nbytes == N * K
    assert not any(
        one.attributes.get("transfer") for one in quantized(trace_of(few), "int8", compiled=True).operators()
    )


def test_mxfp8_multiplies_as_fast_as_fp8_with_less_work_before_it():
    fp8, mxfp8 = (
        simtti.run(trace_of(layer(0, 10, n=8192, k=8192)), "b200-sxm", quantization=each)
        for each in ("fp8", "mxfp8")
    )
    assert mxfp8.latency_s < fp8.latency_s
    with pytest.raises(
        InputError, match=r"h100-sxm has no tensor-core path for dtype 'mxfp8' \(it has: .*fp8"
    ):
        simtti.run(trace_of(layer(0, 10)), "h100-sxm", quantization="mxfp8")


def test_svdquant_adds_a_branch_of_rank_32_in_the_same_two_kernels():
    (quantising, multiplying) = (
        next(one for one in quantized(trace_of(layer(0, 10)), "svdq-int4").operators() if name in one.op)
        for name in ("quantize_w4a4", "gemm_w4a4")
    )
    assert [use.shape for use in quantising.outputs] == [(M, K // 2), (M, K // 64), (M, 32)]
    device = devices.load("l40s")
    lower = Lowering(device, Policy()).lower
    (first,), (second,) = lower(quantising).kernels, lower(multiplying).kernels
    assert first.flops == 2 * M * K * 32
    assert second.flops == 2 * M * N * (K + 32)
    assert second.tensor_dtype == "int4"
    up = second.flops - 2 * M * N * K
    assert (
        second.grid * second.tensor_flops >= 2 * M * N * K + up * device.tensor_int4_flops_per_cycle_sm / 1024
    )


def test_svdquant_shares_an_input_and_keeps_those_of_few_rows_and_outside_of_blocks():
    outside = dataclasses.replace(layer(2, 30), module="unet.proj_out")
    trace = quantized(trace_of(layer(0, 10), layer(1, 20), outside), "svdq-nvfp4")
    assert names(trace) == [
        "nunchaku::quantize_w4a4_act_fuse_lora",
        *["nunchaku::gemm_w4a4"] * 2,
        "aten::addmm",
    ]


@pytest.mark.parametrize(
    ("name", "hw", "has"), [("svdq-int4", "h100-sxm", "fp8"), ("svdq-nvfp4", "l40s", "int4")]
)
def test_svdquant_on_a_device_without_the_format_says_what_it_has(name, hw, has):
    with pytest.raises(InputError, match=rf"{hw} has no tensor-core path for dtype .* \(it has: .*{has}"):
        simtti.run(trace_of(layer(0, 10)), hw, quantization=name)


def test_four_bits_pay_on_a_device_that_has_them():
    times = [
        simtti.run(trace_of(layer(0, 10, n=12288, k=3072)), "rtx-4090", quantization=each).latency_s
        for each in ("fp8", "svdq-int4")
    ]
    assert times[1] < times[0]


def test_an_input_that_is_written_in_between_is_quantised_again():
    write = operator(1, op="aten::add_", outputs=(use(50, (M, K), dtype="bf16", storage_bytes=2 * M * K),))
    trace = small_trace(phases=(Phase("denoising", (Step(1, (layer(0, 10), write, layer(2, 30))),)),))
    assert names(quantized(trace, "fp8", compiled=True)).count("aten::amax") == 2


def test_the_program_lets_go_of_what_the_pass_makes():
    first = dataclasses.replace(layer(0, 10), released=(50,))
    after = list(quantized(trace_of(first), "fp8").operators())
    made = {use.tensor for one in after[:-1] for use in one.outputs}
    assert sorted(tensor for one in after for tensor in one.released) == sorted({50, *made})
    assert 50 in after[-1].released
    assert not any(one.released for one in quantized(trace_of(layer(0, 10)), "fp8").operators())


def test_what_no_format_divides_stays():
    odd = trace_of(layer(0, 10), layer(1, 20, n=24))
    assert names(quantized(odd, "fp8")).count("aten::addmm") == 1
    with pytest.raises(InputError, match="no linear layer of tiny's denoiser"):
        quantized(trace_of(layer(0, 20, n=24)), "fp8")


def test_text_encoders_and_decoders_stay():
    with pytest.raises(InputError, match="no linear layer"):
        quantized(trace_of(layer(0, 10), phase="text_encoder"), "fp8")


def test_errors_name_what_is_wrong():
    with pytest.raises(InputError, match="unknown quantization 'fp9'; did you mean 'fp8'"):
        quantized(trace_of(layer(0, 10)), "fp9")
    with pytest.raises(InputError, match="cannot be put into a measured trace"):
        quantized(timed_trace(), "fp8")
    with pytest.raises(InputError, match="a100-sxm has no tensor-core path for dtype 'fp8'"):
        simtti.run(trace_of(layer(0, 10)), "a100-sxm", quantization="fp8")


def test_every_layer_of_flux_is_one():
    step = workload_trace("flux-dev").phases[1].steps[0]
    layers = [found for one in step.operators if (found := linear_of(one)) is not None]
    assert len(layers) == 504
    assert all(SCHEMES["fp8"].takes(one) for one in layers)


# diffusers-torchao on an H100 80GB (sayakpaul/diffusers-torchao, README): FLUX.1-dev, 28 steps, eager: seconds over bf16's 6.573.
@pytest.mark.parametrize(("name", "ratio"), [("fp8", 8.622 / 6.573), ("fp8-weight-only", 8.402 / 6.573)])
def test_flux_on_an_h100_eager(name, ratio):
    plain, reduced = (
        simtti.run("flux-dev", "h100-sxm", steps=4, fidelity="closed", quantization=each)
        for each in (None, name)
    )
    encoders_s = plain.latency_s - dict((p.name, p.latency_s) for p in plain.phases)["denoising"]
    # The rest of the inference is in the measured seconds: 28 steps' worth of denoising.
    whole = [7 * (each.latency_s - encoders_s) + encoders_s for each in (plain, reduced)]
    assert whole[1] / whole[0] == pytest.approx(ratio, rel=0.15)
    assert reduced.peak_memory_bytes < plain.peak_memory_bytes - 11e9
    assert reduced.to_dict()["configuration"]["quantization"] == name


def test_sweep_takes_the_option(tmp_path):
    points = tmp_path / "points.csv"
    points.write_text(
        "workload,hw,steps,quantization\nflux-dev,h100-sxm,1,fp8\nflux-dev,h100-sxm,1,\nflux-dev,a100-sxm,1,fp8\n"
    )
    table = simtti.sweep(points, tmp_path / "out.csv", workers=1)
    assert table.peak_memory_bytes[0] < table.peak_memory_bytes[1]
    assert "a100-sxm has no tensor-core path for dtype 'fp8'" in table.error[2]


@pytest.mark.skipif(not SCALED_MM.exists(), reason=f"no {SCALED_MM}")
def test_an_imported_scaled_mm_is_a_product_in_fp8(tmp_path):
    found = import_kineto(SCALED_MM)
    trace = found if hasattr(found, "operators") else found[0]
    (row,) = [one for one in trace.operators() if one.op == "aten::_scaled_mm"]
    assert row.outputs[0].shape == (4096, 12288)
    assert row.outputs[0].dtype == "bf16"
    from simtti.hw_configs.devices import load
    from simtti.simulator.predict import operator_time_s

    h100 = load("h100-sxm")
    lowered = Lowering(h100, Policy()).lower(row)
    assert not lowered.unknown
    assert operator_time_s(list(lowered.kernels), h100) == pytest.approx(
        json.loads(SCALED_MM.read_text())["traceEvents"][-1]["dur"] * 1e-6, rel=0.12
    )
