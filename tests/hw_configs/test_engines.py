"""Engines: what each decides, and that what is given wins over it."""

import pytest

import simtti
from simtti.errors import InputError
from simtti.hw_configs.devices import load
from simtti.hw_configs.engines import engines, load_engine
from simtti.hw_configs.hardware import PYTORCH, with_pytorch
from simtti.simulator.policy import Policy

H100 = load("h100-sxm")


@pytest.mark.parametrize("name", engines())
@pytest.mark.parametrize("hw", ["h100-sxm", "b200-sxm", "a100-sxm"])
def test_what_an_engine_decides_are_options(name, hw):
    engine = load_engine(name)
    Policy(attention=engine.attention_on(load(hw).architecture), launch=engine.launch)
    assert engine.pytorch is None or engine.pytorch in PYTORCH
    with_pytorch(load(hw), engine.pytorch or load(hw).pytorch)


def test_an_engine_is_the_options_that_it_stands_for():
    by_name = simtti.run("stable-diffusion", H100, engine="sglang", fidelity="closed", steps=2)
    spelled = simtti.run(
        "stable-diffusion", H100, attention="flash-attention-3", launch="compiled", pytorch="2.11", fidelity="closed", steps=2
    )  # fmt: skip
    assert by_name.latency_s == spelled.latency_s
    assert by_name.policy == spelled.policy
    given = simtti.run(
        "stable-diffusion",
        H100,
        engine="sglang",
        launch="eager",
        attention="flash",
        fidelity="closed",
        steps=2,
    )
    assert (given.policy.launch, given.policy.attention) == ("eager", "flash")
    assert given.hardware.pytorch == "2.11"


def test_an_unknown_engine_is_named():
    with pytest.raises(InputError, match="unknown engine 'sglnag'; did you mean 'sglang'"):
        simtti.run("stable-diffusion", H100, engine="sglnag")
