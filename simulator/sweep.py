"""Many runs: a table with a column per option of `run`, each row simulated, in parallel, resumable.

Finished rows go to a journal beside the output as they end; an interrupted sweep keeps it, the same command reads it
and does the rest, and a finished sweep removes it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simtti.errors import InputError, Problems, internal, raise_bugs, unknown
from simtti.files import check_table, read_table, write_table
from simtti.hw_configs.devices import fingerprint, load
from simtti.hw_configs.hosts import load_host
from simtti.jobs import Pool
from simtti.journal import Journal, code_hash, journal_of, resumed, said_of_foreign
from simtti.simulator.uncertainty.draws import COLUMNS, STAGE_COLUMNS, stage_columns
from simtti.workloads.named import check_named, content_of, is_file

if TYPE_CHECKING:
    import pandas as pd

OPTIONS = (
    "workload", "hw", "set", "gpus", "ulysses", "ring", "cfg_parallel", "tensor", "pipefusion", "pipefusion_patches", "warmup_steps", "patches",
    "parallel_vae", "batch", "steps", "height", "width", "frames", "prompt_tokens", "dtype", "vae", "guidance", "strength", "engine", "attention", "cross_attention", "mask", "quantization", "cache", "lora",
    "offload", "pinned", "pytorch", "launch", "compile", "layout", "host", "trace", "fidelity", "tf32",
)  # fmt: skip
_WHOLE = (
    "gpus", "ulysses", "ring", "cfg_parallel", "tensor", "pipefusion", "pipefusion_patches", "warmup_steps", "patches", "batch", "steps", "height", "width", "frames", "prompt_tokens", "lora",
)  # fmt: skip
_NUMBERS = ("strength",)
_FLAGS = ("tf32", "pinned", "parallel_vae")
_TRUTH = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
FIGURES = (
    "latency_s", "energy_j", "peak_memory_bytes", "host_bound_share", "text_encoder_s", "denoising_s", "step_s", "decoder_s", "fits",
    "largest_batch", *(INTERVALS := (*COLUMNS, *STAGE_COLUMNS)), "error",
)  # fmt: skip


def sweep(
    points: str | os.PathLike[str] | pd.DataFrame,
    out: str | os.PathLike[str],
    *,
    interval: bool = True,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda text: None,
) -> pd.DataFrame:
    """Run every row of `points` and write it with what came out to `out` (.csv or .parquet).

    Args:
        points: a table or its path; columns are options of `run`; an empty cell is the option's default, but for fidelity,
            which is 'closed': many runs, and the same figures where nothing overlaps.
        interval: with the columns latency_p05_s to energy_p95_j, and those of the stages to decoder_p95_s: what half of such predictions and 9 of 10 lie between.
        workers: processes; as many as there are cores if not given.
        progress: called with (finished rows, rows).
        say: called with what is not as one might think: rows kept that do not count.

    Returns:
        The table as written: the points, then latency_s, energy_j, peak_memory_bytes, host_bound_share, the seconds of text
        encoders, denoising and decoder, and error, the reason where a row has no result.

    Raises:
        InputError: an unreadable table, an unknown column, an unwritable output.
        KeyboardInterrupt: after the finished rows have been kept.
        BugError: a bug cost some rows; the others are written.
    """
    import pandas as pd

    table = points if isinstance(points, pd.DataFrame) else read_table(points)
    _check_columns(table.columns, "points" if isinstance(points, pd.DataFrame) else str(points))
    check_table(out)
    rows = [options_of({str(name): cell for name, cell in row.items()}) for row in table.to_dict("records")]
    journal = journal_of(out, code_hash())
    with journal.alone(out):
        found = figures_of(
            rows,
            journal,
            workers=workers,
            interval=interval,
            progress=progress,
            foreign=lambda count: say(said_of_foreign(out, count)),
        )
        for name in FIGURES if interval else (name for name in FIGURES if name not in INTERVALS):
            table[name] = [figures.get(name) for figures in found]
        write_table(table, out)
        journal.remove()
    raise_bugs(table["error"])
    return table


def figures_of(
    rows: Sequence[dict[str, Any]],
    journal: Journal,
    *,
    interval: bool = True,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    foreign: Callable[[int], None] = lambda count: None,
) -> list[dict[str, Any]]:
    """Of each row, the options of `run` that it fills, what came out: those of FIGURES that there are. Rows that the journal has are
    not simulated again.

    Args:
        interval, workers, progress: as for `sweep`.
        foreign: called with the number of results that the journal has and that do not count, if there are any.
    """
    key_of = Keys()
    keys = [key_of(row if interval else {**row, "interval": False}) for row in rows]
    rows_of, found, done = Counter(keys), dict[str, dict[str, Any]](), 0
    kept = journal.read()
    if strange := journal.foreign + len(kept.keys() - rows_of.keys()):
        foreign(strange)
    progress(0, len(rows))
    with Pool(workers) as pool:
        jobs = {key: (row, interval) for key, row in zip(keys, rows, strict=True)}
        for key, figures in resumed(pool, _run_row, jobs, journal):
            found[key] = figures
            done += rows_of[key]
            progress(done, len(rows))
    return [found[key] for key in keys]


class Keys:
    """Names of rows in a journal: a row's options, and what the files that they name say now."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], str] = {}

    def __call__(self, row: dict[str, Any]) -> str:
        """The key of a row, options of `run`: the same for rows from which the same must come out."""
        files = {
            name: self._content(name, row[name])
            for name in ("hw", "host", "trace", "cache")
            if isinstance(row.get(name), str)
        }
        if is_file(row.get("workload")):
            files["workload"] = self._content("workload", row["workload"])
        return json.dumps({**row, "contents": files}, sort_keys=True, default=str)

    def _content(self, name: str, value: str) -> str:
        if (name, value) not in self._known:
            self._known[name, value] = _content(name, value)
        return self._known[name, value]


def _content(name: str, value: str) -> str:
    """Of what a device, a host, a trace or a schedule of caching says; '' where there is no file, or its row will say why."""
    try:
        if name == "hw":
            return fingerprint(load(value))
        if name == "host":
            return repr(load_host(value))
        if name == "workload":
            return content_of(value)
        return hashlib.sha256(Path(value).read_bytes()).hexdigest()[:16]
    except (InputError, OSError, ValueError):
        return ""


def options_of(row: dict[str, Any]) -> dict[str, Any]:
    """A row's options without the empty ones, whole numbers whole (a CSV column with a gap reads as floats)."""
    options = {}
    for name, value in row.items():
        if value is None or value != value:
            continue
        if name in _WHOLE and _is_whole(value):
            value = int(float(value))
        if name in _FLAGS and str(value).lower() in _TRUTH:
            value = _TRUTH[str(value).lower()]
        options[name] = value.item() if hasattr(value, "item") else value
    return options


def _is_whole(value: Any) -> bool:
    try:
        return float(value).is_integer()
    except (TypeError, ValueError):
        return False


def _check_columns(names: Iterable[object], origin: str) -> None:
    """Columns are options, and those that a run needs are there.

    Raises:
        InputError: all that are not.
    """
    problems, given = Problems(), [str(name) for name in names]
    for name in given:
        if name not in OPTIONS:
            problems.note(str(unknown("column", name, OPTIONS)))
    for name in ("workload", "hw"):
        if name not in given:
            problems.note(f"column {name!r} is missing")
    problems.raise_any(origin)


def _check_cells(options: dict[str, Any]) -> None:
    """Names are text and numbers whole, devices and hosts exist; what else they may be, `run` knows.

    Raises:
        InputError: all that are not; the message names the column and the value.
    """
    problems = Problems()
    for name in ("workload", "hw"):
        if name not in options:
            problems.note(f"{name} is empty")
    for name, value in options.items():
        if name in _WHOLE and not isinstance(value, int):
            problems.note(f"column {name!r} is {value!r}; it must be a whole number")
        if name in _FLAGS and not isinstance(value, bool):
            problems.note(f"column {name!r} is {value!r}; it must be true or false")
        if name in _NUMBERS and not isinstance(value, (int, float)):
            problems.note(f"column {name!r} is {value!r}; it must be a number")
        if name not in (*_WHOLE, *_NUMBERS, *_FLAGS) and not isinstance(value, str):
            problems.note(f"column {name!r} is {value!r}; it must be text")
    checks: dict[str, Callable[[str], object]] = {"workload": check_named, "hw": load, "host": load_host}
    for name, read in checks.items():
        if isinstance(value := options.get(name), str):
            with problems.noted():
                read(value)
    problems.raise_any()


def _run_row(options: dict[str, Any], interval: bool = True) -> dict[str, Any]:
    from simtti.simulator.run import run

    options = dict(options)
    try:
        _check_cells(options)
        options.setdefault("fidelity", "closed")
        result = run(options.pop("workload"), options.pop("hw"), **options)
    except InputError as error:
        return {"error": str(error)}
    except Exception as error:  # a bug of ours costs its row, by its name, and not the others
        return {"error": internal(error)}
    figures = result.figures() | (result.interval.columns() | stage_columns(result) if interval else {})
    return {name: figures[name] for name in FIGURES if name in figures}
