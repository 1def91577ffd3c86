"""A step's launches in order, for one device: what its operators become, on which stream, and what waits for what."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

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
NO_LIBRARIES: Mapping[str, str] = {}


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
    libraries: Mapping[str, str] = NO_LIBRARIES,
) -> Program:
    """The launches of a step.

    first: the row of its first operator. measured: the streams of a timed trace; else everything runs on the main one, and on
    NCCL's what is overlapped. libraries: what each component's modules are of (`host.issue_s`).
    """
    launch = policy.launch_of(operators[0].phase) if operators else policy.launch
    launch_s = 0.0 if launch in GRAPHS else host.launch_s
    fixed = _fixed(operators, lowered, host, launch, libraries)
    counts = [count for one in lowered if (count := len(one.kernels))]
    ends = list(itertools.accumulate(counts))
    begins = [end - count for end, count in zip(ends, counts, strict=True)]
    total = ends[-1] if ends else 0
    host_s, waits = np.full(total, launch_s), np.zeros(total, bool)
    host_s[begins] = fixed.before_s
    waits[np.array(ends, int) - 1] = fixed.waits
    rows = fixed.rows + first
    if measured is None:
        streams = fixed.streams
    else:
        streams = np.array([measured.of.get(row, MAIN) for row in rows.tolist()], int)
    whole = Program(
        list(itertools.chain.from_iterable([one.kernels for one in lowered])),
        list(itertools.chain.from_iterable(map(itertools.repeat, fixed.slots, counts))),
        np.repeat(rows, counts).tolist(),
        host_s.tolist(),
        waits.tolist(),
        np.repeat(streams, counts).tolist(),
        {},
        fixed.tail_s,
        list(zip(rows.tolist(), begins, ends, strict=True)),
        not streams.any(),
    )
    if whole.is_plain:
        return whole
    return whole._replace(after=_measured_order(whole, measured) if measured else _dependencies(whole))


class _Fixed(NamedTuple):
    """Of the operators of a step that launch something what does not depend on how many kernels that is: their places in the step, what
    the host spends before the first launch of each, whether it waits for the last, on what tensors and where they run; and what it
    spends after all of them."""

    rows: np.ndarray
    before_s: np.ndarray
    waits: np.ndarray
    slots: list[Slots]
    streams: np.ndarray
    tail_s: float


_MOST_FIXED = 64  # steps remembered; the results are the same with any other number
_Kept = tuple[tuple[Operator, ...], bytes, _Fixed]
_kept: OrderedDict[tuple[object, ...], _Kept] = OrderedDict()


def _fixed(
    operators: tuple[Operator, ...],
    lowered: Sequence[Lowered],
    host: Host,
    launch: str,
    libraries: Mapping[str, str],
) -> _Fixed:
    """Kept for the steps met last: designs of a search mostly have it in common."""
    of_each = bytes([one.traits for one in lowered])
    key = id(operators), host, launch, *libraries.items()
    kept = _kept.get(key)
    if kept is None or kept[0] is not operators or kept[1] != of_each:
        fixed = _work_out(
            operators, lowered, _issue_s(operators, lowered, host, launch, libraries), host, launch
        )
        kept = _kept[key] = operators, of_each, fixed
        if len(_kept) > _MOST_FIXED:
            _kept.popitem(last=False)
    return kept[2]


def _work_out(
    operators: tuple[Operator, ...],
    lowered: Sequence[Lowered],
    costs: Sequence[float],
    host: Host,
    launch: str,
) -> _Fixed:
    launch_s = 0.0 if launch in GRAPHS else host.launch_s
    rows, before_s, slots = [], [], []
    spent = 0.0  # host time of operators that launch nothing, spent before the next that does
    for row, (one, own, operator_s) in enumerate(zip(lowered, alike(operators).slots, costs, strict=True)):
        spent += operator_s
        if one.kernels:
            rows.append(row)
            before_s.append(spent + launch_s)
            slots.append(_IDENTITIES if one.by_identity else own)
            spent = 0.0
    return _Fixed(
        np.array(rows, int),
        np.array(before_s),
        np.array([lowered[row].synchronizes for row in rows], bool),
        slots,
        np.array([_stream_of(operators[row]) for row in rows], int),
        spent,
    )


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
