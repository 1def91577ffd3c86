"""Host, launch queue and stream as two clocks: the same times as an event simulation of all three."""

import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from simtti.simulator.stream import Stream

MICROSECONDS = st.integers(0, 50).map(lambda us: us * 1e-6)
LAUNCHES = st.lists(
    st.tuples(MICROSECONDS, MICROSECONDS, st.sampled_from([False, False, False, True])), max_size=30
)


def events(launches, depth, gap_s):
    """A host process, a SimPy store of `depth` places and a stream process: (issued, start, end) of each kernel."""
    env = simpy.Environment()
    queue = simpy.Store(env, capacity=depth)
    issued, ran = [], []

    def host():
        for before_s, seconds, waits in launches:
            yield env.timeout(before_s)
            done = env.event()
            yield queue.put((seconds, done))
            issued.append(env.now)
            if waits:
                yield done

    def stream():
        ended_s = float("-inf")
        while True:
            seconds, done = yield queue.get()
            yield env.timeout(max(0.0, ended_s + gap_s - env.now))
            start_s = env.now
            yield env.timeout(seconds)
            ended_s = env.now
            ran.append((start_s, ended_s))
            done.succeed()

    env.process(stream())
    env.run(until=env.process(host()))
    env.run()
    return [(at, *times) for at, times in zip(issued, ran, strict=True)]


@settings(deadline=None, max_examples=150)
@given(LAUNCHES, st.integers(1, 6), MICROSECONDS)
def test_the_clocks_agree_with_an_event_simulation(launches, depth, gap_s):
    stream = Stream(depth, gap_s)
    found = [(at.issued_s, at.start_s, at.end_s) for at in stream.run(launches)]
    assert found == [pytest.approx(times, abs=1e-12) for times in events(launches, depth, gap_s)]


@settings(deadline=None, max_examples=60)
@given(LAUNCHES, st.integers(1, 6), MICROSECONDS, st.integers(1, 20))
def test_passing_over_repetitions_leaves_the_clocks_where_running_them_does(launches, depth, gap_s, more):
    """From a state that repeats itself; here after the queue's depth of repetitions and more."""
    if not launches:
        return
    ran, skipped = Stream(depth, gap_s), Stream(depth, gap_s)
    ends = []
    for _ in range(depth + 60):
        ran.run(launches)
        skipped.run(launches)
        ends.append((ran.ended_s, ran.host_s))
    period_s, host_period_s = (now - then for now, then in zip(ends[-1], ends[-2], strict=True))
    if abs(period_s - host_period_s) > 1e-12:
        return  # the host still gets ahead or falls back
    for _ in range(more):
        ran.run(launches)
    skipped.pass_over(len(launches), more, period_s, host_period_s)
    assert skipped.ended_s == pytest.approx(ran.ended_s, abs=1e-11)
    assert skipped.host_s == pytest.approx(ran.host_s, abs=1e-11)


def test_a_host_ahead_of_the_stream_gets_no_further_ahead_than_the_queue_allows():
    stream = Stream(4, 0.0)
    launches = [(1e-6, 10e-6, False)]
    for _ in range(3):
        stream.run(launches)
    stream.pass_over(1, 1000, 10e-6, 1e-6)
    whole = Stream(4, 0.0)
    whole.run(launches * 1003)
    assert stream.host_s == pytest.approx(whole.host_s, abs=1e-12)
    assert stream.ended_s == pytest.approx(whole.ended_s, abs=1e-9)
