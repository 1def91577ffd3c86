"""A shared resource: water filling, conservation, splitting."""

import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st

from simtti.simulator.engine.fair_share import FairShare


def ends(capacity, flows):
    """(start, amount, members, cap) of each flow -> when each ended, and the resource."""
    env = simpy.Environment()
    resource = FairShare(env, capacity)
    log = [None] * len(flows)

    def transfer(index, start, amount, members, cap):
        yield env.timeout(start)
        yield resource.start(amount, members, cap).done
        log[index] = env.now

    for index, flow in enumerate(flows):
        env.process(transfer(index, *flow))
    env.run()
    return log, resource


def test_one_flow_takes_all_it_may():
    inf = float("inf")
    assert ends(10, [(0, 50, 1, inf)])[0] == [pytest.approx(5)]
    assert ends(10, [(0, 50, 1, 2)])[0] == [pytest.approx(25)]
    assert ends(10, [(0, 50, 5, inf)])[0] == [pytest.approx(25)]


def test_a_capped_flow_leaves_the_rest_to_the_others():
    # Water filling: the capped one has 1, the other two share the remaining 9.
    log, _ = ends(10, [(0, 5, 1, 1), (0, 45, 1, float("inf")), (0, 45, 1, float("inf"))])
    assert log == [pytest.approx(5), pytest.approx(9.5), pytest.approx(9.5)]


def test_a_later_flow_slows_the_first():
    inf = float("inf")
    assert ends(1, [(0, 2, 1, inf), (1, 0.5, 1, inf)])[0] == [pytest.approx(2.5), pytest.approx(2)]


amounts = st.floats(1e-3, 1e3)
flows = st.lists(
    st.tuples(st.floats(0, 10), amounts, st.integers(1, 5), st.sampled_from([0.5, 3.0, float("inf")])),
    max_size=8,
)


@given(flows, st.floats(0.1, 100))
def test_what_is_asked_is_served_and_never_above_capacity(given_flows, capacity):
    log, resource = ends(capacity, given_flows)
    asked = sum(amount * members for _, amount, members, _ in given_flows)
    assert resource.served == pytest.approx(asked, rel=1e-6)
    assert resource.served <= capacity * resource.busy_s * (1 + 1e-6)
    for (start, amount, members, cap), end in zip(given_flows, log, strict=True):
        fastest = amount / min(cap, capacity / members)
        assert end - start >= fastest * (1 - 1e-6)


@given(flows.filter(bool), st.floats(0.1, 100))
def test_members_are_as_flows_of_their_own(given_flows, capacity):
    alone = [(start, amount, 1, cap) for start, amount, members, cap in given_flows for _ in range(members)]
    together, _ = ends(capacity, given_flows)
    apart, _ = ends(capacity, alone)
    expected = [
        end for (_, _, members, _), end in zip(given_flows, together, strict=True) for _ in range(members)
    ]
    assert apart == pytest.approx(expected, rel=1e-6)


def test_split_and_clone_change_no_end():
    env = simpy.Environment()
    resource = FairShare(env, 6.0)
    whole = resource.start(4.0, members=3)
    log = {}

    def late():
        yield env.timeout(1)
        part = resource.split(whole, 1)
        copy, became = resource.clone()
        for name, flow in (("whole", whole), ("part", part), ("copy", became[whole])):
            env.process(watch(name, flow))
        assert copy is not resource

    def watch(name, flow):
        yield flow.done
        log[name] = env.now

    env.process(late())
    env.run()
    assert log == {"whole": pytest.approx(2), "part": pytest.approx(2), "copy": pytest.approx(2)}
