"""Jobs side by side: none lost, none doubled, whatever ends a worker; a bug shows itself; the journal tells what counts."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from chores import (
    alone_for_a_while,
    any_trouble,
    deadly,
    deadly_once,
    faulty,
    nap,
    place,
    square,
    squares,
)

from simtti.errors import InputError
from simtti.jobs import Failure, Pool, in_chunks, in_own_processes
from simtti.journal import Journal
from simtti.locks import alone


def test_every_job_gives_its_result_once():
    with Pool(2) as pool:
        found = list(pool.as_done(square, {f"job {n}": (n,) for n in range(20)}))
        assert dict(found) == {f"job {n}": n * n for n in range(20)}
        assert len(found) == 20
        assert dict(pool.as_done(square, {0: (5,), 1: (6,)})) == {0: 25, 1: 36}  # the workers stay


@pytest.mark.parametrize(("workers", "count"), [(1, 5), (8, 1)])
def test_one_worker_or_one_job_needs_no_process(workers, count):
    with Pool(workers) as pool:
        assert {found for _, found in pool.as_done(place, {n: (n,) for n in range(count)})} == {os.getpid()}


def test_a_worker_that_is_killed_takes_no_job_with_it(tmp_path):
    with Pool(2) as pool:
        found = list(pool.as_done(deadly_once, {n: (n, tmp_path) for n in range(30)}))
    assert (tmp_path / "died").exists()
    assert dict(found) == {n: n * n for n in range(30)}
    assert len(found) == 30


def test_a_job_that_kills_every_worker_is_an_error_after_all_others_are_done():
    done = []

    def collect():
        with Pool(2) as pool:
            for key, _ in pool.as_done(deadly, {n: (n,) for n in range(12)}):
                done.append(key)

    with pytest.raises(InputError, match="workers were killed 4 times"):
        collect()
    assert sorted(done) == [n for n in range(12) if n != 3]


def test_a_bug_in_a_worker_is_raised_here_with_its_traceback():
    with pytest.raises(ValueError, match="a bug") as caught, Pool(2) as pool:
        list(pool.as_done(faulty, {n: (n,) for n in range(6)}))
    assert "in faulty" in str(caught.value.__cause__)
    assert not isinstance(caught.value, InputError)


def interrupted_while_waiting():
    with Pool(2) as pool:
        threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGINT]).start()
        list(pool.as_done(nap, {n: (120,) for n in range(4)}))


def interrupted_at_a_result():
    with Pool(2) as pool:
        for _ in pool.as_done(nap, {n: (120 * n,) for n in range(4)}):
            raise KeyboardInterrupt


@pytest.mark.parametrize("interrupted", [interrupted_while_waiting, interrupted_at_a_result])
def test_an_interrupt_ends_the_workers_at_once(interrupted):
    before = set(multiprocessing.active_children())
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    while set(multiprocessing.active_children()) - before:
        assert time.monotonic() - began < 20
        time.sleep(0.02)


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, sys, time\n"
        "from simtti.jobs import Pool\n"
        "def nap(number):\n"
        "    open(os.path.join(sys.argv[1], f'worker{os.getpid()}'), 'w').close()\n"
        "    time.sleep(120)\n"
        "if __name__ == '__main__':\n"
        "    with Pool(2) as pool:\n"
        "        list(pool.as_done(nap, {0: (0,), 1: (1,)}))\n"
    )
    parent = subprocess.Popen([sys.executable, script, tmp_path])
    deadline = time.monotonic() + 60
    while len(workers := list(tmp_path.glob("worker*"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    while any(lives(int(mark.name.removeprefix("worker"))) for mark in workers):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def lives(number):
    """Whether a process is there, and no zombie."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_fewer_than_one_worker_is_a_users_mistake():
    with pytest.raises(InputError, match="--workers is 0; it must be at least 1"):
        Pool(0)


@pytest.mark.parametrize("workers", [1, 2])
def test_chunks_come_back_in_order(workers):
    seen = []
    found = in_chunks(
        squares,
        list(range(25)),
        100,
        size=10,
        workers=workers,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert found == [n * n + 100 for n in range(25)]
    assert seen[-1] == (25, 25)
    assert in_chunks(squares, [], size=10) == []


def test_a_journal_gives_back_what_the_same_code_wrote(tmp_path):
    path = tmp_path / "done.jsonl"
    Journal(path, "this code").append("a", {"latency_s": 1.5})
    Journal(path, "other code").append("b", {"latency_s": 2.5})
    with path.open("a") as file:
        file.write('{"code": "this code", "key": "c", "fig')  # killed in the midst of a write
    journal = Journal(path, "this code")
    assert journal.read() == {"a": {"latency_s": 1.5}}
    journal.append("d", 4)
    assert Journal(path, "this code").read() == {"a": {"latency_s": 1.5}, "d": 4}
    journal.remove()
    assert not path.exists()
    assert Journal(path, "this code").read() == {}


def test_a_job_is_claimed_by_one_process(tmp_path):
    path = tmp_path / "done.jsonl"
    one, other = Journal(path, "code"), Journal(path, "code")
    assert one.claim(["a", "b"]) == ["a", "b"]
    assert other.claim(["a", "b", "c"]) == ["c"]
    assert len(other.holders()) == 1
    one.append("a", 1)
    assert other.read() == {"a": 1}
    one.release()
    assert other.claim(["a", "b"]) == ["b"], "the claim of one that is no more does not hold"
    assert not other.holders()


CLAIMER = """
import sys, time
from pathlib import Path
from simtti.journal import Journal
Journal(Path(sys.argv[1]), "code").claim(["a"])
print("claimed", flush=True)
time.sleep(120)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no zombies")
def test_the_claims_of_a_killed_process_do_not_hold_buried_or_not_and_of_whatever_host(tmp_path):
    path = tmp_path / "done.jsonl"
    process = subprocess.Popen([sys.executable, "-c", CLAIMER, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "claimed\n"
    here = Journal(path, "code")
    assert here.claim(["a"]) == []
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it is dead, and stays a zombie
    path.write_text(path.read_text().replace('"owner": "', '"owner": "another-host-'))
    assert Journal(path, "code").claim(["a"]) == ["a"]
    process.wait()
    process.stdout.close()


def test_one_output_has_one_writer(tmp_path):
    one, other = (Journal(tmp_path / "done.jsonl", "code") for _ in range(2))
    refused = pytest.raises(InputError, match=r"out\.csv: another simtti is writing it")
    with one.alone("out.csv"), refused, other.alone("out.csv"):
        pass
    with other.alone("out.csv"):
        pass


@pytest.mark.parametrize(
    "line", ["5", "[1]", "null", '"a"', '{"code": "code"}', '{"code": "code", "claims": 3, "owner": 4}']
)
def test_a_line_that_is_no_entry_is_passed_over(tmp_path, line):
    path = tmp_path / "done.jsonl"
    path.write_text(line + "\n")
    journal = Journal(path, "code")
    journal.append("a", 1)
    assert Journal(path, "code").read() == {"a": 1}


def test_results_of_other_code_are_counted(tmp_path):
    Journal(tmp_path / "done.jsonl", "other").append("a", 1)
    journal = Journal(tmp_path / "done.jsonl", "code")
    assert journal.read() == {}
    assert journal.foreign == 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/dev/full is Linux's")
def test_a_full_disk_is_said_in_a_line_that_names_the_file(tmp_path):
    path = tmp_path / "done.jsonl"
    path.symlink_to("/dev/full")
    with pytest.raises(InputError, match=r"cannot write .*done\.jsonl: No space left on device"):
        Journal(path, "code").append("a", 1)


def test_a_job_in_its_own_process_fails_alone():
    found = dict(
        in_own_processes(any_trouble, {kind: (kind,) for kind in ("none", "bug", "input", "death")}, 2)
    )
    assert isinstance(found["none"], int)
    assert found["none"] != os.getpid()
    assert {kind: reason.reason for kind, reason in found.items() if kind != "none"} == {
        "bug": "ValueError: a bug",
        "input": "height is 9",
        "death": "its process ended early (SIGKILL); is the memory enough?",
    }


def test_jobs_in_their_own_processes_end_when_the_time_is_up():
    begin = time.monotonic()
    jobs_ = {"short": (0.0,), "long": (60.0,), "never begun": (0.0,)}
    found = dict(in_own_processes(nap, jobs_, 2, end_s=begin + 4, least_s=3.9))
    assert time.monotonic() - begin < 30
    assert "long" not in found
    assert not any(isinstance(each, Failure) for each in found.values())
    assert not multiprocessing.active_children()
    assert list(in_own_processes(nap, {"late": (0.0,)}, 2, end_s=time.monotonic() + 1, least_s=5)) == []


def test_leaving_early_ends_the_processes():
    for key, _ in in_own_processes(nap, {"short": (0.0,), "long": (60.0,)}, 2):
        assert key == "short"
        break
    assert not multiprocessing.active_children()


def test_what_one_process_holds_no_other_has(tmp_path):
    lock, log = tmp_path / "lock", tmp_path / "log"
    with alone(lock):
        pass
    list(in_own_processes(alone_for_a_while, {number: (lock, log) for number in range(3)}, 3))
    lines = log.read_text().split()
    assert len(lines) == 6
    assert all(begin == end for begin, end in zip(lines[::2], lines[1::2], strict=True))


LARGE = """
import os, signal, sys, threading, time
from simtti.jobs import Pool

def large(path):
    open(path, "w").close()
    return bytes(600_000_000)

def interrupt(path):
    while not os.path.exists(path):
        time.sleep(0.01)
    time.sleep(0.6)  # by now a part of it is under way
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=interrupt, args=(sys.argv[1],), daemon=True).start()
try:
    with Pool(2) as pool:
        for _ in pool.as_done(large, {number: (sys.argv[1],) for number in range(40)}):
            pass
except KeyboardInterrupt:
    print("interrupted")
"""


def test_a_worker_killed_in_the_midst_of_a_message_is_not_waited_for(tmp_path):
    """Its half message would keep the executor's thread reading for good."""
    done = subprocess.run(
        [sys.executable, "-c", LARGE, str(tmp_path / "begun")], capture_output=True, text=True, timeout=60, check=False
    )  # fmt: skip
    assert done.stdout.strip() == "interrupted"
    assert done.returncode == 0
