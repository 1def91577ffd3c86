"""Implicit GEMM on tensor cores: the kernels that do the products of a convolution, a tile of theirs given.

M = output positions of all samples, N = output channels, K = taps x input channels. A CTA makes one tile of the
output; for each tap it gathers the tile's pixels anew from L2, so activations cross HBM once and L2 as often as
there are taps (and column tiles). On tensor cores, channels are padded to the k step per tap: 3 input channels,
padded to 8, still occupy a step of 32.

Generations:

- tcgen05 (data-centre Blackwell): pairs of CTAs share the filter tile (`cutlass3x_sm100_tensorop_s256x256x16implicit_
  gemm_fprop`); accumulators in tensor memory are double-buffered, so a tile's epilogue hides behind the next one's
  products. Not measured.
- wgmma (Hopper): one persistent CTA of 384 threads per SM, TMA.
- mma.sync: one tile a CTA, the k loop perhaps split over several. Where it was seen (Hopper), gathering the tile's rows takes
  as long as anything: of each its bytes and a look-up through the SM's port to L2. Volta and Turing have no cp.async: their loads pass
  through registers between the products.

Which tile it is, `implicit_gemm_choice` says; products on the CUDA cores stand in `cuda_core_convolution`.

Sources: kernel names, grids, registers and shared memory in public traces: Wan2.1 and vision transformers (AMD-AGI/
TraceLens, H100, bf16), VGG-13 (sarchlab/triosim, H100, TF32), ResNet-50 (pytorch/kineto, V100, fp32). What is fitted
stands in hw_configs/families/convolution.yaml: kernels of the same traces; A100 and V100: xwang233's conv3d timings
(cuDNN 8.0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from simtti.dtypes import HALF_TYPES, ITEM_BYTES
from simtti.hw_configs.convolution_parameters import ConvMma, ConvPersistent, ConvTile
from simtti.hw_configs.hardware import Hardware
from simtti.simulator.arithmetic import NUMBERS, Arithmetic, Number
from simtti.simulator.closed_form import lone_time_s
from simtti.simulator.kernel import Access, Kernel
from simtti.simulator.kernels.data_movement import memset
from simtti.simulator.kernels.machine import FP32_BYTES, SECTOR_BYTES

# Bytes of a row of the operand tiles in one step of the k loop.
MMA_STEP_BYTES = 64  # exact: kernel names (`.._256x64_32x4_nhwc` in bf16, `.._128x128x16_` in TF32)
PERSISTENT_STEP_BYTES = 128  # exact: kernel names (`sm90_.._tilesize128x256x32_` in TF32)
EPILOGUE_OUTPUTS = 256 * 128  # exact: by definition, the outputs that `tile_latency_s` is for
START_REGISTERS = 16  # exact: of init_device_workspace_kernel, our own H200
COUNTER_BYTES = 4.0  # exact: the tile counter of a persistent grid, a 32-bit number
# exact: grids on our own H200 and H100, see `Tile.sm_share`
PAIRED_COLUMNS, PAIRED_ROWS, CLUSTER_OF_FIVE, NARROW_COLUMNS = (2, 4), 128, 5, 64  # exact: see above


@dataclass(frozen=True, slots=True)
class Problem:
    """`groups` times C[m, n] = sum over `taps` of A[m, channels] B[channels, n].

    reads: the input and the filters; write: the result. useful_flops: without padding. filters: in 16 bits 'planar',
    over two dimensions, or, over three, 'temporal' (k, 1, 1), 'frames' (1, k, k) or 'spatial'; 'other', TF32 of whatever shape. frames: of the result.
    outputs_3x3: (samples, height, width) of the result where it is a 3x3 convolution with stride 1, which Winograd can
    do, else None. padded: the input channels were padded. plain: a 1x1 convolution as a GEMM of the NCHW tensors as they
    lie. workspace: slot of the first workspace that the kernels may use; others are the numbers below it.
    """

    m: int
    n: int
    channels: int
    taps: int
    groups: int
    dtype: str
    reads: tuple[Access, Access]
    write: Access
    useful_flops: float
    filters: str = "planar"
    frames: int = 1
    outputs_3x3: tuple[int, int, int] | None = None
    padded: bool = False
    plain: bool = False
    workspace: int = -1

    @property
    def item_bytes(self) -> int:
        return ITEM_BYTES[self.dtype]

    @property
    def depth(self) -> int:
        """Elements of k, without padding."""
        return self.channels * self.taps

    def tiles(self, tile: Tile) -> int:
        """Tiles of the result, with the columns of zeros that make pairs complete."""
        columns = -(-self.n // tile.n)
        if tile.column_pairs and self.filters == "spatial" and columns > 1:
            columns += columns % 2
        return self.groups * -(-self.m // tile.m) * columns

    def steps(self, step_bytes: int) -> int:
        """Steps of the k loop: channels are padded to a step within each tap."""
        return self.taps * -(-self.channels * self.item_bytes // step_bytes)

    def l2_row_bytes(self, step_bytes: int) -> float:
        """Bytes of a step's row that are fetched: zeros beyond the channels are not."""
        channel_bytes = self.channels * self.item_bytes
        steps = -(-channel_bytes // step_bytes)
        return -(-channel_bytes // SECTOR_BYTES) * SECTOR_BYTES / steps


@dataclass(frozen=True, slots=True)
class Tile:
    """A convolution kernel of cuDNN's: rows and columns of its output tile, and what a CTA takes of an SM.

    persistent: its CTAs work through many tiles each. cooperative: both warpgroups of products work on one tile; else they take
    tiles in turn, one's epilogue beside the other's products. segmented: steps of the k loop are dealt out evenly instead of
    tiles, and the parts of a shared tile added up. half_step: it exists with half of PERSISTENT_STEP_BYTES too. column_pairs:
    with filters (k, k, k), clusters of two CTAs take the tile's columns in pairs. step_bytes: of a row of the operands in a step
    of an mma.sync kernel. warps: rows and columns of warps that divide the tile of such a kernel. Each row of warps reads the
    tile's columns from shared memory, each column its rows.
    """

    name: str
    m: int
    n: int
    threads: int
    registers: int
    shared_memory_bytes: int
    persistent: bool = False
    cooperative: bool = False
    segmented: bool = False
    half_step: bool = False
    column_pairs: bool = False
    step_bytes: int = MMA_STEP_BYTES
    warps: tuple[int, int] = (2, 2)

    def fitted(self, hardware: Hardware) -> ConvTile:
        """What was fitted of a persistent kernel's tile: its own group of parameters, `conv_NAME`."""
        return getattr(hardware, f"conv_{self.name}")

    def sm_share(self, problem: Problem, hardware: Hardware) -> float:
        """Of the SMs those that run a persistent kernel's CTAs. Clusters of four and eight leave SMs of some GPCs idle, 12 of 132 on our own
        H100 and H200, those of five 22; pairs leave none. By their grids, a plane's products of two or four columns of tiles run in
        pairs or alone, filters (1, k, k) too; five narrow columns are one cluster."""
        share = self.fitted(hardware).sm_share
        if matrix_unit(hardware) != "wgmma":
            return share
        columns = -(-problem.n // self.n)
        is_paired = problem.filters == "planar" and columns in PAIRED_COLUMNS
        if self.m >= PAIRED_ROWS and (is_paired or problem.filters == "frames"):
            return 1.0
        if self.n == NARROW_COLUMNS and columns == CLUSTER_OF_FIVE:
            share = min(share, hardware.conv_warpgroups.five_share)
        return share

    def preference(self, problem: Problem, hardware: Hardware) -> float:
        """How much faster than predicted cuDNN's heuristic holds the kernel, a natural logarithm."""
        rules = hardware.conv_choice
        is_wide = problem.filters == "planar" and problem.n > rules.planar_channels
        kind = "other" if is_wide else problem.filters
        if not self.persistent:
            if self.name == "sm80_256x32" and kind == "spatial":
                return rules.sm80_256x32_spatial_preference
            small, slim = rules.sm80_small_preference, rules.sm80_slim_preference
            beside = {
                "sm80_256x64": rules.sm80_tall_preference,
                "sm80_128x32": 0.0,
                "sm80_64x32": small + slim,
            }
            return float(getattr(rules, f"sm80_{kind}_preference")) + beside.get(self.name, small)
        name = self.name.replace("_", "_segmented_") if self.segmented else self.name
        return float(getattr(getattr(hardware, f"conv_{name}"), f"{kind}_preference"))


# exact: threads and registers of the kernel that adds up the parts of a split k loop in the V100 trace
SPLIT_K_REDUCE = Tile("splitKreduce_kernel", 0, 0, 128, 32, 0)  # exact: see above


def matrix_unit(hardware: Hardware) -> str:
    """The newest tensor-core instructions of the device: 'mma_registers' (mma.sync without cp.async), 'mma', 'wgmma' or
    'tcgen05'."""
    return hardware.matrix_unit


def mma_style(hardware: Hardware) -> ConvMma:
    """The parameters of the device's mma.sync kernels."""
    return hardware.conv_mma_registers if matrix_unit(hardware) == "mma_registers" else hardware.conv_mma


def persistent_style(hardware: Hardware) -> ConvPersistent:
    """The parameters of the device's persistent kernels."""
    return hardware.conv_tcgen05 if matrix_unit(hardware) == "tcgen05" else hardware.conv_wgmma


def writes_nchw(dtype: str, hardware: Hardware) -> bool:
    """Volta's and Turing's half-precision kernels write NCHW themselves (`volta_fp16_s884cudnn_.._nhwc2nchw`)."""
    return dtype in HALF_TYPES and matrix_unit(hardware) == "mma_registers"


def fastest(candidates: list[list[Kernel]], hardware: Hardware) -> list[Kernel]:
    """The candidate, each one or several kernels, of the least predicted time; the first of those that tie."""
    if len(candidates) == 1:
        return candidates[0]
    return min(candidates, key=lambda kernels: sum(lone_time_s(kernel, hardware) for kernel in kernels))


class Cut(NamedTuple):
    """A problem as a tile cuts it, the same on every device: numbers, or arrays of one entry a way.

    m, n: of the tile. row_step_bytes: of a row of the operands in a step of the k loop; depth: elements of k in it. steps, tiles: how
    many. row_bytes: of a step's row that are fetched. item_bytes: of an element. result_bytes: of the result. shared_rows: rows of
    shared memory that the warps of an mma.sync kernel read and write a step.
    """

    m: Number
    n: Number
    row_step_bytes: Number
    depth: Number
    steps: Number
    tiles: Number
    row_bytes: Number
    item_bytes: Number
    result_bytes: Number
    cooperative: Number
    segmented: Number
    shared_rows: Number


def cut(problem: Problem, tile: Tile) -> Cut:
    """The problem in the tile's terms."""
    step_bytes = _persistent_step_bytes(problem, tile) if tile.persistent else tile.step_bytes
    shared_rows = tile.m * (tile.warps[1] + 1) + tile.n * (tile.warps[0] + 1)  # warps read them, one write
    return Cut(
        tile.m, tile.n, step_bytes, step_bytes // problem.item_bytes, problem.steps(step_bytes), problem.tiles(tile),
        problem.l2_row_bytes(step_bytes), problem.item_bytes, problem.write.nbytes, tile.cooperative, tile.segmented, shared_rows,
    )  # fmt: skip


def _persistent_step_bytes(problem: Problem, tile: Tile) -> int:
    rest = problem.channels * problem.item_bytes % PERSISTENT_STEP_BYTES
    is_small = problem.filters == "spatial" and problem.channels * problem.item_bytes < PERSISTENT_STEP_BYTES
    # 96 channels are three steps of 32; of 16 no such kernel was taken in three dimensions
    halved = tile.half_step and 0 < rest <= PERSISTENT_STEP_BYTES // 2 and not is_small
    return PERSISTENT_STEP_BYTES // 2 if halved else PERSISTENT_STEP_BYTES


class Work(NamedTuple):
    """A CTA's demands, as in `Kernel`, and the grid: numbers, or arrays of one entry a way."""

    grid: Number
    tensor_flops: Number
    tensor_efficiency: Number
    shared_bytes: Number
    l2_bytes: Number
    latency_s: Number


class Shares(NamedTuple):
    """What a persistent tile has of its own for a problem: of its operands' bytes those asked of L2, of the SMs those that run its CTAs, of
    the tensor cores' rate what it attains."""

    l2_share: Number
    sm_share: Number
    tensor_share: Number


def shares(problem: Problem, tile: Tile, hardware: Hardware) -> Shares:
    fitted = tile.fitted(hardware)
    return Shares(fitted.l2_share, tile.sm_share(problem, hardware), fitted.tensor_share)


def persistent_work(of: Cut, own: Shares, hardware: Hardware, how: Arithmetic = NUMBERS) -> Work:
    """One CTA per SM that works through its share of the tiles, or of the steps where it is segmented."""
    style, shared = persistent_style(hardware), hardware.conv_warpgroups
    slots = how.largest(1, how.rounded(hardware.sm_count * own.sm_share))
    grid = how.least(how.either(of.segmented, of.tiles * of.steps, of.tiles), slots)
    # The busiest CTA decides when the kernel ends, the mean what its tensor cores spend.
    mean = of.tiles / grid
    rounds = how.either(of.segmented, mean, -(-of.tiles // grid))
    operand_bytes = of.tiles * of.steps * (of.m + of.n) * of.row_bytes * own.l2_share
    # In which its tensor cores wait: set-up, epilogues, the sums of shared tiles.
    each_s = how.either(of.cooperative, shared.cooperative_tile_latency_s, style.tile_latency_s)
    parts_s = how.either(of.cooperative, shared.cooperative_segment_latency_s, shared.segment_latency_s)
    epilogues_s = rounds * each_s * of.m * of.n / EPILOGUE_OUTPUTS
    return Work(
        grid,
        2.0 * mean * of.m * of.n * of.depth * of.steps,
        style.efficiency * own.tensor_share * mean / rounds,
        0.0,
        (operand_bytes + of.result_bytes) / grid,
        style.latency_s + epilogues_s + how.either(of.segmented, parts_s, 0.0),
    )


def persistent_kernels(problem: Problem, tile: Tile, hardware: Hardware) -> list[Kernel]:
    """The kernel of a persistent tile, and what goes before it."""
    of = cut(problem, tile)
    work = persistent_work(of, shares(problem, tile, hardware), hardware)
    name = f"{tile.name}x{of.depth}_{'segment_k_' if tile.segmented else ''}implicit_gemm"
    kernel = _kernel(name, problem, tile, work, problem.write)
    if tile.segmented:
        return [segment_start(problem.workspace, hardware), kernel]
    # The tile counter that the CTAs draw from.
    counter = [tile_counter(problem.workspace, hardware)] if of.tiles > work.grid else []
    return [*counter, kernel]


def _kernel(name: str, problem: Problem, tile: Tile, work: Work, write: Access) -> Kernel:
    return Kernel(
        name=name,
        family="convolution",
        threads=tile.threads,
        registers=tile.registers,
        shared_memory_bytes=tile.shared_memory_bytes,
        tensor_dtype=problem.dtype,
        reads=problem.reads,
        writes=(write,),
        flops=problem.useful_flops,
        **work._asdict(),
    )


def tile_counter(workspace: int, hardware: Hardware) -> Kernel:
    """The Memset of the counter that a persistent grid's CTAs draw tiles from."""
    return memset(workspace, COUNTER_BYTES, hardware)


def segment_start(workspace: int, hardware: Hardware) -> Kernel:
    """init_device_workspace_kernel: one thread that clears the locks of shared tiles."""
    return Kernel(
        name="init_device_workspace_kernel",
        family="convolution",
        grid=1,
        threads=1,
        registers=START_REGISTERS,
        latency_s=hardware.conv_warpgroups.segment_start_s,
        writes=(Access(workspace, COUNTER_BYTES),),
    )


def mma_work(of: Cut, split: Number, peak: Number, hardware: Hardware, how: Arithmetic = NUMBERS) -> Work:
    """A CTA for each tile of each of `split` parts of the k loop. peak: attainable FLOPs of an SM's tensor cores in a cycle."""
    style = mma_style(hardware)
    limit = style.flops_per_cycle * peak / hardware.tensor_flops_per_cycle_sm("fp16")
    steps, grid = -(-of.steps // split), of.tiles * split
    operand_bytes = of.steps / split * (of.m + of.n) * of.row_bytes * style.l2_share
    # What gathering rows takes of the SM's port, as bytes of its shared memory, beside which it goes on.
    port = hardware.shared_memory_bytes_per_cycle_sm / hardware.l2_bytes_per_cycle_sm
    gathered_bytes = (of.m + of.n) * (of.row_bytes + style.row_bytes) * port if style.row_bytes else 0.0
    written_bytes = how.either(split > 1, partial_bytes(of, split), of.result_bytes)
    return Work(
        grid,
        2.0 * of.m * of.n * of.depth * steps,
        _attained(style.efficiency, how.least(peak, limit) / limit) * how.least(peak, limit) / peak,
        steps * how.largest(of.shared_rows * of.row_step_bytes, gathered_bytes),
        operand_bytes + written_bytes / grid,
        style.latency_s,
    )


def partial_bytes(of: Cut, split: Number) -> Number:
    """Of the parts of the result, in single precision."""
    return FP32_BYTES / of.item_bytes * of.result_bytes * split


def mma_kernels(problem: Problem, tile: Tile, split: int, hardware: Hardware) -> list[Kernel]:
    """An mma.sync kernel of `tile`, its k loop split over `split` CTAs, and the one that adds up the parts."""
    of = cut(problem, tile)
    work = mma_work(of, split, hardware.tensor_flops_per_cycle_sm(problem.dtype), hardware)
    name = f"{tile.name}x{of.depth}_implicit_gemm"
    if split == 1:
        return [_kernel(name, problem, tile, work, problem.write)]
    partial = Access(problem.workspace, partial_bytes(of, split))
    summing = Kernel(
        name=SPLIT_K_REDUCE.name,
        family="convolution",
        threads=SPLIT_K_REDUCE.threads,
        registers=SPLIT_K_REDUCE.registers,
        reads=(partial,),
        writes=(problem.write,),
        **reduction_work(of, split, hardware)._asdict(),
    )
    return [_kernel(name, problem, tile, work, partial), summing]


class Reduction(NamedTuple):
    """Of splitKreduce_kernel, which adds up the parts: its grid, and a CTA's demands as in `Kernel`."""

    grid: Number
    issue_slots: Number
    l2_bytes: Number
    latency_s: Number


def reduction_work(of: Cut, split: Number, hardware: Hardware, how: Arithmetic = NUMBERS) -> Reduction:
    """The sum of `split` parts."""
    style = hardware.conv_split_k
    grid = how.largest(1, how.ceil(of.result_bytes / of.item_bytes / style.cta_outputs))
    return Reduction(
        grid,
        style.cta_outputs * (style.output_slots + style.part_slots * split),
        (partial_bytes(of, split) + of.result_bytes) / grid,
        hardware.hbm_latency_s + style.latency_s,
    )


def _attained(efficiency: float, rate: Number) -> Number:
    """Share of its tensor cores' rate that a k loop attains where that is `rate` times the one that `efficiency` was found at:
    what comes between the products takes as many cycles whatever these take."""
    return 1 / (1 + (1 / efficiency - 1) * rate)
