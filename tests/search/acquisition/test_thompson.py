from __future__ import annotations

import numpy as np

from fbnetv3.search.acquisition.thompson import thompson_batch
from fbnetv3.search.space.space import keys_of


def test_functions_spread_a_batch(candidates, predictor, tried) -> None:
    samples = predictor.sample(12, np.random.default_rng(0))
    batch = thompson_batch(candidates, samples, tried, np.random.default_rng(0))
    assert len(set(keys_of(batch))) == 12
    assert candidates.encode(batch).std(0).sum() > 0.1


def test_each_function_has_a_better_candidate_than_the_pool(candidates, predictor) -> None:
    samples = predictor.sample(12, np.random.default_rng(0))
    batch = thompson_batch(candidates, samples, set(), np.random.default_rng(0))
    chosen = np.diag(samples(candidates.encode(batch)))
    best_of_pool = samples(candidates.encode(candidates.pool.levels)).max(0)
    assert (chosen >= best_of_pool).mean() > 0.8
