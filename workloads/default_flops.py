"""FLOPs of each workload at its defaults, without reading its trace: the table that is written beside the recorded traces.

    python -m simtti.workloads.default_flops        # writes it anew

A list of workloads would otherwise take seconds to read all of them.
"""

from __future__ import annotations

import csv
import functools
import io
from pathlib import Path

from simtti.files import write_text
from simtti.workloads.catalogue import WORKLOADS
from simtti.workloads.flops import flops
from simtti.workloads.record import TRACES
from simtti.workloads.trace import Trace

TABLE = TRACES / "flops.csv"


def total_flops(trace: Trace) -> int:
    """FLOPs of a whole inference: those of `flops`, steps that repeat counted as often as they run."""
    return sum(
        step.count * flops(operator)
        for phase in trace.phases
        for step in phase.steps
        for operator in step.operators
    )


def default_flops(workload: str) -> int | None:
    """FLOPs of one inference of `workload` at its defaults; None where no trace of it ships, as of one of your own."""
    path = TRACES / f"{workload}.parquet"
    if workload not in _table() and path.exists():
        return total_flops(Trace.load(path))
    return _table().get(workload)


@functools.cache
def _table() -> dict[str, int]:
    if not TABLE.exists():
        return {}
    with TABLE.open(encoding="utf-8", newline="") as file:
        return {row["workload"]: int(row["flops"]) for row in csv.DictReader(file)}


def write(folder: Path) -> Path:
    """Write the table of the traces in `folder` beside them."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("workload", "flops"))
    for name in sorted(WORKLOADS):
        path = folder / f"{name}.parquet"
        if path.exists():
            rows.writerow((name, total_flops(Trace.load(path))))
    table = folder / TABLE.name
    write_text(table, text.getvalue())
    return table


if __name__ == "__main__":
    print(write(TRACES))
