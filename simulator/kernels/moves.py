"""Rearrangements: permuted tensors copied into contiguous memory, as models do between their layers.

What is fitted stands in hw_configs/families/elementwise.yaml, with the kernel that copies.
"""

from __future__ import annotations

import math

from simtti.hw_configs.hardware import Hardware
from simtti.simulator.kernel import Kernel
from simtti.simulator.kernels.data_movement import copy
from simtti.simulator.kernels.family import Cells, Column, Family, Work, needed
from simtti.simulator.kernels.layout import Operand, dense, dense_strides, lies_dense

HEADS = 8  # exact: heads that split_heads and merge_heads move, of Stable Diffusion's attention

# What each moves: (sizes as the source lies, the order in which the result has them).
MOVES = {
    "nchw_to_tokens": ("images c pixels", (0, 2, 1)),
    "tokens_to_nchw": ("images pixels c", (0, 2, 1)),
    "space_to_time": ("n frames pixels c", (0, 2, 1, -1)),
    "time_to_space": ("n pixels frames c", (0, 2, 1, -1)),
    "frames_to_channels": ("n frames c pixels", (0, 2, 1, -1)),
    "split_heads": ("images pixels heads head_dim", (0, 2, 1, -1)),
    "merge_heads": ("images heads pixels head_dim", (0, 2, 1, -1)),
    "to_channels_last": ("images c pixels", (0, 2, 1)),
    "from_channels_last": ("images pixels c", (0, 2, 1)),
}


def move(function: str, sizes: dict[str, int], dtype: str, hardware: Hardware) -> list[Kernel]:
    """The copy of a tensor of `sizes` (those that MOVES names), in another order; none where it lies in that order already, as
    of one frame. (Memory formats are changed by `clone`, which always copies.)"""
    names, order = MOVES[function]
    lies = tuple(sizes[name] for name in names.split())
    strides = dense_strides(lies)
    shape = tuple(lies[index] for index in order)
    source = Operand(0, tuple(strides[index] for index in order), dtype)
    if not function.endswith("channels_last") and lies_dense(shape, source.strides):
        return []
    return copy(shape, source, dense(1, shape, dtype), hardware, cold=True)


# ---- rows of a table


def _permute_kernels(cells: Cells, hardware: Hardware) -> list[Kernel]:
    """(batch, rows, cols, inner) to (batch, cols, rows, inner)."""
    batch, rows, cols, inner = (cells.whole(name) for name in ("batch", "rows", "cols", "inner"))
    shape = (batch, cols, rows, inner)
    source = Operand(0, (rows * cols * inner, inner, cols * inner, 1), cells.dtype)
    return copy(shape, source, dense(1, shape, cells.dtype), hardware, cold=True)


def _move_kernels(cells: Cells, hardware: Hardware) -> list[Kernel]:
    n, frames, c, h, w = (cells.whole(name) for name in ("n", "frames", "c", "h", "w"))
    sizes = {
        "n": n,
        "frames": frames,
        "images": n * frames,
        "c": c,
        "pixels": h * w,
        "heads": HEADS,
        "head_dim": -(-c // HEADS),
    }
    return move(str(cells.text("function")), sizes, cells.dtype, hardware)


PERMUTE = Family(
    op="permute",
    columns=(*needed("rows cols"), Column("batch", 1), Column("inner", 1)),
    note="copy of (batch, rows, cols, inner) to (batch, cols, rows, inner)",
    kernels=_permute_kernels,
    work=lambda cells: Work(
        0.0, 2.0 * math.prod(cells.whole(name) for name in ("batch", "rows", "cols", "inner"))
    ),
)
MOVE = Family(
    op="move",
    columns=(
        Column("function", "nchw_to_tokens", str, words=tuple(MOVES)),
        *needed("c h w"),
        Column("n", 1),
        Column("frames", 1),
    ),
    note="copy of n videos of frames x (c, h, w) in another order: function = nchw_to_tokens, space_to_time, ...",
    kernels=_move_kernels,
    work=lambda cells: Work(
        0.0, 2.0 * math.prod(cells.whole(name) for name in ("n", "frames", "c", "h", "w"))
    ),
)
