"""Engines that people serve with: the attention library, the way of launching and the release of PyTorch that each decides."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from simtti.errors import unknown
from simtti.files import read_yaml
from simtti.hw_configs.devices import DIRECTORY

DEFAULT = "diffusers"


@dataclass(frozen=True, slots=True)
class Engine:
    """attention: (architecture, library), the last for all others. launch, pytorch: as the options of `simtti run`. traced: what it
    runs was looked at operator by operator; of others only what their sources say is known."""

    name: str
    attention: tuple[tuple[str, str], ...]
    launch: str
    pytorch: str | None
    traced: bool = False

    def attention_on(self, architecture: str) -> str:
        """The library it calls on a device of an architecture."""
        known = dict(self.attention)
        return known.get(architecture, known["other"])


@functools.cache
def engines() -> dict[str, Engine]:
    """All that engines.yaml has, by name. A field that it may not have is an error of Python's: it is no file of the user's."""
    content = read_yaml(DIRECTORY / "engines.yaml")
    found = {}
    for name, fields in content.items():
        stated = {key: value for key, value in fields.items() if key not in ("attention", "source")}
        found[name] = Engine(name, tuple(fields["attention"].items()), **{"pytorch": None, **stated})
    return found


def load_engine(name: str) -> Engine:
    """An engine by its name.

    Raises:
        InputError: there is none of that name.
    """
    known = engines()
    if name not in known:
        raise unknown("engine", name, known)
    return known[name]
