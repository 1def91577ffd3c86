"""Fused attention kernels by library: their blocks, and what was fitted to measurements of them.

Structure (blocks, threads, registers, when keys are split) is read from the sources: Dao-AILab/flash-attention (BSD-3),
`flash_fwd_launch_template.h`, `flash_api.cpp`, `hopper/tile_size.h` and `heuristics.h`; PyTorch's copy of the same and of
xformers' CUTLASS kernel (`mem_eff_attention/kernel_forward.h`); TensorRT-LLM's `fmha_v2` for Hopper. Kernel names in
PyTorch traces (AMD-AGI/TraceLens) agree: `Flash_fwd_kernel_traits<128, 128, 64, 4>` is head dim 128, blocks of 128 queries
and 64 keys, four warps; 255 registers, 48 KB of shared memory at head dim 64; `fmha_cutlassF_bf16_aligned_32x128_gmem`.

Fitted numbers, with bounds in brackets, are robust least squares on log ratios:
- flash-attention 3 and trtllm-fmha: aiconfigurator database (Apache-2.0), bf16, h100-sxm and h200-sxm, the half of the
  shapes that a hash picks;
- flash-attention 2: 18 published rates on H100 at 1.83 GHz (flash-attention's figures, transcribed), 4 kernels of TraceLens,
  and 11 rates of forward with backward on A100 times 1.09, the ratio of the same figures on H100;
- efficient: xformers' benchmark on A100 (wall clock, so only what takes over 60 us), one kernel of TraceLens;
- flash-attention 4: cuDNN on GB200 (NVIDIA/cudnn-frontend), which does the same.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

from simtti.hw_configs.hardware import Hardware


class Block(NamedTuple):
    """The blocking for head dims up to `head_dim`, to which they are padded."""

    head_dim: int
    queries: int
    keys: int
    threads: int
    registers: int
    stages: int  # blocks of keys (and of values) in shared memory


class Library(NamedTuple):
    """A fused implementation. Fitted constants in brackets with their bounds."""

    wgmma: bool
    blocks: tuple[Block, ...]  # by head dim, ascending
    exposed: float  # of the shorter of products and softmax, what the longer does not hide [0, 1]
    tensor_share: float  # of the tensor cores' attainable rate between softmaxes [0.3, 1.1]
    setup_cycles: float  # a CTA's prologue [0, 8000]
    row_cycles: float  # and epilogue, for each row of its queries [0, 50]
    step_cycles: float  # barriers and waits at each block of keys (`streams`: each slice), hidden by other CTAs [0, 3000]
    fill_cost: float  # as in gemm.Style [0, 4]
    softmax_slots: float = (
        4.0  # FP32 instructions of an element beside its exponential: scale, maximum, sum [0, 12]
    )
    # At which a CTA's queries come in and results go out, while its SM's tensor cores rest [4, inf).
    edge_bytes_per_cycle: float = math.inf
    exposed_loads: float = 0.0  # of the time to fetch a CTA's first blocks at its share of HBM [0, 1]
    helpers: int = 0  # small kernels the library launches around it: schedule, semaphores, offsets
    helper_latency_s: float = 0.0  # of each, a CTA or a few that do next to nothing [0, 4e-6]
    splits: str = ""  # whose rule splits the keys: "static" (flash-attention 2), "dynamic" (3), or nobody's
    repacks: bool = False  # one more helper reads packed Q, K, V and writes them as the kernel wants them
    streams: bool = (
        False  # queries and scores go through shared memory at each block of keys, as in two chained GEMMs
    )
    short: Block | None = None  # for sequences of queries no longer than its block, up to its head dim


# The blocks depend on the device: see `flash_2_block`.
FLASH_2 = Library(
    wgmma=False,
    blocks=(
        Block(32, 128, 128, 128, 255, 1),
        Block(64, 128, 128, 128, 255, 1),
        Block(96, 128, 64, 128, 255, 1),
        Block(128, 128, 64, 128, 255, 1),
        Block(160, 128, 32, 128, 255, 1),
        Block(192, 128, 64, 256, 255, 1),
        Block(224, 128, 64, 256, 255, 1),
        Block(256, 128, 64, 256, 255, 1),
    ),
    exposed=0.506,
    tensor_share=1.0,
    setup_cycles=2630.0,
    row_cycles=19.0,
    step_cycles=570.0,
    fill_cost=1.2,
    edge_bytes_per_cycle=10.2,
    splits="static",
)
FLASH_3 = Library(
    wgmma=True,
    blocks=(
        Block(64, 192, 192, 512, 128, 2),
        Block(96, 192, 144, 512, 128, 2),
        Block(128, 128, 176, 384, 168, 2),
        Block(192, 128, 112, 384, 168, 2),
        Block(256, 128, 80, 384, 168, 2),
    ),
    exposed=0.336,
    tensor_share=0.956,
    setup_cycles=2040.0,
    row_cycles=22.0,
    step_cycles=0.0,
    fill_cost=0.27,
    exposed_loads=0.214,
    helpers=1,
    helper_latency_s=1.37e-6,
    splits="dynamic",
    short=Block(64, 64, 128, 256, 168, 2),
)
TRTLLM = Library(
    wgmma=True,
    blocks=(
        Block(32, 128, 256, 384, 168, 2),
        Block(64, 128, 256, 384, 168, 2),
        Block(128, 128, 128, 384, 168, 2),
        Block(256, 128, 64, 384, 168, 2),
    ),
    exposed=0.36,
    tensor_share=0.9,
    setup_cycles=925.0,
    row_cycles=9.2,
    step_cycles=422.0,
    fill_cost=0.27,
    exposed_loads=0.07,
    helpers=2,
    helper_latency_s=0.34e-6,
    repacks=True,
)
# Two query blocks in flight; warpgroups of their own for the softmax, with part of the exponentials as polynomials on the
# FMA units, so that little but the exponentials shows.
FLASH_4 = FLASH_3._replace(
    blocks=(
        Block(64, 256, 128, 384, 168, 2),
        Block(128, 256, 128, 384, 168, 2),
        Block(192, 256, 64, 384, 168, 2),
        Block(256, 128, 64, 384, 168, 2),
    ),
    exposed=0.29,
    tensor_share=1.1,
    softmax_slots=0.0,
    setup_cycles=2460.0,
    row_cycles=13.0,
    fill_cost=0.1,
    short=None,
    helpers=0,
    splits="",
)
EFFICIENT = Library(
    wgmma=False,
    blocks=(
        Block(64, 64, 64, 128, 128, 1),
        Block(128, 64, 128, 256, 128, 1),
        Block(65536, 32, 128, 128, 128, 1),
    ),
    exposed=1.0,
    tensor_share=1.0,
    setup_cycles=300.0,
    row_cycles=19.0,
    step_cycles=437.0,
    fill_cost=0.99,
    edge_bytes_per_cycle=20.7,
    streams=True,
)
LIBRARIES = {
    "flash-attention-2": FLASH_2,
    "flash-attention-3": FLASH_3,
    "flash-attention-4": FLASH_4,
    "trtllm-fmha": TRTLLM,
    "efficient": EFFICIENT,
}

# FLOPs a cycle that the warps of two resident CTAs issue as mma.sync between their loads from shared memory: A100's whole
# rate, and no more on Hopper; the tensor cores of other parts are slower than that [1000, 2600].
MMA_FLOPS_PER_CYCLE = 2048.0
# The same of a warp that has its sub-core for itself [150, 600].
MMA_FLOPS_PER_WARP_CYCLE = 302.0
# Bytes that a CTA writes of its FP32 part of split keys in a cycle, row by row [2, 64].
PARTIAL_BYTES_PER_CYCLE = 15.7
# The kernel that adds up the parts of split keys: three dependent trips [0, 5e-6].
COMBINE_LATENCY_S = 0.5e-6
REPACK_LATENCY_S = 1.0e-6  # [0, 3e-6]
# Kernels that run for milliseconds bring a board whose tensor cores could draw more than its power limit down in clock:
# by this for each power limit that they could draw beyond it [0, 0.3]; half of it where they work for so many seconds.
# Measurements repeat a kernel, so that its own length decides what the power controller sees.
THROTTLED_SHARE = 0.13
THROTTLED_AFTER_S = 5e-3

# Shared memory of an SM below which flash-attention 2 takes its small blocks: gaming and inference parts have 100 KB.
SMALL_SHARED_MEMORY_BYTES = 112 * 1024


def block_of(library: Library, head_dim: int, q_len: int, causal: bool, hardware: Hardware) -> Block:
    """The smallest blocking for `head_dim`; beyond the last, the last's with the head dim in steps of 64."""
    if library.splits == "static":
        return flash_2_block(head_dim, causal, hardware)
    if library.short and head_dim <= library.short.head_dim and q_len <= library.short.queries:
        return library.short
    return _smallest(library, head_dim)


def _smallest(library: Library, head_dim: int) -> Block:
    for block in library.blocks:
        if head_dim <= block.head_dim:
            return block
    return library.blocks[-1]._replace(head_dim=-(-head_dim // 64) * 64)


@functools.lru_cache(maxsize=1024)
def flash_2_block(head_dim: int, causal: bool, hardware: Hardware) -> Block:
    """flash_fwd_launch_template.h: square blocks for causal masks on compute capability 8.6 and 8.9, smaller ones where
    shared memory is, and where two CTAs fit on an SM that way."""
    block = _smallest(FLASH_2, head_dim)
    dim = block.head_dim
    small = hardware.shared_memory_per_sm_bytes < SMALL_SHARED_MEMORY_BYTES
    if small and hardware.architecture in ("ampere", "ada"):
        if causal and dim in (96, 128, 160):
            return Block(dim, 64, 64, 128, 255, 1)
        if dim == 128:
            return Block(dim, 128, 32, 128, 255, 1)
        if dim == 160:
            return Block(dim, 128, 64, 256, 255, 1)
    two_fit = hardware.shared_memory_per_sm_bytes >= 2 * 2 * dim * (64 + 2 * 64)
    if (small and dim >= 224) or (dim >= 256 and two_fit):
        return Block(dim, 64, 64, 128, 255, 1)
    return block


def flash_2_split_block(head_dim: int) -> Block:
    """The blocking of its kernel for split keys (run_mha_fwd_splitkv_dispatch)."""
    dim = _smallest(FLASH_2, head_dim).head_dim
    return Block(dim, 64, 256 if dim <= 64 else 128 if dim <= 128 else 64, 128, 255, 1)


def shared_memory_bytes(library: Library, block: Block, size: int) -> int:
    """Queries and the ring of keys and values; or a ring of three slices of 32 of two operands, and the scores."""
    if library.streams:
        return 3 * (block.queries + block.keys) * 32 * size + block.queries * block.keys * size
    return (block.queries + 2 * block.stages * block.keys) * block.head_dim * size


@functools.lru_cache(maxsize=4096)
def key_splits(ctas: int, slots: int, key_blocks: int) -> int:
    """In how many parts flash-attention walks the keys (num_splits_heuristic): the fewest that fill the last wave to 85 %
    of the best, one where the CTAs fill four fifths of the slots."""
    if ctas >= 0.8 * slots:
        return 1
    filled = {}
    for splits in range(1, min(128, slots, key_blocks) + 1):
        if splits == 1 or -(-key_blocks // splits) != -(-key_blocks // (splits - 1)):
            waves = ctas * splits / slots
            filled[splits] = waves / -(-ctas * splits // slots)
    best = max(filled.values())
    return next(splits for splits, share in filled.items() if share >= 0.85 * best)


def dynamic_splits(batch: int, heads: int, q_blocks: int, key_blocks: int, sms: int) -> tuple[int, bool]:
    """In how many parts flash-attention 3 walks the keys, and whether its combining kernel is launched.

    The host takes an upper bound by the rule above, as if the batch were one sequence and not for up to four blocks, and
    launches the combining kernel where that exceeds one. A kernel on the device then divides the blocks of all sequences
    among the SMs with a tenth to spare (`prepare_varlen_num_blocks`).
    """
    most = key_splits(heads * q_blocks, sms, key_blocks) if key_blocks > 4 else 1
    blocks_an_sm = math.ceil(1.1 * batch * heads * q_blocks * key_blocks / sms)
    splits = max(min(-(-key_blocks // blocks_an_sm), most), 1)
    return -(-key_blocks // -(-key_blocks // splits)), most > 1
