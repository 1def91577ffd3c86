"""The nouns of a trace: layouts, steps, tables."""

import pytest
from small_traces import small_trace, timed_trace, use

from simtti.errors import InputError
from simtti.workloads.trace import (
    Phase,
    Step,
)


@pytest.mark.parametrize(
    ("shape", "strides", "contiguous", "channels_last"),
    [
        ((2, 3, 4, 5), (60, 20, 5, 1), True, False),
        ((2, 3, 4, 5), (60, 1, 15, 3), False, True),
        ((2, 3, 4, 5, 6), (360, 1, 90, 18, 3), False, True),
        ((2, 3, 1, 1), (3, 1, 3, 3), True, True),
        ((2, 1, 4, 5), (20, 20, 5, 1), True, True),
        ((2, 3), (0, 1), False, False),
        ((), (), True, False),
        ((0, 3, 2, 2), (7, 7, 7, 7), True, True),
    ],
)
def test_layout(shape, strides, contiguous, channels_last):
    tensor = use(shape=shape, strides=strides, dtype="fp32")
    assert (tensor.contiguous, tensor.channels_last) == (contiguous, channels_last)
    assert tensor.nbytes == tensor.numel * 4


def test_with_steps_follows_the_sampler():
    trace = small_trace()
    counts = [trace.with_steps(steps).phases[0].steps[0].count for steps in (1, 2, 50)]
    assert counts == [1, 3, 51]
    assert trace.with_steps(20).options == {"batch": 1, "steps": 20}
    assert trace.with_steps(50) == trace


@pytest.mark.parametrize("steps", [0, -1, 2.5])
def test_with_steps_needs_a_whole_number(steps):
    with pytest.raises(InputError, match=r"steps is .* at least 1"):
        small_trace().with_steps(steps)


def test_with_steps_of_what_has_none():
    with pytest.raises(InputError, match="tiny has no phase whose number of steps"):
        small_trace(schedule={}).with_steps(3)
    differing = Phase("denoising", (Step(1, ()), Step(2, ())))
    with pytest.raises(InputError, match="2 steps one by one in phase denoising"):
        small_trace(phases=(differing,)).with_steps(3)


def test_dataframe():
    frame = small_trace().to_dataframe()
    assert list(frame["position"]) == [0, 1, 2]
    assert frame["input_shapes"][0] == [(2, 3), (2, 3)]
    assert set(frame["count"]) == {51}


def test_times_outlive_another_number_of_steps():
    assert timed_trace().with_steps(3).timing == timed_trace().timing


def test_kernels_dataframe():
    table = timed_trace().kernels_dataframe()
    assert list(table["name"]) == ["gemm", "reduce", "Memcpy DtoH"]
    assert list(table["op"].dropna()) == ["aten::add", "aten::add"]
    assert list(table["grid"][:2]) == [(8, 2, 1), (8, 1, 1)]
    assert table["duration_us"].sum() == 6.25
    assert small_trace().kernels_dataframe().empty
