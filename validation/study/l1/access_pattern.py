"""Which sectors the CTAs of a kernel ask for, in order: from how its operands lie in memory.

A warp's instruction asks for each sector of 32 bytes its threads touch once (CUDA C++ Best Practices Guide, coalesced
access). So a pattern is an array of sector numbers by instruction, and a CTA is a list of patterns, one for each turn of
its loop; CTAs on the same SM take turns. Loads only: stores go through to L2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from simtti.hw_configs.hardware import Hardware
from simtti.simulator.kernel import Kernel, ctas_per_sm
from simtti.validation.study.l1.cache import SECTOR_BYTES, Cache, Hits, l1_bytes

WARP = 32
# Turns of a CTA's loop, each the sectors it asks for.
Turns = list[np.ndarray]
# Waves of CTAs apart in memory: operands of one kernel stand this far apart, so that none overlap.
OPERAND_GAP = 1 << 44


class Matrices(NamedTuple):
    """Matrices of rows x columns within a tensor, as (sizes, strides) of the dimensions that count them.

    Strides in elements; item: bytes an element; base: where the tensor starts, in bytes.
    """

    outer: tuple[tuple[int, int], ...]
    rows: int
    columns: int
    row_stride: int
    column_stride: int
    item: int
    base: int = 0

    @property
    def number(self) -> int:
        return math.prod(size for size, _ in self.outer)

    def start(self, index: int) -> int:
        """Where matrix `index` starts, in bytes; the last outer dimension counts fastest."""
        offset = 0
        for size, stride in reversed(self.outer):
            index, here = divmod(index, size)
            offset += here * stride
        return self.base + offset * self.item

    @property
    def transposed(self) -> Matrices:
        return self._replace(
            rows=self.columns, columns=self.rows, row_stride=self.column_stride, column_stride=self.row_stride
        )


def matrices(shape: Sequence[int], strides: Sequence[int], item: int, base: int = 0) -> Matrices:
    """The matrices of a tensor's last two dimensions."""
    outer = tuple(zip(shape[:-2], strides[:-2], strict=True))
    return Matrices(outer, shape[-2], shape[-1], strides[-2], strides[-1], item, base)


def block_reads(source: Matrices, index: int, row: int, rows: int, column: int, columns: int) -> np.ndarray:
    """Sectors of a block of one matrix, as a CTA loads it: 16 bytes a thread along the dimension that lies dense,
    or an element a thread where neither does. What is beyond the matrix is not read."""
    rows, columns = min(rows, source.rows - row), min(columns, source.columns - column)
    if rows <= 0 or columns <= 0:
        return np.empty(0, np.int64)
    if source.column_stride != 1 and source.row_stride == 1:
        return block_reads(source.transposed, index, column, columns, row, rows)
    start = source.start(index) + (row * source.row_stride + column * source.column_stride) * source.item
    lines = start + np.arange(rows, dtype=np.int64) * (source.row_stride * source.item)
    if source.column_stride == 1:
        first, last = lines // SECTOR_BYTES, (lines + columns * source.item - 1) // SECTOR_BYTES
        most = int((last - first).max()) + 1
        sectors = first[:, None] + np.arange(most)
        return sectors[sectors <= last[:, None]]
    step = source.column_stride * source.item
    return _by_warp((lines[:, None] + np.arange(columns, dtype=np.int64) * step).ravel() // SECTOR_BYTES)


def _by_warp(sectors: np.ndarray) -> np.ndarray:
    """Sectors of one element a thread: each once an instruction of a warp."""
    short = -len(sectors) % WARP
    padded = np.concatenate([sectors, np.full(short, sectors[-1])]).reshape(-1, WARP)
    padded.sort(axis=1)
    first = np.ones(padded.shape, bool)
    first[:, 1:] = padded[:, 1:] != padded[:, :-1]
    return padded[first]


def gemm_cta(a: Matrices, b: Matrices, tile: tuple[int, int, int], cta: int) -> Turns:
    """C = A·B of each pair of matrices: a CTA loads its rows of A and its columns of B, `tile[2]` of k a turn.

    CTAs go over the rows of C first, then its columns, then the matrices: the grid of CUTLASS's default.
    """
    tile_m, tile_n, tile_k = tile
    blocks_m, blocks_n = -(-a.rows // tile_m), -(-b.columns // tile_n)
    rest, m = divmod(cta, blocks_m)
    index, n = divmod(rest, blocks_n)
    return [
        np.concatenate(
            [
                block_reads(a, index, m * tile_m, tile_m, k, tile_k),
                block_reads(b, index, k, tile_k, n * tile_n, tile_n),
            ]
        )
        for k in range(0, a.columns, tile_k)
    ]


def softmax_cta(kernel: str, rows: int, length: int, item: int, rows_a_cta: int, cta: int) -> Turns:
    """Rows of a dense matrix, by the name of PyTorch's `kernel`. In a warp (softmax_warp_forward) a lane takes every 32nd
    element, once. A CTA a row reads it 16 bytes a thread: three times (cunn_SoftMaxForward: the maximum, the sum, the
    result), or once into shared memory (cunn_SoftMaxForwardSmem)."""
    first, last = cta * rows_a_cta, min((cta + 1) * rows_a_cta, rows)
    if kernel == "softmax_warp_forward":
        lanes = min(1 << (length - 1).bit_length(), WARP)
        at = np.arange(0, length, lanes, dtype=np.int64)
        turns = []
        for row in range(first, last, WARP // lanes):
            together = np.arange(row, min(row + WARP // lanes, last), dtype=np.int64) * length
            places = (at[:, None, None] + together[None, :, None] + np.arange(lanes)).reshape(len(at), -1)
            inside = (at[:, None] + np.arange(lanes) < length)[:, None, :].repeat(len(together), 1)
            sectors = [
                np.unique(line[ok] * item // SECTOR_BYTES)
                for line, ok in zip(places, inside.reshape(len(at), -1), strict=True)
            ]
            turns.append(np.concatenate(sectors))
        return turns
    whole = np.arange(
        first * length * item // SECTOR_BYTES, -(-last * length * item // SECTOR_BYTES), dtype=np.int64
    )
    return [whole] * (1 if kernel.endswith("Smem") else 3)


def elementwise_cta(
    shape: Sequence[int], strides: Sequence[int], item: int, threads: int, elements: int, cta: int
) -> Turns:
    """One operand of an elementwise kernel that walks over `shape`, the last dimension fastest: `elements` a thread, each
    `threads` apart (PyTorch's elementwise_kernel)."""
    total = math.prod(shape)
    turns = []
    for part in range(elements):
        first = (cta * elements + part) * threads
        index = np.arange(first, min(first + threads, total), dtype=np.int64)
        if not len(index):
            break
        offset = np.zeros_like(index)
        for size, stride in zip(reversed(shape), reversed(strides), strict=True):
            index, here = np.divmod(index, size)
            offset += here * stride
        turns.append(_by_warp(offset * item // SECTOR_BYTES))
    return turns


def sm_stream(cta: Callable[[int], Turns], ctas: Sequence[Sequence[int]]) -> Iterator[np.ndarray]:
    """What one SM asks for: waves of resident CTAs, those of a wave taking turns."""
    for wave in ctas:
        resident = [cta(number) for number in wave]
        for turn in range(max(map(len, resident), default=0)):
            for turns in resident:
                if turn < len(turns):
                    yield turns[turn]


def place(grid: int, resident: int, sms: int, waves: int) -> list[list[list[int]]]:
    """CTAs by SM and wave, `waves` of them at most. The scheduler deals CTAs in order to whichever SM has room, so which
    of a wave's meet on an SM is as good as random; the deal is the same every time."""
    generator = np.random.default_rng(0)
    found: list[list[list[int]]] = [[] for _ in range(sms)]
    for first in range(0, min(grid, waves * resident * sms), resident * sms):
        dealt = generator.permutation(np.arange(first, min(first + resident * sms, grid)))
        for sm in range(sms):
            found[sm].append(dealt[sm::sms].tolist())
    return found


def l1_hits(
    kernel: Kernel,
    hardware: Hardware,
    cta: Callable[[int], Turns],
    *,
    sample_sms: int = 4,
    waves: int = 16,
    most_sectors: int = 16_000,
) -> Hits:
    """L1's hits over the first waves of `kernel` on a sample of SMs, each `most_sectors` lookups or one turn more."""
    resident = ctas_per_sm(kernel, hardware)
    placed = place(kernel.grid, resident, hardware.sm_count, waves)
    found = Hits(0, 0)
    for sm in range(0, hardware.sm_count, max(1, hardware.sm_count // sample_sms)):
        cache, asked = Cache(l1_bytes(kernel, hardware)), 0
        for sectors in sm_stream(cta, placed[sm]):
            found += cache.read(sectors)
            asked += len(sectors)
            if asked >= most_sectors:  # in the middle of a wave, whose CTAs are in step
                break
    return found
