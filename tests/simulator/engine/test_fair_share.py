"""A shared resource: water filling, conservation, splitting."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simtti.simulator.engine.fair_share import NEVER, FairShare


def ends(capacity, flows):
    """(start, amount, members, cap) of each flow -> when each ended, and the resource."""
    resource = FairShare(capacity)
    log = [None] * len(flows)
    coming = sorted(range(len(flows)), key=lambda index: flows[index][0])
    while coming or resource.next_s < NEVER:
        if coming and flows[coming[0]][0] <= resource.next_s:
            index = coming.pop(0)
            start, amount, members, cap = flows[index]
            resource.start(start, index, 0, amount, members, cap)
        else:
            now = resource.next_s
            for flow in resource.ended(now):
                log[flow.owner] = now
    return log, resource


def test_one_flow_takes_all_it_may():
    assert ends(10, [(0, 50, 1, NEVER)])[0] == [pytest.approx(5)]
    assert ends(10, [(0, 50, 1, 2)])[0] == [pytest.approx(25)]
    assert ends(10, [(0, 50, 5, NEVER)])[0] == [pytest.approx(25)]


def test_a_capped_flow_leaves_the_rest_to_the_others():
    # Water filling: the capped one has 1, the other two share the remaining 9.
    log, _ = ends(10, [(0, 5, 1, 1), (0, 45, 1, NEVER), (0, 45, 1, NEVER)])
    assert log == [pytest.approx(5), pytest.approx(9.5), pytest.approx(9.5)]


def test_a_later_flow_slows_the_first():
    assert ends(1, [(0, 2, 1, NEVER), (1, 0.5, 1, NEVER)])[0] == [pytest.approx(2.5), pytest.approx(2)]


amounts = st.floats(1e-3, 1e3)
flows = st.lists(
    st.tuples(st.floats(0, 10), amounts, st.integers(1, 5), st.sampled_from([0.5, 3.0, NEVER])),
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
    resource = FairShare(6.0)
    whole = resource.start(0.0, "whole", 0, 4.0, members=3)
    part = resource.split(1.0, whole, 1, "part")
    assert resource.remaining(whole) == resource.remaining(part) == pytest.approx(2.0)
    copy = resource.clone(1.0, {"whole": "copy of whole", "part": "copy of part"})
    assert resource.next_s == copy.next_s == pytest.approx(2.0)
    assert {flow.owner for flow in resource.ended(2.0)} == {"whole", "part"}
    assert {flow.owner for flow in copy.ended(2.0)} == {"copy of whole", "copy of part"}
