"""Two results, or two traces with measured kernels, beside each other: the seconds of each phase and category, and what changed."""

from __future__ import annotations

import json
import math
import os
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from simtti.errors import InputError
from simtti.workloads.trace import Trace

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("phase", "category", "a_s", "b_s", "change_s", "ratio")
ALL = "all"
OTHER = "Other"  # of a kernel that no operator is known for


class Times(NamedTuple):
    """What took how long: name, what was run; options, how; by (phase, category), ALL standing for every one."""

    name: str
    options: dict[str, Any]
    seconds: dict[tuple[str, str], float]


def difference(a: str | os.PathLike[str], b: str | os.PathLike[str]) -> tuple[pd.DataFrame, tuple[str, str]]:
    """The times of `a` and `b`, each a result that `simtti run --json` wrote or a trace with measured kernels.

    Returns:
        A row a phase and category, COLUMNS, 'all' standing for all of them, and the names of both, with the options that differ. Seconds: of results, of the
        latency; of traces, of kernels, each as often as its step is run. ratio: b over a, empty where a has none.

    Raises:
        InputError: a file that is neither, or a trace without times.
    """
    import pandas as pd

    times = [_read(Path(path)) for path in (a, b)]
    found = [each.seconds for each in times]
    most = {key: max(each.get(key, 0.0) for each in found) for each in found for key in each}
    phases = sorted(
        {phase for phase, _ in most}, key=lambda phase: (phase != ALL, -most.get((phase, ALL), 0.0))
    )
    keys = sorted(most, key=lambda key: (phases.index(key[0]), key[1] != ALL, -most[key]))
    rows = []
    for key in keys:
        a_s, b_s = (each.get(key, 0.0) for each in found)
        rows.append((*key, a_s, b_s, b_s - a_s, b_s / a_s if a_s else None))
    first, second = times
    titles = (_title(first, second.options), _title(second, first.options))
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"ratio": float}), titles


def _title(times: Times, others: dict[str, Any]) -> str:
    """What was run, and the options in which it differs."""
    differ = {
        name: value
        for name, value in times.options.items()
        if others.get(name) != value and value not in (None, "")
    }
    return ", ".join([times.name, *(f"{name} {value}" for name, value in differ.items())])


def _read(path: Path) -> Times:
    if path.suffix == ".parquet":
        return _of_trace(path)
    try:
        found = _of_result(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise InputError(f"{path}: neither a result of `simtti run --json` nor a trace (.parquet)") from None
    for (phase, category), seconds in found.seconds.items():
        if not 0 <= seconds < math.inf:
            raise InputError(f"{path}: {phase}, {category}: {seconds:g} is no number of seconds")
    return found


def _of_result(content: dict[str, Any]) -> Times:
    configuration = content["configuration"]
    seconds = {(ALL, ALL): float(content["latency_s"])}
    seconds |= {(ALL, category): float(value) for category, value in content["breakdown"].items()}
    seconds |= {(phase["name"], ALL): float(phase["latency_s"]) for phase in content.get("phases", ())}
    for phase, parts in content.get("breakdown_by_phase", {}).items():
        seconds |= {(phase, category): float(value) for category, value in parts.items()}
    options = {
        name: value for name, value in configuration.items() if name not in ("workload", "hw", "trace")
    }
    return Times(f"{configuration['workload']} on {configuration['hw']}", options, seconds)


def _of_trace(path: Path) -> Times:
    trace = Trace.load(path)
    if trace.timing is None or not trace.timing.kernels:
        raise InputError(
            f"{path}: holds no measured kernels; give the results of `simtti run --trace {path} --json` instead"
        )
    rows = [
        (phase.name, operator.category, step.count)
        for phase in trace.phases
        for step in phase.steps
        for operator in step.operators
    ]
    seconds: dict[tuple[str, str], float] = defaultdict(float)
    for kernel in trace.timing.kernels:
        phase, category, times = (OTHER, OTHER, 1) if kernel.operator is None else rows[kernel.operator]
        for key in ((ALL, ALL), (ALL, category), (phase, ALL), (phase, category)):
            seconds[key] += kernel.duration_us * times / 1e6
    return Times(
        f"{trace.workload} on {trace.timing.device.get('name', 'a GPU')}, kernels", {}, dict(seconds)
    )
