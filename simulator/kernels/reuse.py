"""What follows from few of a device's numbers is worked out once for all devices that have these in common.

A search meets thousands of devices that differ in a few numbers, and most operators' kernels follow from others. Which numbers
they are nobody has to say: while a function runs for the first time, what it reads of the device is watched; another device with
the same of all that gets the same answer, as every step on the way to it would be the same. Where what matters is not a number but
what a function makes of it, as whether L2 holds so many bytes, the function is `asked`, and its answer is what devices have to share.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

from simtti.hw_configs.parameters import GROUPS
from simtti.simulator.designs import Designs
from simtti.simulator.kernels.family import Target

_Found = TypeVar("_Found")
_Subject = TypeVar("_Subject")
_Key = (
    str | tuple[Callable[..., Any], tuple[Any, ...]]
)  # a path of names; or a function that was asked, and of what
_MOST_SUBJECTS = 1 << 14  # exact: subjects remembered; the results are the same with any other number
_MOST_ANSWERS = 256  # exact: the same, of a subject
_PATIENCE = 8  # exact: the same, answers without a reuse after which a subject is watched no more


class _Watched:
    """Stands for a device or a policy and notes, in `read`, what is asked of it. (Groups of parameters are the same where all
    parameters are, which is quicker to ask than each group.)"""

    __slots__ = ("_of", "_path", "_read")

    def __init__(self, of: Any, path: str, read: dict[_Key, Any]) -> None:
        self._of, self._path, self._read = of, path, read

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._of, name)
        if callable(value):  # a method: what it asks is noted as well
            return functools.partial(getattr(type(self._of), name), self)
        if name in GROUPS:
            self._read["hardware.parameters.token"] = None
        else:
            self._read[f"{self._path}.{name}"] = value
        return value


def asked(function: Callable[..., _Found]) -> Callable[..., _Found]:
    """`function` of numbers and, last, a device, whose answer devices have to share, not what it reads of them on the way."""

    @functools.wraps(function)
    def ask(*given: Any) -> _Found:
        device = given[-1]
        if not isinstance(device, _Watched):
            return function(*given)
        found = function(*given[:-1], device._of)
        device._read[function, given[:-1]] = found
        return found

    return ask


class _Known(NamedTuple):
    """Answers by what was read before them: numbers, and what functions that were asked made of them."""

    numbers: Callable[[Target], Any]
    functions: list[tuple[Callable[..., Any], tuple[Any, ...]]]
    answers: dict[Any, Any]

    def key(self, target: Target) -> Any:
        """What `target` has of what was read."""
        read = _numbers_of(self.numbers, target)
        if not self.functions:
            return read
        return read, *[function(*given, target.hardware) for function, given in self.functions]


# The target that was met last, and numbers of it by what reads them: a target is asked for hundreds of subjects in a row.
_met: list[tuple[Target | None, dict[Callable[[Target], Any], Any]]] = [(None, {})]


def _numbers_of(numbers: Callable[[Target], Any], target: Target) -> Any:
    of, read = _met[0]
    if of is not target:
        read = {}
        _met[0] = target, read  # both at once, whatever other threads do
    if numbers not in read:
        read[numbers] = numbers(target)
    return read[numbers]


class _Answers:
    """What became of a subject so far. by: what was read, by name, with the answers by its values."""

    __slots__ = ("by", "subject", "unused")

    def __init__(self, subject: object) -> None:
        self.subject = subject  # kept alive: it is known by its identity
        self.by: dict[tuple[_Key, ...], _Known] = {}
        self.unused = 0


_all_kept: list[dict[int, _Answers]] = []


def forget() -> None:
    """Forget all answers: the functions that give them are others from now on."""
    for kept in _all_kept:
        kept.clear()


def by_what_it_reads(
    function: Callable[[_Subject, Target], _Found],
) -> Callable[[_Subject, Target], _Found]:
    """`function`, whose answers for a subject, an operator of a trace or a part of one, are kept for the devices and policies that have
    in common what it read of them. It may not hand the device on to what keeps answers by the device's identity, nor may anyone
    change what it has answered."""
    kept: dict[int, _Answers] = {}
    _all_kept.append(kept)

    @functools.wraps(function)
    def find(subject: _Subject, target: Target) -> _Found:
        answers = kept.get(id(subject))
        if answers is None:
            if len(kept) >= _MOST_SUBJECTS:
                del kept[next(iter(kept))]
            answers = kept[id(subject)] = _Answers(subject)
        found: _Found | None = _known(answers, target)
        if found is None and isinstance(target.hardware, Designs) and not answers.by:
            _watch(function, subject, target._replace(hardware=target.hardware.each[0]), answers)
            found = _known(answers, target)
        if found is not None:
            answers.unused = 0
            return found
        if answers.unused > _PATIENCE or isinstance(target.hardware, Designs):
            return function(subject, target)
        return _watch(function, subject, target, answers)

    return find


def _known(answers: _Answers, target: Target) -> Any:
    """What a device with the same of all that was read got. Of several side by side what is the same for all of them is: lanes are never
    the same as others."""
    for known in answers.by.values():
        found = known.answers.get(known.key(target))
        if found is not None:
            return found
    return None


def _watch(
    function: Callable[[_Subject, Target], _Found], subject: _Subject, target: Target, answers: _Answers
) -> _Found:
    read: dict[_Key, Any] = {}
    watched = Target(
        _Watched(target.hardware, "hardware", read),  # type: ignore[arg-type]
        _Watched(target.policy, "policy", read),  # type: ignore[arg-type]
    )
    found = function(subject, watched)
    keys = tuple(read)
    if keys not in answers.by:
        names = tuple(key for key in keys if isinstance(key, str))
        answers.by[keys] = _Known(_reading(names), [key for key in keys if not isinstance(key, str)], {})
    known = answers.by[keys]
    if len(known.answers) >= _MOST_ANSWERS:
        del known.answers[next(iter(known.answers))]
    known.answers[known.key(target)] = found
    answers.unused += 1
    return found


@functools.cache
def _reading(names: tuple[str, ...]) -> Callable[[Target], Any]:
    """What reads these numbers of a target, the same for all that read the same."""
    return attrgetter(*names) if names else _nothing


def _nothing(target: Target) -> tuple[()]:
    return ()
