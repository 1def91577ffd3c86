"""SMs: groups of streaming multiprocessors in the same state, and the cohorts of CTAs that live on them.

A group of n SMs that hold the same CTAs since the same moment is simulated as one SM; it is split when the block
scheduler treats part of it differently, and idle groups are joined again. With groups of one SM and cohorts of one
CTA the same code simulates every CTA (`cta` fidelity).

While all CTAs on an SM are of one kernel, only its busiest pipe is kept: kinds of CTA of one kernel differ by a factor, so
that no other pipe could be the last. When a CTA of another kernel comes, every pipe is, with what is left of the work of
those already there in proportion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from simtti.hw_configs.hardware import Hardware
from simtti.simulator.closed_form import Demand
from simtti.simulator.engine.fair_share import NEVER, FairShare, Flow
from simtti.simulator.kernel import CtaKind, Kernel


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


class KernelRun:
    """A kernel on the device: its CTAs not yet placed, by kind, and those not yet finished.

    ended_s: when its last CTA left and its last byte came over the link; NEVER until then.
    """

    __slots__ = (
        "busiest", "cap", "ended_s", "kernel", "kinds", "need", "parts", "placed_s", "placements", "room", "unfinished", "unplaced",
        "waiter",
    )  # fmt: skip

    def __init__(self, kernel: Kernel, need: Demand, cap: float) -> None:
        self.kernel, self.need, self.cap = kernel, need, cap
        self.room = Room.of_cta(kernel)
        # Those still to be placed, in the order of dispatch: [CTAs, kind].
        self.kinds: list[list[Any]] = [[kind.ctas, kind] for kind in reversed(kernel.cta_kinds)]
        self.unplaced = self.unfinished = kernel.grid
        self.parts = 0  # transfers over a link or by a copy engine that go on beside the CTAs
        self.placements = 0  # how often CTAs of it were placed; the first ones start in step
        self.placed_s = self.ended_s = NEVER
        self.waiter: Any = None
        local = need.sm_s
        self.busiest = max(range(len(local)), key=local.__getitem__)


class Cohort:
    """Identical CTAs that start together: `per_sm` on each SM of `group`.

    From `begin_s` on its demands are on the SM's pipes, L2 and HBM at once; it leaves when all are served and the CTA's own
    floor has passed. left: how many of them are not served yet; local and remote: those, by pipe and by memory.
    """

    __slots__ = ("begin_s", "floor_s", "group", "kind", "left", "local", "per_sm", "remote", "run", "running")

    def __init__(
        self, run: KernelRun, kind: CtaKind, group: SMGroup, per_sm: int, begin_s: float, floor_s: float
    ) -> None:
        self.run, self.kind, self.group, self.per_sm = run, kind, group, per_sm
        self.begin_s, self.floor_s = begin_s, floor_s
        self.left = 0
        self.local: dict[int, Flow] = {}
        self.remote: dict[int, Flow] = {}
        self.running = False


class SMGroup:
    """SMs in the same state, as one SM. `free` is an SM's room; next_s when the next flow on its pipes ends."""

    __slots__ = ("cohorts", "free", "mixed", "next_s", "pipes", "plan", "sms")

    def __init__(self, sms: Sequence[int], free: Room) -> None:
        self.sms, self.free = sms, free
        self.pipes: dict[int, FairShare] = {}
        self.cohorts: list[Cohort] = []
        self.mixed = False  # whether CTAs of several kernels are on it
        self.next_s = NEVER
        self.plan = 0  # of the events that were planned for it, the one that holds

    @property
    def count(self) -> int:
        return len(self.sms)

    def start(self, now: float, cohort: Cohort) -> None:
        """Put a cohort's demands on the pipes."""
        if not self.mixed and any(other.run is not cohort.run for other in self.cohorts if other.running):
            self._mix(now)
        local, work = cohort.run.need.sm_s, cohort.kind.work
        for index in range(len(local)) if self.mixed else (cohort.run.busiest,):
            if local[index] > 0:
                cohort.local[index] = self._pipe(index, now).start(
                    now, cohort, index, local[index] * work, cohort.per_sm
                )
                cohort.left += 1
        self._replan()

    def _mix(self, now: float) -> None:
        """Keep every pipe from now on."""
        self.mixed = True
        for cohort in self.cohorts:
            if not cohort.running:
                continue
            local, busiest, work = cohort.run.need.sm_s, cohort.run.busiest, cohort.kind.work
            flow = cohort.local.get(busiest)
            if flow is None:
                continue  # served; what is left of it is not on the SM
            pipe = self.pipes[busiest]
            pipe.advance(now)
            share = pipe.remaining(flow) / (local[busiest] * work)
            for index, seconds in enumerate(local):
                if index != busiest and seconds > 0:
                    cohort.local[index] = self._pipe(index, now).start(
                        now, cohort, index, seconds * work * share, cohort.per_sm
                    )
                    cohort.left += 1

    def _pipe(self, index: int, now: float) -> FairShare:
        if index not in self.pipes:
            self.pipes[index] = FairShare(1.0, now)
        return self.pipes[index]

    def ended(self, now: float) -> list[Cohort]:
        """The cohorts of which a demand on a pipe has been served by `now`."""
        found = []
        for pipe in self.pipes.values():
            if pipe.next_s <= now:
                for flow in pipe.ended(now):
                    del flow.owner.local[flow.tag]
                    found.append(flow.owner)
        self._replan()
        return found

    def leave(self, cohort: Cohort) -> None:
        self.cohorts.remove(cohort)
        self.free.take(cohort.run.room, -cohort.per_sm)
        if not self.cohorts:
            self.mixed = False

    def _replan(self) -> None:
        self.next_s = min((pipe.next_s for pipe in self.pipes.values()), default=NEVER)
        self.plan += 1

    def split(self, now: float, sms: Sequence[int], memories: Sequence[FairShare]) -> SMGroup:
        """Take `sms`, some of the group's, into a group of their own, in the same state, with their share of cohorts.

        memories: L2 and HBM, as the cohorts' remote flows are numbered.
        """
        count, taken = len(sms), set(sms)
        twin = SMGroup(sms, replace(self.free))
        twin.mixed = self.mixed
        became: dict[Cohort, Cohort] = {}
        for cohort in self.cohorts:
            other = Cohort(cohort.run, cohort.kind, twin, cohort.per_sm, cohort.begin_s, cohort.floor_s)
            other.running, other.left = cohort.running, cohort.left
            twin.cohorts.append(other)
            became[cohort] = other
            for index, flow in cohort.remote.items():
                other.remote[index] = memories[index].split(now, flow, cohort.per_sm * count, other)
        for index, pipe in self.pipes.items():
            twin.pipes[index] = pipe.clone(now, became)
            for flow in twin.pipes[index].flows():
                flow.owner.local[index] = flow
        self.sms = [sm for sm in self.sms if sm not in taken]
        twin._replan()
        return twin
