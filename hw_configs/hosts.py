"""Host machines: what issuing operators costs them, read from hosts.yaml or from a file of one's own (`simtti capture host`)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from simtti.errors import InputError, Problems, unknown
from simtti.files import read_yaml
from simtti.hw_configs.devices import DIRECTORY
from simtti.words import joined


@dataclass(frozen=True, slots=True)
class Host:
    """What eager mode costs the host, in seconds.

    module_s            a call of a torch.nn.Module: __call__ with its hooks, the Python of its forward(), the way back
    diffusers_module_s  the same of a module of diffusers: arguments looked up by name, processors, checks
    view_s              an aten operator that only makes a view
    operator_s          an elementwise operator, a copy, a reduction: argument parsing, dispatch, checks, allocation
    linear_s            a matrix product, with the heuristics of cuBLAS
    normalization_s     LayerNorm, GroupNorm, softmax
    attention_s         scaled-dot-product attention: the choice among its implementations, and its operators' own operators
    convolution_s       a convolution, with cuDNN's search for a plan among those it keeps
    collective_s        a collective, or a send or a receive of a batch: torch.distributed's Python, work objects, events
    launch_s            each kernel launch, beside the operator that it belongs to
    integer_weight_s    a weight of a product of integers that the host does itself, for up to 16 rows; nothing where a file does not say
    queue_depth         kernel launches that may be outstanding before the host waits
    """

    name: str
    module_s: float
    diffusers_module_s: float
    view_s: float
    operator_s: float
    linear_s: float
    normalization_s: float
    attention_s: float
    convolution_s: float
    collective_s: float
    launch_s: float
    queue_depth: int
    integer_weight_s: float = 0.0

    def faster(self, speed: float) -> Host:
        """The host that does everything `speed` times as fast, with the same queue."""
        return replace(self, **{name: getattr(self, name) / speed for name in COSTS})


_NEEDED = tuple(field.name for field in fields(Host) if field.name not in ("name", "integer_weight_s"))
COSTS = tuple(field.name for field in fields(Host) if field.name.endswith("_s"))


@functools.cache
def hosts() -> dict[str, Host]:
    """The hosts in hw_configs/hosts.yaml.

    Raises:
        InputError: the file is invalid.
    """
    path = DIRECTORY / "hosts.yaml"
    found: dict[str, Host] = {}
    for name, stated in _read(path).items():
        problems = Problems()
        _check_costs(stated, found, problems)
        problems.raise_any(f"{path}: {name}")
        found[name] = _host(name, stated, found)
    return found


def load_host(name: str) -> Host:
    """The host called `name` in hosts.yaml, or the one that the file `name` (.yaml) describes.

    A file states every cost, or `base:`, a host of hosts.yaml, and what differs; `source:` always.

    Raises:
        InputError: unknown name, with the nearest ones; a file that is not there or says what it may not.
    """
    if name in hosts():
        return hosts()[name]
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        raise unknown("host", name, hosts())
    stated = _read(path)
    problems = Problems()
    _check_types(stated, problems)
    _check_costs(stated, hosts(), problems)
    problems.raise_any(str(path))
    return _host(path.stem, stated, hosts())


def _check_types(stated: Any, problems: Problems) -> None:
    """`stated.check_host`; pydantic takes longer to load than a host. Tests check those that ship."""
    from simtti.hw_configs import stated as schema

    schema.check_host(stated, problems)


def _check_costs(stated: Mapping[str, Any], known: Mapping[str, Host], problems: Problems) -> None:
    """A base that there is, or every cost."""
    base = stated.get("base")
    if base is None:
        missing = [name for name in _NEEDED if stated.get(name) is None]
        if missing:
            what = "is missing; state it" if len(missing) == 1 else "are missing; state them"
            problems.note(f"{joined(missing)} {what}, or a `base:` that does")
    elif isinstance(base, str) and base not in known:
        problems.note(str(unknown("base", base, known)), "base")


def _read(path: Path) -> dict[str, Any]:
    found = read_yaml(path)
    if not isinstance(found, dict):
        raise InputError(
            f"{path}: describes no host; it must be a mapping, as `simtti capture host` writes it"
        )
    return found


def _host(name: str, stated: Mapping[str, Any], known: Mapping[str, Host]) -> Host:
    given: dict[str, Any] = {
        field.name: float(value) if field.name in COSTS else int(value)
        for field in fields(Host)
        if field.name != "name" and (value := stated.get(field.name)) is not None
    }
    name, base = stated.get("name") or name, stated.get("base")
    if base is not None:
        return replace(known[base].faster(float(stated.get("speed", 1.0))), name=name, **given)
    return Host(name, **given)
