"""The host: one thread that issues operators to a stream, ahead of the GPU as far as the launch queue allows."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from simtti.errors import InputError, unknown
from simtti.hw_configs.hardware import DIRECTORY


@dataclass(frozen=True, slots=True)
class Host:
    """What an operator costs the host in eager mode, in seconds.

    operator_s    an aten operator that computes: Python, dispatch, checks, allocation
    view_s        an aten operator that only makes a view
    launch_s      one kernel launch
    queue_depth   kernel launches that may be outstanding before the host waits
    """

    name: str
    operator_s: float
    view_s: float
    launch_s: float
    queue_depth: int


class _HostFields(BaseModel):
    model_config = ConfigDict(extra="forbid")
    operator_s: float = Field(ge=0, le=1)
    view_s: float = Field(ge=0, le=1)
    launch_s: float = Field(ge=0, le=1)
    queue_depth: int = Field(ge=1, le=1 << 20)
    source: str = Field(min_length=3)


@functools.cache
def hosts() -> dict[str, Host]:
    """The hosts in hw_configs/hosts.yaml.

    Raises:
        InputError: the file is invalid.
    """
    from simtti.hw_configs.schema import explain

    path = DIRECTORY / "hosts.yaml"
    found = {}
    for name, fields in yaml.safe_load(path.read_text()).items():
        try:
            checked = _HostFields.model_validate(fields)
        except ValidationError as error:
            raise InputError(f"{path}: {name}: {explain(error)}") from None
        found[name] = Host(name, checked.operator_s, checked.view_s, checked.launch_s, checked.queue_depth)
    return found


def load_host(name: str) -> Host:
    """The host called `name`.

    Raises:
        InputError: unknown name, with the nearest ones.
    """
    if name not in hosts():
        raise unknown("host", name, hosts())
    return hosts()[name]
