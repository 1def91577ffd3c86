"""Host, launch queue and stream: what runs in one go against a simulation event by event."""

import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from simtti.simulator.engine.stream import Stream

MICROSECONDS = st.integers(0, 50).map(lambda us: us * 1e-6)
LAUNCHES = st.lists(
    st.tuples(MICROSECONDS, MICROSECONDS, st.sampled_from([False, False, False, True])), max_size=30
)


def event_by_event(launches, depth, gap_s):
    """(start, end) of each kernel and when the host is through: SimPy processes that meet at a queue of launches."""
    env = simpy.Environment()
    queue, ran, through = [], [], []
    changed = [env.event()]

    def tell():
        changed[0].succeed()
        changed[0] = env.event()

    def host():
        for before_s, seconds, waits in launches:
            yield env.timeout(before_s)
            done = env.event()
            queue.append((seconds, done))
            tell()
            while len(queue) >= depth:
                yield changed[0]
            if waits:
                yield done
        through.append(env.now)

    def stream():
        ended_s = float("-inf")
        while True:
            while not queue:
                yield changed[0]
            seconds, done = queue.pop(0)
            tell()
            yield env.timeout(max(0.0, ended_s + gap_s - env.now))
            start_s = env.now
            yield env.timeout(seconds)
            ended_s = env.now
            ran.append((start_s, ended_s))
            done.succeed()

    env.process(host())
    env.process(stream())
    env.run()
    return ran, through[0]


@settings(deadline=None, max_examples=150)
@given(LAUNCHES, st.integers(1, 6), MICROSECONDS, st.integers(0, 30))
def test_what_runs_in_one_go_is_what_happens_event_by_event(launches, depth, gap_s, cut):
    stream = Stream(depth, gap_s)
    first = stream.run(launches[:cut], 0.0)
    second = stream.run(launches[cut:], first.host_s)
    ran, host_s = event_by_event(launches, depth, gap_s)
    found = list(zip(first.start_s + second.start_s, first.end_s + second.end_s, strict=True))
    assert found == [pytest.approx(times, abs=1e-12) for times in ran]
    assert second.host_s == pytest.approx(host_s, abs=1e-12)
    if found:
        assert stream.ended_s == found[-1][1]


def test_a_skip_lets_time_pass_and_keeps_the_gap():
    stream = Stream(8, 1e-6)
    stream.run([(0.0, 5e-6, False)], 0.0)
    assert stream.skip(100e-6, 20, host_s=50e-6) == pytest.approx(50e-6)
    assert stream.skipped == [(pytest.approx(5e-6), pytest.approx(105e-6), 20)]
    ran = stream.run([(0.0, 5e-6, False)], 50e-6)
    assert (ran.free_s, ran.start_s, ran.end_s) == tuple(
        [pytest.approx(at)] for at in (105e-6, 106e-6, 111e-6)
    )


def test_the_host_waits_only_where_the_queue_is_full():
    stream = Stream(2, 0.0)
    assert stream.run([(0.0, 1e-6, False)] * 2, 0.0).host_s == 0.0  # the stream took the first at once
    assert stream.run([(0.0, 1e-6, False)] * 2, 0.0).host_s == pytest.approx(2e-6)
    # A host that is through sooner than the queue has room waits for it, however much is passed over.
    assert stream.skip(1e-3, 5, host_s=0.0) == pytest.approx(1e-3 + 2e-6)
