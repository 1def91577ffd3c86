"""Lowering: from an operator of a trace to the kernels PyTorch launches for it on CUDA.

Kernels name their tensors by slot (the operator's inputs in order, then its outputs; negative for workspaces), so that
operators alike in shape, layout and attributes share their kernels.
"""

from __future__ import annotations

import functools
import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

from simtti.dtypes import WITHOUT_PRODUCTS
from simtti.hw_configs.hardware import PYTORCH, Hardware
from simtti.simulator.kernel import Access, Kernel, check
from simtti.simulator.kernels.elementwise import lower_unknown
from simtti.simulator.kernels.family import LowerTogether, Target
from simtti.simulator.kernels.reuse import by_what_it_reads
from simtti.simulator.lowering.composites import rms_norms
from simtti.simulator.lowering.fusion import groups_of
from simtti.simulator.lowering.nodes import as_called, channels_go_last, nodes_of
from simtti.simulator.lowering.registry import LOWERINGS, READ_FEW, TOGETHER, prepare
from simtti.simulator.lowering.triton import kernels_of, readers_of
from simtti.simulator.policy import Policy
from simtti.workloads.trace import Operator


@dataclass(frozen=True, slots=True)
class Lowered:
    """An operator's kernels; operators that are alike share one.

    unknown: there is no kernel model for it; it is timed as a stream of its bytes.
    synchronizes: the host waits for it.
    absorbed: another operator does its work, and the host does not issue it.
    by_identity: its kernels name tensors by their identity in the trace, not by the operator's slots.
    traits: all that its launches go by but what they are and how many: whether there are any, and the three above, a bit each.
    """

    kernels: tuple[Kernel, ...]
    is_view: bool
    unknown: bool
    synchronizes: bool
    workspace_bytes: int
    by_identity: bool = False
    absorbed: bool = False
    traits: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        traits = bool(self.kernels) + 2 * self.by_identity + 4 * self.absorbed + 8 * self.synchronizes
        object.__setattr__(self, "traits", traits)


_VIEW = Lowered((), True, False, False, 0)
_ABSORBED = Lowered((), False, False, False, 0, absorbed=True)


class Slots(dict[int, int]):
    """The tensor that a slot of an operator's kernels stands for; a workspace (below 0) stands for itself."""

    def __missing__(self, slot: int) -> int:
        return slot


_NO_SLOTS = Slots()  # of what launches nothing


class Alike(NamedTuple):
    """What is the same for every device in a list of operators.

    group: for each operator the number of its group, -1 for a view. members: the first operator of each group, with the
    number its kind has everywhere. slots: for each operator the tensors behind its kernels' slots.
    """

    group: list[int]
    members: list[tuple[int, Operator]]
    slots: list[Slots]


_Part = TypeVar("_Part")
_Found = TypeVar("_Found")
MOST_REMEMBERED = 64
_PRODUCTS = ("Linear", "Convolution", "Attention")


def remembered(function: Callable[[_Part], _Found]) -> Callable[[_Part], _Found]:
    """`function` of a part of a trace, as a step's operators, kept for the parts met last: what does not depend on the device is found
    once, however many devices run it. A part is known by its identity, which the entry keeps alive."""
    kept: OrderedDict[int, tuple[_Part, _Found]] = OrderedDict()

    @functools.wraps(function)
    def find(part: _Part) -> _Found:
        entry = kept.get(id(part))
        if entry is None:
            entry = kept[id(part)] = part, function(part)
            if len(kept) > MOST_REMEMBERED:
                kept.popitem(last=False)
        return entry[1]

    return find


@remembered
def alike(operators: tuple[Operator, ...]) -> Alike:
    """Which of `operators` have the same kernels on any device."""
    numbers: dict[object, int] = {}
    same: dict[tuple[object, ...], int] = {}  # by what a trace's operators share: quicker than to compare it
    group: list[int] = []
    members: list[tuple[int, Operator]] = []
    slots: list[Slots] = []
    for operator in operators:
        if operator.is_view:
            group.append(-1)
            slots.append(_NO_SLOTS)
            continue
        uses = (*operator.inputs, *operator.outputs)
        slots.append(Slots(enumerate([use.tensor for use in uses])))
        shared: list[object] = [operator.op, id(operator.attributes)]
        for use in uses:
            shared += (id(use.shape), id(use.strides), use.dtype)
        number = same.get(tuple(shared))
        if number is None:
            key = _key(operator)
            number = same[tuple(shared)] = numbers.setdefault(key, len(members))
            if number == len(members):
                members.append((_kind(key), operator))
        group.append(number)
    return Alike(group, members, slots)


def kinds_of(steps: Iterable[tuple[Operator, ...]]) -> dict[int, Operator]:
    """The first of each kind of operators, by the kind's number."""
    found: dict[int, Operator] = {}
    for operators in steps:
        for kind, operator in alike(operators).members:
            found.setdefault(kind, operator)
    return found


_MOST_KINDS = 1 << 16
_kinds: dict[object, int] = {}
_next_kind = itertools.count()


def _kind(key: object) -> int:
    """The number of a kind of operators. It is no other's; a kind may be numbered anew once there are too many."""
    if key not in _kinds:
        if len(_kinds) >= _MOST_KINDS:
            _kinds.clear()
        _kinds[key] = next(_next_kind)
    return _kinds[key]


def _key(operator: Operator) -> object:
    """Equal for operators that launch the same kernels."""
    uses = (*operator.inputs, *operator.outputs)
    return (
        operator.op,
        str(operator.attributes),
        tuple((use.shape, use.strides, use.dtype) for use in uses),
    )


class Lowering:
    """Lowers operators for one device and policy, each distinct shape once."""

    def __init__(
        self, hardware: Hardware, policy: Policy, known: Mapping[int, Lowered] | None = None
    ) -> None:
        """known: by kind, what is lowered already (`designs.lower_side_by_side`)."""
        self.hardware, self.policy = hardware, policy
        self.target = Target(hardware, policy)
        self._known: dict[int, Lowered] = dict(known or {})  # by kind

    def lower(self, operator: Operator) -> Lowered:
        """The kernels of `operator`, none if it is a view."""
        return _VIEW if operator.is_view else self._of_kind(_kind(_key(operator)), operator)

    def lower_all(self, operators: tuple[Operator, ...]) -> list[Lowered]:
        """`lower` of each operator of a step."""
        self.lower_ahead([operators])
        same = alike(operators)
        lowered = [self._of_kind(kind, operator) for kind, operator in same.members]
        lowered.append(_VIEW)  # at -1
        found = [lowered[number] for number in same.group]
        if operators and self.policy.compiles(operators[0].phase):
            self._compile(operators, found)
        elif self.hardware.pytorch == PYTORCH[0]:
            self._fuse_composites(operators, found)
        return found

    def lower_ahead(self, steps: Iterable[tuple[Operator, ...]]) -> None:
        """Lower what `lower_all` will be asked for, the operators of all steps side by side."""
        new = {kind: each for kind, each in kinds_of(steps).items() if kind not in self._known}
        if not new:
            return
        modelled = {kind: each for kind, each in new.items() if has_model(each) and not is_empty(each)}
        prepare(list(modelled.values()), self.target)
        self._lower_together(modelled)
        for kind, operator in new.items():
            self._of_kind(kind, operator)

    def _lower_together(self, new: Mapping[int, Operator]) -> None:
        """Lower side by side those that can be."""
        sorts: dict[LowerTogether, dict[int, Operator]] = {}
        for kind, operator in new.items():
            if operator.op in TOGETHER:
                sorts.setdefault(TOGETHER[operator.op], {})[kind] = operator
        for lower, own in sorts.items():
            each_of = lower(list(own.values()), self.target)
            for (kind, operator), kernels in zip(own.items(), each_of, strict=True):
                self._known[kind] = lowered_as(operator, kernels)

    def _fuse_composites(self, operators: Sequence[Operator], lowered: list[Lowered]) -> None:
        """Put one kernel, at the last of its parts, in the place of what PyTorch does not do by parts any more."""
        for first, last, fused in rms_norms(operators):
            for part in range(first, last + 1):
                lowered[part] = _ABSORBED
            lowered[last] = replace(self.lower(fused), kernels=tuple(self._library(fused)), by_identity=True)

    def _of_kind(self, kind: int, operator: Operator) -> Lowered:
        known = self._known.get(kind)
        if known is None:
            known = self._known[kind] = self._lower(operator)
        return known

    def _compile(self, operators: Sequence[Operator], lowered: list[Lowered]) -> None:
        """Put what torch.compile makes of the step in the place of its operators: each generated kernel at the last operator
        that is part of it."""
        nodes = nodes_of(operators, self.hardware)
        channels_last = channels_go_last(operators)
        readers = readers_of(nodes)
        kernels: dict[int, list[Kernel]] = {}
        for group in groups_of(nodes):
            at = max(nodes[number].operator for number in group.members)
            if group.is_library:
                kernels.setdefault(at, []).extend(self._library(as_called(operators[at], channels_last)))
            else:
                kernels.setdefault(at, []).extend(kernels_of(nodes, group.members, readers, self.hardware))
        for index, operator in enumerate(operators):
            if operator.is_view:
                continue
            lowered[index] = replace(lowered[index], kernels=tuple(kernels.get(index, ())), by_identity=True)

    def _library(self, called: Operator) -> list[Kernel]:
        """The kernels of a library, their tensors by their identity in the trace."""
        tensors = dict(enumerate(use.tensor for use in (*called.inputs, *called.outputs)))
        return [
            replace(
                kernel,
                reads=tuple(Access(tensors.get(a.tensor, a.tensor), a.nbytes) for a in kernel.reads),
                writes=tuple(Access(tensors.get(a.tensor, a.tensor), a.nbytes) for a in kernel.writes),
            )
            for kernel in self.lower(called).kernels
        ]

    def _lower(self, operator: Operator) -> Lowered:
        return lower_alone(operator, self.target)


def kernels_on(operator: Operator, target: Target) -> list[Kernel]:
    """The kernels of `operator`, checked; a stream of its bytes where there is no model for it, none where it has no results."""
    if is_empty(operator):
        return []
    lowering = LOWERINGS[operator.op] if has_model(operator) else lower_unknown
    kernels = lowering(operator, target)
    for kernel in kernels:
        check(kernel, target.hardware)
    return kernels


def lower_alone(operator: Operator, target: Target) -> Lowered:
    """An operator, not beside others."""
    lower = _lower_again if operator.op in READ_FEW else _lower
    return lower(operator, target)


def _lower(operator: Operator, target: Target) -> Lowered:
    return lowered_as(operator, kernels_on(operator, target))


_lower_again = by_what_it_reads(_lower)


def lowered_as(operator: Operator, kernels: Sequence[Kernel]) -> Lowered:
    """An operator that is lowered to these kernels; of several devices side by side kernels and workspace are theirs."""
    waits = bool(operator.attributes.get("synchronizes"))
    unknown = not has_model(operator) and not is_empty(operator)
    return Lowered(tuple(kernels), False, unknown, waits, _workspace_bytes(operator, kernels))


def is_empty(operator: Operator) -> bool:
    """Whether its results have no elements."""
    return bool(operator.outputs) and not any(use.numel for use in operator.outputs)


def _workspace_bytes(operator: Operator, kernels: Sequence[Kernel]) -> int:
    """What one kernel writes and another reads back lives outside the operator's own tensors. cuDNN asks for all of it at once;
    PyTorch's own operators hold each from its first kernel to its last; cuBLAS has a workspace of its own for all products."""
    if operator.category == "Linear":
        return 0
    size: dict[int, float] = {}
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for number, kernel in enumerate(kernels):
        for access in kernel.writes:
            if access.tensor < 0:
                size[access.tensor] = max(size.get(access.tensor, 0.0), access.nbytes)
                first.setdefault(access.tensor, number)
        for access in (*kernel.reads, *kernel.writes):
            last[access.tensor] = number
    if operator.category == "Convolution":
        return int(sum(size.values()))
    live = (
        sum(nbytes for tensor, nbytes in size.items() if first[tensor] <= number <= last[tensor])
        for number in range(len(kernels))
    )
    return int(max(live, default=0.0))


def has_model(operator: Operator) -> bool:
    """Whether there is a kernel model for it; not where the result of an imported operator is not known, nor for products in a type
    whose rate is not known."""
    if operator.category in _PRODUCTS and any(use.dtype in WITHOUT_PRODUCTS for use in operator.inputs):
        return False
    return operator.op in LOWERINGS and (bool(operator.outputs) or _without_result(operator))


def _without_result(operator: Operator) -> bool:
    """Whether it leaves nothing on the device by its nature: a copy to the host, a number read by it, a wait for
    another GPU."""
    return any(operator.attributes.get(name) for name in ("transfer", "synchronizes", "waits_for"))
