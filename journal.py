"""The journal of what is done: one for every command that does much, so that an interrupted one goes on where it was.

Figures are kept by what they follow from: code, devices, traces. What other processes work on is known by locks that end with them.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

from simtti.errors import InputError
from simtti.jobs import Pool
from simtti.locks import alone, give_up, hold

if TYPE_CHECKING:
    from filelock import BaseFileLock


def code_hash(*more: str) -> str:
    """A hash of the sources, the numbers and the shipped traces of the simulator, and of the folders in `more`: results of others are
    not resumed from."""
    root = Path(__file__).parent
    folders = ("simulator", "hw_configs", "workloads", *more)
    files = [*root.glob("*.py"), *(path for folder in folders for path in (root / folder).rglob("*"))]
    digest = hashlib.sha256()
    for path in sorted(files):
        if path.suffix in (".py", ".yaml", ".parquet"):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


class Journal:
    """What is done, one JSON line each, as soon as it is: {"code": ..., "key": the job, "figures": what came out}.

    A line of other code counts for nothing, nor does one that a killed process left half written. Several processes may
    write one journal: those that share the work claim jobs in it before they begin, {"code": ..., "claims": [jobs],
    "owner": the process}, and the claims of a process that is no more do not hold.

    A process that claims holds a lock, of a file beside the journal, that ends with it, however it ends and wherever it runs:
    under another host name, in another container, dead and not buried.

    Args:
        path: a .jsonl file.
        code: of what makes the figures: `code_hash`, and whatever else they follow from.

    foreign: lines of figures that other code left: they count for nothing. interrupted: where an interrupted process has kept what was
    done, the last journal that it read or wrote.
    """

    interrupted: ClassVar[Path | None] = None

    def __init__(self, path: Path, code: str) -> None:
        self.path, self.code = path, code
        self.foreign = 0
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(8)}"
        self._lock: BaseFileLock | None = None
        self._is_alone = False
        self._offset = 0
        self._done: dict[str, Any] = {}
        self._claims: dict[str, str] = {}

    def read(self) -> dict[str, Any]:
        """Figures by key of all that is done, by whichever process.

        Raises:
            InputError: the journal is there and cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                for line in file:
                    if not line.endswith(b"\n"):
                        break  # being written, or all that a killed process got out
                    self._offset += len(line)
                    self._take(line)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise InputError(f"cannot read {self.path}: {error.strerror or error}") from None
        if self._done:
            Journal.interrupted = self.path
        return dict(self._done)

    def _take(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
        except ValueError:
            return  # a line that a killed process began and another went on after
        if not isinstance(entry, dict):
            return
        claims, key, owner = entry.get("claims"), entry.get("key"), entry.get("owner")
        if entry.get("code") != self.code:
            self.foreign += isinstance(key, str)
        elif isinstance(claims, list) and isinstance(owner, str):
            self._claims.update(dict.fromkeys((each for each in claims if isinstance(each, str)), owner))
        elif isinstance(key, str) and "figures" in entry:
            self._done.setdefault(key, entry["figures"])

    def append(self, key: str, figures: Any) -> None:
        """Keep what came out of a job.

        Raises:
            InputError: the disk is full, or the journal cannot be written.
        """
        self.append_all({key: figures})

    def append_all(self, figures: Mapping[str, Any]) -> None:
        """Keep what came out of several jobs, by key, in one go.

        Raises:
            InputError: as `append`.
        """
        Journal.interrupted = self.path  # first: an interrupt may come as soon as they are written
        with self._open() as file:
            self._write(file, *({"key": key, "figures": each} for key, each in figures.items()))
        for key, each in figures.items():
            self._done.setdefault(key, each)

    def claim(self, keys: Sequence[str], most: int | None = None) -> list[str]:
        """The first of `keys`, so many at most, that are not done and nobody else works on; now this process does.

        Raises:
            InputError: as `append`.
        """
        self._hold()
        with self._open() as file:
            self.read()
            free = [key for key in keys if key not in self._done and not self._held(key)][:most]
            if free:
                self._write(file, {"claims": free, "owner": self.owner})
        return free

    def remove(self) -> None:
        """Once all is done and written elsewhere."""
        self.path.unlink(missing_ok=True)
        self._guard.unlink(missing_ok=True)
        Journal.interrupted = None

    def release(self) -> None:
        """Give up what this process claimed."""
        if self._lock is not None:
            give_up(_lock_of(self.path, self.owner), self._lock)
            self._lock = None

    @contextmanager
    def alone(self, output: str | os.PathLike[str]) -> Iterator[None]:
        """Work on the journal with no other process.

        Raises:
            InputError: another does. output: what both would write.
        """
        path = self.path.with_name(f"{self.path.name}.lock")
        try:
            lock = hold(path, wait=False)
        except OSError as error:
            raise InputError(f"cannot write {output}: {error.strerror or error}") from None
        if lock is None:
            raise InputError(f"{output}: another simtti is writing it; wait for that one, or write elsewhere")
        self._is_alone = True
        try:
            yield
        finally:
            self._is_alone = False
            give_up(path, lock)

    def holders(self) -> list[str]:
        """The processes that work on what is not done, each as host:number."""
        owners = {owner for key, owner in self._claims.items() if key not in self._done}
        return sorted(
            owner.rpartition(":")[0] for owner in owners if owner != self.owner and self._lives(owner)
        )

    def _hold(self) -> None:
        if self._lock is not None:
            return
        try:
            self._lock = hold(_lock_of(self.path, self.owner), wait=False)
        except OSError as error:
            raise InputError(f"cannot write {self.path}: {error.strerror or error}") from None
        atexit.register(self.release)

    def _held(self, key: str) -> bool:
        owner = self._claims.get(key, "")
        return owner not in ("", self.owner) and self._lives(owner)

    def _lives(self, owner: str) -> bool:
        """Whether the process that called itself so still holds its lock."""
        path = _lock_of(self.path, owner)
        try:
            if not path.exists():
                return False  # it ended well, or never was
            lock = hold(path, wait=False)
        except (OSError, ValueError):
            return False
        if lock is None:
            return True
        give_up(path, lock)
        return False

    @contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        """The journal, to be added to, while no other process adds to it."""
        try:
            with nullcontext() if self._is_alone else alone(self._guard), self.path.open("ab") as file:
                yield file
        except OSError as error:
            raise InputError(f"cannot write {self.path}: {error.strerror or error}") from None

    @property
    def _guard(self) -> Path:
        """Held by the process that adds to the journal, where several may; it stays as long as the journal."""
        return self.path.with_name(f".{self.path.name}.lock")

    def _write(self, file: BinaryIO, *entries: dict[str, Any]) -> None:
        """A line each, in one write, after whatever a killed process left."""
        lines = b"".join(json.dumps({"code": self.code, **entry}).encode() + b"\n" for entry in entries)
        torn = file.tell() > 0 and not _ends_with_newline(self.path)
        file.write(b"\n" + lines if torn else lines)
        file.flush()  # before the lock is given up, and while a full disk can still be told


def journal_of(output: str | os.PathLike[str], code: str) -> Journal:
    """The journal beside a table that is not written yet; `code` as for Journal."""
    return Journal(Path(output).with_name(f".{Path(output).name}.partial.jsonl"), code)


def said_of_foreign(output: str | os.PathLike[str], count: int) -> str:
    """What a command says of so many figures that it found kept and that do not count."""
    return (
        f"{output}: {count} rows kept of other code, devices or traces do not count; they are simulated anew"
    )


def resumed(
    pool: Pool, function: Callable[..., Any], jobs: Mapping[str, tuple[Any, ...]], journal: Journal | None
) -> Iterator[tuple[str, Any]]:
    """What `function` gives for the arguments of each job, figures that JSON holds: (the job's key, the figures). First those that the
    journal has, then the others as they end, each after the journal has it. Without a
    journal, all of them as they end.

    Raises:
        InputError: workers are killed again and again; the journal cannot be read or written.
    """
    if journal is None:
        yield from pool.as_done(function, jobs)
        return
    known = journal.read()
    yield from ((key, known[key]) for key in jobs if key in known)
    left = {key: arguments for key, arguments in jobs.items() if key not in known}
    for key, figures in pool.as_done(function, left):
        journal.append(key, figures)
        yield key, figures


def _lock_of(path: Path, owner: str) -> Path:
    """The file that a process of that name holds while it works on the journal at `path`."""
    token = "".join(each for each in owner.rpartition(":")[2] if each.isalnum())[:32] or "none"
    return path.with_name(f".{path.name}.{token}.lock")


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
