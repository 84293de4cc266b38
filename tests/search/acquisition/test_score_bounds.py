"""Bounds on scores: their models against closed forms, and their effect on batches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fbnetv3.search.acquisition.expected_improvement import improvement_batch
from fbnetv3.search.acquisition.score_bounds import ScoreBounds, bilog
from fbnetv3.search.acquisition.thompson import thompson_batch
from fbnetv3.search.space.space import keys_of
from tests.search import problem

_TRAINED = 60
_LIMIT = 300.0


def _costs(levels: np.ndarray) -> np.ndarray:
    """Returns a score that is to be bounded: the multiply-adds, (n,)."""
    return problem.statistics(problem.space().configs(levels))["macs"]


@pytest.fixture(scope="module")
def bounds(candidates) -> ScoreBounds:
    trained = candidates.pool.levels[:_TRAINED]
    excess = _costs(trained)[:, None] - _LIMIT
    return ScoreBounds(candidates.encode, trained, excess, seed=0)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_bilog_is_odd_rising_and_free_of_units(scale: float) -> None:
    excess = np.array([-1000.0, -2.0, -0.5, 0.0, 0.5, 2.0, 1000.0])
    values = bilog(excess * scale)
    np.testing.assert_allclose(values, bilog(excess), rtol=1e-12)
    np.testing.assert_allclose(values, -values[::-1], rtol=1e-12)
    assert (np.diff(values) > 0).all()
    assert values[3] == 0
    assert values[4] == pytest.approx(np.log1p(0.5 / 2.0))


def test_equal_excesses_of_zero_are_no_error(candidates) -> None:
    levels = candidates.pool.levels[:8]
    bounds = ScoreBounds(candidates.encode, levels, np.zeros((8, 1)), seed=0)
    np.testing.assert_allclose(bounds.log_probability(candidates.encode(levels)), np.log(0.5))


def test_the_probability_ranks_unseen_candidates(candidates, bounds) -> None:
    unseen = candidates.pool.levels[_TRAINED:]
    probability = np.exp(bounds.log_probability(candidates.encode(unseen)))
    is_met = _costs(unseen) <= _LIMIT
    assert 0.1 < is_met.mean() < 0.9
    assert (bounds.are_violated(unseen) == ~is_met).mean() > 0.9
    brier = np.square(probability - is_met).mean()
    assert brier < 0.4 * is_met.mean() * (1 - is_met.mean())


def test_the_probability_of_several_bounds_is_the_product(candidates) -> None:
    trained, unseen = candidates.pool.levels[:_TRAINED], candidates.pool.levels[_TRAINED:]
    features = candidates.encode(unseen)
    excess = np.stack([_costs(trained) - _LIMIT, 100.0 - _costs(trained)], 1)
    one_by_one = [
        ScoreBounds(candidates.encode, trained, column[:, None], seed=0).log_probability(features)
        for column in excess.T
    ]
    both = ScoreBounds(candidates.encode, trained, excess, seed=0).log_probability(features)
    np.testing.assert_allclose(both, sum(one_by_one), rtol=1e-12)


def test_unknown_excesses_are_left_out(candidates, bounds) -> None:
    levels = candidates.pool.levels[: 2 * _TRAINED]
    excess = np.full((len(levels), 2), np.nan)
    excess[:_TRAINED, 0] = _costs(levels[:_TRAINED]) - _LIMIT
    features = candidates.encode(candidates.pool.levels)
    known = ScoreBounds(candidates.encode, levels, excess, seed=0).log_probability(features)
    np.testing.assert_allclose(known, bounds.log_probability(features), rtol=1e-9)


def test_samples_meet_the_bound_as_often_as_the_probability_says(candidates, bounds) -> None:
    levels = candidates.pool.levels[_TRAINED : _TRAINED + 100]
    sampled = bounds.sample(512, np.random.default_rng(0))
    values = sampled.applied(np.zeros((len(levels), 512)), levels)
    share = (values == 0).mean(1)
    probability = np.exp(bounds.log_probability(candidates.encode(levels)))
    # four standard errors of 512 draws, and the error of the Fourier features
    assert np.abs(share - probability).max() < 4 * 0.5 / np.sqrt(512) + 0.05


def test_each_function_has_its_own_sampled_bounds(candidates, bounds) -> None:
    levels = candidates.pool.levels[:40]
    sampled, functions = bounds.sample(5, np.random.default_rng(0)), np.arange(40) % 5
    every = sampled.applied(np.ones((40, 5)), levels)
    each = sampled.applied_to_each(np.ones(40), levels, functions)
    np.testing.assert_allclose(each, every[np.arange(40), functions])
    assert (every[every != 1] <= -1e6).all()


def test_batches_mostly_meet_the_bound(candidates, predictor, bounds, tried) -> None:
    bounded = replace(candidates, bounds=bounds)
    shares = []
    for chosen in (candidates, bounded):
        random = np.random.default_rng(0)
        improvers = improvement_batch(chosen, predictor.gp, 8, tried, random)
        taken = tried | set(keys_of(improvers))
        samples = thompson_batch(chosen, predictor.sample(8, random), taken, random)
        shares.append([(_costs(part) <= _LIMIT).mean() for part in (improvers, samples)])
    assert max(shares[0]) <= 0.25  # the best scores are those of the most expensive candidates
    assert min(shares[1]) >= 0.75
