"""What a spec may say, and how a fault in it is told."""

import pytest
import yaml
from click.testing import CliRunner
from explored import SPEC, spec

from simtti.cli import main
from simtti.errors import InputError
from simtti.explore import search
from simtti.explore.design import make
from simtti.explore.spec import EXAMPLES, read
from simtti.hw_configs.devices import load


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"base": "h100"}, ["device 'h100'", "h100-sxm"]),
        ({"objectives": ["latency"]}, ["objective 'latency'", "latency_s"]),
        ({"objectives": []}, ["objectives", "at least 1"]),
        ({"constraints": {"die": {"max": 1}}}, ["constraint 'die'"]),
        ({"workloads": [{"workload": "sdlx"}]}, ["sdlx", "sdxl"]),
        ({"workloads": [{"workload": "sdxl", "weight": -1}]}, ["workloads.0.weight", "-1"]),
        ({"workloads": [{"workload": "sdxl", "step": 1}]}, ["workloads.0.step", "did you mean 'steps'"]),
        ({"workloads": [{"workload": "sdxl"}, {"workload": "sdxl"}]}, ["two are called 'sdxl'", "name"]),
        ({"parameters": {"sm_counts": {"values": [1]}}}, ["parameter 'sm_counts'", "sm_count"]),
        ({"parameters": {"sm_count": {"low": 9, "high": 3, "steps": 2}}}, ["parameters.sm_count", "9", "3"]),
        ({"parameters": {"sm_count": {"low": 1, "high": 3}}}, ["parameters.sm_count.steps", "grid"]),
        ({"parameters": {"sm_count": {"values": [0, 3]}}}, ["'sm_count' is 0", "from 1 to"]),
        ({"parameters": {"sm_count": {"values": ["many"]}}}, ["parameters.sm_count.values.0", "many"]),
        ({"parameters": {"sm_count": {"formula": "base.sms"}}}, ["sm_count.formula", "base.sms"]),
        (
            {"parameters": {"sm_count": {"formula": "gpus"}, "gpus": {"formula": "sm_count"}}},
            ["all are formulas"],
        ),
        ({"search": {"method": "random"}}, ["search.method", "random", "nsga2"]),
        ({"compare": {"x": {"sms": 1}}}, ["parameter of compare.x 'sms'"]),
    ],
)
def test_a_faulty_spec_is_one_line_that_names_field_value_and_mend(tmp_path, change, words):
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump({**SPEC, **change}))
    shown = CliRunner().invoke(main, ["explore", str(path), "--out", str(tmp_path / "out")])
    assert shown.exit_code == 2
    assert shown.stdout == ""
    assert shown.stderr.count("\n") == 1
    for word in (path.name, *words):
        assert word in shown.stderr


def test_formulas_follow_each_other_and_not_in_a_circle():
    tied = {
        "sm_count": {"values": [66, 132]},
        "l2_capacity_bytes": {"formula": "l2_bytes_per_s / 1e5"},
        "l2_bytes_per_s": {"formula": "base.l2_bytes_per_s * sm_count / base.sm_count"},
    }
    values = spec(parameters=tied).complete({"sm_count": 66.0})
    assert values["l2_bytes_per_s"] == load("h100-sxm").l2_bytes_per_s / 2
    assert values["l2_capacity_bytes"] == values["l2_bytes_per_s"] / 1e5
    tied["l2_bytes_per_s"] = {"formula": "l2_capacity_bytes"}
    with pytest.raises(InputError, match="circle"):
        spec(parameters=tied)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_examples_are_valid_and_every_corner_can_be_built(path):
    example = read(path.stem)
    assert example.question
    search.check(example)
    for share in (0.0, 0.5, 1.0):
        make(example.base, example.complete({name: item.at(share) for name, item in example.free.items()}))
    assert len(list(EXAMPLES.glob("*.yaml"))) == 5
