"""The one error a user's mistake becomes: a line that names the file, the field, the value and the mend."""

import difflib
from collections.abc import Iterable

_LONGEST = 1200  # characters of a message


class InputError(Exception):
    """Something the user gave cannot be used. The command line prints the message alone and exits with code 2.

    No ValueError: that is what a bug raises, and whoever catches a user's mistake must not catch bugs with it. A message that quotes a
    value of pages is shortened in its middle.
    """

    def __init__(self, message: str) -> None:
        if len(message) > _LONGEST:
            message = f"{message[: _LONGEST // 2]} [...] {message[-_LONGEST // 4 :]}"
        super().__init__(message)


INTERNAL = "internal error"


def internal(error: BaseException) -> str:
    """What a bug of simtti's own is called where it costs one row of many: a request to report it.

    >>> internal(KeyError("x"))
    "internal error: KeyError: 'x'; please report this row"
    """
    reason = " ".join(str(error).split())[:200]
    return f"{INTERNAL}: {type(error).__name__}: {reason}; please report this row"


class BugError(RuntimeError):
    """A bug of simtti's own cost some rows of a table. It is raised after the others are done and written."""


def raise_bugs(errors: Iterable[object]) -> None:
    """After a table is written: tell of the rows that a bug cost.

    Raises:
        BugError: there is one.
    """
    bugs = [text for text in errors if isinstance(text, str) and text.startswith(INTERNAL)]
    if bugs:
        raise BugError(
            f"{len(bugs)} rows have no figures for a bug, the others are done; the first: {bugs[0]}"
        )


def unknown(kind: str, given: str, known: Iterable[str]) -> InputError:
    """An InputError for a name that is not among `known`, with the nearest names.

    >>> str(unknown("device", "h100", ["h100-sxm", "a100-sxm"]))
    "unknown device 'h100'; did you mean 'h100-sxm', 'a100-sxm'? (known: a100-sxm, h100-sxm)"
    """
    names = sorted(known)
    near = difflib.get_close_matches(given, names, n=3, cutoff=0.4)
    hint = f"; did you mean {', '.join(map(repr, near))}?" if near else ";"
    return InputError(f"unknown {kind} {given!r}{hint} (known: {', '.join(names)})")
