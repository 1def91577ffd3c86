"""Matrix products of a table side by side: their plans, and what their kernels ask of the device, for a column of rows at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from simtti.dtypes import ITEM_BYTES
from simtti.hw_configs.hardware import PYTORCH, Hardware, with_pytorch
from simtti.simulator.closed_form import repeated_hbm_bytes
from simtti.simulator.column import Column, column
from simtti.simulator.kernel import Kernel, ctas_per_sm
from simtti.simulator.kernels.gemm_choice import result_bytes
from simtti.simulator.kernels.gemm_column import Plans, choices
from simtti.simulator.kernels.gemm_estimate import Product, Traffic, rates_of
from simtti.simulator.kernels.gemm_kernels import (
    COLD,
    MOST_BATCH,
    counter,
    draws_tiles,
    is_persistent,
    is_tiny,
    reduction,
    reduction_name,
    started_s,
    tiled,
    tiled_name,
)
from simtti.simulator.kernels.gemm_tiles import Catalogue, taken
from simtti.simulator.kernels.gemv import column_of_vectors, gemv_name
from simtti.simulator.kernels.machine import FP32_BYTES
from simtti.simulator.side_by_side import Launches, Operators, column_of, in_order


def products(
    sizes: tuple[np.ndarray, ...],
    dtype: str,
    launched: str,
    bias: bool,
    hardware: Hardware,
    timed_on: Hardware,
) -> Iterator[Operators]:
    """Products of m x k by k x n, `sizes` m, n, k and batch, as floats; but for those that run on kernels of one warp, or in several
    calls.

    launched: one of REPLAYED and COLD. hardware: for which the kernels are chosen. timed_on: on which they run, the same but for what only a
    choice asks of it.
    """
    m, n, k, batch = sizes
    plain = (batch <= MOST_BATCH) & ~is_tiny(m, n, k, batch, dtype, hardware)
    persistent = plain & is_persistent(m, n, batch, hardware)
    size, result = ITEM_BYTES[dtype], result_bytes(dtype)
    for which, device in ((plain & ~persistent, hardware), (persistent, with_pytorch(hardware, PYTORCH[0]))):
        row = np.flatnonzero(which)
        m, n, k, batch = (each[row] for each in sizes)
        traffic = Traffic(batch * k * size * m, batch * k * size * n, batch * m * n * result)
        for part, kernels, all_plans in choices(m, n, k, batch, dtype, traffic, device):
            how = Launched(dtype, launched, bias, kernels, device, timed_on)
            for run, which in ((_in_tiles, all_plans.number >= 0), (_vectors, all_plans.number < 0)):
                own = np.flatnonzero(which)
                if len(own):
                    at, plans = part[own], Plans(*(each[own] for each in all_plans))
                    product = Product(m[at], n[at], k[at], batch[at], size, result)
                    names, launches = run(product, Traffic(*(each[at] for each in traffic)), plans, how)
                    yield Operators(row[at], names, launches, products=True)


class Launched(NamedTuple):
    """What products have in common: as of `products`, and their kernels."""

    dtype: str
    launched: str
    bias: bool
    kernels: Catalogue
    hardware: Hardware
    timed_on: Hardware


def _in_tiles(product: Product, traffic: Traffic, plans: Plans, how: Launched) -> tuple[list[str], Launches]:
    """The kernels of products by their plans, with their names."""
    hardware, fit = how.hardware, taken(how.kernels.column, np.arange(len(plans.number)), plans.number)
    split, count = plans.split, len(plans.split)
    partial_bytes = FP32_BYTES * product.elements * split
    moved, summed = traffic.repeated(rates_of(hardware), partial_bytes)
    moved = np.where(split > 1, moved, traffic.repeated(rates_of(hardware))[0])
    asked = tiled(product, how.dtype, how.kernels, fit, split, moved, hardware)
    hbm_bytes = asked["repeated_hbm_bytes"]
    counted = np.zeros(count, dtype=bool)
    if how.launched == COLD:
        read = traffic.input_bytes + traffic.weight_bytes
        written = np.where(split > 1, partial_bytes, traffic.output_bytes)
        hbm_bytes = read + written + asked["hbm_reread_bytes"]
        waves = np.ceil(asked["grid"] / fit.slots)
        asked["latency_s"] = asked["latency_s"] + started_s(COLD, how.bias, hardware) / waves
        counted = (split == 1) & draws_tiles(asked["grid"], hardware) & fit.tile.in_clusters
    own = column_of(asked, count, fit.per_sm, how.timed_on)
    parts = [Launches(np.arange(count), own, hbm_bytes)]
    if counted.any():
        parts.insert(0, _alike(counter("gemm", hardware), np.flatnonzero(counted), how.timed_on))
    if (split > 1).any():
        parts.append(_reductions(product, split, summed, how))
    numbers, slices = plans.number.tolist(), plans.split.astype(int).tolist()
    kinds = list(zip(numbers, slices, counted.tolist(), strict=True))
    names = {kind: _names(how, *kind) for kind in dict.fromkeys(kinds)}
    return [names[kind] for kind in kinds], in_order(parts)


def _vectors(product: Product, traffic: Traffic, plans: Plans, how: Launched) -> tuple[list[str], Launches]:
    """The same of products of a vector that run as GEMV."""
    outputs, columns = np.maximum(product.m, product.n), plans.split
    hbm_bytes = traffic.repeated(rates_of(how.hardware))[0]
    own = column_of_vectors(columns, outputs, product.k, product.size, hbm_bytes, how.hardware, how.timed_on)
    if how.launched == COLD:
        hbm_bytes = traffic.input_bytes + traffic.weight_bytes + traffic.output_bytes
        own = own._replace(latency_s=own.latency_s + started_s(COLD, how.bias, how.hardware))
    names = [f"gemm_{gemv_name(each)}" for each in columns.astype(int).tolist()]
    return names, Launches(np.arange(len(names)), own, hbm_bytes)


def _names(how: Launched, number: int, split: int, counted: bool) -> str:
    names = [tiled_name("gemm", how.kernels.fits[number].tile, split)]
    if counted:
        names.insert(0, counter("gemm", how.hardware).name)
    if split > 1:
        names.append(reduction_name("gemm"))
    return ", ".join(names)


def _alike(kernel: Kernel, operator: np.ndarray, hardware: Hardware) -> Launches:
    """The same kernel of several operators."""
    own = column([kernel], hardware)
    all_of_them = Column(*(np.repeat(each, len(operator)) for each in own))
    return Launches(operator, all_of_them, np.full(len(operator), repeated_hbm_bytes(kernel)))


def _reductions(product: Product, split: np.ndarray, summed: np.ndarray, how: Launched) -> Launches:
    at = np.flatnonzero(split > 1)
    asked = reduction(product.elements[at], split[at], summed[at], how.hardware)
    cta = {name: asked[name] for name in ("threads", "registers")}
    per_sm = ctas_per_sm(Kernel(reduction_name("gemm"), "gemm", 1, **cta), how.timed_on)
    own = column_of(asked, len(at), per_sm, how.timed_on)
    return Launches(at, own, asked["repeated_hbm_bytes"])
