"""How much of a measured trace the model stands for: kernels without an operator, operators without shapes or without a model.

A trace from a profiler may hold far more GPU time than its operators explain: CUDA graphs, calls of other libraries, a profile
without shapes. Timed by the model, it would answer with what is left.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from simtti.errors import InputError
from simtti.simulator.lowering.lower import Lowered, has_model
from simtti.words import percent, seconds
from simtti.workloads.trace import Operator, TimedKernel, Trace

# Left out beyond this share of the measured kernel time, there is no answer without asking for a partial one.
MOST_LEFT_OUT = 0.2
_FEW = 3  # reasons in a message


@dataclass(frozen=True)
class Coverage:
    """measured_us: of all kernels. left_out_us: of those the model does not stand for, by the reason, most first."""

    measured_us: float
    left_out_us: dict[str, float]

    @property
    def share(self) -> float:
        """Of the measured kernel time, what the model stands for."""
        left = min(sum(self.left_out_us.values()), self.measured_us)
        return 1.0 - left / self.measured_us if self.measured_us else 0.0

    def sentence(self, timing: str) -> str:
        """What the model stands for and what becomes of the rest. timing: of `run`."""
        share = percent(self.share, 0)
        if timing == "hybrid":
            return (
                f"{share} of the captured kernel time is scaled by the model of its own operator; as the operators around it, as its bytes or as "
                f"the rest on average: {self.words()}"
            )
        return f"{share} of the measured kernel time is covered; left out: {self.words()}"

    def words(self) -> str:
        """What is left out, in a few words."""
        few = list(self.left_out_us.items())[:_FEW]
        more = len(self.left_out_us) - len(few)
        text = "; ".join(f"{seconds(us / 1e6)} of {reason}" for reason, us in few)
        return text + (f"; and {more} more" if more else "")


def coverage(trace: Trace) -> Coverage | None:
    """What the model stands for of a trace's measured kernels; None for a trace without any."""
    if trace.timing is None or not trace.timing.kernels:
        return None
    operators = list(trace.operators())
    calls: Counter[tuple[int, float | None]] = Counter(
        (kernel.correlation, kernel.launch_us)
        for kernel in trace.timing.kernels
        if kernel.launch_us is not None and kernel.correlation
    )
    left_out: dict[str, float] = defaultdict(float)
    for kernel in trace.timing.kernels:
        of_graph = calls[kernel.correlation, kernel.launch_us] > 1
        reason = _left_out(kernel, operators, of_graph)
        if reason:
            left_out[reason] += kernel.duration_us
    measured_us = sum(kernel.duration_us for kernel in trace.timing.kernels)
    return Coverage(measured_us, dict(sorted(left_out.items(), key=lambda item: -item[1])))


def _left_out(kernel: TimedKernel, operators: Sequence[Operator], of_graph: bool) -> str:
    """Why the model does not stand for a kernel; '' where it does."""
    if of_graph:
        return "kernels of CUDA graphs"
    if kernel.operator is None:
        return "kernels without an operator"
    operator = operators[kernel.operator]
    if operator.is_view or (not operator.inputs and not operator.outputs):
        return "operators without shapes" if not operator.is_view else "kernels of operators that launch none"
    if operator.attributes.get("shapes_recorded", True) is False:
        return "operators without shapes"
    return "" if has_model(operator) else f"operators without a kernel model ({operator.op})"


def check_coverage(trace: Trace, timing: str, partial: bool) -> Coverage | None:
    """The coverage of a trace that the model is to time; None for one that was not measured, and where measured times are kept.

    timing: of `run`. partial: whether an answer for a part of the trace is asked for.

    Raises:
        InputError: more than MOST_LEFT_OUT of the trace's measured kernel time would be left out (model), or scaled by a guess (hybrid).
    """
    found = None if timing == "measured" else coverage(trace)
    if found is None or partial or 1.0 - found.share <= MOST_LEFT_OUT:
        return found
    what = "leaves out" if timing == "model" else "would scale as the rest on average"
    raise InputError(
        f"the model covers {percent(found.share, 0)} of the measured kernel time of {trace.workload} "
        f"({seconds(found.measured_us / 1e6)}); it {what} {found.words()}; use --timing measured, or --partial to go on (more than "
        f"{percent(MOST_LEFT_OUT, 0)} is refused)"
    )


def check_tied(trace: Trace) -> None:
    """Whether the measured kernels of a trace have operators, where their times stand in for those of the operators' kernels.

    Raises:
        InputError: more than MOST_LEFT_OUT of their time has none.
    """
    kernels = trace.timing.kernels if trace.timing is not None else ()
    measured_us = sum(kernel.duration_us for kernel in kernels)
    loose_us = sum(kernel.duration_us for kernel in kernels if kernel.operator is None)
    if loose_us > MOST_LEFT_OUT * measured_us:
        raise InputError(
            f"{percent(loose_us / measured_us, 0)} of the measured kernel time of {trace.workload} belongs to no operator; "
            "simtti run --trace FILE --timing measured replays all of it"
        )


def without_model(rows: Sequence[tuple[Operator, Lowered]]) -> dict[str, float]:
    """Operators without a kernel model, with their share of all bytes that operators touch."""
    if not any(lowered.unknown for _, lowered in rows):
        return {}
    nbytes: dict[str, float] = defaultdict(float)
    total = 0.0
    for operator, lowered in rows:
        touched = sum(use.nbytes for use in (*operator.inputs, *operator.outputs))
        if lowered.is_view:
            continue
        total += touched
        if lowered.unknown:
            nbytes[operator.op] += touched
    return {op: share / max(total, 1.0) for op, share in sorted(nbytes.items(), key=lambda item: -item[1])}
