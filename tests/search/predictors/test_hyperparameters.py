from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from fbnetv3.search.predictors.gp import as_tensor
from fbnetv3.search.predictors.hyperparameters import (
    FIT_POINTS,
    find_map_estimate,
    fit_gp,
    log_marginal_likelihood,
    log_prior,
)
from tests.search.predictors.synthetic import fitted_gp


@pytest.mark.parametrize("seed", range(3))
def test_gradients_are_those_of_finite_differences(seed: int) -> None:
    gp, _ = fitted_gp(30)
    d = len(gp.lengthscales)
    theta = gp.theta + np.random.default_rng(seed).standard_normal(d + 2)
    likelihood = log_marginal_likelihood(theta, gp.X, gp.y)[1]
    differences = approx_fprime(theta, lambda t: log_marginal_likelihood(t, gp.X, gp.y)[0], 1e-6)
    assert np.allclose(likelihood, differences, rtol=1e-3, atol=1e-3)
    variances = as_tensor(np.where(np.arange(30) < 10, 0.0, np.where(np.arange(30) < 20, 0.3, 1.0)))
    with_errors = log_marginal_likelihood(theta, gp.X, gp.y, variances)[1]
    differences = approx_fprime(
        theta, lambda t: log_marginal_likelihood(t, gp.X, gp.y, variances)[0], 1e-6
    )
    assert np.allclose(with_errors, differences, rtol=1e-3, atol=1e-3)
    differences = approx_fprime(theta, lambda t: log_prior(t)[0], 1e-6)
    assert np.allclose(log_prior(theta)[1], differences, rtol=1e-4, atol=1e-4)


def test_the_estimate_maximises_the_log_posterior() -> None:
    gp, _ = fitted_gp(30)
    X, y = gp.X.numpy(), gp.y.numpy()
    estimate = find_map_estimate(X, y)

    def log_posterior(theta: np.ndarray) -> float:
        likelihood = log_marginal_likelihood(theta, gp.X, gp.y)[0]
        return likelihood + log_prior(theta)[0]

    assert estimate.log_posterior == pytest.approx(log_posterior(estimate.theta))
    random = np.random.default_rng(0)
    for _ in range(10):
        step = 0.3 * random.standard_normal(len(estimate.theta))
        assert log_posterior(estimate.theta + step) < estimate.log_posterior


def test_a_fit_can_start_from_another() -> None:
    random = np.random.default_rng(0)
    X = random.random((FIT_POINTS + 44, 3))
    y = np.sin(5 * X).sum(1) + 0.1 * random.standard_normal(len(X))
    y = (y - y.mean()) / y.std()
    first = fit_gp(X, y)
    again = fit_gp(X, y, init_from=first.theta)
    values = [
        log_marginal_likelihood(p.theta, as_tensor(X), as_tensor(y))[0] for p in (first, again)
    ]
    assert values[1] > values[0] - 0.5
    assert np.allclose(first.mean(X), again.mean(X), atol=0.05)
