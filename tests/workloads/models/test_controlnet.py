"""A ControlNet is the UNet's way down once more, with zero convolutions whose results the UNet adds to its own."""

from collections import Counter

import pytest
from recorded_traces import denoising, shipped

from simtti.workloads.catalogue import WORKLOADS
from simtti.workloads.flops import flops
from simtti.workloads.lora import with_lora
from simtti.workloads.quantization import quantized

# A workload, the same without, and the zero convolutions beside the middle's: a convolution, then two blocks and the halving of a level.
PAIRS = [("stable-diffusion-1.5-controlnet", "stable-diffusion-1.5", 12), ("sdxl-controlnet", "sdxl", 9)]
DOWN = ("conv_in", "down_blocks", "mid_block", "time_embedding", "add_embedding")


def by_part(name):
    """FLOPs of a step by component and its part."""
    found = Counter()
    for operator in denoising(shipped(name)).operators:
        found[tuple((operator.module + "..").split(".")[:2])] += flops(operator)
    return found


@pytest.mark.parametrize(("name", "without", "zeros"), PAIRS)
def test_flops_of_the_control_are_those_of_the_way_down(name, without, zeros):
    with_control, alone = by_part(name), by_part(without)
    unet = {part: count for part, count in with_control.items() if part[0] == "unet"}
    assert unet == {part: count for part, count in alone.items() if part[0] == "unet"}
    for part in DOWN:
        assert with_control["controlnet", part] == alone["unet", part]
    beside = {part for component, part in with_control if component == "controlnet"} - {*DOWN, ""}
    assert {"controlnet_cond_embedding", "controlnet_down_blocks", "controlnet_mid_block"} <= beside


@pytest.mark.parametrize(("name", "without", "zeros"), PAIRS)
def test_zero_convolutions_and_what_they_are_added_to(name, without, zeros):
    operators, alone = (denoising(shipped(one)).operators for one in (name, without))
    made = [
        one
        for one in operators
        if one.category == "Convolution"
        and one.module.startswith("controlnet.controlnet_")
        and "_cond_" not in one.module
    ]
    assert len(made) == zeros + 1
    assert all(one.inputs[1].shape[2:] == (1, 1) for one in made)
    sums, before = (
        Counter(one.op for one in step if one.module == "unet" and not one.is_view)
        for step in (operators, alone)
    )
    assert sums["aten::add"] - before["aten::add"] == zeros + 1
    assert (
        len([one for one in operators if one.op == "aten::mul" and one.module == "controlnet"]) == zeros + 1
    )


def test_what_is_done_to_the_denoiser_is_not_done_to_the_control():
    trace = shipped("sdxl-controlnet")
    for made in (quantized(trace, "fp8-weight-only"), with_lora(trace, 16)):
        saved = {
            name: trace.parameter_bytes[name] - made.parameter_bytes[name] for name in ("unet", "controlnet")
        }
        assert saved["unet"] != 0
        assert saved["controlnet"] == 0


@pytest.mark.parametrize(("name", "without", "zeros"), PAIRS)
def test_the_image_comes_to_the_device_once_and_is_seen_by_both_halves_of_the_batch(name, without, zeros):
    options = WORKLOADS[name].defaults
    (first,) = [
        one for one in denoising(shipped(name)).operators
        if one.module == "controlnet.controlnet_cond_embedding.conv_in" and one.category == "Convolution"
    ]  # fmt: skip
    assert first.inputs[0].shape == (2, 3, options.height, options.width)
    copies = [
        one for phase in shipped(name).phases for step in phase.steps for one in step.operators
        if one.attributes.get("transfer") and any(use.shape == (1, 3, options.height, options.width) for use in one.outputs)
    ]  # fmt: skip
    assert len(copies) == 1
