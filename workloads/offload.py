"""Offloading: a trace whose weights lie in the host's memory and are copied to the device when they are needed.

As diffusers and accelerate do it:

    model       one component at a time (`enable_model_cpu_offload`; accelerate's `cpu_offload_with_hook`): before a component's first
                operator all of its weights go to the device, and those of the one before it back to the host, `module.to("cpu")`,
                which copies them; the last goes back at the end
    sequential  one leaf at a time (`enable_sequential_cpu_offload`): a module's own weights go to the device at each of its calls and
                are dropped after it, for the host has kept them; buffers stay on the device
    group       one block at a time (`apply_group_offloading(offload_type="block_level", use_stream=True, record_stream=True)`): a
                member of a component's list of blocks; while it computes, the next one's weights come on a stream of their own. They
                are dropped afterwards. What is in no list is a group of its own: copied before the component's call and back after
                it, on the main stream

A copy is an operator, one for each tensor, of category 'Offload'. All but those of blocks hold the host up until they are done,
as `tensor.to(device)` does. `pinned` says where the host has the weights; else blocks have them pinned and all others pageable, as
the libraries do.

Not told apart: autoencoders whose whole decoder is one group in diffusers from those whose decoder is taken block by block (all
are); the host's wait for the copy of the block that comes next, beside which it has nothing to do. Left out: what accelerate's hooks
cost in Python, and the first call of a group's module, which copies without prefetching to learn the order.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from simtti.errors import InputError, unknown
from simtti.workloads.trace import OFFLOAD, Operator, Phase, Step, TensorUse, Trace

MODES = ("none", "model", "sequential", "group")
COPY = "aten::_to_copy"
TO_DEVICE, TO_HOST = "host_to_device", "device_to_host"
# Of the components of diffusers: modules whose own lists of blocks are looked into (_group_offload_block_modules).
_NESTED = ("encoder", "decoder")


def offloaded(trace: Trace, mode: str, *, pinned: bool | None = None) -> Trace:
    """`trace` with its weights in the host's memory.

    Args:
        mode: one of MODES.
        pinned: whether that memory is page-locked; None: where the library has it so.

    Raises:
        InputError: an unknown mode; `pinned` without one; measured kernels; a trace that names no components.
    """
    if mode not in MODES:
        raise unknown("offload", mode, MODES)
    if mode == "none":
        if pinned is not None:
            raise InputError(
                f"pinned is {pinned}, but offload is 'none': no weights are in the host's memory; leave it out"
            )
        return trace
    if trace.timing is not None:
        raise InputError(
            f"offload {mode!r} cannot be put into a measured trace of {trace.workload}; use timing model and a recorded one"
        )
    if not trace.parameter_bytes:
        raise InputError(
            f"offload is {mode!r}, but the trace of {trace.workload} does not say what its components are"
        )
    phases = _MAKERS[mode](trace, pinned).phases()
    where = {} if pinned is None else {"pinned": pinned}
    # No component is on the device throughout.
    return replace(
        trace, phases=phases, parameter_bytes={}, options={**trace.options, "offload": mode, **where}
    )


@dataclass
class _Maker:
    """Puts copies into a trace. owners: the component of each weight."""

    trace: Trace
    pinned: bool | None
    owners: dict[int, str] = field(init=False)

    def __post_init__(self) -> None:
        self.owners = _owners(self.trace)

    def phases(self) -> tuple[Phase, ...]:
        """The phases with the copies."""
        return tuple(
            Phase(phase.name, tuple(_numbered(step) for step in self._steps(phase)))
            for phase in self.trace.phases
        )

    def _steps(self, phase: Phase) -> Iterator[Step]:
        for step in phase.steps:
            yield Step(step.count, tuple(self.operators(step.operators)))

    def operators(self, operators: Sequence[Operator]) -> Iterable[Operator]:
        """A step's operators with the copies."""
        raise NotImplementedError

    def component(self, operator: Operator) -> str:
        """Whose forward an operator is part of: its module's, or of a weight that it reads; '' for the pipeline's own."""
        first = operator.module.partition(".")[0]
        if first in self.trace.parameter_bytes:
            return first
        return next((self.owners[use.tensor] for use in operator.inputs if use.tensor in self.owners), "")

    def to_device(
        self, weights: Iterable[TensorUse], at: Operator, *, beside: bool = False
    ) -> Iterator[Operator]:
        """Copies of weights to the device, issued before `at`. beside: while the main stream computes."""
        pinned = beside if self.pinned is None else self.pinned
        attributes: dict[str, object] = {"transfer": TO_DEVICE, "pinned": pinned}
        if beside:
            attributes["overlapped"] = True
        # A copy from pageable memory is staged by the host, on whatever stream.
        if not (beside and pinned):
            attributes["synchronizes"] = True
        for weight in weights:
            yield _copy(at, attributes, outputs=(weight,))

    def to_host(self, weights: Iterable[TensorUse], at: Operator) -> Iterator[Operator]:
        """Copies of weights to the host, issued after `at`, and their end on the device."""
        attributes = {"transfer": TO_HOST, "pinned": bool(self.pinned), "synchronizes": True}
        for weight in weights:
            yield _copy(at, attributes, inputs=(weight,), released=(weight.tensor,))


class _Model(_Maker):
    """One component at a time."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.weights = _whole_components(self.trace, self.owners)
        self.resident = ""

    def phases(self) -> tuple[Phase, ...]:
        *before, last = super().phases()
        # Every pipeline frees its hooks at the end: the last component goes back.
        step = last.steps[-1]
        freed = tuple(self._leave(step.operators[-1]))
        steps = (
            (*last.steps[:-1], _numbered(Step(1, (*step.operators, *freed))))
            if step.count == 1
            else (*last.steps, _numbered(Step(1, freed)))
        )
        return (*before, Phase(last.name, steps))

    def _steps(self, phase: Phase) -> Iterator[Step]:
        """A step that repeats has its copies before it, unless it needs several components each time."""
        for step in phase.steps:
            if step.count == 1:
                yield Step(1, tuple(self.operators(step.operators)))
                continue
            used = [(self.component(operator), operator) for operator in step.operators]
            last = next((component for component, _ in reversed(used) if component), "")
            several = len({component for component, _ in used if component}) > 1
            first = next((operator for component, operator in used if component), step.operators[0])
            enter = tuple(self._enter(last, first)) if last else ()
            if enter:
                yield Step(1, enter)
            yield Step(step.count, tuple(self.operators(step.operators))) if several else step

    def operators(self, operators: Sequence[Operator]) -> Iterator[Operator]:
        for operator in operators:
            component = self.component(operator)
            if component:
                yield from self._enter(component, operator)
            yield operator

    def _enter(self, component: str, at: Operator) -> Iterator[Operator]:
        if component != self.resident:
            yield from self._leave(at)
            self.resident = component
            yield from self.to_device(self.weights[component], at)

    def _leave(self, at: Operator) -> Iterator[Operator]:
        yield from self.to_host(self.weights.get(self.resident, ()), at)
        self.resident = ""


class _Sequential(_Maker):
    """One leaf at a time."""

    def operators(self, operators: Sequence[Operator]) -> Iterator[Operator]:
        for _, run in itertools.groupby(operators, key=lambda operator: operator.module):
            called = list(run)
            weights = [weight for weight in _weights(called) if weight.role == "parameter"]
            yield from self.to_device(weights, called[0])
            yield from _dropping(called, weights)


class _Group(_Maker):
    """One block at a time, the next one's weights on their way."""

    def operators(self, operators: Sequence[Operator]) -> Iterator[Operator]:
        for root, run in itertools.groupby(operators, key=self._root):
            called = list(run)
            yield from self._forward(root, called) if root else called

    def _root(self, operator: Operator) -> str:
        """The module whose call an operator is part of, and whose lists' members are groups."""
        component = self.component(operator)
        if not component or not operator.module.startswith(component):
            return component
        inner = operator.module.split(".")[1:2]
        nested = self.trace.libraries.get(component) == "diffusers" and inner and inner[0] in _NESTED
        return f"{component}.{inner[0]}" if nested else component

    def _forward(self, root: str, called: list[Operator]) -> Iterator[Operator]:
        """A call of `root`'s: its blocks in turn, around them what is in none."""
        parts = [
            (block, list(run))
            for block, run in itertools.groupby(called, key=lambda one: _block(root, one.module))
        ]
        own = list(_weights(one for block, run in parts if not block for one in run))
        held = {weight.tensor for weight in own}
        blocks = [
            [weight for weight in _weights(run) if weight.tensor not in held] for block, run in parts if block
        ]
        coming = iter(blocks)
        yield from self.to_device(own, called[0])
        yield from self.to_device(next(coming, ()), called[0], beside=True)
        present = iter(blocks)
        for block, run in parts:
            if block:
                yield from self.to_device(next(coming, ()), run[0], beside=True)
                yield from _dropping(run, next(present))
            else:
                yield from run
        yield from self.to_host(own, called[-1])


_MAKERS: dict[str, type[_Maker]] = {"model": _Model, "sequential": _Sequential, "group": _Group}


def _block(root: str, module: str) -> str:
    """The member of a list of `root`'s that a module is in, '' where it is in none.

    >>> _block("unet", "unet.down_blocks.0.resnets.1.conv1")
    'unet.down_blocks.0'
    """
    rest = module.removeprefix(root).split(".")[1:3]
    return ".".join((root, *rest)) if len(rest) == 2 and rest[1].isdigit() else ""


def _owners(trace: Trace) -> dict[int, str]:
    """The component of each weight: that of the modules that read it; of one that only the pipeline reads (which casts a VAE, say)
    the one that runs next in its phase, or ran last."""
    owners: dict[int, str] = {}
    others: list[tuple[Phase, int, TensorUse]] = []
    for phase in trace.phases:
        operators = [operator for step in phase.steps for operator in step.operators]
        for at, operator in enumerate(operators):
            component = operator.module.partition(".")[0]
            for use in operator.inputs:
                if use.role not in ("parameter", "buffer"):
                    continue
                if component in trace.parameter_bytes:
                    owners.setdefault(use.tensor, component)
                else:
                    others.append((phase, at, use))
    for phase, at, use in others:
        if use.tensor not in owners:
            found = _near(phase, at, trace.parameter_bytes)
            if found:
                owners[use.tensor] = found
    return owners


def _near(phase: Phase, at: int, components: Iterable[str]) -> str:
    modules = [operator.module.partition(".")[0] for step in phase.steps for operator in step.operators]
    known = set(components)
    order = (*modules[at:], *reversed(modules[:at]))
    return next((module for module in order if module in known), "")


def _weights(operators: Iterable[Operator]) -> Iterator[TensorUse]:
    """The weights and buffers that operators read, each once and whole."""
    seen: set[int] = set()
    for operator in operators:
        for use in operator.inputs:
            if use.role in ("parameter", "buffer") and use.tensor not in seen:
                seen.add(use.tensor)
                yield _whole(use.tensor, use.storage_bytes, use.role)


def _whole(tensor: int, nbytes: int, role: str) -> TensorUse:
    """A storage as bytes."""
    return TensorUse(tensor, (nbytes,), (1,), "uint8", nbytes, role)


def _whole_components(trace: Trace, owners: dict[int, str]) -> dict[str, list[TensorUse]]:
    """All that `component.to(device)` copies: the weights that operators read, and the rest of the component's bytes in one."""
    found: dict[str, list[TensorUse]] = {component: [] for component in trace.parameter_bytes}
    for weight in _weights(trace.operators()):
        if weight.tensor in owners:
            found[owners[weight.tensor]].append(weight)
    fresh = itertools.count(
        1 + max((use.tensor for op in trace.operators() for use in (*op.inputs, *op.outputs)), default=0)
    )
    for component, nbytes in trace.parameter_bytes.items():
        seen = sum(weight.storage_bytes for weight in found[component] if weight.role == "parameter")
        if nbytes > seen:
            found[component].append(_whole(next(fresh), nbytes - seen, "parameter"))
    return found


def _dropping(operators: Sequence[Operator], weights: Sequence[TensorUse]) -> Iterator[Operator]:
    """The operators; after the last the device no longer holds `weights`."""
    *before, last = operators
    yield from before
    gone = tuple(weight.tensor for weight in weights)
    yield replace(last, released=(*last.released, *gone)) if gone else last


def _copy(
    at: Operator,
    attributes: dict[str, object],
    inputs: tuple[TensorUse, ...] = (),
    outputs: tuple[TensorUse, ...] = (),
    released: tuple[int, ...] = (),
) -> Operator:
    """A copy between host and device, in the phase and module of `at`."""
    return replace(
        at, op=COPY, category=OFFLOAD, inputs=inputs, outputs=outputs, attributes=attributes, is_view=False,
        released=released,
    )  # fmt: skip


def _numbered(step: Step) -> Step:
    return Step(step.count, tuple(replace(one, position=at) for at, one in enumerate(step.operators)))
