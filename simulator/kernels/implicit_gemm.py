"""Implicit GEMM: the kernels that cuDNN takes for the products of a convolution.

M = output positions of all samples, N = output channels, K = taps x input channels. A CTA makes one tile of the
output; for each tap it gathers the tile's pixels anew from L2, so activations cross HBM once and L2 as often as
there are taps (and column tiles). On tensor cores, channels are padded to the k step per tap: 3 input channels,
padded to 8, still occupy a step of 32.

Generations:

- tcgen05 (data-centre Blackwell): pairs of CTAs share the filter tile (`cutlass3x_sm100_tensorop_s256x256x16implicit_
  gemm_fprop`); accumulators in tensor memory are double-buffered, so a tile's epilogue hides behind the next one's
  products. The tile of the least predicted time. Not measured.
- wgmma (Hopper): one persistent CTA of 384 threads per SM, TMA. Which tile, is cuDNN's heuristic's business, and not
  always the fastest; the rules of `_wgmma_tile` say what the traces show.
- mma.sync: one tile a CTA. On Hopper for 8 or fewer input channels, 32 or fewer output channels, and 2-D in 16 bits up
  to 128 output channels: only 256x64 was seen there. Elsewhere the tile of the least predicted time, and split-K
  where a grid would leave most SMs idle.
- CUDA cores: fp32 without TF32, and fp32 with up to 4 channels (`nchwkcrs_nchw_.._ffma`). NCHW is read and written as
  it lies, K is taps x channels without padding. 3x3 with stride 1 may run as Winograd: F(2x2) in one kernel does the
  products of an output with 4 multiplications instead of 9, F(4x4) with 2.25, between three kernels that transform.

Sources: kernel names, grids, registers and shared memory in public traces: Wan2.1 and vision transformers (AMD-AGI/
TraceLens, H100, bf16), VGG-13 (sarchlab/triosim, H100, TF32), ResNet-50 (pytorch/kineto, V100, fp32). Constants marked
fitted: kernels of the same traces; A100 and V100: xwang233's conv3d timings (cuDNN 8.0).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

from simtti.dtypes import HALF_TYPES, ITEM_BYTES
from simtti.hw_configs.hardware import Hardware
from simtti.simulator.closed_form import lone_time_s
from simtti.simulator.kernel import Access, Kernel, ctas_per_sm
from simtti.simulator.kernels.data_movement import memset
from simtti.simulator.kernels.machine import fused_multiply_adds, has_wgmma

MMA_STEP_BYTES = 64  # bytes of a row of the operand tiles in one step of the k loop
WGMMA_STEP_BYTES = 128


class MmaSync(NamedTuple):
    """cuDNN's mma.sync kernels of one generation."""

    flops_per_cycle: float  # FP16 FLOPs of an SM in a cycle, at most
    efficiency: float  # share of that attained [0.3, 1]
    latency_s: float  # first tile of operands into shared memory, and the epilogue through it [1e-6, 10e-6]


class Persistent(NamedTuple):
    """cuDNN's persistent kernels of one generation."""

    efficiency: float  # tensor-core rate beside GEMM's [0.5, 1]
    latency_s: float  # set-up, first tile of operands, last stores, once a kernel [1e-6, 15e-6]
    tile_latency_s: float  # epilogue of one tile while the tensor cores wait [0, 5e-6]


# Fitted: H100's 16x16 patch embeddings; A100's peak, assumed to be Hopper's limit too.
MMA = MmaSync(2048.0, 0.77, 3.0e-6)
# Volta and Turing: no cp.async; loads pass through registers between the products. Fitted: conv3d on V100.
MMA_REGISTERS = MmaSync(1024.0, 0.6, 3.0e-6)
# Fitted: Wan2.1's VAE in bf16 (13 us for 27 steps, 35 us for 162), VGG-13 in TF32.
WGMMA = Persistent(0.97, 6.3e-6, 0.72e-6)
# As Hopper's, but the epilogue is hidden. Not measured.
TCGEN05 = Persistent(0.97, 6.3e-6, 0.0)

CUDA_CORE_EFFICIENCY = 0.72  # share of the FP32 pipe's peak in the k loop; fitted (ResNet-50 in fp32 on V100)
# Issue slots beside each fused multiply-add: loads, addresses, predicates. They fill the half of the slots that V100's
# 64 FP32 lanes leave free, and slow down SMs of 128 lanes. Estimate
CUDA_CORE_OVERHEAD = 0.4
CUDA_CORE_OUTPUT_SLOTS = (
    30.0  # issue slots of an output: NCHW address, bounds, store; fitted (VGG-13's first layer)
)
CUDA_CORE_STEP = 8  # elements of k of a step of the loop
CUDA_CORE_CHANNELS = 4  # up to these input channels, fp32 stays on the CUDA cores where there is TF32

WINOGRAD_EFFICIENCY = (
    0.62  # share of FP32 peak of F(2x2)'s products in one kernel; fitted (V100, 64 channels)
)
WINOGRAD_GEMM_EFFICIENCY = 0.74  # the same of the batched SGEMM between F(4x4)'s transforms; fitted
WINOGRAD_SLOTS = 40.0  # issue slots of an element of the transformed tensors; fitted (V100)

SPLIT_K = (2, 3, 4, 6, 8, 12, 16)
SPLIT_K_MIN_STEPS = 32  # least k steps of a slice
# Largest share of the SMs that a grid without split-K may fill for it to be considered. Seen on H100: no split at 0.36.
SPLIT_K_MAX_SHARE = 0.3
SPLIT_K_CTA_OUTPUTS = 512  # outputs of a CTA of the reduction, 4 a thread
SPLIT_K_OUTPUT_SLOTS = 20.0  # issue slots of an output: index, convert, store; estimate
SPLIT_K_PART_SLOTS = 6.0  # issue slots of one part of an output: load, add; estimate
SHORT_LATENCY_S = 0.5e-6  # load, barrier, store; beside one memory latency; fitted (layout kernels)


@dataclass(frozen=True, slots=True)
class Tile:
    """A convolution kernel of cuDNN's.

    l2_share: share of its operand traffic that takes L2 bandwidth; below 1 where CTAs that run in step read
    the same lines at once and the request is served once, or where a cluster shares a tile. Fitted per tile.
    sm_share: share of the SMs that the persistent grid uses: 120 of 132 CTAs (30 x 4) were seen with 128x128, 117
    (39 x 3) with 256x64, 132 with 128x256 (VGG-13, H100). 128x64 behaves as with 120: 192 tiles take half as
    long as 384.
    warps: rows and columns of warps that divide the tile of an mma.sync kernel. Each row of warps reads the
    tile's columns from shared memory, each column its rows.
    """

    name: str
    m: int
    n: int
    threads: int
    registers: int
    shared_memory_bytes: int
    l2_share: float = 1.0
    sm_share: float = 1.0
    warps: tuple[int, int] = (2, 2)


SM90 = Tile("sm90_128x128", 128, 128, 384, 168, 231424, 0.52, 120 / 132)
SM90_WIDE = Tile("sm90_128x256", 128, 256, 384, 168, 231424, 0.69)
SM90_TALL = Tile("sm90_256x64", 256, 64, 384, 168, 231424, 0.75, 117 / 132)
SM90_SMALL = Tile("sm90_128x64", 128, 64, 384, 168, 231424, 0.94, 120 / 132)
SM90_PLANAR = Tile("sm90_64x128", 64, 128, 384, 168, 231424, 0.94)
# A pair of CTAs reads the filter tile once between them.
SM100 = (
    Tile("sm100_128x256", 128, 256, 384, 168, 231424, (128 + 128) / (128 + 256)),
    Tile("sm100_128x128", 128, 128, 384, 168, 231424, (128 + 64) / (128 + 128)),
    Tile("sm100_128x64", 128, 64, 384, 168, 231424),
)
SM80 = (
    Tile("sm80_64x64", 64, 64, 128, 120, 32768),
    Tile("sm80_128x64", 128, 64, 128, 168, 49152),
    Tile("sm80_256x64", 256, 64, 128, 246, 81920, warps=(4, 1)),
    Tile("sm80_128x128", 128, 128, 128, 240, 65536),
    Tile("sm80_128x256", 128, 256, 256, 240, 98304, warps=(2, 4)),
    Tile("sm80_256x128", 256, 128, 256, 240, 98304, warps=(4, 2)),
)
SM80_ON_HOPPER = (SM80[2],)  # the only one seen there for more than 32 output channels
SM80_NARROW = Tile("sm80_128x32", 128, 32, 128, 120, 40960, warps=(4, 1))
SGEMM = (
    Tile("scudnn_128x32", 128, 32, 128, 128, 16384),
    Tile("scudnn_128x64", 128, 64, 128, 128, 16384),
    Tile("scudnn_128x128", 128, 128, 256, 128, 32768),
)

# Widest 2-D output seen with the 64x128 tile (192, in bf16); in TF32 256 and more take the tiles of 3-D ones.
PLANAR_CHANNELS = 192
SM80_PLANAR_CHANNELS = 128  # up to these output channels, 2-D in fp16 and bf16 stays with sm80 on Hopper
SMALL_TILE_WAVES = (
    1.5  # below this many waves of 128x128 tiles, cuDNN takes 128x64 ones (seen: 1.45 and 1.94)
)
WIDE_TILE_WAVES = 0.18  # least waves of 128x256 tiles that were seen with them
WIDE_TILE_DEPTH = 1024  # least k of the same (seen: 1,152 with, 64 without)


@dataclass(frozen=True, slots=True)
class Problem:
    """`groups` times C[m, n] = sum over `taps` of A[m, channels] B[channels, n].

    useful_flops: without padding. planar: over two dimensions. outputs_3x3: (samples, height, width) of the result
    where it is a 3x3 convolution with stride 1, which Winograd can do, else None.
    """

    m: int
    n: int
    channels: int
    taps: int
    groups: int
    dtype: str
    reads: tuple[Access, ...]
    write: Access
    useful_flops: float
    planar: bool = True
    outputs_3x3: tuple[int, int, int] | None = None

    @property
    def item_bytes(self) -> int:
        return ITEM_BYTES[self.dtype]


def on_cuda_cores(dtype: str, channels: int, nchw: bool, hardware: Hardware) -> bool:
    """Whether the products run on the CUDA cores. channels: of the input, in a group."""
    if dtype != "fp32":
        return False
    return not hardware.tensor_tf32_flops_per_cycle_sm or (nchw and channels <= CUDA_CORE_CHANNELS)


def writes_nchw(dtype: str, hardware: Hardware) -> bool:
    """Volta's and Turing's half-precision kernels write NCHW themselves (`volta_fp16_s884cudnn_.._nhwc2nchw`)."""
    return dtype in HALF_TYPES and hardware.architecture in ("volta", "turing")


def tensor_core_kernels(
    problem: Problem,
    hardware: Hardware,
    workspace: int,
    *,
    padded_channels: bool = False,
    plain: bool = False,
) -> list[Kernel]:
    """The kernel (with its Memset or its split-K reduction) that cuDNN's heuristic would take.

    padded_channels: the input channels were padded to 8. plain: a 1x1 convolution as a GEMM of the NCHW tensors.
    """
    if not has_wgmma(hardware) or plain:
        return _multistage(problem, hardware, workspace, SM80)
    if hardware.architecture == "blackwell":
        if padded_channels or problem.n <= SM80_NARROW.n:
            return _multistage(problem, hardware, workspace, SM80)
        return _fastest(
            [_persistent(problem, hardware, workspace, tile, TCGEN05) for tile in SM100], hardware
        )
    planar = problem.planar and problem.dtype in HALF_TYPES and problem.n <= PLANAR_CHANNELS
    if padded_channels or problem.n <= (SM80_PLANAR_CHANNELS if planar else SM80_NARROW.n):
        return _multistage(problem, hardware, workspace, SM80_ON_HOPPER)
    tile = SM90_PLANAR if planar else _wgmma_tile(problem, hardware)
    return _persistent(problem, hardware, workspace, tile, WGMMA)


def _fastest(candidates: list[list[Kernel]], hardware: Hardware) -> list[Kernel]:
    if len(candidates) == 1:
        return candidates[0]
    return min(candidates, key=lambda kernels: sum(lone_time_s(kernel, hardware) for kernel in kernels))


def _tiles(problem: Problem, tile: Tile) -> int:
    return problem.groups * -(-problem.m // tile.m) * -(-problem.n // tile.n)


def _steps(problem: Problem, step_bytes: int) -> int:
    """Steps of the k loop: channels are padded to a step within each tap."""
    return problem.taps * -(-problem.channels * problem.item_bytes // step_bytes)


def _l2_row_bytes(problem: Problem, step_bytes: int) -> float:
    """Bytes of a step's row that are fetched: zeros beyond the channels are not."""
    channel_bytes = problem.channels * problem.item_bytes
    steps = -(-channel_bytes // step_bytes)
    return -(-channel_bytes // 32) * 32 / steps


def _wgmma_tile(problem: Problem, hardware: Hardware) -> Tile:
    """The tile of 3-D, fp32 and wide 2-D convolutions on Hopper: by the output channels, else by the waves."""
    if problem.n <= SM90_TALL.n:
        return SM90_TALL
    wide_waves = _tiles(problem, SM90_WIDE) / hardware.sm_count
    depth = problem.channels * problem.taps
    if problem.n % SM90_WIDE.n == 0 and depth >= WIDE_TILE_DEPTH and wide_waves >= WIDE_TILE_WAVES:
        return SM90_WIDE
    if depth < WIDE_TILE_DEPTH or _tiles(problem, SM90) < SMALL_TILE_WAVES * hardware.sm_count:
        return SM90_SMALL
    return SM90


def _persistent(
    problem: Problem, hardware: Hardware, workspace: int, tile: Tile, style: Persistent
) -> list[Kernel]:
    """One CTA per SM that works through its share of the tiles."""
    item = problem.item_bytes
    step_bytes = WGMMA_STEP_BYTES
    if tile is SM90 and 0 < problem.channels * item % step_bytes <= step_bytes // 2:
        step_bytes //= 2  # 128x128 exists in half the depth: 96 channels are three steps of 32
    steps = _steps(problem, step_bytes)
    row_bytes = _l2_row_bytes(problem, step_bytes)
    depth = step_bytes // item
    tiles = _tiles(problem, tile)
    grid = min(tiles, max(1, round(hardware.sm_count * tile.sm_share)))
    rounds = -(-tiles // grid)
    operand_bytes = tiles * steps * (tile.m + tile.n) * row_bytes * tile.l2_share
    kernel = Kernel(
        name=f"{tile.name}x{depth}_implicit_gemm",
        family="convolution",
        grid=grid,
        threads=tile.threads,
        registers=tile.registers,
        shared_memory_bytes=tile.shared_memory_bytes,
        tensor_flops=2.0 * rounds * tile.m * tile.n * depth * steps,
        tensor_dtype=problem.dtype,
        tensor_efficiency=style.efficiency,
        l2_bytes=(operand_bytes + problem.write.nbytes) / grid,
        latency_s=style.latency_s + rounds * style.tile_latency_s,
        reads=problem.reads,
        writes=(problem.write,),
        flops=problem.useful_flops,
    )
    # The tile counter that the CTAs draw from.
    counter = [memset(workspace, 4.0, hardware)] if tiles > grid else []
    return [*counter, kernel]


def _multistage(
    problem: Problem, hardware: Hardware, workspace: int, catalogue: tuple[Tile, ...]
) -> list[Kernel]:
    """The mma.sync kernel of the least predicted time: one tile a CTA, the k loop perhaps split over several.

    A grid of few tiles is split as far as the SMs and the k loop allow.
    """
    steps = _steps(problem, MMA_STEP_BYTES)
    candidates: list[list[Kernel]] = []
    for tile in (SM80_NARROW,) if problem.n <= SM80_NARROW.n else catalogue:
        if candidates and (tile.m >= 2 * problem.m or tile.n >= 2 * problem.n):
            continue
        if tile.shared_memory_bytes + 1024 > hardware.shared_memory_per_sm_bytes:
            continue
        candidates.append(_mma_kernels(problem, hardware, workspace, tile, 1))
        tiles = _tiles(problem, tile)
        if tiles > SPLIT_K_MAX_SHARE * hardware.sm_count:
            continue
        slots = hardware.sm_count * min(2, ctas_per_sm(candidates[-1][0], hardware))
        most = min(slots // tiles, steps // SPLIT_K_MIN_STEPS)
        split = max((each for each in SPLIT_K if each <= most), default=1)
        if split > 1:
            candidates.append(_mma_kernels(problem, hardware, workspace, tile, split))
    return _fastest(candidates, hardware)


def _mma_kernels(
    problem: Problem, hardware: Hardware, workspace: int, tile: Tile, split: int
) -> list[Kernel]:
    """An mma.sync kernel of `tile`, and the one that adds up the parts of split-K."""
    item = problem.item_bytes
    step_bytes = MMA_STEP_BYTES
    steps = _steps(problem, step_bytes)
    depth = step_bytes // item
    grid = _tiles(problem, tile) * split
    partial = Access(workspace, 4.0 / item * problem.write.nbytes * split)
    write = problem.write if split == 1 else partial
    shared_rows = tile.m * (tile.warps[1] + 1) + tile.n * (tile.warps[0] + 1)  # warps read them, one write
    style = MMA_REGISTERS if hardware.architecture in ("volta", "turing") else MMA
    peak = hardware.tensor_flops_per_cycle_sm(problem.dtype)
    limit = style.flops_per_cycle * peak / hardware.tensor_flops_per_cycle_sm("fp16")
    kernel = Kernel(
        name=f"{tile.name}x{depth}_implicit_gemm",
        family="convolution",
        grid=grid,
        threads=tile.threads,
        registers=tile.registers,
        shared_memory_bytes=tile.shared_memory_bytes,
        tensor_flops=2.0 * tile.m * tile.n * depth * -(-steps // split),
        tensor_dtype=problem.dtype,
        tensor_efficiency=style.efficiency * min(peak, limit) / peak,
        shared_bytes=-(-steps // split) * shared_rows * step_bytes,
        l2_bytes=steps / split * (tile.m + tile.n) * _l2_row_bytes(problem, step_bytes) * tile.l2_share
        + write.nbytes / grid,
        latency_s=style.latency_s,
        reads=problem.reads,
        writes=(write,),
        flops=problem.useful_flops,
    )
    return [kernel] if split == 1 else [kernel, _reduction(problem, hardware, partial, split)]


def _reduction(problem: Problem, hardware: Hardware, partial: Access, split: int) -> Kernel:
    """splitKreduce_kernel: the sum of the parts."""
    grid = max(1, math.ceil(problem.write.nbytes / problem.item_bytes / SPLIT_K_CTA_OUTPUTS))
    slots = SPLIT_K_CTA_OUTPUTS * (SPLIT_K_OUTPUT_SLOTS + SPLIT_K_PART_SLOTS * split)
    return Kernel(
        name="splitKreduce_kernel",
        family="convolution",
        grid=grid,
        threads=128,
        registers=32,
        issue_slots=slots,
        l2_bytes=(partial.nbytes + problem.write.nbytes) / grid,
        latency_s=hardware.hbm_latency_s + SHORT_LATENCY_S,
        reads=(partial,),
        writes=(problem.write,),
    )


def cuda_core_kernels(problem: Problem, hardware: Hardware, workspace: int) -> list[Kernel]:
    """The kernels of the least predicted time among implicit SGEMM and, for 3x3 with stride 1, Winograd."""
    candidates = [[_sgemm(problem, hardware, tile)] for tile in SGEMM]
    if problem.outputs_3x3 and not hardware.tensor_tf32_flops_per_cycle_sm:
        candidates.append(_winograd_fused(problem, hardware, workspace))
        candidates.append(_winograd_nonfused(problem, hardware, workspace))
    return _fastest(candidates, hardware)


def _sgemm(problem: Problem, hardware: Hardware, tile: Tile) -> Kernel:
    k = -(-problem.channels * problem.taps // CUDA_CORE_STEP) * CUDA_CORE_STEP
    grid = _tiles(problem, tile)
    outputs = tile.m * tile.n
    products = fused_multiply_adds(outputs * k, CUDA_CORE_EFFICIENCY, CUDA_CORE_OVERHEAD)
    return Kernel(
        name=f"{tile.name}_implicit_gemm",
        family="convolution",
        grid=grid,
        threads=tile.threads,
        registers=tile.registers,
        shared_memory_bytes=tile.shared_memory_bytes,
        fp32_flops=products.flops,
        issue_slots=products.slots + outputs * CUDA_CORE_OUTPUT_SLOTS,
        l2_bytes=4.0 * (tile.m + tile.n) * k + problem.write.nbytes / grid,
        latency_s=MMA_REGISTERS.latency_s,
        reads=problem.reads,
        writes=(problem.write,),
        flops=problem.useful_flops,
    )


def _winograd_tiles(problem: Problem, size: int) -> int:
    """Tiles of size x size outputs."""
    samples, height, width = problem.outputs_3x3 or (0, 0, 0)
    return samples * -(-height // size) * -(-width // size)


def _winograd_fused(problem: Problem, hardware: Hardware, workspace: int) -> list[Kernel]:
    """F(2x2, 3x3): the filters are transformed first, everything else in one kernel; 32 tiles x 32 channels a CTA."""
    data, weights = problem.reads
    filters = Access(workspace, 16 / 9 * weights.nbytes)
    grid = -(-_winograd_tiles(problem, 2) // 32) * -(-problem.n // 32)
    products = fused_multiply_adds(16.0 * 32 * 32 * problem.channels, WINOGRAD_EFFICIENCY, CUDA_CORE_OVERHEAD)
    product = Kernel(
        name="winograd_128x128",
        family="convolution",
        grid=grid,
        threads=256,
        registers=126,
        shared_memory_bytes=49152,
        fp32_flops=products.flops,
        issue_slots=products.slots,
        l2_bytes=4.0 * problem.channels * 16 * (32 + 32) + problem.write.nbytes / grid,
        latency_s=MMA_REGISTERS.latency_s,
        reads=(data, filters),
        writes=(problem.write,),
        flops=problem.useful_flops,
    )
    return [_transform("generateWinogradTiles", weights, filters, hardware), product]


def _winograd_nonfused(problem: Problem, hardware: Hardware, workspace: int) -> list[Kernel]:
    """F(4x4, 3x3): data and filters to 36 matrices each, their products, and back."""
    data, weights = problem.reads
    tiles = _winograd_tiles(problem, 4)
    filters = Access(workspace, 4.0 * weights.nbytes)
    inputs = Access(workspace - 1, 4.0 * 36 * tiles * problem.channels)
    products = Access(workspace - 2, 4.0 * 36 * tiles * problem.n)
    gemms = replace(
        problem, m=tiles, taps=1, groups=36, reads=(inputs, filters), write=products, outputs_3x3=None
    )
    square = Tile("sgemm_64x64", 64, 64, 64, 126, 8448)
    product = min(
        (_sgemm_of(gemms, hardware, tile) for tile in (square, *SGEMM)),
        key=lambda k: lone_time_s(k, hardware),
    )
    return [
        _transform("winogradForwardFilter4x4", weights, filters, hardware),
        _transform("winogradForwardData4x4", data, inputs, hardware),
        product,
        _transform("winogradForwardOutput4x4", products, problem.write, hardware),
    ]


def _sgemm_of(gemms: Problem, hardware: Hardware, tile: Tile) -> Kernel:
    """The batched SGEMM of Winograd: dense operands, no gather."""
    products = fused_multiply_adds(
        tile.m * tile.n * gemms.channels, WINOGRAD_GEMM_EFFICIENCY, CUDA_CORE_OVERHEAD
    )
    dense = _sgemm(gemms, hardware, tile)
    return replace(dense, name=f"{tile.name}_nn", fp32_flops=products.flops, issue_slots=products.slots)


def _transform(name: str, source: Access, target: Access, hardware: Hardware) -> Kernel:
    """A kernel that transforms tiles; a CTA of 256 threads moves 4 KB of the larger side."""
    elements = max(source.nbytes, target.nbytes) / 4
    grid = max(1, math.ceil(elements / 1024))
    return Kernel(
        name=name,
        family="convolution",
        grid=grid,
        threads=256,
        registers=64,
        issue_slots=elements / grid * WINOGRAD_SLOTS,
        l2_bytes=(source.nbytes + target.nbytes) / grid,
        latency_s=hardware.hbm_latency_s + SHORT_LATENCY_S,
        reads=(source,),
        writes=(target,),
    )
