"""SageAttention: queries and keys multiplied in INT8, attention weights and values in FP8 or FP16, and the kernels that quantise them.

*sage* is `sageattn()` of SageAttention 2.2 (SageAttention2++), which has kernels by compute capability (sageattention/core.py): 8.0
multiplies values in FP16 with FP32 accumulators; 8.6 calls the Triton kernel, whose accumulators are FP16; 8.9 and 12.0 multiply
values in FP8 with FP16 accumulators; 9.0 in FP8 with FP32 accumulators, by wgmma. Elsewhere it raises. *sage-1* is version 1.0.6, which
`pip install sageattention` gives: the Triton kernel everywhere.

Tensor cores multiply FP8 with FP16 accumulators at INT8's rate and FP16 with FP16 accumulators at half of it (NVIDIA Ada GPU
architecture whitepaper, appendix A; GA102 and GA100 whitepapers alike), where those of gaming parts halve the rate of FP32
accumulators. So the second product counts as one or two INT8 products; with FP32 accumulators by the device's rates.

Before the kernel the library takes the mean of the keys over the sequence and subtracts it (smoothing), quantises queries and keys with
a scale for each few rows, and brings the values into FP8, transposed, with a scale for each channel, or into FP16. All but the last
read and write tensors once and are taken to be as fast as PyTorch's elementwise kernels; no timing of them has been seen.

Head dims below 64 are padded to 64, those up to 128 to 128, in copies. Masks, fp32 and larger head dims it does not take.

What was fitted or judged stands in hw_configs/families/attention.yaml (groups sage, sage_ada, sage_hopper, sage_triton).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

from simtti.errors import InputError
from simtti.hw_configs.hardware import Hardware
from simtti.simulator.kernel import Access, Kernel
from simtti.simulator.kernels.attention_problem import Attention
from simtti.simulator.kernels.elementwise import Walk, walk
from simtti.simulator.kernels.layout import Operand, dense
from simtti.simulator.kernels.libraries import Block, Library
from simtti.simulator.kernels.quantize import Quantize, quantize
from simtti.simulator.kernels.reductions import Reduction, reduce

FIRST_MADE = (
    -60
)  # exact: identity of our own, below other workspaces, of the first tensor that is made before the kernel
HEAD_DIMS = (64, 128)  # exact: what its kernels take (core.py)
PADDED_KEYS = {
    "sage_hopper": 128
}  # exact: keys are padded to whole blocks before values are transposed (core.py)
VALUES_STEP = 64  # exact: else to whole 64 (quant.py, per_channel_fp8)


def prepare(library: Library, problem: Attention, hardware: Hardware) -> tuple[list[Kernel], Attention]:
    """The kernels before the library's own, and the problem as that one finds it: with its tensors, and padded head dims."""
    made = itertools.count(FIRST_MADE, -1)
    kernels, problem = _padded(problem, made, hardware)
    queries, keys = _shapes(problem)
    mean, smooth, q, k, v = next(made), next(made), next(made), next(made), next(made)
    dtype, table = problem.dtype, dense(problem.k, keys, problem.dtype)
    batch, heads, length, width = keys
    kernels += reduce(
        Reduction(batch * heads * width, length, dtype, inner=False, source=problem.k, target=mean), hardware
    )
    means = Operand(mean, (heads * width, width, 0, 1), dtype)
    kernels.append(walk(Walk("sub", keys, (table, means), dense(smooth, keys, dtype)), hardware))
    kernels.append(_to_int8(dense(problem.q, queries, dtype), q, queries, hardware))
    kernels.append(_to_int8(dense(smooth, keys, dtype), k, keys, hardware))
    if library.value_bytes == 1:
        kernels += _to_fp8(library, problem, v, made, hardware)
    elif dtype != "fp16":
        kernels.append(
            walk(Walk("cast", keys, (dense(problem.v, keys, dtype),), dense(v, keys, "fp16")), hardware)
        )
    else:
        v = problem.v
    # What they compute is none of what attention is asked for.
    kernels = [dataclasses.replace(kernel, family=problem.family, flops=0.0) for kernel in kernels]
    return kernels, dataclasses.replace(problem, q=q, k=k, v=v)


def _shapes(problem: Attention) -> tuple[tuple[int, int, int, int], tuple[int, int, int, int]]:
    """Of queries, and of keys and values: (batch, heads, length, head dim)."""
    kv_heads = problem.kv_heads or problem.heads
    return (
        (problem.batch, problem.heads, problem.q_len, problem.head_dim),
        (problem.batch, kv_heads, problem.kv_len, problem.head_dim),
    )


def _padded(problem: Attention, made: Iterator[int], hardware: Hardware) -> tuple[list[Kernel], Attention]:
    """Copies of queries, keys and values with the head dim of a kernel. The result is a view of a wider one."""
    width = next((dim for dim in HEAD_DIMS if dim >= problem.head_dim), problem.head_dim)
    if width == problem.head_dim:
        return [], problem
    queries, keys = _shapes(problem)
    copies, kernels = [next(made), next(made), next(made)], []
    for source, target, shape in zip(
        (problem.q, problem.k, problem.v), copies, (queries, keys, keys), strict=True
    ):
        lies = dense(source, shape, problem.dtype)
        kernels.append(walk(Walk("pad", shape, (lies,), dense(target, shape, problem.dtype)), hardware))
    q, k, v = copies
    return kernels, dataclasses.replace(problem, q=q, k=k, v=v, head_dim=width)


def _to_int8(source: Operand, target: int, shape: tuple[int, ...], hardware: Hardware) -> Kernel:
    """quant_query_per_thread_int8_kernel and its like: the largest magnitude of a few rows, which stay in registers, then those rows."""
    return walk(Walk("quantize_int8", shape, (source,), dense(target, shape, "int8"), typed=True), hardware)


def _to_fp8(
    library: Library, problem: Attention, target: int, made: Iterator[int], hardware: Hardware
) -> list[Kernel]:
    """per_channel_fp8: values transposed and padded (transpose_pad_permute_cuda), then each channel scaled by its largest
    magnitude (scale_fuse_quant_cuda), a CTA a channel, that goes over it twice."""
    _, (batch, heads, length, width) = _shapes(problem)
    step, dtype, kernels = PADDED_KEYS.get(library.style, VALUES_STEP), problem.dtype, []
    padded = -(-length // step) * step
    shape, source = (batch, heads, padded, width), problem.v
    if padded != length and library.style in PADDED_KEYS:
        source = next(made)
        kernels.append(
            walk(Walk("pad", shape, (dense(problem.v, shape, dtype),), dense(source, shape, dtype)), hardware)
        )
    turned = next(made)
    kernels.append(
        walk(Walk("transpose", shape, (dense(source, shape, dtype),), dense(turned, shape, dtype)), hardware)
    )
    numbers = float(batch * heads * padded * width)
    problem_of_rows = Quantize(
        batch * heads * width, padded, "fp8", dtype, passes=2,
        reads=(Access(turned, numbers * problem.item_bytes),), writes=(Access(target, numbers),), name="scale_fuse_quant",
    )  # fmt: skip
    return [*kernels, quantize(problem_of_rows, hardware.quantize_token, hardware)]


# ---- the libraries

WARPS = 4  # exact: of a CTA, same files as the blocks
# exact: csrc/qattn/qk_int_sv_f16_cuda_sm80.cu, qk_int_sv_f8_cuda_sm89.cuh: four warps of 32 queries, 64 keys
WARP_BLOCKS = (Block(64, 128, 64, 128, 255, 1), Block(128, 128, 64, 128, 255, 1))
AMPERE = Library(
    "sage", style="sage", wgmma=False, blocks=WARP_BLOCKS, value_bytes=2, prepare=prepare, row_warps=WARPS, sparse=True,
)  # fmt: skip
ADA = AMPERE._replace(style="sage_ada", value_bytes=1, value_products=1.0)
# exact: csrc/qattn/qk_int_sv_f8_cuda_sm90.cu: a warpgroup of 64 queries, 128 keys
HOPPER = AMPERE._replace(
    style="sage_hopper",
    wgmma=True,
    blocks=(Block(64, 64, 128, 128, 255, 1), Block(128, 64, 128, 128, 255, 1)),
    value_bytes=1,
    row_warps=0,
)
# exact: sageattention/triton/attn_qk_int8_per_block.py; Triton keeps a stage less in shared memory than its pipeline has
TRITON = AMPERE._replace(
    style="sage_triton",
    blocks=(Block(64, 128, 64, 128, 255, 2), Block(128, 128, 64, 256, 255, 3)),
    value_products=2.0,
    row_warps=0,
)
SHARED_MEMORY_OF_8_0 = (
    160 * 1024
)  # exact: bytes; A100 has 164 KiB, the other Ampere parts 100 (CUDA C++ Programming Guide)
AFTER_HOPPER = ("ada", "blackwell")  # exact: architectures whose mma.sync multiplies FP8


def sage_on(hardware: Hardware) -> Library:
    """What `sageattn()` calls on a device.

    Raises:
        InputError: it raises there.
    """
    _check(hardware, "sage")
    if hardware.matrix_unit == "wgmma":
        return HOPPER
    if hardware.architecture in AFTER_HOPPER:
        return ADA
    return AMPERE if hardware.shared_memory_per_sm_bytes >= SHARED_MEMORY_OF_8_0 else TRITON


def sage_1_on(hardware: Hardware) -> Library:
    """Version 1's Triton kernel, by the tensor cores' instructions.

    Raises:
        InputError: the device has no INT8, or no kernels of it.
    """
    _check(hardware, "sage-1")
    return TRITON._replace(name="sage-1", wgmma=hardware.matrix_unit == "wgmma")


def _check(hardware: Hardware, name: str) -> None:
    if hardware.matrix_unit not in ("mma", "wgmma") or not hardware.multiplies("int8"):
        raise InputError(
            f"{hardware.name} has no kernels of attention {name!r}: SageAttention has them for Ampere, Ada, Hopper and Blackwell of compute "
            f"capability 12.0 and raises elsewhere; this device's tensor cores are {hardware.matrix_unit!r} and multiply "
            f"{', '.join(hardware.tensor_dtypes)}. Take another --attention"
        )


SAGE = AMPERE._replace(by_device=sage_on)
SAGE_1 = TRITON._replace(name="sage-1", by_device=sage_1_on)
