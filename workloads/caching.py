"""Caches of transformer blocks between denoising steps, as a pass over a trace: which blocks run in which steps is edited, and what
the caches do themselves is added.

    cached(trace, "fbcache:0.6")     # 60 % of the steps skip all blocks but the first

What a step that compares adds, per pass through the blocks (`cache_schedule.METHODS` says which method does what):

    residual     what the first blocks add to the hidden states; its difference to the last computed one and that one itself, each
                 abs() and mean(); their quotient, read by the host (.item(): it waits)
    input        the first block's norm once more, on a copy of the hidden states; the same comparison of its result

A step that runs whole keeps what the cached blocks add: a subtraction for each stream. One that hits adds that to what the blocks
before leave, and the operators of the cached blocks are not there. Steps that do the same are stored once, with their count, in
the order in which they first occur.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from simtti.errors import InputError
from simtti.workloads.blocks import Blocks, block_of, passes
from simtti.workloads.cache_schedule import Cache, Kind, cache_of
from simtti.workloads.rewriting import Writer, let_go_after_last_use, made_within, renumbered, with_identities
from simtti.workloads.trace import Operator, Phase, Step, TensorUse, Trace

Interval = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Segment:
    """Blocks first to end - 1, of which those from start to stop - 1 are cached."""

    first: int
    start: int
    stop: int


def cached(trace: Trace, given: str | Cache) -> Trace:
    """`trace` with a cache of its denoiser's transformer blocks.

    Args:
        given: as for `--cache` (`cache_schedule`).

    Raises:
        InputError: what is given cannot be read or does not fit the number of steps or blocks; a denoiser without a row of
            transformer blocks; measured kernels; steps that are stored one by one.
    """
    cache = cache_of(given) if isinstance(given, str) else given
    if trace.timing is not None:
        raise InputError(
            f"cache {cache.given!r} cannot be put into a measured trace of {trace.workload}; use timing model and a recorded one"
        )
    later: set[int] = set()  # tensors that phases after this one read
    phases: list[Phase] = []
    hits = 0
    found = False
    writer = Writer(trace)
    for phase in reversed(trace.phases):
        if phase.name in trace.schedule and any(
            block_of(operator.module) for step in phase.steps for operator in step.operators
        ):
            found = True
            made, phase_hits = _phase(trace.workload, phase, cache, writer, later)
            phases.append(made)
            hits += phase_hits
        else:
            phases.append(phase)
        later.update(use.tensor for step in phase.steps for op in step.operators for use in op.inputs)
    if not found:
        raise InputError(
            f"cache {cache.given!r}: the denoiser of {trace.workload} is no row of transformer blocks, which these caches skip "
            "(a UNet's levels feed each other); leave --cache out"
        )
    options = {**trace.options, "cache": cache.given, "cache_hits": hits}
    return replace(trace, phases=tuple(reversed(phases)), options=options)


def _phase(workload: str, phase: Phase, cache: Cache, writer: Writer, later: set[int]) -> tuple[Phase, int]:
    if len(phase.steps) != 1:
        raise InputError(
            f"cache {cache.given!r}: the trace of {workload} stores {len(phase.steps)} steps one by one in phase {phase.name}; "
            "give one whose steps are stored once, with their count"
        )
    step = phase.steps[0]
    counts = Counter(cache.kinds(step.count))  # in the order in which they first occur
    editor = _Editor(workload, step.operators, cache, list(counts), writer)
    steps: list[Step] = []
    for number, (kind, count) in enumerate(counts.items()):
        operators = editor.step(kind)
        if number:
            own = made_within(operators) - editor.kept - later
            operators = with_identities(operators, {tensor: writer.identity() for tensor in own})
        steps.append(Step(count, renumbered(operators, number)))
    hits = sum(count for kind, count in counts.items() if kind.hit or kind.run is not None)
    return Phase(phase.name, tuple(steps)), hits


class _Editor:
    """Edits a step. kept: tensors that live from step to step."""

    def __init__(
        self,
        workload: str,
        operators: Sequence[Operator],
        cache: Cache,
        kinds: Sequence[Kind],
        writer: Writer,
    ) -> None:
        self.workload, self.operators, self.cache, self.method = workload, operators, cache, cache.method
        self.writer = writer
        self.passes = passes(operators)
        self.segments = [self._segments(blocks) for blocks in self.passes]
        self.skips = {
            kind: [self._skips(kind, number) for number in range(len(self.passes))] for kind in kinds
        }
        self.intervals = [
            sorted({interval for skips in self.skips.values() for interval in skips[number]}
                   | {(one.start, one.stop) for one in self.segments[number]})
            for number in range(len(self.passes))
        ]  # fmt: skip
        self._buffers: dict[object, TensorUse] = {}
        self._renamed: dict[int, list[TensorUse]] = {}  # what stands for a tensor of skipped blocks

    @property
    def kept(self) -> set[int]:
        return {use.tensor for use in self._buffers.values()}

    # ---- which blocks

    def _segments(self, blocks: Blocks) -> list[Segment]:
        if self.method.name == "none":
            return []
        lists = [count for _, count in blocks.lists] if self.method.each_list else [len(blocks)]
        found, first = [], 0
        for count in lists:
            start, stop = first + self.method.fn, first + count - self.method.bn
            if start >= stop:
                raise InputError(
                    f"cache {self.cache.given!r}: fn {self.method.fn} and bn {self.method.bn} leave none of {self.workload}'s "
                    f"{count} blocks to skip; together they must be less"
                )
            found.append(Segment(first, start, stop))
            first += count
        return found

    def _skips(self, kind: Kind, number: int) -> list[Interval]:
        """The runs of blocks that a step leaves out."""
        if kind.run is None:
            return [(one.start, one.stop) for one in self.segments[number]] if kind.hit else []
        blocks = len(self.passes[number])
        if kind.run[-1] >= blocks:
            raise InputError(
                f"{self.cache.given}: run names block {kind.run[-1]}; {self.workload} has {blocks}, from 0 on"
            )
        if self.method.tests == "residual":
            needed = {block for one in self.segments[number] for block in range(one.first, one.start)}
            if missing := needed - set(kind.run):
                raise InputError(
                    f"{self.cache.given}: block {min(missing)} is not run, but {self.method.name} compares what it adds; run it, "
                    "or say `cache: none`"
                )
        found: list[Interval] = []
        for block in sorted(set(range(blocks)) - set(kind.run)):
            if found and found[-1][1] == block:
                found[-1] = (found[-1][0], block + 1)
            else:
                found.append((block, block + 1))
        return found

    # ---- a step

    def step(self, kind: Kind) -> list[Operator]:
        """The operators of a step of that kind."""
        self._renamed = {}
        events: dict[int, list[Callable[[], list[Operator]]]] = {}
        gone: set[int] = set()
        for number in range(len(self.passes)):
            self._plan(kind, number, events, gone)
        skipped = made_within([self.operators[at] for at in sorted(gone)])
        made: list[Operator] = []
        for at, operator in enumerate((*self.operators, None)):
            for event in events.get(at, ()):
                made += event()
            if operator is None:
                continue
            if at not in gone:
                made.append(self._resolved(operator))
            elif made and (released := tuple(one for one in operator.released if one not in skipped)):
                made[-1] = replace(made[-1], released=(*made[-1].released, *released))
        self._check(made, skipped)
        told = any(operator.released for operator in self.operators)
        return let_go_after_last_use(made) if told else [replace(one, released=()) for one in made]

    def _plan(
        self, kind: Kind, number: int, events: dict[int, list[Callable[[], list[Operator]]]], gone: set[int]
    ) -> None:
        blocks, skips = self.passes[number], self.skips[kind][number]

        def at(position: int, event: Callable[[], list[Operator]]) -> None:
            events.setdefault(position, []).append(event)

        for segment in self.segments[number]:
            if self.method.tests == "input":
                at(blocks.begins[segment.first], lambda s=segment: self._test_input(kind, number, s))  # type: ignore[misc]
            elif self.method.tests == "residual":
                at(blocks.ends[segment.start - 1], lambda s=segment: self._test_residual(kind, number, s))  # type: ignore[misc]
        for start, stop in self.intervals[number]:
            if (start, stop) in skips:
                at(blocks.begins[start], lambda i=(start, stop): self._add(number, i))  # type: ignore[misc]
                gone.update(range(blocks.begins[start], blocks.ends[stop - 1]))
            elif not any(start < end and begin < stop for begin, end in skips):
                if self.method.tests == "input":
                    at(blocks.begins[start], lambda i=(start, stop): self._copy(number, i))  # type: ignore[misc]
                at(blocks.ends[stop - 1], lambda i=(start, stop): self._keep(number, i))  # type: ignore[misc]

    def _check(self, made: Sequence[Operator], skipped: set[int]) -> None:
        """That nothing reads what the skipped blocks would have made."""
        lost = skipped - {use.tensor for operator in made for use in operator.outputs}
        for operator in made:
            if any(use.tensor in lost for use in operator.inputs):
                raise InputError(
                    f"cache {self.cache.given!r}: {operator.module} of {self.workload} reads more than the stream of what the "
                    "skipped blocks make; let blocks run from the front only (dbcache with bn=0)"
                )

    # ---- what is added

    def _test_residual(self, kind: Kind, number: int, segment: Segment) -> list[Operator]:
        before, after = self._states(number, segment.first, 1)[0], self._states(number, segment.start, 1)[0]
        self._in_block(number, segment.start - 1)
        last = self._buffer(("test", number, segment), after)
        if not kind.tested:
            return [self.writer.call("sub", (after, before), (last,))]
        residual = self.writer.like(after)
        return [self.writer.call("sub", (after, before), (residual,)), *self._compare(residual, last)]

    def _test_input(self, kind: Kind, number: int, segment: Segment) -> list[Operator]:
        """TeaCache4FLUX: `transformer_blocks[0].norm1(hidden_states.clone(), emb=temb)`, then the comparison."""
        hidden = self._states(number, segment.first, 1)[0]
        norm, result = self._norm(number, segment.first, hidden)
        self._in_block(number, segment.first)
        copy = self.writer.like(hidden)
        last = self._buffer(("test", number, segment), result)
        identities = {tensor: self.writer.identity() for tensor in made_within(norm)}
        identities[hidden.tensor] = copy.tensor
        if not kind.tested:
            identities[result.tensor] = last.tensor
        own = set(identities.values())
        ours = [
            replace(one, released=tuple(tensor for tensor in one.released if tensor in own - {last.tensor}))
            for one in with_identities(norm, identities)
        ]
        now = replace(result, tensor=identities[result.tensor])
        let_go = own - {now.tensor, *(tensor for one in ours for tensor in one.released)}
        ours[-1] = replace(ours[-1], released=(*ours[-1].released, *sorted(let_go)))
        test = self._compare(now, last) if kind.tested else []
        return [self.writer.call("clone", (hidden,), (copy,)), *ours, *test]

    def _norm(self, number: int, first: int, hidden: TensorUse) -> tuple[list[Operator], TensorUse]:
        """The operators of a block before its attention that make the hidden states' modulated input, and that."""
        blocks = self.passes[number]
        found: list[Operator] = []
        result = hidden
        for operator in self.operators[blocks.begins[first] : blocks.ends[first]]:
            inner = operator.module.split(".", 3)[3:]
            if inner and inner[0].startswith("attn"):
                break
            if inner and "context" in inner[0]:
                continue
            found.append(operator)
            for use in operator.outputs:
                if use.shape == hidden.shape and use.dtype == hidden.dtype and not operator.is_view:
                    result = use
        return found, result

    def _compare(self, now: TensorUse, last: TensorUse) -> list[Operator]:
        """(now - last).abs().mean() / last.abs().mean(), which the host reads."""
        call, like = self.writer.call, self.writer.like
        difference, size, size_before = like(now), like(now), like(last)
        mean, mean_before, quotient = (self.writer.made((), now.dtype) for _ in range(3))
        return [
            call("sub", (now, last), (difference,)),
            call("abs", (difference,), (size,), released=(difference,)),
            call("mean", (size,), (mean,), released=(size,)),
            call("abs", (last,), (size_before,)),
            call("mean", (size_before,), (mean_before,), released=(size_before,)),
            call("div", (mean, mean_before), (quotient,), released=(mean, mean_before)),
            call("_local_scalar_dense", (quotient,), (), {"synchronizes": True}, released=(quotient, now)),
        ]

    def _copy(self, number: int, interval: Interval) -> list[Operator]:
        """TeaCache keeps the hidden states that the blocks are given as a copy."""
        hidden = self._states(number, interval[0], 1)[0]
        self._in_block(number, interval[0])
        copy = self._buffers["copy", number, interval] = self.writer.like(hidden)
        return [self.writer.call("clone", (hidden,), (copy,))]

    def _keep(self, number: int, interval: Interval) -> list[Operator]:
        """Keep what the blocks of an interval add."""
        self._in_block(number, interval[1] - 1)
        copy = self._buffers.pop(("copy", number, interval), None)
        pairs = self._both(number, interval)
        found = []
        for stream, (before, after) in enumerate(pairs):
            kept = self._buffer(("kept", number, interval, stream), after)
            read = copy if copy is not None else before
            found.append(
                self.writer.call("sub", (after, read), (kept,), released=(copy,) if copy is not None else ())
            )
        return found

    def _add(self, number: int, interval: Interval) -> list[Operator]:
        """In place of the blocks of an interval: what they added last."""
        self._in_block(number, max(interval[0] - 1, 0))
        found = []
        for stream, (before, after) in enumerate(self._both(number, interval)):
            kept = self._buffer(("kept", number, interval, stream), after)
            result = self.writer.like(after)
            self._renamed.setdefault(after.tensor, []).append(result)
            found.append(self.writer.call("add", (before, kept), (result,)))
        for before, after in self._passed_on(number, interval):
            self._renamed.setdefault(after.tensor, []).append(before)
        return found

    # ---- tensors

    def _in_block(self, number: int, block: int) -> None:
        """What is made next stands in the module of a block: no further one is called."""
        operator = self.operators[self.passes[number].begins[block]]
        found = block_of(operator.module)
        assert found is not None
        self.writer.phase, self.writer.step = operator.phase, operator.step
        self.writer.module = f"{found[0]}.{found[1]}"

    def _buffer(self, key: object, like: TensorUse) -> TensorUse:
        """A tensor that lives from step to step."""
        if key not in self._buffers:
            self._buffers[key] = self.writer.like(like)
        return self._buffers[key]

    def _states(self, number: int, block: int, streams: int | None = None) -> list[TensorUse]:
        """What is handed to a block, as it is called by now."""
        found = self.passes[number].states[block][:streams]
        return [self._named(use) for use in found if use is not None]

    def _both(self, number: int, interval: Interval) -> list[tuple[TensorUse, TensorUse]]:
        """The streams that an interval is cached of: before it, and after it."""
        return self._pairs(number, interval, slice(None) if self.method.text else slice(1))

    def _passed_on(self, number: int, interval: Interval) -> list[tuple[TensorUse, TensorUse]]:
        """The streams that go past skipped blocks as they are."""
        return [] if self.method.text else self._pairs(number, interval, slice(1, None))

    def _pairs(self, number: int, interval: Interval, streams: slice) -> list[tuple[TensorUse, TensorUse]]:
        states = self.passes[number].states
        return [
            (self._named(before), after)
            for before, after in zip(states[interval[0]][streams], states[interval[1]][streams], strict=True)
            if before is not None and after is not None
        ]

    def _named(self, use: TensorUse) -> TensorUse:
        """A tensor of skipped blocks as what stands for it."""
        stands = self._renamed.get(use.tensor)
        if not stands:
            return use
        for other in stands:
            if other.shape == use.shape:
                return other
        return replace(use, tensor=stands[0].tensor, storage_bytes=stands[0].storage_bytes)

    def _resolved(self, operator: Operator) -> Operator:
        if not self._renamed:
            return operator
        released = [
            other
            for tensor in operator.released
            for other in (
                [use.tensor for use in self._renamed[tensor]] if tensor in self._renamed else [tensor]
            )
        ]
        return replace(
            operator,
            inputs=tuple(map(self._named, operator.inputs)),
            outputs=tuple(map(self._named, operator.outputs)),
            released=tuple(dict.fromkeys(released)),
        )
