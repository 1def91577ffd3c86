"""Convolution in fp32 without tensor cores: implicit SGEMM and Winograd, the kernels of least predicted time.

It is fp32 without TF32, and fp32 with up to 4 channels (`nchwkcrs_nchw_.._ffma`). NCHW is read and written as it lies, K is
taps x channels without padding. 3x3 with stride 1 may run as Winograd: F(2x2) in one kernel does the products of an
output with 4 multiplications instead of 9, F(4x4) with 2.25, between three kernels that transform.

Sources: kernel names, CTAs, registers and shared memory of ResNet-50 in fp32 on V100 (pytorch/kineto). What is fitted stands
in hw_configs/families/convolution.yaml (conv_sgemm, conv_winograd).
"""

from __future__ import annotations

import math
from dataclasses import replace

from simtti.hw_configs.hardware import Hardware
from simtti.simulator.kernel import Access, Kernel
from simtti.simulator.kernels.implicit_gemm import Problem, Tile, fastest
from simtti.simulator.kernels.machine import FP32_BYTES, fused_multiply_adds

SGEMM_STEP = 8  # exact: elements of k of a step of the loop (`.._tilesize256x64x8_.._ffma`)
# exact: tiles by the names volta_scudnn_128x32, _128x64 and _128x128; threads, registers and shared memory of the last two as
# in the V100 trace, of the first after them.
SGEMM = (  # exact: see above
    Tile("scudnn_128x32", 128, 32, 128, 128, 16384),
    Tile("scudnn_128x64", 128, 64, 128, 128, 16384),
    Tile("scudnn_128x128", 128, 128, 256, 128, 32768),
)
BATCHED_SGEMM = (
    Tile("sgemm_64x64", 64, 64, 64, 126, 8448),
    *SGEMM,
)  # exact: volta_sgemm_64x64_nn, same trace

# F(2x2, 3x3), volta_scudnn_winograd_128x128 in the same trace: a CTA takes 32 tiles x 32 channels.
FUSED_TILE = Tile("winograd_128x128", 32, 32, 256, 126, 49152)  # exact: see above
FUSED_OUTPUTS = 2  # exact: rows and columns of outputs of a transformed tile
FUSED_POINTS = 16  # exact: elements of a transformed tile, 4 x 4
# F(4x4, 3x3), winograd_nonfused in the same trace.
NONFUSED_OUTPUTS = 4  # exact: rows and columns of outputs of a transformed tile
NONFUSED_POINTS = 36  # exact: elements of a transformed tile, 6 x 6
FILTER_TAPS = 9  # exact: 3 x 3
DIRECT_THREADS, DIRECT_REGISTERS = (
    1024,
    40,
)  # exact: conv2d_grouped_direct_kernel on our own H200, an output a thread
TRANSFORM_THREADS, TRANSFORM_REGISTERS = 256, 64  # exact: winogradForwardData4x4 in the same trace


def on_cuda_cores(problem: Problem, nchw: bool, hardware: Hardware) -> bool:
    """Whether the products run on the CUDA cores. nchw: the activations lie so."""
    if not hardware.multiplies(problem.dtype):
        return True
    few_channels = problem.channels <= hardware.conv_choice.cuda_core_channels
    return problem.dtype == "fp32" and nchw and few_channels


def cuda_core_kernels(problem: Problem, hardware: Hardware) -> list[Kernel]:
    """The kernels of the least predicted time among implicit SGEMM and, for 3x3 with stride 1, Winograd."""
    candidates = [[_sgemm(problem, tile, hardware)] for tile in SGEMM]
    if problem.outputs_3x3 and not hardware.multiplies(problem.dtype):
        candidates.append(_winograd_fused(problem, hardware))
        candidates.append(_winograd_nonfused(problem, hardware))
    return fastest(candidates, hardware)


def direct_kernel(problem: Problem, nchw: bool, hardware: Hardware) -> Kernel:
    """conv2d_grouped_direct_kernel: each thread makes an output, product by product, whichever way the tensors lie; NHWC takes longer."""
    style = hardware.conv_direct
    outputs = problem.m * problem.n
    grid = -(-outputs // DIRECT_THREADS)
    thread_slots = style.output_slots + style.product_slots * problem.depth
    return Kernel(
        name="conv2d_grouped_direct_kernel",
        family="convolution",
        grid=grid,
        threads=DIRECT_THREADS,
        registers=DIRECT_REGISTERS,
        issue_slots=min(DIRECT_THREADS, outputs) * thread_slots,
        l2_bytes=(problem.reads[0].nbytes + problem.write.nbytes) / grid,
        latency_s=hardware.hbm_latency_s + (style.latency_s if nchw else style.nhwc_latency_s),
        reads=problem.reads,
        writes=(problem.write,),
        flops=problem.useful_flops,
    )


def _sgemm(problem: Problem, tile: Tile, hardware: Hardware) -> Kernel:
    style = hardware.conv_sgemm
    k = -(-problem.depth // SGEMM_STEP) * SGEMM_STEP
    grid = problem.tiles(tile)
    outputs = tile.m * tile.n
    products = fused_multiply_adds(outputs * k, style.efficiency, style.overhead_slots)
    return Kernel(
        name=f"{tile.name}_implicit_gemm",
        family="convolution",
        grid=grid,
        threads=tile.threads,
        registers=tile.registers,
        shared_memory_bytes=tile.shared_memory_bytes,
        fp32_flops=products.flops,
        issue_slots=products.slots + outputs * style.output_slots,
        l2_bytes=FP32_BYTES * (tile.m + tile.n) * k + problem.write.nbytes / grid,
        latency_s=style.latency_s,
        reads=problem.reads,
        writes=(problem.write,),
        flops=problem.useful_flops,
    )


def _winograd_tiles(problem: Problem, size: int) -> int:
    """Tiles of size x size outputs."""
    samples, height, width = problem.outputs_3x3 or (0, 0, 0)
    return samples * -(-height // size) * -(-width // size)


def _winograd_fused(problem: Problem, hardware: Hardware) -> list[Kernel]:
    """F(2x2, 3x3): the filters are transformed first, everything else in one kernel."""
    style, tile = hardware.conv_winograd, FUSED_TILE
    data, weights = problem.reads
    filters = Access(problem.workspace, FUSED_POINTS / FILTER_TAPS * weights.nbytes)
    grid = -(-_winograd_tiles(problem, FUSED_OUTPUTS) // tile.m) * -(-problem.n // tile.n)
    products = fused_multiply_adds(
        FUSED_POINTS * tile.m * tile.n * problem.channels,
        style.efficiency,
        hardware.conv_sgemm.overhead_slots,
    )
    operand_bytes = FP32_BYTES * problem.channels * FUSED_POINTS * (tile.m + tile.n)
    product = Kernel(
        name=tile.name,
        family="convolution",
        grid=grid,
        threads=tile.threads,
        registers=tile.registers,
        shared_memory_bytes=tile.shared_memory_bytes,
        fp32_flops=products.flops,
        issue_slots=products.slots,
        l2_bytes=operand_bytes + problem.write.nbytes / grid,
        latency_s=style.latency_s,
        reads=(data, filters),
        writes=(problem.write,),
        flops=problem.useful_flops,
    )
    return [_transform("generateWinogradTiles", weights, filters, hardware), product]


def _winograd_nonfused(problem: Problem, hardware: Hardware) -> list[Kernel]:
    """F(4x4, 3x3): data and filters to 36 matrices each, their products, and back."""
    data, weights = problem.reads
    tiles = _winograd_tiles(problem, NONFUSED_OUTPUTS)
    point_bytes = float(FP32_BYTES * NONFUSED_POINTS * tiles)  # of one channel
    filters = Access(problem.workspace, NONFUSED_POINTS / FILTER_TAPS * weights.nbytes)
    inputs = Access(problem.workspace - 1, point_bytes * problem.channels)
    products = Access(problem.workspace - 2, point_bytes * problem.n)
    gemms = replace(
        problem, m=tiles, taps=1, groups=NONFUSED_POINTS, reads=(inputs, filters), write=products, outputs_3x3=None
    )  # fmt: skip
    return [
        _transform("winogradForwardFilter4x4", weights, filters, hardware),
        _transform("winogradForwardData4x4", data, inputs, hardware),
        *fastest([[_batched_sgemm(gemms, tile, hardware)] for tile in BATCHED_SGEMM], hardware),
        _transform("winogradForwardOutput4x4", products, problem.write, hardware),
    ]


def _batched_sgemm(gemms: Problem, tile: Tile, hardware: Hardware) -> Kernel:
    """The batched SGEMM of Winograd: dense operands, no gather."""
    products = fused_multiply_adds(
        tile.m * tile.n * gemms.channels, hardware.conv_winograd.gemm_efficiency, hardware.conv_sgemm.overhead_slots
    )  # fmt: skip
    gather = _sgemm(gemms, tile, hardware)
    return replace(gather, name=f"{tile.name}_nn", fp32_flops=products.flops, issue_slots=products.slots)


def _transform(name: str, source: Access, target: Access, hardware: Hardware) -> Kernel:
    """A kernel that transforms tiles."""
    style = hardware.conv_winograd
    elements = max(source.nbytes, target.nbytes) / FP32_BYTES
    grid = max(1, math.ceil(elements / style.transform_cta_elements))
    return Kernel(
        name=name,
        family="convolution",
        grid=grid,
        threads=TRANSFORM_THREADS,
        registers=TRANSFORM_REGISTERS,
        issue_slots=elements / grid * style.element_slots,
        l2_bytes=(source.nbytes + target.nbytes) / grid,
        latency_s=hardware.hbm_latency_s + style.transform_latency_s,
        reads=(source,),
        writes=(target,),
    )
