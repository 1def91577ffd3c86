"""Odd inputs: what breaks things, put into good ones; and what is sure of any answer."""

from __future__ import annotations

import contextlib
import copy
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from simtti.errors import InputError

ODD: list[Any] = [
    None, True, 0, -1, 1, 2**31, 2**63, -(2**63), 10**30, 1e308, -1e308, 1e-320, float("nan"), float("inf"), "", "x", "1", "-1", "1e3",
    "NaN", "\x1b[2J", "a\nb", "\ud800", "../../x", "é" * 50, [], [[]], [0], {}, {"a": {}}, [1, "x"], "None", "h100-sxm", 0.5, "a" * 5000,
]  # fmt: skip


def mutated(value: Any, chance: random.Random, changes: int = 1) -> Any:
    """`value` with some of what is in it, at any depth, put to something odd, taken away or doubled."""
    value = copy.deepcopy(value)
    for _ in range(changes):
        holders = list(_holders(value))
        if not holders:
            return chance.choice(ODD)
        holder, key = chance.choice(holders)
        what = chance.random()
        if what < 0.2:
            del holder[key]
        elif what < 0.3 and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        else:
            holder[key] = copy.deepcopy(chance.choice(ODD))
    return value


def _holders(value: Any) -> Any:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield value, key
        yield from _holders(inner)


def damaged(data: bytes, chance: random.Random) -> bytes:
    """`data` cut, with bytes flipped, or a part of it repeated."""
    what, at = chance.random(), chance.randrange(len(data) + 1)
    if what < 0.3:
        return data[:at]
    if what < 0.8:
        changed = bytearray(data)
        for _ in range(chance.randint(1, 8)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        return bytes(changed)
    return data[:at] + data[at // 2 : at] * chance.randint(1, 30) + data[at:]


def write_yaml(path: Path, content: Any, chance: random.Random) -> None:
    """A YAML file of `content` with one to three values odd; its bytes damaged now and then."""
    text = yaml.safe_dump(mutated(content, chance, chance.randint(1, 3)), allow_unicode=True)
    data = text.encode("utf-8", "replace")
    path.write_bytes(damaged(data, chance) if chance.random() < 0.3 else data)


def refused_or(answer: Callable[[], Any]) -> None:
    with contextlib.suppress(InputError):
        checked(answer())


def checked(found: Any) -> None:
    """No number is NaN or infinite, and what is a time or a share makes sense."""
    if isinstance(found, dict):
        for key, value in found.items():
            if isinstance(value, float) and str(key).endswith(("_s", "_us", "_j", "share")):
                assert math.isfinite(value), (key, value)
                assert value >= 0, (key, value)
            if str(key).endswith("share") and isinstance(value, float):
                assert value <= 1 + 1e-9, (key, value)
            checked(value)
    elif isinstance(found, list | tuple):
        for value in found:
            checked(value)
