"""What numbers and arrays have by different names, so that a formula is written once for one kernel and for a column of them.

A formula asks `of` one of its amounts which of the two it works with. Both give the same to the last bit: numpy's power does not,
and is Python's here.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

Number: TypeAlias = Any  # a float, or an array of one entry a kernel


class Arithmetic(NamedTuple):
    """The largest, the smallest; of two by a condition, whichever holds; whether any is not 0; a quotient
    rounded up, and down; rounded up; the square root; a share, at most 1, to a power; the nearest whole number, of two as near the even
    one."""

    largest: Callable[..., Number]
    least: Callable[..., Number]
    either: Callable[[Any, Number, Number], Number]
    some: Callable[[Number], Any]
    parts: Callable[[Number, Number], Number]
    whole_parts: Callable[[Number, Number], Number]
    ceil: Callable[[Number], Number]
    root: Callable[[Number], Number]
    power: Callable[[Number, float], Number]
    rounded: Callable[[Number], Number]


def _one(condition: bool, this: float, that: float) -> float:
    return this if condition else that


def _root(of: Number) -> Number:
    return math.sqrt(of) if isinstance(of, (int, float)) else np.sqrt(of)


def _parts(whole: int, part: int) -> int:
    return -(-whole // part)


def _largest(*values: Number) -> Number:
    return functools.reduce(np.maximum, values)


def _parts_of_each(whole: Number, part: Number) -> Number:
    """In floats, where no quotient of whole numbers below 2**52 rounds to a whole number that it is not."""
    return np.ceil(whole / part)


def _whole_parts_of_each(whole: Number, part: Number) -> Number:
    return np.floor(whole / part)


def _power_of_each(share: Number, power: float) -> Number:
    if power == 1.0:
        return share
    found = np.ones_like(share)
    below = np.flatnonzero(share < 1.0)
    found[below] = [each**power for each in share[below].tolist()]
    return found


NUMBERS = Arithmetic(max, min, _one, bool, _parts, operator.floordiv, math.ceil, _root, pow, round)
ARRAYS = Arithmetic(
    _largest, np.minimum, np.where, np.any, _parts_of_each, _whole_parts_of_each, np.ceil, np.sqrt, _power_of_each, np.rint
)  # fmt: skip


def of(*amounts: Number) -> Arithmetic:
    """What `amounts` are calculated with: arrays if any of them is one."""
    return ARRAYS if any(isinstance(amount, np.ndarray) for amount in amounts) else NUMBERS
