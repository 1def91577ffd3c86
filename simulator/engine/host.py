"""The host: one thread that issues operators to streams, ahead of the GPU as far as the launch queue allows."""

from __future__ import annotations

from collections.abc import Sequence

from simtti.hw_configs.hosts import Host
from simtti.workloads.shard import SEND_RECEIVE
from simtti.workloads.trace import Operator


def issue_s(host: Host, operators: Sequence[Operator]) -> list[float]:
    """Host time of each operator, without its launches, when they are issued one after another."""
    kinds = {
        "Linear": host.linear_s,
        "LayerNorm": host.normalization_s,
        "GroupNorm": host.normalization_s,
        "Softmax": host.normalization_s,
        "Attention": host.attention_s,
        "Convolution": host.convolution_s,
    }
    seconds = []
    module = None
    for operator in operators:
        if operator.category == "Communication":
            cost = host.collective_s * _calls(operator)
        else:
            cost = host.view_s if operator.is_view else kinds.get(operator.category, host.operator_s)
        if operator.module != module:
            cost += host.module_s
            module = operator.module
        seconds.append(cost)
    return seconds


def _calls(operator: Operator) -> int:
    """Calls of NCCL: one of a collective, one for each tensor of a batch of sends and receives."""
    return len(operator.inputs) + len(operator.outputs) if operator.op == SEND_RECEIVE else 1
