"""Devices that differ in numbers only, side by side as one device whose numbers are lanes (`lanes`)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from simtti.hw_configs.hardware import Hardware
from simtti.simulator.lanes import lanes, together

# Words that no kernel goes by.
_WORDS = ("name", "origin", "reported_as", "also_reported_as", "fitted")
# Numbers in which devices that stand side by side may differ; what fits on an SM, and what is fitted, they have in common.
_NUMBERS = tuple(each.name for each in fields(Hardware) if each.type == "float" or each.name == "sm_count")
_COMMON = tuple(each.name for each in fields(Hardware) if each.name not in (*_NUMBERS, *_WORDS, "parameters"))


@dataclass(frozen=True, slots=True, eq=False)
class Designs(Hardware):
    """Devices side by side: those of its numbers in which they differ are lanes. each: the devices."""

    each: tuple[Hardware, ...] = ()

    def again(self) -> Designs:
        """The same devices anew, for another run along their paths."""
        return Designs(**{each.name: getattr(self, each.name) for each in fields(Designs)})


def each_of(hardware: Hardware) -> tuple[Hardware, ...]:
    """The devices that stand side by side."""
    assert isinstance(hardware, Designs)
    return hardware.each


def of_entries(hardware: Hardware, device: np.ndarray) -> Hardware:
    """The device of each entry of a column, by its number among those side by side: numbers that differ are lanes, one an entry. Of
    such a device that of some of its entries."""
    own = {each.name: getattr(hardware, each.name) for each in fields(Hardware)}
    own |= {
        name: lanes(np.asarray(value)[device]) for name, value in own.items() if isinstance(value, np.ndarray)
    }
    return Hardware(**own)


def side_by_side(devices: Sequence[Hardware]) -> Hardware:
    """Devices of one of the `groups`; one alone is itself."""
    if len(devices) == 1:
        return devices[0]
    return _side_by_side(tuple(devices)).again()


@functools.lru_cache(maxsize=8)
def _side_by_side(devices: tuple[Hardware, ...]) -> Designs:
    first = devices[0]
    own = {each.name: getattr(first, each.name) for each in fields(Hardware)}
    own |= {name: together([getattr(one, name) for one in devices]) for name in _NUMBERS}
    return Designs(**own, each=devices)


def groups(devices: Sequence[Hardware], most: int) -> Iterator[list[int]]:
    """The numbers of devices that can stand side by side, so many at most, in the order of the first of each."""
    found: dict[object, list[int]] = {}
    for number, device in enumerate(devices):
        key = (*(getattr(device, name) for name in _COMMON), id(device.parameters))
        found.setdefault(key, []).append(number)
    for own in found.values():
        for at in range(0, len(own), most):
            yield own[at : at + most]


def of_each(function: Callable[..., Hardware], hardware: Hardware, *given: Any) -> Hardware:
    """`function` of a device, or of each of several."""
    if not isinstance(hardware, Designs):
        return function(hardware, *given)
    devices = [function(one, *given) for one in hardware.each]
    unchanged = all(one is other for one, other in zip(devices, hardware.each, strict=True))
    return hardware if unchanged else side_by_side(devices)
