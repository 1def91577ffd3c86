"""Fused attention: the kernels of the libraries, from their records and their parameters on a device.

A CTA takes a block of queries of one (batch, head). It loads its queries once and walks over the keys and values in blocks:
scores on the tensor cores, exponentials on the special-function units, weighted values on the tensor cores; the score matrix
never leaves the SM. What decides their time:

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
its loads.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

from simtti.hw_configs.hardware import Hardware
from simtti.hw_configs.parameters import AttentionStyle
from simtti.simulator.kernel import Access, Kernel
from simtti.simulator.kernels.attention_problem import Attention
from simtti.simulator.kernels.attention_splits import dynamic_splits, key_splits
from simtti.simulator.kernels.attention_visible import causal_blocks, window_blocks
from simtti.simulator.kernels.data_movement import memset
from simtti.simulator.kernels.libraries import (
    SLICE,
    Block,
    Library,
    block_of,
    shared_memory_bytes,
)
from simtti.simulator.kernels.machine import (
    FP32_BYTES,
    LANES,
    SECTOR_BYTES,
    TCGEN05_ROWS,
    VECTOR_BYTES,
    WGMMA_ROWS,
)

TF32_PASSES = 3  # exact: products in TF32 for one in fp32 (CUTLASS's OpMultiplyAddFastF32)
WARP_TILE = 32  # exact: rows and columns of a warp's tile in CUTLASS's chained products (kernel_forward.h)
COMBINE = {
    "static": (128, 1, 54),
    "dynamic": (256, 64, 40),
}  # exact: threads, step of the head dim (flash_fwd_kernel.h, combine), registers of a thread (torch.profiler, the first)
COMBINE_ELEMENTS = 4  # exact: of a thread (same file)
COMBINE_COLUMNS = 128  # exact: of a row at once (same file)
COUNTER_BYTES = 4.0  # exact: of the counter that tiles are taken from
HELPER_THREADS = 128  # exact: of a kernel of one CTA, so that they decide nothing
REPACK_THREADS = 256  # exact: of a CTA that copies, 16 bytes a thread
COPY_REGISTERS = 40  # exact: of a thread that copies, few enough that CTAs fill an SM's threads


def fused(library: Library, problem: Attention, hardware: Hardware) -> list[Kernel]:
    """The kernels of a library: those around it, the kernel itself, and what combines the parts of split keys."""
    library, parts = library.on(hardware), hardware.attention_parts
    writes, useful = problem.writes, problem.flops
    before: list[Kernel] = []
    if library.prepare and not problem.quantized:
        before, problem = library.prepare(library, problem, hardware)
    reads: tuple[Access, ...] = problem.reads
    if library.value_bytes:
        bytes_of_three = (1, 1, library.value_bytes)
        reads = tuple(
            Access(each.tensor, each.nbytes / problem.item_bytes * size)
            for each, size in zip(reads, bytes_of_three, strict=True)
        )
    cut = _divide(library, problem, hardware)
    partial_bytes = (
        float(FP32_BYTES) * problem.sequences * problem.q_len * (problem.head_dim + 1) * cut.splits
    )
    partial = (Access(problem.workspace, partial_bytes),)
    helper_s = library.style_of_helpers_on(hardware).helper_latency_s
    kernels = [*before, *(_helper(library, helper_s, problem.family) for _ in range(library.helpers))]
    if library.counter:
        kernels.append(memset(problem.workspace, COUNTER_BYTES, hardware))
    if library.repacks:
        kernels.append(_repack(library, reads, parts.repack_latency_s, problem.family, hardware))
    main = _main(library, problem, cut, reads, writes if cut.splits == 1 else partial, hardware)
    kernels.append(dataclasses.replace(main, flops=useful))
    if cut.combines:
        kernels.append(_combine(library, problem, cut, partial, hardware))
    return [_held(kernel, problem, hardware) for kernel in kernels]


def _held(kernel: Kernel, problem: Attention, hardware: Hardware) -> Kernel:
    """`kernel` in a benchmark that repeats it on the same operands: an L2 without partitions, which replaces the oldest lines, still
    has them where they fit. Of others nothing is known."""
    power = hardware.gemm_launch.loss_power
    if power <= 1 or not kernel.unique_bytes:
        return kernel
    whole = sum(access.nbytes for access in (*problem.reads, *problem.writes))
    gone = min(max(whole, kernel.unique_bytes) / hardware.l2_usable_bytes, 1.0) ** power
    return dataclasses.replace(
        kernel, repeated_hbm_bytes=kernel.unique_bytes * gone + kernel.hbm_reread_bytes
    )


class _Division(NamedTuple):
    """How the work is cut: blocks, and parts of the keys. key_blocks: that a CTA walks over, on average."""

    block: Block
    q_blocks: int
    key_blocks: float
    splits: int
    combines: bool


def _divide(library: Library, problem: Attention, hardware: Hardware) -> _Division:
    block = block_of(library, problem, hardware)
    splits, combines = 1, False
    if library.splits == "static" and library.split_block:
        # Two CTAs of 128 threads fit on an SM; the rule counts the blocks of the kernel for split keys.
        parts = library.split_block(problem.head_dim)
        ctas = problem.sequences * -(-problem.q_len // parts.queries)
        splits = key_splits(ctas, 2 * hardware.sm_count, -(-problem.kv_len // parts.keys))
        combines = splits > 1
        if combines:
            block = parts
    q_blocks = -(-problem.q_len // block.queries)
    whole = -(-problem.kv_len // block.keys)
    if library.splits == "dynamic":
        splits, combines = dynamic_splits(problem.batch, problem.heads, q_blocks, whole, hardware.sm_count)
    sizes = problem.q_len, problem.kv_len, block.queries, block.keys
    if problem.sliding is not None and library.windows:
        walked = window_blocks(*sizes, problem.sliding) / splits
    elif problem.causal:
        walked = causal_blocks(*sizes) / splits
    else:
        walked = float(-(-whole // splits))
    if library.sparse:
        walked *= problem.block_share
    return _Division(block, q_blocks, walked, splits, combines)


def _main(
    library: Library,
    problem: Attention,
    cut: _Division,
    reads: tuple[Access, ...],
    writes: tuple[Access, ...],
    hardware: Hardware,
) -> Kernel:
    style, block, splits = library.style_on(hardware), cut.block, cut.splits
    head_dim, sequences = problem.head_dim, problem.sequences
    each, dtype = library.bytes_of(problem), library.dtype_of(problem)
    ctas = sequences * cut.q_blocks * splits
    keys = cut.key_blocks * block.keys
    real_keys = min(keys, problem.kv_len / splits)
    rows = problem.q_len / cut.q_blocks
    exponentials = block.queries * keys
    flops = exponentials * _flops_a_score(library, cut, problem, hardware)
    cuda_cores = not hardware.multiplies(dtype)
    slots = style.softmax_slots + (hardware.attention_mask.slots if problem.masked else 0.0)
    shared_bytes = cut.key_blocks * each.pair / 2 * _shared_elements(library, cut, problem, hardware)
    tensor_share = 1.0
    if not cuda_cores:
        rest = _edge_cycles(library, style, cut, problem)
        if library.streams:  # between barriers, products wait for shared memory
            rest += shared_bytes / hardware.shared_memory_bytes_per_cycle_sm
        tensor_share = _tensor_share(library, flops, exponentials, slots, rest, dtype, hardware)
    walked_again = cut.key_blocks * rows if library.streams else rows  # queries that L2 is asked for
    active = hardware.sm_count / cut.q_blocks * problem.kv_len * head_dim * each.pair
    in_flight = 1 if library.streams else block.stages  # slices of one block, or whole blocks
    l2_bytes = head_dim * (
        walked_again * each.query + rows * (FP32_BYTES if splits > 1 else each.result) + real_keys * each.pair
    )
    if (
        library.streams and head_dim > block.keys
    ):  # results do not fit in registers: in fp32, from block to block of keys
        l2_bytes += FP32_BYTES * rows * head_dim * (2 * cut.key_blocks - 1)
    bytes_in_flight = float((block.queries * each.query + in_flight * block.keys * each.pair) * head_dim)
    waits_s = _waits_s(library, problem, cut, hardware)
    if waits_s:  # no faster than its own waits and products let it fetch
        busy_s = 0.0 if cuda_cores else flops / tensor_share / hardware.tensor_flops_per_cycle_sm(dtype)
        pace_s = waits_s + busy_s / hardware.clock_hz
        bytes_in_flight = min(bytes_in_flight, l2_bytes * hardware.hbm_latency_s / pace_s)
    return Kernel(
        name=f"{library.name}_{min(block.head_dim, _slices(head_dim) * SLICE)}_{block.queries}x{block.keys}"
        + (f"_split{splits}" if splits > 1 else ""),
        family=problem.family,
        grid=ctas,
        threads=block.threads,
        registers=block.registers,
        shared_memory_bytes=shared_memory_bytes(library, block, each),
        tensor_flops=0.0 if cuda_cores else flops,
        # An instruction of the softmax counts as a fused multiply-add.
        fp32_flops=2.0 * slots * exponentials + (flops if cuda_cores else 0.0),
        issue_slots=slots * exponentials + (flops / 2 if cuda_cores else 0.0),
        tensor_dtype="fp16" if cuda_cores else dtype,
        tensor_efficiency=tensor_share,
        sfu_ops=exponentials,
        shared_bytes=shared_bytes,
        l2_bytes=l2_bytes,
        latency_s=_latency_s(library, problem, cut, ctas, hardware),
        bytes_in_flight=bytes_in_flight,
        reads=reads,
        writes=writes,
        hbm_reread_bytes=(-(-cut.q_blocks // hardware.sm_count) - 1) * (reads[1].nbytes + reads[2].nbytes)
        if active > hardware.l2_usable_bytes
        else 0.0,
    )


def _edge_cycles(library: Library, style: AttentionStyle, cut: _Division, problem: Attention) -> float:
    """Cycles of a CTA's SM in which queries come in and results go out; rows that end within a sector take longer, those of keys
    and values too."""
    rows = problem.q_len / cut.q_blocks
    edge = rows * problem.head_dim
    if library.whole_tiles:
        edge = cut.block.queries * cut.block.head_dim
    each = library.bytes_of(problem)
    cycles = edge * (each.query + each.result) / style.edge_bytes_per_cycle
    if problem.head_dim * each.query % SECTOR_BYTES:
        keys = min(cut.key_blocks * cut.block.keys, problem.kv_len / cut.splits)
        cycles += 2 * (style.ragged_row_cycles * rows + style.ragged_key_cycles * keys)
    return cycles


def _slices(elements: int) -> int:
    return -(-elements // SLICE)


def _weighed_share(cut: _Division, problem: Attention) -> float:
    """Of the keys of a block, on average: those whose values chained GEMMs weigh. The last block's second product ends with the
    last slice of 32 that holds a key; its first product and its softmax do not."""
    walked = cut.key_blocks * cut.block.keys
    return min(_slices(problem.kv_len) * SLICE / walked, 1.0)


def _flops_a_score(library: Library, cut: _Division, problem: Attention, hardware: Hardware) -> float:
    """FLOPs of both products for one query and key, with the head dim's padding.

    Where queries and keys are multiplied in INT8, the second product counts for as many INT8 FLOPs as it takes the time of. Chained GEMMs pad it to slices of 32 in the first and whole tiles in the second; in fp32 they make each product of
    three in TF32.
    """
    block = cut.block
    if library.value_bytes:
        return 2.0 * block.head_dim * (1 + library.second_product(hardware))
    if not library.streams:
        return 2 * 2.0 * block.head_dim
    passes = TF32_PASSES if problem.dtype == "fp32" and hardware.tensor_tf32_flops_per_cycle_sm else 1
    slices, tiles = _slices(problem.head_dim) * SLICE, -(-problem.head_dim // block.keys) * block.keys
    return 2.0 * passes * (slices + tiles * _weighed_share(cut, problem))


def _latency_s(library: Library, problem: Attention, cut: _Division, ctas: int, hardware: Hardware) -> float:
    """What a CTA waits for: its prologue and epilogue, its first loads, its part of split keys; on warpgroups, each block
    of keys."""
    style, block, each = library.style_on(hardware), cut.block, library.bytes_of(problem)
    rows = problem.q_len / cut.q_blocks
    own_rows = (
        block.queries * library.row_warps * LANES / block.threads if library.row_warps else block.queries
    )
    cycles = style.setup_cycles + style.row_cycles * own_rows
    if library.wgmma:
        cycles += style.step_cycles * cut.key_blocks
    if cut.splits > 1:
        cycles += FP32_BYTES * rows * problem.head_dim / hardware.attention_parts.partial_bytes_per_cycle
    keys = min(min(block.stages, cut.key_blocks) * block.keys, problem.kv_len / cut.splits)
    first_bytes = problem.head_dim * (rows * each.query + keys * each.pair)
    contended_s = first_bytes * min(ctas, hardware.sm_count) / hardware.hbm_attained_bytes_per_s
    return cycles / hardware.clock_hz + style.exposed_loads * max(contended_s, hardware.hbm_latency_s)


def _waits_s(library: Library, problem: Attention, cut: _Division, hardware: Hardware) -> float:
    """What a CTA of mma.sync waits for between its blocks of keys, alone on its SM; the warps of others fill that time."""
    if library.wgmma:
        return 0.0
    style, block, steps = library.style_on(hardware), cut.block, cut.key_blocks
    if (
        library.streams
    ):  # a barrier and a wait for L2 at each slice of 32 of both products; more warps a sub-core hide it
        tiles = -(-problem.head_dim // block.keys)
        steps *= _slices(problem.head_dim) + tiles * block.keys / SLICE * _weighed_share(cut, problem)
        steps *= library.row_warps * LANES / block.threads
    cycles = style.step_cycles * steps
    if not library.streams and hardware.tensor_flops_per_cycle_sm("fp16"):
        # A warp alone on its sub-core waits for each of its products.
        dtype = "int8" if library.value_bytes else "fp16"
        flops = block.queries * block.keys * cut.key_blocks * _flops_a_score(library, cut, problem, hardware)
        faster = hardware.tensor_flops_per_cycle_sm(dtype) / hardware.tensor_flops_per_cycle_sm("fp16")
        alone = hardware.attention_mma.flops_per_warp_cycle * faster * block.threads / LANES
        cycles += max(flops / alone - flops / _product_rate(library, dtype, hardware), 0.0)
    return cycles / hardware.clock_hz


def _tensor_share(
    library: Library,
    flops: float,
    exponentials: float,
    slots: float,
    rest_cycles: float,
    dtype: str,
    hardware: Hardware,
) -> float:
    """Of the attainable rate of the tensor cores: products beside softmax, of so many issue slots a score, what neither hides of the
    other, and where both rest."""
    style = library.style_on(hardware)
    ideal = flops / hardware.tensor_flops_per_cycle_sm(dtype)
    products = flops / (_product_rate(library, dtype, hardware) * style.tensor_share)
    lanes = hardware.fp32_flops_per_cycle_sm / 2
    softmax = exponentials * (1 / hardware.sfu_ops_per_cycle_sm + slots / lanes)
    return ideal / (max(products, softmax) + style.exposed * min(products, softmax) + rest_cycles)


def _product_rate(library: Library, dtype: str, hardware: Hardware) -> float:
    """FLOPs a cycle of an SM's tensor cores, as far as the warps can issue them."""
    rate = hardware.tensor_flops_per_cycle_sm(dtype)
    if library.wgmma:
        return rate
    two_bytes = hardware.tensor_flops_per_cycle_sm("fp16")
    return min(rate, hardware.attention_mma.flops_per_cycle * rate / two_bytes)


def _shared_elements(library: Library, cut: _Division, problem: Attention, hardware: Hardware) -> float:
    """Elements through shared memory for a block of keys: what each warp (mma), warpgroup (wgmma: 64 rows) or instruction
    (tcgen05: 128 rows) reads of its queries, keys and values, and what fills the ring."""
    block, head_dim = cut.block, problem.head_dim
    style, queries, keys = library.style_on(hardware), block.queries, block.keys
    warps = block.threads // LANES
    if library.streams:  # scores are written and read back
        tiles, weighed = -(-head_dim // keys), _weighed_share(cut, problem)
        read = warps * 2 * WARP_TILE * (_slices(head_dim) * SLICE + keys * tiles * weighed)
        return read + style.fill_cost * (head_dim * (queries + (1 + weighed) * keys) + queries * keys)
    rows = TCGEN05_ROWS if hardware.matrix_unit == "tcgen05" else WGMMA_ROWS
    readers = max(queries // rows, 1) if library.wgmma else warps
    return block.head_dim * (readers * 2 * keys + queries + 2 * style.fill_cost * keys)


def _combine(
    library: Library, problem: Attention, cut: _Division, partial: tuple[Access, ...], hardware: Hardware
) -> Kernel:
    """Adds up the parts of split keys, four elements a thread: flash-attention 2 with CTAs of 128 threads, 3 of 256.
    Where the device found one part enough, its CTAs look and leave."""
    rows, splits, moves = problem.sequences * problem.q_len, cut.splits, cut.splits > 1
    parts = hardware.attention_parts
    threads, step, registers = COMBINE[library.splits]
    width, latency_s = problem.head_dim, parts.combine_latency_s
    if library.splits == "static":
        width, latency_s = cut.block.head_dim, parts.static_combine_latency_s
    columns = math.gcd(-(-width // step) * step, COMBINE_COLUMNS)
    cta_rows = COMBINE_ELEMENTS * threads // columns
    elements = cta_rows * problem.head_dim * moves
    parts_in_flight = min(splits, parts.combine_loads)
    return Kernel(
        name=f"{library.name}_combine",
        family=problem.family,
        grid=-(-rows // cta_rows),
        threads=threads,
        registers=registers,
        fp32_flops=2.0 * elements * splits,
        l2_bytes=float(elements * (FP32_BYTES * splits + problem.item_bytes)),
        latency_s=latency_s,
        bytes_in_flight=float(cta_rows * problem.head_dim * FP32_BYTES * parts_in_flight),
        reads=partial if moves else (),
        writes=problem.writes if moves else (),
    )


def _helper(library: Library, latency_s: float, family: str) -> Kernel:
    return Kernel(
        name=f"{library.name}_prepare", family=family, grid=1, threads=HELPER_THREADS, latency_s=latency_s
    )


def _repack(
    library: Library, reads: tuple[Access, ...], latency_s: float, family: str, hardware: Hardware
) -> Kernel:
    """A copy of Q, K and V: CTAs of 256 threads, 16 bytes a thread in and out."""
    nbytes, cta_bytes = sum(access.nbytes for access in reads), REPACK_THREADS * VECTOR_BYTES
    ctas = max(int(nbytes // cta_bytes), 1)
    waves = -(-ctas * REPACK_THREADS // (hardware.sm_count * hardware.max_threads_per_sm))
    return Kernel(
        name=f"{library.name}_repack",
        family=family,
        grid=ctas,
        threads=REPACK_THREADS,
        registers=COPY_REGISTERS,
        l2_bytes=2 * nbytes / ctas,
        latency_s=latency_s / waves,
        bytes_in_flight=float(cta_bytes),
        reads=reads,
        writes=reads,
    )
