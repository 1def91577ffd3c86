"""Host, launch queue and stream: the event simulation against the recurrence it has to follow."""

from collections import deque

import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from simtti.simulator.governor import Launched
from simtti.simulator.kernel import Kernel
from simtti.simulator.power import Energy
from simtti.simulator.stream import Launch, Mark, Skip, Stream

MICROSECONDS = st.integers(0, 50).map(lambda us: us * 1e-6)
LAUNCHES = st.lists(
    st.tuples(MICROSECONDS, MICROSECONDS, st.sampled_from([False, False, False, True])), max_size=30
)
WORK = Launched(Kernel("k", "test", 1), 0.0, 1e-6, Energy(0.0, 0.0), 0.0)


def simulated(launches, depth, gap_s, runs_ahead):
    """(start, end) of each kernel: a host spends `before_s`, queues it, and may wait for its end. It keeps to
    the simulation's clock, or runs ahead until it is held up."""
    env = simpy.Environment()
    ran = []
    stream = Stream(env, depth, gap_s, lambda launch, free_s, start_s, end_s: ran.append((start_s, end_s)))

    def host():
        host_s = 0.0
        for row, (before_s, seconds, waits) in enumerate(launches):
            host_s += before_s
            if not runs_ahead and host_s > env.now:
                yield env.timeout(host_s - env.now)
            done = env.event() if waits else None
            room = stream.put(Launch(row, 0, WORK, seconds, 1.0, host_s, done))
            if room is not None:
                yield room
                host_s = max(host_s, env.now)
            if done is not None:
                yield done
                host_s = env.now

    env.process(host())
    env.run()
    return ran


def recurrence(launches, depth, gap_s):
    """The same by arithmetic: the host goes on when the queue has room again; a kernel starts a gap after the last."""
    host_s, ended_s = 0.0, float("-inf")
    taken = deque([float("-inf")] * depth, maxlen=depth)
    found = []
    for before_s, seconds, waits in launches:
        host_s += before_s
        took_s = max(host_s, ended_s)
        taken.append(took_s)
        start_s = max(took_s, ended_s + gap_s)
        ended_s = start_s + seconds
        found.append((start_s, ended_s))
        host_s = ended_s if waits else max(host_s, taken[0])
    return found


@settings(deadline=None, max_examples=150)
@given(LAUNCHES, st.integers(1, 6), MICROSECONDS, st.booleans())
def test_the_simulation_follows_the_recurrence(launches, depth, gap_s, runs_ahead):
    found = simulated(launches, depth, gap_s, runs_ahead)
    assert found == [pytest.approx(times, abs=1e-12) for times in recurrence(launches, depth, gap_s)]


def test_a_skip_lets_time_pass_and_keeps_the_gap():
    env = simpy.Environment()
    ran = []
    stream = Stream(env, 8, 1e-6, lambda launch, free_s, start_s, end_s: ran.append((free_s, start_s, end_s)))
    reached = env.event()
    for item in (
        Launch(0, 0, WORK, 5e-6),
        Skip(100e-6, 20),
        Launch(1, 0, WORK, 5e-6),
        Mark(reached),
    ):
        stream.put(item)
    env.run()
    assert stream.skipped == [(pytest.approx(5e-6), pytest.approx(105e-6), 20)]
    assert ran[1] == pytest.approx((105e-6, 106e-6, 111e-6))
    assert reached.value == pytest.approx(111e-6)


def test_the_host_waits_only_where_the_queue_is_full():
    env = simpy.Environment()
    stream = Stream(env, 2, 0.0, lambda *_: None)
    assert stream.put(Launch(0, 0, WORK, 1e-6)) is None
    room = stream.put(Launch(1, 0, WORK, 1e-6))
    assert room is not None
    env.run(until=room)
    assert env.now == 0.0  # the stream took the first at once
