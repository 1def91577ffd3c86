"""The one error a user's mistake becomes: a line that names the file, the field, the value and the mend."""

import difflib
import importlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import takewhile
from typing import Any

_LONGEST = 1200  # characters of a message
_MOST_NEAR = 5  # names that a message suggests
_MOST_ALIKE = 3  # of those that are spelled nearly so
_ALIKE = 0.5  # what share of two names' letters must be the same for that
_MOST_KNOWN = 12  # names that it lists in full beside those


class InputError(Exception):
    """Something the user gave cannot be used. The command line prints the message alone and exits with code 2.

    No ValueError: that is what a bug raises, and whoever catches a user's mistake must not catch bugs with it. A message that quotes a
    value of pages is shortened in its middle.
    """

    def __init__(self, message: str) -> None:
        if len(message) > _LONGEST:
            message = f"{message[: _LONGEST // 2]} [...] {message[-_LONGEST // 4 :]}"
        super().__init__(message)


_ROOM_FOR_COUNT = 20  # characters: '; and 12 more'


class Problems:
    """What is wrong with one file or row, noted as it is found and said all at once."""

    def __init__(self) -> None:
        self._found: dict[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self._found)

    def note(self, text: str, field: str = "") -> None:
        """One problem. field: of what; what is noted of it later is left out."""
        self._found.setdefault(field or text, text)

    @contextmanager
    def noted(self, field: str = "") -> Iterator[None]:
        """An InputError that is raised within is noted, and what stands behind goes on."""
        try:
            yield
        except InputError as error:
            self.note(str(error), field)

    def raise_any(self, origin: str = "") -> None:
        """Say what was noted, if anything was, in one line.

        Raises:
            InputError: `origin`, and every problem; of very many the first, and how many more there are.
        """
        texts = list(self._found.values())
        if not texts:
            return
        said, *others = texts
        message = f"{origin}: {said}" if origin else said
        for place, text in enumerate(others, 1):
            if len(message) + len(text) > _LONGEST - _ROOM_FOR_COUNT:
                message += f"; and {len(texts) - place} more"
                break
            message += f"; {text}"
        raise InputError(message)


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


def nearest(given: str, known: Iterable[str]) -> list[str]:
    """The few names of `known` that are like `given`, whatever the case and the signs between: the same, or what begins with it or
    holds it, or what is spelled nearly so.

    >>> nearest("RTX5090", ["rtx-4090", "rtx-5090"])
    ['rtx-5090']
    >>> nearest("H100", ["h100-sxm", "a100-sxm", "h100-pcie"])
    ['h100-pcie', 'h100-sxm']
    """
    names = {name: _spelling(name) for name in sorted(known)}
    asked = _spelling(given)
    same = [name for name, spelling in names.items() if spelling == asked]
    if same or not asked:
        return same
    within = [name for name, spelling in names.items() if asked in spelling]
    within.sort(key=lambda name: names[name].index(asked))
    return (within or _alike(asked, names))[:_MOST_NEAR]


def _alike(asked: str, names: Mapping[str, str]) -> list[str]:
    """Those spelled nearly as `asked`: what begins like it first."""
    found = []
    for name, spelling in names.items():
        ratio = difflib.SequenceMatcher(None, spelling, asked).ratio()
        if ratio >= _ALIKE:
            alike = takewhile(lambda pair: pair[0] == pair[1], zip(asked, spelling, strict=False))
            found.append((-len(list(alike)), -ratio, name))
    return [name for *_, name in sorted(found)[:_MOST_ALIKE]]


def _spelling(name: str) -> str:
    return "".join(each for each in name.casefold() if each.isalnum())


def unknown(kind: str, given: str, known: Iterable[str]) -> InputError:
    """An InputError for a name that is not among `known`, with the nearest names.

    >>> str(unknown("device", "h100", ["h100-sxm", "a100-sxm"]))
    "unknown device 'h100'; did you mean 'h100-sxm'? (known: a100-sxm, h100-sxm)"
    """
    names = sorted(known)
    near = nearest(given, names)
    hint = f"; did you mean {', '.join(map(repr, near))}?" if near else ";"
    listed = f" (known: {', '.join(names)})" if len(names) <= _MOST_KNOWN or not near else ""
    return InputError(f"unknown {kind} {given!r}{hint}{listed}")


def library(module: str, extra: str) -> Any:
    """An optional library, or the command that installs it.

    Raises:
        InputError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise InputError(
            f"this needs {module}, which is not installed; run: pip install 'simtti[{extra}]'"
        ) from None
