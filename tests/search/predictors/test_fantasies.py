from __future__ import annotations

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern

from fbnetv3.search.predictors.fantasies import FantasyModel
from fbnetv3.search.predictors.gp import JITTER, GaussianProcess
from fbnetv3.search.predictors.hyperparameters import fit_process
from fbnetv3.search.predictors.networks import standardise

_RANDOM = np.random.default_rng(0)
X, NEW, POINTS = _RANDOM.random((30, 3)), _RANDOM.random((4, 3)), _RANDOM.random((9, 3))


@pytest.fixture(scope="module")
def process() -> GaussianProcess:
    return fit_process(X, standardise(np.sin(5 * X).sum(1))[0])


def _posterior_with_labels(process: GaussianProcess) -> tuple[np.ndarray, np.ndarray]:
    """Returns scikit-learn's posterior at POINTS, with the predictions at NEW as further labels."""
    kernel = ConstantKernel(process.signal) * Matern(process.lengthscales.numpy(), nu=2.5)
    regressor = GaussianProcessRegressor(kernel, alpha=process.noise + JITTER, optimizer=None)
    labels = np.concatenate([process.y.numpy(), process.mean(NEW)])
    return regressor.fit(np.concatenate([X, NEW]), labels).predict(POINTS, return_std=True)


def test_a_fantasy_is_a_label_that_equals_the_prediction(process) -> None:
    model = FantasyModel(process, 8)
    early = model.cache(POINTS)
    for row in NEW[:3]:
        model.add(row[None])
    late = model.cache(POINTS)
    assert model.add_cached(model.cache(NEW), 3) == pytest.approx(process.mean(NEW[3:])[0])
    mean, std = _posterior_with_labels(process)
    for posterior in (early.posterior(), late.posterior(), model.posterior(POINTS)):
        assert np.allclose(posterior[0], mean, atol=1e-6)
        assert np.allclose(posterior[1], std, atol=1e-6)


def test_fantasies_added_together_or_one_by_one_are_the_same(process) -> None:
    together, one_by_one = FantasyModel(process, 4), FantasyModel(process, 4)
    together.add(NEW)
    cached = one_by_one.cache(NEW)
    for i in range(4):
        one_by_one.add_cached(cached, i)
    first, second = together.posterior(POINTS), one_by_one.posterior(POINTS)
    assert np.allclose(first, second, atol=1e-9)


def test_the_same_point_can_be_added_again_and_again(process) -> None:
    model = FantasyModel(process, 20)
    model.add(np.repeat(NEW[:1], 20, axis=0))
    mean, std = model.posterior(NEW[:1])
    assert mean == pytest.approx(process.mean(NEW[:1]))
    assert 0 < std[0] < FantasyModel(process, 0).posterior(NEW[:1])[1][0]
