"""A workload of one's own, as docs/extend.md says: the example there, found by its name like any other."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

import simtti
from simtti.errors import InputError
from simtti.workloads import catalogue
from simtti.workloads.catalogue import WORKLOADS, register

pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

GUIDE = Path(__file__).parents[2] / "docs" / "extend.md"


@pytest.fixture
def registry(monkeypatch):
    """The catalogue as it was, afterwards."""
    monkeypatch.setattr(catalogue, "WORKLOADS", dict(WORKLOADS))
    monkeypatch.setattr(catalogue, "ALIASES", dict(catalogue.ALIASES))


def examples():
    section = GUIDE.read_text().partition("\n## A workload\n")[2].partition("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


def toy(**changes):
    names = {}
    exec(examples()[0], names)
    return replace(names["WORKLOADS"][0], **changes)


def test_the_guides_example_runs(registry):
    names = {}
    for example in examples():
        exec(example, names)
    result = simtti.run("toy", hw="h100-sxm", steps=2)
    assert result.latency_s > 0
    trace = simtti.record("toy", steps=3, batch=2)
    assert trace.parameters == dict(names["WORKLOADS"][0].parameters)
    denoising, decoder = trace.phases
    assert [(step.count, [op.op for op in step.operators if not op.is_view]) for step in denoising.steps] == [
        (3, ["aten::addmm"])
    ]
    assert denoising.steps[0].operators[-1].module == "denoiser"
    assert decoder.steps[0].operators[-1].attributes["transfer"] == "device_to_host"


def test_it_is_captured_as_it_is_recorded(registry):
    from simtti.workloads.capture import capture

    register(toy())
    captured = capture("toy", device="cpu", repeats=1, all_steps=True)
    assert captured.phases == simtti.record("toy", all_steps=True).phases
    assert [len(phase.steps) for phase in captured.phases] == [4, 1]


def test_it_comes_last_and_is_found_by_any_of_its_names(registry):
    register(toy(aliases=("plaything",)))
    assert catalogue.find("plaything") is catalogue.find("toy")
    assert list(catalogue.WORKLOADS) == [*WORKLOADS, "toy"]
    with pytest.raises(InputError, match="unknown workload 'toys'; did you mean 'toy'"):
        catalogue.find("toys")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "sdxl"}, "name is 'sdxl', which another workload has"),
        ({"aliases": ("stable-diffusion",)}, "name is 'stable-diffusion', which another workload has"),
        ({"group": "studies"}, "unknown group 'studies'; did you mean 'study'"),
    ],
)
def test_what_cannot_be_registered_is_said_in_one_line(registry, changes, message):
    with pytest.raises(InputError, match=message) as caught:
        register(toy(**changes))
    assert "\n" not in str(caught.value)
    assert list(catalogue.WORKLOADS) == list(WORKLOADS)
