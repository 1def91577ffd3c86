"""torch.compile: which nodes TorchInductor makes one kernel of (torch/_inductor/scheduler.py).

A node joins the kernel that makes, or reads, what it reads, wherever in the step that is, if both walk over the same elements:

- pointwise nodes, and reductions with what is done to their rows before and after;
- a pointwise node of fewer elements that sees a part of what the kernel makes (halves of a rotary embedding), and one that is
  broadcast over what the kernel walks (`1 + scale` of a modulation), which is worked out again for each element;
- a concatenation, with what makes its parts: they are put in place where they are made;
- never across a split reduction, nor where a library's kernel stands between: everything that a kernel reads is made by kernels
  before it.

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
        return sorted(set(self._groups.values()), key=lambda group: group.place)

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
