"""The process against scikit-learn's at the same hyperparameters."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern

from fbnetv3.search.predictors.gp import JITTER, SMOOTH, GaussianProcess
from fbnetv3.search.predictors.pathwise import draw_matheron_paths
from tests.search.predictors.synthetic import fitted_gp


def _regressor(gp: GaussianProcess) -> GaussianProcessRegressor:
    kernel = ConstantKernel(gp.signal) * Matern(gp.lengthscales.numpy(), nu=2.5)
    regressor = GaussianProcessRegressor(kernel, alpha=gp.noise + JITTER, optimizer=None)
    return regressor.fit(gp.X.numpy(), gp.y.numpy())


def test_the_posterior_mean_is_that_of_scikit_learn() -> None:
    gp, unseen = fitted_gp()
    assert np.allclose(gp.mean(unseen), _regressor(gp).predict(unseen), atol=1e-5)


def test_the_best_mean_is_the_highest_at_an_observation() -> None:
    gp, _ = fitted_gp()
    assert gp.best_mean == gp.mean(gp.X.numpy()).max()


def test_leave_one_out_predicts_from_all_other_labels() -> None:
    gp, _ = fitted_gp(20)
    X, y = gp.X.numpy(), gp.y.numpy()
    for i in (0, 7, 19):
        others = np.arange(20) != i
        regressor = _regressor(gp).fit(X[others], y[others])
        prediction = regressor.predict(X[i : i + 1])[0]
        assert gp.leave_one_out()[i] == pytest.approx(prediction, abs=1e-5)


def _with_errors(n: int = 40) -> tuple[GaussianProcess, np.ndarray, np.ndarray]:
    gp, unseen = fitted_gp(n)
    errors = np.where(np.arange(n) % 3 == 0, 0.0, np.where(np.arange(n) % 3 == 1, 0.5, 1.0))
    return GaussianProcess(gp.X.numpy(), gp.y.numpy(), gp.theta, errors), unseen, errors


def _covariance(gp: GaussianProcess, errors: np.ndarray) -> np.ndarray:
    """Returns the covariance of the labels, entry by entry, with scikit-learn's kernel."""
    correlation = Matern(gp.lengthscales.numpy(), nu=2.5)(gp.X.numpy())
    n = len(errors)
    K = np.empty((n, n))
    for i in range(n):
        for j in range(n):
            shared = SMOOTH * min(errors[i] ** 2, errors[j] ** 2)
            K[i, j] = (gp.signal + shared) * correlation[i, j]
        K[i, i] += gp.noise + JITTER + (1 - SMOOTH) * errors[i] ** 2
    return K


def test_errors_of_labels_enter_the_posterior_as_stated() -> None:
    gp, unseen, errors = _with_errors()
    kernel = ConstantKernel(gp.signal) * Matern(gp.lengthscales.numpy(), nu=2.5)
    expected = kernel(unseen, gp.X.numpy()) @ np.linalg.solve(_covariance(gp, errors), gp.y.numpy())
    assert np.allclose(gp.mean(unseen), expected, atol=1e-6)


def test_labels_with_large_errors_have_less_weight() -> None:
    plain, _ = fitted_gp(30)
    X, y, theta = plain.X.numpy(), plain.y.numpy(), plain.theta
    errors = np.zeros(30)
    errors[7] = 1e4
    without = np.arange(30) != 7
    left_out = GaussianProcess(X[without], y[without], theta)
    assert GaussianProcess(X, y, theta, errors).mean(X) == pytest.approx(left_out.mean(X), abs=1e-4)
    zeros = GaussianProcess(X, y, theta, np.zeros(30))
    assert np.array_equal(zeros.mean(X), plain.mean(X))


def test_samples_have_the_posterior_of_labels_with_errors() -> None:
    gp, unseen, errors = _with_errors()
    points = unseen[:20]
    kernel = ConstantKernel(gp.signal) * Matern(gp.lengthscales.numpy(), nu=2.5)
    cross = kernel(points, gp.X.numpy())
    variance = gp.signal - (cross * np.linalg.solve(_covariance(gp, errors), cross.T).T).sum(1)
    samples = draw_matheron_paths(gp, 4000, np.random.default_rng(0))(points)
    assert samples.mean(1) == pytest.approx(gp.mean(points), abs=0.08)
    assert samples.std(1) == pytest.approx(np.sqrt(variance), rel=0.15, abs=0.03)
