"""The baseline everybody has: an operator takes as long as its FLOPs at the datasheet's peak or its bytes at the
datasheet's bandwidth, whichever is longer. From the shape alone: no tiles, no waves, no launch, nothing fitted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simtti.dtypes import ITEM_BYTES
from simtti.errors import InputError
from simtti.hw_configs.hardware import Hardware
from simtti.simulator.lowering.registry import FAMILIES, cells_of


def roofline_s(row: Mapping[str, Any], hardware: Hardware) -> float:
    """Seconds of a row of `simtti predict`.

    Raises:
        InputError: a cell of the shape is missing or unusable.
    """
    cells = cells_of(row)
    work = FAMILIES[cells.row["op"]].work(cells)
    return max(
        work.flops / _peak(cells.dtype, hardware),
        work.elements * ITEM_BYTES[cells.dtype] / hardware.hbm_bytes_per_s,
    )


def _peak(dtype: str, hardware: Hardware) -> float:
    """Datasheet FLOP/s: the tensor cores', or the CUDA cores' where the tensor cores do not take the type."""
    try:
        return hardware.peak_flops(dtype)
    except InputError:
        return hardware.fp32_flops_per_cycle_sm * hardware.clock_hz * hardware.sm_count
