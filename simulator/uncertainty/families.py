"""Families of residuals, and a device's standing in each: whether its parameters were fitted to measurements of it."""

from __future__ import annotations

import bisect
import functools

from simtti.hw_configs.hardware import Hardware
from simtti.simulator.lowering.lower import Lowered
from simtti.workloads.trace import Operator

# The family of a row of `simtti predict`, by its op. A row in fewer bits (SCALED_DTYPES) is of SCALED whatever it is.
OPS = {
    "gemm": "gemm",
    "attention": "attention",
    "math_attention": "attention",
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
    "scale_matrix": "quantize",
    "computescale": "quantize",
    "all_gather": "communication",
    "all_to_all": "communication",
    "reduce_scatter": "communication",
    "all_reduce": "communication",
}
SCALED = "scaled gemm"
SCALED_DTYPES = ("fp8", "fp8_block", "nvfp4", "int8")
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
FAMILIES = (*dict.fromkeys(OPS.values()), SCALED, UNMODELLED)
# The fits (validation/fit/families.yaml) that set a family's parameters, by how their names begin.
_FITS = {
    "gemm": ("gemm",),
    "attention": ("attention-",),
    "convolution": ("convolution",),
    "normalization": ("group-norm", "layer-norm", "rms-norm"),
    "softmax": ("softmax",),
    "elementwise": ("elementwise", "cast"),
    "memory": ("permute", "cat", "copy"),
    "quantize": ("scale-matrix", "computescale"),
    "communication": ("collectives",),
    SCALED: ("gemm-",),
    "energy": ("energy",),
}
_EXACT = ("gemm", "cat")  # that other names begin with as well

# A family's parameters were fitted to measurements of the device itself; of another device of its architecture and matrix unit;
# of neither.
CALIBRATED, CARRIED, NEVER_MEASURED = STANDINGS = ("calibrated", "carried", "never measured")

SIZES = ("under 10 us", "10-100 us", "over 100 us")
SIZE_LIMITS_US = (10.0, 100.0)


def size_class(time_us: float) -> str:
    """Which of SIZES a time is, in microseconds."""
    return SIZES[bisect.bisect_right(SIZE_LIMITS_US, time_us)]


def family_of_row(op: str, dtype: str) -> str:
    """The family of a row of `simtti predict`."""
    if op == "gemm" and dtype in SCALED_DTYPES:
        return SCALED
    return OPS.get(op, UNMODELLED)


def family_of_operator(operator: Operator, lowered: Lowered) -> str:
    """The family of an operator of a trace."""
    if lowered.unknown:
        return UNMODELLED
    found = CATEGORIES.get(operator.category, "elementwise")
    if found == "gemm" and any(kernel.tensor_dtype in SCALED_DTYPES for kernel in lowered.kernels):
        return SCALED
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
