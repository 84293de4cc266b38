from __future__ import annotations

import mpmath
import numpy as np
import pytest

from fbnetv3.search.acquisition.expected_improvement import improvement_batch
from fbnetv3.search.acquisition.normal_improvement import log_expected_improvement
from fbnetv3.search.predictors.fantasies import FantasyModel


@pytest.mark.parametrize("z", [40.0, 3.0, 0.0, -0.99, -1.01, -5.0, -20.0, -300.0, -9e4, -2e5])
def test_the_logarithm_is_exact_near_and_far(z: float) -> None:
    with mpmath.workdps(60):
        exact = mpmath.log(0.5 * (mpmath.npdf(z) + z * mpmath.ncdf(z)))
    value = log_expected_improvement(np.array([1.0 + 0.5 * z]), np.array([0.5]), 1.0)[0]
    assert value == pytest.approx(float(exact), rel=1e-9, abs=1e-9)


def test_a_batch_improves_on_the_pool(candidates, predictor, tried, quality) -> None:
    gp = predictor.gp
    batch = improvement_batch(candidates, gp, 5, tried, np.random.default_rng(0))

    def improvement(levels: np.ndarray) -> np.ndarray:
        posterior = FantasyModel(gp, 0).posterior(candidates.encode(levels))
        return log_expected_improvement(*posterior, gp.best_mean)

    assert improvement(batch[:1])[0] > improvement(candidates.pool.levels).max()
    assert quality(batch).min() > np.quantile(quality(candidates.pool.levels), 0.9)


def test_a_pending_candidate_promises_no_improvement(candidates, predictor, tried) -> None:
    gp = predictor.gp
    first = improvement_batch(candidates, gp, 1, tried, np.random.default_rng(0))
    second = improvement_batch(candidates, gp, 1, tried, np.random.default_rng(0), first)
    assert (first != second).any()
