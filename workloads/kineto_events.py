"""The events of a Kineto file, a column a field: some sixty bytes an event, where a dictionary of its own takes a thousand.

Millions of events call the same few names on arguments of the same few shapes: what they share is held once.
"""

from __future__ import annotations

import marshal
from array import array
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

from simtti.workloads.kineto_fields import whole

OPERATOR, MODULE, LAUNCH, STEP = "operator", "module", "launch", "step"
KERNEL, MEMCPY, MEMSET = "kernel", "memcpy", "memset"
ON_GPU = (KERNEL, MEMCPY, MEMSET)
_KINDS = (OPERATOR, MODULE, LAUNCH, STEP, *ON_GPU)
_OF_GPU = ("device", "stream", "grid", "block", "registers per thread", "shared memory", "bytes")
# Arguments that are kept, but for the numbers that tie events to each other.
_ARGUMENTS = {
    OPERATOR: ("Input Dims", "Input type", "Input Strides", "Concrete Inputs"),
    **dict.fromkeys(ON_GPU, _OF_GPU),
}
T = TypeVar("T")
_NONE = -(2**63)
_SHARING_VERSION = 2  # of marshal, the last to write equal values as equal bytes


class Events:
    """Events by their number, in the file's order. start, duration: us. `arguments` of an event are shared: read them, never
    write them; `external` (id) and `correlation` are None where it has none."""

    def __init__(self) -> None:
        self.start, self.duration = array("d"), array("d")
        self._kinds = bytearray()
        self._columns = {name: array("q") for name in ("name", "place", "arguments")}
        self._names, self._places = _Shared[str](), _Shared[tuple[str, str]]()
        self._arguments: list[dict[str, Any]] = []
        self._arguments_at: dict[bytes, int] = {}
        self._external, self._correlation = _Numbers(), _Numbers()

    def __len__(self) -> int:
        return len(self._kinds)

    def add(
        self,
        kind: str,
        name: str,
        start: float,
        duration: float,
        place: tuple[str, str],
        arguments: dict[str, Any],
    ) -> None:
        """place: process and thread. arguments: as the file has them."""
        self._kinds.append(_KINDS.index(kind))
        self.start.append(start)
        self.duration.append(duration)
        self._columns["name"].append(self._names.number(name))
        self._columns["place"].append(self._places.number(place))
        self._columns["arguments"].append(self._arguments_number(kind, arguments))
        self._external.append(whole(arguments.get("External id", arguments.get("external id")), None))
        self._correlation.append(whole(arguments.get("correlation"), None))

    def kind(self, number: int) -> str:
        return _KINDS[self._kinds[number]]

    def name(self, number: int) -> str:
        return self._names.values[self._columns["name"][number]]

    def place(self, number: int) -> tuple[str, str]:
        """Process and thread."""
        return self._places.values[self._columns["place"][number]]

    def arguments(self, number: int) -> dict[str, Any]:
        return self._arguments[self._columns["arguments"][number]]

    def external(self, number: int) -> int | None:
        return self._external[number]

    def correlation(self, number: int) -> int | None:
        return self._correlation[number]

    def only(self, numbers: Iterable[int]) -> Events:
        """Some of them, as numbers from 0."""
        found = Events()
        for number in numbers:
            ids = {"External id": self.external(number), "correlation": self.correlation(number)}
            found.add(
                self.kind(number), self.name(number), self.start[number], self.duration[number], self.place(number),
                {**self.arguments(number), **ids},
            )  # fmt: skip
        return found

    def _arguments_number(self, kind: str, arguments: dict[str, Any]) -> int:
        kept = {name: arguments[name] for name in _ARGUMENTS.get(kind, ()) if name in arguments}
        key = marshal.dumps(kept, _SHARING_VERSION)
        number = self._arguments_at.setdefault(key, len(self._arguments))
        if number == len(self._arguments):
            self._arguments.append(kept)
        return number


class _Shared(Generic[T]):
    """Values that many events share, each held once, by the number that it was given."""

    def __init__(self) -> None:
        self.values: list[T] = []
        self._numbers: dict[T, int] = {}

    def number(self, value: T) -> int:
        found = self._numbers.setdefault(value, len(self.values))
        if found == len(self.values):
            self.values.append(value)
        return found


class _Numbers:
    """Whole numbers or None, in eight bytes each but for those of more."""

    def __init__(self) -> None:
        self._values = array("q")
        self._large: dict[int, int] = {}

    def append(self, value: int | None) -> None:
        if value is not None and not _NONE < value < -_NONE:
            self._large[len(self._values)] = value
            value = None
        self._values.append(_NONE if value is None else value)

    def __getitem__(self, number: int) -> int | None:
        value = self._values[number]
        return value if value != _NONE else self._large.get(number)
