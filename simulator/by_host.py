"""What an inference takes on each host that is known: where it waits for the host, the host decides."""

from __future__ import annotations

from collections.abc import Iterator

from simtti.hw_configs.hosts import Host, hosts
from simtti.simulator.closed_form import lone_execution_s
from simtti.simulator.column import stands_in_column
from simtti.simulator.engine.governor import Launched
from simtti.simulator.engine.in_one_go import run_in_one_go
from simtti.simulator.engine.measured_kernels import Measured
from simtti.simulator.engine.measured_streams import measured_streams
from simtti.simulator.engine.preparation import Preparation
from simtti.simulator.result import Result

# Share of the latency in which the GPU waits for the host from which a result is called bound by it.
HOST_BOUND = 0.1


def latency_by_host(result: Result, measured: Measured | None = None) -> dict[str, float]:
    """Seconds of the inference of `result` on each host of hosts.yaml and on its own, slowest first; empty where it does not wait
    for its host. Kernels do not contend on the others.

    measured: as `simulate` had it.
    """
    if result.host_bound_share < HOST_BOUND:
        return {}
    found = {
        name: _latency_s(result, host, measured) for name, host in hosts().items() if host != result.host
    }
    found[result.host.name] = result.latency_s
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _in_closed_form(result: Result) -> Iterator[Launched]:
    """What is known of the launches of `result` whatever the host, those that were not played out."""
    for item in result.repetitions:
        for launched in {id(each): each for each in item.launches}.values():
            if stands_in_column(launched.kernel):
                yield launched


def _latency_s(result: Result, host: Host, measured: Measured | None) -> float:
    streams = None if measured else measured_streams(result.trace)
    prepared = Preparation(
        result.hardware,
        host,
        result.policy,
        lone_execution_s,
        streams,
        lambda done: None,
        measured,
        result.trace.libraries,
        None if measured else [lowered for _, lowered in result.rows],  # kernels know no host
        known=() if measured or result.fidelity == "cta" else _in_closed_form(result),
    )
    return run_in_one_go(result.trace, prepared).latency_s
