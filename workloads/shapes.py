"""Traces of other shapes from what ships beside the default one: each number of a trace as an expression of batch, size and frames.

    for scope in Shapes.load(path).made_for(file):
        if scope.admits(options):
            scope.trace(default, options)    # the trace at that shape, equal to its recording

A scope is a range of shapes at which a workload issues the same operators: batches of one image and larger ones mostly differ, as layouts
do. What stands in it: the operators, their tensors as how many tensors ago they were met (so that blocks of a model are alike), and each
size, stride, byte count, attribute and count of a step as an expression (`expressions`). What is done once for each frame is stored once,
with how often, and its numbers may depend on which turn it is. Every scope was made from recordings (`shape_fit`) and checked at others,
its corners among them (`build_shapes`). Needs no torch.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa

from simtti.errors import InputError
from simtti.files import replacing
from simtti.workloads.expressions import Expression, at, powers
from simtti.workloads.trace import Operator, Phase, Step, TensorUse, Trace, row_major

VERSION = 1
_LEVEL = 19  # of zstd's compression
# Stand in attributes where a whole number does, and a list of them that is longer at some shapes.
NUMBER, NUMBERS = "#", "#*"
# Transformers that fill up an image's tokens, one a step down and across, do so to a multiple of that many.
FILLED = 32
# What pipelines make of height and width, in steps of theirs: positions go by the longer side, and count from the middle.
BESIDE: dict[str, Callable[[int, int], int]] = {
    "longer": max,
    "height half": lambda height, _: height // 2,
    "width half": lambda _, width: width // 2,
    "longer half": lambda height, width: max(height, width) // 2,
    "filled": lambda height, width: -(-height * width // FILLED),
}
INDEX = "index"  # the variable that counts the turns of what is done several times


@dataclass(frozen=True)
class Variable:
    """One option that a scope leaves free: `least` to `most`, in steps of `unit` from `origin`. An expression sees the steps.

    whole: pixels before the last of a decoder's tiles, of which there are as many throughout; an expression sees the rest as well.

    >>> Variable("frames", 5, 81, unit=4, origin=1).values(81)
    {'frames': 20}
    >>> Variable("height", 448, 576, unit=16, whole=384).values(480)
    {'height': 30, 'height rest': 6}
    """

    name: str
    least: int
    most: int
    unit: int = 1
    origin: int = 0
    whole: int = 0

    def __str__(self) -> str:
        return f"{self.least} to {self.most}" + (f" by {self.unit}" if self.unit > 1 else "")

    def admits(self, option: int) -> bool:
        return self.least <= option <= self.most and (option - self.origin) % self.unit == 0

    def values(self, option: int) -> dict[str, int]:
        """What an expression sees of an option, by name."""
        steps = {self.name: (option - self.origin) // self.unit}
        if not self.whole:
            return steps
        return {**steps, f"{self.name} rest": (option - self.whole) // math.gcd(self.unit, self.whole)}

    def nearest(self, wanted: float) -> int:
        """The option nearest to a number, of those that there are."""
        steps = max(1, round((wanted - self.origin) / self.unit))
        return min(max(self.origin + steps * self.unit, self.least), self.most)


@dataclass(frozen=True)
class Scope:
    """The shapes at which a trace is made of the same operators, and those.

    options: those that are fixed. largest: batch x height x width x frames as far as was checked. content: what `shape_fit` made.
    beside: what its expressions see beside the variables, of BESIDE. full: of tokens that are filled up, whether it has the sizes where
    none is missing, or those where some are; None where that makes no difference.
    """

    options: dict[str, Any]
    variables: tuple[Variable, ...]
    largest: int
    content: dict[str, Any]
    beside: tuple[str, ...] = ()
    full: bool | None = None

    def __str__(self) -> str:
        """'batch 2 to 16, height 512 to 2048 by 64, to 16.8 Mpixel together'."""
        free = [f"{one.name} {one}" for one in self.variables]
        if len(free) > 1:
            free.append(f"to {self.megapixels} Mpixel together")
        if self.full is not None:
            free.append(f"tokens {'' if self.full else 'no '}multiple of {FILLED}")
        return ", ".join(free)

    @property
    def megapixels(self) -> str:
        """Its largest volume, of all images and frames."""
        return f"{self.largest / 1e6:,.1f}"

    def admits(self, options: Mapping[str, Any]) -> bool:
        """Whether it has the trace of these options, the number of steps aside."""
        free = {one.name: one for one in self.variables}
        return (
            {*options} == {*self.options, *free}
            and all(options[name] == value for name, value in self.options.items() if name != "steps")
            and all(one.admits(options[name]) for name, one in free.items())
            and volume(options) <= self.largest
            and (self.full is None or self.full == fills(self.variables, options))
        )

    def drawn(self, random: Random) -> dict[str, Any]:
        """Options that it has, at random."""
        while True:
            free = {one.name: random.randrange(one.least, one.most + 1, one.unit) for one in self.variables}
            options = {**self.options, **free}
            if self.admits(options):
                return options

    def trace(self, default: Trace, options: Mapping[str, Any]) -> Trace:
        """The trace at these options, with the default one's steps. Its name, weights and versions are the default trace's."""
        shape = {one.name: options[one.name] for one in self.variables}
        seen = values_of(self.variables, options, self.beside)
        return replace(
            default,
            options={**default.options, **shape},
            phases=tuple(_Reader(self.content, [*seen], [*seen.values()]).phases()),
        )


@dataclass(frozen=True)
class Shapes:
    """What ships beside a workload's default trace. of: the hash of that trace's file."""

    of: str
    scopes: tuple[Scope, ...]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it; the same gives the same bytes."""
        content = {"version": VERSION, "of": self.of, "scopes": [asdict(scope) for scope in self.scopes]}
        text = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
        with replacing(path) as partial:
            partial.write_bytes(pa.Codec("zstd", compression_level=_LEVEL).compress(text, asbytes=True))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Shapes:
        """Read what `save` wrote.

        Raises:
            InputError: no such file, or it is damaged or of another version.
        """
        try:
            with pa.input_stream(os.fspath(path), compression="zstd") as stream:
                content = json.loads(stream.read())
        except (OSError, pa.ArrowException, ValueError) as error:
            raise InputError(f"{path}: not readable: {error}") from None
        if content.get("version") != VERSION:
            raise InputError(f"{path}: version {content.get('version')!r}; this simtti reads {VERSION}")
        scopes = [
            Scope(
                **{
                    **each,
                    "variables": tuple(Variable(**one) for one in each["variables"]),
                    "beside": tuple(each.get("beside", ())),
                }
            )
            for each in content["scopes"]
        ]
        return cls(content["of"], tuple(scopes))

    def made_for(self, file: Path) -> tuple[Scope, ...]:
        """Its scopes; none where it was made for another trace than that file's."""
        return self.scopes if self.of == hash_of(file) else ()


def values_of(
    variables: Sequence[Variable], options: Mapping[str, Any], beside: Sequence[str] = ()
) -> dict[str, int]:
    """What expressions see of options, by name."""
    seen = {name: value for one in variables for name, value in one.values(options[one.name]).items()}
    return {**seen, **{name: BESIDE[name](seen["height"], seen["width"]) for name in beside}}


def fills(variables: Sequence[Variable], options: Mapping[str, Any]) -> bool:
    """Whether an image has so many tokens that none is missing."""
    seen = values_of(variables, options)
    return seen["height"] * seen["width"] % FILLED == 0


def volume(options: Mapping[str, Any]) -> int:
    """Images or videos x pixels x frames."""
    found = 1
    for name in ("batch", "height", "width", "frames"):
        found *= options.get(name, 1)
    return found


def hash_of(file: Path) -> str:
    """Of what is in a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def path_beside(trace: Path) -> Path:
    """Where what becomes of a shipped trace at other shapes is kept."""
    return trace.with_suffix(".shapes")


# ---- reading


class Ages:
    """Names tensors by how many were met since: the first time a tensor is met it is 0."""

    def __init__(self) -> None:
        self.next = 0

    def of(self, tensor: int) -> int:
        age = self.next - tensor
        self.next = max(self.next, tensor + 1)
        return age

    def tensor(self, age: int) -> int:
        tensor = self.next - age
        self.next = max(self.next, tensor + 1)
        return tensor


class _Reader:
    """Makes a scope's operators where its variables have these values."""

    def __init__(self, content: Mapping[str, Any], names: Sequence[str], values: Sequence[int]) -> None:
        self.content, self.names, self.point = content, (*names, INDEX), values
        self.ages = Ages()
        self.uses: dict[tuple[int, Any], TensorUse] = {}
        self.turns: list[_Turn] = []

    def turn(self, index: int) -> _Turn:
        while len(self.turns) <= index:
            values = powers(self.names, (*self.point, len(self.turns)))
            self.turns.append(_Turn(self, values, len(self.turns)))
        return self.turns[index]

    def phases(self) -> Iterator[Phase]:
        for name, steps in self.content["phases"]:
            found = []
            for number, (count, stretches) in enumerate(steps):
                rows = [row for stretch in stretches for row in self._rows(*stretch)]
                operators = [self._operator(name, number, place, *row) for place, row in enumerate(rows)]
                found.append(Step(self._times(count), tuple(operators)))
            yield Phase(name, tuple(found))

    def _times(self, count: Expression) -> int:
        return at(count, self.turn(0).values)

    def _rows(
        self, times: Expression, modules: list[int], rows: list[int]
    ) -> Iterator[tuple[_Turn, int, int]]:
        for index in range(self._times(times)):
            turn = self.turn(index)
            for module, row in zip(modules, rows, strict=True):
                yield turn, module, row

    def _operator(self, phase: str, step: int, position: int, turn: _Turn, module: int, row: int) -> Operator:
        (op, category, is_view), attributes, inputs, outputs, released = turn.row(row)
        return Operator(
            phase, step, position, self.content["modules"][module], op, category, tuple(self._uses(turn, inputs)),
            tuple(self._uses(turn, outputs)), attributes, is_view,
            tuple(self.ages.tensor(at(age, here.values)) for age, here in self.each(turn, released)),
        )  # fmt: skip

    def _uses(self, turn: _Turn, operands: list[Any]) -> Iterator[TensorUse]:
        for (age, layout), here in self.each(turn, operands):
            key = self.ages.tensor(at(age, here.values)), (here.index, layout)
            if key not in self.uses:
                self.uses[key] = TensorUse(key[0], *here.layout(layout))
            yield self.uses[key]

    def each(self, turn: _Turn, entries: list[Any]) -> Iterator[tuple[Any, _Turn]]:
        """The entries of an operator, those that stand for several as often as they do, and the turn that each is of."""
        for entry in entries:
            if isinstance(entry, dict):
                for index in range(self._times(entry["times"])):
                    yield from ((each, self.turn(index)) for each in entry["each"])
            else:
                yield entry, turn


class _Turn:
    """A scope's layouts and rows where the monomials have these values."""

    def __init__(self, reader: _Reader, values: Sequence[int], index: int) -> None:
        self.reader, self.values, self.index = reader, values, index
        self.layouts: dict[int, tuple[Any, ...]] = {}
        self.rows: dict[int, Any] = {}

    def layout(self, number: int) -> tuple[Any, ...]:
        if number not in self.layouts:
            dtype, shape, strides, nbytes, role = self.reader.content["layouts"][number]
            sizes = tuple(at(each, self.values) for each in shape)
            steps = row_major(sizes) if strides is None else tuple(at(each, self.values) for each in strides)
            self.layouts[number] = sizes, steps, dtype, at(nbytes, self.values), role
        return self.layouts[number]

    def row(self, number: int) -> Any:
        if number not in self.rows:
            kind, numbers, *entries = self.reader.content["rows"][number]
            *call, skeleton = self.reader.content["kinds"][kind]
            self.rows[number] = (call, self._filled(skeleton, iter(numbers)), *entries)
        return self.rows[number]

    def _filled(self, skeleton: Any, numbers: Iterator[Any]) -> Any:
        """An attribute whose whole numbers were left out, with these."""
        if isinstance(skeleton, dict):
            return {name: self._filled(skeleton[name], numbers) for name in sorted(skeleton)}
        if isinstance(skeleton, list):
            return [self._filled(each, numbers) for each in skeleton]
        if skeleton == NUMBERS:
            return [at(each, here.values) for each, here in self.reader.each(self, next(numbers))]
        return at(next(numbers), self.values) if skeleton == NUMBER else skeleton
