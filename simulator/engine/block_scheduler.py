"""The block scheduler: places the CTAs of kernels on SMs with room, breadth first, in the order of launch."""

from __future__ import annotations

from typing import Any

import simpy

from simtti.errors import InputError
from simtti.hw_configs.hardware import Hardware
from simtti.simulator.closed_form import demand
from simtti.simulator.engine.fair_share import FairShare
from simtti.simulator.engine.sm import Cohort, KernelRun, Room, SMGroup
from simtti.simulator.kernel import Kernel


class BlockScheduler:
    """Takes kernels, gives their CTAs to the least loaded SMs that have room, until the kernel has ended.

    fidelity: 'wave' moves the CTAs that start together on SMs in the same state as one cohort; 'cta' each alone.
    alone: nothing else will be launched while a kernel runs, so identical full waves may be passed over at once.
    """

    def __init__(
        self,
        env: simpy.Environment,
        hardware: Hardware,
        l2: FairShare,
        hbm: FairShare,
        fidelity: str,
        alone: bool,
    ) -> None:
        self.env, self.hardware, self.memories, self.alone = env, hardware, (l2, hbm), alone
        self.each_cta = fidelity == "cta"
        sms = range(hardware.sm_count)
        parts = [[sm] for sm in sms] if self.each_cta else [sms]
        self.groups = [SMGroup(env, part, Room.of_sm(hardware)) for part in parts]
        self.waiting: list[KernelRun] = []
        self._pending = False
        self._began_s = 0.0

    def launch(self, kernel: Kernel, hbm_bytes: float) -> simpy.Event:
        """Queue `kernel`, which moves `hbm_bytes` to and from HBM. Returns the event of its end."""
        need = demand(kernel, self.hardware, hbm_bytes)
        cap = kernel.bytes_in_flight / self.hardware.hbm_latency_s
        run = KernelRun(kernel, need, Room.of_cta(kernel), self.env.event(), kernel.grid, kernel.grid, cap)
        if Room.of_sm(self.hardware).copies(run.room) < 1:
            raise InputError(f"a CTA of kernel {kernel.name} does not fit on an SM of {self.hardware.name}")
        self.waiting.append(run)
        self._wake()
        return run.done

    def _wake(self) -> None:
        """Place CTAs one dispatch time from now; what is freed until then is placed together."""
        if not self._pending:
            self._pending = True
            self.env.timeout(self.hardware.dispatch_s).callbacks.append(self._dispatch)

    def _leave(self, cohort: Cohort) -> None:
        run, group = cohort.run, cohort.group
        group.cohorts.remove(cohort)
        group.free.take(run.room, -cohort.per_sm)
        run.unfinished -= cohort.per_sm * group.count
        if run.unfinished == 0:
            run.done.succeed()
        if self.waiting:
            self._wake()

    def _dispatch(self, _: simpy.Event) -> None:
        self._pending = False
        if not self.each_cta:
            self._join_idle()
        if self.alone and self._skip_full_waves():
            return
        while self.waiting:
            run = self.waiting[0]
            self._place(run)
            if run.unplaced:
                return  # no room: kernels behind it wait, as they do in hardware
            self.waiting.pop(0)

    def _join_idle(self) -> None:
        idle = [group for group in self.groups if not group.cohorts]
        if len(idle) > 1:
            idle[0].sms = sorted(sm for group in idle for sm in group.sms)
            self.groups = [group for group in self.groups if group.cohorts or group is idle[0]]

    def _skip_full_waves(self) -> bool:
        """From the second full wave of a lone kernel on idle SMs on, each takes the same time."""
        if self.each_cta or len(self.waiting) != 1 or len(self.groups) != 1 or self.groups[0].cohorts:
            return False
        run = self.waiting[0]
        slots = self.groups[0].free.copies(run.room) * self.hardware.sm_count
        waves = run.unplaced // slots
        if run.placements < 2 or waves < 1:
            return False  # the first wave takes longer: nothing hides its latency
        run.unplaced -= waves * slots
        run.unfinished -= waves * slots
        skipped_s = waves * (self.env.now - self._began_s)
        if run.unplaced == 0:
            self.waiting.clear()
            # The dispatch that would start one more wave is not part of the last one.
            last = self.env.timeout(max(0.0, skipped_s - self.hardware.dispatch_s), run.done)
            last.callbacks.append(_succeed)
        else:
            self._began_s = self.env.now + skipped_s
            self._pending = True
            self.env.timeout(skipped_s).callbacks.append(self._resume)
        return True

    def _resume(self, _: simpy.Event) -> None:
        self._pending = False
        run = self.waiting[0]
        self._place(run)
        if not run.unplaced:
            self.waiting.pop(0)

    def _place(self, run: KernelRun) -> None:
        """Give CTAs of `run` to the SMs with the fewest resident threads, one each a round, while there is room."""
        placed: dict[SMGroup, int] = {}
        while run.unplaced:
            open_groups = [group for group in self.groups if group.free.copies(run.room) > 0]
            if not open_groups:
                break
            emptiest = max(group.free.threads for group in open_groups)
            level = [group for group in open_groups if group.free.threads == emptiest]
            sms = sum(group.count for group in level)
            rounds = 1
            if len(level) == len(self.groups):  # all alike: several rounds at once
                rounds = max(1, min(min(g.free.copies(run.room) for g in level), run.unplaced // sms))
            if run.unplaced < sms:
                level = self._first_sms(level, run.unplaced, placed)
            for group in level:
                group.free.take(run.room, rounds)
                placed[group] = placed.get(group, 0) + rounds
                run.unplaced -= rounds * group.count
        begin_s, floor_s = self.env.now, run.need.floor_s
        if run.placements == 0:
            begin_s += self.hardware.start_s + run.need.latency_s
            floor_s -= run.need.latency_s
        run.placements += bool(placed)
        self._began_s = begin_s
        for group, per_sm in placed.items():
            cohorts = [1] * per_sm if self.each_cta else [per_sm]
            for ctas in cohorts:
                cohort = Cohort(run, group, ctas, begin_s, floor_s, self.memories, self._leave)
                group.cohorts.append(cohort)
                self.env.process(cohort.live())

    def _first_sms(self, groups: list[SMGroup], count: int, placed: dict[SMGroup, int]) -> list[SMGroup]:
        """Split `groups` so that their first `count` SMs by number are groups of their own; return those."""
        chosen = set(sorted(sm for group in groups for sm in group.sms)[:count])
        first = []
        for group in groups:
            mine = [sm for sm in group.sms if sm in chosen]
            if not mine:
                continue
            if len(mine) < group.count:
                part = group.split(mine)
                self.groups.append(part)
                if group in placed:
                    placed[part] = placed[group]
                group = part
            first.append(group)
        return first


def _succeed(timer: simpy.Event) -> None:
    """End the kernel whose event is the timer's value."""
    done: Any = timer.value
    done.succeed()
