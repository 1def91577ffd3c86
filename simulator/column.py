"""Kernels side by side, as arrays: what the closed form reads of each, so that its formulas answer for all of them at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import NamedTuple

import numpy as np

from simtti.hw_configs.hardware import Hardware
from simtti.simulator.arithmetic import Number
from simtti.simulator.kernel import Kernel, ctas_per_sm

# Read as they stand.
_FIELDS = (
    "grid", "tensor_flops", "tensor_efficiency", "fp32_flops", "issue_slots", "sfu_ops", "shared_bytes", "l2_bytes", "latency_s",
    "bytes_in_flight", "memory_efficiency", "hbm_stall",
)  # fmt: skip
_fields = attrgetter(
    *_FIELDS, "tensor_dtype", "chained", "start_s", "threads", "registers", "shared_memory_bytes"
)


class Column(NamedTuple):
    """Kernels on a device, an entry each. The fields of `Kernel` that the closed form reads, and what it asks of the device for each.

    unique_bytes: of those whose loads are chained; 1 for the others, of which nobody asks. start_s: the kernel's own, or the device's.
    tensor_rate: attainable tensor-core FLOPs of an SM in a cycle, in the kernel's type; tensor_j: joules of one. per_sm: resident
    CTAs on an SM.
    """

    grid: Number
    tensor_flops: Number
    tensor_efficiency: Number
    fp32_flops: Number
    issue_slots: Number
    sfu_ops: Number
    shared_bytes: Number
    l2_bytes: Number
    latency_s: Number
    bytes_in_flight: Number
    memory_efficiency: Number
    hbm_stall: Number
    chained: Number
    unique_bytes: Number
    start_s: Number
    tensor_rate: Number
    tensor_j: Number
    per_sm: Number

    def started_s(self, hardware: Hardware) -> Number:
        """As of a kernel."""
        return self.start_s


# Kernels that work on nothing, whatever the device: what others differ from, numbers standing for arrays of the same everywhere.
PLAIN = Column(
    grid=1, tensor_flops=0.0, tensor_efficiency=1.0, fp32_flops=0.0, issue_slots=0.0, sfu_ops=0.0, shared_bytes=0.0, l2_bytes=0.0,
    latency_s=0.0, bytes_in_flight=np.inf, memory_efficiency=1.0, hbm_stall=0.0, chained=False, unique_bytes=1.0, start_s=0.0,
    tensor_rate=1.0, tensor_j=0.0, per_sm=1,
)  # fmt: skip


def stands_in_column(kernel: Kernel) -> bool:
    """Whether all its CTAs are alike, and it neither copies nor sends: what a column holds."""
    return not (kernel.kinds or kernel.copy_bytes or kernel.link_bytes)


def column(kernels: Sequence[Kernel], hardware: Hardware) -> Column:
    """`kernels`, each of which `stands_in_column`, on `hardware`.

    Raises:
        InputError: a CTA does not fit on an SM; the device has no tensor-core path for a type.
    """
    distinct = {id(kernel): kernel for kernel in kernels}
    each = tuple(zip(*[_fields(kernel) for kernel in distinct.values()], strict=True))
    dtypes, chained, starts, *occupying = each[len(_FIELDS) :]
    fields = dict(zip(_FIELDS, map(np.array, each), strict=False))
    per_sm: dict[tuple[int, ...], int] = {}
    for kernel, key in zip(distinct.values(), zip(*occupying, strict=True), strict=True):
        if key not in per_sm:
            per_sm[key] = ctas_per_sm(kernel, hardware)
    found = Column(
        **fields,
        chained=np.array(chained),
        unique_bytes=np.array(
            [kernel.unique_bytes if kernel.chained else 1.0 for kernel in distinct.values()]
        ),
        start_s=np.array([hardware.start_s if start_s is None else start_s for start_s in starts]),
        tensor_rate=_each(hardware.tensor_flops_per_cycle_sm, dtypes),
        tensor_j=_each(hardware.tensor_j, dtypes),
        per_sm=np.array([per_sm[key] for key in zip(*occupying, strict=True)]),
    )
    if len(distinct) == len(kernels):
        return found
    places = {key: place for place, key in enumerate(distinct)}
    where = np.array([places[id(kernel)] for kernel in kernels])
    return Column._make(numbers[where] for numbers in found)


def _each(function: Callable[[str], float], words: Sequence[str]) -> np.ndarray:
    """`function` of each word, asked once of each that differs."""
    found = {word: function(word) for word in dict.fromkeys(words)}
    return np.array([found[word] for word in words])
