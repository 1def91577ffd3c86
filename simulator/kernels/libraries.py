"""Fused attention kernels by library: their blocks, and when they split the keys.

A library is one record here, or in a file of its own that calls `add`, and a group of parameters in a YAML
(docs/extend.md has the recipe). Device files, policies and tables of operators may then name it.

Structure (blocks, threads, registers, when keys are split) is read from the sources: Dao-AILab/flash-attention (BSD-3),
`flash_fwd_launch_template.h`, `flash_api.cpp`, `hopper/tile_size.h` and `heuristics.h`; PyTorch's copy of the same and of
xformers' CUTLASS kernel (`mem_eff_attention/kernel_forward.h`); TensorRT-LLM's `fmha_v2` for Hopper. Kernel names in
PyTorch traces (AMD-AGI/TraceLens) agree: `Flash_fwd_kernel_traits<128, 128, 64, 4>` is head dim 128, blocks of 128 queries
and 64 keys, four warps; 255 registers, 48 KB of shared memory at head dim 64; `fmha_cutlassF_bf16_aligned_32x128_gmem`.

What was fitted stands in hw_configs/families/attention.yaml (groups flash_1, flash_2, flash_3, flash_4, trtllm, cudnn, efficient), by robust
least squares on log ratios:
- flash-attention 3 and trtllm-fmha: aiconfigurator database (Apache-2.0), bf16, h100-sxm and h200-sxm, the half of the
  shapes that a hash picks;
- flash-attention 1: 24 published rates of forward with backward on A100 and H100, times 1.09 as below;
- flash-attention 2: 18 published rates on H100 at 1.83 GHz (flash-attention's figures, transcribed), 4 kernels of TraceLens,
  and 11 rates of forward with backward on A100 times 1.09, the ratio of the same figures on H100;
- efficient: xformers' benchmark on A100 (wall clock, so only what takes over 60 us), one kernel of TraceLens;
- cudnn, and the H200's own of flash-attention 2 and efficient: our own H200 (torch 2.11, cuDNN 9.19), the half of the shapes
  that a hash picks;
- flash-attention 4: cuDNN on GB200 (NVIDIA/cudnn-frontend), which does the same.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

from simtti.errors import InputError
from simtti.hw_configs import devices
from simtti.hw_configs.hardware import Hardware
from simtti.hw_configs.parameters import AttentionStyle
from simtti.simulator.kernel import Kernel
from simtti.simulator.kernels.attention_problem import Attention
from simtti.simulator.kernels.machine import RESERVED_SHARED_BYTES

MOST_REMEMBERED = 4096  # exact: answers kept; the results are the same with any other number
HEAD_DIM_STEP = 64  # exact: what head dims beyond a library's last block are padded to (CUTLASS's kernels)
HALF_BYTES = 2  # exact: of fp16 and bf16
SLICE = 32  # exact: of the head dim and of keys, in CUTLASS's chained products (kernel_forward.h)


class Block(NamedTuple):
    """The blocking for head dims up to `head_dim`, to which they are padded. stages: blocks of keys (and of values) in shared
    memory."""

    head_dim: int
    queries: int
    keys: int
    threads: int
    registers: int
    stages: int


class Bytes(NamedTuple):
    """Of an element of queries, of a key and its value together, of the result."""

    query: int
    pair: int
    result: int


class Library(NamedTuple):
    """A fused implementation: what is read from its sources. How its kernels spend their time is `Hardware`'s group `style`.

    name: what device files, policies and tables call it. style: its group of parameters (families/attention.yaml). wgmma: its
    products are instructions of whole warpgroups, which Hopper and the data-centre Blackwell have. blocks: by head dim, ascending.
    block_rule: chooses among blocks where that is not the first that holds the head dim. short: for sequences of queries no longer
    than its block, up to its head dim. splits: whose rule splits the keys: "static" (flash-attention 2, whose kernel for split keys
    has the blocks that split_block gives for a head dim), "dynamic" (3), or nobody's. helpers: small kernels it launches around:
    schedule, semaphores, offsets. helper_style: the group that says how long they take, where it is another. repacks: one more
    helper reads packed Q, K, V and writes them as the kernel wants them. streams: queries and scores go through shared memory at
    each block of keys, as in two chained GEMMs. takes_masks: its kernels add a mask. whole_tiles: its copies go over whole blocks,
    beyond the ends of sequence and head. counter: a memset before it zeroes what its CTAs take their tiles from. row_warps: warps for
    which its parameters are, where more of them share the rows of a block. most_batch: sequences beyond it go to further launches,
    whose results are copied into place. on_tcgen05: the library that stands in for it on a device with tcgen05 and no wgmma. on_mma:
    the one where the tensor cores have neither, and for head dims that are no multiple of dim_step. windows: it skips the blocks of
    keys that a sliding window hides. sparse: those that a mask of blocks hides. value_bytes: of an element of the values where
    queries and keys are multiplied as INT8 (0: they are not). value_products: for how many INT8 products one of the second product
    counts; 0: as the tensor cores' rates for its type say. by_device: the record for a device, where kernels differ by it.
    prepare: kernels before its own that quantise, and the problem as its own finds it.
    """

    name: str
    style: str
    wgmma: bool
    blocks: tuple[Block, ...]
    block_rule: Callable[[Attention, Hardware], Block] | None = None
    short: Block | None = None
    splits: str = ""
    split_block: Callable[[int], Block] | None = None
    helpers: int = 0
    helper_style: str = ""
    repacks: bool = False
    streams: bool = False
    takes_masks: bool = False
    whole_tiles: bool = False
    counter: bool = False
    row_warps: int = 0
    most_batch: int = 0
    on_tcgen05: str = ""
    on_mma: str = ""
    dim_step: int = 1
    windows: bool = False
    sparse: bool = False
    value_bytes: int = 0
    value_products: float = 0.0
    by_device: Callable[[Hardware], Library] | None = None
    prepare: Callable[[Library, Attention, Hardware], tuple[list[Kernel], Attention]] | None = None

    def on(self, hardware: Hardware) -> Library:
        """Its kernels for a device, which may be another record of the same name.

        Raises:
            InputError: it has none for it.
        """
        return self.by_device(hardware) if self.by_device else self

    def bytes_of(self, problem: Attention) -> Bytes:
        """Of the elements that its kernels read and write: queries and keys in INT8 are of one byte."""
        if self.value_bytes:
            return Bytes(1, 1 + self.value_bytes, HALF_BYTES)
        return Bytes(problem.item_bytes, 2 * problem.item_bytes, problem.item_bytes)

    def dtype_of(self, problem: Attention) -> str:
        """The type whose products its FLOPs are counted in."""
        return "int8" if self.value_bytes else problem.dtype

    def second_product(self, hardware: Hardware) -> float:
        """For how many INT8 products one of attention weights and values counts, by the tensor cores' rates."""
        if self.value_products:
            return self.value_products
        dtype = "fp8" if self.value_bytes == 1 else "fp16"
        return hardware.tensor_flops_per_cycle_sm("int8") / hardware.tensor_flops_per_cycle_sm(dtype)

    def style_on(self, hardware: Hardware) -> AttentionStyle:
        """The library's parameters on a device."""
        style: AttentionStyle = getattr(hardware, self.style)
        return style

    def style_of_helpers_on(self, hardware: Hardware) -> AttentionStyle:
        """The parameters that say how long its helpers take."""
        style: AttentionStyle = getattr(hardware, self.helper_style or self.style)
        return style


# ---- blocks

HALVES = Bytes(HALF_BYTES, 2 * HALF_BYTES, HALF_BYTES)  # exact: fp16 and bf16


def block_of(library: Library, problem: Attention, hardware: Hardware) -> Block:
    """The smallest blocking for the head dim and the elements' bytes, or the library's own rule."""
    head_dim = problem.head_dim
    if library.block_rule:
        return library.block_rule(problem, hardware)
    if library.short and head_dim <= library.short.head_dim and problem.q_len <= library.short.queries:
        return library.short
    if library.streams:  # the ring has as many slots as fit, from three to two; else the next blocking
        room = hardware.shared_memory_per_sm_bytes - RESERVED_SHARED_BYTES
        for block in library.blocks:
            for stages in range(block.stages, 1, -1):
                cut = block._replace(stages=stages)
                fits = shared_memory_bytes(library, cut, library.bytes_of(problem)) <= room
                if head_dim <= block.head_dim and fits:
                    return cut._replace(head_dim=min(block.head_dim, _padded(head_dim)))
    return _smallest(library.blocks, head_dim)


def _smallest(blocks: tuple[Block, ...], head_dim: int) -> Block:
    """The first that holds the head dim; beyond the last, the last's with the head dim in whole steps."""
    for block in blocks:
        if head_dim <= block.head_dim:
            return block
    return blocks[-1]._replace(head_dim=_padded(head_dim))


def _padded(head_dim: int) -> int:
    return -(-head_dim // HEAD_DIM_STEP) * HEAD_DIM_STEP


def shared_memory_bytes(library: Library, block: Block, each: Bytes) -> int:
    """Queries and the ring of keys and values; or a ring of slices of 32 of two operands, and the scores. each: bytes of an
    element."""
    if library.streams:
        ring = block.stages * (block.queries + block.keys) * SLICE
        return (ring + block.queries * block.keys) * each.query
    return (block.queries * each.query + block.stages * block.keys * each.pair) * block.head_dim


# exact: flash_fwd_launch_template.h; head dims 160 and 224 have no kernels of their own since 2.6 (HEADDIM_SWITCH)
FLASH_2_BLOCKS = (
    Block(32, 128, 128, 128, 255, 1),
    Block(64, 128, 128, 128, 255, 1),
    Block(96, 128, 64, 128, 255, 1),
    Block(128, 128, 64, 128, 255, 1),
    Block(192, 128, 64, 256, 236, 1),
    Block(256, 128, 64, 256, 255, 1),
)
# exact: flash_fwd_launch_template.h, is_sm8x: compute capability 8.6 and 8.9, Ampere and Ada with less shared memory than A100
SM8X_BLOCKS = {128: Block(128, 128, 32, 128, 255, 1)}
SM8X_CAUSAL_DIMS = (96, 128)  # exact: the same file; square blocks there, for causal masks
SM8X = ("ampere", "ada")  # exact: the architectures of compute capability 8
SQUARE_BLOCK = Block(0, 64, 64, 128, 255, 1)  # exact: the same file; the head dim is set where it is used
NARROW_DIM = 224  # exact: the same file; from here on square blocks where shared memory is small
WIDEST_DIM = 256  # exact: the same file; square blocks where two CTAs fit on an SM that way
# exact: 100 KB and less on gaming and inference parts, which the same file asks for by max_smem_per_block
SMALL_SHARED_MEMORY_BYTES = 112 * 1024
# exact: run_mha_fwd_splitkv_dispatch; keys of a block by head dim, 64 beyond
SPLIT_KEYS = ((64, 256), (128, 128), (1 << 16, 64))


@functools.lru_cache(MOST_REMEMBERED)
def flash_2_block(head_dim: int, causal: bool, hardware: Hardware) -> Block:
    """flash_fwd_launch_template.h: square blocks for causal masks on compute capability 8.6 and 8.9, smaller ones where
    shared memory is, and where two CTAs fit on an SM that way."""
    block = _smallest(FLASH_2_BLOCKS, head_dim)
    dim = block.head_dim
    square = SQUARE_BLOCK._replace(head_dim=dim)
    room = hardware.shared_memory_per_sm_bytes
    small = room < SMALL_SHARED_MEMORY_BYTES
    if small and hardware.architecture in SM8X:
        if causal and dim in SM8X_CAUSAL_DIMS:
            return square
        if dim in SM8X_BLOCKS:
            return SM8X_BLOCKS[dim]
    two_fit = room >= 2 * shared_memory_bytes(FLASH_2, square, HALVES)
    if (small and dim >= NARROW_DIM) or (dim >= WIDEST_DIM and two_fit):
        return square
    return block


def flash_2_split_block(head_dim: int) -> Block:
    """The blocking of its kernel for split keys (run_mha_fwd_splitkv_dispatch)."""
    dim = _smallest(FLASH_2_BLOCKS, head_dim).head_dim
    return SQUARE_BLOCK._replace(head_dim=dim, keys=next(keys for most, keys in SPLIT_KEYS if dim <= most))


# ---- the libraries

WARPS = 4  # exact: of the kernels that most of the measurements are of, kNWarps in their names
FLASH_2 = Library(
    "flash-attention-2",
    windows=True,
    style="flash_2",
    wgmma=False,
    blocks=FLASH_2_BLOCKS,
    block_rule=lambda problem, hardware: flash_2_block(problem.head_dim, problem.causal, hardware),
    splits="static",
    split_block=flash_2_split_block,
    row_warps=WARPS,
)
# The first flash-attention, which PyTorch 2.0 and 2.1 have (2.2 brought the second). A CTA holds a block of keys and goes through
# the queries, 16 at a time, adding to results that lie in memory; by symmetry of the two it is taken as a block of queries that
# goes through keys. What it writes again and again, and the warps' exchange of partial sums, show in its parameters.
# exact: Flash_fwd's kernel traits in csrc/flash_attn/src/fmha_fwd_hdim64.cu and its like, at its last release, 1.0.9
FLASH_1 = Library(
    "flash-attention-1",
    style="flash_1",
    wgmma=False,
    blocks=(
        Block(32, 128, 128, 128, 255, 1),
        Block(64, 128, 128, 128, 255, 1),
        Block(128, 128, 32, 128, 255, 1),
    ),
    row_warps=WARPS,
)
# exact: hopper/tile_size.h
FLASH_3 = Library(
    "flash-attention-3",
    windows=True,
    style="flash_3",
    wgmma=True,
    blocks=(
        Block(64, 192, 192, 512, 128, 2),
        Block(96, 192, 144, 512, 128, 2),
        Block(128, 128, 176, 384, 168, 2),
        Block(192, 128, 112, 384, 168, 2),
        Block(256, 128, 80, 384, 168, 2),
    ),
    short=Block(64, 64, 128, 256, 168, 2),
    splits="dynamic",
    helpers=1,
    on_tcgen05="flash-attention-4",
)
# exact: TensorRT-LLM's fmha_v2
TRTLLM = Library(
    "trtllm-fmha",
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
    on_tcgen05="trtllm-gen",
    on_mma="trtllm-mma",
)
# The same library's kernels for mma.sync, whose warps read the queries from registers: `fmha_v2_flash_attention_bf16_64_32_S_80_sm89`
# is 64 queries, 32 keys, head dim 80. They are what runs on Ada, and on Blackwell at head dims that trtllm-gen has no kernels for.
# exact: TensorRT-LLM's fmha_v2, the names of its kernels; those in larger tiles are for compute capability 8.0 and wider heads
TRTLLM_MMA = Library(
    "trtllm-mma",
    style="trtllm_mma",
    wgmma=False,
    blocks=(
        Block(16, 64, 64, 128, 255, 1),
        Block(32, 64, 64, 128, 255, 1),
        Block(40, 64, 32, 128, 255, 1),
        Block(64, 64, 32, 128, 255, 1),
        Block(80, 64, 32, 128, 255, 1),
        Block(128, 64, 32, 128, 255, 1),
        Block(160, 64, 16, 128, 255, 1),
        Block(256, 64, 16, 128, 255, 1),
    ),
    helpers=2,
    repacks=True,
)
# Two query blocks in flight; warpgroups of their own for the softmax, with part of the exponentials as polynomials on the
# FMA units, so that little but the exponentials shows.
# exact: flash-attention's kernels for compute capability 10
FLASH_4 = Library(
    "flash-attention-4",
    windows=True,
    style="flash_4",
    wgmma=True,
    blocks=(
        Block(64, 256, 128, 384, 168, 2),
        Block(128, 256, 128, 384, 168, 2),
        Block(192, 256, 64, 384, 168, 2),
        Block(256, 128, 64, 384, 168, 2),
    ),
)
# cuDNN's fused attention for Hopper, as cuDNN 9.19 names it: `sm90_flash_fprop_wgmma_f16_knob_7_64x128x128_4x1x1`, 64 queries to
# each of two warpgroups beside one that loads, 128 keys, head dims of 64, 128 and 192; a CTA to each SM, which takes tile after
# tile. Its shared memory holds three blocks of keys and of values, one of each at 192.
# exact: blocks and registers, in the names and launches of its kernels
CUDNN = Library(
    "cudnn",
    style="cudnn",
    wgmma=True,
    blocks=(
        Block(64, 128, 128, 384, 168, 3),
        Block(128, 128, 128, 384, 168, 3),
        Block(192, 128, 128, 384, 168, 1),
        Block(256, 128, 64, 384, 168, 2),
    ),
    whole_tiles=True,
    counter=True,
    on_tcgen05="flash-attention-4",
)
# exact: mem_eff_attention/kernel_forward.h; a grid's third dimension counts batches (attention.cu)
EFFICIENT = Library(
    "efficient",
    windows=True,
    style="efficient",
    wgmma=False,
    blocks=(
        Block(64, 64, 64, 128, 128, 3),
        Block(128, 64, 128, 256, 128, 3),
        Block(65536, 32, 128, 128, 128, 3),
    ),
    streams=True,
    takes_masks=True,
    whole_tiles=True,
    most_batch=65535,
    row_warps=WARPS,
)
# torch.nn.attention.flex_attention, compiled: a Triton kernel in flash-attention 2's form that walks over a list of blocks (BlockMask).
# exact: a100_default_flex_config in torch/_inductor/template_heuristics, for halves, of four and eight warps; its three stages keep two
# blocks in shared memory
FLEX = Library(
    "flex-attention",
    style="flex",
    wgmma=False,
    blocks=(
        Block(64, 128, 64, 128, 255, 2),
        Block(128, 128, 64, 256, 255, 2),
        Block(256, 32, 64, 128, 255, 2),
    ),
    windows=True,
    sparse=True,
)
# TensorRT-LLM's kernels for Blackwell (trtllm-gen) are not public; they work on the same tcgen05 instructions as
# flash-attention 4 and are taken to be like it, with the helpers of fmha_v2 around them. On B200 head dim 72 runs at a quarter of
# the rate of 64 and 80, at what mma.sync reaches: there are no kernels of it.
TRTLLM_GEN = FLASH_4._replace(
    name="trtllm-gen",
    windows=False,
    style="trtllm_gen",
    helpers=TRTLLM.helpers,
    repacks=True,
    on_mma=TRTLLM_MMA.name,
    dim_step=16,  # exact: 64 and 80 have kernels, 72 has none
)

BASELINE = "baseline"
LIBRARIES: dict[str, Library] = {}
KERNELS: list[str] = [BASELINE]  # what a table's column may say: the libraries, then unfused attention


def add(library: Library, values: str = "") -> None:
    """Make a library known everywhere. values: the YAML file that names it and its group, for one that does not ship with
    simtti.

    Raises:
        InputError: there is a kernel of attention of its name.
    """
    if library.name in KERNELS:
        raise InputError(f"there is an attention library {library.name!r} already")
    LIBRARIES[library.name] = library
    KERNELS.insert(-1, library.name)
    if values:
        devices.add_values(values)


def remove(library: Library, values: str = "") -> None:
    """Forget a library that `add` made known."""
    del LIBRARIES[library.name]
    KERNELS.remove(library.name)
    if values:
        devices.remove_values(values)


for _library in (FLASH_1, FLASH_2, FLASH_3, FLASH_4, TRTLLM, TRTLLM_MMA, TRTLLM_GEN, CUDNN, EFFICIENT, FLEX):
    add(_library)
