"""Many jobs: side by side in processes of this machine, and a journal of those that are done.

Every command that does many things at once does them here, so that they behave alike. Ctrl-C, or an error of one job,
ends the workers at once; what is done by then is in the journal where there is one, and the same command goes on from
there. A worker that is killed takes no job with it: those it may have had are done again, after all others. A full disk
is an InputError that names the file. One job alone, or one worker, needs no process: it is done in this one. Jobs that may
spoil the process they are done in have one each (`in_own_processes`).
"""

from __future__ import annotations

import atexit
import hashlib
import json
import math
import multiprocessing
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, TypeVar

from simtti.errors import InputError

K = TypeVar("K")
T = TypeVar("T")
Progress = Callable[[int, int], None]

# Deaths of workers without one job done in between, after which something must be wrong with the jobs.
MOST_DEATHS = 3
# Jobs handed out for each worker: one that it does and one that waits for it.
_AHEAD = 2


def cores(workers: int | None) -> int:
    """The number of workers asked for, as many as there are cores if None.

    Raises:
        InputError: less than 1.
    """
    if workers is not None and workers < 1:
        raise InputError(f"--workers is {workers}; it must be at least 1")
    return workers or os.cpu_count() or 1


class Pool:
    """Processes for jobs. `with Pool(workers) as pool:`; left by an error or by Ctrl-C, it ends them at once.

    workers: processes at most; as many as there are cores if None.

    Raises:
        InputError: workers is less than 1.
    """

    def __init__(self, workers: int | None = None) -> None:
        self.workers = cores(workers)
        self._executor: ProcessPoolExecutor | None = None
        self._size = 0
        self._not_ours: set[int | None] = set()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._end()
        elif self._executor is not None:
            self._executor.shutdown()

    def as_done(
        self, function: Callable[..., Any], jobs: Mapping[K, tuple[Any, ...]]
    ) -> Iterator[tuple[K, Any]]:
        """What `function` gives for the arguments of each job, as they end: (the job's key, the result).

        An exception of a job is raised here, with the worker's traceback.

        Raises:
            InputError: workers are killed again and again.
        """
        if self.workers == 1 or len(jobs) == 1:
            for key, arguments in jobs.items():
                yield key, function(*arguments)
            return
        queue = deque(jobs)
        flying: dict[Future[Any], K] = {}
        deaths = 0
        while queue or flying:
            is_broken = not self._hand_out(function, jobs, queue, flying)
            ended = wait(flying, return_when=FIRST_COMPLETED).done if flying else ()
            for future in ended:
                key = flying.pop(future)
                try:
                    found = future.result()
                except BrokenProcessPool:
                    is_broken = True
                    queue.append(key)
                    continue
                deaths = 0
                yield key, found
            if is_broken:
                deaths += 1
                if deaths > MOST_DEATHS:
                    raise InputError(f"workers were killed {deaths} times; is the memory enough?")
                queue.extend(flying.values())
                flying.clear()
                self._end()

    def _hand_out(
        self,
        function: Callable[..., Any],
        jobs: Mapping[K, tuple[Any, ...]],
        queue: deque[K],
        flying: dict[Future[Any], K],
    ) -> bool:
        """Hand out jobs from the queue as far as the workers want some; False if a worker has died meanwhile."""
        executor = self._processes(len(jobs))
        while queue and len(flying) < _AHEAD * self._size:
            try:
                flying[executor.submit(function, *jobs[queue[0]])] = queue[0]
            except BrokenProcessPool:
                return False
            queue.popleft()
        return True

    def _processes(self, jobs: int) -> ProcessPoolExecutor:
        """The workers, as many as jobs can use; they stay for the next jobs, and what they have loaded with them."""
        wanted = min(self.workers, jobs)
        if self._executor is not None and self._size < wanted:
            self._executor.shutdown()
            self._executor = None
        if self._executor is None:
            self._size = wanted
            self._not_ours = {process.pid for process in multiprocessing.active_children()}
            self._executor = ProcessPoolExecutor(wanted, initializer=_start_worker)
        return self._executor

    def _end(self) -> None:
        """End the workers in the midst of what they do."""
        if self._executor is None:
            return
        for process in multiprocessing.active_children():
            if process.pid not in self._not_ours:
                process.terminate()
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._executor = None


def _start_worker() -> None:
    """Interrupts are the parent's; recording on the meta device has no use for threads."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in ("SIGTERM", "SIGHUP"):  # the parent's are made interrupts
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    os.environ["OMP_NUM_THREADS"] = "1"
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that is killed cannot end its workers: they end themselves."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job gave no result, in one line."""

    reason: str


def in_own_processes(
    function: Callable[..., T],
    jobs: Mapping[K, tuple[Any, ...]],
    workers: int | None = None,
    *,
    end_s: float = math.inf,
    least_s: float = 0.0,
) -> Iterator[tuple[K, T | Failure]]:
    """`function` for the arguments of each job, each in a fresh process that ends with it: (the job's key, what came out).

    For jobs that may spoil their process (a CUDA error, memory that stays behind): whatever becomes of one, an exception or a
    death, it alone fails. Ctrl-C, and leaving the iteration early, end the processes at once. function: of a module.

    end_s: when, by time.monotonic(), those under way are ended; neither they nor what has not begun come out. least_s: with less
    left none is begun.

    Raises:
        InputError: workers is less than 1.
    """
    most, queue = cores(workers), deque(jobs)
    context = multiprocessing.get_context("spawn")  # a forked process cannot use CUDA where its parent has
    running: dict[Any, tuple[K, Any]] = {}
    try:
        while queue or running:
            now = time.monotonic()
            if now >= end_s or (not running and end_s - now < least_s):
                return
            while queue and len(running) < most and end_s - now >= least_s:
                key = queue.popleft()
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_do_apart, args=(theirs, function, jobs[key]), daemon=True)
                process.start()
                theirs.close()  # so that a death shows here as the end of the pipe
                running[ours] = key, process
            for pipe in wait_for(list(running), timeout=None if end_s == math.inf else max(end_s - now, 0.0)):
                key, process = running.pop(pipe)
                yield key, _result(pipe, process)
    finally:
        for pipe, (_, process) in running.items():
            process.kill()
            process.join()
            pipe.close()


def _do_apart(pipe: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    _start_worker()
    try:
        found = function(*arguments)
    except InputError as error:
        found = Failure(str(error))
    except BaseException as error:  # the other jobs are none the worse
        found = Failure(f"{type(error).__name__}: {(str(error).splitlines() or ['no reason given'])[0]}")
    pipe.send(found)


def _result(pipe: Any, process: Any) -> Any:
    try:
        return pipe.recv()
    except EOFError:
        process.join()
        code = process.exitcode
        how = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        return Failure(f"its process ended early ({how}); is the memory enough?")
    finally:
        process.join()  # what it held is free before the next one begins
        pipe.close()


def in_chunks(
    function: Callable[..., Sequence[T]],
    items: Sequence[Any],
    *common: Any,
    size: int,
    workers: int | None = None,
    progress: Progress = lambda done, total: None,
) -> list[T]:
    """`function(chunk, *common)` over the items, `size` at a time, in order: a result an item.

    progress: called with (items done, items).
    """
    chunks = {at: items[at : at + size] for at in range(0, len(items), size)}
    found: dict[int, Sequence[T]] = {}
    done = 0
    with Pool(workers) as pool:
        jobs = {at: (chunk, *common) for at, chunk in chunks.items()}
        for at, results in pool.as_done(function, jobs):
            found[at] = results
            done += len(chunks[at])
            progress(done, len(items))
    return [result for at in chunks for result in found[at]]


def code_hash(*more: str) -> str:
    """A hash of the sources and numbers of the simulator, and of the folders in `more`: results of others are not resumed
    from."""
    root = Path(__file__).parent
    folders = ("simulator", "hw_configs", "workloads", *more)
    files = [*root.glob("*.py"), *(path for folder in folders for path in (root / folder).rglob("*"))]
    digest = hashlib.sha256()
    for path in sorted(files):
        if path.suffix in (".py", ".yaml"):
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
    done, the last journal that it wrote to.
    """

    interrupted: ClassVar[Path | None] = None

    def __init__(self, path: Path, code: str) -> None:
        self.path, self.code = path, code
        self.foreign = 0
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(8)}"
        self._lock: BinaryIO | None = None
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
        with self._open() as file:
            self._write(file, {"key": key, "figures": figures})
        Journal.interrupted = self.path
        self._done.setdefault(key, figures)

    def claim(self, keys: Sequence[str]) -> list[str]:
        """Those of `keys` that are not done and nobody else works on; now this process does.

        Raises:
            InputError: as `append`.
        """
        self._hold()
        with self._open() as file:
            self.read()
            free = [key for key in keys if key not in self._done and not self._held(key)]
            if free:
                self._write(file, {"claims": free, "owner": self.owner})
        return free

    def remove(self) -> None:
        """Once all is done and written elsewhere."""
        self.path.unlink(missing_ok=True)
        Journal.interrupted = None

    def release(self) -> None:
        """Give up what this process claimed."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None
            _lock_of(self.path, self.owner).unlink(missing_ok=True)

    @contextmanager
    def alone(self, output: str | os.PathLike[str]) -> Iterator[None]:
        """Work on the journal with no other process.

        Raises:
            InputError: another does. output: what both would write.
        """
        try:
            file = self.path.with_name(f"{self.path.name}.lock").open("ab")
        except OSError as error:
            raise InputError(f"cannot write {output}: {error.strerror or error}") from None
        with file:
            if not _try_lock(file):
                raise InputError(
                    f"{output}: another simtti is writing it; wait for that one, or write elsewhere"
                )
            try:
                yield
            finally:
                Path(file.name).unlink(missing_ok=True)

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
            self._lock = _lock_of(self.path, self.owner).open("ab")
        except OSError as error:
            raise InputError(f"cannot write {self.path}: {error.strerror or error}") from None
        _try_lock(self._lock)
        atexit.register(self.release)

    def _held(self, key: str) -> bool:
        owner = self._claims.get(key, "")
        return owner not in ("", self.owner) and self._lives(owner)

    def _lives(self, owner: str) -> bool:
        """Whether the process that called itself so still holds its lock."""
        try:
            with _lock_of(self.path, owner).open("r+b") as file:
                if not _try_lock(file):
                    return True
                Path(file.name).unlink(missing_ok=True)
        except (OSError, ValueError):
            pass  # no such file: it ended well, or never was
        return False

    @contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        """The journal, to be added to, while no other process adds to it."""
        try:
            with self.path.open("ab") as file, _locked(file):
                yield file
        except OSError as error:
            raise InputError(f"cannot write {self.path}: {error.strerror or error}") from None

    def _write(self, file: BinaryIO, entry: dict[str, Any]) -> None:
        """One line, in one write, after whatever a killed process left."""
        line = json.dumps({"code": self.code, **entry}).encode() + b"\n"
        torn = file.tell() > 0 and not _ends_with_newline(self.path)
        file.write(b"\n" + line if torn else line)
        file.flush()  # before the lock is given up, and while a full disk can still be told


def _lock_of(path: Path, owner: str) -> Path:
    """The file that a process of that name holds while it works on the journal at `path`."""
    token = "".join(each for each in owner.rpartition(":")[2] if each.isalnum())[:32] or "none"
    return path.with_name(f".{path.name}.{token}.lock")


def _try_lock(file: BinaryIO) -> bool:
    """Hold `file` until it is closed or the process ends; False if another process does. Windows: always."""
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextmanager
def _locked(file: BinaryIO) -> Iterator[None]:
    """Hold `file` for this process. Windows has no such locks: there, one process works on a journal."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold a file that at most one process holds at a time; that of a process that dies is free again."""
    with path.open("ab") as file, _locked(file):
        yield


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
