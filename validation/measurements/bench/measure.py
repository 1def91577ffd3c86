"""Measures the cases of a suite on a device, into one Parquet file.

    measure_suite("cuda", "h200.parquet", budget_s=240)

A row a case: the columns of `simtti predict`, then what was measured, in microseconds:

    warm_us, warm_p10_us, warm_p90_us
                    a launch among many, back to back, from event to event: operands in L2 where they fit
    cold_us, cold_p10_us, cold_p90_us
                    one launch after the L2 was filled with something else, with the gaps between its kernels and what
                    the events themselves cost (the row of launch function=nothing). What `predict` predicts
    host_us         what the host needs to issue it
    warm_kernel_us, cold_kernel_us, kernel_count, kernels
                    the same launches as CUPTI saw them through torch.profiler: kernels alone, without gaps; `kernels`
                    is JSON: name, grid, block, registers, shared memory and times of each
    failure         why there are no times: an unsupported backend, too little memory
    sm_clock_mhz, memory_clock_mhz, temperature_c, power_w
                    the device's state at the end of the row's batch
    run             which of the file's runs measured it

The file's metadata, a JSON object under `simtti_measurements`, says on which device and, run by run, when, with which
versions and by which command. Every batch of at most 16 cases replaces the file whole, so that a run that is killed
loses one batch; the same command goes on where it stopped.

Tried on a CPU only, where there are times of the host and no kernels; events, flushes, the profiler's kernels, the
snapshots of clocks and Nsight Compute have not met a GPU yet.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from simtti.errors import InputError, unknown
from simtti.files import check_writable
from simtti.validation.measurements.bench.counters import count, counter_id
from simtti.validation.measurements.bench.file import MeasurementFile, Row, ids_of, reason_of
from simtti.validation.measurements.bench.operators import Prepared, prepare
from simtti.validation.measurements.bench.timing import Bench, bench_on
from simtti.validation.measurements.case import Case
from simtti.validation.measurements.suite import batches, counter_cases, suite
from simtti.workloads.record import quiet

DEVICES = ("cuda", "cpu")
CPU_MAX_FLOPS, CPU_MAX_BYTES = 3e8, 3e7  # on a CPU the suite is tried out, not measured


@dataclass(frozen=True, slots=True)
class Measured:
    """What a run of `measure_suite` did. `failed` cases are among the measured; `left` ones the budget did not reach."""

    measured: int
    failed: int
    left: int
    seconds: float


def measure_suite(
    device: str,
    out: str | os.PathLike[str],
    budget_s: float = 240.0,
    families: Iterable[str] | None = None,
    skip: Iterable[str | os.PathLike[str]] = (),
    counters: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    suite_name: str = "tti",
) -> Measured:
    """Measure the cases that neither `out` nor the files of `skip` hold, until they or `budget_s` end.

    Args:
        device: 'cuda', or 'cpu' to try the suite's small cases without a GPU.
        out: a .parquet file; one that exists is added to.
        families: of the suite; all if None.
        counters: instead of times, read the hardware counters of a few cases with Nsight Compute.
        progress: called with (cases done, cases).

    Raises:
        InputError: an unknown family or device, no torch or GPU, no ncu, a file that is not of measurements or is of
            another device, an unwritable one; the device failed.
        KeyboardInterrupt: after finished batches have been kept.
    """
    begin = time.monotonic()
    if device not in DEVICES:
        raise unknown("device to measure on", device, DEVICES)
    if not budget_s > 0:
        raise InputError(f"budget_s is {budget_s!r}; it must be more than 0 seconds")
    chosen = list(families) if families is not None else None
    cases = counter_cases() if counters else suite(chosen, suite_name)
    check_writable(out)
    if Path(out).suffix != ".parquet":
        raise InputError(f"{out}: measurements are written as .parquet")
    bench = bench_on(device)
    command = _command(device, budget_s, chosen, counters, suite_name)
    file = MeasurementFile(Path(out), bench.facts(), command)
    done = file.ids() | {id for path in skip for id in ids_of(Path(path), file.device)}
    if counters:
        todo = [case for case in cases if counter_id(case) not in done]
        rows = count(todo, device, max(budget_s - (time.monotonic() - begin), 1.0))
        file.append(rows)
        failed = sum(row["failure"] is not None for row in rows)
        return Measured(len(rows), failed, len(todo) - len(rows), time.monotonic() - begin)
    todo = [case for case in cases if case.id not in done]
    if device == "cpu":
        todo = [case for case in todo if case.flops <= CPU_MAX_FLOPS and case.nbytes <= CPU_MAX_BYTES]
    return _measure(todo, file, bench, begin, budget_s, progress)


def _measure(
    todo: list[Case], file: MeasurementFile, bench: Bench, begin: float, budget_s: float, progress: Callable[[int, int], None]
) -> Measured:  # fmt: skip
    measured = failed = 0
    progress(0, len(todo))
    with quiet(), bench.torch.no_grad():  # torch says at length why a backend takes no part
        for batch in batches(todo, most_bytes=bench.memory_bytes * 0.3):
            if time.monotonic() - begin > budget_s:
                break
            rows = _measure_batch(batch, bench, begin + budget_s)
            file.append(rows)
            measured += len(rows)
            failed += sum(row["failure"] is not None for row in rows)
            progress(measured, len(todo))
            if bench.lost:
                raise InputError(
                    f"the device failed at {rows[-1]['id']!r}: {rows[-1]['failure']}; what was measured is in "
                    f"{file.path}, and the same command goes on after that case"
                )
    return Measured(measured, failed, len(todo) - measured, time.monotonic() - begin)


def _measure_batch(batch: list[Case], bench: Bench, deadline: float) -> list[Row]:
    """The rows of a batch's cases, of as many as were begun before the deadline."""
    rows: list[Row] = []
    live: list[tuple[Row, Prepared]] = []
    for case in batch:
        if time.monotonic() > deadline or bench.lost:
            break
        row: Row = {**case.row(), "id": case.id, "flops": case.flops, "nbytes": case.nbytes, "failure": None}
        rows.append(row)
        prepared = _timed(case, row, bench)
        if prepared is None and "out of memory" in str(row["failure"]) and not bench.lost:
            prepared = _timed(case, row, bench)  # the allocator has given back what it had kept
        if prepared is not None:
            live.append((row, prepared))
    if live and not bench.lost:
        try:
            for (row, _), kernels in zip(
                live, bench.kernels([prepared for _, prepared in live]), strict=True
            ):
                row.update(kernels)
        except Exception as error:  # times without kernels are worth keeping
            live[-1][0]["failure"] = f"profiling the batch: {reason_of(error)}"
            bench.recover()
    state = {} if bench.lost else bench.state()
    live.clear()
    bench.tidy()
    return [{**row, **state} for row in rows]


def _timed(case: Case, row: Row, bench: Bench) -> Prepared | None:
    """Write the case's times into its row; None, and the reason in the row, where there are none."""
    try:
        prepared = prepare(case, bench.torch, bench.device)
        row.update(bench.times(prepared), failure=None)
        return prepared
    except Exception as error:  # a row's failure is a result too
        row["failure"] = reason_of(error)
    bench.recover()
    return None


def _command(
    device: str, budget_s: float, families: list[str] | None, counters: bool, suite_name: str
) -> str:
    """The command that does the same, without names of files, which are nobody else's business."""
    words = f"simtti capture kernels --suite {suite_name} --device {device} --budget-s {budget_s:g}".split()
    words += ["--families", ",".join(families)] if families else []
    words += ["--counters"] if counters else []
    return " ".join(words)
