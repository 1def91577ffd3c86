"""Attention libraries: the recipe of docs/extend.md as it stands there, and what makes a library known everywhere."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import simtti
from simtti.errors import InputError
from simtti.hw_configs import devices
from simtti.hw_configs.hardware import parameter, with_parameters
from simtti.simulator.kernels import libraries
from simtti.simulator.kernels.attention import attention
from simtti.simulator.kernels.attention_problem import Attention
from simtti.simulator.policy import Policy

NAME = "my-attention"
RECIPE = Path(__file__).parents[3] / "docs" / "extend.md"
TINY = {"workload": "stable-diffusion", "steps": 1}
ROWS = pd.DataFrame(
    {"op": "attention", "dtype": "fp16", "batch": batch, "heads": 8, "q_len": length, "kv_len": keys, "head_dim": 64, "kernel": NAME}
    for batch in (1, 4, 32)
    for length in (64, 512, 2048)
    for keys in (64, 512, 2048)
)  # fmt: skip


def blocks_of_the_recipe():
    """The YAML and the Python of the section."""
    section = RECIPE.read_text().partition("## An attention library")[2].partition("\n## ")[0]
    return [re.search(rf"```{kind}\n(.*?)```", section, re.DOTALL)[1] for kind in ("yaml", "python")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The recipe, followed in a folder of one's own; forgotten afterwards."""
    where = tmp_path_factory.mktemp("library")
    values, program = blocks_of_the_recipe()
    (where / "my_attention.yaml").write_text(values)
    file = str(where / "my_attention.yaml")
    found = {}
    exec(program.replace('"my_attention.yaml"', repr(file)), found)
    yield where
    libraries.remove(found["MY_ATTENTION"], file)


def test_its_kernels_are_its_records(folder):
    device = devices.load("a100-sxm")
    (kernel,) = attention(Attention(2, 8, 4096, 4096, 64, kernel=NAME), device)
    assert kernel.name == f"{NAME}_64_128x64"
    assert (kernel.grid, kernel.threads, kernel.registers) == (2 * 8 * 32, 128, 255)
    assert device.my_attention.exposed == 0.3
    assert device.my_attention.row_cycles == device.flash_2.row_cycles


def test_predict_times_it_by_its_own_parameters(folder):
    mine = simtti.predict(ROWS, "h100-sxm")
    other = simtti.predict(ROWS.assign(kernel="flash-attention-2"), "h100-sxm")
    assert set(mine.error) == {""}
    assert (mine.time_us != other.time_us).any()
    slow = with_parameters(devices.load("h100-sxm"), {"my_attention.setup_cycles": 8000.0})
    assert (simtti.predict(ROWS, slow).time_us > mine.time_us).all()


def test_runs_name_it(folder):
    default = simtti.run(**TINY, hw="a100-sxm")
    mine = simtti.run(**TINY, hw="a100-sxm", attention=NAME)
    assert mine.policy.attention == NAME
    assert mine.latency_s != default.latency_s


def test_a_device_file_may_name_it(folder):
    path = folder / "chip.yaml"
    path.write_text(f"base: h100-sxm\nname: chip\nattention_kernel: {NAME}\n")
    device = devices.load(str(path))
    (kernel,) = attention(Attention(1, 8, 4096, 4096, 64), device)
    assert kernel.name.startswith(NAME)


def test_what_it_cannot_do_runs_on_another(folder):
    device = devices.load("a100-sxm")
    for options in ({"dtype": "fp32"}, {"masked": True}, {"head_dim": 256}):
        problem = Attention(
            **{"batch": 1, "heads": 8, "q_len": 512, "kv_len": 512, "head_dim": 64, "kernel": NAME, **options}
        )
        assert all(kernel.name.startswith("efficient") for kernel in attention(problem, device))


def measured_on(device):
    """ROWS with the times that `device` has."""
    from simtti.validation.judge.prediction import predicted_us

    rows = ROWS.assign(hw="h100-sxm", source="made", what_is_timed="back-to-back", causal=False, time_us=1.0)
    return rows.assign(time_us=predicted_us(rows, device, workers=1))


def test_measurements_of_it_fit_its_group_and_are_judged(folder, tmp_path):
    from simtti.validation.fit.calibrate import calibrate
    from simtti.validation.judge.kernels import evaluate
    from simtti.validation.measurements.read import read_measurements

    true = with_parameters(devices.load("h100-sxm"), {"my_attention.setup_cycles": 4000.0})
    path = tmp_path / "measured.csv"
    measured_on(true).to_csv(path, index=False)
    table = read_measurements(path)
    assert set(table.kernel) == {NAME}
    found = calibrate("h100-sxm", table, only=(NAME,), parameters=("my_attention.setup_cycles",), workers=1)
    assert parameter(found.hardware, "my_attention.setup_cycles") == pytest.approx(4000.0, rel=0.02)
    judged = evaluate(true, table, workers=1).table
    assert set(judged.family) == {NAME}
    assert np.allclose(judged.ratio, 1.0)


def test_a_library_is_added_once(folder):
    with pytest.raises(InputError, match="my-attention"):
        libraries.add(libraries.LIBRARIES[NAME])


def test_a_library_that_is_forgotten_is_unknown_everywhere(tmp_path):
    values, _ = blocks_of_the_recipe()
    path = tmp_path / "gone.yaml"
    path.write_text(values.replace(NAME, "gone").replace("my_attention", "gone"))
    library = libraries.FLASH_2._replace(name="gone", style="gone")
    libraries.add(library, str(path))
    device = devices.load("a100-sxm")
    assert Policy(attention="gone").attention == "gone"
    libraries.remove(library, str(path))
    with pytest.raises(InputError, match="unknown attention kernel 'gone'"):
        attention(Attention(1, 1, 16, 16, 64, kernel="gone"), device)
    with pytest.raises(
        InputError, match="'gone'; it must be one of flash, efficient, baseline, math, flash-attention-1"
    ):
        Policy(attention="gone")
    assert not hasattr(devices.load("a100-sxm"), "gone")


def test_a_group_of_no_style_is_named(tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text("groups: {wrong: AttentionStile}\n")
    devices.add_values(str(path))
    try:
        with pytest.raises(InputError, match=r"wrong.yaml: field 'groups.wrong': no style 'AttentionStile'"):
            devices.load("a100-sxm")
    finally:
        devices.remove_values(str(path))
    devices.load("a100-sxm")


@pytest.mark.parametrize("policy", ["flash-attention-2", "trtllm-fmha", "efficient", "baseline"])
def test_a_policy_may_name_any_library(policy):
    assert Policy(attention=policy).attention == policy
