"""What a workload is, before any hardware: sequence lengths, FLOPs, bytes, arithmetic intensity, attention's memory.

All of it is counted from the operators of a trace.
"""

from __future__ import annotations

import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from simtti.errors import InputError
from simtti.workloads.flops import flops
from simtti.workloads.record import workload_trace
from simtti.workloads.trace import Operator, Step, Trace


@dataclass(frozen=True, slots=True)
class AttentionCall:
    """One attention of a step. Lengths in tokens; score_bytes is the score matrix that unfused attention would keep,
    batch x heads x q_len x kv_len in the operands' dtype."""

    phase: str
    module: str
    kind: str
    domain: str
    batch: int
    heads: int
    q_len: int
    kv_len: int
    head_dim: int
    flops: int
    score_bytes: int


def attention_calls(trace: Trace, phase: str | None = None) -> list[AttentionCall]:
    """Every attention over one pass of each stored step (of `phase`), in the order it is issued."""
    return [_call(operator) for operator in trace.operators() if _is_attention(operator, phase)]


def _is_attention(operator: Operator, phase: str | None) -> bool:
    known = len(operator.inputs) > 1 and all(len(use.shape) > 1 for use in operator.inputs[:2])
    return operator.category == "Attention" and known and (phase is None or operator.phase == phase)


def _call(operator: Operator) -> AttentionCall:
    query, key = operator.inputs[:2]
    *outer, q_len, head_dim = query.shape
    kv_len = key.shape[-2]
    heads = outer[-1] if outer else 1
    batch = math.prod(outer[:-1])
    item = query.nbytes // max(query.numel, 1)
    return AttentionCall(
        operator.phase,
        operator.module,
        str(operator.attributes.get("kind", "self")),
        str(operator.attributes.get("domain", "")),
        batch,
        heads,
        q_len,
        kv_len,
        head_dim,
        flops(operator),
        batch * heads * q_len * kv_len * item,
    )


def main_phase(trace: Trace) -> str:
    """The phase with the most FLOPs: the denoiser, or the decoder of an autoregressive model."""
    work: dict[str, float] = defaultdict(float)
    for step, operator in _weighted(trace):
        work[operator.phase] += step.count * flops(operator)
    if not work:
        raise InputError(f"the trace of {trace.workload} holds no operators")
    return max(work, key=lambda name: work[name])


def _weighted(trace: Trace) -> Iterator[tuple[Step, Operator]]:
    for phase in trace.phases:
        for step in phase.steps:
            for operator in step.operators:
                yield step, operator


def categories(trace: Trace, phase: str | None = None) -> dict[str, dict[str, float]]:
    """By category, over the whole inference or one phase, repetitions counted: operators, flops, bytes, parameters,
    and intensity in FLOPs a byte. Bytes are those an operator reads and writes, unfused; parameters are counted once."""
    sums: dict[str, dict[str, float]] = {}
    weights: dict[str, dict[int, float]] = defaultdict(dict)
    for step, operator in _weighted(trace):
        if operator.is_view or (phase is not None and operator.phase != phase):
            continue
        row = sums.setdefault(operator.category, {"operators": 0, "flops": 0.0, "bytes": 0.0})
        uses = (*operator.inputs, *operator.outputs)
        row["operators"] += step.count
        row["flops"] += step.count * flops(operator)
        row["bytes"] += step.count * sum(min(use.nbytes, use.storage_bytes) for use in uses)
        for use in uses:
            if use.role == "parameter":
                weights[operator.category][use.tensor] = use.storage_bytes / (use.nbytes / max(use.numel, 1))
    for category, row in sums.items():
        row["parameters"] = sum(weights[category].values())
        row["intensity"] = row["flops"] / row["bytes"] if row["bytes"] else 0.0
    return dict(sorted(sums.items(), key=lambda item: -item[1]["flops"]))


def profile(workload: str | os.PathLike[str] | Trace, **options: Any) -> dict[str, Any]:
    """What a workload asks of any hardware: FLOPs, bytes, sequence lengths, attention's calls, as `simtti profile --json` writes it.

    Args:
        workload: a name, or what may stand in its place (see `run`).
        options: batch, height and the like, of a workload that is named.

    Raises:
        InputError: no such workload or option; the trace holds no operators, or no shapes.
    """
    trace = workload if isinstance(workload, Trace) else workload_trace(os.fspath(workload), **options)
    if trace.provenance.get("kind") == "imported" and not any(op.inputs for op in trace.operators()):
        raise InputError(
            f"the trace of {trace.workload} holds no shapes: profile with record_shapes=True to count its work"
        )
    phase = main_phase(trace)
    calls = attention_calls(trace, phase)
    own = [call for call in calls if call.kind == "self"]
    return {
        "workload": trace.workload,
        "options": trace.options,
        "parameters": trace.parameters,
        "phases": [
            {
                "name": item.name,
                "steps": sum(step.count for step in item.steps),
                "flops": float(sum(step.count * flops(op) for step in item.steps for op in step.operators)),
            }
            for item in trace.phases
        ],
        "main_phase": phase,
        "operators_without_shapes": sum(
            op.attributes.get("shapes_recorded", True) is False for op in trace.operators()
        ),
        "categories": categories(trace),
        "sequence_lengths": [call.q_len for call in own],
        "sequence_length_counts": {
            str(length): count for length, count in sorted(Counter(c.q_len for c in own).items())
        },
        "attention": {
            domain: {
                "calls": sum(call.domain == domain for call in calls),
                "flops": float(sum(call.flops for call in calls if call.domain == domain)),
                "largest_score_bytes": max(
                    (call.score_bytes for call in calls if call.domain == domain), default=0
                ),
            }
            for domain in sorted({call.domain for call in calls})
        },
        "calls": [
            {name: getattr(call, name) for name in AttentionCall.__slots__} for call in attention_calls(trace)
        ],
    }


def scaling(traces: Iterable[tuple[int, Trace]]) -> list[dict[str, Any]]:
    """How attention grows over traces of one workload at several sizes or frame counts: one row each.

    Per pass of the main phase: the longest self-attention, FLOPs of attention by domain and of everything, and the score
    matrices that unfused attention would keep: the largest, and all layers' sum. The score matrix grows with the fourth
    power of an image's side.
    """
    rows = []
    for value, trace in traces:
        phase = main_phase(trace)
        calls = attention_calls(trace, phase)
        work = [op for op in trace.operators() if op.phase == phase]
        own = [call.q_len for call in calls if call.kind == "self"]
        rows.append(
            {
                "value": value,
                "longest_self_attention": max(own, default=0),
                "flops": float(sum(flops(op) for op in work)),
                "attention_flops": float(sum(call.flops for call in calls)),
                "spatial_attention_flops": float(
                    sum(call.flops for call in calls if call.domain == "spatial")
                ),
                "temporal_attention_flops": float(
                    sum(call.flops for call in calls if call.domain == "temporal")
                ),
                "largest_score_bytes": max((call.score_bytes for call in calls), default=0),
                "all_score_bytes": sum(call.score_bytes for call in calls),
            }
        )
    return rows


def crossover(rows: list[dict[str, Any]]) -> float | None:
    """The frame count at which temporal attention's FLOPs would reach spatial attention's, by their ratio at the largest
    count measured: the ratio of one to the other grows in proportion to the frames. None without temporal attention."""
    last = rows[-1]
    if not last["temporal_attention_flops"]:
        return None
    return float(last["value"] * last["spatial_attention_flops"] / last["temporal_attention_flops"])
