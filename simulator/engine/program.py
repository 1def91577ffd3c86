"""A step's launches in order, for one device: what its operators become, on which stream, and what waits for what."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from simtti.hw_configs.hosts import Host
from simtti.simulator.engine.host import compiled_issue_s, issue_s
from simtti.simulator.engine.measured_streams import Streams
from simtti.simulator.kernel import Kernel
from simtti.simulator.lowering.lower import Lowered, Slots, alike
from simtti.simulator.policy import GRAPHS, Policy
from simtti.workloads.trace import OFFLOAD, Operator

MAIN = 0  # the stream that everything runs on unless something says otherwise
COMMUNICATION = 1  # NCCL's own, for sends and receives that go on beside the computation
WEIGHTS = 2  # that on which weights come from the host beside the computation
_IDENTITIES = Slots()


class Program(NamedTuple):
    """A step's launches.

    kernels, slots: what runs on which tensors. rows: of which operator of the trace. host_s: what the host spends before
    each. waits: whether it waits for its end. streams: where each runs. after: of each the launches on other streams, by their
    number, that have to end first. tail_s: host time after the last. spans: for each operator that launches, its row, first
    launch and the one after its last.
    """

    kernels: list[Kernel]
    slots: list[Slots]
    rows: list[int]
    host_s: list[float]
    waits: list[bool]
    streams: list[int]
    after: dict[int, list[int]]
    tail_s: float
    spans: list[tuple[int, int, int]]
    is_plain: bool = True


def program(
    operators: tuple[Operator, ...],
    lowered: Sequence[Lowered],
    first: int,
    host: Host,
    policy: Policy,
    measured: Streams | None = None,
    libraries: Mapping[str, str] | None = None,
) -> Program:
    """The launches of a step.

    first: the row of its first operator. measured: the streams of a timed trace; else everything runs on the main one, and on
    NCCL's what is overlapped. libraries: what each component's modules are of (`host.issue_s`).
    """
    launch = policy.launch_of(operators[0].phase) if operators else policy.launch
    costs = _issue_s(operators, lowered, host, launch, libraries or {})
    launch_s = 0.0 if launch in GRAPHS else host.launch_s
    found = Program([], [], [], [], [], [], {}, 0.0, [])
    spent = 0.0  # host time of operators that launch nothing, spent before the next that does
    begin = 0
    for row, one, slots, operator_s in zip(
        itertools.count(first), lowered, alike(operators).slots, costs, strict=False
    ):
        spent += operator_s
        if not one.kernels:
            continue
        launched = len(one.kernels)
        found.kernels.extend(one.kernels)
        found.host_s.append(spent + launch_s)
        spent = 0.0
        found.rows.append(row)
        found.slots.append(_IDENTITIES if one.by_identity else slots)
        if launched > 1:
            found.host_s.extend([launch_s] * (launched - 1))
            found.rows.extend([row] * (launched - 1))
            found.slots.extend(found.slots[-1:] * (launched - 1))
            found.waits.extend([False] * (launched - 1))
        found.waits.append(one.synchronizes)
        found.spans.append((row, begin, begin + launched))
        begin += launched
    if measured is None:
        found.streams.extend([_stream_of(operators[row - first]) for row in found.rows])
    else:
        found.streams.extend([measured.of.get(row, MAIN) for row in found.rows])
    whole = found._replace(tail_s=spent, is_plain=not any(found.streams))
    if whole.is_plain:
        return whole
    return whole._replace(after=_measured_order(whole, measured) if measured else _dependencies(whole))


def on_its_own(operator: Operator) -> bool:
    """Whether an operator goes on beside the computation, on a stream of its own."""
    return bool(operator.attributes.get("overlapped"))


def _stream_of(operator: Operator) -> int:
    if not on_its_own(operator):
        return MAIN
    return WEIGHTS if operator.category == OFFLOAD else COMMUNICATION


def _issue_s(
    operators: tuple[Operator, ...],
    lowered: Sequence[Lowered],
    host: Host,
    launch: str,
    libraries: Mapping[str, str],
) -> list[float]:
    """Host time of each operator of a step, without launches."""
    if launch == "eager":
        costs = issue_s(host, operators, libraries)
        return [0.0 if one.absorbed else cost for one, cost in zip(lowered, costs, strict=True)]
    if launch == "compiled":  # generated code: a call for each that launches something
        return [
            compiled_issue_s(host, operator) if one.kernels else 0.0
            for operator, one in zip(operators, lowered, strict=True)
        ]
    return [0.0] * len(lowered)


def _measured_order(whole: Program, measured: Streams) -> dict[int, list[int]]:
    """Of the first launch of each operator the last ones of the operators that had ended before it."""
    last = {row: end - 1 for row, _, end in whole.spans}
    return {
        begin: [last[other] for other in measured.after[row] if other in last]
        for row, begin, _ in whole.spans
        if row in measured.after
    }


def _dependencies(whole: Program) -> dict[int, list[int]]:
    """Of each launch those on other streams that it waits for: the last to write what it reads or writes, and the last to read
    what it writes, as the events that frameworks record between streams see to."""
    written: dict[int, int] = {}
    read: dict[int, int] = {}
    after: dict[int, list[int]] = {}
    for launch, (kernel, slots, stream) in enumerate(
        zip(whole.kernels, whole.slots, whole.streams, strict=True)
    ):
        reads = [slots[access.tensor] for access in kernel.reads if access.tensor >= 0]
        writes = [slots[access.tensor] for access in kernel.writes if access.tensor >= 0]
        before = {written[tensor] for tensor in (*reads, *writes) if tensor in written}
        before |= {read[tensor] for tensor in writes if tensor in read}
        elsewhere = sorted(other for other in before if whole.streams[other] != stream)
        if elsewhere:
            after[launch] = elsewhere
        written.update(dict.fromkeys(writes, launch))
        read.update(dict.fromkeys(reads, launch))
    return after
