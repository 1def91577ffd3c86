"""Writes a device file with new calibrated parameters; what it does not touch stays as it was."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from simtti.errors import InputError


class _Line(dict[str, Any]):
    """A mapping written on one line."""


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(
    _Line, lambda dumper, data: dumper.represent_mapping("tag:yaml.org,2002:map", data, flow_style=True)
)
# YAML 1.1 reads 1e-06 as text: a number needs its point.
_Dumper.add_representer(
    float,
    lambda dumper, value: dumper.represent_scalar("tag:yaml.org,2002:float", _number(value)),
)


def _number(value: float) -> str:
    text = repr(float(value))
    mantissa, e, exponent = text.partition("e")
    return f"{mantissa if '.' in mantissa else mantissa + '.0'}{e}{exponent}"


def update_device_file(
    path: str | os.PathLike[str],
    base: str,
    parameters: dict[str, dict[str, Any]],
    fits: dict[str, dict[str, Any]],
) -> None:
    """Put `parameters` (name: value, status, source, interval) and `fits` into the device file at `path`.

    A file that does not exist is made: a device named after the file, on top of `base`. Comments at the head of the file
    stay, others do not. Mappings of a value and its source are written on a line each.

    Raises:
        InputError: the file is not a device file, or cannot be written.
    """
    from simtti.files import read_yaml, write_text

    file = Path(path)
    head: list[str] = []
    content: dict[str, Any] = {"base": base, "name": file.stem}
    if file.exists():
        text = file.read_text(encoding="utf-8")
        for line in text.splitlines():
            if not line.startswith("#"):
                break
            head.append(line)
        loaded = read_yaml(file)
        if not isinstance(loaded, dict):
            raise InputError(f"{file}: a device file is a mapping of fields, not {type(loaded).__name__}")
        content = loaded
    for section, entries in (("calibration", parameters), ("fits", fits)):
        content[section] = {**(content.get(section) or {}), **entries}
    for section in ("datasheet", "calibration", "fits"):
        if content.get(section):
            content[section] = {name: _Line(entry) for name, entry in content[section].items()}
        else:
            content.pop(section, None)
    body = yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=1 << 20, allow_unicode=True)
    write_text(file, "\n".join([*head, body]) if head else body)
