"""Fused attention kernels by library: their blocks, and what was fitted to measurements of them.

Structure (blocks, threads, registers, when keys are split) is read from the sources: Dao-AILab/flash-attention (BSD-3),
`flash_fwd_launch_template.h`, `flash_api.cpp`, `hopper/tile_size.h` and `heuristics.h`; PyTorch's copy of the same and of
xformers' CUTLASS kernel (`mem_eff_attention/kernel_forward.h`); TensorRT-LLM's `fmha_v2` for Hopper. Kernel names in
PyTorch traces (AMD-AGI/TraceLens) agree: `Flash_fwd_kernel_traits<128, 128, 64, 4>` is head dim 128, blocks of 128 queries
and 64 keys, four warps; 255 registers, 48 KB of shared memory at head dim 64; `fmha_cutlassF_bf16_aligned_32x128_gmem`.

What was fitted stands in hw_configs (groups flash_2, flash_3, flash_4, trtllm, efficient), by robust least squares on log
ratios:
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
from simtti.hw_configs.parameters import AttentionStyle


class Block(NamedTuple):
    """The blocking for head dims up to `head_dim`, to which they are padded."""

    head_dim: int
    queries: int
    keys: int
    threads: int
    registers: int
    stages: int  # blocks of keys (and of values) in shared memory


class Library(NamedTuple):
    """A fused implementation: what is read from its sources. How its kernels spend their time is `Hardware`'s `style`."""

    style: str  # the group of parameters (hw_configs/parameters.py)
    wgmma: bool
    blocks: tuple[Block, ...]  # by head dim, ascending
    helpers: int = 0  # small kernels the library launches around it: schedule, semaphores, offsets
    splits: str = ""  # whose rule splits the keys: "static" (flash-attention 2), "dynamic" (3), or nobody's
    helper_style: str = ""  # the group that says how long helpers take, where it is another
    repacks: bool = False  # one more helper reads packed Q, K, V and writes them as the kernel wants them
    # Queries and scores go through shared memory at each block of keys, as in two chained GEMMs.
    streams: bool = False
    short: Block | None = None  # for sequences of queries no longer than its block, up to its head dim

    def style_on(self, hardware: Hardware) -> AttentionStyle:
        """The library's parameters on a device."""
        style: AttentionStyle = getattr(hardware, self.style)
        return style

    def style_of_helpers_on(self, hardware: Hardware) -> AttentionStyle:
        """The parameters that say how long its helpers take."""
        style: AttentionStyle = getattr(hardware, self.helper_style or self.style)
        return style


# The blocks depend on the device: see `flash_2_block`.
FLASH_2 = Library(
    style="flash_2",
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
    splits="static",
)
FLASH_3 = Library(
    style="flash_3",
    wgmma=True,
    blocks=(
        Block(64, 192, 192, 512, 128, 2),
        Block(96, 192, 144, 512, 128, 2),
        Block(128, 128, 176, 384, 168, 2),
        Block(192, 128, 112, 384, 168, 2),
        Block(256, 128, 80, 384, 168, 2),
    ),
    helpers=1,
    splits="dynamic",
    short=Block(64, 64, 128, 256, 168, 2),
)
TRTLLM = Library(
    style="trtllm",
    wgmma=True,
    blocks=(
        Block(32, 128, 256, 384, 168, 2),
        Block(64, 128, 256, 384, 168, 2),
        Block(128, 128, 128, 384, 168, 2),
        Block(256, 128, 64, 384, 168, 2),
    ),
    helpers=2,
    repacks=True,
)
# Two query blocks in flight; warpgroups of their own for the softmax, with part of the exponentials as polynomials on the
# FMA units, so that little but the exponentials shows.
FLASH_4 = FLASH_3._replace(
    style="flash_4",
    blocks=(
        Block(64, 256, 128, 384, 168, 2),
        Block(128, 256, 128, 384, 168, 2),
        Block(192, 256, 64, 384, 168, 2),
        Block(256, 128, 64, 384, 168, 2),
    ),
    short=None,
    helpers=0,
    splits="",
)
EFFICIENT = Library(
    style="efficient",
    wgmma=False,
    blocks=(
        Block(64, 64, 64, 128, 128, 3),
        Block(128, 64, 128, 256, 128, 3),
        Block(65536, 32, 128, 128, 128, 3),
    ),
    streams=True,
)
# TensorRT-LLM's kernels for Blackwell (trtllm-gen) are not public; they work on the same tcgen05 instructions as
# flash-attention 4 and are taken to be like it, with the helpers of fmha_v2 around them. Not measured.
TRTLLM_GEN = FLASH_4._replace(helpers=TRTLLM.helpers, helper_style=TRTLLM.style, repacks=True)
LIBRARIES = {
    "flash-attention-2": FLASH_2,
    "flash-attention-3": FLASH_3,
    "flash-attention-4": FLASH_4,
    "trtllm-fmha": TRTLLM,
    "trtllm-gen": TRTLLM_GEN,
    "efficient": EFFICIENT,
}

# wgmma is Hopper's alone (PTX ISA: sm_90a); what stands in for its kernels on Blackwell, which has tcgen05.
ON_BLACKWELL = {"flash-attention-3": "flash-attention-4", "trtllm-fmha": "trtllm-gen"}

# Shared memory of an SM below which flash-attention 2 takes its small blocks: gaming and inference parts have 100 KB.
SMALL_SHARED_MEMORY_BYTES = 112 * 1024


def block_of(
    library: Library, head_dim: int, q_len: int, causal: bool, size: int, hardware: Hardware
) -> Block:
    """The smallest blocking for `head_dim` and elements of `size` bytes; beyond the last, the last's with the head dim in
    steps of 64."""
    if library.splits == "static":
        return flash_2_block(head_dim, causal, hardware)
    if library.short and head_dim <= library.short.head_dim and q_len <= library.short.queries:
        return library.short
    if library.streams:  # the ring has as many slots as fit, from three to two; else the next blocking
        room = hardware.shared_memory_per_sm_bytes - 1024
        for block in library.blocks:
            for stages in range(block.stages, 1, -1):
                cut = block._replace(stages=stages)
                if head_dim <= block.head_dim and shared_memory_bytes(library, cut, size) <= room:
                    return cut._replace(head_dim=min(block.head_dim, -(-head_dim // 64) * 64))
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
    """Queries and the ring of keys and values; or a ring of slices of 32 of two operands, and the scores."""
    if library.streams:
        return block.stages * (block.queries + block.keys) * 32 * size + block.queries * block.keys * size
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
