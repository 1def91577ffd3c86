"""Which GPU, how many, and how: of all the ways to run a workload that are asked about, the cheapest, the fastest and the most efficient
that keep a limit of latency and of memory.

Every candidate is simulated in the closed form; the best few for each aim then get their intervals.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from simtti.errors import InputError, raise_bugs
from simtti.files import check_table, write_table
from simtti.hw_configs.devices import load
from simtti.hw_configs.prices import load_prices, usd_per_output
from simtti.journal import Journal, code_hash, journal_of, said_of_foreign
from simtti.simulator.sweep import figures_of
from simtti.simulator.uncertainty.draws import COLUMNS as INTERVALS
from simtti.workloads.catalogue import find
from simtti.workloads.named import is_file

if TYPE_CHECKING:
    import pandas as pd

# What may be wanted, by the column that is to be least.
AIMS = {"cheapest": "usd_per_output", "fastest": "latency_s", "most efficient": "energy_per_output_j"}
# How several GPUs may share an inference, by name: degrees of `run` at a number of them.
WAYS: dict[str, Callable[[int], dict[str, int]]] = {
    "ulysses": lambda count: {"ulysses": count},
    "ring": lambda count: {"ring": count},
    "cfg": lambda count: {"cfg_parallel": 2},
    "tensor": lambda count: {"tensor": count},
    "patches": lambda count: {"patches": count},
    "pipefusion": lambda count: {"pipefusion": count},
}
CHOICE = ("hw", "gpus", "way", "batch", "launch", "quantization")
COLUMNS = (
    *CHOICE, "latency_s", "outputs_per_s", "energy_per_output_j", "usd_per_output", "peak_memory_bytes", "fits", "verdict", *AIMS, *INTERVALS,
)  # fmt: skip
MEETS = "meets"


class Advice(NamedTuple):
    """What was found.

    table: COLUMNS, a row a candidate. way: how several GPUs share, '' for one. verdict: 'meets', or why it does not stand to choice. cheapest, fastest, most efficient: its place by
    that aim among those that do, 1 the best; the intervals are of the best of each.
    best: by aim, rows of the table, best first.
    """

    table: pd.DataFrame
    best: dict[str, pd.DataFrame]


def advise(
    workload: str,
    hws: Sequence[str] = (),
    *,
    gpus: Sequence[int] = (1,),
    ways: Sequence[str] = ("ulysses", "cfg"),
    batches: Sequence[int] = (),
    launches: Sequence[str] = ("eager", "compiled"),
    quantizations: Sequence[str | None] = (None,),
    latency_s: float | None = None,
    memory_bytes: float | None = None,
    prices: str | None = None,
    most: int = 3,
    out: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda text: None,
    **options: Any,
) -> Advice:
    """Run `workload` in every way that is asked about, and say which is the cheapest, the fastest and the most efficient.

    Args:
        hws: names or files of devices; those with a price if there is none.
        gpus: numbers of GPUs. ways: how more than one share the inference, names of WAYS.
        batches: outputs at once; the workload's default if none is given. launches, quantizations: as `run` has them; None quantises nothing.
        latency_s: what an inference (of a whole batch) may take at most, in seconds. memory_bytes: what it may hold on each GPU at most;
            the device's own memory in any case.
        prices: a file of prices instead of hw_configs/prices.yaml.
        most: how many are named for each aim.
        out: also write the table, .csv or .parquet. Interrupted, it goes on as a sweep does.
        options: of `run`, the same for all.

    Raises:
        InputError: nothing to choose from, an unknown device or way, or no candidate that could be simulated.
        BugError: a bug cost some candidates.
    """
    import pandas as pd

    by_device = load_prices(prices)
    hws = tuple(hws) or tuple(by_device)
    own = () if batches else (None if is_file(workload) else find(workload).defaults.batch,)
    price_of = {hw: by_device.get(load(hw).name) for hw in hws}
    _check(gpus, ways, latency_s, memory_bytes)
    candidates = [
        {"hw": hw, "gpus": count, "way": way, "batch": batch, "launch": launch, "quantization": quantization}
        for hw, count, batch, launch, quantization in itertools.product(
            hws, gpus, batches or own, launches, quantizations
        )
        for way in (ways if count > 1 else ("",))
    ]
    rows = [_options(workload, candidate) | options for candidate in candidates]
    if out is not None:
        check_table(out)
    with _journal(out) as journal:
        figures = figures_of(
            rows,
            journal,
            interval=False,
            workers=workers,
            progress=progress,
            foreign=lambda count: say(said_of_foreign(out or "", count)),
        )
        table = pd.DataFrame(
            [
                candidate
                | _figures(candidate, found, price_of[str(candidate["hw"])], latency_s, memory_bytes)
                for candidate, found in zip(candidates, figures, strict=True)
            ]
        )
        raise_bugs(pd.Series([found.get("error", "") for found in figures]))
        if table.latency_s.isna().all():
            raise InputError(f"no candidate can be simulated; the first, {hws[0]}: {table.verdict.iloc[0]}")
        table = _placed(table)
        named = table.index[(table[list(AIMS)] <= most).any(axis=1)]
        finer = figures_of([rows[number] for number in named], journal, interval=True, workers=workers)
        for column in INTERVALS:
            table.loc[named, column] = [found.get(column) for found in finer]
        table = table.reindex(columns=list(COLUMNS))
        if out is not None:
            write_table(table, out)
            journal.remove()
    best = {aim: table[table[aim] <= most].sort_values(aim, kind="stable") for aim in AIMS}
    return Advice(table, best)


def _check(
    gpus: Sequence[int], ways: Sequence[str], latency_s: float | None, memory_bytes: float | None
) -> None:
    if not gpus or any(count < 1 for count in gpus):
        raise InputError(f"gpus is {', '.join(map(str, gpus)) or 'empty'}; it must be whole numbers from 1")
    for way in ways:
        if way not in WAYS:
            raise InputError(f"a way to share of {way!r} is unknown; there are {', '.join(WAYS)}")
    if max(gpus) > 1 and not ways:
        raise InputError(f"several GPUs need a way to share: {', '.join(WAYS)}")
    for name, value in (("latency", latency_s), ("memory", memory_bytes)):
        if value is not None and not 0 < value < float("inf"):
            raise InputError(f"the limit of {name} is {value:g}; it must be above 0")


def _options(workload: str, candidate: Mapping[str, Any]) -> dict[str, Any]:
    """A candidate as options of `run`."""
    found = {
        name: value
        for name, value in candidate.items()
        if name in CHOICE and name != "way" and value is not None
    }
    way = WAYS[candidate["way"]](candidate["gpus"]) if candidate["way"] else {}
    return {"workload": workload, **found, **way}


@contextmanager
def _journal(out: str | os.PathLike[str] | None) -> Iterator[Journal]:
    """The journal beside `out`, alone; without one, one that nobody looks for."""
    if out is not None:
        journal = journal_of(out, code_hash())
        with journal.alone(out):
            yield journal
    else:
        try:
            with tempfile.TemporaryDirectory() as folder:
                yield Journal(Path(folder) / "advise.jsonl", "")
        finally:
            Journal.interrupted = None  # nothing of it is kept


def _figures(
    candidate: Mapping[str, Any],
    found: Mapping[str, Any],
    usd_per_gpu_hour: float | None,
    latency_s: float | None,
    memory_bytes: float | None,
) -> dict[str, Any]:
    if found.get("error"):
        return {"latency_s": float("nan"), "verdict": found["error"]}
    outputs = candidate["batch"] or 1
    seconds, held = float(found["latency_s"]), found["peak_memory_bytes"]
    verdict = MEETS
    if found["fits"] is False:
        verdict = "does not fit"
    elif memory_bytes is not None and (held is None or held > memory_bytes):
        verdict = "over the limit of memory"
    elif latency_s is not None and seconds > latency_s:
        verdict = "too slow"
    rate = outputs / seconds
    return {
        "latency_s": seconds,
        "outputs_per_s": rate,
        "energy_per_output_j": found["energy_j"] / outputs,
        "usd_per_output": usd_per_gpu_hour and usd_per_output(usd_per_gpu_hour, candidate["gpus"], rate),
        "peak_memory_bytes": held,
        "fits": found["fits"],
        "verdict": verdict,
    }


def _placed(table: pd.DataFrame) -> pd.DataFrame:
    """The table with each candidate's place by each aim, among those that meet the limits."""
    meets = table.verdict == MEETS
    return table.assign(
        **{
            aim: table[column].where(meets).astype(float).rank(method="first").astype("Int64")
            for aim, column in AIMS.items()
        }
    )
