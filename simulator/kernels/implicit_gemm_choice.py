"""Which implicit GEMM kernel cuDNN takes: its tiles, those that come into question, and of them the fastest by prediction.

cuDNN's heuristic does not always take the fastest: on Hopper each tile of the catalogue has a preference, by which its
predicted time is discounted before the least decides (`Tile.preference`; fitted to what was taken on our own H200).

- Data-centre Blackwell: the tcgen05 tile of the least predicted time. Not measured.
- Hopper: sm90 tiles and, beside them, sm80 ones; only those for 8 or fewer input channels or 32 or fewer output channels.
- Elsewhere: the mma.sync tile of the least predicted time, and split-K where a grid would leave most SMs idle.

What is fitted stands in hw_configs/families/convolution.yaml (conv_sm90_*, conv_choice, conv_split_k).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

from simtti.hw_configs.hardware import Hardware
from simtti.simulator.closed_form import lone_time_s
from simtti.simulator.kernel import Kernel, ctas_per_sm
from simtti.simulator.kernels.implicit_gemm import (
    Loop,
    Problem,
    Tile,
    matrix_unit,
    mma_kernels,
    mma_loop,
    persistent_kernels,
    persistent_loop,
)

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
SPLIT_K = (2, 3, 4, 6, 8, 12, 16)  # exact: by definition, the splits that are tried
_BELOW_ROUNDING = 1 - 1e-9  # exact: far more than what two ways to round a bound and a time differ by


class Way(NamedTuple):
    """A way to do all the products: a tile, and of an mma.sync kernel the CTAs that share a tile's k loop."""

    tile: Tile
    split: int = 1

    def loop(self, problem: Problem, hardware: Hardware) -> Loop:
        if self.tile.persistent:
            return persistent_loop(problem, self.tile, hardware)
        return mma_loop(problem, self.tile, self.split, hardware)

    def kernels(self, problem: Problem, hardware: Hardware) -> list[Kernel]:
        if self.tile.persistent:
            return persistent_kernels(problem, self.tile, hardware)
        return mma_kernels(problem, self.tile, self.split, hardware)


def tensor_core_kernels(problem: Problem, hardware: Hardware) -> list[Kernel]:
    """The kernel (with what goes before it, or its split-K reduction) that cuDNN's heuristic would take: of the least time as it counts,
    the first of those that tie. Ways go in the order of what they take at least: once that is more than the best, so is the rest."""
    possible = ways(problem, hardware)
    if len(possible) == 1:
        return possible[0].kernels(problem, hardware)
    tuned = tuned_for(problem, hardware)
    at_least = [
        least_s(way.loop(tuned, hardware), tuned.dtype, hardware) * discount(way.tile, tuned, hardware)
        for way in possible
    ]
    best: tuple[float, int, list[Kernel]] = (math.inf, len(possible), [])
    for number in sorted(range(len(possible)), key=at_least.__getitem__):
        if at_least[number] * _BELOW_ROUNDING > best[0]:
            break
        tile, kernels = possible[number].tile, possible[number].kernels(tuned, hardware)
        counted = counted_s(tile, kernels, tuned, hardware)
        if (counted, number) < best[:2]:
            best = counted, number, kernels
    return best[2] if tuned is problem else possible[best[1]].kernels(problem, hardware)


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


def least_s(loop: Loop, dtype: str, hardware: Hardware) -> float:
    """A bound below `lone_time_s` of a loop's kernel: the busiest SM's tensor cores, and what comes before them."""
    rate = hardware.tensor_flops_per_cycle_sm(dtype) * hardware.clock_hz * loop.tensor_efficiency
    busiest_s = loop.tensor_flops / rate * -(-loop.grid // hardware.sm_count)
    return hardware.launch_s + hardware.start_s + loop.latency_s + busiest_s


def counted_s(tile: Tile, kernels: list[Kernel], problem: Problem, hardware: Hardware) -> float:
    """Seconds of a way as cuDNN's heuristic counts them: as predicted, less for a tile that it prefers."""
    time_s = sum(lone_time_s(kernel, hardware) for kernel in kernels)
    return time_s * discount(tile, problem, hardware)


def discount(tile: Tile, problem: Problem, hardware: Hardware) -> float:
    """What the heuristic multiplies a tile's time by: 1 where it goes by the time alone."""
    if matrix_unit(hardware) not in ("wgmma", "tcgen05") or problem.plain:
        return 1.0
    return math.exp(-tile.preference(problem, hardware))


def candidates(problem: Problem, hardware: Hardware) -> list[list[Kernel]]:
    """The kernels of each way that comes into question."""
    return [way.kernels(problem, hardware) for way in ways(problem, hardware)]


def ways(problem: Problem, hardware: Hardware) -> list[Way]:
    """What comes into question."""
    unit = matrix_unit(hardware)
    if unit not in ("wgmma", "tcgen05") or problem.plain:
        return _mma_ways(problem, (SM80_NARROW,) if problem.n <= SM80_NARROW.n else SM80, hardware)
    if problem.n <= SM80_NARROW.n:
        return _mma_ways(problem, SM80_ON_HOPPER_NARROW, hardware)
    if unit == "tcgen05":
        if problem.padded:
            return _mma_ways(problem, SM80, hardware)
        return [Way(tile) for tile in SM100]
    if (
        problem.filters == "frames"
        and problem.frames <= hardware.conv_choice.few_frames
        and not problem.padded
    ):
        return [Way(_of_few_frames(problem, hardware))]
    # filters (1, k, k) were seen with the slim tile only
    tiles = (SM80_SLIM, SM80_TALL) if problem.filters == "frames" else SM80_ON_HOPPER
    if problem.filters == "spatial":
        tiles = (*tiles, SM80_TALL_NARROW)
    small = _mma_ways(problem, tiles, hardware)
    return small if problem.padded else [*(Way(tile) for tile in SM90), *small]


def _of_few_frames(problem: Problem, hardware: Hardware) -> Tile:
    """What filters (1, k, k) run as on a result of few frames, however much slower that is (up to 2.2 times, on our own H200)."""
    is_slim = problem.frames * problem.channels <= hardware.conv_choice.few_frames_channels
    return SM80_SLIM if is_slim else SM90_SMALL


def _mma_ways(problem: Problem, tiles: tuple[Tile, ...], hardware: Hardware) -> list[Way]:
    """mma.sync kernels of those tiles that fit an SM and are not far larger than the result, whole and split."""
    found: list[Way] = []
    narrowest = min(tile.n for tile in tiles)
    for tile in tiles:
        if found and (tile.m >= 2 * problem.m or tile.n >= 2 * max(problem.n, narrowest)):
            continue
        if tile.shared_memory_bytes + CTA_RESERVED_BYTES > hardware.shared_memory_per_sm_bytes:
            continue
        found.append(Way(tile))
        split = _split(problem, tile, hardware)
        if split > 1:
            found.append(Way(tile, split))
    return found


def _split(problem: Problem, tile: Tile, hardware: Hardware) -> int:
    """CTAs that share a tile's k loop: a grid of few tiles is split as far as the SMs and the k loop allow."""
    rules = hardware.conv_split_k
    tiles = problem.tiles(tile)
    if tiles > rules.max_share * hardware.sm_count:
        return 1
    slots = hardware.sm_count * min(2, ctas_per_sm(tile, hardware))
    most = min(slots // tiles, problem.steps(tile.step_bytes) // rules.min_steps)
    return max((each for each in SPLIT_K if each <= most), default=1)
