"""Host machines: what issuing operators costs them, read from hosts.yaml."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from simtti.errors import InputError, unknown
from simtti.hw_configs.devices import DIRECTORY


@dataclass(frozen=True, slots=True)
class Host:
    """What eager mode costs the host, in seconds.

    module_s         going from one module's forward() to another's, by a call or a return: the interpreter, hooks, the
                     model's own Python
    view_s           an aten operator that only makes a view
    operator_s       an elementwise operator, a copy, a reduction: argument parsing, dispatch, checks, allocation
    linear_s         a matrix product, with the heuristics of cuBLAS
    normalization_s  LayerNorm, GroupNorm, softmax
    attention_s      scaled-dot-product attention: the choice among its implementations, and its operators' own operators
    convolution_s    a convolution, with cuDNN's search for a plan among those it keeps
    collective_s     a collective, or a send or a receive of a batch: torch.distributed's Python, work objects, events
    launch_s         each kernel launch, beside the operator that it belongs to
    queue_depth      kernel launches that may be outstanding before the host waits
    """

    name: str
    module_s: float
    view_s: float
    operator_s: float
    linear_s: float
    normalization_s: float
    attention_s: float
    convolution_s: float
    collective_s: float
    launch_s: float
    queue_depth: int


class _HostFields(BaseModel):
    model_config = ConfigDict(extra="forbid")
    module_s: float = Field(ge=0, le=1)
    view_s: float = Field(ge=0, le=1)
    operator_s: float = Field(ge=0, le=1)
    linear_s: float = Field(ge=0, le=1)
    normalization_s: float = Field(ge=0, le=1)
    attention_s: float = Field(ge=0, le=1)
    convolution_s: float = Field(ge=0, le=1)
    collective_s: float = Field(ge=0, le=1)
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
        found[name] = Host(name, **checked.model_dump(exclude={"source"}))
    return found


def load_host(name: str) -> Host:
    """The host called `name`.

    Raises:
        InputError: unknown name, with the nearest ones.
    """
    if name not in hosts():
        raise unknown("host", name, hosts())
    return hosts()[name]
