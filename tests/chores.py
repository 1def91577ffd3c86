"""Jobs for a pool to do, in a module that a worker can import however it is started."""

import os
import signal
import time
from pathlib import Path

from simtti.errors import InputError
from simtti.locks import alone


def square(number):
    return number * number


def place(_):
    return os.getpid()


def deadly_once(number, folder):
    """As square, but the first process that is asked for 3 dies of it."""
    mark = Path(folder, "died")
    if number == 3 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return square(number)


def deadly(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return square(number)


def faulty(number):
    if number == 3:
        raise ValueError("a bug")
    return square(number)


def nap(seconds):
    time.sleep(seconds)


def squares(items, more=0):
    return [square(item) + more for item in items]


def any_trouble(kind):
    """A process number, or the trouble of that kind."""
    if kind == "bug":
        raise ValueError("a bug\nwith a long story")
    if kind == "input":
        raise InputError("height is 9")
    if kind == "death":
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def alone_for_a_while(lock, log):
    """Writes its number when it has the lock and before it lets go."""
    with alone(lock):
        for _ in range(2):
            with log.open("a") as file:
                file.write(f"{os.getpid()}\n")
            time.sleep(0.1)
