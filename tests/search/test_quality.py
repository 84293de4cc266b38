"""A whole search finds better candidates than random search."""

from __future__ import annotations

import numpy as np
import pytest

from tests.search import problem


@pytest.mark.slow
def test_a_search_beats_random_search_at_equal_cost() -> None:
    gains = []
    for seed in range(3):
        search = problem.search(seed=seed, batch_size=16, iterations=3, finalists=4)
        best = search.run(lambda t: problem.quality(t.config)).best.score
        pool = search.plan.pool.levels
        scores = [problem.quality(c) for c in problem.space().configs(pool)]
        drawn = np.random.default_rng(seed).permutation(scores)[: 4 * 52].reshape(4, 52)
        gains.append(best - drawn.max(1).mean())
    assert min(gains) > 0
