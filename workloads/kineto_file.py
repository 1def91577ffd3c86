"""Reads a Kineto file, JSON that may be gzipped, event by event: millions of them, of which few matter.

Only what is listed here is read from a file. Some carry their writer's environment, secrets included.
"""

from __future__ import annotations

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

CHUNK_BYTES = 1 << 20  # how much of a file is read at once
OPERATOR, MODULE, LAUNCH = "operator", "module", "launch"
KERNEL, MEMCPY, MEMSET = "kernel", "memcpy", "memset"
# Kineto's categories, those of 2021 too.
KIND_OF = {
    "cpu_op": OPERATOR, "Operator": OPERATOR, "python_function": MODULE,
    "cuda_runtime": LAUNCH, "cuda_driver": LAUNCH, "Runtime": LAUNCH,
    "kernel": KERNEL, "Kernel": KERNEL, "gpu_memcpy": MEMCPY, "Memcpy": MEMCPY, "gpu_memset": MEMSET, "Memset": MEMSET,
}  # fmt: skip


class FileError(Exception):
    """What is wrong with a file, to follow its name."""


class Reader:
    """Reads a Kineto file event by event, so that only the events that matter are ever held."""

    def __init__(self, path: Path, may_be_empty: bool = False):
        self.path, self.may_be_empty = path, may_be_empty
        self.header: dict[str, Any] = {}
        self._scan = json.JSONDecoder(strict=False).raw_decode
        self._space = re.compile(r"[ \t\n\r]*").match
        self._between = re.compile(r"[ \t\n\r]*,?[ \t\n\r]*").match
        self._text, self._at, self._done, self._chunk = "", 0, False, CHUNK_BYTES
        self._file: Any = None
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def events(self) -> list[tuple[str, dict[str, Any]]]:
        """The events that matter, each with its kind, in the file's order. The file's other fields go to `header`."""
        if self.path.is_dir():
            raise FileError("is a folder, not a Kineto trace")
        try:
            with self.path.open("rb") as raw:
                packed = raw.read(2) == b"\x1f\x8b"
                raw.seek(0)
                self._file = gzip.GzipFile(fileobj=raw) if packed else raw
                return self._object()
        except FileNotFoundError:
            raise FileError("does not exist") from None
        except EOFError:
            raise FileError("is truncated: its gzip data end too early") from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise FileError(f"is damaged: its gzip data cannot be unpacked ({error})") from None
        except OSError as error:
            raise FileError(f"cannot be read: {error.strerror or error}") from None
        except RecursionError:
            raise FileError("is not a Kineto trace: its JSON is nested too deeply") from None

    def _more(self) -> None:
        data = self._file.read(self._chunk)
        self._done = not data
        self._text = self._text[self._at :] + self._utf8.decode(data, final=self._done)
        self._at = 0

    def _value(self) -> Any:
        """The JSON value at the current place."""
        grown = 0
        while True:
            self._at = self._space(self._text, self._at).end()  # type: ignore[union-attr]
            try:
                value, end = self._scan(self._text, self._at)
                if end < len(self._text) or self._done:  # else a number might go on
                    self._at, self._chunk = end, CHUNK_BYTES
                    return value
            except json.JSONDecodeError as error:
                # An error well before the end of what was read will not go away by reading on.
                if self._done or (grown and error.pos + (1 << 16) < len(self._text)) or self._foreign():
                    self._stop()
            self._more()
            grown += 1
            self._chunk = min(self._chunk * 2, 1 << 26)

    def _foreign(self) -> bool:
        """Whether what stands here cannot begin a JSON value."""
        return self._at < len(self._text) and self._text[self._at] not in '{["-0123456789tfnNI'

    def _stop(self) -> None:
        if self._done:
            raise FileError("is truncated: its JSON ends in the middle")
        raise FileError(
            "is damaged: its JSON cannot be read beyond " + repr(self._text[self._at : self._at + 40])
        )

    def _next(self) -> str:
        """The next character that is no space, or '' at the end."""
        while True:
            self._at = self._space(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text):
                return self._text[self._at]
            if self._done:
                return ""
            self._more()

    def _object(self) -> list[tuple[str, dict[str, Any]]]:
        found: list[tuple[str, dict[str, Any]]] | None = None
        first = self._next()
        if not first:
            raise FileError("is empty")
        if first != "{":
            raise FileError("is not a Kineto trace: it does not hold a JSON object")
        self._at += 1
        while (character := self._next()) != "}":
            if character == ",":
                self._at += 1
                continue
            if character not in ('"', ""):
                self._stop()
            key = self._value()
            if self._next() != ":":
                self._stop()
            self._at += 1
            if key != "traceEvents":
                self.header[key] = self._value()
                continue
            if self._next() != "[":
                raise FileError("is not a Kineto trace: its traceEvents are not a list")
            self._at += 1
            found = list(self._listed())
        if found is None:
            raise FileError("is not a Kineto trace: it has no traceEvents")
        if not found and not self.may_be_empty:
            raise FileError("holds no operators and no kernels: it is not a trace of torch.profiler")
        return found

    def _listed(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The events of the list at the current place that matter, and the place after the list."""
        scan, between, kind_of = self._scan, self._between, KIND_OF
        while True:
            text, at = self._text, self._at
            # The loop that runs once an event: everything rare is left to _value().
            with suppress(json.JSONDecodeError):
                while True:
                    at = between(text, at).end()  # type: ignore[union-attr]
                    event, end = scan(text, at)
                    if type(event) is not dict:
                        break
                    at = end
                    category = event.get("cat")
                    if category in kind_of and _matters(event):
                        yield kind_of[category], event
            self._at = at
            if self._next() == "]":
                self._at += 1
                return
            if self._next() == ",":
                self._at += 1
                continue
            event = self._value()
            if not isinstance(event, dict):
                raise FileError("is not a Kineto trace: its traceEvents are not objects")
            category = event.get("cat")
            if category in kind_of and _matters(event):
                yield kind_of[category], event


def _matters(event: dict[str, Any]) -> bool:
    """Of Python's functions, by far the most events, only the modules' calls do."""
    if event.get("ph") != "X":
        return False
    return event["cat"] != "python_function" or event["name"].startswith("nn.Module: ")
