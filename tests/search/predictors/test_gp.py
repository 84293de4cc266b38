"""The process against scikit-learn's at the same hyperparameters."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern

from fbnetv3.search.predictors.gp import JITTER, GaussianProcess
from tests.search.predictors.synthetic import fitted_process


def _regressor(process: GaussianProcess) -> GaussianProcessRegressor:
    kernel = ConstantKernel(process.signal) * Matern(process.lengthscales.numpy(), nu=2.5)
    regressor = GaussianProcessRegressor(kernel, alpha=process.noise + JITTER, optimizer=None)
    return regressor.fit(process.X.numpy(), process.y.numpy())


def test_the_posterior_mean_is_that_of_scikit_learn() -> None:
    process, unseen = fitted_process()
    assert np.allclose(process.mean(unseen), _regressor(process).predict(unseen), atol=1e-5)


def test_the_best_mean_is_the_highest_at_an_observation() -> None:
    process, _ = fitted_process()
    assert process.best_mean == process.mean(process.X.numpy()).max()


def test_leave_one_out_predicts_from_all_other_labels() -> None:
    process, _ = fitted_process(20)
    X, y = process.X.numpy(), process.y.numpy()
    for i in (0, 7, 19):
        others = np.arange(20) != i
        regressor = _regressor(process).fit(X[others], y[others])
        prediction = regressor.predict(X[i : i + 1])[0]
        assert process.leave_one_out()[i] == pytest.approx(prediction, abs=1e-5)
