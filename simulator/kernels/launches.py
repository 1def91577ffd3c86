"""Calls whose kernels take next to no time: what the `launch` rows of a suite time is the way to the device."""

from __future__ import annotations

from typing import Any

from simtti.hw_configs.hardware import Hardware
from simtti.simulator.kernel import Kernel
from simtti.simulator.kernels.attention import ATTENTION
from simtti.simulator.kernels.concatenation import CAT
from simtti.simulator.kernels.convolution import CONV2D
from simtti.simulator.kernels.elementwise import ELEMENTWISE
from simtti.simulator.kernels.family import Cells, Column, Family, Work
from simtti.simulator.kernels.gemm_family import GEMM
from simtti.simulator.kernels.normalization import GROUP_NORM, LAYER_NORM

# exact: the operands that validation/measurements/bench/operators.py makes for each function
NUMEL, SIDE, CHANNELS, PIXELS_SIDE, TAPS, HEADS = 1024, 64, 64, 16, 3, 8

_IMAGE = {"n": 1, "c": CHANNELS, "h": PIXELS_SIDE, "w": PIXELS_SIDE}
# What each function is as a row of another family; those of none launch nothing.
CALLS: dict[str, tuple[Family, dict[str, Any]] | None] = {
    "nothing": None,
    "view": None,
    "add_": (ELEMENTWISE, {"numel": NUMEL, "function": "add"}),
    "add": (ELEMENTWISE, {"numel": NUMEL, "function": "add"}),
    "silu": (ELEMENTWISE, {"numel": NUMEL, "function": "silu"}),
    "linear": (GEMM, {"m": SIDE, "n": SIDE, "k": SIDE}),
    "conv2d": (CONV2D, _IMAGE | {"oc": CHANNELS, "kh": TAPS, "kw": TAPS, "padding": 1}),
    "group_norm": (GROUP_NORM, {"n": 1, "c": CHANNELS, "spatial": PIXELS_SIDE**2}),
    "layer_norm": (LAYER_NORM, {"rows": SIDE, "cols": SIDE}),
    "attention": (ATTENTION, {"batch": 1, "heads": HEADS, "q_len": SIDE, "kv_len": SIDE, "head_dim": SIDE}),
    "cat": (CAT, _IMAGE | {"c2": CHANNELS}),
}


def _call(cells: Cells) -> tuple[Family, Cells] | None:
    """The family and the row of it that a function stands for."""
    call = CALLS[str(cells.text("function"))]
    if call is None:
        return None
    family, columns = call
    return family, family.cells({"op": family.op, "dtype": cells.dtype, **columns})


def _kernels(cells: Cells, hardware: Hardware) -> list[Kernel]:
    call = _call(cells)
    return call[0].kernels(call[1], hardware) if call else []


def _work(cells: Cells) -> Work:
    call = _call(cells)
    return call[0].work(call[1]) if call else Work(0.0, 0.0)


LAUNCH = Family(
    op="launch",
    columns=(Column("function", "add", str, words=tuple(CALLS)),),
    note="calls on next to nothing: function = nothing add linear group_norm ...",
    kernels=_kernels,
    work=_work,
)
