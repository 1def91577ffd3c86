"""Families of residuals, and a device's standing in each: whether its parameters were fitted to measurements of it."""

from __future__ import annotations

import bisect
import functools
from typing import TYPE_CHECKING

from simtti.hw_configs.hardware import Hardware
from simtti.simulator.engine.measured_kernels import NO_MODEL
from simtti.simulator.kernels.libraries import BASELINE
from simtti.simulator.lowering.lower import Lowered
from simtti.workloads.trace import Operator

if TYPE_CHECKING:
    import pandas as pd

# The family of a row of `simtti predict`, by its op. What parameters have in common decides: products in fewer bits (SCALED_DTYPES)
# are of SCALED, or of BLOCK_SCALED where blocks of k have scales, and attention that keeps its scores in memory is of UNFUSED.
UNFUSED = "unfused attention"
OPS = {
    "gemm": "gemm",
    "attention": "attention",
    "math_attention": UNFUSED,
    "conv2d": "convolution",
    "conv3d": "convolution",
    "temporal_conv": "convolution",
    "group_norm": "normalization",
    "layer_norm": "normalization",
    "rms_norm": "normalization",
    "softmax": "softmax",
    "reduction": "softmax",
    "elementwise": "elementwise",
    "cast": "elementwise",
    "broadcast": "elementwise",
    "geglu": "elementwise",
    "copy": "memory",
    "permute": "memory",
    "move": "memory",
    "cat": "memory",
    "embedding": "memory",
    "upsample": "memory",
    "scale_matrix": "scale matrix",
    "computescale": "compute scale",
    "all_gather": "communication",
    "all_to_all": "communication",
    "reduce_scatter": "communication",
    "all_reduce": "communication",
}
SCALED, BLOCK_SCALED = "scaled gemm", "block-scaled gemm"
SCALED_DTYPES = {
    "fp8": SCALED,
    "int8": SCALED,
    "fp8_block": BLOCK_SCALED,
    "mxfp8": BLOCK_SCALED,
    "nvfp4": BLOCK_SCALED,
    "int4": BLOCK_SCALED,
}
# The family of an operator of a trace, by its category.
CATEGORIES = {
    "Convolution": "convolution",
    "Linear": "gemm",
    "Attention": "attention",
    "GroupNorm": "normalization",
    "LayerNorm": "normalization",
    "Softmax": "softmax",
    "Elementwise": "elementwise",
    "Memory": "memory",
    "Communication": "communication",
}
# Operators without a kernel model, timed as a stream of their bytes.
UNMODELLED = "unmodelled"
FAMILIES = (*dict.fromkeys(OPS.values()), SCALED, BLOCK_SCALED, UNMODELLED)
# Attention is unfused where no kernel does so large a share of its FLOPs: it is two products then.
_OF_ONE_KERNEL = 0.75
# The fits (validation/fit/families.yaml) that set a family's parameters, by how their names begin.
_FITS = {
    "gemm": ("gemm",),
    "attention": ("attention-flash", "attention-trtllm", "attention-efficient", "attention-cudnn"),
    UNFUSED: ("attention-math",),
    "convolution": ("convolution",),
    "normalization": ("group-norm", "layer-norm", "rms-norm"),
    "softmax": ("softmax",),
    "elementwise": ("elementwise", "cast"),
    "memory": ("permute", "cat", "copy"),
    "scale matrix": ("scale-matrix",),
    "compute scale": ("computescale",),
    "communication": ("collectives",),
    SCALED: ("gemm-fp8",),
    BLOCK_SCALED: ("gemm-fp8-block", "gemm-nvfp4"),
    "energy": ("energy",),
}
_EXACT = ("gemm", "gemm-fp8", "cat")  # that other names begin with as well

# A family's parameters were fitted to measurements of the device itself; of another device of its architecture and matrix unit;
# of neither.
CALIBRATED, CARRIED, NEVER_MEASURED = STANDINGS = ("calibrated", "carried", "never measured")

SIZES = ("under 10 us", "10-100 us", "over 100 us")
SIZE_LIMITS_US = (10.0, 100.0)


def size_class(time_us: float) -> str:
    """Which of SIZES a time is, in microseconds."""
    return SIZES[bisect.bisect_right(SIZE_LIMITS_US, time_us)]


def family_of_row(op: str, dtype: str, library: str = "") -> str:
    """The family of a row of `simtti predict`. library: of attention, its `kernel` or `backend`."""
    if op == "gemm" and dtype in SCALED_DTYPES:
        return SCALED_DTYPES[dtype]
    return UNFUSED if op == "attention" and library == BASELINE else OPS.get(op, UNMODELLED)


def families_of_rows(table: pd.DataFrame) -> list[str]:
    """The family of each row of a table for `simtti predict`: of its columns op, dtype, kernel and backend."""
    cells = (
        table[name].tolist() if name in table else [""] * len(table)
        for name in ("op", "dtype", "kernel", "backend")
    )
    return [
        family_of_row(str(op), str(dtype), BASELINE if BASELINE in (kernel, backend) else "")
        for op, dtype, kernel, backend in zip(*cells, strict=True)
    ]


def family_of_operator(operator: Operator, lowered: Lowered) -> str:
    """The family of an operator of a trace."""
    if lowered.unknown or any(kernel.family == NO_MODEL for kernel in lowered.kernels):
        return UNMODELLED
    found = CATEGORIES.get(operator.category, "elementwise")
    if found == "gemm":
        scaled = (
            SCALED_DTYPES[dtype] for each in lowered.kernels if (dtype := each.tensor_dtype) in SCALED_DTYPES
        )
        return next(scaled, found)
    if found == "attention" and len(lowered.kernels) > 1:
        flops = [kernel.flops for kernel in lowered.kernels]
        return UNFUSED if max(flops) < _OF_ONE_KERNEL * sum(flops) else found
    return found


def unit(hardware: Hardware) -> str:
    """What parameters carry over within: the architecture, and what feeds its tensor cores."""
    return f"{hardware.architecture}/{hardware.matrix_unit}"


@functools.lru_cache(4096)
def is_fitted(hardware: Hardware, family: str) -> bool:
    """Whether the device's file records a fit to measurements of that device for `family`."""
    begins = _FITS.get(family, ())
    return any(
        fit == begin if begin in _EXACT else fit.startswith(begin)
        for fit in hardware.fitted
        for begin in begins
    )


def standing(hardware: Hardware, family: str, units: tuple[str, ...]) -> str:
    """One of STANDINGS. units: those on which `family` was fitted for some device (see `unit`)."""
    if is_fitted(hardware, family):
        return CALIBRATED
    return CARRIED if unit(hardware) in units else NEVER_MEASURED
