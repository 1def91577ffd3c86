"""Operators side by side: the kernels of all of them in one column, which no `Kernel` needs to be made for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from simtti.hw_configs.hardware import Hardware
from simtti.simulator.column import Column
from simtti.simulator.kernel import Kernel

_DEFAULTS = {each.name: each.default for each in dataclasses.fields(Kernel)}


class Launches(NamedTuple):
    """Kernels of operators, an entry each, those of an operator one after another as they are launched.

    operator: whose it is, by a number; rising. kernels: all of them. hbm_bytes: to and from HBM where the operator is launched again and again.
    """

    operator: np.ndarray
    kernels: Column
    hbm_bytes: np.ndarray

    def of(self, at: np.ndarray) -> Launches:
        """Some of the kernels."""
        return Launches(self.operator[at], Column(*(each[at] for each in self.kernels)), self.hbm_bytes[at])


class Operators(NamedTuple):
    """Operators side by side. row: where each stands in what was asked for. names: of each one's kernels, in order. products: whether
    all kernels are those of matrix products."""

    row: np.ndarray
    names: Sequence[str]
    launches: Launches
    products: bool


def column_of(fields: Mapping[str, Any], count: int, per_sm: Any, hardware: Hardware) -> Column:
    """`count` kernels that differ in no type and whose CTAs are alike.

    fields: those of `Kernel` by name, numbers that all share or arrays; others are as `Kernel` has them. per_sm: CTAs that fit on an SM.

    Raises:
        InputError: the device has no tensor-core path for their type.
    """
    dtype = str(fields.get("tensor_dtype", _DEFAULTS["tensor_dtype"]))
    own_s = fields.get("start_s")
    known = {
        **_DEFAULTS,
        **fields,
        "unique_bytes": 1.0,  # asked of chained loads alone
        "start_s": hardware.start_s if own_s is None else own_s,
        "tensor_rate": hardware.tensor_flops_per_cycle_sm(dtype),
        "tensor_j": hardware.tensor_j(dtype),
        "per_sm": per_sm,
    }
    return Column(*(_entries(known[name], count, whole=name in _WHOLE) for name in Column._fields))


_WHOLE = ("grid", "per_sm")


def _entries(amount: Any, count: int, whole: bool) -> np.ndarray:
    entries = amount if isinstance(amount, np.ndarray) else np.full(count, amount)
    return entries.astype(np.int64) if whole else entries


def in_order(parts: Sequence[Launches]) -> Launches:
    """Several kernels of each operator: the parts' in the order of the parts."""
    if len(parts) == 1:
        return parts[0]
    operator = np.concatenate([part.operator for part in parts])
    columns = zip(*(part.kernels for part in parts), strict=True)
    kernels = Column(*(np.concatenate(each) for each in columns))
    together = Launches(operator, kernels, np.concatenate([part.hbm_bytes for part in parts]))
    return together.of(operator.argsort(kind="stable"))
