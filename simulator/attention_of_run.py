"""What a run says of its attention: time by kind, the libraries that answered, sequence lengths."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from simtti.simulator.kernels.attention import problem_of, said_of_mask
from simtti.simulator.kernels.attention_choice import Choice, choose
from simtti.simulator.kernels.family import Target
from simtti.simulator.lowering.lower import has_model
from simtti.workloads.trace import Trace

if TYPE_CHECKING:
    from simtti.simulator.result import Result  # circle: a type only


@dataclass(frozen=True, slots=True)
class AttentionKernels:
    """Calls of attention that one library answered: how many over the inference, and the seconds of their kernels. `because` says why
    it is not the one asked for, '' where it is; `mask` what became of their masks: dropped, a window, a share of the blocks."""

    asked: str
    ran: str
    because: str
    calls: int
    time_s: float
    mask: str = ""


def attention_kernels(result: Result) -> list[AttentionKernels]:
    """What answered the calls of attention of a run, most time first."""
    calls: dict[int, int] = defaultdict(int)
    for item in result.repetitions:
        for row, _, _ in item.spans:
            operator = result.rows[row][0]
            if operator.category == "Attention" and has_model(
                operator
            ):  # others were no library's: a stream of bytes
                calls[row] += item.times
    found: dict[tuple[Choice, str], list[float]] = defaultdict(lambda: [0, 0.0])
    target = Target(result.hardware, result.policy)
    for row in sorted(calls):
        operator = result.rows[row][0]
        choice = choose(problem_of(operator, target), result.hardware)
        told = choice, said_of_mask(operator, target)
        found[told][0] += calls[row]
        found[told][1] += float(result.row_seconds[row])
    rows = [
        AttentionKernels(*choice, int(times), spent_s, mask)
        for (choice, mask), (times, spent_s) in found.items()
    ]
    return sorted(rows, key=lambda row: -row.time_s)


def by_kind(result: Result) -> dict[str, dict[str, float]]:
    """Seconds and FLOPs of attention by kind: self or cross, and the domain it works in (spatial, temporal)."""
    found = {key: {"time_s": 0.0, "flops": 0.0} for key in ("self", "cross", "spatial", "temporal")}
    for item in result.repetitions:
        for row, begin, end in item.spans:
            operator = result.rows[row][0]
            if operator.category != "Attention":
                continue
            flops = sum(launch.kernel.flops for launch in item.launches[begin:end])
            for key in (operator.attributes.get("kind"), operator.attributes.get("domain")):
                if key in found:
                    found[key]["flops"] += flops * item.times
    for row in np.flatnonzero(result.row_seconds).tolist():
        operator = result.rows[row][0]
        if operator.category == "Attention":
            for key in (operator.attributes.get("kind"), operator.attributes.get("domain")):
                if key in found:
                    found[key]["time_s"] += float(result.row_seconds[row])
    return found


def sequence_lengths(trace: Trace) -> list[int]:
    """Query length of every self-attention call over one step, in order, of the phase that attends most in all its steps."""
    lengths: dict[str, list[int]] = {}
    queries: dict[str, int] = {}
    for phase in trace.phases:
        step = next(step for step in phase.steps if step.is_of_the_model)
        lengths[phase.name] = [
            operator.inputs[0].shape[-2]
            for operator in step.operators
            if operator.category == "Attention" and operator.attributes.get("kind") == "self"
        ]
        queries[phase.name] = sum(lengths[phase.name]) * sum(step.count for step in phase.steps)
    return lengths[max(queries, key=lambda name: queries[name])]
