"""Feasible spaces, their pools, and the error messages of constraints that cannot be met."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from fbnetv3.search import Constraint, InfeasibleError, IntRange, SearchError, SearchSpace
from fbnetv3.search.space.constraints import Costs
from fbnetv3.search.space.feasible import FeasibleSpace
from fbnetv3.search.space.reach import measure_reach
from fbnetv3.search.space.space import unique_rows
from tests.search import problem


def _feasible(*constraints: Constraint) -> FeasibleSpace:
    return FeasibleSpace(Costs(problem.space(), problem.statistics), constraints)


@pytest.mark.parametrize(("lower", "upper"), [(None, 600), (200, 300), (1000, None)])
def test_a_pool_is_full_distinct_and_feasible(lower: float | None, upper: float | None) -> None:
    constraint = Constraint("macs", lower, upper)
    pool = _feasible(constraint).sample(1000, seed=1)
    assert len(pool) == len(unique_rows(pool.levels)) == 1000
    macs = problem.statistics(problem.space().configs(pool.levels))["macs"]
    assert constraint.is_met_by(macs).all()
    assert (pool.statistics["macs"] == macs).all()


def test_reach_is_the_range_of_the_statistic() -> None:
    reach = measure_reach(_feasible(Constraint("macs", upper=600)), seed=1)
    assert (reach["macs"].low, reach["macs"].high) == (32, 5 * 4 * 64)
    assert 0 < reach["macs"].acceptance < 1
    assert measure_reach(_feasible(), seed=1) == {}


def test_the_pool_follows_from_the_seed() -> None:
    first, same, other = (_feasible().sample(100, seed).levels for seed in (3, 3, 4))
    assert (first == same).all()
    assert (first != other).any()


def test_heads_of_the_pool_are_spread_over_every_variable() -> None:
    pool = _feasible().sample(4096, seed=0)
    depth = np.bincount(pool.levels[:64, problem.space().names.index("depth")], minlength=5)
    # a random sample of 64 would be off by more than 2 in 99% of draws
    assert abs(depth - 64 / 5).max() <= 2


def test_the_pool_of_a_small_space_is_the_whole_space() -> None:
    space = SearchSpace([IntRange("a", 1, 7), IntRange("b", 1, 9)])
    pool = FeasibleSpace(Costs(space, None)).sample(1000, seed=0)
    assert len(pool) == len(unique_rows(pool.levels)) == 63


def test_a_row_of_a_pool_has_plain_numbers() -> None:
    pool = _feasible().sample(4, seed=0)
    assert pool.row(2) == {name: values[2] for name, values in pool.statistics.items()}
    assert all(type(value) is float for value in pool.row(2).values())


@pytest.mark.parametrize(
    ("lower", "upper", "bound"), [(None, 20, "upper="), (2000, None, "lower="), (33, 39, "upper=")]
)
def test_an_infeasible_bound_is_refused_with_a_feasible_one(
    lower: float | None, upper: float | None, bound: str
) -> None:
    start = time.monotonic()
    with pytest.raises(InfeasibleError) as error:
        measure_reach(_feasible(Constraint("macs", lower, upper)), seed=0)
    assert time.monotonic() - start < 5
    message = str(error.value)
    assert "32 to 1280" in message
    key, value = message.split()[-1].split("=")
    assert bound == f"{key}="
    nearest = {"lower": lower, "upper": upper, key: float(value)}
    suggested = _feasible(Constraint("macs", **nearest))
    measure_reach(suggested, seed=0)
    assert len(suggested.sample(50, seed=0)) == 50


def test_contradictory_constraints_are_refused() -> None:
    feasible = _feasible(Constraint("macs", upper=100), Constraint("params", lower=20))
    with pytest.raises(InfeasibleError, match=r"macs <= 100 and 20 <= params cannot be met toget"):
        measure_reach(feasible, seed=0)


def test_a_budget_tightens_a_constraint_or_adds_one() -> None:
    feasible = _feasible(Constraint("macs", 100, 600))
    assert feasible.within(Constraint("macs", upper=200)).constraints == (
        Constraint("macs", 100, 200),
    )
    assert feasible.within(Constraint("macs", upper=900)).constraints == feasible.constraints
    params = Constraint("params", upper=20)
    assert feasible.within(params).constraints == (*feasible.constraints, params)
    with pytest.raises(SearchError, match="lower=700 is above upper=600"):
        feasible.within(Constraint("macs", lower=700))


def test_candidates_meet_all_constraints_or_are_dropped() -> None:
    feasible = _feasible(Constraint("macs", lower=200), Constraint("params", upper=20))
    levels = _feasible().sample(200, seed=0).levels
    statistics = problem.statistics(problem.space().configs(levels))
    mask = (statistics["macs"] >= 200) & (statistics["params"] <= 20)
    assert 0 < mask.sum() < 200
    assert (feasible.are_feasible(levels) == mask).all()
    assert (feasible.select(feasible.with_statistics(levels)).levels == levels[mask]).all()
    assert _feasible().are_feasible(levels).all()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Constraint("macs", 5, 2), "lower=5 is above upper=2"),
        (lambda: Constraint("macs", upper=float("nan")), "not a finite number"),
        (
            lambda: _feasible().with_constraints([Constraint("mcas", upper=1)]),
            "'mcas'.*did you mean macs",
        ),
    ],
)
def test_wrong_constraints(make: Any, text: str) -> None:
    with pytest.raises(SearchError, match=text):
        make()


def test_a_nan_statistic_names_its_candidate() -> None:
    def broken(configs: list[dict[str, int]]) -> dict[str, np.ndarray]:
        return {"macs": np.array([np.nan if c["a"] == 3 else 1.0 for c in configs])}

    space = SearchSpace([IntRange("a", 1, 4)])
    with pytest.raises(SearchError, match=r"'macs' is nan for \{'a': 3\}"):
        FeasibleSpace(Costs(space, broken)).sample(4, seed=0)


def test_a_statistic_of_the_wrong_length() -> None:
    space = SearchSpace([IntRange("a", 1, 4)])
    with pytest.raises(SearchError, match=r"shape \(2,\) for 1 candidates"):
        Costs(space, lambda configs: {"macs": np.zeros(len(configs) + 1)})
