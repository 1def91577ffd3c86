"""Runs the study's points side by side and keeps what has come out, so that the same command goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from simtti.errors import InputError
from simtti.hw_configs.hardware import Hardware
from simtti.jobs import as_done
from simtti.simulator.sweep import code_hash
from simtti.validation.study.points import Point, measure

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
    code = _fingerprint(hardware)
    journal = folder / JOURNAL
    known = _read(journal, code)
    found = {point: known[point.key] for point in wanted if point.key in known}
    todo = [point for point in wanted if point not in found]
    progress(len(found), len(wanted))
    for point, figures in as_done(measure, {point: (point, hardware) for point in todo}, workers):
        found[point] = figures
        if "error" not in figures:  # it may be possible next time
            _append(journal, code, point, figures)
        progress(len(found), len(wanted))
    return found


def _read(journal: Path, code: str) -> dict[str, dict[str, Any]]:
    found = {}
    for line in journal.read_text().splitlines() if journal.exists() else []:
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # the line being written when it was killed
        if entry["code"] == code:
            found[entry["key"]] = entry["found"]
    return found


def _append(journal: Path, code: str, point: Point, found: dict[str, Any]) -> None:
    try:
        with journal.open("a") as file:
            file.write(json.dumps({"code": code, "key": point.key, "found": found}) + "\n")
    except OSError as error:
        raise InputError(f"cannot write {journal}: {error.strerror or error}") from None


def _fingerprint(hardware: Hardware) -> str:
    """Of the simulator, the study and the device: what other code or numbers left is not taken."""
    digest = hashlib.sha256(f"{code_hash()} {hardware}".encode())
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
