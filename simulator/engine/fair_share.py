"""A pipe or a memory whose capacity is shared max-min fairly by the transfers in flight.

A flow is `members` equal transfers that start together, each of `amount` and each unable to go faster than `cap`.
The rate of a member is min(cap, level), where the level spends the capacity exactly (water filling). Members with the
same cap progress alike, so each distinct cap keeps one virtual clock of service given to a member; a flow ends when
that clock has moved by its amount. A flow's start or end costs O(log flows + distinct caps) however many members.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

import simpy

# Ends closer together than this are one event: far below any time in the model, far above rounding.
_SAME_INSTANT_S = 1e-12


class Flow:
    """`members` equal transfers in flight; `done` succeeds when they have all been served."""

    __slots__ = ("cap", "done", "finish", "members", "order")

    def __init__(self, done: simpy.Event, members: float, cap: float, finish: float, order: int) -> None:
        self.done, self.members, self.cap, self.finish, self.order = done, members, cap, finish, order

    def __lt__(self, other: Flow) -> bool:
        return (self.finish, self.order) < (other.finish, other.order)


class _Class:
    """The flows of one cap: service given to a member so far, members in flight, and the flows by their end."""

    __slots__ = ("flows", "members", "rate", "served")

    def __init__(self) -> None:
        self.served, self.members, self.rate = 0.0, 0.0, 0.0
        self.flows: list[Flow] = []


class FairShare:
    """A resource of `capacity` units a second. `served` is what it has delivered, `busy_s` how long it had work."""

    def __init__(self, env: simpy.Environment, capacity: float) -> None:
        self.env, self.capacity = env, capacity
        self.served = 0.0
        self.busy_s = 0.0
        self._classes: dict[float, _Class] = {}
        self._since = env.now
        self._plan = 0
        self._count = 0

    def start(self, amount: float, members: float = 1, cap: float = float("inf")) -> Flow:
        """Begin `members` transfers of `amount` each. Returns the flow; wait for its `done`."""
        self._advance()
        group = self._classes.get(cap)
        if group is None:
            group = self._classes[cap] = _Class()
        self._count += 1
        flow = Flow(self.env.event(), members, cap, group.served + amount, self._count)
        heappush(group.flows, flow)
        group.members += members
        self._replan()
        return flow

    def split(self, flow: Flow, members: float) -> Flow:
        """Take `members` of a flow in flight into a flow of their own, which ends at the same time."""
        self._advance()
        self._count += 1
        twin = Flow(self.env.event(), members, flow.cap, flow.finish, self._count)
        flow.members -= members
        heappush(self._classes[flow.cap].flows, twin)
        self._replan()
        return twin

    def clone(self) -> tuple[FairShare, dict[Flow, Flow]]:
        """A resource in the same state, with flows of its own, and which flow became which."""
        self._advance()
        twin, became = FairShare(self.env, self.capacity), {}
        for cap, group in self._classes.items():
            other = twin._classes[cap] = _Class()
            other.served, other.members = group.served, group.members
            for flow in group.flows:
                became[flow] = Flow(self.env.event(), flow.members, cap, flow.finish, flow.order)
            other.flows = [became[flow] for flow in group.flows]
            heapify(other.flows)
        twin._count = self._count
        twin._replan()
        return twin, became

    def settle(self) -> None:
        """Bring `served` and `busy_s` up to the present."""
        self._advance()

    def _advance(self) -> None:
        now = self.env.now
        elapsed = now - self._since
        self._since = now
        if elapsed <= 0 or not self._classes:
            return
        for group in self._classes.values():
            group.served += group.rate * elapsed
            self.served += group.rate * group.members * elapsed
        self.busy_s += elapsed

    def _replan(self) -> None:
        """Set the members' rates by water filling and a timer for the first flow to end."""
        classes = self._classes
        self._plan += 1
        if not classes:
            return
        if len(classes) == 1:
            ((cap, group),) = classes.items()
            group.rate = min(cap, self.capacity / group.members)
            wait = (group.flows[0].finish - group.served) / group.rate
        else:
            left, members = self.capacity, sum(group.members for group in classes.values())
            for cap in sorted(classes):
                group = classes[cap]
                group.rate = min(cap, left / members)
                left -= group.rate * group.members
                members -= group.members
            wait = min((group.flows[0].finish - group.served) / group.rate for group in classes.values())
        timer = self.env.timeout(wait if wait > 0 else 0.0, self._plan)
        timer.callbacks.append(self._end)

    def _end(self, timer: simpy.Event) -> None:
        if timer.value != self._plan:
            return  # a flow started or ended since: a later timer stands
        self._advance()
        for cap, group in list(self._classes.items()):
            # Flows that end together, to within rounding, end at one event.
            reached = group.served * (1 + 1e-12) + group.rate * _SAME_INSTANT_S
            while group.flows and group.flows[0].finish <= reached:
                flow = heappop(group.flows)
                group.members -= flow.members
                flow.done.succeed()
            if not group.flows:
                # Idle: start its clock at nought again, which also keeps rounding small.
                del self._classes[cap]
        self._replan()
