"""The block scheduler: places the CTAs of kernels on SMs with room, breadth first, in the order of launch.

The state of everything that contends on the device (SMs' pipes, L2, HBM, link, copy engine) and what happens to it next,
without a clock of its own: `launch`, then `advance` to a time no later than `next_s`'s successors; `device` lets SimPy's time
pass in between. So every behaviour is a deterministic unit test.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Any

from simtti.errors import InputError
from simtti.hw_configs.hardware import Hardware
from simtti.simulator.closed_form import Demand, copy_s
from simtti.simulator.engine.fair_share import NEVER, SAME_INSTANT_S, FairShare
from simtti.simulator.engine.sm import Cohort, KernelRun, Room, SMGroup
from simtti.simulator.kernel import CtaKind

# What a kernel's transfers go through, in the order of `memories`.
L2, HBM, LINK, COPY = range(4)
_DISPATCH, _BEGIN, _FLOOR, _SM, _TRANSFER = range(5)


class BlockScheduler:
    """Takes kernels, gives their CTAs to the least loaded SMs that have room, until the kernels have ended.

    fidelity: 'wave' moves the CTAs that start together on SMs in the same state as one cohort; 'cta' each alone.
    placed: CTAs given to SMs so far.
    """

    def __init__(self, hardware: Hardware, fidelity: str, now: float = 0.0) -> None:
        self.hardware, self.now = hardware, now
        self.memories = (
            FairShare(hardware.l2_attained_bytes_per_s, now),
            FairShare(hardware.hbm_attained_bytes_per_s, now),
            FairShare(max(hardware.link_bytes_per_s, 1.0), now),
            FairShare(hardware.host_copy_bytes_per_s, now),
        )
        self.each_cta = fidelity == "cta"
        sms = range(hardware.sm_count)
        parts = [[sm] for sm in sms] if self.each_cta else [list(sms)]
        self.groups = [SMGroup(part, Room.of_sm(hardware)) for part in parts]
        self.waiting: list[KernelRun] = []
        self.running = 0
        self.placed = 0
        self._dispatch_pending = False
        # Groups that may have room for the first kernel that waits: those something left since it was found full.
        self._open: list[SMGroup] | None = None
        # (time, order, what, of whom, plan): what is due, of which some is out of date.
        self._due: list[tuple[float, int, int, Any, int]] = []
        self._order = 0

    # ---- what a device sees

    def launch(self, run: KernelRun) -> None:
        """Queue a kernel now.

        Raises:
            InputError: one of its CTAs does not fit on an SM.
        """
        self.running += 1
        kernel, need = run.kernel, run.need
        start_s = self.now + kernel.started_s(self.hardware)
        if kernel.copy_bytes:  # a copy engine's; no CTA works
            run.unplaced = run.unfinished = 0
            run.placed_s = self.now
            copied = copy_s(kernel, self.hardware) * self.hardware.host_copy_bytes_per_s
            transfers = [(COPY, copied, start_s), (HBM, need.hbm_bytes, start_s)]
        else:
            if Room.of_sm(self.hardware).copies(run.room) < 1:
                raise InputError(
                    f"a CTA of kernel {kernel.name} does not fit on an SM of {self.hardware.name}"
                )
            transfers = [(LINK, kernel.wire_bytes, start_s + need.latency_s)] if kernel.link_bytes else []
            self.waiting.append(run)
            if len(self.waiting) == 1:
                self._open = None
            self._wake()
        run.parts = len(transfers)
        for transfer in transfers:
            self._plan(transfer[2], _TRANSFER, (run, *transfer[:2]), 0)

    @property
    def next_s(self) -> float:
        """When something happens next; NEVER on an idle device."""
        due = self._due
        while due and self._out_of_date(due[0]):
            heappop(due)
        first = due[0][0] if due else NEVER
        return min(first, *(memory.next_s for memory in self.memories))

    def advance(self, until_s: float) -> list[KernelRun]:
        """Let time pass until `until_s`, or until the first kernels end, whichever is sooner. Returns those that ended."""
        ended: list[KernelRun] = []
        while not ended:
            at_s = self.next_s
            if at_s > until_s:
                self.now = max(self.now, until_s) if until_s < NEVER else self.now
                break
            self.now = max(self.now, at_s)
            # What ends at the same instant, to within rounding, makes room together before CTAs are placed.
            due, limit_s, dispatches, quiet = self._due, self.now + SAME_INSTANT_S, False, False
            while not quiet:
                quiet = True
                for memory in self.memories:
                    if memory.next_s <= limit_s:
                        quiet = False
                        self._transfers_ended(memory, ended)
                while due and due[0][0] <= limit_s:
                    entry = heappop(due)
                    if self._out_of_date(entry):
                        continue
                    if entry[2] == _DISPATCH:
                        dispatches = True
                        continue
                    quiet = False
                    self._happen(entry[2], entry[3], ended)
            if dispatches:
                self._dispatch(ended)
        return ended

    def _transfers_ended(self, memory: FairShare, ended: list[KernelRun]) -> None:
        for flow in memory.ended(max(self.now, memory.next_s)):
            if isinstance(flow.owner, Cohort):
                del flow.owner.remote[flow.tag]
                self._served(flow.owner, ended)
            else:
                self._part_ended(flow.owner, ended)

    # ---- what happens

    def _plan(self, at_s: float, what: int, whom: Any, plan: int) -> None:
        self._order += 1
        heappush(self._due, (at_s, self._order, what, whom, plan))

    @staticmethod
    def _out_of_date(entry: tuple[float, int, int, Any, int]) -> bool:
        return entry[2] == _SM and entry[3].plan != entry[4]

    def _happen(self, what: int, whom: Any, ended: list[KernelRun]) -> None:
        if what == _SM:
            for cohort in whom.ended(max(self.now, whom.next_s)):
                self._served(cohort, ended)
            self._plan_group(whom)
        elif what == _FLOOR:
            self._leave(whom, ended)
        elif what == _BEGIN:
            self._begin(whom, ended)
        else:
            run, memory, nbytes = whom
            self.memories[memory].start(self.now, run, 0, nbytes)

    def _plan_group(self, group: SMGroup) -> None:
        if group.next_s < NEVER:
            self._plan(group.next_s, _SM, group, group.plan)

    def _begin(self, cohort: Cohort, ended: list[KernelRun]) -> None:
        """Put a cohort's demands on its SM's pipes, L2 and HBM."""
        need, group = cohort.run.need, cohort.group
        if need.local_s > 0:
            group.start(self.now, cohort)
            self._plan_group(group)
        cohort.running = True
        members = cohort.per_sm * group.count
        for memory, nbytes in ((L2, need.l2_bytes), (HBM, need.hbm_bytes)):
            if nbytes > 0:
                cohort.remote[memory] = self.memories[memory].start(
                    self.now, cohort, memory, nbytes * cohort.kind.work, members, cohort.run.cap
                )
                cohort.left += 1
        if not cohort.left:
            cohort.left = 1
            self._served(cohort, ended)

    def _served(self, cohort: Cohort, ended: list[KernelRun]) -> None:
        """One of its demands has been served."""
        cohort.left -= 1
        if cohort.left:
            return
        until_s = cohort.begin_s + cohort.floor_s
        if until_s > self.now:
            self._plan(until_s, _FLOOR, cohort, 0)
        else:
            self._leave(cohort, ended)

    def _leave(self, cohort: Cohort, ended: list[KernelRun]) -> None:
        run, group = cohort.run, cohort.group
        group.leave(cohort)
        run.unfinished -= cohort.per_sm * group.count
        if self._open is not None:
            self._open.append(group)
        if not run.unfinished and not run.parts:
            self._end(run, ended)
        if self.waiting:
            self._wake()

    def _part_ended(self, run: KernelRun, ended: list[KernelRun]) -> None:
        run.parts -= 1
        if not run.parts and not run.unfinished:
            self._end(run, ended)

    def _end(self, run: KernelRun, ended: list[KernelRun]) -> None:
        run.ended_s = self.now
        self.running -= 1
        ended.append(run)

    def _wake(self) -> None:
        """Place CTAs one dispatch time from now; what is freed until then is placed together."""
        if not self._dispatch_pending:
            self._dispatch_pending = True
            self._plan(self.now + self.hardware.dispatch_s, _DISPATCH, None, 0)

    # ---- placing

    def _dispatch(self, ended: list[KernelRun]) -> None:
        self._dispatch_pending = False
        if not self.each_cta:
            self._join_idle()
        while self.waiting:
            run = self.waiting[0]
            self._place(run, ended)
            if run.unplaced:
                return  # no room: kernels behind it wait, as they do in hardware
            run.placed_s = self.now
            self.waiting.pop(0)
            self._open = None

    def _join_idle(self) -> None:
        idle = [group for group in self.groups if not group.cohorts]
        if len(idle) > 1:
            idle[0].sms = sorted(sm for group in idle for sm in group.sms)
            self.groups = [group for group in self.groups if group.cohorts or group is idle[0]]
            self._open = None

    def _place(self, run: KernelRun, ended: list[KernelRun]) -> None:
        """Give CTAs of `run` to the SMs with the fewest resident threads, one each a round, while there is room."""
        candidates = self.groups if self._open is None else list(dict.fromkeys(self._open))
        room = run.room
        open_groups = [group for group in candidates if group.free.copies(room) > 0]
        placed: dict[SMGroup, list[tuple[CtaKind, int]]] = {}
        while run.unplaced and open_groups:
            emptiest = max(group.free.threads for group in open_groups)
            level = [group for group in open_groups if group.free.threads == emptiest]
            left, kind = run.kinds[-1]
            sms = sum(group.count for group in level)
            rounds = 1
            if len(level) == len(self.groups):  # all alike: several rounds at once
                rounds = max(1, min(min(group.free.copies(room) for group in level), left // sms))
            if left < sms:
                level = self._first_sms(level, left, placed, open_groups)
            for group in level:
                group.free.take(room, rounds)
                given = placed.setdefault(group, [])
                if given and given[-1][0] is kind:
                    given[-1] = (kind, given[-1][1] + rounds)
                else:
                    given.append((kind, rounds))
                taken = rounds * group.count
                run.unplaced -= taken
                run.kinds[-1][0] -= taken
                self.placed += taken
            if not run.kinds[-1][0]:
                run.kinds.pop()
            open_groups = [group for group in open_groups if group.free.copies(room) > 0]
        self._open = []
        first = run.placements == 0
        run.placements += bool(placed)
        for group, given in placed.items():
            for kind, per_sm in given:
                self._arrive(run, group, kind, per_sm, first, ended)

    def _arrive(
        self, run: KernelRun, group: SMGroup, kind: CtaKind, per_sm: int, first: bool, ended: list[KernelRun]
    ) -> None:
        begin_s, latency_s = self.now, run.need.latency_s * kind.latency
        floor_s = run.need.own_s * kind.work
        if first:
            begin_s += run.kernel.started_s(self.hardware) + latency_s
        else:
            floor_s += latency_s
        for ctas in [1] * per_sm if self.each_cta else [per_sm]:
            cohort = Cohort(run, kind, group, ctas, begin_s, floor_s)
            group.cohorts.append(cohort)
            if begin_s > self.now:
                self._plan(begin_s, _BEGIN, cohort, 0)
            else:
                self._begin(cohort, ended)

    def _first_sms(
        self,
        groups: list[SMGroup],
        count: int,
        placed: dict[SMGroup, list[tuple[CtaKind, int]]],
        open_groups: list[SMGroup],
    ) -> list[SMGroup]:
        """Split `groups` so that their first `count` SMs by number are groups of their own; return those."""
        chosen = set(sorted(sm for group in groups for sm in group.sms)[:count])
        first = []
        for group in groups:
            mine = [sm for sm in group.sms if sm in chosen]
            if not mine:
                continue
            if len(mine) < group.count:
                part = group.split(self.now, mine, self.memories)
                self._adopt(part)
                open_groups.append(part)
                if group in placed:
                    placed[part] = list(placed[group])
                group = part
            first.append(group)
        return first

    def _adopt(self, part: SMGroup) -> None:
        """Plan what is due for a group that was split off."""
        self.groups.append(part)
        self._plan_group(part)
        for cohort in part.cohorts:
            if not cohort.running:
                self._plan(cohort.begin_s, _BEGIN, cohort, 0)
            elif not cohort.left:
                self._plan(cohort.begin_s + cohort.floor_s, _FLOOR, cohort, 0)


def run_of(kernel: Any, need: Demand, hardware: Hardware) -> KernelRun:
    """A kernel ready to be launched, with what each of its CTAs demands."""
    return KernelRun(kernel, need, need.own_bytes_per_s)
