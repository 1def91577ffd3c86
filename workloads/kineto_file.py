"""Reads a Kineto file, JSON that may be packed, event by event: millions of them, of which few matter.

Only what is listed here is read from a file. Some carry their writer's environment, secrets included. The work is linear in the
file's length, whatever is in it: a decoder's error costs as much as the text before it, so text is mended a buffer at a time.

A file is read as far as it makes sense. What does not is left out and counted (`left_out`), or mended and told (`remarks`):
events without a time, unescaped backslashes of Windows paths, a file whose writer was killed.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from simtti.words import plain
from simtti.workloads.kineto_events import (
    KERNEL,
    LAUNCH,
    MEMCPY,
    MEMSET,
    MODULE,
    OPERATOR,
    STEP,
    Events,
)
from simtti.workloads.unpack import FileError, Text

CHUNK_BYTES = 1 << 20  # how much of a file is read at once
_MOST_CHUNK_BYTES = 1 << 26
_MOST_VALUE = 1 << 28  # characters of one JSON value
# Kineto's categories, those of 2021 and those of other makers' GPUs too.
KIND_OF = {
    "cpu_op": OPERATOR, "Operator": OPERATOR, "python_function": MODULE, "user_annotation": STEP,
    "cuda_runtime": LAUNCH, "cuda_driver": LAUNCH, "Runtime": LAUNCH, "xpu_runtime": LAUNCH, "xpu_driver": LAUNCH,
    "privateuse1_runtime": LAUNCH, "privateuse1_driver": LAUNCH, "mtia_runtime": LAUNCH,
    "kernel": KERNEL, "Kernel": KERNEL, "gpu_memcpy": MEMCPY, "Memcpy": MEMCPY, "gpu_memset": MEMSET, "Memset": MEMSET,
}  # fmt: skip
STEP_NAME = "ProfilerStep#"
_MODULE_NAME = "nn.Module: "
# What of the file's other fields is kept.
HEADER = (
    "deviceProperties", "cuda_runtime_version", "cuda_driver_version", "cupti_version", "hip_runtime_version",
    "hip_driver_version",
)  # fmt: skip
# A backslash with what JSON lets follow it, or alone.
_ESCAPE = re.compile(r'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})?')
_LONGEST_ESCAPE = 6
_LONGEST_TIME = 40  # characters of a number written as text
# An event at 0 so long before all others, and longer than they all take, has no time: no clock was read for it.
_FAR_US = 100.0
Event = dict[str, Any]  # as the file has it
Progress = Callable[[int, int], None]

__all__ = ["FileError", "Reader", "in_time"]


class CutError(FileError):
    """The file ends in the middle of a value."""


class Reader:
    """Reads a Kineto file event by event, so that only the events that matter are ever held.

    header: the file's other fields, those in HEADER. left_out: events that make no sense, by the reason. remarks: what was mended.
    progress: called with (bytes read, bytes of the file).
    """

    def __init__(
        self, path: Path, may_be_empty: bool = False, progress: Progress = lambda done, total: None
    ) -> None:
        self.path, self.may_be_empty = path, may_be_empty
        self.header: dict[str, Any] = {}
        self.left_out: Counter[str] = Counter()
        self.remarks: list[str] = []
        self._progress = progress
        self._scan = json.JSONDecoder(strict=False).raw_decode
        self._space = re.compile(r"[ \t\n\r]*").match
        self._between = re.compile(r"[ \t\n\r,]*").match
        self._text, self._at, self._before, self._done, self._chunk = "", 0, 0, False, CHUNK_BYTES
        self._mended = False
        self._open: dict[tuple[str, str], list[Event]] = defaultdict(list)

    def events(self) -> Events:
        """The events that matter, in the file's order.

        Raises:
            FileError: what is wrong with the file as a whole, to follow its name.
        """
        text = Text(self.path)
        try:
            self._source, self._size = text, max(self.path.stat().st_size, 1)
            return self._file()
        except OSError as error:
            raise FileError(f"cannot be read: {error.strerror or error}") from None
        except RecursionError:
            raise FileError("is not a Kineto trace: its JSON is nested too deeply") from None
        finally:
            text.close()

    def _more(self) -> None:
        piece = self._source.read(self._chunk)
        self._progress(min(self._source.read_bytes(), self._size), self._size)
        self._done, self._mended = piece is None, False
        self._before += self._at
        self._text = self._text[self._at :] + (piece or "")
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
                if "escape" in error.msg and not self._mended:
                    self._mend()
                    continue
                # An error well before the end of what was read will not go away by reading on.
                inside = not error.msg.startswith("Unterminated") and error.pos + (1 << 16) < len(self._text)
                if self._done or (grown and inside) or self._foreign():
                    self._stop()
            except ValueError:  # Python reads no number of more digits
                raise FileError("is damaged: it holds a number of thousands of digits") from None
            if len(self._text) - self._at > _MOST_VALUE:
                raise FileError(
                    f"is not a Kineto trace: a value in it is longer than {_MOST_VALUE >> 20} MiB"
                )
            self._more()
            grown += 1
            self._chunk = min(self._chunk * 2, _MOST_CHUNK_BYTES)

    def _mend(self) -> None:
        """Double each backslash that escapes nothing, as in the paths that PyTorch 2.0 wrote on Windows."""
        text = self._text[self._at :]
        end = len(text) if self._done else len(text) - _LONGEST_ESCAPE

        def mended(found: re.Match[str]) -> str:
            return "\\\\" if found.end() - found.start() == 1 and found.start() <= end else found[0]

        self._before += self._at
        self._text, self._at, self._mended = _ESCAPE.sub(mended, text), 0, True
        remark = "backslashes that escape nothing (Windows paths) were taken as they are"
        if remark not in self.remarks:
            self.remarks.append(remark)

    def _foreign(self) -> bool:
        """Whether what stands here cannot begin a JSON value."""
        return self._at < len(self._text) and self._text[self._at] not in '{["-0123456789tfnNI'

    def _stop(self) -> None:
        # All that is left goes into the value that does not end, or there is something in it that JSON does not know.
        try:
            self._scan(self._text, self._at)
        except json.JSONDecodeError as error:
            if self._done and (
                error.msg.startswith("Unterminated") or error.pos >= len(self._text.rstrip()) - 1
            ):
                packed = self._source.cut
                raise CutError(
                    "is truncated: its gzip data end too early"
                    if packed
                    else "is truncated: its JSON ends in the middle"
                ) from None
            at, reason = error.pos, error.msg
        else:
            at, reason = self._at, "Unexpected value"
        where = self._before + at
        raise FileError(
            f"is damaged: its JSON cannot be read beyond {self._text[self._at : self._at + 40]!r} "
            f"({reason.lower()} at character {where})"
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

    def _file(self) -> Events:
        first = self._next()
        if not first:
            raise FileError("is empty")
        found: Events | None = None
        try:
            if first == "[":
                self._at += 1
                found = Events()
                self._listed(found)
            elif first == "{":
                self._at += 1
                while True:
                    more = self._field()
                    if more is None:
                        break
                    if more:
                        found = Events() if found is None else found
                        self._listed(found)
            else:
                raise FileError("is not a Kineto trace: it does not hold a JSON object")
        except CutError as error:
            if not found:
                raise
            self.remarks.append(f"the file {error}; what is whole of it was read")
        if found is None:
            if self._next() == "{":
                raise FileError(
                    "is not a Kineto trace but one JSON object a line, as Nsight Systems exports them; "
                    "torch.profiler's export_chrome_trace writes one"
                )
            raise FileError("is not a Kineto trace: it has no traceEvents")
        unclosed = sum(bool(event) for events in self._open.values() for event in events)
        if unclosed:
            self.left_out["events that begin and do not end"] += unclosed
        if not found and not self.may_be_empty:
            skipped = "; ".join(f"left out: {count} {reason}" for reason, count in self.left_out.items())
            if set(self.left_out) == {"events that are no objects"}:
                raise FileError("is not a Kineto trace: its traceEvents are not objects")
            raise FileError(
                "holds no operators and no kernels: it is not a trace of torch.profiler"
                + (f" ({skipped})" if skipped else "")
            )
        return found

    def _field(self) -> bool | None:
        """Read a field of the file's object: None at its end, True before the events, which are not read yet."""
        character = self._next()
        while character == ",":
            self._at = self._between(self._text, self._at).end()  # type: ignore[union-attr]
            character = self._next()
        if character == "}":
            self._at += 1
            return None
        if character not in ('"', ""):
            self._stop()
        if not character:
            raise CutError(
                "is truncated: its gzip data end too early"
                if self._source.cut
                else "is truncated: its JSON ends in the middle"
            )
        key = self._value()
        if self._next() != ":":
            self._at = max(self._at, 0)
            self._stop()
        self._at += 1
        if key != "traceEvents":
            value = self._value()
            if key in HEADER:
                self.header[key] = value
            return False
        if self._next() != "[":
            raise FileError("is not a Kineto trace: its traceEvents are not a list")
        self._at += 1
        return True

    def _listed(self, found: Events) -> None:
        """Add the events of the list at the current place that matter; go to the place after the list."""
        scan, between, taken = self._scan, self._between, self._taken
        while True:
            text, at = self._text, self._at
            # The loop that runs once an event: everything rare is left to _value().
            with suppress(ValueError):
                while True:
                    at = between(text, at).end()  # type: ignore[union-attr]
                    if text[at : at + 1] != "{":
                        break
                    event, end = scan(text, at)
                    at = end
                    taken(event, found)
            self._at = at
            character = self._next()
            if character == ",":
                continue
            if character == "]":
                self._at += 1
                return
            event = self._value() if character else self._cut_list()
            if isinstance(event, dict):
                taken(event, found)
            else:
                self.left_out["events that are no objects"] += 1

    def _cut_list(self) -> NoReturn:
        if self._source.cut:
            raise CutError("is truncated: its gzip data end too early")
        raise CutError("is truncated: its JSON ends in the middle")

    def _taken(self, event: Event, found: Events) -> None:
        """Add the event, if it matters, with fields of the types they should have. Of Python's functions, by far the most events, only
        the modules' calls do; of annotations, only the profiler's steps."""
        phase, category = event.get("ph"), event.get("cat")
        if phase == "E":
            self._ended(event, found)
            return
        if phase not in ("X", "B") or type(category) is not str or category not in KIND_OF:
            if phase == "B":
                self._open[_place(event)].append({})  # its end is not another's
            return
        kind, name = KIND_OF[category], plain(str(event.get("name") or ""))
        if name.startswith(STEP_NAME):
            kind = STEP
        matters = kind not in (MODULE, STEP) or name.startswith((_MODULE_NAME, STEP_NAME))
        if phase == "B":
            self._open[_place(event)].append({**event, "kind": kind} if matters else {})
        elif matters:
            self._clean(kind, name, event, found)

    def _ended(self, event: Event, found: Events) -> None:
        """Add the event that this one ends, as one that begins and ends."""
        stack = self._open.get(_place(event))
        begun = stack.pop() if stack else None
        if begun:
            start, end = _number(begun.get("ts")), _number(event.get("ts"))
            begun["dur"] = None if start is None or end is None else end - start
            self._clean(begun.pop("kind"), plain(str(begun.get("name") or "")), begun, found)

    def _clean(self, kind: str, name: str, event: Event, found: Events) -> None:
        start, duration = _number(event.get("ts")), _number(event.get("dur"))
        if not name:
            self.left_out["events without a name"] += 1
        elif start is None or duration is None:
            self.left_out["events without a time"] += 1
        elif duration < 0:
            self.left_out["events of negative duration"] += 1
        else:
            args = event.get("args")
            found.add(kind, name, start, duration, _place(event), args if isinstance(args, dict) else {})


def _place(event: Event) -> tuple[str, str]:
    return str(event.get("pid", "")), str(event.get("tid", ""))


def _number(value: Any) -> float | None:
    """A finite number, given as one or as text; None for anything else."""
    if type(value) is float:
        return value if math.isfinite(value) else None
    if type(value) is str and len(value) > _LONGEST_TIME:
        return None
    if type(value) not in (int, str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def in_time(events: Events, left_out: Counter[str]) -> Events:
    """The events without those whose clock was not set: at 0 (or before) while the others lie far from it."""
    set_ = [number for number, start in enumerate(events.start) if start > 0]
    if not set_ or len(set_) == len(events):
        return events
    first = min(events.start[number] for number in set_)
    span_us = max(events.start[number] + events.duration[number] for number in set_) - first

    def is_set(number: int) -> bool:
        start, duration = events.start[number], events.duration[number]
        return start > 0 or first - start - duration <= max(_FAR_US, span_us if duration else 0.0)

    kept = [number for number in range(len(events)) if is_set(number)]
    if len(kept) == len(events):
        return events
    left_out["events whose time was not set"] += len(events) - len(kept)
    return events.only(kept)
