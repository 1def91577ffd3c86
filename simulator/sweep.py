"""Many runs: a table with a column per option of `run`, each row simulated, in parallel, resumable.

Finished rows go to a journal beside the output as they end; an interrupted sweep keeps it, the same command reads it
and does the rest, and a finished sweep removes it.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simtti.errors import InputError, unknown
from simtti.files import check_writable, read_table, write_table

if TYPE_CHECKING:
    import pandas as pd

OPTIONS = (
    "workload", "hw", "gpus", "ulysses", "ring", "batch", "steps", "height", "width", "frames", "prompt_tokens", "dtype",
    "attention",    "launch", "host", "trace", "fidelity",
)  # fmt: skip
_WHOLE = ("gpus", "ulysses", "ring", "batch", "steps", "height", "width", "frames", "prompt_tokens")
FIGURES = ("latency_s", "energy_j", "peak_memory_bytes", "host_bound_share", "error")


def sweep(
    points: str | os.PathLike[str] | pd.DataFrame,
    out: str | os.PathLike[str],
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> pd.DataFrame:
    """Run every row of `points` and write it with what came out to `out` (.csv or .parquet).

    Args:
        points: a table or its path; columns are options of `run`; an empty cell is the option's default.
        workers: processes; as many as there are cores if not given.
        progress: called with (finished rows, rows).

    Returns:
        The table as written: the points, then latency_s, energy_j, peak_memory_bytes, host_bound_share, and error,
        the reason where a row has no result.

    Raises:
        InputError: an unreadable table, an unknown column, an unwritable output.
        KeyboardInterrupt: after the finished rows have been kept.
    """
    import pandas as pd

    table = points if isinstance(points, pd.DataFrame) else read_table(points)
    for column in table.columns:
        if column not in OPTIONS:
            raise unknown("column", str(column), OPTIONS)
    for column in ("workload", "hw"):
        if column not in table.columns:
            raise InputError(
                f"{points if not isinstance(points, pd.DataFrame) else 'points'}: column {column!r} is missing"
            )
    check_writable(out)
    if Path(out).suffix not in (".csv", ".parquet"):
        raise InputError(f"{out}: a table is written as .csv or .parquet")
    rows = [_options({str(name): cell for name, cell in row.items()}) for row in table.to_dict("records")]
    journal = _Journal(Path(out))
    found = journal.read()
    todo = {key: row for row in rows if (key := _key(row)) not in found}
    done = len(rows) - sum(_key(row) in todo for row in rows)
    progress(done, len(rows))
    pool = ProcessPoolExecutor(
        max_workers=max(1, min(workers or os.cpu_count() or 1, len(todo) or 1)),
        initializer=_leave_interrupts_to_parent,
    )
    try:
        futures = {pool.submit(_run_row, row): key for key, row in todo.items()}
        for future in as_completed(futures):
            figures = future.result()
            key = futures[future]
            found[key] = figures
            journal.append(key, figures)
            done += sum(_key(row) == key for row in rows)
            progress(done, len(rows))
    except BaseException:
        for worker in multiprocessing.active_children():
            worker.terminate()  # the rows in flight are lost, the finished ones are in the journal
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()
    for name in FIGURES:
        table[name] = [found[_key(row)].get(name) for row in rows]
    write_table(table, out)
    journal.remove()
    return table


def _leave_interrupts_to_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _options(row: dict[str, Any]) -> dict[str, Any]:
    """A row's options without the empty ones, whole numbers whole (a CSV column with a gap reads as floats)."""
    options = {}
    for name, value in row.items():
        if value is None or value != value:
            continue
        if name in _WHOLE and float(value).is_integer():
            value = int(value)
        options[name] = value.item() if hasattr(value, "item") else value
    return options


def _key(row: dict[str, Any]) -> str:
    return json.dumps(row, sort_keys=True)


def _run_row(options: dict[str, Any]) -> dict[str, Any]:
    from simtti.simulator.run import run

    options = dict(options)
    try:
        for name in ("workload", "hw"):
            if name not in options:
                raise InputError(f"{name} is empty")
        result = run(options.pop("workload"), options.pop("hw"), **options)
    except (InputError, ValueError) as error:
        return {"error": str(error)}
    whole = result.several_gpus or result
    return {
        "latency_s": whole.latency_s,
        "energy_j": whole.energy_j,
        "peak_memory_bytes": result.peak_memory_bytes,
        "host_bound_share": result.host_bound_share,
    }


class _Journal:
    """Finished rows, one JSON line each, beside the output; of this version of simtti only."""

    def __init__(self, out: Path) -> None:
        self.path = out.with_name(f".{out.name}.partial.jsonl")
        self.code = code_hash()

    def read(self) -> dict[str, dict[str, Any]]:
        found = {}
        if self.path.exists():
            for line in self.path.read_text().splitlines():
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue  # the line being written when the sweep was killed
                if entry.get("code") == self.code:
                    found[entry["key"]] = entry["figures"]
        return found

    def append(self, key: str, figures: dict[str, Any]) -> None:
        try:
            with self.path.open("a") as file:
                file.write(json.dumps({"code": self.code, "key": key, "figures": figures}) + "\n")
        except OSError as error:
            raise InputError(f"cannot write {self.path}: {error.strerror or error}") from None

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def code_hash(*more: str) -> str:
    """A hash of the sources and numbers of the simulator, and of the folders in `more`: results of others are not resumed
    from."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    files = [
        path
        for folder in ("simulator", "hw_configs", "workloads", *more)
        for path in (root / folder).rglob("*")
    ]
    for path in sorted(files):
        if path.suffix in (".py", ".yaml"):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
