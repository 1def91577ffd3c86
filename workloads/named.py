"""What may stand where a workload's name stands: the path of a trace file, or FILE.py:FUNCTION (see `own.record_file`).

A trace has the shape it was recorded at: of the options of `record`, only `steps` can be put into it. A function takes what it has
parameters for.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any

from simtti.errors import InputError
from simtti.workloads.catalogue import find
from simtti.workloads.own import file_of, is_function_of_file, record_file
from simtti.workloads.trace import Trace


def is_trace_file(what: object) -> bool:
    """Whether it is a path, not a name: it ends in .parquet, or folders stand in it."""
    if isinstance(what, os.PathLike):
        return True
    return (
        isinstance(what, str)
        and not is_function_of_file(what)
        and (what.endswith(".parquet") or "/" in what or os.sep in what)
    )


def is_file(what: object) -> bool:
    """Whether it names a file: a trace, or a function in one."""
    return is_trace_file(what) or is_function_of_file(what)


def trace_of_file(what: str | os.PathLike[str], *, steps: int | None = None, **options: Any) -> Trace:
    """The trace that a file holds, or that a function in one gives; None is an option that is not given.

    Raises:
        InputError: it cannot be read; an option that would change a recorded trace, or that the function does not take.
    """
    if is_function_of_file(what):
        return record_file(str(what), steps=steps, **options)
    check_unchanged(options)
    trace = Trace.load(what)
    return trace if steps is None else trace.with_steps(steps)


def check_unchanged(options: Mapping[str, Any]) -> None:
    """Whether none of the options is given that would change a recorded trace.

    Raises:
        InputError: one is.
    """
    for name, value in options.items():
        if value is not None:
            raise InputError(f"--{name} cannot change a recorded trace; record one with it instead")


def check_named(what: str) -> None:
    """Whether there is such a workload, or such a file; what is in it shows when it is run.

    Raises:
        InputError: there is none.
    """
    if not is_file(what):
        find(what)
        return
    path = file_of(what)
    if not os.path.isfile(path):
        raise InputError(f"there is no {'trace ' if is_trace_file(what) else ''}file {path}")


def content_of(what: str) -> str:
    """A hash of the file that `what` names; '' where it names none, or none that can be read."""
    if not is_file(what):
        return ""
    try:
        return hashlib.sha256(file_of(what).read_bytes()).hexdigest()[:16]
    except OSError:
        return ""


def label_of(what: str) -> str:
    """What a table calls it: a name as it is, a file without its folders and ending."""
    return file_of(what).stem if is_trace_file(what) else what.rpartition(":")[2] if is_file(what) else what
