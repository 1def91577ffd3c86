"""A number of a device as people write it: '1e8', '100 MB', '3.35 TB/s', or '1.5x', times what it was."""

from __future__ import annotations

import re

from simtti.errors import InputError

_WRITTEN = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([A-Za-z/]*)\s*")
_PREFIXES = {
    "": 1.0, "p": 1e-12, "n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40,
}  # fmt: skip
# The unit that a field's name ends with, the longest ending first.
_UNITS = (("_bytes_per_s", "B/s"), ("_bytes", "B"), ("_hz", "Hz"), ("_w", "W"), ("_j", "J"), ("_s", "s"))


def unit_of(field: str) -> str:
    """The unit of `field`, by the end of its name; '' where it is a bare number.

    >>> unit_of("hbm_bytes_per_s"), unit_of("l2_capacity_bytes"), unit_of("sm_count")
    ('B/s', 'B', '')
    """
    return next((unit for ending, unit in _UNITS if field.endswith(ending)), "")


def quantity(field: str, written: str | float, base: float | None = None) -> float:
    """The number that `written` says of `field`, in the unit that `field` ends with.

    Args:
        written: a number, or text: a number with a prefix (n, u, m, k, M, G, T; Ki, Mi, Gi, Ti) and the field's unit, or with x.
        base: what '1.5x' is times; None where nothing states it.

    Raises:
        InputError: text that says no number, another unit, or x of nothing; the message begins with 'should be'.

    >>> quantity("l2_capacity_bytes", "100 MB"), quantity("hbm_bytes_per_s", "1.5x", 2e12)
    (100000000.0, 3000000000000.0)
    """
    if isinstance(written, (int, float)) and not isinstance(written, bool):
        try:
            return float(written)
        except OverflowError:
            raise InputError("should be a number that a float holds") from None
    unit = unit_of(field)
    match = _WRITTEN.fullmatch(str(written))
    if match is not None:
        number, ending = float(match[1]), match[2]
        if ending in ("x", "X"):
            if base is None:
                raise InputError(f"should be a number: no base states what {str(written)!r} is times")
            return number * base
        prefix = ending.removesuffix(unit)
        if prefix in _PREFIXES:
            return number * _PREFIXES[prefix]
    examples = f"1e8, 100 M{unit} or 1.5x" if unit else "128 or 1.5x"
    raise InputError(f"should be a number, as {examples}, not {written!r}")
