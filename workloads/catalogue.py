"""What workloads there are: those of the files in `models`, and those registered.

    find("stable-diffusion").defaults.steps      # 50

A file of `models` names its own in WORKLOADS, and imports torch only when one is recorded: so the catalogue needs none.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from simtti.errors import InputError, unknown
from simtti.workloads import models
from simtti.workloads.workload import DTYPES, GROUPS, Options, Workload

__all__ = ["ALIASES", "DTYPES", "WORKLOADS", "Options", "Workload", "find", "register"]

# By name, in the order of lists: by group, by place, and as a file has them. Then what was registered, as it came.
WORKLOADS: dict[str, Workload] = {}
# The names that each alias stands for.
ALIASES: dict[str, str] = {}


def find(name: str) -> Workload:
    """The workload of that name or alias.

    Raises:
        InputError: there is none; the message has the nearest name.
    """
    name = ALIASES.get(name, name)
    if name not in WORKLOADS:
        raise unknown("workload", name, [*WORKLOADS, *ALIASES])
    return WORKLOADS[name]


def decoded(name: str, options: Mapping[str, Any]) -> str | None:
    """How the VAE of a trace of that workload and those options decodes, of workload.VAE_MODES; None where it has none, or where the
    workload is not known."""
    workload = WORKLOADS.get(ALIASES.get(name, name))
    if workload is None or workload.own_vae is None:
        return None
    return str(options.get("vae") or workload.own_vae)


def register(workload: Workload) -> None:
    """Add a workload of your own: `simtti.run`, `record` and `capture` of this process then find it by its name.

    Raises:
        InputError: its name or an alias is taken, or its group is none.
    """
    for name in (workload.name, *workload.aliases):
        if name in WORKLOADS or name in ALIASES:
            raise InputError(f"name is {name!r}, which another workload has; give it one of its own")
    if workload.group not in GROUPS:
        raise unknown("group", workload.group, GROUPS)
    WORKLOADS[workload.name] = workload
    ALIASES.update(dict.fromkeys(workload.aliases, workload.name))


def _of_models() -> list[Workload]:
    """Those of the files in `models`; its packages hold what these share, and import torch."""
    files = [found.name for found in pkgutil.iter_modules(models.__path__) if not found.ispkg]
    modules = [importlib.import_module(f"{models.__name__}.{name}") for name in files]
    found = [workload for module in modules for workload in getattr(module, "WORKLOADS", ())]
    return sorted(found, key=lambda workload: (GROUPS.index(workload.group), workload.place))


for _workload in _of_models():
    register(_workload)
