"""Which implicit GEMM kernel cuDNN takes: its tiles, those that come into question, and of them the fastest by prediction.

cuDNN's heuristic does not always take the fastest: on Hopper each tile of the catalogue has a preference, by which its
predicted time is discounted before the least decides (`Tile.preference`; fitted to what was taken on our own H200).

- Data-centre Blackwell: the tcgen05 tile of the least predicted time. Not measured.
- Hopper: sm90 tiles and, beside them, sm80 ones; only those for 8 or fewer input channels or 32 or fewer output channels.
- Elsewhere: the mma.sync tile of the least predicted time, and split-K where a grid would leave most SMs idle.

What is fitted stands in hw_configs/families/convolution.yaml (conv_sm90_*, conv_choice, conv_split_k).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from simtti.errors import InputError
from simtti.hw_configs.hardware import Hardware
from simtti.simulator.arithmetic import ARRAYS, Number
from simtti.simulator.closed_form import lone_time_s
from simtti.simulator.column import PLAIN, Column
from simtti.simulator.designs import Designs, each_of, of_entries, side_by_side
from simtti.simulator.kernel import Kernel, ctas_per_sm
from simtti.simulator.kernels.gemm_tiles import MOST_DEVICES
from simtti.simulator.kernels.implicit_gemm import (
    NARROW_COLUMNS,
    SPLIT_K_REDUCE,
    Cut,
    Problem,
    Reduction,
    Shares,
    Tile,
    Work,
    cut,
    matrix_unit,
    mma_kernels,
    mma_work,
    partial_bytes,
    persistent_kernels,
    persistent_work,
    reduction_work,
    segment_start,
    shares,
    tile_counter,
)
from simtti.simulator.lanes import agreed, undecided

CTA_RESERVED_BYTES = (
    1024  # exact: shared memory of each CTA that CUDA keeps (CUDA C++ Programming Guide, occupancy)
)

# Tiles. exact: rows and columns from kernel names; threads, registers and shared memory of the sm90 tiles as on our own H200,
# and of the sm100 tiles, which were not seen, as of sm90's. `warpgroupsize2x1x1` in a name: cooperative.
SM90_THREADS, SM90_REGISTERS, SM90_SHARED_BYTES = 384, 168, 231424  # exact: see above

# exact: grids on our own H200 and H100 are of 4 columns where the result has 3: 100 CTAs for 25 rows, 128 for 32, 64 for 16
SM90_IN_PAIRS = (256, 128, False)  # exact: see above


def _sm90(m: int, n: int, cooperative: bool = False, segmented: bool = False) -> Tile:
    return Tile(
        f"sm90_{m}x{n}", m, n, SM90_THREADS, SM90_REGISTERS, SM90_SHARED_BYTES, True, cooperative, segmented,
        half_step=not cooperative, column_pairs=(m, n, segmented) == SM90_IN_PAIRS,
    )  # fmt: skip


SM90_SMALL = _sm90(64, 64)  # exact: see above
SM90 = (  # exact: see above
    _sm90(128, 128),
    SM90_SMALL,
    _sm90(64, 128),
    _sm90(64, 192),
    _sm90(128, 64),
    _sm90(256, 64),
    _sm90(128, 192, cooperative=True),
    _sm90(128, 256, cooperative=True),
    _sm90(256, 96, cooperative=True),
    _sm90(256, 128, cooperative=True),
    _sm90(128, 64, segmented=True),
    _sm90(128, 128, segmented=True),
    _sm90(256, 128, cooperative=True, segmented=True),
)
SM100 = (  # exact: see above
    Tile("sm100_128x256", 128, 256, 384, 168, 231424, persistent=True),
    Tile("sm100_128x128", 128, 128, 384, 168, 231424, persistent=True),
    Tile("sm100_128x64", 128, 64, 384, 168, 231424, persistent=True),
)
# exact: shared memory is four steps of MMA_STEP_BYTES a row of the operands; threads and registers of 256x64 and 128x128 as
# in the H100 traces, those of the others after them.
SM80_TALL = Tile("sm80_256x64", 256, 64, 128, 246, 81920, warps=(4, 1))  # exact: see above
SM80_SLIM = Tile(
    "sm80_64x32", 64, 32, 128, 88, 61440, step_bytes=128
)  # exact: our own H200 (`.._64x32x64_stage5`)
SM80_NARROW = Tile("sm80_128x32", 128, 32, 128, 120, 40960, warps=(4, 1))  # exact: see above
SM80 = (  # exact: see above
    Tile("sm80_64x64", 64, 64, 128, 120, 32768),
    Tile("sm80_128x64", 128, 64, 128, 168, 49152),
    SM80_TALL,
    Tile("sm80_128x128", 128, 128, 128, 240, 65536),
    Tile("sm80_128x256", 128, 256, 256, 240, 98304, warps=(2, 4)),
    Tile("sm80_256x128", 256, 128, 256, 240, 98304, warps=(4, 2)),
)
SM80_ON_HOPPER = (
    SM80_SLIM, Tile("sm80_64x64", 64, 64, 128, 126, 66560, step_bytes=128), SM80_TALL,
)  # exact: our own H200 (`.._64x64x64_stage4`)  # fmt: skip
SM80_TALL_NARROW = Tile("sm80_256x32", 256, 32, 128, 168, 73728, warps=(4, 1))  # exact: the same
SM80_ON_HOPPER_NARROW = (SM80_SLIM, SM80_NARROW, SM80_TALL_NARROW)  # exact: the same
MOST_ON_EACH = 1024  # exact: problems whose ways on several devices are kept; the results are the same with any other number
SPLIT_K = (2, 3, 4, 6, 8, 12, 16)  # exact: by definition, the splits that are tried


class Way(NamedTuple):
    """A way to do all the products: a tile, and of an mma.sync kernel the CTAs that share a tile's k loop."""

    tile: Tile
    split: int = 1

    def kernels(self, problem: Problem, hardware: Hardware) -> list[Kernel]:
        if self.tile.persistent:
            return persistent_kernels(problem, self.tile, hardware)
        return mma_kernels(problem, self.tile, self.split, hardware)


class Candidates(NamedTuple):
    """What comes into question for a problem, and of it what does not depend on how fast a device is or how many SMs it has.

    tiles: that it can take, the persistent ones first; an mma.sync tile's k loop may also be split. persistent, mma: an array for each
    kind of tile, of a row each (`_row`).
    """

    problem: Problem
    tiles: tuple[Tile, ...]
    persistent: np.ndarray
    mma: np.ndarray


class _Row(NamedTuple):
    """Of a tile: its `Cut` of what the heuristic counts the time of; bytes that this reads; resident CTAs on an SM; the tiles by which its
    k loop is split, none where it may not be; what the heuristic multiplies its time by; of a persistent one its `Shares`."""

    cut: Cut
    read_bytes: Number
    per_sm: Number
    split_tiles: Number
    discount: Number
    shares: Shares


def candidates_for(problem: Problem, hardware: Hardware) -> Candidates:
    """What comes into question for a problem on a device."""
    tiles, tuned = tiles_for(problem, hardware), tuned_for(problem, hardware)
    rows = [[*(row := _row(problem, tuned, tile, hardware)).cut, *row[1:-1], *row.shares] for tile in tiles]
    count = sum(tile.persistent for tile in tiles)
    numbers = np.array(rows, dtype=float).reshape(len(tiles), -1)
    return Candidates(problem, tiles, numbers[:count], numbers[count:])


def _row(problem: Problem, tuned: Problem, tile: Tile, hardware: Hardware) -> _Row:
    data, filters = tuned.reads
    is_whole = tile.persistent or of_few_frames(problem, hardware)
    return _Row(
        cut(tuned, tile),
        data.nbytes + filters.nbytes,
        ctas_per_sm(tile, hardware),
        0 if is_whole else problem.tiles(tile),
        discount(tile, tuned, hardware),
        shares(tuned, tile, hardware) if tile.persistent else Shares(1.0, 1.0, 1.0),
    )


def choose(possible: Sequence[Candidates], hardware: Hardware) -> list[Way]:
    """The way that cuDNN's heuristic would take for each of several problems: of the least time as it counts, the first of those
    that tie. All ways of all of them are timed side by side; on several devices what the first of them takes, with those that take it."""
    if isinstance(hardware, Designs):
        prepare_on_each(possible, hardware)
        return [agreed(_made_on_each[each.problem, hardware.each]) for each in possible]
    rates = [hardware.tensor_flops_per_cycle_sm(each.problem.dtype) for each in possible]
    whole_s = _persistent_s(possible, rates, _before_s(hardware), hardware)
    return _ways(possible, whole_s, *_mma_s(possible, rates, hardware))


_made_on_each: dict[tuple[Problem, tuple[Hardware, ...]], list[Way]] = {}


def prepare_on_each(possible: Iterable[Candidates], hardware: Hardware) -> None:
    """Choose side by side what `choose` will be asked for on several devices. It is kept for all paths that these go, so that none may
    be gone in it."""
    devices = each_of(hardware)
    new = {each.problem: each for each in possible if (each.problem, devices) not in _made_on_each}
    if not new:
        return
    if len(_made_on_each) >= MOST_ON_EACH:
        _made_on_each.clear()
    with undecided():
        ways = _on_each(list(new.values()), devices)
    for number, problem in enumerate(new):
        _made_on_each[problem, devices] = ways[number :: len(new)]


def _on_each(possible: Sequence[Candidates], devices: tuple[Hardware, ...]) -> list[Way]:
    """The ways of all problems on the first device, on the second..."""
    hardware, beside = side_by_side(devices), [*possible] * len(devices)
    rates = [one.tensor_flops_per_cycle_sm(each.problem.dtype) for one in devices for each in possible]
    persistent, mma = (
        np.repeat(np.arange(len(devices)), sum(map(len, tables)))
        for tables in zip(*((each.persistent, each.mma) for each in possible), strict=True)
    )
    before_s = np.array([_before_s(one) for one in devices])[persistent].T
    whole_s = _persistent_s(beside, rates, (before_s[0], before_s[1]), of_entries(hardware, persistent))
    return _ways(beside, whole_s, *_mma_s(beside, rates, of_entries(hardware, mma)))


@functools.lru_cache(MOST_DEVICES)
def _before_s(hardware: Hardware) -> tuple[float, float]:
    """What goes before a persistent kernel that counts its tiles, and before one that is segmented."""
    counter_s, start_s = (
        lone_time_s(before, hardware) for before in (tile_counter(-1, hardware), segment_start(-1, hardware))
    )
    return counter_s, start_s


def _ways(
    possible: Sequence[Candidates], whole_s: Sequence[float], mma_s: Sequence[float], splits: Sequence[int]
) -> list[Way]:
    """Of each problem the way of the least time, the first of those that tie."""
    chosen, first, first_mma = [], 0, 0
    for each in possible:
        last, last_mma = first + len(each.persistent), first_mma + len(each.mma)
        counted = [*whole_s[first:last], *mma_s[2 * first_mma : 2 * last_mma]]
        best = counted.index(min(counted))
        number, is_split = (best, 0) if best < last - first else divmod(best - (last - first), 2)
        number += 0 if best < last - first else last - first
        chosen.append(Way(each.tiles[number], splits[first_mma + number - (last - first)] if is_split else 1))
        first, first_mma = last, last_mma
    return chosen


def _columns(tables: Sequence[np.ndarray]) -> _Row:
    """The rows of several tables side by side: of each number an array."""
    columns = list(np.concatenate(tables).T)
    width = len(Cut._fields)
    of = Cut._make(columns[:width])
    flags = of.cooperative.astype(bool), of.segmented.astype(bool)
    of = of._replace(cooperative=flags[0], segmented=flags[1])
    read_bytes, per_sm, split_tiles, weight, *own = columns[width:]
    return _Row(of, read_bytes, per_sm, split_tiles, weight, Shares._make(own))


def _persistent_s(
    possible: Sequence[Candidates],
    rates: Sequence[float],
    before_s: tuple[Number, Number],
    hardware: Hardware,
) -> list[float]:
    """Seconds, as the heuristic counts them, of each persistent tile. before_s: of each what may go before it, as of `_before_s`."""
    row = _columns([each.persistent for each in possible])
    if not len(row.read_bytes):
        return []
    rate = np.repeat(rates, [len(each.persistent) for each in possible])
    work = persistent_work(row.cut, row.shares, hardware, ARRAYS)
    kernel = _column(work, row.per_sm, rate, hardware)
    counter_s, start_s = before_s
    first_s = np.where(row.cut.segmented, start_s, np.where(row.cut.tiles > work.grid, counter_s, 0.0))
    time_s = first_s + lone_time_s(kernel, hardware, row.read_bytes + row.cut.result_bytes)
    found: list[float] = (time_s * row.discount).tolist()
    return found


def _mma_s(
    possible: Sequence[Candidates], rates: Sequence[float], hardware: Hardware
) -> tuple[list[float], list[int]]:
    """Seconds, as the heuristic counts them, of each mma.sync tile, whole and split in turn, infinite where it is not split; and
    into how many."""
    row = _columns([each.mma for each in possible])
    count = len(row.read_bytes)
    if not count:
        return [], []
    rate = np.repeat(rates, [len(each.mma) for each in possible])
    split = split_of(row.split_tiles, row.cut.steps, row.per_sm, hardware)
    time_s = np.full((count, 2), math.inf)
    work = mma_work(row.cut, np.ones(count), rate, hardware, ARRAYS)
    kernel = _column(work, row.per_sm, rate, hardware)
    time_s[:, 0] = lone_time_s(kernel, hardware, row.read_bytes + row.cut.result_bytes)
    (several,) = np.nonzero(split > 1)
    if len(several):
        some = Cut._make(each[several] for each in row.cut)
        parts, rate, hardware = split[several], rate[several], of_entries(hardware, several)
        kernel = _column(mma_work(some, parts, rate, hardware, ARRAYS), row.per_sm[several], rate, hardware)
        partial = partial_bytes(some, parts)
        summing = _summing(reduction_work(some, parts, hardware, ARRAYS), hardware)
        time_s[several, 1] = lone_time_s(kernel, hardware, row.read_bytes[several] + partial) + lone_time_s(
            summing, hardware, partial + some.result_bytes
        )
    return (time_s * row.discount[:, np.newaxis]).ravel().tolist(), split.astype(int).tolist()


def _column(work: Work, per_sm: Number, rate: Number, hardware: Hardware) -> Column:
    """The kernels of several ways."""
    return PLAIN._replace(start_s=hardware.start_s, tensor_rate=rate, per_sm=per_sm, **work._asdict())


def _summing(work: Reduction, hardware: Hardware) -> Column:
    """The kernels that add up the parts of several."""
    per_sm = ctas_per_sm(SPLIT_K_REDUCE, hardware)
    return PLAIN._replace(start_s=hardware.start_s, tensor_rate=1.0, per_sm=per_sm, **work._asdict())


def tensor_core_kernels(problem: Problem, hardware: Hardware) -> list[Kernel]:
    """The kernel (with what goes before it, or its split-K reduction) that cuDNN's heuristic would take."""
    possible = candidates_for(problem, hardware)
    (way,) = choose([possible], hardware)
    return way.kernels(problem, hardware)


def tuned_for(problem: Problem, hardware: Hardware) -> Problem:
    """What the heuristic counts the times of. On planes in fp16, as many rows as the power of two nearest by ratio: on our own H200 and
    H100 24 x 24, 48 x 48 and 96 x 96 positions run on the tiles that are fastest at 16, 32 and 64, up to 1.9 times slower than the
    fastest; in bf16 they do not."""
    if not hardware.conv_choice.tuned_rows or problem.filters != "planar" or problem.dtype != "fp16":
        return problem
    rows = 2 ** round(math.log2(problem.m))
    if rows == problem.m:
        return problem
    written = problem.write._replace(nbytes=problem.write.nbytes * rows / problem.m)
    return replace(problem, m=rows, write=written)


def discount(tile: Tile, problem: Problem, hardware: Hardware) -> float:
    """What the heuristic multiplies a tile's time by: 1 where it goes by the time alone."""
    if matrix_unit(hardware) not in ("wgmma", "tcgen05") or problem.plain:
        return 1.0
    return math.exp(-tile.preference(problem, hardware))


def tiles_for(problem: Problem, hardware: Hardware) -> tuple[Tile, ...]:
    """The tiles that come into question, the persistent ones first."""
    unit = matrix_unit(hardware)
    if unit not in ("wgmma", "tcgen05") or problem.plain:
        return _mma_tiles(problem, (SM80_NARROW,) if problem.n <= SM80_NARROW.n else SM80, hardware)
    if problem.n <= SM80_NARROW.n:
        return _mma_tiles(problem, SM80_ON_HOPPER_NARROW, hardware)
    if unit == "tcgen05":
        return _mma_tiles(problem, SM80, hardware) if problem.padded else SM100
    if of_few_frames(problem, hardware):
        # However much slower that is (up to 2.2 times, on our own H200).
        is_slim = problem.frames * problem.channels <= hardware.conv_choice.few_frames_channels
        return (SM80_SLIM if is_slim else SM90_SMALL,)
    # filters (1, k, k) were seen with the slim tile only
    tiles = (SM80_SLIM, SM80_TALL) if problem.filters == "frames" else SM80_ON_HOPPER
    # taken where tiles of 64 columns would be padded more: of 96 channels, not of 64 or 128
    narrow, wide = (-(-problem.n // each) * each for each in (SM80_TALL_NARROW.n, NARROW_COLUMNS))
    if problem.filters == "spatial" and narrow < wide:
        tiles = (*tiles, SM80_TALL_NARROW)
    small = _mma_tiles(problem, tiles, hardware)
    return small if problem.padded else (*SM90, *small)


def of_few_frames(problem: Problem, hardware: Hardware) -> bool:
    """Whether it has filters (1, k, k) and a result of few frames, which one tile makes, its k loop whole."""
    few = problem.filters == "frames" and problem.frames <= hardware.conv_choice.few_frames
    return (
        few
        and not problem.padded
        and not problem.plain
        and matrix_unit(hardware) == "wgmma"
        and problem.n > SM80_NARROW.n
    )


def _mma_tiles(problem: Problem, tiles: tuple[Tile, ...], hardware: Hardware) -> tuple[Tile, ...]:
    """Those mma.sync tiles that fit an SM and are not far larger than the result."""
    found: list[Tile] = []
    narrowest = min(tile.n for tile in tiles)
    for tile in tiles:
        if found and (tile.m >= 2 * problem.m or tile.n >= 2 * max(problem.n, narrowest)):
            continue
        if tile.shared_memory_bytes + CTA_RESERVED_BYTES > hardware.shared_memory_per_sm_bytes:
            continue
        found.append(tile)
    if not found:
        raise InputError(
            f"{hardware.name}: shared_memory_per_sm_bytes is {hardware.shared_memory_per_sm_bytes:,}; a convolution's kernels take "
            f"{min(tile.shared_memory_bytes for tile in tiles) + CTA_RESERVED_BYTES:,} and more"
        )
    return tuple(found)


def split_of(tiles: Number, steps: Number, per_sm: Number, hardware: Hardware) -> Number:
    """CTAs that share a tile's k loop, of one way or of several: a grid of few tiles is split as far as the SMs and the k loop
    allow. None of no tiles."""
    rules, sms = hardware.conv_split_k, hardware.sm_count
    most = np.minimum(sms * np.minimum(2, per_sm) // np.maximum(tiles, 1), steps // rules.min_steps)
    most = np.where((tiles > rules.max_share * sms) | (tiles < 1), 1, most)
    return np.array((1, *SPLIT_K))[np.searchsorted(SPLIT_K, most, side="right")]
