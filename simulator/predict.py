"""Single kernels from a table: an operator by its shape in, its time out.

Times are what a benchmark that launches the operator again and again from a CUDA graph measures: the launch gap and
the kernels, one after another. L2 is cold but for products, of whose operands it holds what `kernels.gemm.Traffic`
says. Long kernels run at the clock that their own power allows (`power`), short ones at the boost clock: the benchmark
is over before the clock falls.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from simtti.errors import InputError, internal, raise_bugs
from simtti.files import check_table, read_table, write_table
from simtti.hw_configs.devices import fingerprint, load
from simtti.hw_configs.hardware import PYTORCH, Hardware, with_pytorch
from simtti.jobs import in_chunks
from simtti.journal import Journal, code_hash, journal_of, said_of_foreign
from simtti.simulator.closed_form import lone_time_s, repeated_hbm_bytes
from simtti.simulator.engine import power
from simtti.simulator.engine.device import execution_time_s
from simtti.simulator.kernel import Kernel
from simtti.simulator.lowering.registry import baseline_of, kernels_of
from simtti.simulator.operators_time import limited, rows_side_by_side, slowed_s
from simtti.simulator.uncertainty.families import families_of_rows
from simtti.simulator.uncertainty.outside import of_operator
from simtti.simulator.uncertainty.residuals import Interval, shipped, size_class

if TYPE_CHECKING:
    import pandas as pd

# What an interrupt loses of each worker at most; some 0.2 s.
_CHUNK_ROWS = 500
INTERVAL_COLUMNS = (*(f"{name}_us" for name in Interval._fields), "warnings")


def predict(
    rows: str | os.PathLike[str] | pd.DataFrame,
    hw: str | Hardware,
    out: str | os.PathLike[str] | None = None,
    *,
    tf32: bool = False,
    interval: bool = True,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda text: None,
) -> pd.DataFrame:
    """Time each row's operator on `hw`, alone.

    Rows that are timed are kept beside `out` as they end; interrupted, it keeps them, and the same call does the rest.

    Args:
        rows: a table or its path, with `op` (one of `lowering.registry.FAMILIES`), `dtype`, and the op's shape
            columns; `simtti predict --help` lists them.
        tf32: fp32 products may be rounded to TF32 where a row does not say (column `tf32`).
        interval: with columns for what such predictions were off by.
        out: where to write the table, .csv or .parquet; neither written nor kept if None.
        progress: called with (distinct rows done, distinct rows).
        say: called with what is not as one might think: rows kept that do not count.

    Returns:
        The rows with time_us and kernel_us added, in microseconds (see Predicted), the names of the kernels, and error, the reason
        where there is no time; with `interval` p05_us, p25_us, p75_us and p95_us, between which time_us lies in half of such
        predictions and in 9 of 10 (docs/accuracy.md), and warnings, where it leaves what was measured.

    Raises:
        InputError: an unreadable table or device, an unwritable output.
        KeyboardInterrupt: after the finished rows have been kept.
        BugError: a bug cost some rows; the others are written.
    """
    import pandas as pd

    table = rows if isinstance(rows, pd.DataFrame) else read_table(rows)
    table = table.drop(columns=list(INTERVAL_COLUMNS), errors="ignore")  # a copy
    if "op" not in table.columns:
        raise InputError(
            f"{rows if not isinstance(rows, pd.DataFrame) else 'the table'}: column 'op' is missing"
        )
    if out is not None:
        check_table(out)
    hardware = hw if isinstance(hw, Hardware) else load(hw)
    given = table.drop(columns=list(Predicted._fields), errors="ignore")
    records: list[dict[str, Any]]
    records, same = _distinct(given)
    if tf32:
        records = [{**row, "tf32": True} if _unsaid(row.get("tf32")) else row for row in records]
    if out is None:
        once = in_chunks(
            predict_rows, records, hardware, size=_CHUNK_ROWS, workers=workers, progress=progress
        )
        table = _with_columns(table, _figures(table, once, same, hardware if interval else None))
    else:
        journal = journal_of(out, _code(hardware))
        with journal.alone(out):
            once, foreign = _resumed(records, hardware, journal, workers, progress)
            if foreign:
                say(said_of_foreign(out, foreign))
            table = _with_columns(table, _figures(table, once, same, hardware if interval else None))
            write_table(table, out)
            journal.remove()
    raise_bugs(table["error"])
    return table


def _figures(
    table: pd.DataFrame, once: list[Predicted], same: list[int], hardware: Hardware | None = None
) -> dict[str, Any]:
    """The columns of what came out of the row of each number in `same`, and with a device its intervals."""
    import pandas as pd

    found = [once[number] for number in same]
    columns: dict[str, Any] = {
        name: pd.Series([getattr(one, name) for one in found], table.index, dtype=float)
        for name in ("time_us", "kernel_us")
    }
    columns |= {
        name: pd.Series([getattr(one, name) for one in found], table.index) for name in ("kernels", "error")
    }
    return columns | (_intervals(table, columns["time_us"], hardware) if hardware is not None else {})


def _with_columns(table: pd.DataFrame, columns: dict[str, Any]) -> pd.DataFrame:
    """The table with more columns, all at once; those that it has are replaced where they stand."""
    import pandas as pd

    there = {name: column for name, column in columns.items() if name in table}
    new = {name: column for name, column in columns.items() if name not in table}
    return pd.concat([table.assign(**there), pd.DataFrame(new, index=table.index)], axis=1)


def _resumed(
    records: list[dict[str, Any]],
    hardware: Hardware,
    journal: Journal,
    workers: int | None,
    progress: Callable[[int, int], None],
) -> tuple[list[Predicted], int]:
    """What comes out of each row, those that the journal has from there and the others into it; and how many it has that do not
    count."""
    keys = [_key(row) for row in records]
    kept = journal.read()
    left = [number for number, key in enumerate(keys) if key not in kept]
    done = len(keys) - len(left)
    progress(done, len(keys))

    def keep(at: int, results: Sequence[Predicted]) -> None:
        numbers = left[at : at + len(results)]
        journal.append_all({keys[number]: result for number, result in zip(numbers, results, strict=True)})

    timed = in_chunks(
        predict_rows,
        [records[number] for number in left],
        hardware,
        size=_CHUNK_ROWS,
        workers=workers,
        progress=lambda now, total: progress(done + now, len(keys)),
        keep=keep,
    )
    new = dict(zip(left, timed, strict=True))
    once = [new[number] if number in new else Predicted(*kept[key]) for number, key in enumerate(keys)]
    return once, journal.foreign + len(kept) - done


def _code(hardware: Hardware) -> str:
    """Of all that a row's times follow from beside the row: the code, and every number of the device, whichever files they stand in."""
    return f"{code_hash()} {fingerprint(hardware)}"


def _key(row: dict[str, Any]) -> str:
    """A row's name in the journal: a hash of its cells, with their types."""
    return hashlib.blake2b(repr(row).encode(), digest_size=16).hexdigest()


def _intervals(table: pd.DataFrame, times_us: pd.Series[float], hardware: Hardware) -> dict[str, Any]:
    """INTERVAL_COLUMNS, empty where there is no time."""
    import pandas as pd

    known, found = shipped(), []
    factors: dict[tuple[str, str], Interval] = {}
    for family, time_us in zip(families_of_rows(table), times_us, strict=True):
        if not time_us > 0:
            found.append((math.nan,) * 4 + ("",))
            continue
        kind = family, size_class(time_us)
        if kind not in factors:
            factors[kind] = known.factors(hardware, family, time_us)
        found.append((*factors[kind].times(time_us), of_operator(family, time_us, hardware, known)))
    columns = zip(*found, strict=True) if found else [()] * len(INTERVAL_COLUMNS)
    return {
        name: pd.Series(list(cells), table.index, dtype=object if name == "warnings" else float)
        for name, cells in zip(INTERVAL_COLUMNS, columns, strict=True)
    }


def _unsaid(cell: Any) -> bool:
    return cell is None or cell != cell or cell == ""


def _distinct(given: pd.DataFrame) -> tuple[list[dict[str, Any]], list[int]]:
    """The rows that differ, and of each row the number of its own among them: an operator is timed once, however often it stands in
    the table."""
    numbers: dict[tuple[Any, ...], int] = {}
    same: list[int] = []
    firsts: list[dict[str, Any]] = []
    names = [str(name) for name in given.columns]
    for row in given.itertuples(index=False, name=None):
        key = tuple((type(cell), cell) if cell == cell else None for cell in row)
        number = numbers.setdefault(key, len(firsts))
        if number == len(firsts):
            firsts.append(dict(zip(names, row, strict=True)))
        same.append(number)
    return firsts, same


class Predicted(NamedTuple):
    """Of a row: time_us, what the operator takes of its stream, gaps included; kernel_us, its kernels alone, as CUPTI counts
    them; what is launched, in order; and the reason where there is no time."""

    time_us: float
    kernel_us: float
    kernels: str
    error: str


def predict_rows(rows: list[dict[str, Any]], device: Hardware) -> list[Predicted]:
    """Each row's times, NaN where it has none: of the present release of PyTorch, if its column `pytorch` does not say another."""
    found: dict[int, Predicted] = {}
    # A bug of ours in a column costs time: its rows are gone through one after another.
    with contextlib.suppress(Exception):
        for timed in rows_side_by_side(rows, lambda row: _of_release(row, device)):
            times = (timed.time.time_s * 1e6).tolist(), (timed.time.alone_s * 1e6).tolist()
            for number, time_us, alone_us, names in zip(timed.row, *times, timed.names, strict=True):
                found[number] = Predicted(time_us, alone_us, names, "")
    return [found.get(number) or _predicted(row, device) for number, row in enumerate(rows)]


def _of_release(row: Mapping[str, Any], device: Hardware) -> Hardware:
    said = row.get("pytorch")
    return with_pytorch(device, PYTORCH[0] if _unsaid(said) else str(said))


def _predicted(row: dict[str, Any], device: Hardware) -> Predicted:
    try:
        hardware = _of_release(row, device)
        kernels = kernels_of(row, hardware)
        time_s = operator_time_s(kernels, hardware)
        baseline = baseline_of(row, hardware)
    except InputError as error:
        return Predicted(math.nan, math.nan, "", str(error))
    except Exception as error:  # a bug of ours costs its row, by its name, and not the others
        return Predicted(math.nan, math.nan, "", internal(error))
    alone_s = time_s - gaps_s(kernels, hardware)
    if baseline:
        time_s = alone_s = more_s(time_s, baseline, hardware)
    names = ", ".join(kernel.name for kernel in kernels)
    return Predicted(time_s * 1e6, alone_s * 1e6, names, "")


def more_s(time_s: float, baseline: list[Kernel], hardware: Hardware) -> float:
    """What an operator of `time_s` takes longer than the kernels that it is held against."""
    return max(time_s - operator_time_s(baseline, hardware), hardware.dispatch_s)


def gaps_s(kernels: list[Kernel], hardware: Hardware) -> float:
    """Seconds of an operator's time in which none of its kernels runs."""
    return hardware.operator_gap_s + len(kernels) * hardware.launch_s


def operator_time_s(kernels: list[Kernel], hardware: Hardware, fidelity: str = "wave") -> float:
    """Seconds of an operator's kernels back to back, each with its launch gap, on average over a benchmark's launches:
    at the boost clock until the board's power limit acts, at the clock it allows from then on."""
    boost_s = gaps_s(kernels, hardware)
    boost_s += sum(execution_time_s(kernel, hardware, fidelity=fidelity) for kernel in kernels)
    host_s = sum(kernel.host_s for kernel in kernels)
    if boost_s <= host_s:
        return host_s  # it waits for the host, and the board cools meanwhile
    if not kernels:
        return boost_s
    share = limited(boost_s)
    if share <= 0:
        return boost_s
    # The slowdown is the closed form's, with which the simulation agrees.
    clock_hz = sustained_clock_hz(kernels, hardware)
    slowdown = time_at_clock_s(kernels, hardware, clock_hz) / time_at_clock_s(
        kernels, hardware, hardware.clock_hz
    )
    return slowed_s(boost_s, share, slowdown)


def time_at_clock_s(kernels: list[Kernel], hardware: Hardware, clock_hz: float) -> float:
    """Closed form of an operator's kernels at another SM clock; its launch gaps stay what they are."""
    device, clock = power.at_clock(hardware, clock_hz), clock_hz / hardware.clock_hz
    times = (lone_time_s(power.slowed(kernel, clock), device) for kernel in kernels)
    return hardware.operator_gap_s + sum(times)


def sustained_clock_hz(kernels: list[Kernel], hardware: Hardware) -> float:
    """The clock that an operator's kernels run at when a benchmark repeats them without end."""
    return power.sustained_clock_hz(
        benchmark_energy(kernels, hardware),
        lambda clock_hz: time_at_clock_s(kernels, hardware, clock_hz),
        hardware,
    )


def benchmark_energy(kernels: list[Kernel], hardware: Hardware) -> power.Energy:
    """Energy of an operator's kernels in a benchmark at the boost clock."""
    products = all(kernel.family == "gemm" for kernel in kernels)
    activity = hardware.gemm_benchmark_activity if products else hardware.benchmark_activity
    return power.total(
        power.energy(kernel, repeated_hbm_bytes(kernel), hardware, activity) for kernel in kernels
    )
