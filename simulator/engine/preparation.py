"""What is known of a step's launches before time passes: their kernels, what each moves to and from HBM given what those before
it left in L2, how long it takes alone on the device, and the clock that the power limit leaves.

L2 is gone through in the order in which the host issues, whatever the streams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import count, repeat
from typing import Any, NamedTuple

import numpy as np

from simtti.hw_configs.hardware import Hardware
from simtti.hw_configs.hosts import Host
from simtti.simulator.closed_form import busy, lone_execution_s, tail_s
from simtti.simulator.column import column, stands_in_column
from simtti.simulator.engine import power
from simtti.simulator.engine.governor import Governed, Launched, Spent, govern
from simtti.simulator.engine.l2 import L2
from simtti.simulator.engine.measured_kernels import Measured
from simtti.simulator.engine.measured_streams import Streams
from simtti.simulator.engine.program import NO_LIBRARIES, Program, on_its_own, program
from simtti.simulator.kernel import Kernel
from simtti.simulator.lowering.lower import MOST_REMEMBERED, Lowered, Lowering
from simtti.simulator.policy import Policy
from simtti.workloads.trace import Operator, Step, Trace

# Launches between two comparisons of L2 with the repetition before.
_LOOK_EVERY = 64
# Seconds of a kernel alone on the device, from its start to its end, given what it moves to and from HBM.
AloneS = Callable[[Kernel, Hardware, float], float]
Progress = Callable[[int, int], None]


def no_progress(done: int, total: int) -> None:
    """Tell nobody."""


class Traffic(NamedTuple):
    """A repetition of a step: each launch with what it moves to and from HBM; times and clocks under the power limit; the gap
    before each, where it is not the same for all; the states of L2 every _LOOK_EVERY launches; L2 at its end."""

    launches: list[Launched]
    governed: Governed
    gaps_s: list[float] | None
    states: list[Any]
    l2: L2


def _keys(kernels: Iterable[Kernel], hbm_bytes: Iterable[float]) -> list[tuple[int, int]]:
    """The same for launches that are alike: to the byte, those that move as much are."""
    return list(zip(map(id, kernels), map(int, hbm_bytes), strict=True))


class Preparation:
    """Lowers steps and runs them through L2, in order. rows: the trace's operators so far, each with its kernels.

    lowered: the kernels of all the trace's operators in order, where they are known. alone_s: of kernels whose CTAs differ, that
    copy or send; the others' is the closed form's, unless plays_all. known: launches of these kernels on this device. kinds: operators that are lowered already, by kind."""

    def __init__(
        self,
        hardware: Hardware,
        host: Host,
        policy: Policy,
        alone_s: AloneS = lone_execution_s,
        streams: Streams | None = None,
        report: Callable[[int], None] = lambda done: None,
        measured: Measured | None = None,
        libraries: Mapping[str, str] = NO_LIBRARIES,
        lowered: Sequence[Lowered] | None = None,
        plays_all: bool = False,
        known: Iterable[Launched] = (),
        kinds: Mapping[int, Lowered] | None = None,
    ) -> None:
        self._lowered, self._plays_all = lowered, plays_all
        self.hardware, self.host, self.policy, self.alone_s = hardware, host, policy, alone_s
        self.measured, self.libraries = measured, libraries
        self._measured_s: dict[int, float] = {}  # of a measured kernel, by its identity
        self.streams, self.report = streams, report
        self.rows: list[tuple[Operator, Lowered]] = []
        self._l2 = L2(hardware.l2_usable_bytes)
        self._lowering = Lowering(hardware, policy, kinds)
        known = list(known)
        keys = _keys([each.kernel for each in known], [each.hbm_bytes for each in known])
        self._known = dict(zip(keys, known, strict=True))
        # Clock and times of windows of those launches.
        self._windows: dict[tuple[object, ...], tuple[float, list[float]]] = {}

    def on_one_stream(self, trace: Trace) -> bool:
        """Whether everything of `trace` runs on the main stream."""
        return self.streams is None and not any(on_its_own(operator) for operator in trace.operators())

    def lower_ahead(self, trace: Trace) -> None:
        """Lower the operators of all steps side by side, which takes less than step by step, unless they are more than are
        remembered."""
        steps = [step.operators for phase in trace.phases for step in phase.steps]
        if self._lowered is None and len(steps) <= MOST_REMEMBERED:
            self._lowering.lower_ahead(steps)

    def program(self, step: Step) -> Program:
        """Lower the step and add its operators to the rows."""
        first = len(self.rows)
        if self._lowered is None:
            lowered = self._lowering.lower_all(step.operators)
        else:
            lowered = list(self._lowered[first : first + len(step.operators)])
        if self.measured is not None:
            lowered = [
                self._as_measured(self.measured, row, one) for row, one in enumerate(lowered, start=first)
            ]
        self.rows.extend(zip(step.operators, lowered, strict=True))
        return program(step.operators, lowered, first, self.host, self.policy, self.streams, self.libraries)

    def _as_measured(self, measured: Measured, row: int, modelled: Lowered) -> Lowered:
        """An operator with its measured kernels in place of the model's."""
        found = measured.of(row, modelled.kernels)
        self._measured_s.update((id(kernel), seconds) for kernel, seconds in found)
        return replace(modelled, kernels=tuple(kernel for kernel, _ in found))

    def traffic(self, step: Program, before: Traffic | None) -> Traffic:
        """Run a repetition's kernels through L2. From where L2 is in the state of the repetition before, all is as then."""
        l2 = self._l2.copy()
        moved: list[float] = []
        states: list[Any] = []
        rest: list[Launched] = []
        for at in range(0, len(step.kernels), _LOOK_EVERY):
            if before is None:
                self.report(step.rows[at])
            states.append(l2.state)
            if before is not None and before.states[at // _LOOK_EVERY] == states[-1]:
                rest = before.launches[at:]
                states += before.states[at // _LOOK_EVERY + 1 :]
                l2 = before.l2
                break
            kernels, slots = step.kernels[at : at + _LOOK_EVERY], step.slots[at : at + _LOOK_EVERY]
            moved += l2.run(zip(kernels, slots, strict=True))
        self._l2 = l2
        kernels, known = step.kernels[: len(moved)], self._known
        keys = _keys(kernels, moved)
        new: dict[tuple[int, int], tuple[Kernel, float]] = {}
        for key, kernel, hbm_bytes in zip(keys, kernels, moved, strict=True):
            if key not in known and key not in new:
                new[key] = kernel, hbm_bytes
        self._evaluate(new)
        launches = [known[key] for key in keys]
        launches += rest
        if before is not None and launches == before.launches:
            return before._replace(states=states, l2=l2)
        streams = () if step.is_plain else step.streams
        governed = govern(launches, step.host_s, self.hardware, streams, self._windows)
        return Traffic(launches, governed, self._gaps_s(launches), states, l2)

    def _gaps_s(self, launches: list[Launched]) -> list[float] | None:
        """With programmatic dependent launch, what is left of the gap once the tail of the kernel before has hidden its part."""
        if not self.policy.dependent_launch:
            return None
        gap_s, before_s, gaps = self.hardware.launch_s, 0.0, []
        for launch in launches:
            gaps.append(max(gap_s - before_s, 0.0))
            before_s = tail_s(launch.kernel, self.hardware, launch.hbm_bytes)
        return gaps

    def _evaluate(self, new: Mapping[tuple[int, int], tuple[Kernel, float]]) -> None:
        """Add launches, each a kernel and what it moves to and from HBM, to those that are known at the boost clock."""
        hardware, known, measured_s = self.hardware, self._known, self._measured_s
        side_by_side: list[tuple[tuple[int, int], Kernel, float]] = []
        for key, (kernel, moved) in new.items():
            if not self._plays_all and stands_in_column(kernel):
                side_by_side.append((key, kernel, moved))
                continue
            boost_s = measured_s.get(key[0]) or self.alone_s(kernel, hardware, moved)
            spent = busy(kernel, hardware, moved)
            energy = power.energy(kernel, moved, hardware)
            known[key] = Launched(kernel, moved, boost_s, energy, (spent,))
        if not side_by_side:
            return
        keys, kernels, hbm_bytes = zip(*side_by_side, strict=True)
        all_of_them, moved_bytes = column(kernels, hardware), np.array(hbm_bytes)
        alone_s = lone_execution_s(all_of_them, hardware, moved_bytes)
        joules = power.energy(all_of_them, moved_bytes, hardware, alone_s=alone_s)
        energies = map(power.Energy, *(np.asarray(each).tolist() for each in joules))
        seconds = alone_s.tolist()
        if measured_s:
            seconds = [measured_s.get(key[0]) or each for key, each in zip(keys, seconds, strict=True)]
        columns = (
            kernels,
            hbm_bytes,
            seconds,
            energies,
            repeat(Spent(all_of_them, hardware, moved_bytes)),
            count(),
        )
        known.update(zip(keys, map(Launched, *columns), strict=True))
