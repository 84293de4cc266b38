from __future__ import annotations

import time

import numpy as np
import pytest

from fbnetv3.search import Constraint, InfeasibleError, IntRange, SearchError, SearchSpace
from fbnetv3.search.space.constraints import Costs, feasible
from fbnetv3.search.space.pool import make_pool
from fbnetv3.search.space.space import unique_rows
from tests.search import problem


def _costs() -> Costs:
    return Costs(problem.space(), problem.statistics)


@pytest.mark.parametrize(("lower", "upper"), [(None, 600), (200, 300), (1000, None)])
def test_a_pool_is_full_distinct_and_feasible(lower: float | None, upper: float | None) -> None:
    constraint = Constraint("macs", lower, upper)
    pool, reach = make_pool(problem.space(), _costs(), [constraint], 1000, seed=1)
    assert len(pool) == len(unique_rows(pool.levels)) == 1000
    assert constraint.holds(problem.statistics(problem.space().configs(pool.levels))["macs"]).all()
    assert reach["macs"].low == 32
    assert reach["macs"].high == 5 * 4 * 64


def test_the_pool_follows_from_the_seed() -> None:
    one, same, other = (
        make_pool(problem.space(), _costs(), [], 100, seed)[0].levels for seed in (3, 3, 4)
    )
    assert (one == same).all()
    assert (one != other).any()


def test_heads_of_the_pool_are_spread_over_every_variable() -> None:
    pool, _ = make_pool(problem.space(), _costs(), [], 4096, seed=0)
    space = problem.space()
    depth = np.bincount(pool.levels[:64, space.names.index("depth")], minlength=5)
    # a random sample of 64 would miss by more than 2 in 99% of draws
    assert abs(depth - 64 / 5).max() <= 2


def test_a_small_space_is_given_whole() -> None:
    space = SearchSpace([IntRange("a", 1, 7), IntRange("b", 1, 9)])
    pool, _ = make_pool(space, Costs(space, None), [], 1000, seed=0)
    assert len(pool) == 63
    assert len(unique_rows(pool.levels)) == 63


@pytest.mark.parametrize(
    ("lower", "upper", "bound"), [(None, 20, "upper="), (2000, None, "lower="), (33, 39, "upper=")]
)
def test_an_infeasible_bound_is_told_with_one_that_works(
    lower: float | None, upper: float | None, bound: str
) -> None:
    start = time.monotonic()
    with pytest.raises(InfeasibleError) as error:
        make_pool(problem.space(), _costs(), [Constraint("macs", lower, upper)], 1000, seed=0)
    assert time.monotonic() - start < 5
    message = str(error.value)
    assert "32 to 1280" in message
    key, value = message.split()[-1].split("=")
    assert bound == f"{key}="
    nearest = {"lower": lower, "upper": upper, key: float(value)}
    pool, _ = make_pool(problem.space(), _costs(), [Constraint("macs", **nearest)], 50, seed=0)
    assert len(pool) == 50


def test_constraints_at_odds_are_told() -> None:
    wanted = [Constraint("macs", upper=100), Constraint("params", lower=20)]
    with pytest.raises(InfeasibleError, match="can't be met together"):
        make_pool(problem.space(), _costs(), wanted, 100, seed=0)


@pytest.mark.parametrize(
    ("constraint", "text"),
    [
        (lambda: Constraint("macs", 5, 2), "lower=5 is above upper=2"),
        (lambda: Constraint("macs", upper=float("nan")), "finite"),
        (lambda: _costs().check([Constraint("mcas", upper=1)]), "'mcas'.*did you mean macs"),
    ],
)
def test_wrong_constraints(constraint: object, text: str) -> None:
    with pytest.raises(SearchError, match=text):
        constraint()  # type: ignore[operator]


def test_a_nan_statistic_names_its_candidate() -> None:
    def broken(configs: list[dict[str, int]]) -> dict[str, np.ndarray]:
        return {"macs": np.array([np.nan if c["a"] == 3 else 1.0 for c in configs])}

    space = SearchSpace([IntRange("a", 1, 4)])
    with pytest.raises(SearchError, match=r"'macs' is nan for \{'a': 3\}"):
        make_pool(space, Costs(space, broken), [], 4, seed=0)


def test_a_statistic_of_another_length() -> None:
    space = SearchSpace([IntRange("a", 1, 4)])
    with pytest.raises(SearchError, match="shape"):
        Costs(space, lambda configs: {"macs": np.zeros(len(configs) + 1)})


def test_feasible_is_the_conjunction() -> None:
    values = {"a": np.array([1.0, 2.0, 3.0]), "b": np.array([3.0, 2.0, 1.0])}
    mask = feasible(values, [Constraint("a", lower=2), Constraint("b", lower=2)], 3)
    assert mask.tolist() == [False, True, False]
