"""Grouped convolution in channels-last as cuDNN 9.19 does it on Hopper: a group after another, three kernels each.

`nhwcSliceCKernel` takes a group's channels out of the input, an sm80 kernel of CUTLASS's does their products, and
`nhwcSliceCKernel` puts the result back: 288 kernels for 96 groups, 10 us of the host each. cuDNN deals the groups out to four
streams of its own, but the host is so much slower than these kernels that none overlap.

Source: Sana's decoder on our own H100 (2026-11-27, torch 2.11): 48 and 96 groups of 32 channels, 1x1, on 32 x 32 to 128 x 128.
What is fitted stands in hw_configs/families/convolution.yaml (conv_groups).
"""

from __future__ import annotations

from dataclasses import replace

from simtti.dtypes import HALF_TYPES
from simtti.hw_configs.hardware import Hardware
from simtti.simulator.kernel import Access, Kernel
from simtti.simulator.kernels.convolution_layout import CHANNEL_ALIGNMENT
from simtti.simulator.kernels.implicit_gemm import Problem, Tile, mma_kernels

SLICE_THREADS, SLICE_REGISTERS = 512, 16  # exact: nhwcSliceCKernel in the same capture, an element a thread
# exact: threads, registers and shared memory in the same capture (cutlass_tensorop_bf16_s16816fprop_optimized_bf16_..)
SMALL = Tile("cutlass_64x64", 64, 64, 128, 104, 81920)  # exact: see above
TALL = Tile("cutlass_256x64", 256, 64, 128, 246, 81920, warps=(4, 1))  # exact: see above


def in_turn(problem: Problem, hardware: Hardware) -> bool:
    """Whether cuDNN does the groups of channels-last tensors one after another."""
    vectors = problem.channels % CHANNEL_ALIGNMENT == 0 and problem.n % CHANNEL_ALIGNMENT == 0
    halves = problem.groups > 1 and problem.dtype in HALF_TYPES
    return halves and vectors and bool(hardware.conv_groups.in_turn)


def grouped_kernels(problem: Problem, hardware: Hardware) -> list[Kernel]:
    """The kernels of all groups. problem: of all of them, its tensors in channels-last."""
    groups = problem.groups
    data, filters, result = (_part(access, groups) for access in (*problem.reads, problem.write))
    taken, made = Access(problem.workspace, data.nbytes), Access(problem.workspace - 1, result.nbytes)
    one = replace(
        problem, groups=1, reads=(taken, filters), write=made, useful_flops=problem.useful_flops / groups,
        workspace=problem.workspace - 2,
    )  # fmt: skip
    each = [
        _slice(data, taken, one, hardware),
        _products(one, hardware),
        _slice(made, result, one, hardware),
    ]
    return each * groups


def _part(access: Access, groups: int) -> Access:
    """A group's part of a tensor."""
    return Access(access.tensor, access.nbytes / groups)


def _products(problem: Problem, hardware: Hardware) -> Kernel:
    """The products of one group: of the tall tile where that makes enough CTAs, each thread storing its outputs in turn."""
    style = hardware.conv_groups
    tile = TALL if problem.tiles(TALL) >= style.tall_ctas else SMALL
    kernel = mma_kernels(problem, tile, 1, hardware)[0]
    outputs = tile.m * tile.n / tile.threads
    return replace(kernel, latency_s=style.latency_s + style.output_latency_s * outputs)


def _slice(source: Access, target: Access, problem: Problem, hardware: Hardware) -> Kernel:
    """nhwcSliceCKernel: a group's channels of each position, from or to among the others'."""
    grid = max(1, -(-int(source.nbytes) // (problem.item_bytes * SLICE_THREADS)))
    return Kernel(
        name="nhwcSliceCKernel",
        family="convolution_layout",
        grid=grid,
        threads=SLICE_THREADS,
        registers=SLICE_REGISTERS,
        issue_slots=SLICE_THREADS * hardware.conv_groups.slice_slots,
        l2_bytes=(source.nbytes + target.nbytes) / grid,
        latency_s=hardware.hbm_latency_s,
        reads=(source,),
        writes=(target,),
    )
