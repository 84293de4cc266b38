"""Whole numbers that are log-uniform wherever candidates are drawn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import loguniform

from fbnetv3.search import Choice, FloatRange, IntRange, SearchSpace, When
from fbnetv3.search.space.constraints import Costs
from fbnetv3.search.space.feasible import FeasibleSpace
from fbnetv3.search.space.genetic import mutate
from fbnetv3.search.space.log_integers import LogIntegers

RANGES = [(1, 1024, 1), (1, 3, 1), (8, 4096, 1), (16, 1024, 16), (1, 100, 9), (5, 2**40, 5)]


def _distribution(low: int, high: int, step: int) -> LogIntegers:
    return LogIntegers(low, step, (high - low) // step + 1)


@pytest.mark.parametrize(("low", "high"), [(1, 1024), (1, 3), (8, 4096), (100, 110)])
def test_probabilities_are_those_of_a_rounded_log_uniform_number(low: int, high: int) -> None:
    levels = np.arange(high - low + 1)
    below, up_to = _distribution(low, high, 1).cumulative(levels)
    reference = loguniform(low - 0.5, high + 0.5)  # as Optuna's IntDistribution(log=True)
    values = low + levels
    assert up_to == pytest.approx(reference.cdf(values + 0.5), abs=1e-12)
    assert below == pytest.approx(reference.cdf(values - 0.5), abs=1e-12)


@pytest.mark.parametrize(("low", "high", "step"), RANGES)
def test_probabilities_fall_with_the_value(low: int, high: int, step: int) -> None:
    distribution = _distribution(low, high, step)
    levels = np.unique(np.linspace(0, distribution.size - 1, 50).astype(np.int64))
    below, up_to = distribution.cumulative(levels)
    weights = (up_to - below) * (low + step * levels)  # constant if proportional to 1 / value
    assert weights.max() / weights.min() < 1.15
    assert (below[0], up_to[-1]) == (0.0, 1.0)


@pytest.mark.parametrize(("low", "high", "step"), RANGES)
def test_levels_at_quantiles_invert_the_cumulative_probabilities(
    low: int, high: int, step: int
) -> None:
    distribution = _distribution(low, high, step)
    quantiles = np.linspace(0, 1, 1001)[:-1]
    levels = distribution.levels_at(quantiles)
    below, up_to = distribution.cumulative(levels)
    assert (below <= quantiles + 1e-9).all()
    assert (quantiles <= up_to + 1e-9).all()
    assert levels[0] == 0
    assert levels.max() <= distribution.size - 1


@pytest.mark.parametrize(("low", "high", "step"), RANGES)
def test_moves_leave_the_level_and_stay_in_the_range(low: int, high: int, step: int) -> None:
    distribution = _distribution(low, high, step)
    random = np.random.default_rng(0)
    present = distribution.levels_at(random.random(2000))
    others = distribution.other_levels(present, random.random(2000))
    shifts = random.standard_normal(2000) * 0.05
    near = distribution.near_levels(present, shifts, random.random(2000) < 0.5)
    for moved in (others, near):
        assert (moved != present).all()
        assert moved.min() >= 0
        assert moved.max() <= distribution.size - 1


def test_other_levels_have_the_distribution_without_the_present_one() -> None:
    distribution = _distribution(1, 6, 1)
    quantiles = (np.arange(60_000) + 0.5) / 60_000
    below, up_to = distribution.cumulative(np.arange(6))
    for present in range(6):
        drawn = distribution.other_levels(np.full(60_000, present), quantiles)
        expected = np.delete(up_to - below, present) / (1 - (up_to - below)[present])
        shares = np.bincount(drawn, minlength=6) / 60_000
        assert np.delete(shares, present) == pytest.approx(expected, abs=1e-3)


def _space(parameter: IntRange) -> SearchSpace:
    return SearchSpace([Choice("on", (True, False)), parameter, FloatRange("x", 0.0, 1.0)])


@pytest.mark.parametrize(
    ("parameter", "median"),
    [
        (IntRange("u", 1, 1024, log=True), 22.6),  # sqrt(0.5 * 1024.5)
        (IntRange("u", 8, 4096, log=True), 175.0),  # sqrt(7.5 * 4096.5)
        (IntRange("u", 16, 1024, step=16, log=True), 91.0),  # sqrt(8 * 1032)
        (IntRange("u", 1, 1024, log=True, active_if=When("on", "==", True)), 22.6),
        (IntRange("u", 1, 1024), 512.5),
        (IntRange("u", 10, 90, step=10), 50.0),
    ],
)
def test_every_draw_of_a_space_has_the_distribution(parameter: IntRange, median: float) -> None:
    space = _space(parameter)
    pool = FeasibleSpace(Costs(space, None)).sample(4096, seed=0).levels
    pool = pool[space.active(pool)[:, 1]]
    random = np.random.default_rng(0)
    # mutants of a value in the middle; the first variable changes to the level that activates it
    middle = parameter.level(max(parameter.low, round(median / parameter.step) * parameter.step))
    parents = np.tile(np.array([[1, middle, 0]]), (4096, 1))
    mutants = mutate(space, parents, 1.0, random)
    for levels in (pool, mutants):
        values = [parameter.value(level) for level in levels[:, 1].tolist()]
        assert np.median(values) == pytest.approx(median, rel=0.12, abs=parameter.step)


def test_a_small_space_is_filled_by_probability() -> None:
    space = SearchSpace([IntRange("u", 1, 1024, log=True), Choice("c", ("a", "b"))])
    pool = FeasibleSpace(Costs(space, None)).sample(600, seed=0)
    values = [config["u"] for config in space.configs(pool.levels)]
    assert len({tuple(row) for row in pool.levels.tolist()}) == 600
    assert np.median(values) < 330  # 512 if the rest were drawn evenly
