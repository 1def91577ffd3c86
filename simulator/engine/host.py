"""The host: one thread that issues operators to streams, ahead of the GPU as far as the launch queue allows."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

from simtti.hw_configs.hosts import Host
from simtti.workloads.parallel.operands import SEND_RECEIVE
from simtti.workloads.trace import Operator

# The library whose modules cost the host more than bare ones (see `Host`).
PIPELINES = "diffusers"
INTEGER_PRODUCT = "aten::_int_mm"


def issue_s(host: Host, operators: Sequence[Operator], libraries: Mapping[str, str]) -> list[float]:
    """Host time of each operator, without its launches, when they are issued one after another.

    libraries: by component (what a module's path begins with) the library whose classes it is built of; bare ones if not there.
    """
    kinds = _kinds(host)
    seconds = []
    module = ""
    for operator in operators:
        if operator.category == "Communication":
            cost = host.collective_s * _nccl_calls(operator)
        else:
            cost = host.view_s if operator.is_view else kinds.get(operator.category, host.operator_s)
        if operator.op == INTEGER_PRODUCT and operator.attributes.get("device") == "cpu":
            cost += host.integer_weight_s * operator.inputs[1].numel
        if operator.module != module:
            component = operator.module.partition(".")[0]
            call_s = host.diffusers_module_s if libraries.get(component) == PIPELINES else host.module_s
            cost += calls(module, operator.module) * call_s
            module = operator.module
        seconds.append(cost)
    return seconds


def compiled_issue_s(host: Host, operator: Operator) -> float:
    """Host time of an operator that launches something from the code that torch.compile generates, without its launches: a call of a
    generated kernel, or, of what it leaves to libraries, the same dispatch as without it. No module is called."""
    left_to_libraries = operator.category in ("Linear", "Convolution", "Attention")
    return _kinds(host)[operator.category] if left_to_libraries else host.operator_s


@functools.lru_cache(maxsize=16)
def _kinds(host: Host) -> dict[str, float]:
    """What kinds of operators cost, where that is not what most do."""
    return {
        "Linear": host.linear_s,
        "LayerNorm": host.normalization_s,
        "GroupNorm": host.normalization_s,
        "Softmax": host.normalization_s,
        "Attention": host.attention_s,
        "Convolution": host.convolution_s,
    }


def _nccl_calls(operator: Operator) -> int:
    """Calls of NCCL: one of a collective, one for each tensor of a batch of sends and receives."""
    return len(operator.inputs) + len(operator.outputs) if operator.op == SEND_RECEIVE else 1


@functools.lru_cache(maxsize=1 << 16)
def calls(before: str, module: str) -> int:
    """How many modules are called on the way from one operator to the next, given the paths of the modules they are in: those on
    the second path that the first does not share. A list's members are called, lists themselves are not.

    >>> calls("unet.blocks.0.norm", "unet.blocks.1.attention.to_q")
    3
    >>> calls("unet.blocks.1.attention.to_q", "unet.blocks.1")
    0
    """
    left, entered = _called(before), _called(module)
    shared = 0
    while shared < min(len(left), len(entered)) and left[shared] == entered[shared]:
        shared += 1
    return len(entered) - shared


def _called(path: str) -> list[str]:
    """The modules of a path that are called: 'a', 'b.0', 'c' of 'a.b.0.c'."""
    found: list[str] = []
    for part in path.split("."):
        if part.isdigit() and found:
            found[-1] += f".{part}"
        elif part:
            found.append(part)
    return found
