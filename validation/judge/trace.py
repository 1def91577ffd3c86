"""Predicted against measured, operator by operator, for a timed trace.

Each operator's kernels are timed by the model as they would run one after another on the device the trace was taken
on, or on another one asked for, and compared with the sum of the kernels it launched. Imported traces know no tensor
identities, so the model cannot know what an operator found in L2: operands that fit there are taken as found, since
the operator before has usually written them.
"""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simtti.errors import InputError
from simtti.hw_configs.devices import find_reported, load, no_device_file
from simtti.hw_configs.hardware import Hardware, release_of, with_pytorch
from simtti.simulator.engine.device import execution_time_s
from simtti.simulator.kernel import Kernel
from simtti.simulator.lowering.lower import Lowering
from simtti.simulator.policy import captured_with
from simtti.simulator.uncertainty.draws import sum_interval
from simtti.simulator.uncertainty.families import family_of_operator
from simtti.simulator.uncertainty.residuals import Interval
from simtti.validation.judge.prediction import warm_hbm_bytes, warm_time_s
from simtti.workloads.kineto import import_kineto
from simtti.workloads.trace import Operator, Trace

if TYPE_CHECKING:
    import pandas as pd


@dataclass(eq=False)
class Comparison:
    """The operators of a trace with both times.

    rows: one a compared operator: module, op, category, family (of residuals), kernels, measured_us, predicted_us.
    unmodelled_us: measured time of kernels that could not be compared, by the reason.
    """

    trace: Trace
    hardware: Hardware
    rows: list[dict[str, Any]]
    unmodelled_us: dict[str, float]

    @cached_property
    def table(self) -> pd.DataFrame:
        import pandas as pd

        return pd.DataFrame(self.rows)

    @cached_property
    def summary(self) -> pd.DataFrame:
        """By category and in all: operators, measured and predicted time in us, their ratio, MAPE, median error and
        bias (exp of the mean log ratio, less 1)."""
        import pandas as pd

        groups = [(str(name), part) for name, part in self.table.groupby("category")]
        rows = [_figures(name, part) for name, part in groups] + [_figures("all", self.table)]
        return pd.DataFrame(rows).sort_values("measured_us", ascending=False, ignore_index=True)

    @cached_property
    def interval(self) -> Interval:
        """Between what the sum of the measured times over that of the predicted ones lies, by the residuals that ship."""
        operators = list(zip(self.table.family, self.table.predicted_us, strict=True))
        return sum_interval(operators, self.hardware, self.trace.workload, sorted(self.trace.options.items()))

    def to_dict(self) -> dict[str, Any]:
        """As `simtti validate FILE --json` writes it; interval: of the measured sum over the predicted one."""
        return {
            "workload": self.trace.workload,
            "hw": self.hardware.name,
            "interval": self.interval._asdict(),
            "device": self.trace.timing.device.get("name") if self.trace.timing else None,
            "by_category": self.summary.to_dict("records"),
            "unmodelled_us": self.unmodelled_us,
        }


def _figures(name: str, part: pd.DataFrame) -> dict[str, Any]:
    ratio = (part.predicted_us / part.measured_us).to_numpy(float)
    error = np.abs(ratio - 1)
    return {
        "category": name,
        "operators": len(part),
        "measured_us": float(part.measured_us.sum()),
        "predicted_us": float(part.predicted_us.sum()),
        "ratio": float(part.predicted_us.sum() / part.measured_us.sum()),
        "mape": float(error.mean()),
        "median": float(np.median(error)),
        "bias": float(np.exp(np.log(ratio).mean()) - 1),
    }


def validate(
    trace: str | os.PathLike[str] | Trace, hw: str | Hardware | None = None, **part: Any
) -> Comparison:
    """The model against the measured kernels of a timed trace, as `simtti validate FILE` has it.

    Args:
        trace: a trace with measured kernels, or its file: .parquet, or what torch.profiler wrote.
        hw: the device to predict for; the one the trace was taken on if None.
        part: device and step, of a file that torch.profiler wrote and that holds several (see `import_trace`).

    Returns:
        A Comparison: `summary` and `table` are DataFrames, times in microseconds.

    Raises:
        InputError: the file cannot be read; no device is known by what the trace says; nothing in it can be compared.
    """
    if not isinstance(trace, Trace):
        trace = Trace.load(trace) if Path(trace).suffix == ".parquet" else import_kineto(trace, **part)
    if hw is None:
        name = str(trace.timing.device.get("name", "")) if trace.timing else ""
        hardware = find_reported(name)
        if hardware is None:
            raise no_device_file(name, "--hw")
    else:
        hardware = load(hw) if isinstance(hw, str) else hw
    return compare(trace, hardware)


def compare(trace: Trace, hardware: Hardware) -> Comparison:
    """Compare every operator of `trace` whose kernels were measured and whose shapes are known.

    hardware: with the kernels of the release of PyTorch that the trace was taken with, where it says so.

    Raises:
        InputError: the trace holds no measured kernels, or none that can be compared.
    """
    if trace.timing is None or not trace.timing.kernels:
        raise InputError(f"the trace of {trace.workload} holds no measured kernels to compare with")
    hardware = with_pytorch(hardware, release_of(trace.timing.device.get("torch")) or hardware.pytorch)
    operators = list(trace.operators())
    measured: dict[int, float] = defaultdict(float)
    kernels: dict[int, int] = defaultdict(int)
    left_out: dict[str, float] = defaultdict(float)
    for kernel in trace.timing.kernels:
        if kernel.operator is None:
            left_out["kernels of no operator"] += kernel.duration_us
        elif kernel.kind == "memcpy" and _to_host(operators[kernel.operator], kernel.name):
            left_out["copies between host and device"] += kernel.duration_us
        else:
            measured[kernel.operator] += kernel.duration_us
            kernels[kernel.operator] += 1
    lowering = Lowering(hardware, captured_with(trace))
    rows = []
    for row in sorted(measured):
        operator = operators[row]
        if not measured[row]:
            left_out["kernels of no duration"] += 0.0
            continue
        lowered = lowering.lower(operator)
        if lowered.unknown or not lowered.kernels:
            reason = (
                "operators without shapes" if not operator.outputs else f"no kernel model for {operator.op}"
            )
            left_out[reason] += measured[row]
            continue
        # Kernels name tensors by the operator's slots.
        weights = {slot for slot, use in enumerate(operator.inputs) if use.role == "parameter"}
        predicted_s = sum(_time_s(kernel, weights, hardware) for kernel in lowered.kernels)
        rows.append(
            {
                "module": operator.module,
                "op": operator.op,
                "category": operator.category,
                "family": family_of_operator(operator, lowered),
                "shapes": str([list(use.shape) for use in operator.inputs]),
                "kernels": kernels[row],
                "measured_us": measured[row],
                "predicted_us": predicted_s * 1e6,
            }
        )
    if not rows:
        raise InputError(f"no operator of the trace of {trace.workload} has both shapes and measured kernels")
    return Comparison(trace, hardware, rows, dict(sorted(left_out.items(), key=lambda item: -item[1])))


def _time_s(kernel: Kernel, weights: set[int], hardware: Hardware) -> float:
    """Seconds of a kernel in a pass: what fits L2 is there, but for weights, each of which a pass reads once among more than L2 holds."""
    if warm_hbm_bytes(kernel, hardware) is None:
        return warm_time_s(kernel, hardware)
    cold_bytes = sum(access.nbytes for access in kernel.reads if access.tensor in weights)
    return execution_time_s(kernel, hardware, cold_bytes)


def _to_host(operator: Operator, name: str) -> bool:
    return "HtoD" in name or "DtoH" in name or bool(operator.attributes.get("transfer"))
