"""Numbers of several devices side by side, so that what is written for one device is worked out for all of them at once.

`Lanes` are an array with a number for each device. Arithmetic on them is numpy's, to the last bit Python's. Where a formula decides
by them (an `if`, the larger of two), devices may part: `along_paths` goes on with those that most go with, and runs the whole formula
again for the others, until each device has been down its own path. Whoever keeps something by a device's identity keeps it for a path,
so that every run needs a device of its own.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

_Found = TypeVar("_Found")
_Value = TypeVar("_Value", bound=Hashable)


class _Run(threading.local):
    """on: which devices the formula runs for; left: those that have parted from them, in parts that went together. None: no formula
    runs."""

    on: np.ndarray | None = None
    left: list[np.ndarray]


_run = _Run()


class Lanes(np.ndarray):
    """A number for each device. Hashed by identity."""

    __hash__ = object.__hash__  # type: ignore[assignment]

    def __bool__(self) -> bool:
        return _decide(np.asarray(self) != 0)

    def __ceil__(self) -> Any:
        return np.ceil(self)

    def __floor__(self) -> Any:
        return np.floor(self)

    def __round__(self) -> Any:
        return np.rint(self)

    # A number is not changed by `x += 1`, which gives another.
    def __iadd__(self, other: Any) -> Any:  # type: ignore[misc]
        return self + other

    def __isub__(self, other: Any) -> Any:  # type: ignore[misc]
        return self - other

    def __imul__(self, other: Any) -> Any:  # type: ignore[misc]
        return self * other

    def __itruediv__(self, other: Any) -> Any:  # type: ignore[misc]
        return self / other

    def __pow__(self, power: Any) -> Any:  # type: ignore[override]  # numpy's differs from Python's in the last bit
        return lanes([each**power for each in self.tolist()])


def lanes(numbers: Any) -> Lanes:
    return np.asarray(numbers).view(Lanes)


def together(numbers: Sequence[Any]) -> Any:
    """Numbers of several devices: one where they are the same, else lanes."""
    first = numbers[0]
    return first if all(each == first for each in numbers) else lanes(numbers)


def _decide(holds: np.ndarray) -> bool:
    """Whether a condition holds for the devices that the formula goes on with."""
    on = np.ones(holds.shape, bool) if _run.on is None else _run.on
    yes = on & holds
    these, all_of_them = np.count_nonzero(yes), np.count_nonzero(on)
    if these in (0, all_of_them):
        return bool(these)
    if _run.on is None:
        raise ValueError("the devices differ, and nobody runs them along their paths")
    no = on & ~holds
    goes_on = 2 * these >= all_of_them
    _run.on, parted = (yes, no) if goes_on else (no, yes)
    _run.left.append(parted)
    return bool(goes_on)


def agreed(values: Sequence[_Value]) -> _Value:
    """Of a value a device the one that the devices go on with: what the first of them has."""
    assert _run.on is not None
    value = values[int(_run.on.argmax())]
    same = np.array([each == value for each in values])
    others = _run.on & ~same
    if others.any():
        _run.left.append(others)
        _run.on = _run.on & same
    return value


@contextlib.contextmanager
def undecided() -> Iterator[None]:
    """Where devices may not part: a condition that holds for some of them is a ValueError."""
    before, _run.on = _run.on, None
    try:
        yield
    finally:
        _run.on = before


def along_paths(run: Callable[[], _Found], count: int) -> list[tuple[list[int], _Found]]:
    """What `run`, which makes lanes of `count` devices, finds along each path, with the numbers of the devices that go it."""
    found = []
    before = _run.on, getattr(_run, "left", [])
    _run.left = [np.ones(count, bool)]
    try:
        with np.errstate(all="ignore"):  # what lanes of other paths come to, nobody asks
            while _run.left:
                _run.on = _run.left.pop()
                answer = run()
                found.append((np.flatnonzero(_run.on).tolist(), answer))
    finally:
        _run.on, _run.left = before
    return found
