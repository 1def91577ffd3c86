"""What a row of a user's table cannot be is that row's error; a bug of ours is nobody's row error: it is raised."""

import math
import multiprocessing

import pandas as pd
import pytest

from simtti.errors import BugError, InputError
from simtti.explore.evaluate import evaluate
from simtti.explore.spec import parse
from simtti.hw_configs.devices import load
from simtti.simulator import predict
from simtti.simulator.compare import compare
from simtti.simulator.sweep import sweep
from simtti.validation.judge import kernels, prediction

H100 = load("h100-sxm")
GEMM = {"op": "gemm", "dtype": "fp16", "m": 128, "n": 128, "k": 128, "what_is_timed": "back-to-back"}
CONVOLUTION = {"op": "conv2d", "dtype": "fp16", "n": 1, "c": 6, "h": 8, "w": 8, "oc": 8, "kh": 3, "kw": 3}
ATTENTION = {"op": "attention", "dtype": "fp16", "heads": 8, "q_len": 64, "kv_len": 64, "head_dim": 64}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (GEMM | {"m": 0}, "column 'm' is 0; it must be a whole number of at least 1"),
        (GEMM | {"batch": -1}, "column 'batch' is -1; it must be a whole number of at least 1"),
        (ATTENTION | {"heads": 0}, "column 'heads' is 0; it must be a whole number of at least 1"),
        (CONVOLUTION | {"kh": 9}, "column 'kh' is 9; it is larger than the padded input of 8"),
        (CONVOLUTION | {"groups": 4}, "column 'groups' is 4; it must divide c, 6, and oc, 8"),
    ],
)
def test_a_cell_that_cannot_be_is_named_where_it_is_read(row, said):
    with pytest.raises(InputError, match=said):
        predict.kernels_of(row, H100)
    ((time_us, _, _, error),) = predict.predict_rows([row], H100)
    assert math.isnan(time_us)
    assert said in error


def test_a_run_whose_cell_cannot_be_keeps_its_row(tmp_path):
    rows = pd.DataFrame(
        {"workload": "stable-diffusion", "hw": "h100-sxm", "batch": ["two", 1], "steps": [2, 0]}
    )
    errors = sweep(rows, tmp_path / "out.csv", workers=1).error.tolist()
    assert errors[0] == "column 'batch' is 'two'; it must be a whole number"
    assert "steps is 0" in errors[1]


def bug(*_, **__):
    raise ValueError("a bug")


needs_fork = pytest.mark.skipif(
    multiprocessing.get_start_method() != "fork", reason="the planted bug is in this process alone"
)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=needs_fork)])
def test_a_bug_in_a_run_is_raised_even_out_of_a_process(tmp_path, monkeypatch, workers):
    monkeypatch.setattr("simtti.simulator.several_gpus.simulate", bug)
    rows = pd.DataFrame({"workload": "stable-diffusion", "hw": ["h100-sxm", "a100-sxm"], "steps": 2})
    with pytest.raises(BugError, match=r"2 rows .*ValueError: a bug"):
        sweep(rows, tmp_path / "out.csv", workers=workers)
    assert len(pd.read_csv(tmp_path / "out.csv")) == 2
    with pytest.raises(ValueError, match="a bug"):
        compare("stable-diffusion", ["h100-sxm", "a100-sxm"], workers=workers)


def test_a_bug_in_a_kernel_is_raised(monkeypatch):
    for module in (predict, prediction, kernels):
        monkeypatch.setattr(module, "kernels_of", bug)
    with pytest.raises(BugError, match="ValueError: a bug"):
        predict.predict(pd.DataFrame([GEMM]), H100)
    with pytest.raises(ValueError, match="a bug"):
        prediction.time_us(GEMM, H100)
    with pytest.raises(ValueError, match="a bug"):
        kernels.evaluate(H100, pd.DataFrame([GEMM | {"hw": "h100-sxm", "time_us": 5.0, "source": "a test"}]))


def test_a_bug_in_a_design_is_raised(monkeypatch):
    monkeypatch.setattr("simtti.simulator.engine.simulation.simulate", bug)
    spec = parse(
        {
            "base": "h100-sxm",
            "parameters": {"sm_count": {"values": [100, 120]}},
            "workloads": [{"workload": "stable-diffusion-1.5", "steps": 2}],
            "objectives": ["latency_s"],
        }
    )
    with pytest.raises(ValueError, match="a bug"):
        evaluate(spec.model_dump_json(), {"sm_count": 100})


def test_a_users_mistake_is_no_value_error():
    """So that whoever catches the one does not catch the other."""
    assert not issubclass(InputError, ValueError)
