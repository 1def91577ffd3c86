"""How designs are proposed. Every search is seeded and gives the same designs again."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from simtti.errors import InputError, library
from simtti.explore.analysis import values_to_minimise, violation
from simtti.explore.design import make
from simtti.explore.spec import Spec

# Evaluates a batch: figures by design, in order.
Evaluate = Callable[[Sequence[dict[str, float]]], list[dict[str, Any]]]
Chosen = dict[str, float]


def centre(spec: Spec) -> Chosen:
    """Where sensitivities are taken: the base itself where the search goes about it, one parameter at a time; else the middle of every
    range."""
    middle = {name: item.at(0.5) for name, item in spec.free.items()}
    if spec.search.method != "one-at-a-time":
        return middle
    base = make(spec.base, {})
    own = {name: getattr(base.hardware, name, getattr(base, name, value)) for name, value in middle.items()}
    return {name: float(value) for name, value in own.items()}


def size(spec: Spec) -> int:
    """How many designs the search proposes, at most."""
    if spec.search.method == "grid":
        return math.prod(len(item.grid or ()) for item in spec.free.values()) + len(spec.compare)
    if spec.search.method == "one-at-a-time":
        return sum(len(item.grid or ()) for item in spec.free.values()) + 1 + len(spec.compare)
    return spec.search.designs + len(spec.compare)


def run(spec: Spec, evaluate: Evaluate) -> list[tuple[Chosen, dict[str, Any]]]:
    """Propose and evaluate; the designs, complete, with their figures, in the order proposed, each once."""
    found: dict[str, tuple[Chosen, dict[str, Any]]] = {}

    def batch(chosen: Sequence[Chosen]) -> list[dict[str, Any]]:
        designs = [spec.complete(values) for values in chosen]
        figures = evaluate(designs)
        for design, result in zip(designs, figures, strict=True):
            found.setdefault(repr(sorted(design.items())), (design, result))
        return figures

    if spec.compare:
        batch(list(spec.compare.values()))
    if spec.search.method == "nsga2":
        _nsga2(spec, batch)
    else:
        batch(_proposals(spec))
    return list(found.values())


def _proposals(spec: Spec) -> list[Chosen]:
    free = spec.free
    if spec.search.method == "grid":
        return [
            dict(zip(free, values, strict=True))
            for values in itertools.product(*(item.grid or [] for item in free.values()))
        ]
    if spec.search.method == "one-at-a-time":
        middle = centre(spec)
        return [
            middle,
            *({**middle, name: value} for name, item in free.items() for value in item.grid or []),
        ]
    sampler = library("scipy.stats", "explore").qmc.Sobol(len(free), seed=spec.search.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that their number is no power of two
        points = sampler.random(spec.search.designs)
    return [
        {name: item.at(float(share)) for (name, item), share in zip(free.items(), point, strict=True)}
        for point in points
    ]


def _nsga2(spec: Spec, batch: Evaluate) -> None:
    """A generation is asked for, evaluated in any order, and told in the order asked, so that the seed decides all."""
    optuna = library("optuna", "explore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    free, population = spec.free, spec.search.population
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constraints are marked experimental
        sampler = optuna.samplers.NSGAIISampler(
            population_size=population,
            seed=spec.search.seed,
            constraints_func=lambda trial: trial.user_attrs.get("violations", (0.0,)),
        )
    study = optuna.create_study(directions=["minimize"] * len(spec.objectives), sampler=sampler)
    asked = 0
    while asked < spec.search.designs:
        trials = [study.ask() for _ in range(min(population, spec.search.designs - asked))]
        chosen = [{name: _suggest(trial, name, item) for name, item in free.items()} for trial in trials]
        asked += len(trials)
        for trial, figures in zip(trials, batch(chosen), strict=True):
            if "error" in figures:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
                continue
            trial.set_user_attr("violations", (violation(spec, figures),))
            study.tell(trial, values_to_minimise(spec, figures))


def _suggest(trial: Any, name: str, item: Any) -> float:
    """A place in the parameter's range, as a share of it or a number of the list."""
    grid = item.grid
    if grid is not None:
        return float(grid[trial.suggest_int(name, 0, len(grid) - 1)])
    return float(item.at(trial.suggest_float(name, 0.0, 1.0)))


def check(spec: Spec) -> None:
    """Fail before the work when the search lacks its library.

    Raises:
        InputError: optuna or scipy is not installed, or a grid is beyond reason.
    """
    if spec.search.method == "nsga2":
        library("optuna", "explore")
    if spec.search.method == "sobol":
        library("scipy.stats", "explore")
    if size(spec) > 10_000_000:
        raise InputError(
            f"the grid has {size(spec):,} designs; use search.method sobol or nsga2, or fewer steps"
        )
