"""Numbers in a profiler's file, which may be of any kind and size."""

from __future__ import annotations

from typing import Any


def whole(value: Any, bits: int | None) -> int | None:
    """A whole number, given as one or as text, of so many bits; None for anything else."""
    if type(value) is str and value.lstrip("-").isdecimal() and len(value) < 40:
        value = int(value)
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int or (bits is not None and not -(2**bits) <= value < 2**bits):
        return None
    return value


def size(value: Any, bits: int) -> int | None:
    """The same, not below 0."""
    found = whole(value, bits)
    return found if found is not None and found >= 0 else None


def extent(value: Any) -> tuple[int, int, int] | None:
    """A grid's or a block's three dimensions."""
    if not isinstance(value, list) or len(value) != 3:
        return None
    x, y, z = (size(each, 31) for each in value)
    return None if x is None or y is None or z is None else (x, y, z)
