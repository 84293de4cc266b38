"""Process, fantasies, samples and expected improvement against gpytorch's and botorch's.

Both sides have the same hyperparameters. Each tolerance is at least five times the largest
difference measured with botorch 0.18.1 and gpytorch 1.15.2, which stands beside it.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fbnetv3.search.acquisition.normal_improvement import log_expected_improvement
from fbnetv3.search.predictors.fantasies import FantasyModel
from fbnetv3.search.predictors.gp import JITTER, GaussianProcess
from fbnetv3.search.predictors.hyperparameters import log_marginal_likelihood
from fbnetv3.search.predictors.pathwise import draw_matheron_paths
from tests.search.predictors.synthetic import fitted_gp

pytest.importorskip("botorch")

from botorch.acquisition.analytic import LogExpectedImprovement
from botorch.models import SingleTaskGP
from gpytorch.constraints import GreaterThan
from gpytorch.kernels import MaternKernel, ScaleKernel
from gpytorch.likelihoods import GaussianLikelihood
from gpytorch.means import ZeroMean
from gpytorch.mlls import ExactMarginalLogLikelihood

pytestmark = pytest.mark.filterwarnings("ignore")
POINTS = 40


def _model(gp: GaussianProcess, index: np.ndarray | None = None) -> SingleTaskGP:
    """Returns botorch's model of the process's observations, or of some, with its parameters."""
    index = np.arange(len(gp.y)) if index is None else index
    kernel = ScaleKernel(MaternKernel(nu=2.5, ard_num_dims=gp.X.shape[1])).double()
    kernel.outputscale = gp.signal
    kernel.base_kernel.lengthscale = gp.lengthscales
    likelihood = GaussianLikelihood(noise_constraint=GreaterThan(1e-9)).double()
    likelihood.noise = gp.noise + JITTER
    model = SingleTaskGP(
        gp.X[index],
        gp.y[index, None],
        likelihood=likelihood,
        covar_module=kernel,
        mean_module=ZeroMean(),
        outcome_transform=None,
    )
    return model.eval()


def _posterior(model: SingleTaskGP, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean (m,) and covariance (m, m) of botorch's posterior."""
    with torch.no_grad():
        distribution = model.posterior(torch.from_numpy(x)).distribution
    return distribution.mean.numpy(), distribution.covariance_matrix.numpy()


@pytest.fixture(scope="module", params=[30, 60, 200])
def case(request) -> tuple[GaussianProcess, np.ndarray, SingleTaskGP]:
    gp, unseen = fitted_gp(request.param)
    return gp, unseen, _model(gp)


def test_mean_and_variance(case) -> None:
    gp, unseen, model = case
    mean, covariance = _posterior(model, unseen[:POINTS])
    _, std = FantasyModel(gp, 0).posterior(unseen[:POINTS])
    assert np.allclose(gp.mean(unseen[:POINTS]), mean, rtol=0, atol=5e-9)  # 6.3e-10
    assert np.allclose(std**2, np.diag(covariance), rtol=0, atol=5e-8)  # 9.7e-9


def test_log_marginal_likelihood(case) -> None:
    gp, _, _ = case
    model = _model(gp).train()
    likelihood = ExactMarginalLogLikelihood(model.likelihood, model)
    with torch.no_grad():
        # gpytorch divides by the number of observations
        per_label = likelihood(model(*model.train_inputs), model.train_targets).item()
    value, _ = log_marginal_likelihood(gp.theta, gp.X, gp.y)
    assert value == pytest.approx(per_label * len(gp.y), rel=0, abs=1e-6)  # 1.3e-7


def test_leave_one_out(case) -> None:
    gp, _, _ = case
    n = len(gp.y)
    for i in range(0, n, n // 5):
        others = _model(gp, np.delete(np.arange(n), i))
        mean, _ = _posterior(others, gp.X[i : i + 1].numpy())
        assert gp.leave_one_out()[i] == pytest.approx(mean[0], abs=5e-9)  # 6.4e-10


def test_fantasies(case) -> None:
    gp, unseen, model = case
    points, new = unseen[:POINTS], unseen[50:56]
    _posterior(model, points)  # botorch conditions a model that has predicted before
    labels = torch.from_numpy(gp.mean(new))[:, None]
    mean, covariance = _posterior(
        model.condition_on_observations(torch.from_numpy(new), labels), points
    )
    fantasies = FantasyModel(gp, len(new))
    cached = fantasies.cache(points)
    fantasies.add(new)
    for posterior in (fantasies.posterior(points), cached.posterior()):
        assert np.allclose(posterior[0], mean, rtol=0, atol=5e-9)  # 4.9e-10
        assert np.allclose(posterior[1] ** 2, np.diag(covariance), rtol=0, atol=5e-8)  # 7.2e-9


def test_log_expected_improvement(case) -> None:
    gp, unseen, model = case
    posterior = FantasyModel(gp, 0).posterior(unseen[:POINTS])
    # the logarithms reach from -1 to -6e7
    for best in gp.best_mean + np.array([0.0, 5.0, 200.0]):
        acquisition = LogExpectedImprovement(model, best_f=best)
        with torch.no_grad():
            expected = acquisition(torch.from_numpy(unseen[:POINTS, None])).numpy()
        values = log_expected_improvement(*posterior, best)
        assert np.allclose(values, expected, rtol=1e-6, atol=0)  # 1.4e-7


def test_mean_and_covariance_of_samples() -> None:
    """20,000 functions, in 80 draws because one draw shares its Fourier features."""
    gp, unseen = fitted_gp(30)
    points = unseen[:8]
    draws = [draw_matheron_paths(gp, 250, np.random.default_rng(s))(points) for s in range(80)]
    values = np.concatenate(draws, axis=1)
    mean, covariance = _posterior(_model(gp), points)
    assert np.abs(values.mean(1) - mean).max() < 0.03  # 0.005; std is 0.23 to 0.65
    assert np.abs(np.cov(values) - covariance).max() < 0.04  # 0.007; variance is 0.05 to 0.42
