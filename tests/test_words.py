"""Numbers and times as people read them."""

import math

import pytest

from simtti.words import gib, inference_shape, joined, number, percent, seconds, signed, whole


@pytest.mark.parametrize(
    ("value", "text"),
    [(123.4, "123 s"), (12.345, "12.3 s"), (0.0123, "12.3 ms"), (4.56e-5, "45.6 us"), (2e-9, "2 ns")],
)
def test_a_time_keeps_three_figures(value, text):
    assert seconds(value) == text


def test_what_is_not_known_is_empty():
    assert [say(math.nan) for say in (seconds, percent, signed, number, whole)] == [""] * 5
    assert whole(None) == ""


def test_one_word_for_one_thing():
    assert (percent(0.0654), signed(0.0654), number(1234.5)) == ("6.5 %", "+6.5 %", "1,234")
    assert (gib(3 * 2**30), gib(80 * 2**30, 0), whole(3.0)) == ("3.0 GiB", "80 GiB", "3")
    assert joined(["a", "b", "c"]) == "a, b and c"
    assert inference_shape({"height": 512, "width": 768, "batch": 2, "steps": None}) == "512x768, batch 2"
