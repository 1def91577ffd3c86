"""Area, yield and cost of dies, held against published ones."""

import pytest

from simtti.explore import silicon
from simtti.explore.design import make


def test_published_dies_within_15_percent_without_having_been_fitted_to():
    alone = silicon.leave_one_out()
    assert len(alone) >= 20
    assert {name: error for name, error in alone.items() if abs(error) > 0.15} == {}
    assert sum(abs(error) for error in alone.values()) / len(alone) < 0.06


def test_the_shipped_areas_are_those_of_a_fit():
    found = silicon.fit(list(silicon.published().values()))
    for name, die in silicon.published().items():
        expected = silicon.die_mm2(die, silicon.fitted())
        assert silicon.die_mm2(die, found) == pytest.approx(expected, rel=0.01), name


def test_yield_falls_with_area_and_cost_rises_faster_than_it():
    process = silicon.processes()["4N"]
    assert 1 > silicon.die_yield(100, 0, process) > silicon.die_yield(800, 0, process) > 0.3
    assert silicon.die_yield(800, 0.5, process) > silicon.die_yield(800, 0, process)
    small, large = make("h100-sxm", {"sm_count": 66}).chip, make("h100-sxm", {"sm_count": 132}).chip
    assert large.die_usd / small.die_usd > large.die_mm2 / small.die_mm2


GROWING = (
    "sm_count",
    "tensor_fp16_flops_per_cycle_sm",
    "l2_capacity_bytes",
    "link_bytes_per_s",
    "shared_memory_per_sm_bytes",
    "sfu_ops_per_cycle_sm",
)


@pytest.mark.parametrize("name", GROWING)
def test_what_is_added_takes_area(name):
    base = make("h100-sxm", {})
    assert make("h100-sxm", {name: getattr(base.hardware, name) * 2}).chip.area_mm2 > base.chip.area_mm2
