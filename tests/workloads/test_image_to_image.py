"""Image to image: the image is encoded, and a share of the steps is run."""

import pytest

from simtti.errors import InputError
from simtti.workloads.catalogue import find

NAME = "stable-diffusion-1.5"


@pytest.mark.parametrize(
    ("steps", "strength", "floor", "ceiling"),
    [(50, 0.3, 15, 15), (50, 0.75, 37, 38), (4, 1.0, 4, 4), (20, 0.06, 1, 2)],
)
def test_steps_that_are_run(steps, strength, floor, ceiling):
    """As the pipelines round: int(steps * strength), or steps less int(steps * (1 - strength))."""
    options = find(NAME).options(steps=steps, strength=strength)
    assert options.sampled_steps(rounded_up=False) == floor == int(round(steps * strength, 9))
    assert (
        options.sampled_steps(rounded_up=True) == ceiling == steps - int(round(steps - steps * strength, 9))
    )


@pytest.mark.parametrize(
    ("name", "strength", "message"),
    [
        (NAME, 0.0, r"strength is 0.0; it must be above 0 and at most 1"),
        (NAME, 1.5, "at most 1"),
        ("wan2.1-1.3b", 0.5, "takes no strength"),
    ],
)
def test_what_cannot_be(name, strength, message):
    with pytest.raises(InputError, match=message):
        find(name).options(strength=strength)


def test_no_step_left():
    with pytest.raises(InputError, match=r"of 4 steps none is run; give at least 0\.25"):
        find(NAME).options(steps=4, strength=0.2).sampled_steps(rounded_up=False)


def test_a_strength_is_no_default():
    assert "strength" not in find(NAME).options().given()


def test_the_image_is_encoded_and_then_denoised_for_fewer_steps():
    pytest.importorskip("torch")
    from recorded_traces import small

    trace = small(strength=0.5, steps=20)
    assert [phase.name for phase in trace.phases] == ["text_encoder", "image_encoder", "denoising", "decoder"]
    encoder, denoiser = (phase.steps[0] for phase in trace.phases[1:3])
    assert denoiser.count == 11  # PNDM evaluates once more than steps
    modules = {
        one.module.partition(".")[2].partition(".")[0] for one in encoder.operators if "vae" in one.module
    }
    assert {"encoder", "quant_conv"} <= modules
    made = {use.tensor for one in encoder.operators for use in one.outputs}
    assert any(use.tensor in made for one in denoiser.operators for use in one.inputs)
    same = next(phase for phase in small().phases if phase.name == "denoising").steps[0]
    assert [one.op for one in denoiser.operators] == [one.op for one in same.operators]
    with pytest.raises(InputError, match="record it anew with --steps"):
        trace.with_steps(10)
