"""Attention by PyTorch's math backend: what it launches where no fused kernel is asked for.

`_scaled_dot_product_attention_math` (aten/src/ATen/native/transformers/attention.cpp) makes of halves:

- copies of queries, keys and values in fp32, and scales queries and keys, each by the root of the scale;
- of batches and heads that no single stride counts (aten::bmm takes one), copies in that order, the keys transposed;
- scores in fp32; torch.bmm of fp32 is exact, without TF32, unless that is allowed;
- the softmax (`_safe_softmax`), then, whether or not there is a mask, whether a row's scores are all minus infinity, and a
  choice of nought for such rows;
- the weights as halves, which it also returns; the values' product in fp32, and the result as halves.

Traces of torch 2.11 on H200 show just these, 14 or 17 of them.
"""

from __future__ import annotations

import dataclasses

from simtti.hw_configs.hardware import Hardware
from simtti.simulator.kernel import Kernel
from simtti.simulator.kernels.attention import ATTENTION
from simtti.simulator.kernels.attention_problem import Attention
from simtti.simulator.kernels.data_movement import copy
from simtti.simulator.kernels.elementwise import Walk, walk
from simtti.simulator.kernels.exact_products import Products, exact_products
from simtti.simulator.kernels.family import Cells, Column, Family, needed
from simtti.simulator.kernels.layout import Operand, dense, dense_strides
from simtti.simulator.kernels.reductions import Reduction, reduce
from simtti.simulator.kernels.softmax import Softmax, softmax

FULL = "fp32"  # exact: what halves are computed in


def math_attention(problem: Attention, hardware: Hardware) -> list[Kernel]:
    """The kernels, in order. Queries, keys, values and result lie by token, heads within."""
    query, key, value = (
        _Tensor(problem, length, tensor)
        for length, tensor in ((problem.q_len, problem.q), (problem.kv_len, problem.k), (problem.kv_len, problem.v))
    )  # fmt: skip
    work = iter(range(problem.workspace, problem.workspace - 20, -1))
    kernels: list[Kernel] = []
    full = [each.to(next(work)) for each in (query, key, value)]
    if problem.dtype != FULL:
        for half, wide in zip((query, key, value), full, strict=True):
            kernels += copy(half.shape, half.operand(problem.dtype), wide.operand(FULL), hardware)
    else:
        full = [query, key, value]
    scaled = [each.to(next(work)) for each in full[:2]]
    for source, target in zip(full, scaled, strict=False):
        source_at, target_at = source.operand(FULL), target.operand(FULL)
        kernels.append(walk(Walk("mul", source.shape, (source_at,), target_at), hardware))
    query, key, value = *scaled, full[2]
    together = problem.batch == 1 or problem.heads == 1
    dense_q, dense_k, dense_v = (
        (query, key, value) if together else (query.to(next(work)), key.to(next(work)), value.to(next(work)))
    )
    if not together:
        kernels += copy(query.shape, query.operand(FULL), dense(dense_q.tensor, query.shape, FULL), hardware)
        kernels += copy(key.shape, key.operand(FULL), dense_k.transposed(FULL), hardware)
    scores, weights, zeroed, mask, rows, half = (next(work) for _ in range(6))
    sizes = problem.sequences, problem.q_len, problem.kv_len, problem.head_dim
    kernels += exact_products(Products(*sizes, dense_q.tensor, dense_k.tensor, scores, "scores"), hardware)
    kernels += _safe_softmax(problem, (scores, weights, mask, rows, zeroed), hardware)
    shape = (problem.sequences * problem.q_len * problem.kv_len,)
    if problem.dtype != FULL:
        kernels += copy(shape, dense(zeroed, shape, FULL), dense(half, shape, problem.dtype), hardware)
    if not together:
        kernels += copy(value.shape, value.operand(FULL), dense(dense_v.tensor, value.shape, FULL), hardware)
    result = problem.out if problem.dtype == FULL else next(work)
    sizes = problem.sequences, problem.q_len, problem.head_dim, problem.kv_len
    kernels += exact_products(Products(*sizes, zeroed, dense_v.tensor, result, "values"), hardware)
    if problem.dtype != FULL:
        kernels += copy(
            query.shape,
            dense(result, query.shape, FULL),
            dense(problem.out, query.shape, problem.dtype),
            hardware,
        )
    return [dataclasses.replace(each, family=problem.family) for each in kernels]


@dataclasses.dataclass(frozen=True, slots=True)
class _Tensor:
    """Queries, keys or values of a problem: rows of `length` tokens, heads within."""

    problem: Attention
    length: int
    tensor: int

    def to(self, tensor: int) -> _Tensor:
        return dataclasses.replace(self, tensor=tensor)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.problem.batch, self.problem.heads, self.length, self.problem.head_dim)

    def operand(self, dtype: str) -> Operand:
        heads, width = self.problem.heads, self.problem.head_dim
        return Operand(self.tensor, (self.length * heads * width, width, heads * width, 1), dtype)

    def transposed(self, dtype: str) -> Operand:
        """By batch, head, and column of the head."""
        batch, head, row, _ = dense_strides(self.shape)
        return Operand(self.tensor, (batch, head, 1, row // self.problem.head_dim * self.length), dtype)


def _safe_softmax(
    problem: Attention, tensors: tuple[int, int, int, int, int], hardware: Hardware
) -> list[Kernel]:
    """aten::_safe_softmax: softmax, eq, all, zeros, where."""
    scores, weights, mask, rows, zeroed = tensors
    count, columns = problem.sequences * problem.q_len, problem.kv_len
    flat, table = (count * columns,), (count, columns)
    return [
        *softmax(Softmax(count, columns, FULL, scores, weights), hardware),
        walk(Walk("isneginf", flat, (dense(scores, flat, FULL),), dense(mask, flat, "bool"), typed=True), hardware),
        *reduce(Reduction(count, columns, "bool", True, "all", mask, rows), hardware),
        walk(Walk("fill", (1,), (), dense(zeroed, (1,), FULL)), hardware),
        walk(
            Walk(
                "where", table, (Operand(rows, (1, 0), "bool"), dense(weights, table, FULL)), dense(zeroed, table, FULL), typed=True
            ),
            hardware,
        ),
    ]  # fmt: skip


# ---- rows of a table


def _kernels(cells: Cells, hardware: Hardware) -> list[Kernel]:
    sizes = (cells.whole(name) for name in ("batch", "heads", "q_len", "kv_len", "head_dim"))
    return math_attention(Attention(*sizes, cells.flag("causal"), cells.dtype), hardware)


MATH_ATTENTION = Family(
    op="math_attention",
    columns=(*needed("heads q_len kv_len head_dim"), Column("batch", 1), Column("causal", False, bool)),
    note="softmax(Q K^T) V by PyTorch's math backend: halves are computed in fp32",
    kernels=_kernels,
    work=ATTENTION.work,
)
