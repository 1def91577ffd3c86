"""A study: designs evaluated one batch after another, each kept on disk as soon as it is done.

DIR/study.jsonl is a journal of one JSON line a design. A search is deterministic: started again, it proposes the same
designs, and those in the journal are not evaluated again. So an interrupted study, by Ctrl-C or kill -9, loses the designs
in flight and nothing else, and its results are the same bytes. Several processes may work on one DIR: a design is claimed
in the journal before it is evaluated, and the claims of a process that is no more do not hold.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from simtti.errors import InputError
from simtti.explore.engines import Engine
from simtti.explore.spec import Spec
from simtti.simulator.sweep import code_hash

_POLL_S = 0.3  # between looks at what other processes have done
_SILENCE_S = 900.0  # a claim of another machine is given up after so long
_CLAIM = 64  # designs claimed at once, or an eighth of those left if that is more

Progress = Callable[[int, int], None]


class Study:
    """Evaluates designs of a spec, each once; `evaluated` counts those of this process."""

    def __init__(self, spec: Spec, folder: Path, engine: Engine, progress: Progress) -> None:
        self.spec_json = spec.model_dump_json(exclude_defaults=True)
        self.engine, self.progress = engine, progress
        self.journal = _Journal(folder / "study.jsonl", f"{spec.identity()} {code_hash('explore')}")
        self.evaluated = 0

    def evaluate(
        self, designs: Sequence[dict[str, float]], total: int, limits: bool = False
    ) -> list[dict[str, Any]]:
        """The figures of `designs`, in order. total: of designs the whole search will have, for the progress."""
        keys = [design_key(values) + ("+limits" if limits else "") for values in designs]
        values_of = dict(zip(keys, designs, strict=True))
        while True:
            done = self.journal.read()
            self.progress(sum("+" not in key for key in done), total)
            left = [key for key in values_of if key not in done]
            if not left:
                return [done[key] for key in keys]
            mine = self.journal.claim(left[: max(_CLAIM, len(left) // 8)])
            if not mine:
                time.sleep(_POLL_S)
                continue
            tasks = [(self.spec_json, values_of[key], limits) for key in mine]
            count = len(done)
            for index, figures in self.engine(tasks):
                self.journal.append(mine[index], values_of[mine[index]], figures)
                self.evaluated += 1
                count += 1
                self.progress(min(count, total), total)


def design_key(values: dict[str, float]) -> str:
    """A design's name in the journal: its parameters."""
    return json.dumps(values, sort_keys=True)


class _Journal:
    def __init__(self, path: Path, study: str) -> None:
        self.path = path
        self.study = hashlib.sha256(study.encode()).hexdigest()[:16]
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{_started(os.getpid())}"
        self._offset = 0
        self._done: dict[str, dict[str, Any]] = {}
        self._claims: dict[str, tuple[str, float]] = {}

    def read(self) -> dict[str, dict[str, Any]]:
        """Figures by key of all designs that are done, by whichever process."""
        if self.path.exists():
            with self.path.open("rb") as file:
                file.seek(self._offset)
                for line in file:
                    if not line.endswith(b"\n"):
                        break  # being written, or all that a killed process got out
                    self._offset += len(line)
                    self._take(line)
        return self._done

    def _take(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
        except ValueError:
            return  # a line that a killed process began and another went on after
        if entry.get("study") != self.study:
            return  # of another question, or of other code
        if "claims" in entry:
            for key in entry["claims"]:
                self._claims[key] = entry["owner"], entry["at"]
        elif entry["key"] not in self._done:
            self._done[entry["key"]] = entry["figures"]

    def claim(self, keys: Sequence[str]) -> list[str]:
        """Those of `keys` that nobody else is working on; now this process is."""
        with self._locked():
            self.read()
            free = [key for key in keys if key not in self._done and not self._held(key)]
            if free:
                self._write({"claims": free, "owner": self.owner, "at": time.time()})
        return free

    def _held(self, key: str) -> bool:
        owner, at = self._claims.get(key, ("", 0.0))
        if owner in ("", self.owner):
            return False
        host, pid, started = owner.rsplit(":", 2)
        if host == socket.gethostname():
            return _started(int(pid)) == started
        return time.time() - at < _SILENCE_S

    def append(self, key: str, values: dict[str, float], figures: dict[str, Any]) -> None:
        with self._locked():
            self._write({"key": key, "values": values, "figures": figures})
        self._done.setdefault(key, figures)

    def _write(self, entry: dict[str, Any]) -> None:
        """One line, in one write, after whatever a killed process left."""
        try:
            with self.path.open("ab") as file:
                torn = file.tell() > 0 and not _ends_with_newline(self.path)
                line = json.dumps({"study": self.study, **entry}).encode() + b"\n"
                file.write(b"\n" + line if torn else line)
        except OSError as error:
            raise InputError(f"cannot write {self.path}: {error.strerror or error}") from None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self.path.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(lock, fcntl.LOCK_UN)


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _started(pid: int) -> str:
    """When a process of this machine began, in the kernel's ticks, so that a number used again is not mistaken; empty when
    there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[19]
    except OSError:
        return "" if not _alive(pid) else "0"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
