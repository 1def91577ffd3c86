"""SMs: groups of streaming multiprocessors in the same state, and the cohorts of CTAs that live on them.

A group of n SMs that hold the same CTAs since the same moment is simulated as one SM; it is split when the block
scheduler treats part of it differently, and idle groups are joined again. With groups of one SM and cohorts of one
CTA the same code simulates every CTA (`cta` fidelity).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import simpy

from simtti.hw_configs.hardware import Hardware
from simtti.simulator.closed_form import Demand
from simtti.simulator.engine.fair_share import FairShare, Flow
from simtti.simulator.kernel import Kernel

# What a CTA competes for on its SM, in the order of `Demand.sm_s`. Each pipe serves one pipe-second a second.
PIPES = ("tensor", "fp32", "issue", "sfu", "shared", "l2_port")


@dataclass(eq=False, slots=True)
class Room:
    """What CTAs take up on an SM: threads, registers, bytes of shared memory, CTA slots."""

    threads: int
    registers: int
    shared_bytes: int
    slots: int

    @classmethod
    def of_sm(cls, hardware: Hardware) -> Room:
        return cls(
            hardware.max_threads_per_sm,
            hardware.registers_per_sm,
            hardware.shared_memory_per_sm_bytes,
            hardware.max_ctas_per_sm,
        )

    @classmethod
    def of_cta(cls, kernel: Kernel) -> Room:
        """Granularities as in `kernel.ctas_per_sm`."""
        warps = -(-kernel.threads // 32)
        registers = -(-kernel.registers * 32 // 256) * 256 * warps
        shared = kernel.shared_memory_bytes + 1024 if kernel.shared_memory_bytes else 0
        return cls(warps * 32, registers, shared, 1)

    def copies(self, one: Room) -> int:
        """How many CTAs of size `one` fit in here."""
        fits = min(self.threads // one.threads, self.slots)
        if one.registers:
            fits = min(fits, self.registers // one.registers)
        if one.shared_bytes:
            fits = min(fits, self.shared_bytes // one.shared_bytes)
        return fits

    def take(self, one: Room, copies: int) -> None:
        self.threads -= one.threads * copies
        self.registers -= one.registers * copies
        self.shared_bytes -= one.shared_bytes * copies
        self.slots -= copies


@dataclass(eq=False, slots=True)
class KernelRun:
    """A kernel on the device: CTAs not yet placed, CTAs not yet finished, and the event of its end."""

    kernel: Kernel
    need: Demand
    room: Room
    done: simpy.Event
    unplaced: int
    unfinished: int
    bandwidth_cap: float
    placements: int = 0  # how often CTAs of it were placed; the first ones start in step


class SMGroup:
    """SMs, by their numbers in ascending order, that hold the same CTAs."""

    __slots__ = ("cohorts", "env", "free", "pipes", "sms")

    def __init__(self, env: simpy.Environment, sms: Sequence[int], free: Room) -> None:
        self.env, self.sms, self.free = env, sms, free
        self.pipes: dict[int, FairShare] = {}
        self.cohorts: list[Cohort] = []

    def pipe(self, index: int) -> FairShare:
        """The pipe PIPES[index] of one SM of the group."""
        if index not in self.pipes:
            self.pipes[index] = FairShare(self.env, 1.0)
        return self.pipes[index]

    @property
    def count(self) -> int:
        return len(self.sms)

    def split(self, sms: Sequence[int]) -> SMGroup:
        """Take `sms`, some of the group's, into a group of their own, in the same state, with their share of cohorts."""
        count = len(sms)
        twin = SMGroup(self.env, sms, replace(self.free))
        became: dict[Flow, Flow] = {}
        for index, pipe in self.pipes.items():
            twin.pipes[index], flows = pipe.clone()
            became |= flows
        for cohort in self.cohorts:
            cohort.split(twin, count, became)
        taken = set(sms)
        self.sms = [sm for sm in self.sms if sm not in taken]
        return twin


@dataclass(eq=False, slots=True)
class Cohort:
    """Identical CTAs that start together: `per_sm` on each SM of `group`.

    Its life is a SimPy process: wait until `begin_s`, put the demands on the SM's pipes, L2 and HBM at once, wait until
    all are served and the CTA's own floor has passed, leave.
    """

    run: KernelRun
    group: SMGroup
    per_sm: int
    begin_s: float
    floor_s: float
    shared: tuple[FairShare, FairShare]  # L2, HBM
    leave: Callable[[Cohort], None]
    local: list[Flow] = field(default_factory=list)
    remote: list[tuple[FairShare, Flow]] = field(default_factory=list)
    running: bool = False

    def live(self) -> Generator[simpy.Event, Any, None]:
        env = self.group.env
        if self.begin_s > env.now:
            yield env.timeout(self.begin_s - env.now)
        if not self.running:
            self._start()
        for flow in self.local:
            yield flow.done
        for _, flow in self.remote:
            yield flow.done
        rest = self.begin_s + self.floor_s - env.now
        if rest > 0:
            yield env.timeout(rest)
        self.leave(self)

    def _start(self) -> None:
        self.running = True
        need, group = self.run.need, self.group
        for index, seconds in enumerate(need.sm_s):
            # A demand that is served within the floor even when every co-resident CTA wants the same pipe
            # still occupies the pipe: other kernels may share the SM.
            if seconds > 0:
                self.local.append(group.pipe(index).start(seconds, self.per_sm))
        for memory, nbytes in zip(self.shared, (need.l2_bytes, need.hbm_bytes), strict=True):
            if nbytes > 0:
                flow = memory.start(nbytes, self.per_sm * group.count, self.run.bandwidth_cap)
                self.remote.append((memory, flow))

    def split(self, group: SMGroup, count: int, became: dict[Flow, Flow]) -> None:
        """The share of this cohort on `count` SMs goes on as a cohort of its own, on `group`."""
        twin = Cohort(
            self.run,
            group,
            self.per_sm,
            self.begin_s,
            self.floor_s,
            self.shared,
            self.leave,
            running=self.running,
        )
        twin.local = [became[flow] for flow in self.local if flow in became]
        twin.remote = [
            (memory, memory.split(flow, self.per_sm * count))
            for memory, flow in self.remote
            if not flow.done.triggered
        ]
        group.cohorts.append(twin)
        group.env.process(twin.live())
