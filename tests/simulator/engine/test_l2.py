"""L2 between kernels: hits, write-backs, conservation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simtti.simulator.engine.l2 import L2
from simtti.simulator.kernel import Access, Kernel
from simtti.simulator.lowering.lower import Slots

SAME = Slots()


def kernel(reads=(), writes=()):
    return Kernel(
        "k", "test", 1, reads=tuple(Access(*a) for a in reads), writes=tuple(Access(*a) for a in writes)
    )


def test_what_was_just_written_is_read_for_nothing():
    l2 = L2(100)
    assert l2.touch(kernel(writes=[(1, 60)]), SAME) == 0
    assert l2.touch(kernel(reads=[(1, 60)]), SAME) == 0


def test_dirty_bytes_are_written_when_they_leave():
    l2 = L2(100)
    l2.touch(kernel(writes=[(1, 60)]), SAME)
    assert l2.touch(kernel(reads=[(2, 80)]), SAME) == pytest.approx(80 + 40)
    assert l2.touch(kernel(reads=[(1, 20)]), SAME) == pytest.approx(0)


def test_a_stream_larger_than_l2_goes_to_hbm():
    l2 = L2(100)
    assert l2.touch(kernel(writes=[(1, 1000)]), SAME) == pytest.approx(900)
    assert l2.touch(kernel(reads=[(1, 1000)]), SAME) == pytest.approx(1000, rel=0.11)


def test_a_stream_pushes_its_own_results_out_while_it_runs():
    l2 = L2(100)
    # 240 bytes pass through 100: of 60 written 25 are still there and dirty.
    assert l2.touch(kernel(reads=[(1, 180)], writes=[(2, 60)]), SAME) == pytest.approx(180 + 35)
    assert sum(dirty for _, (_, dirty) in l2.state) == pytest.approx(25)


accesses = st.lists(st.tuples(st.integers(0, 5), st.floats(0, 300)), max_size=3)


@given(st.lists(st.tuples(accesses, accesses), max_size=10))
def test_no_more_moves_than_is_touched_and_no_more_is_held_than_fits(steps):
    l2 = L2(200)
    moved = written = read = 0.0
    for reads, writes in steps:
        moved += l2.touch(kernel(reads, writes), SAME)
        read += sum(nbytes for _, nbytes in reads)
        written += sum(nbytes for _, nbytes in writes)
        # To what parts of a byte are rounded to.
        assert sum(held for _, (held, _) in l2.state) <= 200 * (1 + 1e-9) + 1e-5
        assert all(0 <= dirty <= held * (1 + 1e-9) for _, (held, dirty) in l2.state)
        assert moved >= -1e-5
    assert moved <= (read + written) * (1 + 1e-9) + 1e-5
