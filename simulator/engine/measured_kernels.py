"""A captured trace's own kernels in place of the model's: their measured times, as they were or scaled to another device.

What a kernel moves, computes and spends is still what the model says of its operator; how long it takes is not. A capture is
one short pass, at the boost clock; what the power limit makes of a whole run comes on top.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from simtti.errors import InputError
from simtti.hw_configs.devices import no_device_file
from simtti.hw_configs.hardware import Hardware
from simtti.simulator.closed_form import lone_execution_s
from simtti.simulator.kernel import Access, Kernel
from simtti.simulator.lowering.lower import Lowering
from simtti.simulator.policy import captured_with
from simtti.workloads.trace import Operator, TimedKernel, Trace

TIMINGS = ("measured", "hybrid")
NO_MODEL = "measured"  # the family of kernels for whose operator the model launches none


@dataclass(frozen=True)
class Measured:
    """kernels: of each operator's row, those it launched. scale: of each row, the model's time on the device asked for over that
    on the device of the capture; other: of rows for which there is none."""

    kernels: dict[int, list[TimedKernel]]
    scale: dict[int, float]
    other: float = 1.0

    def of(self, row: int, modelled: Sequence[Kernel]) -> list[tuple[Kernel, float]]:
        """The kernels of an operator with their seconds. modelled: what the model launches for it: its work is spread over them
        as their time is."""
        mine = self.kernels.get(row, [])
        total_us = sum(kernel.duration_us for kernel in mine) or 1.0
        scale = self.scale.get(row, self.other)
        return [
            (_kernel(kernel, modelled, kernel.duration_us / total_us), kernel.duration_us * 1e-6 * scale)
            for kernel in mine
        ]


def measured_kernels(trace: Trace, timing: str, hardware: Hardware, captured_on: Hardware | None) -> Measured:
    """The measured kernels of a trace by operator.

    timing: 'measured', as they are; 'hybrid', scaled to `hardware` by the model's ratio to captured_on.

    Raises:
        InputError: another timing, a trace without measured kernels, a device that the model does not know.
    """
    if timing not in TIMINGS:
        raise InputError(f"timing is {timing!r}; it must be one of model, {', '.join(TIMINGS)}")
    if trace.timing is None or not trace.timing.kernels:
        raise InputError(
            f"the trace of {trace.workload} holds no measured kernels; --timing {timing} needs them"
        )
    operators = list(trace.operators())
    kernels = _by_operator(trace.timing.kernels, operators)
    if timing == "measured":
        return Measured(dict(kernels), {})
    if captured_on is None:
        raise no_device_file(str(trace.timing.device.get("name", "")))
    devices = [Lowering(device, captured_with(trace)) for device in (captured_on, hardware)]
    scale: dict[int, float] = {}
    sums = [0.0, 0.0]
    for row in sorted(kernels):
        there, here = (_model_s(lowering, operators[row]) for lowering in devices)
        if there > 0 and here > 0:
            scale[row] = here / there
            sums = [sums[0] + there, sums[1] + here]
    other = sums[1] / sums[0] if sums[0] else captured_on.hbm_bytes_per_s / hardware.hbm_bytes_per_s
    return Measured(dict(kernels), scale, other)


def _by_operator(timed: Sequence[TimedKernel], operators: Sequence[Operator]) -> dict[int, list[TimedKernel]]:
    """The kernels of each operator, in the order in which they start.

    One that no operator was found for (a call that does other work than it was recorded with, as RMSNorm in one kernel) goes to the
    last operator between those of the kernels around it that could have launched it, or to the one before.
    """
    found: dict[int, list[TimedKernel]] = defaultdict(list)
    waiting: list[TimedKernel] = []
    before = 0
    for kernel in sorted(timed, key=lambda each: each.start_us):
        if kernel.operator is None:
            waiting.append(kernel)
            continue
        after = kernel.operator
        if waiting:
            between = range(after - 1, before, -1)
            owner = next((row for row in between if not operators[row].is_view), before)
            found[owner] += waiting
            waiting = []
        found[after].append(kernel)
        before = after
    if waiting and operators:
        found[before] += waiting
    return dict(found)


def _model_s(lowering: Lowering, operator: Operator) -> float:
    """Execution time of an operator's kernels, launch gaps not counted, 0 where its shapes are not known."""
    return sum(lone_execution_s(kernel, lowering.hardware) for kernel in lowering.lower(operator).kernels)


def _kernel(timed: TimedKernel, modelled: Sequence[Kernel], share: float) -> Kernel:
    """A measured kernel with its share of what the model's kernels of the operator do."""
    grid = max(1, timed.grid[0] * timed.grid[1] * timed.grid[2]) if timed.grid else 1

    def per_cta(field: str) -> float:
        return share * sum(getattr(kernel, field) * kernel.grid for kernel in modelled) / grid

    def accesses(field: str) -> tuple[Access, ...]:
        return tuple(
            Access(access.tensor, access.nbytes * share)
            for kernel in modelled
            for access in getattr(kernel, field)
        )

    main = max(modelled, key=lambda kernel: kernel.flops, default=None)
    return Kernel(
        name=timed.name,
        family=main.family if main else NO_MODEL,
        grid=grid,
        threads=timed.block[0] * timed.block[1] * timed.block[2] if timed.block else 32,
        registers=0,  # with its shared memory it might not fit where the times are scaled to
        tensor_flops=per_cta("tensor_flops"),
        tensor_dtype=main.tensor_dtype if main else "fp16",
        fp32_flops=per_cta("fp32_flops"),
        issue_slots=per_cta("issue_slots"),
        sfu_ops=per_cta("sfu_ops"),
        shared_bytes=per_cta("shared_bytes"),
        l2_bytes=per_cta("l2_bytes"),
        copy_bytes=float(timed.nbytes or 0) if timed.kind == "memcpy" else 0.0,
        reads=accesses("reads"),
        writes=accesses("writes"),
        flops=share * sum(kernel.flops for kernel in modelled),
    )
