"""What a search proposes and finds, and what is made of it."""

import itertools
import json

import pandas as pd
import pytest
from explored import SPEC, spec
from hypothesis import given
from hypothesis import strategies as st

from simtti.explore import analysis, search
from simtti.explore.evaluate import evaluate
from simtti.hw_configs.devices import load

COSTS = st.lists(st.tuples(*[st.integers(0, 6)] * 3), max_size=40)


@given(COSTS)
def test_a_pareto_set_is_mutually_non_dominated_and_covers_the_rest(costs):
    front = analysis.pareto(costs)

    def dominates(a, b):
        return all(x <= y for x, y in zip(a, b, strict=True)) and a != b

    for a, b in itertools.permutations(front, 2):
        assert not dominates(costs[a], costs[b])
        assert costs[a] != costs[b]
    for index, cost in enumerate(costs):
        assert index in front or any(dominates(costs[f], cost) or costs[f] == cost for f in front)


def run_search(asked):
    """A search over designs really evaluated, each once."""
    text, known = asked.model_dump_json(exclude_defaults=True), {}

    def of(designs):
        for values in designs:
            known.setdefault(json.dumps(values, sort_keys=True), None)
        for key in known:
            known[key] = known[key] or evaluate(text, json.loads(key))
        return [known[json.dumps(values, sort_keys=True)] for values in designs]

    return search.run(asked, of)


def front_of(asked, found):
    marks = analysis.mark(asked, [figures for _, figures in found])
    return {
        json.dumps(values, sort_keys=True)
        for (values, _), (_, front) in zip(found, marks, strict=True)
        if front
    }


def test_nsga2_finds_the_true_front_of_a_grid():
    whole = spec(constraints={"area_mm2": {"max": 780}})
    grid = run_search(whole)
    assert len(grid) == 9
    asked = spec(
        constraints={"area_mm2": {"max": 780}},
        search={"method": "nsga2", "designs": 60, "population": 12, "seed": 3},
    )
    pytest.importorskip("optuna")
    found = run_search(asked)
    assert len(found) <= 9
    truth = front_of(whole, grid)
    assert 1 < len(truth) < 9
    assert front_of(asked, found) == truth


@pytest.mark.parametrize("method", ["grid", "sobol", "one-at-a-time"])
def test_a_search_proposes_the_same_designs_again_and_within_the_ranges(method):
    asked = spec(search={"method": method, "designs": 12, "seed": 5})
    proposed = [
        [values for values, _ in search.run(asked, lambda designs: [{} for _ in designs])] for _ in range(2)
    ]
    assert proposed[0] == proposed[1]
    assert len(proposed[0]) == (6 if method == "one-at-a-time" else 9)  # each once
    for values in proposed[0]:
        assert values["sm_count"] in (40, 80, 132)
        assert 1e12 <= values["hbm_bytes_per_s"] <= 4e12 * (1 + 1e-9)


def test_one_at_a_time_goes_about_the_base_which_is_among_the_designs():
    asked = spec(search={"method": "one-at-a-time"})
    base, *others = [values for values, _ in search.run(asked, lambda designs: [{} for _ in designs])]
    own = load("h100-sxm")
    assert base == {"sm_count": own.sm_count, "hbm_bytes_per_s": own.hbm_bytes_per_s}
    for values in others:
        assert sum(values[name] != base[name] for name in base) == 1
    assert search.centre(spec()) != base


def test_named_designs_come_first_and_have_the_base_s_numbers_where_they_give_none():
    asked = spec(
        parameters={
            **SPEC["parameters"],
            "hbm_capacity_bytes": {
                "formula": "base.hbm_capacity_bytes * hbm_bytes_per_s / base.hbm_bytes_per_s"
            },
        },
        compare={"today": {}, "twice": {"hbm_bytes_per_s": 6.7e12}},
    )
    found = [values for values, _ in search.run(asked, lambda designs: [{} for _ in designs])]
    assert len(found) == 11
    base = load("h100-sxm").hbm_capacity_bytes
    assert found[0] == {"hbm_capacity_bytes": base}
    assert found[1] == {"hbm_bytes_per_s": 6.7e12, "hbm_capacity_bytes": pytest.approx(2 * base)}


def test_elasticity_and_importance():
    low, high = {"x": 9.0, "y": 3.0}, {"x": 11.0, "y": 3.0 * (11 / 9) ** -0.5}
    assert analysis.elasticity("x", low, high, "y") == pytest.approx(-0.5)
    rows = pd.DataFrame(
        [{"a": a, "b": b, "y": a**2.0 * b**0.1} for a in (1.0, 2.0, 4.0) for b in (1.0, 2.0, 4.0)]
    )
    shares = analysis.importance(rows, ["a", "b"], "y")
    assert list(shares) == ["a", "b"]
    assert shares["a"] == pytest.approx(4 / 4.01)
    assert sum(shares.values()) == pytest.approx(1)
