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
import itertools
from collections.abc import Iterator

from simtti.hw_configs.hardware import Hardware
from simtti.simulator.kernel import Kernel
from simtti.simulator.kernels.attention_problem import Attention, work
from simtti.simulator.kernels.data_movement import copy
from simtti.simulator.kernels.elementwise import Walk, walk
from simtti.simulator.kernels.exact_products import Products, exact_products
from simtti.simulator.kernels.family import Cells, Column, Family, needed
from simtti.simulator.kernels.layout import Operand, dense, dense_strides
from simtti.simulator.kernels.reductions import Reduction, reduce
from simtti.simulator.kernels.softmax import Softmax, softmax

MATH = "math"  # exact: what PyTorch calls this backend, and an attention of a policy
FULL = "fp32"  # exact: what halves are computed in


def math_attention(problem: Attention, hardware: Hardware) -> list[Kernel]:
    """The kernels, in order. Queries, keys, values and result lie by token, heads within."""
    lengths = (problem.q_len, problem.q), (problem.kv_len, problem.k), (problem.kv_len, problem.v)
    given = [_Tensor(problem, length, tensor) for length, tensor in lengths]
    work, halves = itertools.count(problem.workspace, -1), problem.dtype != FULL
    kernels: list[Kernel] = []
    query, key, value = (each.to(next(work)) for each in given) if halves else given
    if halves:
        for half, wide in zip(given, (query, key, value), strict=True):
            kernels += copy(half.shape, half.lies(problem.dtype), wide.lies(FULL), hardware)
    scaled = query.to(next(work)), key.to(next(work))
    for source, target in zip((query, key), scaled, strict=True):
        kernels.append(walk(Walk("mul", source.shape, (source.lies(FULL),), target.lies(FULL)), hardware))
    query, key = scaled
    copied = query.to(next(work)), key.to(next(work)), value.to(next(work))
    if problem.batch == 1 or problem.heads == 1:
        copied = query, key, value
    else:
        kernels += copy(query.shape, query.lies(FULL), copied[0].by_head(FULL), hardware)
        kernels += copy(key.shape, key.lies(FULL), copied[1].transposed(FULL), hardware)
    scores, zeroed, result = next(work), next(work), next(work) if halves else problem.out
    sizes = problem.sequences, problem.q_len, problem.kv_len, problem.head_dim
    kernels += exact_products(
        Products(*sizes, copied[0].tensor, copied[1].tensor, scores, "scores"), hardware
    )
    if problem.mask:
        table = (problem.batch, problem.heads, problem.q_len, problem.kv_len)
        raw, scores = dense(scores, table, FULL), next(work)
        kernels.append(walk(Walk("add", table, (raw, problem.mask), dense(scores, table, FULL)), hardware))
    kernels += _safe_softmax(problem, scores, zeroed, work, hardware)
    if copied[2] is not value:
        kernels += copy(value.shape, value.lies(FULL), copied[2].by_head(FULL), hardware)
    sizes = problem.sequences, problem.q_len, problem.head_dim, problem.kv_len
    kernels += exact_products(Products(*sizes, zeroed, copied[2].tensor, result, "values"), hardware)
    if halves:
        out = query.to(problem.out).by_head(problem.dtype)
        kernels += copy(query.shape, query.to(result).by_head(FULL), out, hardware)
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

    def lies(self, dtype: str) -> Operand:
        heads, width = self.problem.heads, self.problem.head_dim
        return Operand(self.tensor, (self.length * heads * width, width, heads * width, 1), dtype)

    def by_head(self, dtype: str) -> Operand:
        return dense(self.tensor, self.shape, dtype)

    def transposed(self, dtype: str) -> Operand:
        """By batch, head, and column of the head."""
        batch, head, row, _ = dense_strides(self.shape)
        return Operand(self.tensor, (batch, head, 1, row // self.problem.head_dim * self.length), dtype)


def _safe_softmax(
    problem: Attention, scores: int, zeroed: int, work: Iterator[int], hardware: Hardware
) -> list[Kernel]:
    """aten::_safe_softmax: softmax, eq, all, zeros, where; and the weights as halves."""
    count, columns = problem.sequences * problem.q_len, problem.kv_len
    flat, table = (count * columns,), (count, columns)
    weights, mask, rows, half = next(work), next(work), next(work), next(work)
    in_mask, one = dense(mask, flat, "bool"), (1,)
    chosen = Operand(rows, (1, 0), "bool"), dense(weights, table, FULL)
    kernels = [
        *softmax(Softmax(count, columns, FULL, scores, weights), hardware),
        walk(Walk("isneginf", flat, (dense(scores, flat, FULL),), in_mask, typed=True), hardware),
        *reduce(Reduction(count, columns, "bool", True, "all", mask, rows), hardware),
        walk(Walk("fill", one, (), dense(zeroed, one, FULL)), hardware),
        walk(Walk("where", table, chosen, dense(zeroed, table, FULL), typed=True), hardware),
    ]
    if problem.dtype != FULL:
        kernels += copy(flat, dense(zeroed, flat, FULL), dense(half, flat, problem.dtype), hardware)
    return kernels


# ---- rows of a table


def _kernels(cells: Cells, hardware: Hardware) -> list[Kernel]:
    problem = Attention(
        cells.whole("batch"), cells.whole("heads"), cells.whole("q_len"), cells.whole("kv_len"), cells.whole("head_dim"),
        cells.flag("causal"), cells.dtype,
    )  # fmt: skip
    return math_attention(problem, hardware)


MATH_ATTENTION = Family(
    op="math_attention",
    columns=(*needed("heads q_len kv_len head_dim"), Column("batch", 1), Column("causal", False, bool)),
    note="softmax(Q K^T) V by PyTorch's math backend: halves are computed in fp32",
    kernels=_kernels,
    work=work,
)
