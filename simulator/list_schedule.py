"""The closed form's answer where CTAs differ: the end of a lone kernel, from what holds each CTA back most.

The kinds of CTA of a kernel differ by a factor, so the same pipe is the busiest for all of them and the same of L2 and HBM: two
shared resources and each CTA's own floor are all that can be last. The events know every pipe and every transfer, and CTAs of
other kernels; tests hold the two within 1 % of each other.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Any, NamedTuple

from simtti.simulator.kernel import CtaKind

_BEGIN, _PIPE, _MEMORY, _FLOOR, _PLACE = range(5)
_SAME_INSTANT_S = 1e-12


class CtaTimes(NamedTuple):
    """Of the average CTA, in seconds: of its SM's busiest pipe, of the busier of L2 and HBM with all to itself, what its own loads
    in flight make of that, what it takes alone on the device, and its latency. Then from the placement of the first CTAs to their
    begin, and from a free slot to the next CTA's."""

    pipe_s: float
    memory_s: float
    in_flight_s: float
    own_s: float
    latency_s: float
    start_s: float
    dispatch_s: float


class _Shared:
    """One resource that those who want it share equally, none faster than `cap`: a clock of the service each has had."""

    __slots__ = ("at_s", "cap", "ends", "members", "plan", "served")

    def __init__(self, cap: float) -> None:
        self.cap, self.served, self.members, self.at_s, self.plan = cap, 0.0, 0, 0.0, 0
        self.ends: list[tuple[float, int]] = []

    def advance(self, now_s: float) -> None:
        if self.members:
            self.served += (now_s - self.at_s) * min(1.0 / self.members, self.cap)
        self.at_s = now_s

    def add(self, now_s: float, amount_s: float, cta: int) -> None:
        self.advance(now_s)
        self.members += 1
        heappush(self.ends, (self.served + amount_s, cta))

    def next_s(self) -> float:
        left = self.ends[0][0] - self.served
        return self.at_s + max(left, 0.0) / min(1.0 / self.members, self.cap)

    def done(self, now_s: float) -> list[int]:
        self.advance(now_s)
        reached = self.served * (1 + 1e-12) + _SAME_INSTANT_S
        found = []
        while self.ends and self.ends[0][0] <= reached:
            found.append(heappop(self.ends)[1])
        self.members -= len(found)
        return found


def list_schedule_s(kinds: tuple[CtaKind, ...], times: CtaTimes, sms: int, per_sm: int) -> float:
    """Seconds from the launch of a kernel to the end of its last CTA.

    kinds: in the order of dispatch. per_sm: CTAs that an SM holds. A CTA goes to the SM with the fewest.
    """
    return _Schedule(kinds, times, sms, per_sm).run()


class _Schedule:
    def __init__(self, kinds: tuple[CtaKind, ...], times: CtaTimes, sms: int, per_sm: int) -> None:
        self.times, self.now_s, self.order = times, 0.0, 0
        self.left: list[list[Any]] = [[kind.ctas, kind] for kind in reversed(kinds)]
        self.free = [per_sm] * sms
        self.pipes = [_Shared(1.0) for _ in range(sms)]
        self.memory = _Shared(
            times.memory_s / times.in_flight_s if times.memory_s < times.in_flight_s else 1.0
        )
        self.due: list[tuple[float, int, int, int, int]] = []
        # Of each CTA: its SM, its kind, what it still waits for, and when its floor has passed.
        self.sm: list[int] = []
        self.kind: list[CtaKind] = []
        self.waits: list[int] = []
        self.floor_s: list[float] = []
        self.freed: list[int] = list(range(sms))
        self.placing = True

    def run(self) -> float:
        self._plan(self.times.dispatch_s, _PLACE, 0, 0)
        first, end_s = True, 0.0
        while self.due:
            self.now_s, _, what, whom, plan = heappop(self.due)
            if what == _PLACE:
                if self.due and self.due[0][0] <= self.now_s + _SAME_INSTANT_S:
                    # What ends at the same instant makes room together before CTAs are placed.
                    self._plan(self.due[0][0], _PLACE, 0, 0)
                    continue
                self._place(first)
                first = False
            elif what == _BEGIN:
                self._begin(whom)
            elif what == _FLOOR:
                end_s = self._leave(whom)
            else:
                shared = self.memory if what == _MEMORY else self.pipes[whom]
                if shared.plan != plan:
                    continue  # it has changed since
                for cta in shared.done(self.now_s):
                    self._served(cta)
                self._replan(shared, what, whom)
        return end_s

    def _plan(self, at_s: float, what: int, whom: int, plan: int) -> None:
        self.order += 1
        heappush(self.due, (at_s, self.order, what, whom, plan))

    def _replan(self, shared: _Shared, what: int, whom: int) -> None:
        shared.plan += 1
        if shared.ends:
            self._plan(shared.next_s(), what, whom, shared.plan)

    def _place(self, first: bool) -> None:
        self.placing = False
        free = self.free
        candidates = sorted(set(self.freed))
        self.freed = []
        while self.left and candidates:
            most = max(free[sm] for sm in candidates)
            for sm in [sm for sm in candidates if free[sm] == most]:
                if not self.left:
                    return
                ctas = self.left[-1]
                self._arrive(sm, ctas[1], first)
                ctas[0] -= 1
                if not ctas[0]:
                    self.left.pop()
            candidates = [sm for sm in candidates if free[sm]]

    def _arrive(self, sm: int, kind: CtaKind, first: bool) -> None:
        times, cta = self.times, len(self.sm)
        latency_s = times.latency_s * kind.latency
        begin_s = self.now_s + (times.start_s + latency_s if first else 0.0)
        self.free[sm] -= 1
        self.sm.append(sm)
        self.kind.append(kind)
        self.waits.append(2)
        self.floor_s.append(begin_s + times.own_s * kind.work + (0.0 if first else latency_s))
        self._plan(begin_s, _BEGIN, cta, 0)

    def _begin(self, cta: int) -> None:
        work, sm = self.kind[cta].work, self.sm[cta]
        for shared, seconds, what in (
            (self.pipes[sm], self.times.pipe_s, _PIPE), (self.memory, self.times.memory_s, _MEMORY),
        ):  # fmt: skip
            if seconds > 0:
                shared.add(self.now_s, seconds * work, cta)
                self._replan(shared, what, sm)
            else:
                self._served(cta)

    def _served(self, cta: int) -> None:
        self.waits[cta] -= 1
        if not self.waits[cta]:
            self._plan(max(self.floor_s[cta], self.now_s), _FLOOR, cta, 0)

    def _leave(self, cta: int) -> float:
        self.free[self.sm[cta]] += 1
        self.freed.append(self.sm[cta])
        if self.left and not self.placing:
            self.placing = True
            self._plan(self.now_s + self.times.dispatch_s, _PLACE, 0, 0)
        return self.now_s
