"""The timeline of a Result in the Chrome trace event format, which ui.perfetto.dev opens.

Of the host: the phases with their steps, and the operators it issues, within their modules, with an arrow to each kernel. Of the GPU: a
track a stream, the modules that its kernels belong to, counters of power, clock, memory, HBM, link and tensor cores. Of the other GPUs
that share the inference, which do the same: their phases and communication.

A step that repeats is drawn as often as it was simulated. The others are one slice that says how many they are, over which counters
have their mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from simtti.simulator.engine.peak_memory import allocated_by_row
from simtti.simulator.engine.program import MAIN
from simtti.simulator.power_of_run import power_over_time
from simtti.simulator.share import ON_ONE_GPU, SeveralGPUs
from simtti.workloads.chrome_events import Events, Span, Track, nanoseconds, nested

if TYPE_CHECKING:
    from simtti.simulator.engine.outcome import KernelInterval, Repetition
    from simtti.simulator.result import Result  # circle: a type only

# As Kineto has them: GPUs by number, a process by its own, the first stream is 7.
_HOST, _GPU = 1 << 16, 0
_PHASES, _OPERATORS = Track(_HOST, 1), Track(_HOST, 2)
_MODULES = Track(_GPU, 3)
_STREAM = 7
_THREADS = 1000  # of a GPU: the numbers of the next one's begin behind them
_IDLE_GAPS = 1.5  # longer than so many launch gaps, nothing runs
_INNERMOST = 1 << 10
_COMMUNICATION = "Communication"


class _Drawn(NamedTuple):
    """A step as it is drawn: name and number in its phase, the repetition it was simulated as (None for those passed over)."""

    phase: str
    name: str
    start_ns: int
    end_ns: int
    repetition: Repetition | None


def chrome_trace(result: Result) -> str:
    """The timeline as JSON text."""
    events, steps = Events(), list(_steps(result))
    events.process(_HOST, "Host", -1)
    events.thread(_PHASES, "phases and steps")
    events.thread(_OPERATORS, "operators")
    _draw_phases(events, _PHASES, result, steps)
    many = result.several_gpus
    events.process(_GPU, f"GPU 0 of {many.gpus}" if many else "GPU 0")
    events.thread(_MODULES, "modules")
    for stream, what in sorted(_streams(result).items()):
        events.thread(Track(_GPU, _STREAM + stream), f"stream {_STREAM + stream}{what}")
    for step in steps:
        if step.repetition is not None:
            _draw_host(events, result, step.repetition)
            _draw_device(events, result, step.repetition)
    _count_use(events, result, steps)
    _count_power(events, result)
    _count_memory(events, result)
    if many:
        for gpu in range(1, many.gpus):
            _draw_other(events, gpu, many, result, steps)
    return events.text(
        deviceProperties=[
            {"id": gpu, "name": result.hardware.name, "numSms": result.hardware.sm_count}
            for gpu in range(many.gpus if many else 1)
        ],
        traceName=f"simtti run {result.trace.workload} --hw {result.hardware.name}",
    )


def _steps(result: Result) -> Iterator[_Drawn]:
    """Every step in order, one after another: those passed over together, behind the one that they are like."""
    skipped, at_ns = iter(sorted(result.outcome.skipped)), 0
    ends_ns = {name: nanoseconds(end_s) for name, end_s in result.outcome.phase_ends_s}
    before = {
        (phase.name, number): sum(step.count for step in phase.steps[:number])
        for phase in result.trace.phases
        for number in range(len(phase.steps))
    }
    for item in result.repetitions:
        span = next(skipped, None) if item.times > 1 else None
        if not item.launches:
            continue
        operator = result.rows[item.rows[0]][0]
        number = before[operator.phase, operator.step] + item.number + 1
        start_ns = max(at_ns, nanoseconds(item.ran.start_s[0]))
        at_ns = max(start_ns, min(nanoseconds(max(item.ran.end_s)), ends_ns[operator.phase]))
        yield _Drawn(operator.phase, f"step {number}", start_ns, at_ns, item)
        if span is not None:
            start_ns, at_ns = at_ns, max(at_ns, nanoseconds(span[1]))
            name = f"{span[2]} steps like step {number}: not drawn"
            yield _Drawn(operator.phase, name, start_ns, at_ns, None)


def _streams(result: Result) -> dict[int, str]:
    """The streams on which something runs, and what it is where it is one kind of thing."""
    kinds: dict[int, set[str]] = {MAIN: set()}
    for item in result.repetitions:
        for row, stream in zip(item.rows, item.streams, strict=True):
            kinds.setdefault(stream, set()).add(result.rows[row][0].category)
    return {
        stream: f": {next(iter(found)).lower()}" if stream != MAIN and len(found) == 1 else ""
        for stream, found in kinds.items()
    }


def _draw_phases(
    events: Events, track: Track, result: Result, steps: list[_Drawn], waits: tuple[str, ...] = ()
) -> None:
    """The phases, and their steps where they are more than one. waits: phases of which the GPU has none."""
    start_ns = 0
    for phase, (_, end_s) in zip(result.phases, result.outcome.phase_ends_s, strict=True):
        end_ns = max(start_ns, nanoseconds(end_s))
        if phase.name in waits:
            events.slice(track, f"waits for GPU 0: {phase.name}", "phase", start_ns, end_ns)
        else:
            events.slice(track, phase.name, "phase", start_ns, end_ns, {"steps": phase.steps})
            for step in steps:
                if step.phase == phase.name and phase.steps > 1:
                    events.slice(track, step.name, "step", step.start_ns, step.end_ns, depth=1)
        start_ns = end_ns


def _draw_host(events: Events, result: Result, item: Repetition) -> None:
    """The operators that the host issues, the modules around them, and an arrow from each to what it launched. Of a CUDA graph it
    issues none."""
    issued_s, spans = item.ran.issued_s, []
    for (row, begin, end), operator in zip(item.spans, item.operators(), strict=True):
        start_ns, end_ns = nanoseconds(operator.start_s), nanoseconds(operator.end_s)
        if end_ns <= start_ns or not any(item.host_s[begin:end]):
            continue
        of = result.rows[row][0]
        spans.append(Span(of.module, start_ns, end_ns))
        events.slice(_OPERATORS, of.op, "cpu_op", start_ns, end_ns, depth=_INNERMOST)
        for launch in range(begin, end):
            called_ns = nanoseconds(issued_s[launch] - item.host_s[launch])
            called_ns = min(max(called_ns, start_ns), end_ns - 1)
            stream = Track(_GPU, _STREAM + item.streams[launch])
            events.arrow(_OPERATORS, called_ns, stream, nanoseconds(item.ran.start_s[launch]))
    _draw_modules(events, _OPERATORS, spans)


def _draw_device(events: Events, result: Result, item: Repetition) -> None:
    """The kernels on their streams, and the modules of those on the main one."""
    spans = []
    for interval in item.kernels():
        operator, start_ns, end_ns = (
            result.rows[interval.operator][0],
            nanoseconds(interval.start_s),
            nanoseconds(interval.end_s),
        )
        stream = Track(_GPU, _STREAM + interval.stream)
        events.slice(stream, interval.kernel.name, "kernel", start_ns, end_ns, _facts(result, interval))
        if interval.stream == MAIN:
            spans.append(Span(operator.module, start_ns, end_ns))
    _draw_modules(events, _MODULES, spans)


def _draw_modules(events: Events, track: Track, spans: list[Span]) -> None:
    for name, path, start_ns, end_ns, depth in nested(spans):
        events.slice(track, name, "module", start_ns, end_ns, {"module": path}, depth)


def _facts(result: Result, interval: KernelInterval) -> dict[str, Any]:
    operator, kernel = result.rows[interval.operator][0], interval.kernel
    facts = {
        "stream": _STREAM + interval.stream,
        "device": 0,
        "operator": operator.op,
        "module": operator.module,
        "category": operator.category,
        "grid": [kernel.grid, 1, 1],
        "block": [kernel.threads, 1, 1],
        "flops": kernel.flops,
        "hbm_bytes": interval.hbm_bytes,
    }
    return facts | ({"link_bytes": kernel.link_bytes} if operator.category == _COMMUNICATION else {})


def _draw_other(events: Events, gpu: int, many: SeveralGPUs, result: Result, steps: list[_Drawn]) -> None:
    """A GPU that does what GPU 0 does, at the same time. The stages of a pipeline differ: of those no communication is drawn."""
    events.process(gpu, f"GPU {gpu} of {many.gpus}: {'another stage' if many.pipefusion > 1 else 'as GPU 0'}")
    phases = Track(gpu, gpu * _THREADS)
    events.thread(phases, "phases and steps")
    _draw_phases(events, phases, result, steps, () if many.parallel_vae else ON_ONE_GPU)
    if many.pipefusion > 1:
        return
    named: set[int] = set()
    for step in steps:
        if step.repetition is None or (step.phase in ON_ONE_GPU and not many.parallel_vae):
            continue
        for interval in step.repetition.kernels():
            if result.rows[interval.operator][0].category != _COMMUNICATION:
                continue
            track = Track(gpu, gpu * _THREADS + _STREAM + interval.stream)
            if interval.stream not in named:
                events.thread(track, f"stream {_STREAM + interval.stream}: communication")
                named.add(interval.stream)
            start_ns, end_ns = nanoseconds(interval.start_s), nanoseconds(interval.end_s)
            events.slice(
                track,
                interval.kernel.name,
                "kernel",
                start_ns,
                end_ns,
                _facts(result, interval) | {"device": gpu},
            )


# ---- counters


class _Counter:
    """Writes a value when it is another than before, in three digits."""

    def __init__(self, events: Events, name: str) -> None:
        self._events, self._name, self._last = events, name, -1.0

    def __call__(self, at_ns: int, value: float) -> None:
        value = float(f"{value:.3g}")
        if value != self._last:
            self._events.counter(_GPU, self._name, at_ns, value)
            self._last = value


def _count_use(events: Events, result: Result, steps: list[_Drawn]) -> None:
    """HBM's and the tensor cores' use by the kernels of the main stream, the link's by all; 0 where nothing runs, but for gaps between
    launches; means where steps are passed over."""
    hbm, tensor, link = (_Counter(events, name) for name in ("HBM GB/s", "tensor cores %", "link GB/s"))
    gap_ns = _IDLE_GAPS * result.hardware.launch_s * 1e9
    end_ns, mean = 0, (0.0, 0.0, 0.0)
    for step in steps:
        if step.repetition is None:
            hbm(step.start_ns, mean[0])
            tensor(step.start_ns, mean[1])
            if result.several_gpus:
                link(step.start_ns, mean[2])
                link(step.end_ns, 0.0)
            end_ns = step.end_ns
            continue
        moved = busy_s = sent = 0.0
        for interval in step.repetition.kernels():
            start_ns, lasts_s = nanoseconds(interval.start_s), interval.duration_s
            sends = interval.kernel.link_bytes
            sent += sends
            if sends and lasts_s:
                link(start_ns, sends / lasts_s / 1e9)
                link(nanoseconds(interval.end_s), 0.0)
            if interval.stream != MAIN or not lasts_s:
                continue
            moved += interval.hbm_bytes
            busy_s += interval.busy.tensor
            if start_ns - end_ns > gap_ns:
                hbm(end_ns, 0.0)
                tensor(end_ns, 0.0)
            hbm(start_ns, interval.hbm_bytes / lasts_s / 1e9)
            tensor(start_ns, 100 * interval.busy.tensor / lasts_s)
            end_ns = nanoseconds(interval.end_s)
        lasted_s = max(step.end_ns - step.start_ns, 1) / 1e9
        mean = (moved / lasted_s / 1e9, 100 * busy_s / lasted_s, sent / lasted_s / 1e9)
    hbm(end_ns, 0.0)
    tensor(end_ns, 0.0)


def _count_power(events: Events, result: Result) -> None:
    """The board's power and the clock of its kernels, over the windows that the limit is held over."""
    power, clock = _Counter(events, "power W"), _Counter(events, "SM clock MHz")
    for window in power_over_time(result):
        at_ns = nanoseconds(window.start_s)
        power(at_ns, window.power_w)
        clock(at_ns, window.clock * result.hardware.clock_hz / 1e6)


def _count_memory(events: Events, result: Result) -> None:
    """What PyTorch has allocated while an operator runs, its workspaces included; nothing where that is not known."""
    if result.memory is None:
        return
    held = allocated_by_row(result.trace, result.rows, result.hardware)
    counter = _Counter(events, "allocated GiB")
    counter(0, held[0] / 2**30)
    for item in result.repetitions:
        for row, begin, _ in item.spans:
            counter(nanoseconds(item.ran.start_s[begin]), held[row] / 2**30)
