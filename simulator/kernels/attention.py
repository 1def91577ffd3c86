"""Attention: the kernels that softmax(Q·Kᵀ)·V launches, by library.

*Fused* kernels (flash-attention-2, -3, -4, trtllm-fmha, efficient) give a CTA to each block of queries of each
(batch, head). It loads its queries once and walks over the keys and values in blocks: scores on the tensor cores,
exponentials on the special-function units, weighted values on the tensor cores; the score matrix never leaves the SM.
What decides their time:

- tiles. The head dim is padded to the kernel's, queries and keys to whole blocks. Temporal attention, thousands of
  sequences of 16 frames, pays for a full block each: padding, not FLOPs, is why it is slow;
- softmax beside the tensor cores. A warpgroup that computes exponentials issues no matrix products. Other warpgroups
  and co-resident CTAs hide most of the shorter of the two behind the longer; the rest, `exposed`, adds up. At head dim 64
  exponentials, with what else softmax does to each score, take longer than the products on Hopper;
- the warps. mma.sync comes no faster than warps issue it, at A100's rate on Hopper too; a CTA alone on its SM is slower
  still. And every warp reads the whole block of keys and values from shared memory;
- a CTA's ends: its queries come in and its results go out while its products rest;
- few CTAs: where (batch, head, query block) leave SMs idle, the keys are split too and a second kernel combines;
- long kernels lose clock to the power limit.

*efficient* is two chained CUTLASS GEMMs: softmax, products and shared memory take turns, and each slice of 32 waits for
its loads. *baseline* is what unfused PyTorch issues: batched QKᵀ, softmax over the score matrix in memory, batched PV.

What each library's kernels are, and the constants fitted for them, stands in attention_libraries.py.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import NamedTuple

from simtti.errors import unknown
from simtti.hw_configs.hardware import Hardware
from simtti.simulator.kernel import Access, Kernel
from simtti.simulator.kernels.data_movement import copy
from simtti.simulator.kernels.family import Cells, Column, Family, Target, Work, lowered_by, needed
from simtti.simulator.kernels.gemm import ELEMENT_BYTES, gemm
from simtti.simulator.kernels.layout import as_it_lies, dense
from simtti.simulator.kernels.libraries import (
    LIBRARIES,
    ON_BLACKWELL,
    Block,
    Library,
    block_of,
    dynamic_splits,
    flash_2_split_block,
    key_splits,
    shared_memory_bytes,
)
from simtti.simulator.kernels.machine import has_wgmma
from simtti.simulator.kernels.softmax import Softmax, softmax
from simtti.workloads.trace import Operator, TensorUse

KERNELS = (*LIBRARIES, "baseline")


class _Problem(NamedTuple):
    """`batch` x `heads` sequences of `q_len` queries over `kv_len` keys."""

    batch: int
    heads: int
    q_len: int
    kv_len: int
    head_dim: int
    causal: bool
    dtype: str

    @property
    def sequences(self) -> int:
        return self.batch * self.heads

    @property
    def size(self) -> int:
        return ELEMENT_BYTES[self.dtype]


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
    problem = _Problem(batch, heads, q_len, kv_len, head_dim, causal, dtype)
    if kernel == "baseline":
        return _baseline(problem, hardware, reads, writes, workspace, family)
    name = _available(kernel, problem, hardware)
    return _fused(name, problem, hardware, reads, writes, workspace, family)


def _available(kernel: str, problem: _Problem, hardware: Hardware) -> str:
    """`kernel`, or what is taken in its place: Blackwell's own for one of Hopper's; flash-attention 2 where the device lacks the
    tensor-core instructions, 'efficient' for fp32, large head dims and devices before Ampere, as PyTorch's dispatch does."""
    if hardware.architecture == "blackwell" and has_wgmma(hardware):
        kernel = ON_BLACKWELL.get(kernel, kernel)
    if kernel != "flash-attention-2" and LIBRARIES[kernel].wgmma and not has_wgmma(hardware):
        kernel = "flash-attention-2"
    if kernel == "efficient":
        return kernel
    library = LIBRARIES[kernel]
    block = block_of(library, problem.head_dim, problem.q_len, problem.causal, problem.size, hardware)
    supported = (
        hardware.architecture not in ("volta", "turing")
        and problem.dtype != "fp32"
        and problem.head_dim <= library.blocks[-1].head_dim
        and shared_memory_bytes(library, block, 2) < hardware.shared_memory_per_sm_bytes
    )
    return kernel if supported else "efficient"


class _Division(NamedTuple):
    """How the work is cut: blocks, and parts of the keys."""

    block: Block
    q_blocks: int
    key_blocks: float  # that a CTA walks over, on average
    splits: int
    combines: bool


def _divide(library: Library, problem: _Problem, hardware: Hardware) -> _Division:
    block = block_of(library, problem.head_dim, problem.q_len, problem.causal, problem.size, hardware)
    splits, combines = 1, False
    if library.splits == "static":
        # Two CTAs of 128 threads fit on an SM; the rule counts the blocks of the kernel for split keys.
        parts = flash_2_split_block(problem.head_dim)
        ctas = problem.sequences * -(-problem.q_len // parts.queries)
        splits = key_splits(ctas, 2 * hardware.sm_count, -(-problem.kv_len // parts.keys))
        combines = splits > 1
        if combines:
            block = parts
    q_blocks = -(-problem.q_len // block.queries)
    whole = -(-problem.kv_len // block.keys)
    if library.splits == "dynamic":
        splits, combines = dynamic_splits(problem.batch, problem.heads, q_blocks, whole, hardware.sm_count)
    if problem.causal:
        walked = _visible_blocks(problem.q_len, problem.kv_len, block, q_blocks) / splits
    else:
        walked = float(-(-whole // splits))
    return _Division(block, q_blocks, walked, splits, combines)


def _fused(
    name: str,
    problem: _Problem,
    hardware: Hardware,
    reads: tuple[Access, ...],
    writes: tuple[Access, ...],
    workspace: int,
    family: str,
) -> list[Kernel]:
    library = LIBRARIES[name]
    style = library.style_on(hardware)
    size, head_dim, sequences = problem.size, problem.head_dim, problem.sequences
    cut = _divide(library, problem, hardware)
    block, splits = cut.block, cut.splits
    ctas = sequences * cut.q_blocks * splits
    keys = cut.key_blocks * block.keys
    real_keys = min(keys, problem.kv_len / splits)
    rows = problem.q_len / cut.q_blocks
    exponentials = block.queries * keys
    flops = exponentials * _flops_a_score(library, block, problem, hardware)
    cuda_cores = problem.dtype == "fp32" and not hardware.tensor_tf32_flops_per_cycle_sm
    shared_bytes = cut.key_blocks * size * _shared_elements(library, block, head_dim, hardware)
    tensor_share = 1.0
    if not cuda_cores:
        rest = 2 * rows * head_dim * size / style.edge_bytes_per_cycle
        if library.streams:  # between barriers, products wait for shared memory
            rest += shared_bytes / hardware.shared_memory_bytes_per_cycle_sm
        tensor_share = _tensor_share(library, flops, exponentials, rest, problem.dtype, hardware)
    partial = (Access(workspace, 4.0 * sequences * problem.q_len * (head_dim + 1) * splits),)
    walked_again = cut.key_blocks * rows if library.streams else rows  # queries that L2 is asked for
    active = hardware.sm_count / cut.q_blocks * 2.0 * problem.kv_len * head_dim * size
    visible = _visible_share(problem.q_len, problem.kv_len) if problem.causal else 1.0
    in_flight = 1 if library.streams else block.stages  # slices of one block, or whole blocks
    main = Kernel(
        name=f"{name}_{min(block.head_dim, -(-head_dim // 32) * 32)}_{block.queries}x{block.keys}"
        + (f"_split{splits}" if splits > 1 else ""),
        family=family,
        grid=ctas,
        threads=block.threads,
        registers=block.registers,
        shared_memory_bytes=shared_memory_bytes(library, block, size),
        tensor_flops=0.0 if cuda_cores else flops,
        # An instruction of the softmax counts as a fused multiply-add.
        fp32_flops=2.0 * style.softmax_slots * exponentials + (flops if cuda_cores else 0.0),
        issue_slots=style.softmax_slots * exponentials + (flops / 2 if cuda_cores else 0.0),
        tensor_dtype="fp16" if cuda_cores else problem.dtype,
        tensor_efficiency=tensor_share,
        sfu_ops=exponentials,
        shared_bytes=shared_bytes,
        l2_bytes=head_dim
        * (walked_again * size + rows * (4 if splits > 1 else size) + 2.0 * real_keys * size),
        latency_s=_latency_s(library, problem, cut, ctas, hardware),
        bytes_in_flight=float((block.queries + 2 * in_flight * block.keys) * head_dim * size),
        reads=reads,
        writes=writes if splits == 1 else partial,
        hbm_reread_bytes=(-(-cut.q_blocks // hardware.sm_count) - 1) * (reads[1].nbytes + reads[2].nbytes)
        if active > hardware.l2_usable_bytes
        else 0.0,
        flops=4.0 * sequences * problem.q_len * problem.kv_len * head_dim * visible,
    )
    helper_s = library.style_of_helpers_on(hardware).helper_latency_s
    kernels = [_helper(name, helper_s, family) for _ in range(library.helpers)]
    if library.repacks:
        kernels.append(_repack(name, reads, hardware.attention_parts.repack_latency_s, family))
    kernels.append(main)
    if cut.combines:
        latency_s = hardware.attention_parts.combine_latency_s
        kernels.append(_combine(name, problem, cut, partial, writes, latency_s, family))
    return kernels


def _flops_a_score(library: Library, block: Block, problem: _Problem, hardware: Hardware) -> float:
    """FLOPs of both products for one query and key, with the head dim's padding.

    Chained GEMMs pad it to slices of 32 in the first and whole tiles in the second; in fp32 they make each product of
    three in TF32 (CUTLASS's OpMultiplyAddFastF32).
    """
    if not library.streams:
        return 4.0 * block.head_dim
    passes = 3 if problem.dtype == "fp32" and hardware.tensor_tf32_flops_per_cycle_sm else 1
    slices, tiles = -(-problem.head_dim // 32) * 32, -(-problem.head_dim // block.keys) * block.keys
    return 2.0 * passes * (slices + tiles)


def _latency_s(library: Library, problem: _Problem, cut: _Division, ctas: int, hardware: Hardware) -> float:
    """What a CTA waits for: its prologue and epilogue, each block of keys, its first loads, its part of split keys."""
    style, block, size = library.style_on(hardware), cut.block, problem.size
    rows = problem.q_len / cut.q_blocks
    steps = cut.key_blocks
    if library.streams:  # a barrier and a wait for L2 at each slice of 32 of both products
        tiles = -(-problem.head_dim // block.keys)
        steps *= -(-problem.head_dim // 32) + tiles * block.keys // 32
    cycles = style.setup_cycles + style.row_cycles * block.queries + style.step_cycles * steps
    if not library.wgmma and hardware.tensor_flops_per_cycle_sm("fp16"):
        # A warp alone on its sub-core waits for each of its products; another CTA's warps fill that time.
        flops = (
            4.0 * block.queries * block.keys * cut.key_blocks * block.head_dim if not library.streams else 0.0
        )
        alone = hardware.attention_mma.flops_per_warp_cycle * block.threads / 32
        cycles += max(flops / alone - flops / _product_rate(library, "fp16", hardware), 0.0)
    if cut.splits > 1:
        cycles += 4 * rows * problem.head_dim / hardware.attention_parts.partial_bytes_per_cycle
    keys = min(min(block.stages, cut.key_blocks) * block.keys, problem.kv_len / cut.splits)
    first_bytes = size * problem.head_dim * (rows + 2 * keys)
    contended_s = first_bytes * min(ctas, hardware.sm_count) / hardware.hbm_attained_bytes_per_s
    return cycles / hardware.clock_hz + style.exposed_loads * max(contended_s, hardware.hbm_latency_s)


def _tensor_share(
    library: Library, flops: float, exponentials: float, rest_cycles: float, dtype: str, hardware: Hardware
) -> float:
    """Of the attainable rate of the tensor cores: products beside softmax, what neither hides of the other, and where
    both rest."""
    style = library.style_on(hardware)
    ideal = flops / hardware.tensor_flops_per_cycle_sm(dtype)
    products = flops / (_product_rate(library, dtype, hardware) * style.tensor_share)
    lanes = hardware.fp32_flops_per_cycle_sm / 2
    softmax = exponentials * (1 / hardware.sfu_ops_per_cycle_sm + style.softmax_slots / lanes)
    return ideal / (max(products, softmax) + style.exposed * min(products, softmax) + rest_cycles)


def _product_rate(library: Library, dtype: str, hardware: Hardware) -> float:
    """FLOPs a cycle of an SM's tensor cores, as far as the warps can issue them."""
    rate = hardware.tensor_flops_per_cycle_sm(dtype)
    if library.wgmma:
        return rate
    two_bytes = hardware.tensor_flops_per_cycle_sm("fp16")
    return min(rate, hardware.attention_mma.flops_per_cycle * rate / two_bytes)


def _shared_elements(library: Library, block: Block, head_dim: int, hardware: Hardware) -> float:
    """Elements through shared memory for a block of keys: what each warp (mma), warpgroup (wgmma: 64 rows) or instruction
    (tcgen05: 128 rows) reads of its queries, keys and values, and what fills the ring."""
    style, queries, keys = library.style_on(hardware), block.queries, block.keys
    if library.streams:  # warps of 32 x 32; scores are written and read back
        warps, slices, tiles = block.threads // 32, -(-head_dim // 32) * 32, -(-head_dim // keys)
        read = warps * 64 * (slices + keys * tiles)
        return read + style.fill_cost * (head_dim * (queries + 2 * keys) + queries * keys)
    rows = 128 if hardware.architecture == "blackwell" else 64
    readers = max(queries // rows, 1) if library.wgmma else block.threads // 32
    return block.head_dim * (readers * 2 * keys + queries + 2 * style.fill_cost * keys)


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


def _combine(
    name: str,
    problem: _Problem,
    cut: _Division,
    partial: tuple[Access, ...],
    writes: tuple[Access, ...],
    latency_s: float,
    family: str,
) -> Kernel:
    """Adds up the parts of split keys, four elements a thread: flash-attention 2 with CTAs of 128 threads, 3 of 256.
    Where the device found one part enough, its CTAs look and leave."""
    rows, splits, moves = problem.sequences * problem.q_len, cut.splits, cut.splits > 1
    threads, dim_step = (256, 64) if LIBRARIES[name].splits == "dynamic" else (128, 32)
    cta_rows = 4 * threads // math.gcd(-(-problem.head_dim // dim_step) * dim_step, 128)
    elements = cta_rows * problem.head_dim * moves
    return Kernel(
        name=f"{name}_combine",
        family=family,
        grid=-(-rows // cta_rows),
        threads=threads,
        registers=40,
        fp32_flops=2.0 * elements * splits,
        l2_bytes=elements * (4.0 * splits + problem.size),
        latency_s=latency_s,
        bytes_in_flight=float(cta_rows * problem.head_dim * 4 * min(splits, 4)),
        reads=partial if moves else (),
        writes=writes if moves else (),
    )


def _helper(name: str, latency_s: float, family: str) -> Kernel:
    return Kernel(name=f"{name}_prepare", family=family, grid=1, threads=128, latency_s=latency_s)


def _repack(name: str, reads: tuple[Access, ...], latency_s: float, family: str) -> Kernel:
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
        latency_s=latency_s,
        bytes_in_flight=4096.0,
        reads=reads,
        writes=reads,
    )


def _baseline(
    problem: _Problem,
    hardware: Hardware,
    reads: tuple[Access, ...],
    writes: tuple[Access, ...],
    workspace: int,
    family: str,
) -> list[Kernel]:
    """Batched products around a softmax. A causal mask saves nothing: it is an added matrix."""
    sequences, q_len, kv_len, dtype = problem.sequences, problem.q_len, problem.kv_len, problem.dtype
    scores = float(sequences * q_len * kv_len * problem.size)
    raw, weights = (Access(workspace, scores),), (Access(workspace - 1, scores),)
    first = gemm(q_len, kv_len, problem.head_dim, sequences, dtype, hardware, reads=reads[:2], writes=raw,
                 workspace=workspace - 2, name="scores", family=family)  # fmt: skip
    middle = softmax(Softmax(sequences * q_len, kv_len, dtype, workspace, workspace - 1), hardware)
    last = gemm(q_len, problem.head_dim, kv_len, sequences, dtype, hardware, reads=(*weights, reads[2]), writes=writes,
                workspace=workspace - 2, name="values", family=family)  # fmt: skip
    return [*first, *(dataclasses.replace(each, family=family) for each in middle), *last]


# ---- operators of a trace


def _lower(operator: Operator, target: Target) -> list[Kernel]:
    query, key, _ = operator.inputs[:3]
    batch, heads = math.prod(query.shape[:-3]), query.shape[-3] if len(query.shape) > 2 else 1
    policy, hardware = target.policy.attention, target.hardware
    kernel = None if policy == "flash" else policy
    if kernel is None and operator.attributes.get("has_mask"):
        kernel = "efficient"  # PyTorch's flash kernel takes no mask (native/transformers/cuda/sdp_utils.cpp)
    slots = [0, 1, 2, len(operator.inputs)]
    before: list[Kernel] = []
    after: list[Kernel] = []
    if kernel == "baseline":
        slots, before, after = _made_dense(operator, hardware)
    q, k, v, out = slots
    found = attention(
        batch, heads, query.shape[-2], key.shape[-2], query.shape[-1], bool(operator.attributes.get("causal")),
        query.dtype, hardware, kernel, q=q, k=k, v=v, out=out,
    )  # fmt: skip
    received = operator.attributes.get("receives_bytes")
    if received:  # the ring's next keys and values arrive while these are attended to
        main = max(range(len(found)), key=lambda index: found[index].flops)
        found[main] = dataclasses.replace(found[main], link_bytes=float(received))
    return [*before, *found, *after]


def _made_dense(operator: Operator, hardware: Hardware) -> tuple[list[int], list[Kernel], list[Kernel]]:
    """What unfused attention copies before its batched products and after: one stride has to count batches and heads
    (aten::bmm takes three dimensions), and the result comes out by batch and head, where the trace's lies by token.

    Returns the slots of queries, keys, values and result as the products see them, and the copies on either side.
    """
    slots: list[int] = []
    before: list[Kernel] = []
    after: list[Kernel] = []
    for slot, use in enumerate((*operator.inputs[:3], operator.outputs[0])):
        is_result = slot == 3
        own = len(operator.inputs) if is_result else slot
        if batches_count_as_one(use):
            slots.append(own)
            continue
        lies, workspace = as_it_lies(use, own), dense(-20 - slot, use.shape, use.dtype)
        slots.append(workspace.tensor)
        if is_result:
            after += copy(use.shape, workspace, lies, hardware)
        else:
            before += copy(use.shape, lies, workspace, hardware)
    return slots, before, after


def batches_count_as_one(use: TensorUse) -> bool:
    """Whether a single stride steps through all dimensions before the last two."""
    outer = [(size, step) for size, step in zip(use.shape[:-2], use.strides[:-2], strict=True) if size > 1]
    return all(step == size * inner for (_, step), (size, inner) in itertools.pairwise(outer))


# ---- rows of a table


def _kernels(cells: Cells, hardware: Hardware) -> list[Kernel]:
    return attention(
        cells.whole("batch"), cells.whole("heads"), cells.whole("q_len"), cells.whole("kv_len"),
        cells.whole("head_dim"), cells.flag("causal"), cells.dtype, hardware, cells.text("kernel"),
    )  # fmt: skip


def _work(cells: Cells) -> Work:
    heads = cells.whole("batch") * cells.whole("heads")
    queries, keys, width = (cells.whole(name) for name in ("q_len", "kv_len", "head_dim"))
    visible = 0.5 if cells.flag("causal") else 1.0
    return Work(4.0 * heads * queries * keys * width * visible, 2.0 * heads * width * (queries + keys))


ATTENTION = Family(
    op="attention",
    columns=(
        *needed("heads q_len kv_len head_dim"),
        Column("batch", 1),
        Column("causal", False, bool),
        Column("kernel", None, str, words=KERNELS),
    ),
    note=f"kernel: {' '.join(KERNELS)}",
    kernels=_kernels,
    work=_work,
    aten=lowered_by(_lower, "scaled_dot_product_attention"),
)
