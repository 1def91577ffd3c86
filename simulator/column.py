"""Kernels side by side, as arrays: what the closed form reads of each, so that its formulas answer for all of them at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np

from simtti.hw_configs.hardware import Hardware
from simtti.simulator.kernel import Kernel, ctas_per_sm

# Read as they stand.
_FIELDS = (
    "grid", "tensor_flops", "tensor_efficiency", "fp32_flops", "issue_slots", "sfu_ops", "shared_bytes", "l2_bytes", "latency_s",
    "bytes_in_flight", "memory_efficiency", "hbm_stall",
)  # fmt: skip
_fields = attrgetter(*_FIELDS)


class Column(NamedTuple):
    """Kernels on a device, an entry each. The fields of `Kernel` that the closed form reads, and what it asks of the device for each.

    unique_bytes: of those whose loads are chained; 1 for the others, of which nobody asks. start_s: the kernel's own, or the device's.
    tensor_rate: attainable tensor-core FLOPs of an SM in a cycle, in the kernel's type; tensor_j: joules of one. per_sm: resident
    CTAs on an SM.
    """

    grid: np.ndarray
    tensor_flops: np.ndarray
    tensor_efficiency: np.ndarray
    fp32_flops: np.ndarray
    issue_slots: np.ndarray
    sfu_ops: np.ndarray
    shared_bytes: np.ndarray
    l2_bytes: np.ndarray
    latency_s: np.ndarray
    bytes_in_flight: np.ndarray
    memory_efficiency: np.ndarray
    hbm_stall: np.ndarray
    chained: np.ndarray
    unique_bytes: np.ndarray
    start_s: np.ndarray
    tensor_rate: np.ndarray
    tensor_j: np.ndarray
    per_sm: np.ndarray

    def started_s(self, hardware: Hardware) -> np.ndarray:
        """As of a kernel."""
        return self.start_s


def stands_in_column(kernel: Kernel) -> bool:
    """Whether all its CTAs are alike, and it neither copies nor sends: what a column holds."""
    return not (kernel.kinds or kernel.copy_bytes or kernel.link_bytes)


def column(kernels: Sequence[Kernel], hardware: Hardware) -> Column:
    """`kernels`, each of which `stands_in_column`, on `hardware`.

    Raises:
        InputError: a CTA does not fit on an SM; the device has no tensor-core path for a type.
    """
    fields = dict(zip(_FIELDS, np.array([_fields(kernel) for kernel in kernels]).T, strict=True))
    fields["grid"] = fields["grid"].astype(np.int64)
    rates = _each(hardware.tensor_flops_per_cycle_sm, (kernel.tensor_dtype for kernel in kernels))
    joules = _each(hardware.tensor_j, (kernel.tensor_dtype for kernel in kernels))
    resident: dict[tuple[int, int, int], int] = {}
    per_sm = []
    for kernel in kernels:
        key = (kernel.threads, kernel.registers, kernel.shared_memory_bytes)
        if key not in resident:
            resident[key] = ctas_per_sm(kernel, hardware)
        per_sm.append(resident[key])
    return Column(
        **fields,
        chained=np.array([kernel.chained for kernel in kernels]),
        unique_bytes=np.array([kernel.unique_bytes if kernel.chained else 1.0 for kernel in kernels]),
        start_s=np.array([kernel.started_s(hardware) for kernel in kernels]),
        tensor_rate=rates,
        tensor_j=joules,
        per_sm=np.array(per_sm),
    )


def _each(function: Callable[[str], float], words: Any) -> np.ndarray:
    """`function` of each word, asked once of each that differs."""
    words = list(words)
    found = {word: function(word) for word in dict.fromkeys(words)}
    return np.array([found[word] for word in words])
