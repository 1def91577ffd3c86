"""The interval of a replayed trace (`engine.replay`): its host, streams and waits walked for all draws at once, each operator's kernels
with the noise of a launch and, scaled to another device, the residual of the ratio.

What the host did between launches stays as it was measured; it is the trace's own.
"""

from __future__ import annotations

import numpy as np

from simtti.simulator.engine.replay import Replay, device_gaps, host_events, in_order, launch_us
from simtti.simulator.lowering.lower import Lowering
from simtti.simulator.policy import captured_with
from simtti.simulator.uncertainty import captured
from simtti.simulator.uncertainty.draws import (
    DRAWS,
    Normals,
    Shares,
    captured_factors,
    heavy,
    interval_of,
    shares,
    standing_of_most,
)
from simtti.simulator.uncertainty.families import UNMODELLED, family_of_operator, size_class, unit
from simtti.simulator.uncertainty.residuals import Interval, Residuals, shipped


def replay_interval(replay: Replay) -> Interval:
    """Between what the latency lies, in seconds."""
    return interval_of(replay_draws(replay, shipped(), shares()), replay.latency_s)


def replay_draws(replay: Replay, table: Residuals, common: Shares, count: int = DRAWS) -> np.ndarray:
    """Seconds of the replay in each draw."""
    normal = Normals(count, replay.trace.workload, sorted(replay.trace.options.items()))
    operators, of_kernel = list(replay.trace.operators()), {id(item.kernel): item for item in replay.kernels}
    seconds: dict[int | None, float] = {}
    for item in replay.kernels:
        seconds[item.kernel.operator] = seconds.get(item.kernel.operator, 0.0) + item.duration_s
    lowering = Lowering(replay.hardware, captured_with(replay.trace))
    cells, by_family = [], dict[str, float]()
    for row, time_s in seconds.items():
        family = UNMODELLED
        if row is not None and row not in replay.without_model:
            family = family_of_operator(operators[row], lowering.lower(operators[row]))
        cells.append((family, size_class(time_s * 1e6)))
        by_family[family] = by_family.get(family, 0.0) + time_s
    found = captured_factors(cells, replay.hardware, replay.scaled_from, table, common, normal)
    factor = dict(zip(seconds, found, strict=True))
    scale = common.captured_scale
    if replay.scaled_from and captured.relation(replay.hardware, replay.scaled_from) != captured.SAME:
        scale = common.whole_scale[standing_of_most(by_family, replay.hardware, table)]
    durations = {key: item.duration_s * factor[item.kernel.operator] for key, item in of_kernel.items()}
    whole = np.exp(scale * heavy(normal.of("whole", unit(replay.hardware))))
    return _walk(replay, durations, count) * whole


def _walk(replay: Replay, durations: dict[int, np.ndarray], count: int) -> np.ndarray:
    """When the last kernel ends, by draw. durations: of each kernel, by its identity. See `engine.replay`, whose processes these are."""
    launches = in_order(replay.trace)
    gap_s, latency_s = device_gaps(launches)
    host_s, last_s = np.zeros(count), np.zeros(count)
    ended: dict[tuple[int, int], np.ndarray] = {}
    previous_us = measured_end_us = launch_us(launches[0])
    for at_us, kernel in host_events(replay.trace, launches):
        if kernel is None:
            if measured_end_us > at_us:
                continue
            for end_s in ended.values():
                host_s = np.maximum(host_s, end_s)
            previous_us = max(previous_us, measured_end_us)
        host_s = host_s + max(0.0, at_us - previous_us) / 1e6
        previous_us = at_us
        if kernel is None:
            continue
        stream = kernel.device, kernel.stream
        own_s = 0.0
        if kernel.launch_us is not None:
            own_s = min(latency_s, (kernel.start_us - launch_us(kernel)) / 1e6)
        start_s = host_s + own_s
        if stream in ended:
            start_s = np.maximum(start_s, ended[stream] + gap_s)
        ended[stream] = start_s + durations[id(kernel)]
        last_s = np.maximum(last_s, ended[stream])
        measured_end_us = max(measured_end_us, kernel.end_us)
    return last_s
