"""Operands and operators of a share: tensors that no GPU alone has, others in the size that one of several has."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

from simtti.workloads.trace import ITEM_BYTES, Operator, TensorUse, Trace

# Of torch.distributed, by their names in traces.
ALL_TO_ALL = "c10d::alltoall_base_"
SEND_RECEIVE = "c10d::batch_isend_irecv"
RECEIVE = "c10d::recv_"
ALL_GATHER = "c10d::_allgather_base_"
ALL_REDUCE = "c10d::allreduce_"


def unused_tensors(trace: Trace) -> Iterator[int]:
    """Identities that no tensor of `trace` has."""
    uses = (use.tensor for op in trace.operators() for use in (*op.inputs, *op.outputs))
    return itertools.count(1 + max(uses, default=0))


def made(tensor: int, shape: Sequence[int], dtype: str) -> TensorUse:
    """A dense tensor with a storage of its own."""
    nbytes = math.prod(shape) * ITEM_BYTES[dtype]
    return TensorUse(tensor, tuple(shape), tuple(dense(shape)), dtype, nbytes, "activation")


def dense(shape: Sequence[int]) -> list[int]:
    """Strides in elements of a row-major tensor without gaps."""
    strides = [1]
    for size in reversed(shape[1:]):
        strides.append(strides[-1] * size)
    return strides[::-1][: len(shape)]


def resized(use: TensorUse, shape: Sequence[int]) -> TensorUse:
    """The same layout in other sizes: what lies outside of a dimension moves together, the storage shrinks with the elements."""
    if tuple(shape) == use.shape:
        return use
    strides = list(use.strides)
    for axis in sorted(range(len(shape)), key=lambda axis: use.strides[axis]):
        span, own = strides[axis] * use.shape[axis], strides[axis] * shape[axis]
        if span != own:
            strides = [
                stride // span * own if other != axis and stride >= span and stride % span == 0 else stride
                for other, stride in enumerate(strides)
            ]
    return stored(dataclasses.replace(use, strides=tuple(strides)), shape)


def stored(use: TensorUse, shape: Sequence[int]) -> TensorUse:
    """The use in other sizes, its strides as they are, with as much less storage as it has elements less."""
    nbytes = -(-use.storage_bytes * math.prod(shape) // max(use.numel, 1))
    return dataclasses.replace(use, shape=tuple(shape), storage_bytes=nbytes)


def operator_like(
    like: Operator,
    op: str,
    category: str,
    inputs: tuple[TensorUse, ...],
    outputs: tuple[TensorUse, ...],
    attributes: dict[str, Any] | None = None,
    is_view: bool = False,
) -> Operator:
    """An operator where `like` is: in its phase, step and module."""
    return dataclasses.replace(
        like, op=op, category=category, inputs=inputs, outputs=outputs, attributes=attributes or {}, is_view=is_view,
        released=(),
    )  # fmt: skip


def collective(
    like: Operator, op: str, ranks: int, inputs: tuple[TensorUse, ...], outputs: tuple[TensorUse, ...]
) -> Operator:
    """A collective of `ranks` GPUs, where `like` is."""
    return operator_like(like, op, "Communication", inputs, outputs, {"ranks": ranks})


def renamed(uses: tuple[TensorUse, ...], names: dict[int, int]) -> tuple[TensorUse, ...]:
    """Uses with other identities, of those that `names` knows."""
    return tuple(
        dataclasses.replace(use, tensor=names[use.tensor]) if use.tensor in names else use for use in uses
    )


def numbered(operators: Sequence[Operator]) -> tuple[Operator, ...]:
    """Operators with the positions that they have now."""
    return tuple(dataclasses.replace(op, position=at) for at, op in enumerate(operators))
