"""Sequences of several lengths packed one after another (flash_attn_varlen_func): one grid whose CTAs do unequally much.

Each kind of sequence is what it would be alone; a kernel of the library is one launch over all of them, whose demands are the mean over
its CTAs. Where split keys make the kinds launch different kernels, all of them are launched.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from simtti.hw_configs.hardware import Hardware
from simtti.simulator.kernel import Access, CtaKind, Kernel
from simtti.simulator.kernels.attention_problem import Attention

# What a kernel states per CTA.
DEMANDS = (
    "tensor_flops", "fp32_flops", "issue_slots", "sfu_ops", "shared_bytes", "l2_bytes", "latency_s", "bytes_in_flight",
)  # fmt: skip


def packed(
    problem: Attention, hardware: Hardware, kernels_of: Callable[[Attention, Hardware], list[Kernel]]
) -> list[Kernel]:
    """The kernels of `problem`, whose sequences are not all alike; kernels_of: those of sequences that are."""
    launched = [kernels_of(each, hardware) for each in problem.alike]
    by_name: dict[str, list[Kernel]] = {}
    for kernels in launched:
        for place, kernel in enumerate(kernels):
            by_name.setdefault(f"{place} {kernel.name}", []).append(kernel)
    return [_together(group) for group in by_name.values()]


def _together(group: list[Kernel]) -> Kernel:
    """One launch of the CTAs of all."""
    first, *others = group
    if not others:
        return first
    grid = sum(kernel.grid for kernel in group)
    mean = {
        name: sum(getattr(kernel, name) * kernel.grid for kernel in group) / grid
        for name in DEMANDS
        if max(getattr(kernel, name) for kernel in group) < float("inf")
    }
    busy = [kernel.tensor_flops or kernel.issue_slots or kernel.l2_bytes for kernel in group]
    average = sum(each * kernel.grid for each, kernel in zip(busy, group, strict=True)) / grid
    waits = mean["latency_s"]
    kinds = tuple(
        CtaKind(
            kernel.grid,
            each / average if average else 1.0,
            kernel.latency_s / waits if waits else 1.0,
        )
        for each, kernel in zip(busy, group, strict=True)
    )
    paced = sum(kernel.tensor_flops * kernel.grid / kernel.tensor_efficiency for kernel in group)
    flops = sum(kernel.tensor_flops * kernel.grid for kernel in group)
    return dataclasses.replace(
        first,
        grid=grid,
        kinds=kinds,
        tensor_efficiency=flops / paced if paced else first.tensor_efficiency,
        reads=_summed([kernel.reads for kernel in group]),
        writes=_summed([kernel.writes for kernel in group]),
        hbm_reread_bytes=sum(kernel.hbm_reread_bytes for kernel in group),
        repeated_hbm_bytes=None,
        flops=sum(kernel.flops for kernel in group),
        **mean,
    )


def _summed(accesses: list[tuple[Access, ...]]) -> tuple[Access, ...]:
    total: dict[int, float] = {}
    for tensor, nbytes in (access for each in accesses for access in each):
        total[tensor] = total.get(tensor, 0.0) + nbytes
    return tuple(Access(tensor, nbytes) for tensor, nbytes in total.items())
