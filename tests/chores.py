"""Jobs for a pool to do, in a module that a worker can import however it is started."""

import os
import signal
import time
from pathlib import Path


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
