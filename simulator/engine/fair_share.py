"""A pipe or a memory whose capacity is shared max-min fairly by the transfers in flight.

A flow is `members` equal transfers that start together, each of `amount` and each unable to go faster than `cap`.
The rate of a member is min(cap, level), where the level spends the capacity exactly (water filling). Members with the
same cap progress alike, so each distinct cap keeps one virtual clock of service given to a member; a flow ends when
that clock has moved by its amount. A flow's start or end costs O(log flows + distinct caps) however many members.

Pure: whoever uses it says what time it is, and asks at `next_s` for what has ended.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Any

# Ends closer together than this are one: far below any time in the model, far above rounding.
SAME_INSTANT_S = 1e-12
NEVER = float("inf")


class Flow:
    """`members` equal transfers in flight; whose they are, and which of the owner's."""

    __slots__ = ("cap", "finish", "members", "order", "owner", "tag")

    def __init__(self, owner: Any, tag: int, members: float, cap: float, finish: float, order: int) -> None:
        self.owner, self.tag, self.members = owner, tag, members
        self.cap, self.finish, self.order = cap, finish, order

    def __lt__(self, other: Flow) -> bool:
        return (self.finish, self.order) < (other.finish, other.order)


class _Class:
    """The flows of one cap: service given to a member so far, members in flight, and the flows by their end."""

    __slots__ = ("flows", "members", "rate", "served")

    def __init__(self) -> None:
        self.served, self.members, self.rate = 0.0, 0.0, 0.0
        self.flows: list[Flow] = []


class FairShare:
    """A resource of `capacity` units a second.

    next_s: when the next flow ends. served: what it has delivered until it was last asked. busy_s: how long it had work.
    """

    __slots__ = ("_classes", "_count", "_since", "busy_s", "capacity", "next_s", "served")

    def __init__(self, capacity: float, now: float = 0.0) -> None:
        self.capacity = capacity
        self.served = 0.0
        self.busy_s = 0.0
        self.next_s = NEVER
        self._classes: dict[float, _Class] = {}
        self._since = now
        self._count = 0

    def start(
        self, now: float, owner: Any, tag: int, amount: float, members: float = 1, cap: float = NEVER
    ) -> Flow:
        """Begin `members` transfers of `amount` each; the flow comes back from `ended`."""
        self.advance(now)
        group = self._classes.get(cap)
        if group is None:
            group = self._classes[cap] = _Class()
        self._count += 1
        flow = Flow(owner, tag, members, cap, group.served + amount, self._count)
        heappush(group.flows, flow)
        group.members += members
        self._replan(now)
        return flow

    def split(self, now: float, flow: Flow, members: float, owner: Any) -> Flow:
        """Take `members` of a flow in flight into a flow of their own, which ends at the same time."""
        self.advance(now)
        self._count += 1
        twin = Flow(owner, flow.tag, members, flow.cap, flow.finish, self._count)
        flow.members -= members
        heappush(self._classes[flow.cap].flows, twin)
        self._replan(now)
        return twin

    def clone(self, now: float, became: dict[Any, Any]) -> FairShare:
        """A resource in the same state; became: the new owner of each old one."""
        self.advance(now)
        twin = FairShare(self.capacity, now)
        for cap, group in self._classes.items():
            other = twin._classes[cap] = _Class()
            other.served, other.members = group.served, group.members
            other.flows = [
                Flow(became[flow.owner], flow.tag, flow.members, cap, flow.finish, flow.order)
                for flow in group.flows
            ]
            heapify(other.flows)
        twin._count = self._count
        twin._replan(now)
        return twin

    def remaining(self, flow: Flow) -> float:
        """Of what a member of `flow` asked for, what it has not been served yet."""
        return max(flow.finish - self._classes[flow.cap].served, 0.0)

    def advance(self, now: float) -> None:
        """Bring service, `served` and `busy_s` up to `now`."""
        elapsed = now - self._since
        self._since = now
        if elapsed <= 0 or not self._classes:
            return
        for group in self._classes.values():
            group.served += group.rate * elapsed
            self.served += group.rate * group.members * elapsed
        self.busy_s += elapsed

    def flows(self) -> list[Flow]:
        """Those in flight."""
        return [flow for group in self._classes.values() for flow in group.flows]

    def ended(self, now: float) -> list[Flow]:
        """The flows that have ended by `now`; those that end together, to within rounding, at once."""
        self.advance(now)
        found = []
        for cap, group in list(self._classes.items()):
            reached = group.served * (1 + 1e-12) + group.rate * SAME_INSTANT_S
            flows = group.flows
            while flows and flows[0].finish <= reached:
                flow = heappop(flows)
                group.members -= flow.members
                found.append(flow)
            if not flows:
                # Idle: start its clock at nought again, which also keeps rounding small.
                del self._classes[cap]
        self._replan(now)
        return found

    def _replan(self, now: float) -> None:
        """Set the members' rates by water filling, and when the first flow ends."""
        classes = self._classes
        if not classes:
            self.next_s = NEVER
            return
        if len(classes) == 1:
            ((cap, group),) = classes.items()
            level = self.capacity / group.members
            group.rate = cap if cap < level else level
            wait = (group.flows[0].finish - group.served) / group.rate
        else:
            left, members = self.capacity, sum(group.members for group in classes.values())
            for cap in sorted(classes):
                group = classes[cap]
                group.rate = min(cap, left / members)
                left -= group.rate * group.members
                members -= group.members
            wait = min((group.flows[0].finish - group.served) / group.rate for group in classes.values())
        self.next_s = now + wait if wait > 0 else now
