"""Events of the Chrome trace format, as ui.perfetto.dev reads them: slices, counters, arrows, names of tracks.

Perfetto counts what it cannot show as errors of the file: a slice that overlaps another of its track in part, an arrow without a slice
at either end, a negative time. So times are whole nanoseconds until they are written; events stand in order of time, a slice before
those within it and before the arrows that begin or end there (perfetto, src/trace_processor/importers/common: slice_tracker.cc,
flow_tracker.cc).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import Any, NamedTuple

Event = dict[str, Any]
_SLICE, _COUNTER, _ARROW = range(3)  # of events at one time the order


class Track(NamedTuple):
    """Where slices stand: a process and a thread of it. In a file, threads of all processes have numbers of their own."""

    process: int
    thread: int


class Span(NamedTuple):
    """What runs for a while, in nanoseconds, and the module it belongs to, as 'unet.down_blocks.0.attentions.0'."""

    module: str
    start_ns: int
    end_ns: int


def nanoseconds(time_s: float) -> int:
    return round(time_s * 1e9)


class Events:
    """The events of one file."""

    def __init__(self) -> None:
        self._names: list[Event] = []
        self._timed: list[tuple[int, int, int, int, Event]] = []
        self._arrows = 0

    def process(self, number: int, name: str, place: int | None = None) -> None:
        """Name a process; place: among the others, by number if not given."""
        self._name("process_name", Track(number, 0), name=name)
        if place is not None:
            self._name("process_sort_index", Track(number, 0), sort_index=place)

    def thread(self, track: Track, name: str) -> None:
        self._name("thread_name", track, name=name)

    def _name(self, kind: str, track: Track, **args: Any) -> None:
        self._names.append(
            {"ph": "M", "name": kind, "pid": track.process, "tid": track.thread, "ts": 0, "args": args}
        )

    def slice(
        self,
        track: Track,
        name: str,
        category: str,
        start_ns: int,
        end_ns: int,
        args: Event | None = None,
        depth: int = 0,
    ) -> None:
        """What lasts from start_ns to end_ns. depth: how many others it stands in that may be as long."""
        event = {
            "ph": "X",
            "cat": category,
            "name": name,
            "pid": track.process,
            "tid": track.thread,
            "ts": 0,
            "dur": 0,
        }
        if args:
            event["args"] = args
        event["dur"] = _microseconds(end_ns - start_ns)
        self._timed.append((start_ns, _SLICE, start_ns - end_ns, depth, event))

    def counter(self, process: int, name: str, at_ns: int, value: float) -> None:
        event = {"ph": "C", "name": name, "pid": process, "tid": 0, "ts": 0, "args": {"value": value}}
        self._timed.append((at_ns, _COUNTER, 0, 0, event))

    def arrow(self, begin: Track, begin_ns: int, end: Track, end_ns: int) -> None:
        """From the innermost slice of a track that begins at or before begin_ns and ends after it, to such a one of another."""
        self._arrows += 1
        for ph, track, at_ns in (("s", begin, begin_ns), ("f", end, end_ns)):
            event = {
                "ph": ph,
                "cat": "ac2g",
                "name": "ac2g",
                "id": self._arrows,
                "pid": track.process,
                "tid": track.thread,
                "ts": 0,
            }
            if ph == "f":
                event["bp"] = "e"
            self._timed.append((at_ns, _ARROW, 0, 0, event))

    def text(self, **head: Any) -> str:
        """The file. head: what stands beside its events."""
        self._timed.sort(key=itemgetter(0, 1, 2, 3))
        for at_ns, *_, event in self._timed:
            event["ts"] = _microseconds(at_ns)
        found = {"schemaVersion": 1, "displayTimeUnit": "ms", **head}
        found["traceEvents"] = [*self._names, *(event for *_, event in self._timed)]
        return json.dumps(found, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def _microseconds(time_ns: int) -> float:
    """As the format has it. Perfetto rounds them to nanoseconds again (json_trace_tokenizer.cc: llround)."""
    return time_ns / 1000


def nested(spans: Iterable[Span]) -> Iterator[tuple[str, str, int, int, int]]:
    """The modules around what runs one after another: name, path, start and end in nanoseconds, and how deep each stands.

    >>> list(nested([Span("unet.conv_in", 0, 5), Span("unet.mid.0.norm", 5, 9)]))[-2:]
    [('mid.0', 'unet.mid.0', 5, 9, 1), ('unet', 'unet', 0, 9, 0)]
    """
    opened: list[tuple[str, int]] = []
    last_ns = 0
    for span in spans:
        parts = _parts(span.module)
        same = 0
        while same < min(len(opened), len(parts)) and opened[same][0] == parts[same]:
            same += 1
        yield from _closed(opened, same, last_ns)
        opened += [(part, span.start_ns) for part in parts[same:]]
        last_ns = span.end_ns
    yield from _closed(opened, 0, last_ns)


def _closed(
    opened: list[tuple[str, int]], depth: int, end_ns: int
) -> Iterator[tuple[str, str, int, int, int]]:
    while len(opened) > depth:
        path = ".".join(part for part, _ in opened)
        name, start_ns = opened.pop()
        yield name, path, start_ns, end_ns, len(opened)


def _parts(module: str) -> list[str]:
    """Its levels; a number goes with what it counts: 'unet', 'down_blocks.0'."""
    found: list[str] = []
    for part in filter(None, module.split(".")):
        if part.isdigit() and found:
            found[-1] += f".{part}"
        else:
            found.append(part)
    return found
