"""What a scheduler that serves a model profiles for days: the seconds of a step and of the stages around it, by GPU, count, batch, shape."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simtti.errors import InputError, raise_bugs
from simtti.files import check_table, check_writable, write_table, write_text
from simtti.hw_configs.devices import load
from simtti.journal import code_hash, journal_of, said_of_foreign
from simtti.simulator.sweep import figures_of
from simtti.simulator.uncertainty.residuals import Interval
from simtti.workloads.catalogue import find

if TYPE_CHECKING:
    import pandas as pd

SHAPE = ("hw", "gpus", "batch", "height", "width")
FIGURES = ("text_encoder_s", "step_s", "decoder_s", "latency_s", "peak_memory_bytes", "fits", "error")
# Of each time what half of such runs and 9 of 10 lie between.
INTERVALS = tuple(
    f"{name.removesuffix('_s')}_{part}_s"
    for name in FIGURES
    if name.endswith("_s")
    for part in Interval._fields
)
COLUMNS = (*SHAPE, *FIGURES[:-1], *INTERVALS, FIGURES[-1])


def costs(
    workload: str,
    hws: Sequence[str],
    out: str | os.PathLike[str],
    *,
    gpus: Sequence[int] = (1,),
    batches: Sequence[int] = (1,),
    shapes: Sequence[tuple[int, int]] = (),
    interval: bool = True,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda text: None,
    **options: Any,
) -> pd.DataFrame:
    """Run `workload` on each device, number of GPUs, batch and shape, and write a row of each to `out` (.csv, .parquet or .json).

    Args:
        shapes: heights and widths in pixels; the workload's own if there is none.
        interval: with the columns of what half of such runs and 9 of 10 lie between.
        options: of `run`, the same for all.
        workers, progress, say: as for `sweep`. Interrupted, it goes on as a sweep does.

    Returns:
        COLUMNS: seconds of the text encoders, of one step of denoising on average, of the decoder, and of the whole; bytes; whether it
        fits the device; the times' intervals (step_p05_s to step_p95_s); why there are no figures.

    Raises:
        InputError: an unknown workload or device, an unwritable output.
        BugError: a bug cost some rows; the others are written.
    """
    import pandas as pd

    defaults = find(workload).defaults
    for hw in hws:
        load(hw)
    if not hws:
        raise InputError("no device; --hw takes names with commas between")
    if Path(out).suffix == ".json":
        check_writable(out)
    else:
        check_table(out)
    sizes = [dict(zip(("height", "width"), shape, strict=True)) for shape in shapes] or [{}]
    rows = [
        {"workload": workload, "hw": hw, "gpus": count, "batch": batch, **size, **options}
        for hw, count, batch, size in itertools.product(hws, gpus, batches, sizes)
    ]
    journal = journal_of(out, code_hash())
    with journal.alone(out):
        found = figures_of(
            rows,
            journal,
            interval=interval,
            workers=workers,
            progress=progress,
            foreign=lambda kept: say(said_of_foreign(out, kept)),
        )
        own = {"height": defaults.height, "width": defaults.width}
        table = pd.DataFrame([own | row | figures for row, figures in zip(rows, found, strict=True)])
        table = table.reindex(columns=[name for name in COLUMNS if interval or name not in INTERVALS])
        if Path(out).suffix == ".json":
            write_text(out, table.to_json(orient="records", indent=1, double_precision=15) + "\n")
        else:
            write_table(table, out)
        journal.remove()
    raise_bugs(table["error"])
    return table
