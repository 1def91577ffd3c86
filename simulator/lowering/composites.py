"""What newer releases of PyTorch compute in one kernel and a recording has by its parts.

`torch.nn.functional.rms_norm` was a composite (native/layer_norm.cpp, rms_norm_symint: to fp32, square, mean, `add_` of epsilon,
rsqrt, two products, and back) up to 2.7; since 2.8 `aten::_fused_rms_norm` does it in LayerNorm's kernel, as on our own H200 under
2.11. On the meta device it is recorded by its parts under every release. Norms that libraries write out themselves
(diffusers' RMSNorm adds epsilon out of place and casts before it scales) stay what they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from simtti.workloads.trace import Operator

FUSED = "aten::_fused_rms_norm"
# exact: the composite's operators in order; the scale, and in fp32 the casts, may be missing
_CAST, _CORE, _SCALE = "aten::_to_copy", ("pow", "mean", "add_", "rsqrt", "mul"), "aten::mul"


class Composite(NamedTuple):
    """The parts' places in a step, from the first to the last, and the operator that stands for them."""

    first: int
    last: int
    fused: Operator


def rms_norms(operators: Sequence[Operator]) -> Iterator[Composite]:
    """The composites among a step's operators."""
    at = 0
    while at < len(operators):
        found = _rms_norm(operators, at) if operators[at].op in (_CAST, "aten::pow") else None
        if found is None:
            at += 1
        else:
            yield found
            at = found.last + 1


def _rms_norm(operators: Sequence[Operator], first: int) -> Composite | None:
    """The composite that begins at `first`, if one does."""
    module = operators[first].module
    cast = operators[first].op == _CAST
    core = first + cast
    parts = operators[core : core + len(_CORE)]
    if [part.op for part in parts] != [f"aten::{name}" for name in _CORE]:
        return None
    if any(part.module != module for part in parts):
        return None
    x, last = operators[first].inputs[0], core + len(_CORE) - 1
    statistics = parts[1].outputs[0]
    inputs = [x]
    following = operators[last + 1] if last + 1 < len(operators) else None
    if following is not None and following.op == _SCALE and following.module == module:
        weight = following.inputs[-1]
        if weight.numel * statistics.numel == x.numel:
            inputs.append(weight)
            last += 1
    if cast:
        last += 1
        back = operators[last] if last < len(operators) else None
        if back is None or back.op != _CAST or back.module != module or back.outputs[0].dtype != x.dtype:
            return None
    columns = x.numel // max(statistics.numel, 1)
    end = operators[last]
    fused = Operator(
        end.phase,
        end.step,
        end.position,
        module,
        FUSED,
        "LayerNorm",
        tuple(inputs),
        end.outputs,
        {"normalized_shape": (columns,)},
        False,
    )
    return Composite(first, last, fused)
