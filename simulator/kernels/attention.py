"""Attention: the kernels that softmax(Q·Kᵀ)·V launches, by library.

*Fused* kernels (flash-attention-2, -3, -4, trtllm-fmha, efficient) give a CTA to each block of queries of each (batch, head);
the score matrix never leaves the SM (attention_fused.py; what each library's kernels are: libraries.py). *baseline* is what
unfused PyTorch issues: batched QKᵀ, softmax over the score matrix in memory, batched PV.

What is fitted stands in hw_configs/families/attention.yaml.
"""

from __future__ import annotations

import dataclasses
import itertools
import math

from simtti.dtypes import ITEM_BYTES
from simtti.hw_configs.hardware import Hardware
from simtti.simulator.designs import of_each
from simtti.simulator.kernel import Access, Kernel
from simtti.simulator.kernels.attention_choice import choose
from simtti.simulator.kernels.attention_fused import fused
from simtti.simulator.kernels.attention_math import MATH, math_attention
from simtti.simulator.kernels.attention_packed import packed
from simtti.simulator.kernels.attention_problem import Attention, work
from simtti.simulator.kernels.attention_visible import WHOLE
from simtti.simulator.kernels.data_movement import copy, memcpy
from simtti.simulator.kernels.family import Cells, Column, Family, Target, lowered_by, needed
from simtti.simulator.kernels.gemm import Gemm, gemm
from simtti.simulator.kernels.gemm_tiles import for_products
from simtti.simulator.kernels.layout import Operand, as_it_lies, dense
from simtti.simulator.kernels.libraries import (
    BASELINE,
    CUDNN,
    EFFICIENT,
    FLASH_2,
    KERNELS,
    LIBRARIES,
    Library,
    add,
)
from simtti.simulator.kernels.sage import SAGE, SAGE_1
from simtti.simulator.kernels.softmax import Softmax, softmax
from simtti.workloads.trace import Operator, TensorUse

for _library in (SAGE, SAGE_1):
    add(_library)


def attention(problem: Attention, hardware: Hardware) -> list[Kernel]:
    """The kernels of the problem's library, or of the device's, or of what is taken in its place (`choose`).

    Raises:
        InputError: no such kernel.
    """
    if problem.packed:
        return packed(problem, hardware, attention)
    ran = choose(problem, hardware).ran
    if ran == MATH:
        return math_attention(problem, hardware)
    if ran == BASELINE:
        return _baseline(problem, hardware)
    library = LIBRARIES[ran]
    if library.most_batch and problem.batch > library.most_batch:
        return _in_parts(library, problem, hardware)
    return fused(library, problem, hardware)


PART_RESULT = (
    -40
)  # exact: identity of our own, below all other workspaces, of the result of a part of the batch


def _in_parts(library: Library, problem: Attention, hardware: Hardware) -> list[Kernel]:
    """Launches of as many batches as a grid takes; the results of each are copied into their place."""
    kernels: list[Kernel] = []
    left = problem.batch
    while left:
        part = dataclasses.replace(
            problem, batch=min(left, library.most_batch), out=PART_RESULT, workspace=PART_RESULT - 1
        )  # fmt: skip
        kernels += fused(library, part, hardware)
        kernels.append(memcpy(part.out, problem.out, part.writes[0].nbytes, hardware))
        left -= part.batch
    return kernels


def _baseline(problem: Attention, hardware: Hardware) -> list[Kernel]:
    """Batched products around a softmax. A causal mask saves nothing: it is an added matrix."""
    sequences, q_len, kv_len, dtype = problem.sequences, problem.q_len, problem.kv_len, problem.dtype
    queries, keys, values = problem.reads
    workspace, scores = problem.workspace, float(sequences * q_len * kv_len * problem.item_bytes)
    raw, weights = Access(workspace, scores), Access(workspace - 1, scores)
    first = Gemm(
        q_len, kv_len, problem.head_dim, sequences, dtype, (queries, keys), (raw,), workspace=workspace - 2,
        name="scores", family=problem.family,
    )  # fmt: skip
    middle = softmax(Softmax(sequences * q_len, kv_len, dtype, workspace, workspace - 1), hardware)
    last = Gemm(
        q_len, problem.head_dim, kv_len, sequences, dtype, (weights, values), problem.writes,
        workspace=workspace - 2, name="values", family=problem.family,
    )  # fmt: skip
    return [
        *gemm(first, hardware),
        *(dataclasses.replace(each, family=problem.family) for each in middle),
        *gemm(last, hardware),
    ]


# ---- operators of a trace


def problem_of(operator: Operator, target: Target) -> Attention:
    """What an operator of a trace asks for under a policy."""
    query, key, *_ = operator.inputs
    *outer, q_len, head_dim = query.shape
    heads = outer.pop() if outer else 1
    hardware, known, kv_len = target.hardware, operator.attributes, key.shape[-2]
    policy = target.policy.attention_of(str(known.get("kind", "")))
    # The library that was called, where a trace says so, unless another is asked for.
    fused_by = str(known.get("library", hardware.attention_kernel))
    kernel = fused_by if policy == "flash" else policy
    quantized = bool(known.get("quantized"))
    dtype = operator.outputs[0].dtype if quantized and operator.outputs else query.dtype
    if ITEM_BYTES[dtype] == 1 and not hardware.multiplies(dtype):
        dtype = "fp16"
    mask, masked = _mask(operator), bool(known.get("has_mask"))
    if hides_padding(operator, mask) and target.policy.mask in ("drop", "varlen"):
        mask, masked = None, False
        hidden = round(float(known.get("hidden_keys", 0.0)))
        if target.policy.mask == "varlen" and 0 < hidden < kv_len:
            q_len = q_len - hidden if q_len == kv_len else q_len
            kv_len -= hidden
    left, right = known.get("window") or WHOLE
    kinds = tuple(
        (int(queries), int(keys), int(count)) for queries, keys, count in known.get("sequences") or ()
    )
    return Attention(
        math.prod(outer), heads, q_len, kv_len, head_dim, bool(known.get("causal")), dtype, kernel, masked, mask,
        window=(int(left), int(right)), block_share=float(known.get("block_share", 1.0)), packed=kinds, quantized=quantized,
        q=0, k=1, v=2, out=len(operator.inputs),
    )  # fmt: skip


def hides_padding(operator: Operator, mask: Operand | None) -> bool:
    """Whether the mask is the same for all queries, so that it hides keys alone."""
    return mask is not None and not mask.strides[QUERIES]


def said_of_mask(operator: Operator, target: Target) -> str:
    """What became of an operator's mask, '' where there is none or it is added to the scores."""
    known, said = operator.attributes, []
    if hides_padding(operator, _mask(operator)) and target.policy.mask in ("drop", "varlen"):
        hidden = round(float(known.get("hidden_keys", 0.0)))
        if target.policy.mask == "drop":
            said.append("mask dropped, padding attended to")
        elif hidden:
            said.append(f"{hidden:,} padded tokens not computed")
        else:
            said.append("mask dropped; how much padding it hides is not known")
    if known.get("sequences"):
        said.append("packed sequences of several lengths")
    if known.get("window") and problem_of(operator, target).sliding is not None:
        said.append(f"sliding window of {known['window'][0]:,} keys")
    if float(known.get("block_share", 1.0)) < 1:
        said.append(f"{known['block_share']:.0%} of the blocks")
    return ", ".join(said)


def _lower(operator: Operator, target: Target) -> list[Kernel]:
    problem, hardware = problem_of(operator, target), target.hardware
    if problem.kernel != BASELINE:
        return attention(problem, hardware)
    slots, before, after = _made_dense(operator, hardware)
    q, k, v, out = slots
    products = of_each(for_products, hardware, target.policy.tf32)
    return [
        *before,
        *attention(dataclasses.replace(problem, q=q, k=k, v=v, out=out), products),
        *after,
    ]


# exact: the mask's place among the operands; dimensions of the scores, and which counts the queries: a mask that is the same for
# all of them hides keys, padding
MASK, SCORES_RANK, QUERIES = 3, 4, 2


def _mask(operator: Operator) -> Operand | None:
    """The mask as it lies over (batch, heads, queries, keys): dimensions of one element are repeated."""
    if len(operator.inputs) <= MASK:
        return None
    use = operator.inputs[MASK]
    missing = SCORES_RANK - len(use.shape)
    if missing < 0:
        return None
    steps = (step if size > 1 else 0 for size, step in zip(use.shape, use.strides, strict=True))
    return Operand(MASK, (*(0,) * missing, *steps), use.dtype)


# Of the four tensors, in the order of the slots of `_made_dense`, the workspaces that copies of them lie in.
DENSE_COPIES = (-20, -21, -22, -23)  # exact: identities of our own, below all other workspaces


def _made_dense(operator: Operator, hardware: Hardware) -> tuple[list[int], list[Kernel], list[Kernel]]:
    """What unfused attention copies before its batched products and after: one stride has to count batches and heads
    (aten::bmm takes three dimensions), and the result comes out by batch and head, where the trace's lies by token.

    Returns the slots of queries, keys, values and result as the products see them, and the copies on either side.
    """
    slots: list[int] = []
    before: list[Kernel] = []
    after: list[Kernel] = []
    query, key, value, *_ = operator.inputs
    result = len(operator.inputs)
    uses = {0: query, 1: key, 2: value, result: operator.outputs[0]}
    for (own, use), workspace in zip(uses.items(), DENSE_COPIES, strict=True):
        if batches_count_as_one(use):
            slots.append(own)
            continue
        lies, copied = as_it_lies(use, own), dense(workspace, use.shape, use.dtype)
        slots.append(copied.tensor)
        if own == result:
            after += copy(use.shape, copied, lies, hardware)
        else:
            before += copy(use.shape, lies, copied, hardware)
    return slots, before, after


def batches_count_as_one(use: TensorUse) -> bool:
    """Whether a single stride steps through all dimensions before the last two."""
    outer = [(size, step) for size, step in zip(use.shape[:-2], use.strides[:-2], strict=True) if size > 1]
    return all(step == size * inner for (_, step), (size, inner) in itertools.pairwise(outer))


# ---- rows of a table


# What PyTorch calls its own backends: the libraries they are.
BACKENDS = {"flash": FLASH_2.name, "efficient": EFFICIENT.name, "cudnn": CUDNN.name, "baseline": BASELINE}


def _kernels(cells: Cells, hardware: Hardware) -> list[Kernel]:
    kernel, backend = cells.text("kernel"), cells.text("backend")
    if kernel is None and backend is not None:
        kernel = BACKENDS[backend]
    problem = Attention(
        cells.whole("batch"), cells.whole("heads"), cells.whole("q_len"), cells.whole("kv_len"), cells.whole("head_dim"),
        cells.flag("causal"), cells.dtype, kernel,
    )  # fmt: skip
    return attention(problem, for_products(hardware, cells.flag("tf32")) if kernel == BASELINE else hardware)


ATTENTION = Family(
    op="attention",
    columns=(
        *needed("heads q_len kv_len head_dim"),
        Column("batch", 1),
        Column("causal", False, bool),
        Column("kernel", None, str, words=KERNELS),
        Column("tf32", False, bool),
        Column("backend", None, str, words=tuple(BACKENDS)),
    ),
    note=f"kernel: {' '.join(KERNELS)}; or PyTorch's backend: {' '.join(BACKENDS)}",
    kernels=_kernels,
    work=work,
    aten=lowered_by(_lower, "scaled_dot_product_attention"),
)
