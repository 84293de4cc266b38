"""Hyperparameters of a Gaussian process by maximum a posteriori (MAP) estimation.

In the notation of ``gp.py``, the estimate of theta maximises the log posterior

    log p(theta | X, y) = log p(y | X, theta) + log p(theta) + constant
    log p(y | X, theta) = -y^T alpha / 2 - sum_i log L_ii - n log(2 pi) / 2

The priors are independent and normal. The location of log lengthscales is log(sqrt(d)) plus a
constant, because distances grow with sqrt(d) (Hvarfner et al., 2024, "Vanilla Bayesian Optimization
Performs Great in High Dimensions"). The prior of that paper has a larger constant and a larger
variance; with few labels, it explains too much of the variation as noise. The priors here are:

    log lengthscale ~ N(log(d) / 2 - 0.9, 1)
    log signal      ~ N(0, 1)
    log noise       ~ N(log 0.01, 2.5^2)

Gradient of the log marginal likelihood (Rasmussen and Williams, 2006, Eq. 5.9), with
x'_i = x_i / lengthscales, the rows of X', and r_ij the distance r of x_i and x_j:

    G = d log p(y | X, theta) / dK = (alpha alpha^T - K^-1) / 2
    W_ij = G_ij (signal + SMOOTH min(v_i, v_j)) (1 + r_ij) exp(-r_ij)
    d / d log lengthscale_k = 5/3 sum_ij W_ij (x'_ik - x'_jk)^2
                            = 10/3 (sum_i (W 1)_i x'_ik^2 - sum_i x'_ik (W X')_ik)
    d / d log signal        = sum_ij G_ij k(x_i, x_j)
    d / d log noise         = noise tr(G)
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize
from torch import Tensor

from fbnetv3.search.predictors.gp import (
    JITTER,
    GaussianProcess,
    add_to_diagonal,
    as_tensor,
    scaled_distance,
    split_errors,
)
from fbnetv3.search.predictors.networks import Floats

FIT_POINTS = 256
"""Largest number of observations in the first L-BFGS-B stage."""
_FIRST_STEPS, _LAST_STEPS = 80, 10
"""Largest numbers of L-BFGS-B iterations on up to FIT_POINTS observations, and then on all."""
_NOISE_MEDIAN, _LOG_NOISE_STD = 1e-2, 2.5
_LOG_LENGTHSCALE_BOUNDS, _LOG_SIGNAL_BOUNDS = (-4.0, 7.0), (-4.0, 4.0)
_LOG_NOISE_BOUNDS = (math.log(1e-6), math.log(2.0))


class MapEstimate(NamedTuple):
    """Log hyperparameters with the largest log posterior that L-BFGS-B has found.

    Attributes:
        theta: (d + 2,) natural logarithms of the lengthscales, the signal and the noise.
        log_posterior: log p(y | X, theta) + log p(theta), up to a constant that depends on d alone.
    """

    theta: Floats
    log_posterior: float


def fit_gp(
    X: Floats, y: Floats, init_from: Floats | None = None, errors: Floats | None = None
) -> GaussianProcess:
    """Returns the Gaussian process with the MAP estimate of its hyperparameters.

    Args:
        X: (n, d) features in [0, 1].
        y: (n,) labels of mean 0 and standard deviation 1.
        init_from: (d + 2,) log hyperparameters that the fit starts from, such as those of another
            Gaussian process of the same features; None: a point near the centre of the prior.
        errors: (n,) standard deviation sqrt(v) of each label's own error; None: 0.
    """
    return GaussianProcess(X, y, find_map_estimate(X, y, init_from, errors).theta, errors)


def find_map_estimate(
    X: Floats, y: Floats, init_from: Floats | None = None, errors: Floats | None = None
) -> MapEstimate:
    """Maximises the log posterior of the hyperparameters with L-BFGS-B.

    More than FIT_POINTS observations are fitted in two stages: a long one on FIT_POINTS evenly
    spaced observations, then a short one on all of them. With ``init_from``, the first stage is
    omitted.

    Args:
        X: (n, d) features in [0, 1].
        y: (n,) labels of mean 0 and standard deviation 1.
        init_from: (d + 2,) log hyperparameters that the fit starts from, such as those of another
            Gaussian process of the same features; None: a point near the centre of the prior.
        errors: (n,) standard deviation sqrt(v) of each label's own error; None: 0.
    """
    n, d = X.shape
    theta = _start(d) if init_from is None else init_from
    data = _Data.of(X, y, errors)
    if n <= FIT_POINTS:
        return _maximise(theta, data, _FIRST_STEPS)
    if init_from is None:
        theta = _maximise(theta, data.part(evenly_spaced(n)), _FIRST_STEPS).theta
    return _maximise(theta, data, _LAST_STEPS)


class _Data(NamedTuple):
    """Observations as float64 tensors: features (n, d), labels (n,), variances of errors (n,)."""

    X: Tensor
    y: Tensor
    variances: Tensor | None

    @classmethod
    def of(cls, X: Floats, y: Floats, errors: Floats | None) -> _Data:
        return cls(as_tensor(X), as_tensor(y), None if errors is None else as_tensor(errors) ** 2)

    def part(self, rows: npt.NDArray[np.int64]) -> _Data:
        index = torch.from_numpy(rows)
        variances = None if self.variances is None else self.variances[index]
        return _Data(self.X[index], self.y[index], variances)


def _start(d: int) -> Floats:
    log_lengthscales = np.full(d, _log_lengthscale_location(d) - 1.0)
    return np.concatenate([log_lengthscales, [0.0, math.log(0.1)]])


def _maximise(theta: Floats, data: _Data, steps: int) -> MapEstimate:
    bounds = [_LOG_LENGTHSCALE_BOUNDS] * data.X.shape[1] + [_LOG_SIGNAL_BOUNDS, _LOG_NOISE_BOUNDS]
    with torch.no_grad():
        optimum = minimize(
            _negative_log_posterior,
            theta,
            args=data,
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": steps},
        )
    return MapEstimate(np.asarray(optimum.x), -float(optimum.fun))


def _negative_log_posterior(
    theta: Floats, X: Tensor, y: Tensor, variances: Tensor | None
) -> tuple[float, Floats]:
    likelihood, likelihood_gradient = log_marginal_likelihood(theta, X, y, variances)
    prior, prior_gradient = log_prior(theta)
    return -(likelihood + prior), -(likelihood_gradient + prior_gradient)


def log_marginal_likelihood(
    theta: Floats, X: Tensor, y: Tensor, variances: Tensor | None = None
) -> tuple[float, Floats]:
    """Returns the log density of the labels given the hyperparameters, and its gradient.

    Args:
        theta: (d + 2,) natural logarithms of the lengthscales, the signal and the noise.
        X: (n, d) features.
        y: (n,) labels.
        variances: (n,) variance v of each label's own error; None: 0.

    Returns:
        The log density and its gradient with respect to theta, (d + 2,).
    """
    n, d = X.shape
    logs = torch.from_numpy(theta)
    signal, noise = logs[d].exp(), logs[d + 1].exp()
    scaled = X / logs[:d].exp()
    r = scaled_distance(scaled, scaled)
    decay = signal * torch.exp(-r)
    kernel = decay * (1 + r + r**2 / 3)
    K = add_to_diagonal(kernel, noise + JITTER)
    if variances is not None:
        smooth, own = split_errors(variances)
        K = K + smooth * kernel / signal + torch.diag(own)
        decay = decay * (1 + smooth / signal)
    L = torch.linalg.cholesky(K)
    alpha = torch.cholesky_solve(y[:, None], L)[:, 0]
    value = -(0.5 * y @ alpha + L.diagonal().log().sum() + 0.5 * n * math.log(2 * math.pi))

    G = -0.5 * (torch.cholesky_inverse(L) - torch.outer(alpha, alpha))
    W = G * decay * (1 + r)
    by_lengthscales = W.sum(1) @ scaled**2 - (scaled * (W @ scaled)).sum(0)
    by_signal, by_noise = (G * kernel).sum(), G.trace() * noise
    gradient = torch.cat([by_lengthscales * 10 / 3, by_signal[None], by_noise[None]])
    return float(value), gradient.numpy()


def log_prior(theta: Floats) -> tuple[float, Floats]:
    """Returns the log prior density of the hyperparameters up to a constant, and its gradient.

    Args:
        theta: (d + 2,) natural logarithms of the lengthscales, the signal and the noise.
    """
    d = len(theta) - 2
    location = torch.full((d + 2,), _log_lengthscale_location(d), dtype=torch.float64)
    location[d], location[d + 1] = 0.0, math.log(_NOISE_MEDIAN)
    std = torch.ones_like(location)
    std[d + 1] = _LOG_NOISE_STD
    z = (torch.from_numpy(theta) - location) / std
    return -float((z**2).sum() / 2), (-z / std).numpy()


def _log_lengthscale_location(d: int) -> float:
    return 0.5 * math.log(max(1, d)) - 0.9


def evenly_spaced(count: int) -> npt.NDArray[np.int64]:
    """Returns the indices of at most FIT_POINTS observations, evenly spaced among ``count``."""
    if count <= FIT_POINTS:
        return np.arange(count)
    return np.asarray(torch.linspace(0, count - 1, FIT_POINTS).long().numpy())
