"""Which implicit GEMM kernel cuDNN takes: its tiles, those that come into question, and of them the fastest by prediction.

cuDNN's heuristic does not always take the fastest. Where traces show what it does, the rules below leave a single
candidate; where nothing was seen, all that fit are candidates and the least predicted time decides.

- Data-centre Blackwell: the tcgen05 tile of the least predicted time. Not measured.
- Hopper: by shape, `_hopper_tile`. sm80 kernels for 8 or fewer input channels, 32 or fewer output channels, and 2-D in
  16 bits up to 128 output channels: only 256x64 was seen there.
- Elsewhere, and for 1x1 convolutions of NCHW tensors as they lie: the mma.sync tile of the least predicted time, and
  split-K where a grid would leave most SMs idle.

The thresholds of the rules stand in hw_configs/families/convolution.yaml (conv_choice, conv_split_k).
"""

from __future__ import annotations

from simtti.dtypes import HALF_TYPES
from simtti.hw_configs.hardware import Hardware
from simtti.simulator.kernel import Kernel, ctas_per_sm
from simtti.simulator.kernels.implicit_gemm import (
    MMA_STEP_BYTES,
    Problem,
    Tile,
    fastest,
    matrix_unit,
    mma_kernels,
    persistent_kernels,
)

CTA_RESERVED_BYTES = (
    1024  # exact: shared memory of each CTA that CUDA keeps (CUDA C++ Programming Guide, occupancy)
)

# Tiles. exact: rows and columns from kernel names; threads, registers and shared memory of the sm90 tiles as in the H100
# traces (64x128, not seen in one that says them, as the others), and of the sm100 tiles, which were not seen, as of sm90's.
SM90, SM90_WIDE, SM90_TALL, SM90_SMALL, SM90_PLANAR = (  # exact: see above
    Tile("sm90_128x128", 128, 128, 384, 168, 231424, persistent=True, half_step=True),
    Tile("sm90_128x256", 128, 256, 384, 168, 231424, persistent=True),
    Tile("sm90_256x64", 256, 64, 384, 168, 231424, persistent=True),
    Tile("sm90_128x64", 128, 64, 384, 168, 231424, persistent=True),
    Tile("sm90_64x128", 64, 128, 384, 168, 231424, persistent=True),
)
SM100 = (  # exact: see above
    Tile("sm100_128x256", 128, 256, 384, 168, 231424, persistent=True),
    Tile("sm100_128x128", 128, 128, 384, 168, 231424, persistent=True),
    Tile("sm100_128x64", 128, 64, 384, 168, 231424, persistent=True),
)
# exact: shared memory is four steps of MMA_STEP_BYTES a row of the operands; threads and registers of 256x64 and 128x128 as
# in the H100 traces, those of the others after them.
SM80_TALL = Tile("sm80_256x64", 256, 64, 128, 246, 81920, warps=(4, 1))  # exact: see above
SM80_NARROW = Tile("sm80_128x32", 128, 32, 128, 120, 40960, warps=(4, 1))  # exact: see above
SM80 = (  # exact: see above
    Tile("sm80_64x64", 64, 64, 128, 120, 32768),
    Tile("sm80_128x64", 128, 64, 128, 168, 49152),
    SM80_TALL,
    Tile("sm80_128x128", 128, 128, 128, 240, 65536),
    Tile("sm80_128x256", 128, 256, 256, 240, 98304, warps=(2, 4)),
    Tile("sm80_256x128", 256, 128, 256, 240, 98304, warps=(4, 2)),
)
SM80_ON_HOPPER = (SM80_TALL,)  # the only one seen there for more than 32 output channels
SPLIT_K = (2, 3, 4, 6, 8, 12, 16)  # exact: by definition, the splits that are tried


def tensor_core_kernels(problem: Problem, hardware: Hardware) -> list[Kernel]:
    """The kernel (with its Memset or its split-K reduction) that cuDNN's heuristic would take."""
    return fastest(candidates(problem, hardware), hardware)


def candidates(problem: Problem, hardware: Hardware) -> list[list[Kernel]]:
    """What comes into question, each a way to do all the products."""
    tiles = _tiles(problem, hardware)
    if tiles[0].persistent:
        return [persistent_kernels(problem, tile, hardware) for tile in tiles]
    return _mma_candidates(problem, tiles, hardware)


def _tiles(problem: Problem, hardware: Hardware) -> tuple[Tile, ...]:
    """The tiles that come into question, all persistent or none."""
    unit = matrix_unit(hardware)
    if unit not in ("wgmma", "tcgen05") or problem.plain:
        return SM80
    if unit == "tcgen05":
        return SM80 if _is_narrow(problem) else SM100
    return _hopper_tile(problem, hardware)


def _is_narrow(problem: Problem) -> bool:
    """Too few channels for the persistent kernels."""
    return problem.padded or problem.n <= SM80_NARROW.n


def _hopper_tile(problem: Problem, hardware: Hardware) -> tuple[Tile]:
    """The tile that cuDNN takes on Hopper: by dimensions, dtype and output channels, then by the waves."""
    rules = hardware.conv_choice
    planar = problem.planar and problem.dtype in HALF_TYPES and problem.n <= rules.planar_channels
    if _is_narrow(problem) or (planar and problem.n <= rules.sm80_planar_channels):
        return SM80_ON_HOPPER
    if planar:
        return (SM90_PLANAR,)
    if problem.n <= SM90_TALL.n:
        return (SM90_TALL,)
    is_deep = problem.depth >= rules.wide_tile_depth
    wide_waves = problem.tiles(SM90_WIDE) / hardware.sm_count
    if problem.n % SM90_WIDE.n == 0 and is_deep and wide_waves >= rules.wide_tile_waves:
        return (SM90_WIDE,)
    if not is_deep or problem.tiles(SM90) < rules.small_tile_waves * hardware.sm_count:
        return (SM90_SMALL,)
    return (SM90,)


def _mma_candidates(problem: Problem, tiles: tuple[Tile, ...], hardware: Hardware) -> list[list[Kernel]]:
    """mma.sync kernels of those tiles that fit an SM and are not far larger than the result, whole and split."""
    found: list[list[Kernel]] = []
    for tile in (SM80_NARROW,) if problem.n <= SM80_NARROW.n else tiles:
        if found and (tile.m >= 2 * problem.m or tile.n >= 2 * problem.n):
            continue
        if tile.shared_memory_bytes + CTA_RESERVED_BYTES > hardware.shared_memory_per_sm_bytes:
            continue
        whole = mma_kernels(problem, tile, 1, hardware)
        found.append(whole)
        split = _split(problem, tile, whole[0], hardware)
        if split > 1:
            found.append(mma_kernels(problem, tile, split, hardware))
    return found


def _split(problem: Problem, tile: Tile, whole: Kernel, hardware: Hardware) -> int:
    """CTAs that share a tile's k loop: a grid of few tiles is split as far as the SMs and the k loop allow."""
    rules = hardware.conv_split_k
    tiles = problem.tiles(tile)
    if tiles > rules.max_share * hardware.sm_count:
        return 1
    slots = hardware.sm_count * min(2, ctas_per_sm(whole, hardware))
    most = min(slots // tiles, problem.steps(MMA_STEP_BYTES) // rules.min_steps)
    return max((each for each in SPLIT_K if each <= most), default=1)
