"""Attention: the kernels that softmax(Q·Kᵀ)·V launches, by library.

*Fused* kernels (flash-attention-2, -3, -4, trtllm-fmha, efficient) give a CTA to each block of queries of each
(batch, head). It loads its queries once and walks over the keys and values in blocks: scores on the tensor cores,
exponentials on the special-function units, weighted values on the tensor cores; the score matrix never leaves the SM.
What decides their time:

- tiles. The head dim is padded to the kernel's, queries and keys to whole blocks. Temporal attention, thousands of
  sequences of 16 frames, pays for a full block each: padding, not FLOPs, is why it is slow;
- softmax beside the tensor cores. A warpgroup that computes exponentials issues no matrix products. Other warpgroups
  and co-resident CTAs hide part of it; the rest, `exposed_softmax` of the time of the exponentials, adds to that of the
  products. At head dim 64 exponentials take as long as the products on Hopper;
- shared memory: with mma.sync every warp reads the whole block of keys and values;
- few CTAs: where (batch, head, query block) leave SMs idle, the keys are split too and a second kernel combines.

*baseline* is what unfused PyTorch issues: batched QKᵀ, softmax over the score matrix in memory, batched PV.

Sources. Tiles and the split rule: Dao-AILab/flash-attention (BSD-3), `flash_fwd_launch_template.h` and
`hopper/tile_size.h`, `heuristics.h`; `Flash_fwd_kernel_traits<128,128,64,4>` in a PyTorch trace (AMD-AGI/TraceLens) is
head dim 128, blocks of 128 and 64, four warps. xformers' CUTLASS kernel: 64 x 64. trtllm: `fmha_v2` for Hopper.
Fitted constants: aiconfigurator database (attention on h100-sxm and h200-sxm, half of 15,264 rows), published figures
of flash-attention 2 and 3 for the rest; fitted 2026-11-23.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

from simtti.errors import unknown
from simtti.hw_configs.hardware import Hardware
from simtti.simulator.kernel import Access, Kernel
from simtti.simulator.kernels.gemm import ELEMENT_BYTES, MMA_SHARE_OF_WGMMA, gemm, has_wgmma


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
    tensor_share: float  # of the tensor cores' attainable rate between softmaxes [0.3, 1]
    setup_cycles: float  # a CTA's prologue [0, 5000]
    row_cycles: float  # and epilogue, for each row of its queries [0, 50]
    step_cycles: float  # barriers at each block of keys [0, 1000]
    edge_bytes_per_cycle: float  # at which a CTA's queries come in and results go out while its products rest [4, inf)
    exposed_loads: float  # of the time to fetch a CTA's first blocks at its share of HBM [0, 1]
    fill_cost: float  # as in gemm.Style
    helpers: int  # small kernels the library launches around it: schedule, semaphores, offsets
    helper_latency_s: float  # of each, a CTA or a few that do next to nothing [0, 4e-6]
    splits: str = ""  # whose rule splits the keys: "static" (flash-attention 2), "dynamic" (3), or nobody's
    repacks: bool = False  # one more helper reads packed Q, K, V and writes them as the kernel wants them
    columns: int = 256  # of the head dim in shared memory at once
    short: Block | None = None  # for sequences of queries no longer than its block, up to its head dim


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
        Block(256, 64, 64, 128, 255, 1),
    ),
    exposed=0.5,
    tensor_share=1.0,
    setup_cycles=300.0,
    row_cycles=19.0,
    step_cycles=1920.0,
    edge_bytes_per_cycle=10.0,
    exposed_loads=0.0,
    fill_cost=1.22,
    helpers=0,
    helper_latency_s=0.0,
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
    edge_bytes_per_cycle=math.inf,
    exposed_loads=0.214,
    fill_cost=0.27,
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
    edge_bytes_per_cycle=math.inf,
    exposed_loads=0.07,
    fill_cost=0.27,
    helpers=2,
    helper_latency_s=0.34e-6,
    repacks=True,
)
# Two query blocks in flight and part of the exponentials as polynomials on the FMA units, so softmax hides behind the
# products (FlashAttention-4, Blackwell); no measurement of ours: cuDNN on GB200 attains 70-80 % of peak.
FLASH_4 = FLASH_3._replace(
    blocks=(
        Block(64, 256, 128, 384, 168, 2),
        Block(128, 256, 128, 384, 168, 2),
        Block(192, 256, 64, 384, 168, 2),
    ),
    exposed=0.35,
)
EFFICIENT = Library(
    wgmma=False,
    blocks=(
        Block(32, 64, 64, 128, 168, 1),
        Block(64, 64, 64, 128, 168, 1),
        Block(128, 64, 64, 128, 168, 1),
        Block(256, 64, 64, 128, 168, 1),
    ),
    exposed=0.35,
    tensor_share=0.42,
    setup_cycles=1500.0,
    row_cycles=30.0,
    step_cycles=800.0,
    edge_bytes_per_cycle=math.inf,
    exposed_loads=0.0,
    fill_cost=1.0,
    helpers=0,
    helper_latency_s=0.0,
    columns=64,
)
LIBRARIES = {
    "flash-attention-2": FLASH_2,
    "flash-attention-3": FLASH_3,
    "flash-attention-4": FLASH_4,
    "trtllm-fmha": TRTLLM,
    "efficient": EFFICIENT,
}
KERNELS = (*LIBRARIES, "baseline")

# FP32 instructions of an element beside its exponential, which the special-function units wait for: scale, maximum,
# sum, conversion, rescaling [3, 12].
SOFTMAX_SLOTS = 4.0
# What the warps of two resident flash-attention 2 CTAs issue of mma.sync, between its loads from shared memory: some nine
# cycles an instruction of 16x8x16 and sub-core, on A100 and H100 alike; Ada's and gaming parts' tensor cores are slower
# than that [1000, 2600].
MMA_FLOPS_PER_CYCLE = 2040.0
# Bytes that a CTA writes of its FP32 part of split keys in a cycle, row by row [2, 64].
PARTIAL_BYTES_PER_CYCLE = 15.7
# Kernels that run for milliseconds bring a board whose tensor cores could draw more than its power limit down in clock:
# by this for each power limit that they could draw beyond it [0, 0.3]; half of it where they work for so many seconds.
# Measurements repeat a kernel, so that its own length decides what the power controller sees.
THROTTLED_SHARE = 0.13
THROTTLED_AFTER_S = 5e-3
# The kernel that adds up the parts of split keys: a CTA of 256 threads takes 16 or 8 query rows (kBlockM in
# flash_fwd_combine_launch_template.h); three dependent trips.
COMBINE_LATENCY_S = 0.5e-6
REPACK_LATENCY_S = 1.0e-6

# Softmax over rows of scores. Rows up to 1,024 stay in the registers of a warp or part of one (PyTorch's
# softmax_warp_forward, 128 threads a CTA); longer ones take a CTA and three passes: maximum, sum, result (cunn_SoftMaxForward).
SOFTMAX_WARP_ROW = 1024
SOFTMAX_PASS_LATENCY_S = 1.0e-6
SOFTMAX_EFFICIENCY = 0.8  # of attainable HBM and L2 bandwidth, where rows are whole 16 bytes
SOFTMAX_UNALIGNED = (
    0.3  # of that where they are not: 2,171 us for 82,960 rows of 5,185 (H100, AMD-AGI/TraceLens)
)


def attention(
    batch: int,
    heads: int,
    q_len: int,
    kv_len: int,
    head_dim: int,
    causal: bool,
    dtype: str,
    hardware: Hardware,
    kernel: str | None = None,
    *,
    kv_heads: int | None = None,
    q: int = -1,
    k: int = -2,
    v: int = -3,
    out: int = -4,
    workspace: int = -5,
    family: str = "attention",
) -> list[Kernel]:
    """The kernels of attention over `batch` x `heads` sequences.

    Args:
        causal: queries see the keys up to their own position, counted from the end.
        kernel: one of KERNELS; the device's default if None. fp32 and head dims that a flash kernel lacks run on
            'efficient', as PyTorch's dispatch does.
        kv_heads: heads of keys and values where fewer than of queries.
        q, k, v, out: tensor identities; workspace and workspace - 1 name intermediate results.

    Raises:
        InputError: no such kernel.
    """
    kernel = kernel or hardware.attention_kernel
    if min(batch, heads, q_len, kv_len, head_dim) < 1:
        raise ValueError(
            f"attention: batch, heads, q_len, kv_len and head_dim must be at least 1, not "
            f"{batch}, {heads}, {q_len}, {kv_len}, {head_dim}"
        )
    if kernel not in KERNELS:
        raise unknown("attention kernel", kernel, KERNELS)
    size = ELEMENT_BYTES[dtype]
    queries = float(batch * heads * q_len * head_dim * size)
    keys = float(batch * (kv_heads or heads) * kv_len * head_dim * size)
    reads = (Access(q, queries), Access(k, keys), Access(v, keys))
    writes = (Access(out, queries),)
    if kernel == "baseline":
        return _baseline(
            batch * heads, q_len, kv_len, head_dim, dtype, hardware, reads, writes, workspace, family
        )
    name = _available(kernel, head_dim, dtype, hardware)
    library = LIBRARIES[name]
    return _fused(
        name,
        library,
        batch,
        heads,
        q_len,
        kv_len,
        head_dim,
        causal,
        dtype,
        hardware,
        reads,
        writes,
        workspace,
        family,
    )


def _available(kernel: str, head_dim: int, dtype: str, hardware: Hardware) -> str:
    """`kernel`, or what PyTorch's dispatch takes in its place: flash-attention 2 where the device lacks the tensor-core
    instructions, 'efficient' for fp32, large head dims and devices before Ampere."""
    if kernel != "flash-attention-2" and LIBRARIES[kernel].wgmma and not has_wgmma(hardware):
        kernel = "flash-attention-2"
    if kernel == "efficient":
        return kernel
    library = LIBRARIES[kernel]
    supported = (
        hardware.architecture not in ("volta", "turing")
        and dtype != "fp32"
        and head_dim <= library.blocks[-1].head_dim
        and _shared_memory(library, _block(library, head_dim), 2) < hardware.shared_memory_per_sm_bytes
    )
    return kernel if supported else "efficient"


def _block(library: Library, head_dim: int, q_len: int = 1 << 30) -> Block:
    """The smallest blocking for `head_dim`; beyond the last, the last walks over the head dim in steps of 64."""
    if library.short and head_dim <= library.short.head_dim and q_len <= library.short.queries:
        return library.short
    for block in library.blocks:
        if head_dim <= block.head_dim:
            return block
    return library.blocks[-1]._replace(head_dim=-(-head_dim // 64) * 64)


def _shared_memory(library: Library, block: Block, size: int) -> int:
    """Queries and the ring of keys and values, or those columns of them that are there at once."""
    rows = block.queries + 2 * block.stages * block.keys
    return rows * min(block.head_dim, library.columns) * size


def _fused(
    name: str,
    library: Library,
    batch: int,
    heads: int,
    q_len: int,
    kv_len: int,
    head_dim: int,
    causal: bool,
    dtype: str,
    hardware: Hardware,
    reads: tuple[Access, ...],
    writes: tuple[Access, ...],
    workspace: int,
    family: str,
) -> list[Kernel]:
    size = ELEMENT_BYTES[dtype]
    sequences = batch * heads
    block = _block(library, head_dim, q_len)
    q_blocks = -(-q_len // block.queries)
    whole_key_blocks = -(-kv_len // block.keys)
    splits, combines = 1, False
    if library.splits == "static":
        splits = key_splits(sequences * q_blocks, hardware.sm_count, whole_key_blocks)
        combines = splits > 1
    elif library.splits == "dynamic":
        splits, combines = dynamic_splits(sequences, batch, q_blocks, whole_key_blocks, hardware.sm_count)
    if causal:
        key_blocks = _visible_blocks(q_len, kv_len, block, q_blocks) / splits
    else:
        key_blocks = float(-(-whole_key_blocks // splits))
    keys = key_blocks * block.keys
    rows = q_len / q_blocks
    out_size = 4 if splits > 1 else size
    flops = 4.0 * block.queries * keys * block.head_dim
    exponentials = block.queries * keys
    edge_cycles = 2 * rows * head_dim * size / library.edge_bytes_per_cycle
    tensor_share = _tensor_share(library, flops, exponentials, edge_cycles, dtype, hardware)
    visible = _visible_share(q_len, kv_len) if causal else 1.0
    cuda_cores = dtype == "fp32" and not hardware.tensor_tf32_flops_per_cycle_sm
    real_keys = min(keys, kv_len / splits)
    tile_bytes = size * head_dim * (rows + 2 * min(block.stages * block.keys, real_keys))
    ctas = sequences * q_blocks * splits
    load_s = tile_bytes * max(
        hardware.hbm_latency_s / tile_bytes, min(ctas, hardware.sm_count) / hardware.hbm_attained_bytes_per_s
    )
    tensor_s = flops / (hardware.tensor_flops_per_cycle_sm(dtype) * hardware.clock_hz * tensor_share)
    tensor_share *= _sustained_share(tensor_s * ctas / hardware.sm_count, hardware)
    waits = library.setup_cycles + library.row_cycles * block.queries + library.step_cycles * key_blocks
    if splits > 1:
        waits += 4 * rows * head_dim / PARTIAL_BYTES_PER_CYCLE
    partial = (Access(workspace, 4.0 * sequences * q_len * (head_dim + 1) * splits),)
    active = hardware.sm_count / q_blocks * 2.0 * kv_len * head_dim * size
    main = Kernel(
        name=f"{name}_{block.head_dim}_{block.queries}x{block.keys}"
        + (f"_split{splits}" if splits > 1 else ""),
        family=family,
        grid=ctas,
        threads=block.threads,
        registers=block.registers,
        shared_memory_bytes=_shared_memory(library, block, size),
        tensor_flops=0.0 if cuda_cores else flops,
        fp32_flops=flops if cuda_cores else 0.0,
        tensor_dtype="fp16" if cuda_cores else dtype,
        tensor_efficiency=1.0 if cuda_cores else tensor_share,
        sfu_ops=exponentials,
        shared_bytes=_shared_traffic(library, block, key_blocks, size),
        l2_bytes=rows * head_dim * (size + out_size) + 2.0 * real_keys * head_dim * size,
        latency_s=waits / hardware.clock_hz + library.exposed_loads * load_s,
        bytes_in_flight=float((block.queries + 2 * block.stages * block.keys) * head_dim * size),
        reads=reads,
        writes=writes if splits == 1 else partial,
        hbm_reread_bytes=(-(-q_blocks // hardware.sm_count) - 1) * (reads[1].nbytes + reads[2].nbytes)
        if active > hardware.l2_usable_bytes
        else 0.0,
        flops=4.0 * sequences * q_len * kv_len * head_dim * visible,
    )
    kernels = [_helper(name, library, family) for _ in range(library.helpers)]
    if library.repacks:
        kernels.append(_repack(name, reads, family))
    kernels.append(main)
    if combines:
        kernels.append(_combine(name, sequences * q_len, head_dim, splits, size, partial, writes, family))
    return kernels


def _tensor_share(
    library: Library, flops: float, exponentials: float, edge_cycles: float, dtype: str, hardware: Hardware
) -> float:
    """Of the attainable rate of the tensor cores: products beside softmax, what neither hides of the other, and the
    two ends of the CTA."""
    rate = hardware.tensor_flops_per_cycle_sm(dtype)
    ideal = flops / rate
    if not library.wgmma:
        rate = min(rate * (MMA_SHARE_OF_WGMMA if has_wgmma(hardware) else 1.0), MMA_FLOPS_PER_CYCLE)
    products = flops / (rate * library.tensor_share)
    lanes = hardware.fp32_flops_per_cycle_sm / 2
    softmax = exponentials * (1 / hardware.sfu_ops_per_cycle_sm + SOFTMAX_SLOTS / lanes)
    return ideal / (max(products, softmax) + library.exposed * min(products, softmax) + edge_cycles)


def _sustained_share(busy_s: float, hardware: Hardware) -> float:
    """Of the clock, what is left under the power limit to a kernel whose tensor cores work for `busy_s`."""
    drawn_w = hardware.static_power_w + hardware.peak_flops() * hardware.tensor_j_per_flop
    excess = min(max(drawn_w / hardware.power_limit_w - 1, 0.0), 1.0)
    return 1 - THROTTLED_SHARE * excess / (1 + (THROTTLED_AFTER_S / busy_s) ** 2)


def _shared_traffic(library: Library, block: Block, key_blocks: float, size: int) -> float:
    """Bytes through shared memory: every warp (mma) or warpgroup (wgmma) reads its queries and all keys and values."""
    readers = block.queries // 64 if library.wgmma else block.threads // 32
    walked = readers * 2 * block.keys + block.queries + 2 * library.fill_cost * block.keys
    return walked * block.head_dim * size * key_blocks


def _visible_blocks(q_len: int, kv_len: int, block: Block, q_blocks: int) -> float:
    """Blocks of keys that a block of queries walks over under a causal mask, on average."""
    if q_blocks > 64:  # the sum's closed form without the rounding at the ends
        first, last = kv_len - q_len + block.queries, kv_len
        return max((max(first, 0) + last) / 2 / block.keys + 0.5, 1.0)
    total = 0
    for index in range(q_blocks):
        seen = min(kv_len - q_len + (index + 1) * block.queries, kv_len)
        total += max(-(-seen // block.keys), 1)
    return total / q_blocks


def _visible_share(q_len: int, kv_len: int) -> float:
    """Share of the score matrix that a causal mask leaves."""
    if q_len <= kv_len:
        return (kv_len - q_len + (q_len + 1) / 2) / kv_len
    return (kv_len + 1) / 2 / q_len


@functools.lru_cache(maxsize=4096)
def key_splits(ctas: int, sms: int, key_blocks: int) -> int:
    """In how many parts flash-attention walks the keys: the fewest that fill the last wave to 85 % of the best.

    None where the CTAs fill four fifths of the SMs or there are at most four blocks of keys.
    """
    if ctas >= 0.8 * sms or key_blocks <= 4:
        return 1
    most = min(128, sms, key_blocks)
    filled = []
    for splits in range(1, most + 1):
        waves = ctas * splits / sms
        filled.append(waves / -(-ctas * splits // sms))
    best = max(filled)
    return next(index + 1 for index, share in enumerate(filled) if share >= 0.85 * best)


def dynamic_splits(
    sequences: int, batch: int, q_blocks: int, key_blocks: int, sms: int
) -> tuple[int, bool]:
    """In how many parts flash-attention 3 walks the keys, and whether its combining kernel is launched.

    The host takes an upper bound by the static rule, as if the batch were one sequence, and launches the combining
    kernel where that exceeds one. A kernel on the device then divides the blocks of all sequences among the SMs with
    a tenth to spare (`prepare_varlen_num_blocks`).
    """
    most = key_splits(sequences // batch * q_blocks, sms, key_blocks)
    blocks_an_sm = math.ceil(1.1 * sequences * q_blocks * key_blocks / sms)
    splits = max(min(-(-key_blocks // blocks_an_sm), most), 1)
    return -(-key_blocks // -(-key_blocks // splits)), most > 1


def _combine(
    name: str,
    rows: int,
    head_dim: int,
    splits: int,
    size: int,
    partial: tuple[Access, ...],
    writes: tuple[Access, ...],
    family: str,
) -> Kernel:
    """Adds up the parts of split keys. Where the device found one part enough, its CTAs look and leave."""
    cta_rows = 16 if head_dim <= 64 else 8
    moves = splits > 1
    return Kernel(
        name=f"{name}_combine",
        family=family,
        grid=-(-rows // cta_rows),
        threads=256,
        registers=40,
        fp32_flops=2.0 * cta_rows * head_dim * splits * moves,
        l2_bytes=cta_rows * head_dim * (4.0 * splits + size) * moves,
        latency_s=COMBINE_LATENCY_S,
        bytes_in_flight=float(cta_rows * head_dim * 4 * min(splits, 4)),
        reads=partial if moves else (),
        writes=writes if moves else (),
        flops=2.0 * rows * head_dim * splits * moves,
    )


def _helper(name: str, library: Library, family: str) -> Kernel:
    return Kernel(
        name=f"{name}_prepare", family=family, grid=1, threads=128, latency_s=library.helper_latency_s
    )


def _repack(name: str, reads: tuple[Access, ...], family: str) -> Kernel:
    """A copy of Q, K and V: CTAs of 256 threads, 16 bytes a thread in and out."""
    nbytes = sum(access.nbytes for access in reads)
    ctas = max(int(nbytes // 4096), 1)
    return Kernel(
        name=f"{name}_repack",
        family=family,
        grid=ctas,
        threads=256,
        registers=40,
        l2_bytes=2 * nbytes / ctas,
        latency_s=REPACK_LATENCY_S,
        bytes_in_flight=4096.0,
        reads=reads,
        writes=reads,
    )


def _baseline(
    sequences: int,
    q_len: int,
    kv_len: int,
    head_dim: int,
    dtype: str,
    hardware: Hardware,
    reads: tuple[Access, ...],
    writes: tuple[Access, ...],
    workspace: int,
    family: str,
) -> list[Kernel]:
    """Batched products around a softmax. A causal mask saves nothing: it is an added matrix."""
    scores = float(sequences * q_len * kv_len * ELEMENT_BYTES[dtype])
    raw, weights = (Access(workspace, scores),), (Access(workspace - 1, scores),)
    first = gemm(q_len, kv_len, head_dim, sequences, dtype, hardware, reads=reads[:2], writes=raw,
                 workspace=workspace - 2, name="scores", family=family)  # fmt: skip
    last = gemm(q_len, head_dim, kv_len, sequences, dtype, hardware, reads=(*weights, reads[2]), writes=writes,
                workspace=workspace - 2, name="values", family=family)  # fmt: skip
    return [*first, softmax(sequences * q_len, kv_len, dtype, raw, weights, family), *last]


def softmax(
    rows: int, length: int, dtype: str, reads: tuple[Access, ...], writes: tuple[Access, ...], family: str
) -> Kernel:
    """Softmax over `rows` contiguous rows of `length`."""
    size = ELEMENT_BYTES[dtype]
    in_warp = length <= SOFTMAX_WARP_ROW
    lanes = min(1 << (length - 1).bit_length(), 32)
    rows_a_cta = 128 // lanes * (2 if length <= 128 else 1) if in_warp else 1
    passes = 1 if in_warp else 3
    threads = 128 if in_warp else min(1024, max(128, -(-length * size // 16 // 32) * 32))
    elements = float(rows_a_cta * length)
    return Kernel(
        name="warp_softmax" if in_warp else "softmax",
        family=family,
        grid=-(-rows // rows_a_cta),
        threads=threads,
        registers=32,
        fp32_flops=4.0 * elements,
        sfu_ops=elements * (1 if in_warp else 2),
        l2_bytes=elements * size * (passes + 1),
        latency_s=SOFTMAX_PASS_LATENCY_S * passes,
        bytes_in_flight=elements * size,
        memory_efficiency=SOFTMAX_EFFICIENCY * (1.0 if length * size % 16 == 0 else SOFTMAX_UNALIGNED),
        reads=reads,
        writes=writes,
        flops=5.0 * rows * length,
    )
