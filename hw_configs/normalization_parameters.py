"""The fitted groups of normalisation, softmax and reductions (see `parameters`)."""

from __future__ import annotations

from typing import NamedTuple


class GroupNormStyle(NamedTuple):
    """What the kernels of PyTorch's GroupNorm spend: the moments, and the scales and shifts made of them."""

    update_slots: float
    channel_slots: float
    latency_s: float
    stage_latency_s: float


class RowNormStyle(NamedTuple):
    """What PyTorch's vectorised LayerNorm kernel spends, a CTA a row, and the registers that decide how many an SM holds."""

    thread_slots: float
    vector_slots: float
    latency_s: float
    loop_latency_s: float
    parameter_slots: float
    registers: float
    wide_registers: float
    queued: float


class SoftmaxStyle(NamedTuple):
    """What PyTorch's softmax kernels spend: rows in registers, in shared memory, in three passes over memory."""

    warp_thread_slots: float
    warp_element_slots: float
    warp_latency_s: float
    warp_value_slots: float
    warp_chain_s: float
    warp_registers: float
    element_registers: float
    shared_element_slots: float
    block_element_slots: float
    block_thread_slots: float
    block_latency_s: float
    kept_columns: float
    kept_thread_slots: float
    kept_element_slots: float
    kept_latency_s: float


class ReductionStyle(NamedTuple):
    """What PyTorch's reduction kernel spends, along the fastest dimension and along another."""

    thread_slots: float
    element_slots: float
    latency_s: float
    outer_latency_s: float
    outer_trip_s: float
