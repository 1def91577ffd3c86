"""Models without their weights: a module, a pipeline or a tensor as it is, but with every tensor on torch's meta device.

Weights that are there already (on the CPU, on a GPU, fake ones of a FakeTensorMode) are taken for their shapes, strides and dtypes
only, and stay untouched where they are.
"""

import copy
from collections.abc import Iterable
from typing import Any

import torch

from simtti.errors import InputError
from simtti.workloads.padding import remember

META = torch.device("meta")


def copied_on_meta(thing: Any, modules: Iterable[torch.nn.Module]) -> Any:
    """A copy of `thing`, ready for inference, in which the weights and buffers of `modules`, which are parts of it, are on meta.

    Raises:
        InputError: it cannot be copied.
    """
    memo: dict[int, Any] = {}
    kept = []
    for module in modules:
        for tensor in (*module.parameters(), *module.buffers()):
            kept.append(tensor)  # an id is the tensor's own only as long as the tensor is
            memo[id(tensor)] = _weight(tensor)
    try:
        found = copy.deepcopy(thing, memo)
    except Exception as error:
        raise InputError(
            f"{type(thing).__name__} cannot be copied ({type(error).__name__}: {_line(error)}); what is recorded is a copy, so that yours "
            "stays as it is: take out what copy.deepcopy cannot copy (locks, open files, compiled functions)"
        ) from error
    return found


def tensors_on_meta(value: Any) -> Any:
    """An argument of a call with its tensors, however deep in lists, tuples and dicts, on meta."""
    if isinstance(value, torch.Tensor):
        return remember(value, _on_meta(value))
    if isinstance(value, dict):
        return {name: tensors_on_meta(each) for name, each in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(tensors_on_meta(each) for each in value))
    if isinstance(value, (list, tuple)):
        return type(value)(tensors_on_meta(each) for each in value)
    return value


def _weight(tensor: torch.Tensor) -> torch.Tensor:
    on_meta = _on_meta(tensor)
    return (
        torch.nn.Parameter(on_meta, requires_grad=False)
        if isinstance(tensor, torch.nn.Parameter)
        else on_meta
    )


def _on_meta(tensor: torch.Tensor) -> torch.Tensor:
    shape = tuple(tensor.shape)
    if not all(isinstance(size, int) for size in (*shape, *tensor.stride())):
        raise InputError(f"a tensor has the shape {shape}; a trace has numbers for all sizes, not symbols")
    if tensor.device.type == "meta" and type(tensor) in (torch.Tensor, torch.nn.Parameter):
        return tensor.detach()
    return torch.empty_strided(shape, tensor.stride(), dtype=tensor.dtype, device=META)


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:300]
