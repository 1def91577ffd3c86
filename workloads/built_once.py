"""The modules of one workload, built once for all runs of its builder in this process.

    models = BuiltOnce()
    for _ in range(7):
        workload.builder(options, DeviceRun("cuda", timed, models=models))

A builder makes the same modules in the same order each time, hangs wrappers and hooks on them and may cast their weights;
what it does to them is undone before the next run is given them. Imports no torch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from simtti.workloads.launched import launched

# What is copied of a module's attributes, so that what is added to them later does not stay. Values are kept as they are.
_CONTAINERS = (dict, list, set, OrderedDict)


class BuiltOnce:
    """What was built, in the order in which builders ask for it."""

    def __init__(self) -> None:
        self._built: list[tuple[str, _AsBuilt]] = []
        self._launched: list[tuple[Any, Callable[..., Any]]] = []
        self._next = 0

    def begin(self) -> None:
        """A builder starts anew: the first module that it asks for is the first one."""
        self._next = 0

    def get(self, what: str, build: Callable[[], Any]) -> Any:
        """The next module, as it was when built. what: says which one is expected; where it is another, it is built."""
        number, self._next = self._next, self._next + 1
        if number < len(self._built) and self._built[number][0] == what:
            return self._built[number][1].restored()
        del self._built[number:]
        module = build()
        self._built.append((what, _AsBuilt(module)))
        return module

    def launched(self, module: Any, launch: str) -> Callable[..., Any]:
        """The module's forward, launched so (launched.LAUNCH): compiled, or taken as a graph, once."""
        found = next((forward for known, forward in self._launched if known is module), None)
        if found is None:
            found = launched(module.forward, launch)
            self._launched.append((module, found))
        return found

    @property
    def launches_any(self) -> bool:
        """Whether a module of theirs is launched so."""
        return bool(self._launched)

    def clear(self) -> None:
        """Let go of all of them."""
        self._built.clear()
        self._launched.clear()
        self.begin()


class _AsBuilt:
    """A module and what its parts were like when it was built: attributes, hooks, children, the dtypes of its weights."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.parts = [(part, _copied(vars(part))) for part in module.modules()]
        self.dtypes = [(tensor, tensor.dtype) for tensor in (*module.parameters(), *module.buffers())]

    def restored(self) -> Any:
        for part, attributes in self.parts:
            vars(part).clear()
            vars(part).update(_copied(attributes))
        for tensor, dtype in self.dtypes:
            if tensor.dtype != dtype:
                tensor.data = tensor.data.to(dtype)
        return self.module


def _copied(attributes: dict[str, Any]) -> dict[str, Any]:
    return {name: value.copy() if type(value) in _CONTAINERS else value for name, value in attributes.items()}
