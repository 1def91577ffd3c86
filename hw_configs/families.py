"""What the YAML files of the kernel families say: bounds and meaning of each parameter, and the values all devices share.

`fields:` has bounds and meaning by style, a class of `parameters`; `calibration:` the values by `group.name`, in the form
of a device file. `groups:` may name groups that `parameters` does not, with the style of each and what it inherits from, and
`attention_kernels:` the attention libraries, which device files and policies name.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, NamedTuple

from simtti.errors import InputError, unknown
from simtti.files import read_yaml
from simtti.hw_configs import parameters
from simtti.hw_configs.parameters import GROUPS, Group

SHIPPED = sorted((Path(__file__).parent / "families").glob("*.yaml"))
FILES = [*SHIPPED]  # and those that a program adds


class Bounds(NamedTuple):
    """Physical limits of a parameter, and what it means, with its unit."""

    low: float
    high: float
    meaning: str


class Shared(NamedTuple):
    """What all families' files say: `bounds` of each 'group.name', the `calibration` entries as YAML has them, and the names of
    the attention libraries."""

    bounds: dict[str, Bounds]
    calibration: dict[str, dict[str, Any]]
    attention_kernels: tuple[str, ...]


def parse(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: a device file is a mapping of fields, not {type(content).__name__}")
    return content


@functools.cache
def shared() -> Shared:
    """What the families' files say together. The groups that they name are in GROUPS from then on.

    Raises:
        InputError: a group without bounds of all its fields, a value of no group, a group of no style.
    """
    fields: dict[str, dict[str, Any]] = {}
    calibration: dict[str, dict[str, Any]] = {}
    kernels: list[str] = []
    for path in FILES:
        content = parse(path)
        fields |= content.get("fields", {})
        calibration |= content.get("calibration", {})
        kernels += content.get("attention_kernels", [])
        GROUPS.update({name: _group(path, name, said) for name, said in content.get("groups", {}).items()})
    bounds = {}
    for name, group in GROUPS.items():
        for field in group.style._fields:  # type: ignore[attr-defined]
            said = fields.get(group.style.__name__, {}).get(field)
            if said is None:
                raise InputError(f"hw_configs/families: no bounds of {group.style.__name__}.{field}")
            bounds[f"{name}.{field}"] = Bounds(
                float(said["bounds"][0]), float(said["bounds"][1]), said["meaning"]
            )
    for name in calibration:
        if name not in bounds:
            raise unknown("parameter in hw_configs/families:", name, bounds)
    return Shared(bounds, calibration, tuple(dict.fromkeys(kernels)))


def _group(path: Path, name: str, said: Any) -> Group:
    """A group as a file names it: its style, or a mapping of style and the group it inherits from."""
    style, inherits = (said.get("style"), said.get("inherits", "")) if isinstance(said, dict) else (said, "")
    found: Any = getattr(parameters, str(style), None)
    if not hasattr(found, "_fields"):
        raise InputError(f"{path}: field 'groups.{name}': no style {style!r} in hw_configs/parameters.py")
    return Group(found, inherits)
