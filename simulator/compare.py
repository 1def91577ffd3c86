"""Which device, which settings: the same inference on several devices and batches, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from simtti.errors import InputError
from simtti.hw_configs.devices import load
from simtti.hw_configs.prices import load_prices, usd_per_output
from simtti.jobs import in_chunks
from simtti.simulator.uncertainty.draws import COLUMNS as INTERVALS
from simtti.simulator.uncertainty.draws import SURE, Draws, interval_of

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "hw", "gpus", "batch", "latency_s", "latency_x", "outputs_per_s", "energy_per_output_j", "energy_x", "usd_per_gpu_hour",
    "usd_per_output", "usd_per_video_s", "average_w", "peak_memory_bytes", "fits", "largest_batch", "bottleneck", "bottleneck_share",
    "host_bound_share", "pytorch", *INTERVALS, *(AGAINST := ("latency_x_p05", "latency_x_p95", "fastest_in", "energy_x_p05", "energy_x_p95", "frugal_in")), "error",
)  # fmt: skip


def compare(
    workload: str,
    hws: Sequence[str],
    batches: Sequence[int | None] = (None,),
    *,
    interval: bool = True,
    prices: str | None = None,
    fps: float | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    **options: Any,
) -> pd.DataFrame:
    """Run `workload` on each device at each batch.

    Args:
        hws: names or files of devices.
        batches: batch sizes; None is the workload's default.
        interval: with the intervals of latency and energy, of the whole batch, as `sweep` has them.
        prices: a file of prices instead of hw_configs/prices.yaml.
        fps: frames a second that a video is shown at, for usd_per_video_s.
        options: of `run`, the same for all.

    Returns:
        A row a run, in the order given: COLUMNS. An output is an image or a video; energy_per_output_j in joules.
        latency_x and energy_x are latency and energy an output over the first device's at the same batch; 9 of 10 such ratios lie
        between latency_x_p05 and latency_x_p95, which is narrower than what the latencies' own intervals say, since errors that both have
        in common cancel (uncertainty.draws). fastest_in: the share of draws in which the row is the fastest of its batch. energy_x_p05, energy_x_p95
        and frugal_in are the same of energy, the least. usd_per_output is what all
        GPUs cost for as long as it takes; usd_per_video_s the same of a second of video. Empty where no price is known: a device with
        changes has none, unless the file of prices names it so.
        bottleneck is what holds the inference back for longest (see Result.bottlenecks). pytorch: the release whose
        kernels run (hw_configs.hardware.PYTORCH). A run that cannot be simulated
        keeps its row, with the reason in `error`.

    Raises:
        InputError: no device, a device that does not exist, a file of prices that is none, or no run that could be simulated.
    """
    import pandas as pd

    if not hws:
        raise InputError("no device to compare; --hw takes names with commas between")
    if fps is not None and not 0 < fps < float("inf"):
        raise InputError(f"fps is {fps:g}; it must be above 0")
    by_device = load_prices(prices)
    price_of = {hw: by_device.get(load(hw).name) for hw in hws}
    points = [
        {"workload": workload, "hw": hw, "batch": batch, "interval": interval, **options}
        for hw in hws
        for batch in batches
    ]
    rows = in_chunks(_rows, points, size=1, workers=workers, progress=progress)
    if all(row["error"] for row in rows):
        raise InputError(str(rows[0]["error"]))
    first = {row["batch"]: row for row in rows if row["hw"] == hws[0] and not row["error"]}
    for row in rows:
        if not row["error"]:
            row |= _against(row, first.get(row["batch"])) | _costs(row, price_of[row["hw"]], fps)
    if interval:
        for batch in first:
            _draw_by_draw([row for row in rows if row["batch"] == batch and not row["error"]], first[batch])
    left_out = () if interval else (*INTERVALS, *AGAINST)
    table = pd.DataFrame(rows, columns=[name for name in COLUMNS if name not in left_out])
    return table.astype(
        {"batch": "Int64", "largest_batch": "Int64", "usd_per_output": float, "usd_per_video_s": float}
    )


def _against(row: dict[str, Any], first: dict[str, Any] | None) -> dict[str, float]:
    """A row's latency and energy over those of the first device's."""
    if first is None:
        return {}
    return {
        "latency_x": row["latency_s"] / first["latency_s"],
        "energy_x": row["energy_per_output_j"] / first["energy_per_output_j"],
    }


def _draw_by_draw(rows: list[dict[str, Any]], first: dict[str, Any]) -> None:
    """What the draws of one batch's rows say of their order and of their ratio to the first device's."""
    for figure, least in (("latency", "fastest_in"), ("energy", "frugal_in")):
        name = f"{figure}_draws"
        drawn = np.array([row[name] for row in rows])
        wins = np.bincount(drawn.argmin(axis=0), minlength=len(rows)) / drawn.shape[1]
        for row, won in zip(rows, wins, strict=True):
            ratio = interval_of(row[name] / first[name], row[f"{figure}_x"])
            row |= {f"{figure}_x_p05": ratio.p05, f"{figure}_x_p95": ratio.p95, least: float(won)}


def _costs(row: dict[str, Any], usd_per_gpu_hour: float | None, fps: float | None) -> dict[str, float]:
    if usd_per_gpu_hour is None:
        return {}
    usd = usd_per_output(usd_per_gpu_hour, row["gpus"], row["outputs_per_s"])
    by_time = {"usd_per_video_s": usd * fps / row["frames"]} if fps and row["frames"] else {}
    return {"usd_per_gpu_hour": usd_per_gpu_hour, "usd_per_output": usd, **by_time}


def _rows(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [_row(point) for point in points]


def _row(point: dict[str, Any]) -> dict[str, Any]:
    from simtti.simulator.run import run

    options = dict(point)
    interval = options.pop("interval")
    row = {"hw": options["hw"], "gpus": options.get("gpus", 1), "batch": options["batch"]}
    try:
        result = run(options.pop("workload"), options.pop("hw"), **options)
    except InputError as error:
        return {**row, "error": str(error)}
    figures, outputs = result.figures(), int(result.trace.options.get("batch") or 1)
    name, seconds = next(iter(result.bottlenecks.items()))
    return {
        **row,
        "batch": outputs,
        "frames": result.trace.options.get("frames"),
        **{name: value for name, value in figures.items() if name in COLUMNS},
        **(result.interval.columns() | _draws_of(result.draws, outputs) if interval else {}),
        "outputs_per_s": outputs / figures["latency_s"],
        "energy_per_output_j": figures["energy_j"] / outputs,
        "bottleneck": name,
        "bottleneck_share": seconds / result.latency_s,
        "pytorch": result.hardware.pytorch,
        "error": "",
    }


def _draws_of(draws: Draws, outputs: int) -> dict[str, np.ndarray]:
    """Seconds of the batch and joules an output, by draw."""
    return {"latency_draws": draws.latency_s, "energy_draws": draws.energy_j / outputs}


def certain(table: pd.DataFrame) -> list[str]:
    """Of each batch in a table of `compare` with intervals, a line: the fastest device, and in how many of the draws it is so."""
    lines = []
    done = table[table.latency_s.notna()]
    for batch, rows in done.groupby("batch", sort=False):
        if len(rows) < 2:
            continue
        first = rows.sort_values("latency_s", kind="stable").iloc[0]
        where = f"batch {batch:.0f}: " if done.batch.nunique() > 1 else ""
        draws = f"{100 * first.fastest_in:.0f} of 100 draws"
        lines.append(
            f"{where}{first.hw} is fastest for sure: in {draws}"
            if first.fastest_in >= SURE
            else f"{where}{first.hw} is fastest in {draws}: not for sure"
        )
    return lines
