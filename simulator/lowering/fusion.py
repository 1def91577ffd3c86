"""torch.compile: which nodes TorchInductor makes one kernel of (torch/_inductor/scheduler.py).

A node joins the kernel that makes, or reads, what it reads, wherever in the step that is, if both walk over the same elements:

- pointwise nodes, and reductions with what is done to their rows before and after;
- a pointwise node of fewer elements that sees a part of what the kernel makes (halves of a rotary embedding), and one that is
  broadcast over what the kernel walks (`1 + scale` of a modulation), which is worked out again for each element;
- a concatenation, with what makes its parts: they are put in place where they are made;
- never across a split reduction, nor one with a reduction of rows, nor where a library's kernel stands between: everything that a kernel reads is made by kernels
  before it.

What one kernel alone reads and another could make is made where it is read, from no more bytes (a conversion before a division that
waits for a split reduction): Inductor writes nothing that one node reads.

A kernel runs at one place in the order of the step. A node is taken there (earlier than the trace has it) when the rest of what
it reads is made by then; else the kernel waits for the node if nobody needs its results sooner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from simtti.simulator.lowering.nodes import Node

MOST_FUSED = 64  # exact: max_fusion_size in torch/_inductor/config.py


@dataclass(eq=False, slots=True)
class Group:
    """Nodes, by their numbers, that become one kernel at `place`. size: the most elements one of them walks. readers, sources: the
    other groups that read what it makes, and that make what it reads."""

    members: list[int]
    place: int
    size: int
    is_library: bool
    readers: set[Group] = field(default_factory=set)
    sources: set[Group] = field(default_factory=set)


def groups_of(nodes: Sequence[Node]) -> list[Group]:
    """The kernels of a step in the order in which they run."""
    return _Scheduler(nodes).run()


class _Scheduler:
    """Goes through the nodes once and puts each into the group where it reads most."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = nodes
        self._groups: dict[int, Group] = {}  # of each node
        self._maker: dict[int, int] = {}  # the node that wrote a tensor last
        self._reader: dict[int, int] = {}  # the node that read it last

    def run(self) -> list[Group]:
        for number, node in enumerate(self._nodes):
            home = None if node.is_library else self._home(number, node)
            self._groups[number] = home or Group([number], number, node.size, node.is_library)
            if home is None:
                home = self._groups[number]
            for group in self._sources(node):
                if group is not home:
                    group.readers.add(home)
                    home.sources.add(group)
            if not home.is_library:
                self._gather(node, home)
            self._reader.update((use.tensor, number) for use in node.reads if use.role != "parameter")
            self._maker.update((use.tensor, number) for use in node.writes)
        self._move_to_readers()
        return sorted(
            {group for group in self._groups.values() if group.members}, key=lambda group: group.place
        )

    def _move_to_readers(self) -> None:
        """Give pointwise nodes to the only kernel that reads them, where that is another one and moves no more bytes for it."""
        readers: dict[int, set[int]] = {}
        for number in reversed(range(len(self._nodes))):
            node = self._nodes[number]
            if node.kind == "pointwise":
                self._move(number, {other for use in node.writes for other in readers.get(use.tensor, ())})
            for use in node.writes:
                readers.pop(use.tensor, None)
            for use in node.reads:
                readers.setdefault(use.tensor, set()).add(number)

    def _move(self, number: int, readers: set[int]) -> None:
        node, home = self._nodes[number], self._groups[number]
        others = {self._groups[reader] for reader in readers}
        if len(others) != 1 or home in others:
            return
        (other,) = others
        read, written = (
            sum(use.nbytes for use in uses if use.role == "activation") for uses in (node.reads, node.writes)
        )
        same = other.size == node.size or all(self._nodes[reader].is_concatenation for reader in readers)
        if other.is_library or not same or len(other.members) >= MOST_FUSED or read > written:
            return
        if any(use.role != "activation" for use in node.writes):
            return
        home.members.remove(number)
        other.members = sorted((*other.members, number))
        self._groups[number] = other

    def _sources(self, node: Node) -> list[Group]:
        """The groups that make what a node reads, of most bytes first."""
        uses = sorted(node.reads, key=lambda use: -use.nbytes)
        return list(
            dict.fromkeys(self._groups[self._maker[use.tensor]] for use in uses if use.tensor in self._maker)
        )

    def _siblings(self, node: Node) -> list[Group]:
        """The groups that read what a node reads."""
        return [self._groups[self._reader[use.tensor]] for use in node.reads if use.tensor in self._reader]

    def _home(self, number: int, node: Node) -> Group | None:
        """The group that a node joins, if there is one."""
        sources = self._sources(node)
        for group in dict.fromkeys((*sources, *self._siblings(node))):
            if not self._fits(node, group, group in sources):
                continue
            needed = max((other.place for other in sources if other is not group), default=-1)
            if needed >= group.place:
                if group.readers:
                    continue
                group.place = number
            group.members.append(number)
            group.size = max(group.size, node.size)
            return group
        return None

    def _fits(self, node: Node, group: Group, is_source: bool) -> bool:
        """Whether a node can be part of a group's kernel, apart from the order."""
        if group.is_library or len(group.members) >= MOST_FUSED or self._waits_for_split(node, group):
            return False
        if self._walks_otherwise(node, group):
            return False
        if node.size == group.size:
            return True
        if not is_source:
            return False
        if node.size < group.size:
            return node.kind == "pointwise" and group.size % node.size == 0
        return node.is_concatenation or self._is_pointwise(group)

    def _is_pointwise(self, group: Group) -> bool:
        return all(self._nodes[member].kind == "pointwise" for member in group.members)

    def _waits_for_split(self, node: Node, group: Group) -> bool:
        """Whether it reads what a split reduction of the group makes."""
        made = {
            use.tensor
            for member in group.members
            if self._nodes[member].kind == "split"
            for use in self._nodes[member].writes
        }
        return any(use.tensor in made for use in node.reads)

    def _walks_otherwise(self, node: Node, group: Group) -> bool:
        """Whether one of them reduces rows, a block each, and the other all of a tensor, as many elements a block as fill the device."""
        kinds = {self._nodes[member].kind for member in group.members}
        return (node.is_whole and "reduction" in kinds) or (
            node.kind == "reduction" and any(self._nodes[member].is_whole for member in group.members)
        )

    def _gather(self, node: Node, home: Group) -> None:
        """Bring the other groups that make what the node reads into its own, where nobody else needs them sooner."""
        for group in self._sources(node):
            if group is home or not self._fits(node, group, True):
                continue
            if len(group.members) + len(home.members) > MOST_FUSED or group.place > home.place:
                continue
            splits = any(self._nodes[member].kind == "split" for member in group.members)
            if splits or any(reader.place < home.place for reader in group.readers if reader is not home):
                continue
            self._merge(group, home)

    def _merge(self, group: Group, home: Group) -> None:
        """All of `group` becomes part of `home`."""
        home.members = sorted({*home.members, *group.members})
        home.size = max(home.size, group.size)
        for member in group.members:
            self._groups[member] = home
        for reader in group.readers:
            reader.sources.discard(group)
            reader.sources.add(home)
        for source in group.sources:
            source.readers.discard(group)
            source.readers.add(home)
        home.readers = (home.readers | group.readers) - {home, group}
        home.sources = (home.sources | group.sources) - {home, group}
