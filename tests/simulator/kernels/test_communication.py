"""Collectives: what goes over the link, and what a table of them may say."""

import math

import pytest
from streams import A100, H100, cold_s

from simtti.errors import InputError
from simtti.hw_configs.devices import load
from simtti.simulator.kernels.communication import AllToAll, all_to_all
from simtti.simulator.lowering.registry import kernels_of
from simtti.simulator.predict import predict_rows

ROW = {"op": "all_to_all", "dtype": "bf16", "numel": 1 << 24, "ranks": 4}


def test_each_keeps_its_own_part():
    (kernel,) = all_to_all(AllToAll(1e6, 4), H100)
    assert kernel.link_bytes == 0.75e6
    assert kernel.unique_bytes == 2e6


@pytest.mark.parametrize("hardware", [H100, A100], ids=lambda hardware: hardware.name)
def test_a_row_takes_as_long_as_its_bytes_over_the_link(hardware):
    link_s = 2 * (1 << 24) * 0.75 / hardware.link_attained_bytes_per_s
    assert cold_s(kernels_of(ROW, hardware), hardware) == pytest.approx(link_s, rel=0.1)
    ((time_us, _, _, error),) = predict_rows([ROW], hardware)
    assert error == ""
    assert time_us == pytest.approx(link_s * 1e6, rel=0.1)


def test_one_gpu_or_a_device_without_a_link_has_none():
    with pytest.raises(InputError, match="column 'ranks' is 1; it must be a whole number of at least 2"):
        kernels_of({**ROW, "ranks": 1}, H100)
    with pytest.raises(InputError, match="rtx-4090 has no link between GPUs"):
        kernels_of(ROW, load("rtx-4090"))
    ((time_us, _, _, error),) = predict_rows([ROW], load("rtx-4090"))
    assert math.isnan(time_us)
    assert "no link" in error
