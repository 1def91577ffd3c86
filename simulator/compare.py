"""Which device, which settings: the same inference on several devices and batches, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from simtti.errors import InputError
from simtti.jobs import in_chunks
from simtti.simulator.uncertainty.draws import COLUMNS as INTERVALS

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "hw", "batch", "latency_s", "outputs_per_s", "energy_per_output_j", "average_w", "peak_memory_bytes", "fits",
    "bottleneck", "bottleneck_share", "host_bound_share", "pytorch", *INTERVALS, "error",
)  # fmt: skip


def compare(
    workload: str,
    hws: Sequence[str],
    batches: Sequence[int | None] = (None,),
    *,
    interval: bool = True,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    **options: Any,
) -> pd.DataFrame:
    """Run `workload` on each device at each batch.

    Args:
        hws: names or files of devices.
        batches: batch sizes; None is the workload's default.
        interval: with the intervals of latency and energy, of the whole batch, as `sweep` has them.
        options: of `run`, the same for all.

    Returns:
        A row a run, in the order given: COLUMNS. An output is an image or a video; energy_per_output_j in joules.
        bottleneck is what holds the inference back for longest (see Result.bottlenecks). pytorch: the release whose
        kernels run (hw_configs.hardware.PYTORCH). A run that cannot be simulated
        keeps its row, with the reason in `error`.

    Raises:
        InputError: no device, a device that does not exist, or no run that could be simulated.
    """
    import pandas as pd

    from simtti.hw_configs.devices import load

    if not hws:
        raise InputError("no device to compare; --hw takes names with commas between")
    for hw in hws:
        load(hw)
    points = [
        {"workload": workload, "hw": hw, "batch": batch, "interval": interval, **options}
        for hw in hws
        for batch in batches
    ]
    rows = in_chunks(_rows, points, size=1, workers=workers, progress=progress)
    table = pd.DataFrame(rows, columns=[name for name in COLUMNS if interval or name not in INTERVALS])
    if table.latency_s.isna().all():
        raise InputError(str(table.error.iloc[0]))
    return table


def _rows(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [_row(point) for point in points]


def _row(point: dict[str, Any]) -> dict[str, Any]:
    from simtti.simulator.run import run

    options = dict(point)
    interval = options.pop("interval")
    row = {"hw": options["hw"], "batch": options["batch"]}
    try:
        result = run(options.pop("workload"), options.pop("hw"), **options)
    except InputError as error:
        return {**row, "error": str(error)}
    figures, outputs = result.figures(), int(result.trace.options.get("batch") or 1)
    name, seconds = next(iter(result.bottlenecks.items()))
    return {
        "hw": row["hw"],
        "batch": outputs,
        **{name: value for name, value in figures.items() if name in COLUMNS},
        **(result.interval.columns() if interval else {}),
        "outputs_per_s": outputs / figures["latency_s"],
        "energy_per_output_j": figures["energy_j"] / outputs,
        "bottleneck": name,
        "bottleneck_share": seconds / result.latency_s,
        "pytorch": result.hardware.pytorch,
        "error": "",
    }


def certain(table: pd.DataFrame) -> list[str]:
    """Of each batch in a table of `compare` with intervals, a line: whether the fastest device is so for sure, or whose intervals (9 of
    10) overlap with its own."""
    lines = []
    done = table[table.latency_s.notna()]
    for batch, rows in done.groupby("batch", sort=False):
        if len(rows) < 2:
            continue
        ordered = rows.sort_values("latency_s", kind="stable")
        first, others = ordered.iloc[0], ordered.iloc[1:]
        close = [str(name) for name in others.hw[others.latency_p05_s <= first.latency_p95_s]]
        where = f"batch {batch:.0f}: " if done.batch.nunique() > 1 else ""
        if close:
            lines.append(
                f"{where}{first.hw} is fastest, but its interval overlaps with that of {', '.join(close)}"
            )
        else:
            lines.append(f"{where}{first.hw} is fastest for sure: its interval overlaps with no other")
    return lines
