"""The simulation of one inference: a host issues a trace's operators, streams run their kernels on a device.

What is known before time passes (kernels, bytes, clocks) is prepared step by step; then time passes, in closed form or as SimPy
processes. A step that repeats is simulated until one repetition goes like the one before; the rest is passed over.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence

from simtti.errors import InputError
from simtti.hw_configs.hardware import Hardware
from simtti.hw_configs.hosts import Host
from simtti.simulator.closed_form import lone_execution_s
from simtti.simulator.designs import groups
from simtti.simulator.engine.device import execution_time_s
from simtti.simulator.engine.in_one_go import run_in_one_go
from simtti.simulator.engine.measured_kernels import Measured
from simtti.simulator.engine.measured_streams import measured_streams
from simtti.simulator.engine.peak_memory import memory
from simtti.simulator.engine.preparation import Preparation, Progress, no_progress
from simtti.simulator.engine.processes import run_processes
from simtti.simulator.lowering.channels_last import channels_last
from simtti.simulator.lowering.designs import lower_side_by_side
from simtti.simulator.lowering.lower import MOST_REMEMBERED, Lowered
from simtti.simulator.policy import Policy, settled
from simtti.simulator.result import Result
from simtti.workloads.trace import Trace

FIDELITIES = ("wave", "cta", "closed")


def simulate(
    trace: Trace,
    hardware: Hardware,
    host: Host,
    policy: Policy | None = None,
    fidelity: str = "wave",
    progress: Progress = no_progress,
    measured: Measured | None = None,
    kinds: Mapping[int, Lowered] | None = None,
) -> Result:
    """Run `trace` on `hardware`.

    Args:
        policy: how operators become kernels (attention implementation, eager launches or a CUDA graph).
        fidelity: 'wave' moves CTAs that start together as one, 'cta' simulates each; 'closed' works everything out in closed
            form, as if kernels that run side by side did not contend.
        progress: called with (operators simulated, operators).
        measured: the trace's own kernels in place of the model's.
        kinds: operators that are lowered already, by kind (`simulate_many`).

    Raises:
        InputError: no such fidelity; a kernel that does not fit on an SM; another layout for measured kernels.
    """
    _check(fidelity)
    policy = settled(policy or Policy(), trace)
    if policy.layout == "channels-last":
        if measured:
            raise InputError(
                "layout is channels-last; kernels of a capture lie as they were captured: leave it out"
            )
        trace = channels_last(trace)
    streams = None if measured else measured_streams(trace)
    operators = sum(len(step.operators) for phase in trace.phases for step in phase.steps)
    report = functools.partial(_report, progress, operators)
    closed = fidelity == "closed"
    alone_s = lone_execution_s if closed else functools.partial(execution_time_s, fidelity=fidelity)
    prepared = Preparation(
        hardware,
        host,
        policy,
        alone_s,
        streams,
        report,
        measured,
        trace.libraries,
        plays_all=fidelity == "cta",
        kinds=kinds,
    )
    prepared.lower_ahead(trace)
    outcome = run_in_one_go(trace, prepared) if closed else run_processes(trace, prepared, fidelity)
    # An imported trace does not say which tensors are the same.
    imported = trace.provenance.get("kind") == "imported"
    return Result(
        trace=trace,
        hardware=hardware,
        host=host,
        policy=policy,
        fidelity=fidelity,
        outcome=outcome,
        rows=prepared.rows,
        memory=None if imported else memory(trace, prepared.rows, hardware),
    )


MOST_SIDE_BY_SIDE = 64  # devices; the results are the same with any other number
_WORTH = 8  # devices that take less side by side than one after another; the results are the same


def simulate_many(
    trace: Trace,
    devices: Sequence[Hardware],
    hosts: Host | Sequence[Host],
    policy: Policy | None = None,
    fidelity: str = "closed",
) -> Iterator[tuple[int, Result | InputError]]:
    """Run `trace` on each of many devices, as designs of a search are: what `simulate` gives for each, to the last bit, in a fraction of
    the time where devices differ in numbers only (`designs.groups`).

    Args:
        hosts: one for all, or one for each device.

    Yields:
        the number of a device and its result, or why it has none, in the order in which they are done.

    Raises:
        InputError: no such fidelity.
    """
    _check(fidelity)
    policy = settled(policy or Policy(), trace)
    lowered_trace = channels_last(trace) if policy.layout == "channels-last" else trace
    steps = [step.operators for phase in lowered_trace.phases for step in phase.steps]
    for group in groups(devices, MOST_SIDE_BY_SIDE):
        own = [devices[number] for number in group]
        if len(own) < _WORTH or len(steps) > MOST_REMEMBERED:
            kinds: list[dict[int, Lowered]] = [{} for _ in own]
        else:
            kinds = lower_side_by_side(steps, own, policy)
        for number, device, known in zip(group, own, kinds, strict=True):
            host = hosts if isinstance(hosts, Host) else hosts[number]
            try:
                found: Result | InputError = simulate(trace, device, host, policy, fidelity, kinds=known)
            except InputError as error:
                found = error
            known.clear()
            yield number, found


def _check(fidelity: str) -> None:
    if fidelity not in FIDELITIES:
        raise InputError(f"fidelity is {fidelity!r}; it must be one of {', '.join(FIDELITIES)}")


def _report(progress: Progress, operators: int, done: int) -> None:
    progress(min(done, operators), operators)
