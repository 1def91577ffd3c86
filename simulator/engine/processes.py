"""Host and streams as SimPy processes that share a device.

The host issues launches to streams ahead of time, as far as their queues allow; a stream takes them in order, each at the
earliest one launch gap after the one before, and holds the device until the kernel has ended. Kernels of different streams
contend there for SMs, L2 and HBM; a copy engine's copies and what comes over a link go on beside them.

The host stamps each launch with the time at which it issues it and sleeps where it has to: at a full queue, at a result that it
waits for, at the end of a repetition. Nothing could happen to it in between.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from typing import Any

import simpy
from simpy.events import Timeout

from simtti.simulator.engine.device import Device
from simtti.simulator.engine.outcome import Outcome, Repetition
from simtti.simulator.engine.preparation import Preparation, Traffic
from simtti.simulator.engine.program import MAIN, Program
from simtti.simulator.engine.steady import SAME_PERIOD, End, steady
from simtti.simulator.engine.stream import Ran
from simtti.workloads.trace import Step, Trace

Process = Generator[simpy.Event, Any, None]


def run_processes(trace: Trace, prepared: Preparation, fidelity: str) -> Outcome:
    """When everything of an inference happens."""
    return _Inference(prepared, fidelity).run(trace)


class _Issued:
    """A repetition on its way: what the streams know of it, and when each of its launches has ended."""

    __slots__ = ("ended", "left", "program", "ran", "traffic")

    def __init__(self, program: Program, traffic: Traffic) -> None:
        count = len(program.kernels)
        self.program, self.traffic = program, traffic
        self.ran = Ran([0.0] * count, [0.0] * count, [0.0] * count, [0.0] * count, 0.0)
        self.left = count  # launches that have not ended
        self.ended: dict[int, simpy.Event] = {}  # of those that somebody waits for


class _Queue:
    """A stream's launches that it has not taken yet, and its clock.

    left: how many launches it has not taken, marks not counted. taken: when it took each of the last `depth`. filled: where it waits
    for something to come; room: where the host waits until no more than `most` are left. shift_s: what repetitions that are passed over later in the
    queue add to the times of `taken`, which are those of their launches then.
    """

    __slots__ = ("ended_s", "filled", "items", "left", "most", "room", "shift_s", "taken")

    def __init__(self, depth: int) -> None:
        self.items: deque[Any] = deque()
        self.left = 0
        self.shift_s = 0.0
        self.taken: deque[float] = deque([float("-inf")] * depth, maxlen=depth)
        self.ended_s = float("-inf")
        self.filled: simpy.Event | None = None
        self.room: simpy.Event | None = None
        self.most = depth - 1


class _Skip:
    """In a queue: `repetitions` of a step that take `seconds` together and are not played out."""

    __slots__ = ("repetitions", "seconds")

    def __init__(self, seconds: float, repetitions: int) -> None:
        self.seconds, self.repetitions = seconds, repetitions


class _Inference:
    def __init__(self, prepared: Preparation, fidelity: str) -> None:
        self.prepared = prepared
        self.env = simpy.Environment()
        self.device = Device(self.env, prepared.hardware, fidelity)
        self.depth = prepared.host.queue_depth
        self.queues: dict[int, _Queue] = {}
        self.processes = 0
        self.repetitions: list[Repetition] = []
        self.skipped: list[tuple[float, float, int]] = []
        self.phase_ends_s: list[tuple[str, float]] = []
        self.host_s = 0.0  # when the host was through

    def run(self, trace: Trace) -> Outcome:
        if self.prepared.on_one_stream(trace):
            # When each launch was issued follows from when those before were taken, and nobody looks at it before it is taken itself:
            # the host need not wake for each of a queue that is full.
            self._queue(MAIN).most = self.depth // 2
        self._queue(MAIN)
        self._process(self._host(trace))
        self.env.run()
        events = next(self.env._eid)  # SimPy numbers its events as it schedules them
        return Outcome(
            max(self.host_s, *(queue.ended_s for queue in self.queues.values())),
            self.repetitions,
            self.skipped,
            self.phase_ends_s,
            events,
            self.processes,
            self.device.contended,
        )

    def _process(self, process: Process) -> None:
        self.processes += 1
        self.env.process(process)

    def _queue(self, stream: int) -> _Queue:
        if stream not in self.queues:
            self.queues[stream] = _Queue(self.depth)
            self._process(self._stream(stream))
        return self.queues[stream]

    # ---- the host

    def _host(self, trace: Trace) -> Process:
        """Every phase, every step, every repetition, as fast as it can."""
        host_s = 0.0
        for phase in trace.phases:
            for step in phase.steps:
                host_s = yield from self._step(step, host_s)
            if self.repetitions:
                self._put(MAIN, phase.name)
        self.host_s = host_s
        if host_s > self.env.now:
            yield self.env.timeout(host_s - self.env.now)

    def _step(self, step: Step, host_s: float) -> Generator[simpy.Event, Any, float]:
        program = self.prepared.program(step)
        traffic: Traffic | None = None
        issued: deque[tuple[float, _Issued, Any]] = (
            deque()
        )  # repetitions that have not ended: host_s, what, L2
        ends: list[End] = []
        for number in range(step.count):
            if not number:
                started_s = host_s
            while issued and not issued[0][1].left:
                ended_host_s, whole, l2 = issued.popleft()
                if not ends:
                    before_s = min(whole.ran.free_s)
                    ends.append(End(started_s, before_s, None))
                ends.append(End(ended_host_s, max(whole.ran.end_s), l2))
            left = step.count - number
            period = steady(ends)
            if period is not None:
                self.repetitions[-1] = self.repetitions[-1]._replace(times=1 + left)
                return (
                    yield from self._pass_over(left, left * period.stream_s, host_s + left * period.host_s)
                )
            traffic = self.prepared.traffic(program, traffic)
            if not program.kernels:
                continue
            whole = _Issued(program, traffic)
            ran = whole.ran
            self.repetitions.append(
                Repetition(
                    number,
                    1,
                    program.rows,
                    program.spans,
                    program.host_s,
                    program.streams,
                    traffic.launches,
                    traffic.governed,
                    ran,
                    program.tail_s,
                )
            )
            host_s = (yield from self._issue(whole, host_s)) + program.tail_s
            issued.append((host_s, whole, traffic.l2.state))
            if host_s > self.env.now:
                yield self.env.timeout(host_s - self.env.now)
        return host_s

    def _issue(self, whole: _Issued, host_s: float) -> Generator[simpy.Event, Any, float]:
        """Put a repetition's launches into the queues of their streams. Returns when the host has issued the last."""
        program, issued_s = whole.program, whole.ran.issued_s
        for launch, (before_s, stream, waits) in enumerate(
            zip(program.host_s, program.streams, program.waits, strict=True)
        ):
            host_s += before_s
            issued_s[launch] = host_s
            queue = self.queues.get(stream) or self._queue(stream)
            queue.left += 1
            queue.items.append((whole, launch))
            if queue.filled is not None:
                self._fill(queue)
            if waits:
                yield self._end_of(whole, launch)
                host_s = whole.ran.end_s[launch]
            else:
                if queue.left >= self.depth:
                    yield from self._room(queue)
                if queue.taken[queue.left] > host_s:  # the queue was full until then
                    host_s = queue.taken[queue.left]
        return host_s

    def _pass_over(
        self, repetitions: int, seconds: float, host_s: float
    ) -> Generator[simpy.Event, Any, float]:
        """Let repetitions of a step pass. Returns when the host has issued the last of them: it is as far ahead then as it was
        before, and no farther than the queue allows."""
        queue = self.queues[MAIN]
        yield from self._room(queue)
        queue.taken = deque((took_s + seconds for took_s in queue.taken), maxlen=self.depth)
        queue.shift_s += seconds
        # Of the launches before, the one that had to be taken before the last could be issued.
        host_s = max(host_s, queue.taken[queue.left])
        self._put(MAIN, _Skip(seconds, repetitions))
        if host_s > self.env.now:
            yield self.env.timeout(host_s - self.env.now)
        return host_s

    def _room(self, queue: _Queue) -> Process:
        """Wait for room in a queue that is full."""
        if queue.left >= self.depth:
            queue.room = self.env.event()
            yield queue.room

    def _put(self, stream: int, item: Any) -> None:
        queue = self.queues[stream]
        queue.items.append(item)
        if queue.filled is not None:
            self._fill(queue)

    def _fill(self, queue: _Queue) -> None:
        """Wake the stream that waits for what has come."""
        assert queue.filled is not None
        queue.filled.succeed()
        queue.filled = None

    def _end_of(self, whole: _Issued, launch: int) -> simpy.Event:
        """The event of a launch's end, for who waits for it before it has ended."""
        if launch not in whole.ended:
            whole.ended[launch] = self.env.event()
        return whole.ended[launch]

    # ---- a stream

    def _stream(self, stream: int) -> Process:
        env, queue, gap_s = self.env, self.queues[stream], self.prepared.hardware.launch_s
        items, occupy = queue.items, self.device.occupy
        before: _Issued | None = None
        while True:
            while not items:
                queue.filled = env.event()
                yield queue.filled
            item = items.popleft()
            if type(item) is not tuple:
                yield from self._mark(queue, item)
                continue
            whole, launch = item
            if whole is not before:  # a repetition's lists, looked up once
                before, program = whole, whole.program
                issued_s, free_s, starts_s, ends_s, _ = whole.ran
                gaps_s, seconds_of, plain = (
                    whole.traffic.gaps_s,
                    whole.traffic.governed.seconds,
                    program.is_plain,
                )
            ended_s, launched_s = queue.ended_s, issued_s[launch]
            queue.left -= 1
            queue.taken.append((launched_s if launched_s > ended_s else ended_s) + queue.shift_s)
            if queue.room is not None and queue.left <= queue.most:
                queue.room.succeed()
                queue.room = None
            free_s[launch] = ended_s if ended_s > 0 else 0.0
            gap = gap_s if gaps_s is None else gaps_s[launch]
            start_s = launched_s if launched_s > ended_s + gap else ended_s + gap
            seconds = seconds_of[launch]
            if plain:  # nothing else comes onto the device: the gap and the kernel in one
                end_s = start_s + seconds
                yield Timeout(env, end_s - env.now)
            else:
                for other in program.after.get(launch, ()):
                    if not ends_s[other]:
                        yield self._end_of(whole, other)
                    if ends_s[other] > start_s:
                        start_s = ends_s[other]
                end_s = start_s + seconds
                if start_s > env.now:
                    yield Timeout(env, start_s - env.now)
                launched = whole.traffic.launches[launch]
                clock = whole.traffic.governed.clocks[launch]
                yield from occupy(launched.kernel, launched.hbm_bytes, seconds, clock)
                if env.now - end_s > SAME_PERIOD * seconds:  # it had company
                    end_s = env.now
            starts_s[launch] = start_s
            ends_s[launch] = queue.ended_s = end_s
            whole.left -= 1
            if launch in whole.ended:
                whole.ended.pop(launch).succeed()

    def _mark(self, queue: _Queue, item: Any) -> Process:
        """Let repetitions pass, or note the end of a phase."""
        if isinstance(item, _Skip):
            begun_s = queue.ended_s
            queue.ended_s += item.seconds
            self.skipped.append((begun_s, queue.ended_s, item.repetitions))
            queue.shift_s -= item.seconds
            if queue.ended_s > self.env.now:
                yield self.env.timeout(queue.ended_s - self.env.now)
        else:
            self.phase_ends_s.append((item, max(other.ended_s for other in self.queues.values())))
