"""Convolution as PyTorch runs it through cuDNN: implicit GEMM on tensor cores, with what surrounds it.

Implicit GEMM: M = N x output positions, N = output channels, K = taps x input channels. A CTA makes one
tile of the output; for each tap it gathers the tile's pixels anew from L2, so activations cross HBM once
and L2 as often as there are taps (and column tiles). Channels are padded to the k step per tap: 3 input
channels, padded to 8, still occupy a step of 32.

Around it, as the kernels of the traces show (operators_h100.csv, TraceLens, H100 SXM bf16, 2026-11-23):

- NCHW tensors, what a pipeline has unless it asks for channels_last: `nchwToNhwcKernel` on the activations
  and, on every call, on the weights; `nhwcToNchwKernel` on the result. They move tiles of 32 x 32 elements,
  so 16-bit types use half a 128-byte line at a time, and spend about 190 instructions on a thread.
- Channels not a multiple of 8: a padded copy, cleared by a Memset first.
- 1x1, stride 1, NCHW: a plain GEMM, W[oc, c] x X[c, positions], without conversions.
- Bias: another elementwise kernel, in place, always.
- Persistent sm90 kernels with more tiles than SMs: a Memset of their tile counter.
- Depthwise: PyTorch's own kernel on the CUDA cores (native/cuda/DepthwiseConv2d.cu).

On Hopper cuDNN takes sm90 kernels (wgmma, TMA, one persistent CTA of 384 threads per SM) or sm80 ones
(cp.async, mma.sync). Which, is its heuristic's business, and not always the fastest; the rules here say
what the traces show:
- 1x1 in NCHW, 8 or fewer input channels, 32 or fewer output channels: sm80.
- 2-D in 16 bits up to 192 output channels: sm80 256x64 up to 128 of them, sm90 64x128 above. Both are held back by
  L2: 210-270 TFLOP/s whatever the size. Wider ones have not been measured alone; they are taken as 3-D ones, which is
  what Stable Diffusion's end-to-end times on H100 ask for.
- 3-D, and fp32 (TF32): 128x64 when 128x128 gives less than two waves, else by the output channels: 550
  TFLOP/s in bf16.

Elsewhere sm80 tiles are chosen by predicted time, and split-K where a grid would leave most SMs idle.

Tile resources: grid, block, registers and shared memory of the kernels in the public traces
(h100_timesformer, h100_owlv2-large, h100_vgg13_training). Constants marked fitted: the H100 rows named
above.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from simtti.hw_configs.hardware import Hardware
from simtti.simulator.kernel import Access, Kernel, lone_time_s
from simtti.simulator.kernels.elementwise import HALF_TYPES, ITEM_BYTES, Operand, dense, issue_flops, walk
from simtti.simulator.kernels.gemm import has_wgmma
from simtti.simulator.kernels.memory import memset

CHANNEL_ALIGNMENT = 8  # channels of a 16-byte vector in fp16; cuDNN pads to it
K_STEP_BYTES = {"sm80": 64, "sm90": 128}  # bytes of a row of the operand tiles in one step of the k loop

# FP16 FLOPs of mma.sync in a cycle and SM, at most: A100's peak; assumed to be Hopper's limit too
MMA_SYNC_FLOPS = 2048.0
# Share of it that cuDNN's sm80 kernels attain; fitted (H100's 16x16 patch embeddings)
MMA_SYNC_EFFICIENCY = 0.77
# Share of FP32 peak of implicit GEMM without tensor cores (fp32 before Ampere); assumed
CUDA_CORE_EFFICIENCY = 0.8
# Tensor-core rate of sm90 convolutions beside GEMM's: VGG's 256 and 512 channels in TF32; fitted
SM90_EFFICIENCY = 0.9
# First tile of operands into shared memory, and the epilogue through it; as in CUTLASS GEMMs
SM80_LATENCY_S = 3.0e-6
# The same of cuDNN's sm90 kernels, once per kernel (13 us for 27 steps, 35 us for 162); fitted
SM90_LATENCY_S = 6.6e-6
# Epilogue of one tile of a persistent sm90 CTA, while its tensor cores wait; fitted
SM90_TILE_LATENCY_S = 0.9e-6

LAYOUT_TILE = 32  # rows and columns of a layout kernel's tile
LAYOUT_THREADS = 256
LAYOUT_SLOTS = {"nchwToNhwc": 188.0, "nhwcToNchw": 125.0}  # issue slots of a thread; fitted
LAYOUT_REGISTERS = {"nchwToNhwc": 32, "nhwcToNchw": 36}
LAYOUT_LATENCY_S = 0.5e-6  # load, barrier, store; beside one memory latency; fitted
# HBM and L2 bandwidth with 64-byte runs, a 32-element row of a 16-bit type; fitted
HALF_LINE_EFFICIENCY = 0.66
WEIGHT_PAD_LATENCY_S = 8.5e-6  # tensorTransformGeneric, which pads output channels of weights; fitted

SMALL_TILE_WAVES = 2  # below this many waves of 128x128 tiles, cuDNN takes 128x64 ones; from the traces
SPLIT_K = (2, 4, 8)
# Largest share of the SMs that a grid without split-K may fill for it to be considered
SPLIT_K_MAX_SHARE = 0.25
SPLIT_K_MIN_STEPS = 32  # least k steps of a slice

SPLIT_K_CTA_OUTPUTS = 512  # outputs of a CTA of the reduction, 4 a thread
SPLIT_K_OUTPUT_SLOTS = 20.0  # issue slots of an output: index, convert, store; estimate
SPLIT_K_PART_SLOTS = 6.0  # issue slots of one part of an output: load, add; estimate

DEPTHWISE_THREADS = 256
DEPTHWISE_TAP_SLOTS = 10.0  # issue slots of a tap: bounds, address, two loads, FMA; estimate
DEPTHWISE_SLOTS = 60.0  # issue slots of an output beside its taps: index divisions, store; estimate


@dataclass(frozen=True, slots=True)
class Tile:
    """A tensor-core convolution kernel of cuDNN's.

    l2_share: share of its operand traffic that takes L2 bandwidth; below 1 where CTAs that run in step read
    the same lines at once and the request is served once. Fitted per tile.
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
    warps: tuple[int, int] = (2, 2)


# sm90, 3-D or fp32: by output channels, the widest that divides them, else 128x128.
SM90 = Tile("sm90_128x128", 128, 128, 384, 168, 231424, 0.66)
SM90_WIDE = Tile("sm90_128x256", 128, 256, 384, 168, 231424, 0.66)
SM90_TALL = Tile("sm90_256x64", 256, 64, 384, 168, 231424, 0.8)
SM90_SMALL = Tile("sm90_128x64", 128, 64, 384, 168, 231424)
SM90_PLANAR = Tile("sm90_64x128", 64, 128, 384, 168, 231424)  # 2-D in fp16 and bf16
SM80 = (
    Tile("sm80_64x64", 64, 64, 128, 120, 32768),
    Tile("sm80_128x64", 128, 64, 128, 168, 49152),
    Tile("sm80_256x64", 256, 64, 128, 246, 81920, warps=(4, 1)),
    Tile("sm80_128x128", 128, 128, 128, 240, 65536),
    Tile("sm80_128x256", 128, 256, 256, 240, 98304, warps=(2, 4)),
    Tile("sm80_256x128", 256, 128, 256, 240, 98304, warps=(4, 2)),
)
SM80_ON_HOPPER = (SM80[2],)  # the only one seen there for more than 32 output channels
# Widest 2-D output seen with the 64x128 tile. Whole Stable Diffusion runs on H100, whose UNet has 320 to 1280
# channels, come out 15 % too slow if wider ones are given it too, and 5 % too fast otherwise.
SM90_PLANAR_CHANNELS = 192
SM80_PLANAR_CHANNELS = 128  # up to these output channels, 2-D in fp16 and bf16 stays with sm80 on Hopper
SM80_NARROW = Tile("sm80_128x32", 128, 32, 128, 120, 40960, warps=(4, 1))


@dataclass(frozen=True, slots=True)
class Problem:
    """An implicit GEMM: `groups` times C[m, n] = sum over `taps` of A[m, channels] B[channels, n]."""

    m: int
    n: int
    channels: int
    taps: int
    groups: int
    dtype: str
    reads: tuple[Access, ...]
    write: Access

    @property
    def flops(self) -> float:
        return 2.0 * self.groups * self.m * self.n * self.channels * self.taps


def output_size(size: int, kernel: int, stride: int, padding: int, dilation: int, transposed: bool) -> int:
    """Length of one spatial dimension of the result (without output padding)."""
    reach = dilation * (kernel - 1)
    if transposed:
        return (size - 1) * stride - 2 * padding + reach + 1
    return (size + 2 * padding - reach - 1) // stride + 1


def convolution(
    n: int,
    c: int,
    spatial: Sequence[int],
    oc: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    dtype: str,
    hardware: Hardware,
    *,
    layout: str = "nchw",
    bias: bool = True,
    transposed: bool = False,
    out_spatial: Sequence[int] | None = None,
    source: int = 0,
    weight: int = 1,
    bias_tensor: int = 2,
    target: int = 3,
    workspace: int = -1,
) -> list[Kernel]:
    """The kernels of one `aten::convolution` over (h, w) or (d, h, w).

    layout: of the activations, 'nchw' (or NCDHW) or 'nhwc'. out_spatial: the result's size where it is
    known, as with output padding. Workspaces are `workspace` and the numbers below it.
    """
    item = ITEM_BYTES[dtype]
    out = (
        tuple(out_spatial)
        if out_spatial is not None
        else tuple(
            output_size(*each, transposed)
            for each in zip(spatial, kernel, stride, padding, dilation, strict=True)
        )
    )
    positions, in_positions, taps = math.prod(out), math.prod(spatial), math.prod(kernel)
    out_bytes = float(n * oc * positions * item)
    weight_bytes = float(oc * c // groups * taps * item)
    pointwise = taps == 1 and not any(padding) and all(step == 1 for step in stride)
    kernels: list[Kernel] = []
    if groups > 1 and groups in (c, oc) and c // groups == 1:
        kernels.append(
            _depthwise(n, c, in_positions, oc, positions, taps, dtype, hardware, source, weight, target)
        )
    else:
        # A transposed convolution gathers, for each output position, the taps that fall on an input position.
        work_taps = max(1, taps // math.prod(stride)) if transposed else taps
        convert = layout == "nchw" and not (pointwise and groups == 1)
        data = Access(source, float(n * c * in_positions * item))
        filters = Access(weight, weight_bytes)
        result = Access(target, out_bytes)
        channels, out_channels = c // groups, oc // groups
        if convert or (groups == 1 and c % CHANNEL_ALIGNMENT):
            padded = _aligned(c) if groups == 1 else c
            data = Access(workspace, data.nbytes / c * padded)
            filters = Access(workspace - 1, weight_bytes / c * padded)
            kernels += _to_nhwc(source, data, n, c, padded, in_positions, dtype, hardware)
            if oc % CHANNEL_ALIGNMENT and groups == 1:
                kernels += _pad_weights(weight, weight_bytes, filters, hardware)
            else:
                kernels += _to_nhwc(weight, filters, oc, c // groups, padded // groups, taps, dtype, hardware)
            channels = padded // groups
        if convert:
            out_channels = _aligned(oc) if groups == 1 else out_channels
            result = Access(workspace - 2, out_bytes / oc * out_channels * groups)
        problem = Problem(
            n * positions, out_channels, channels, work_taps, groups, dtype, (data, filters), result
        )
        useful = 2.0 * n * positions * oc * (c // groups) * work_taps
        kernels += implicit_gemm(
            problem,
            hardware,
            useful,
            workspace - 3,
            planar=len(out) == 2,
            padded_channels=channels != c // groups,
            plain=layout == "nchw" and not convert,
        )
        if convert:
            kernels.append(
                _layout_kernel(
                    "nhwcToNchw", result, Access(target, out_bytes), n, oc, positions, dtype, hardware
                )
            )
    if bias:
        kernels.append(_add_bias(n, oc, positions, dtype, layout, target, bias_tensor, hardware))
    return kernels


def _aligned(channels: int) -> int:
    return -(-channels // CHANNEL_ALIGNMENT) * CHANNEL_ALIGNMENT


def _to_nhwc(
    tensor: int,
    result: Access,
    n: int,
    c: int,
    padded: int,
    positions: int,
    dtype: str,
    hardware: Hardware,
) -> list[Kernel]:
    """Activations or weights to NHWC; a padded result is cleared first."""
    source = Access(tensor, float(n * c * positions * ITEM_BYTES[dtype]))
    kernels = [memset(result.tensor, result.nbytes, hardware)] if padded != c else []
    kernels.append(_layout_kernel("nchwToNhwc", source, result, n, c, positions, dtype, hardware))
    return kernels


def _layout_kernel(
    name: str,
    source: Access,
    target: Access,
    n: int,
    c: int,
    positions: int,
    dtype: str,
    hardware: Hardware,
) -> Kernel:
    """nchwToNhwcKernel or nhwcToNchwKernel: a CTA transposes 32 channels by 32 positions in shared memory."""
    item = ITEM_BYTES[dtype]
    grid = n * -(-c // LAYOUT_TILE) * -(-positions // LAYOUT_TILE)
    return Kernel(
        name=f"{name}Kernel",
        family="convolution_layout",
        grid=grid,
        threads=LAYOUT_THREADS,
        registers=LAYOUT_REGISTERS[name],
        shared_memory_bytes=LAYOUT_TILE * (LAYOUT_TILE + 1) * item,
        fp32_flops=issue_flops(LAYOUT_THREADS * LAYOUT_SLOTS[name], hardware),
        l2_bytes=(source.nbytes + target.nbytes) / grid,
        latency_s=hardware.hbm_latency_s + LAYOUT_LATENCY_S,
        memory_efficiency=HALF_LINE_EFFICIENCY if LAYOUT_TILE * item < 128 else 1.0,
        reads=(source,),
        writes=(target,),
    )


def _pad_weights(tensor: int, nbytes: float, target: Access, hardware: Hardware) -> list[Kernel]:
    """Weights whose output channels are padded: Memset and cuDNN's generic transformation."""
    grid = max(1, math.ceil(nbytes / 1024))
    transform = Kernel(
        name="tensorTransformGeneric",
        family="convolution_layout",
        grid=grid,
        threads=256,
        registers=40,
        fp32_flops=issue_flops(256 * LAYOUT_SLOTS["nchwToNhwc"], hardware),
        l2_bytes=2 * nbytes / grid,
        latency_s=WEIGHT_PAD_LATENCY_S,
        reads=(Access(tensor, nbytes),),
        writes=(target,),
    )
    return [memset(target.tensor, target.nbytes, hardware), transform]


def _add_bias(
    n: int,
    oc: int,
    positions: int,
    dtype: str,
    layout: str,
    target: int,
    bias_tensor: int,
    hardware: Hardware,
) -> Kernel:
    """The in-place addition of a bias that PyTorch runs after cuDNN."""
    shape = (n, oc, positions)
    result = dense(target, shape, dtype)
    if layout == "nhwc":
        result = Operand(target, (oc * positions, 1, oc), dtype)
    channel = Operand(bias_tensor, (0, 1, 0), dtype)
    return walk("add", shape, (result, channel), result, hardware, family="convolution_bias")


def implicit_gemm(
    problem: Problem,
    hardware: Hardware,
    useful_flops: float,
    workspace: int,
    *,
    planar: bool = True,
    padded_channels: bool = False,
    plain: bool = False,
) -> list[Kernel]:
    """The tensor-core kernel (with its Memset or its split-K reduction) that cuDNN's heuristic would take.

    planar: over two dimensions. padded_channels: the input channels were padded to 8. plain: a 1x1
    convolution as a GEMM of the NCHW tensors.
    """
    if not has_wgmma(hardware) or plain:
        return _multistage(problem, hardware, useful_flops, workspace, SM80)
    planar = planar and problem.dtype in HALF_TYPES and problem.n <= SM90_PLANAR_CHANNELS
    if padded_channels or problem.n <= (SM80_PLANAR_CHANNELS if planar else SM80_NARROW.n):
        return _multistage(problem, hardware, useful_flops, workspace, SM80_ON_HOPPER)
    return _persistent(problem, hardware, useful_flops, workspace, planar)


def _tiles(problem: Problem, tile: Tile) -> int:
    return problem.groups * -(-problem.m // tile.m) * -(-problem.n // tile.n)


def _steps(problem: Problem, step_bytes: int) -> tuple[int, int]:
    """Steps of the k loop and bytes of a step's row: channels are padded to a step within each tap."""
    channel_bytes = problem.channels * ITEM_BYTES[problem.dtype]
    if step_bytes == 128 and 0 < channel_bytes % 128 <= 64:
        step_bytes = 64  # tiles of half the depth exist: 96 channels are three steps of 32
    return problem.taps * -(-channel_bytes // step_bytes), step_bytes


def _l2_row_bytes(problem: Problem, step_bytes: int) -> float:
    """Bytes of a step's row that are fetched: zeros beyond the channels are not."""
    channel_bytes = problem.channels * ITEM_BYTES[problem.dtype]
    steps = -(-channel_bytes // step_bytes)
    return -(-channel_bytes // 32) * 32 / steps


def _persistent(
    problem: Problem, hardware: Hardware, useful_flops: float, workspace: int, planar: bool
) -> list[Kernel]:
    """An sm90 kernel: one CTA per SM that works through its share of the tiles."""
    item = ITEM_BYTES[problem.dtype]
    sms = hardware.sm_count
    steps, step_bytes = _steps(problem, K_STEP_BYTES["sm90"])
    row_bytes = _l2_row_bytes(problem, step_bytes)
    depth = step_bytes // item
    tile = SM90
    if planar:
        tile = SM90_PLANAR
    elif _tiles(problem, SM90) < SMALL_TILE_WAVES * sms:
        tile = SM90_SMALL
    elif problem.n <= SM90_TALL.n:
        tile = SM90_TALL
    elif problem.n % SM90_WIDE.n == 0:
        tile = SM90_WIDE
    tiles = _tiles(problem, tile)
    grid = min(tiles, sms)
    rounds = -(-tiles // grid)
    kernels = [memset(workspace, 4.0, hardware)] if tiles > sms else []
    kernels.append(
        Kernel(
            name=f"{tile.name}x{depth}_implicit_gemm",
            family="convolution",
            grid=grid,
            threads=tile.threads,
            registers=tile.registers,
            shared_memory_bytes=tile.shared_memory_bytes,
            tensor_flops=2.0 * rounds * tile.m * tile.n * depth * steps,
            tensor_dtype=problem.dtype,
            tensor_efficiency=SM90_EFFICIENCY,
            l2_bytes=(tiles * steps * (tile.m + tile.n) * row_bytes * tile.l2_share + problem.write.nbytes)
            / grid,
            latency_s=SM90_LATENCY_S + rounds * SM90_TILE_LATENCY_S,
            reads=problem.reads,
            writes=(problem.write,),
            flops=useful_flops,
        )
    )
    return kernels


def _multistage(
    problem: Problem, hardware: Hardware, useful_flops: float, workspace: int, catalogue: tuple[Tile, ...]
) -> list[Kernel]:
    """The sm80 kernel of the least predicted time: one tile a CTA, the k loop perhaps split over several.

    A grid of few tiles is split as far as the SMs and the k loop allow.
    """
    steps, _ = _steps(problem, K_STEP_BYTES["sm80"])
    candidates: list[list[Kernel]] = []
    for tile in (SM80_NARROW,) if problem.n <= SM80_NARROW.n else catalogue:
        if candidates and (tile.m >= 2 * problem.m or tile.n >= 2 * problem.n):
            continue
        if tile.shared_memory_bytes + 1024 > hardware.shared_memory_per_sm_bytes:
            continue
        candidates.append(_sm80_kernels(problem, hardware, useful_flops, workspace, tile, 1))
        tiles = _tiles(problem, tile)
        most = min(hardware.sm_count // tiles, steps // SPLIT_K_MIN_STEPS)
        split = max((each for each in SPLIT_K if each <= most), default=1)
        if split > 1 and tiles <= SPLIT_K_MAX_SHARE * hardware.sm_count:
            candidates.append(_sm80_kernels(problem, hardware, useful_flops, workspace, tile, split))
    if len(candidates) == 1:
        return candidates[0]
    return min(candidates, key=lambda kernels: sum(lone_time_s(kernel, hardware) for kernel in kernels))


def _sm80_kernels(
    problem: Problem, hardware: Hardware, useful_flops: float, workspace: int, tile: Tile, split: int
) -> list[Kernel]:
    """A multistage kernel (cp.async, mma.sync) of `tile`, and the one that adds up the parts of split-K."""
    item = ITEM_BYTES[problem.dtype]
    steps, step_bytes = _steps(problem, K_STEP_BYTES["sm80"])
    depth = step_bytes // item
    grid = _tiles(problem, tile) * split
    partial = Access(workspace, 4.0 / item * problem.write.nbytes * split)
    write = problem.write if split == 1 else partial
    cta_flops = 2.0 * tile.m * tile.n * depth * -(-steps // split)
    shared_rows = tile.m * (tile.warps[1] + 1) + tile.n * (tile.warps[0] + 1)  # warps read them, one write
    tensor_efficiency = 1.0
    on_cuda_cores = problem.dtype == "fp32" and not hardware.tensor_tf32_flops_per_cycle_sm
    if not on_cuda_cores:
        peak = hardware.tensor_flops_per_cycle_sm(problem.dtype)
        attainable = min(peak, MMA_SYNC_FLOPS * peak / hardware.tensor_flops_per_cycle_sm("fp16"))
        tensor_efficiency = MMA_SYNC_EFFICIENCY * attainable / peak
    kernels = [
        Kernel(
            name=f"{tile.name}x{depth}_implicit_gemm",
            family="convolution",
            grid=grid,
            threads=tile.threads,
            registers=tile.registers,
            shared_memory_bytes=tile.shared_memory_bytes,
            tensor_flops=0.0 if on_cuda_cores else cta_flops,
            tensor_dtype="fp16" if on_cuda_cores else problem.dtype,
            tensor_efficiency=tensor_efficiency,
            fp32_flops=cta_flops / CUDA_CORE_EFFICIENCY if on_cuda_cores else 0.0,
            shared_bytes=-(-steps // split) * shared_rows * step_bytes,
            l2_bytes=steps / split * (tile.m + tile.n) * _l2_row_bytes(problem, step_bytes) * tile.l2_share
            + write.nbytes / grid,
            latency_s=SM80_LATENCY_S,
            reads=problem.reads,
            writes=(write,),
            flops=useful_flops,
        )
    ]
    if split > 1:
        outputs = problem.write.nbytes / item
        reduce_grid = max(1, math.ceil(outputs / SPLIT_K_CTA_OUTPUTS))
        slots = SPLIT_K_CTA_OUTPUTS * (SPLIT_K_OUTPUT_SLOTS + SPLIT_K_PART_SLOTS * split)
        kernels.append(
            Kernel(
                name="splitKreduce_kernel",
                family="convolution",
                grid=reduce_grid,
                threads=128,
                registers=32,
                fp32_flops=issue_flops(slots, hardware),
                l2_bytes=(partial.nbytes + problem.write.nbytes) / reduce_grid,
                latency_s=hardware.hbm_latency_s + LAYOUT_LATENCY_S,
                reads=(partial,),
                writes=(problem.write,),
            )
        )
    return kernels


def _depthwise(
    n: int,
    c: int,
    in_positions: int,
    oc: int,
    positions: int,
    taps: int,
    dtype: str,
    hardware: Hardware,
    source: int,
    weight: int,
    target: int,
) -> Kernel:
    """PyTorch's depthwise kernel: a thread an output element, its taps read one after another."""
    item = ITEM_BYTES[dtype]
    outputs = n * oc * positions
    grid = -(-outputs // DEPTHWISE_THREADS)
    return Kernel(
        name="conv_depthwise_forward_kernel",
        family="convolution",
        grid=grid,
        threads=DEPTHWISE_THREADS,
        registers=40,
        fp32_flops=issue_flops(DEPTHWISE_THREADS * (DEPTHWISE_SLOTS + DEPTHWISE_TAP_SLOTS * taps), hardware),
        l2_bytes=(n * c * in_positions * item + outputs * item) / grid,
        latency_s=hardware.hbm_latency_s + 1.0e-6,
        reads=(
            Access(source, float(n * c * in_positions * item)),
            Access(weight, float(oc * taps * item)),
        ),
        writes=(Access(target, float(outputs * item)),),
        flops=2.0 * outputs * taps,
    )
