"""The process against scikit-learn's at the same hyperparameters."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern

from fbnetv3.search.predictors.gp import JITTER, GaussianProcess
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
