"""Lanes: what is written for one device gives for several, along their paths, what it gives for each alone."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtti.simulator.lanes import Lanes, agreed, along_paths, lanes, together, undecided

numbers = st.lists(st.floats(0.01, 100.0), min_size=2, max_size=9)


def formula(x, y):
    """With all that formulas decide by."""
    if x > 3.0 and not y > 50.0:
        return max(x, y, 7.0) ** 0.3 - round(x)
    steps = -(-y // 4.0) if x < y else math.ceil(x)
    own = x
    own += 1.0  # changes no other's
    own *= 2.0
    own -= y
    own /= 3.0
    if own > x:
        steps += 1
    return min(steps, 11) / x + (x % 2.0) * abs(y - 1.0)


@given(numbers, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=100, derandomize=True)
def test_each_device_gets_what_it_gets_alone(one, random):
    other = [random.uniform(0.01, 100.0) for _ in one]
    found = along_paths(lambda: formula(lanes(one), lanes(other)), len(one))
    got = {at: np.broadcast_to(answer, len(one))[at] for own, answer in found for at in own}
    assert got == {at: formula(*each) for at, each in enumerate(zip(one, other, strict=True))}
    assert sum(len(own) for own, _ in found) == len(one)  # each once


def test_paths_are_as_many_as_there_are_answers():
    runs = []

    def run():
        runs.append(1)
        return "few" if lanes([1, 9, 2, 8, 3]) < 5 else "many"

    assert sorted(along_paths(run, 5)) == [([0, 2, 4], "few"), ([1, 3], "many")]
    assert len(runs) == 2


def test_devices_go_with_those_that_agree():
    found = along_paths(lambda: agreed(["a", "b", "a", "c"]), 4)
    assert sorted(found) == [([0, 2], "a"), ([1], "b"), ([3], "c")]


def test_nobody_parts_unseen():
    with pytest.raises(ValueError, match="differ"):
        bool(lanes([1, 2]) > 1)
    assert lanes([2, 3]) > 1

    def keeps():
        with undecided():
            return bool(lanes([1, 2]) > 1)

    with pytest.raises(ValueError, match="differ"):
        along_paths(keeps, 2)
    with pytest.raises(ValueError, match="differ"):  # as before
        bool(lanes([1, 2]) > 1)


def test_what_is_the_same_is_one_number():
    assert together([4, 4, 4]) == 4
    assert not isinstance(together([4, 4]), Lanes)
    assert together([4, 5]).tolist() == [4, 5]
