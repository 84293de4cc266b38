from __future__ import annotations

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern

from fbnetv3.search.predictors.fantasies import FantasyModel
from fbnetv3.search.predictors.gp import JITTER, GaussianProcess
from fbnetv3.search.predictors.hyperparameters import fit_gp
from fbnetv3.search.predictors.networks import standardise

_RANDOM = np.random.default_rng(0)
X, NEW, POINTS = _RANDOM.random((30, 3)), _RANDOM.random((4, 3)), _RANDOM.random((9, 3))


@pytest.fixture(scope="module")
def gp() -> GaussianProcess:
    return fit_gp(X, standardise(np.sin(5 * X).sum(1))[0])


def _posterior_with_labels(gp: GaussianProcess) -> tuple[np.ndarray, np.ndarray]:
    """Returns scikit-learn's posterior at POINTS, with the predictions at NEW as further labels."""
    kernel = ConstantKernel(gp.signal) * Matern(gp.lengthscales.numpy(), nu=2.5)
    regressor = GaussianProcessRegressor(kernel, alpha=gp.noise + JITTER, optimizer=None)
    labels = np.concatenate([gp.y.numpy(), gp.mean(NEW)])
    return regressor.fit(np.concatenate([X, NEW]), labels).predict(POINTS, return_std=True)


def test_a_fantasy_is_a_label_that_equals_the_prediction(gp) -> None:
    model = FantasyModel(gp, 8)
    early = model.cache(POINTS)
    for row in NEW[:3]:
        model.add(row[None])
    late = model.cache(POINTS)
    assert model.add_cached(model.cache(NEW), 3) == pytest.approx(gp.mean(NEW[3:])[0])
    mean, std = _posterior_with_labels(gp)
    for posterior in (early.posterior(), late.posterior(), model.posterior(POINTS)):
        assert np.allclose(posterior[0], mean, atol=1e-6)
        assert np.allclose(posterior[1], std, atol=1e-6)


def test_fantasies_added_together_or_one_by_one_are_the_same(gp) -> None:
    together, one_by_one = FantasyModel(gp, 4), FantasyModel(gp, 4)
    together.add(NEW)
    cached = one_by_one.cache(NEW)
    for i in range(4):
        one_by_one.add_cached(cached, i)
    first, second = together.posterior(POINTS), one_by_one.posterior(POINTS)
    assert np.allclose(first, second, atol=1e-9)


def test_the_same_point_can_be_added_again_and_again(gp) -> None:
    model = FantasyModel(gp, 20)
    model.add(np.repeat(NEW[:1], 20, axis=0))
    mean, std = model.posterior(NEW[:1])
    assert mean == pytest.approx(gp.mean(NEW[:1]))
    assert 0 < std[0] < FantasyModel(gp, 0).posterior(NEW[:1])[1][0]
