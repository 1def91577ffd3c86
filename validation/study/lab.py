"""Runs the study's points side by side and keeps what has come out, so that the same command goes on where it stopped."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from simtti.hw_configs.devices import fingerprint
from simtti.hw_configs.hardware import Hardware
from simtti.jobs import Pool
from simtti.journal import Journal, code_hash
from simtti.validation.study.points import Point, measure
from simtti.workloads.measured import captures

JOURNAL = "points.jsonl"
Found = Mapping[Point, dict[str, Any]]


def run_points(
    points: Iterable[Point],
    hardware: Hardware,
    folder: Path,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Found:
    """What came out of each point, from the journal in `folder` where this code on this device has left it there.

    Raises:
        InputError: the journal cannot be written.
        KeyboardInterrupt: after the finished points have been kept.
    """
    wanted = list(dict.fromkeys(points))
    journal = Journal(folder / JOURNAL, _fingerprint(hardware))
    known = journal.read()
    found = {point: known[point.key] for point in wanted if point.key in known}
    todo = [point for point in wanted if point not in found]
    progress(len(found), len(wanted))
    with Pool(workers) as pool:
        for point, figures in pool.as_done(measure, {point: (point, hardware) for point in todo}):
            found[point] = figures
            if "error" not in figures:  # it may be possible next time
                journal.append(point.key, figures)
            progress(len(found), len(wanted))
    return found


def _fingerprint(hardware: Hardware) -> str:
    """Of the simulator, the study, the device and the captures: what other code, numbers or measurements left is not taken."""
    digest = hashlib.sha256(f"{code_hash('validation/study')} {fingerprint(hardware)}".encode())
    for capture in captures():
        digest.update(capture.path.read_bytes())
    return digest.hexdigest()[:16]
