"""The fitted groups of products in fewer bits and of the kernels that quantise their inputs (see `parameters`)."""

from __future__ import annotations

from typing import NamedTuple


class ScaledHost(NamedTuple):
    """What the host of a benchmark takes for a layer in fp8 with scales by blocks, by the kernel it calls."""

    blocks_s: float
    few_rows_s: float
    filled_s: float
    triton_s: float


class Promotion(NamedTuple):
    """Adding up products of scaled blocks in fp32 on the CUDA cores."""

    element_slots: float


class QuantizeStyle(NamedTuple):
    """What a kernel spends that writes rows in a format of fewer bits."""

    row_slots: float
    piece_slots: float
    number_slots: float
    latency_s: float
    trip_s: float
    start_share: float
    efficiency: float
    kept: float
    loss_power: float
