"""Operators lowered for many devices at once, that differ in numbers only: the same code with lanes for numbers (`lanes`), a run for
each path that devices go. What each device gets is what it gets alone, to the last bit.

An operator that cannot be lowered so, as where a kernel does not fit on one of the devices, is left to each device's own lowering.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Any, TypeVar

from simtti.errors import InputError
from simtti.hw_configs.hardware import Hardware
from simtti.simulator.designs import Designs, side_by_side
from simtti.simulator.kernel import Access, Kernel
from simtti.simulator.kernels.family import Target
from simtti.simulator.lanes import Lanes, along_paths
from simtti.simulator.lowering.lower import (
    Lowered,
    has_model,
    is_empty,
    kinds_of,
    lower_alone,
    lowered_as,
)
from simtti.simulator.lowering.registry import TOGETHER, prepare
from simtti.simulator.policy import Policy
from simtti.workloads.trace import Operator

_Kind = TypeVar("_Kind")
# Why an operator is left to each device: it would have it alone too, or a number is asked for by itself.
_LEFT = (InputError, TypeError, ValueError)


def lower_side_by_side(
    steps: Iterable[tuple[Operator, ...]], devices: Sequence[Hardware], policy: Policy
) -> list[dict[int, Lowered]]:
    """Of each device its operators by kind, but those that it has to lower itself. devices: such as can be side by side
    (`designs.groups`)."""
    designs, kinds = side_by_side(devices), kinds_of(steps)
    found: list[dict[int, Lowered]] = [{} for _ in devices]
    if not isinstance(designs, Designs):
        return found
    modelled = [each for each in kinds.values() if has_model(each) and not is_empty(each)]
    with contextlib.suppress(*_LEFT):
        prepare(modelled, Target(designs, policy))
    for kind, operator in kinds.items():
        for number, lowered in _lower(operator, designs, policy):
            found[number][kind] = lowered
    return found


def _lower(operator: Operator, designs: Designs, policy: Policy) -> list[tuple[int, Lowered]]:
    """Of devices, by their numbers."""
    try:
        paths = along_paths(lambda: _on_all(operator, Target(designs.again(), policy)), len(designs.each))
        return [each for numbers, lowered in paths for each in _of_each(lowered, numbers)]
    except _LEFT:
        return []


def _on_all(operator: Operator, target: Target) -> Lowered:
    together = TOGETHER.get(operator.op)
    if together is None or not has_model(operator) or is_empty(operator):
        return lower_alone(operator, target)
    (kernels,) = together([operator], target)
    return lowered_as(operator, kernels)


def _of_each(lowered: Lowered, numbers: Sequence[int]) -> list[tuple[int, Lowered]]:
    """Of devices that went the same path."""
    if not any(map(_has_lanes, lowered.kernels)):
        return [(number, lowered) for number in numbers]
    each = zip(*(_of_devices(kernel, numbers) for kernel in lowered.kernels), strict=True)
    others = (repeat(getattr(lowered, name), len(numbers)) for name in Lowered.__slots__[1:])
    return list(zip(numbers, _made(Lowered, each, *others), strict=True))


_FIELDS = tuple(Kernel.__dataclass_fields__)
_WHOLE = frozenset(("grid", "threads", "registers", "shared_memory_bytes"))


def _has_lanes(kernel: Kernel) -> bool:
    return any(isinstance(getattr(kernel, name), Lanes) for name in _FIELDS) or any(
        isinstance(access.nbytes, Lanes) for access in (*kernel.reads, *kernel.writes)
    )


def _of_devices(kernel: Kernel, numbers: Sequence[int]) -> list[Kernel]:
    """The kernel of each device."""
    return _made(Kernel, *(_column(name, getattr(kernel, name), numbers) for name in _FIELDS))


def _made(kind: type[_Kind], *columns: Iterable[Any]) -> list[_Kind]:
    """Frozen objects from the values of each field, without what makes a new one slow: they are checked already."""
    setters = [getattr(kind, name).__set__ for name in kind.__slots__]  # type: ignore[attr-defined]
    found = []
    for values in zip(*columns, strict=True):
        own = object.__new__(kind)
        for give, value in zip(setters, values, strict=True):
            give(own, value)
        found.append(own)
    return found


def _column(name: str, value: Any, numbers: Sequence[int]) -> list[Any]:
    """Of a field the value of each device."""
    if isinstance(value, Lanes):
        own = value[numbers].tolist()
        return list(map(int, own)) if name in _WHOLE else own
    if name in ("reads", "writes") and any(isinstance(access.nbytes, Lanes) for access in value):
        each = [_column("nbytes", access.nbytes, numbers) for access in value]
        return [
            tuple(Access(access.tensor, nbytes) for access, nbytes in zip(value, own, strict=True))
            for own in zip(*each, strict=True)
        ]
    return [value] * len(numbers)
