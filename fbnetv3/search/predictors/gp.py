"""A Gaussian process on few candidates: Matern 5/2, one lengthscale a feature, learned noise.

Exact up to ``MAX_POINTS`` training points; beyond, on the best half and a seeded random half of
that number: a round costs the same at 10,000 trials as at 512.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize
from torch import Tensor

from fbnetv3.search.predictors.networks import Floats

MAX_POINTS, FIT_POINTS = 512, 256
_STEPS, _LAST_STEPS = 80, 10
_NOISE, _NOISE_WIDTH = 1e-2, 2.5
"""Median of the prior of the noise's variance, and its deviation in natural logarithms."""
_WAVES = 1024
_JITTER = 1e-6


def subset(labels: Floats, seed: int, size: int = MAX_POINTS) -> np.ndarray:
    """Returns the indices of the training points: all, or the best half and a random half."""
    if len(labels) <= size:
        return np.arange(len(labels))
    order = np.argsort(-labels, kind="stable")
    rest = np.random.default_rng([seed, 31]).permutation(order[size // 2 :])
    return np.sort(np.concatenate([order[: size // 2], rest[: size - size // 2]]))


def thinned(count: int) -> npt.NDArray[np.int64]:
    """Returns the indices, evenly spaced, of the part of so many points that fits begin with."""
    if count <= FIT_POINTS:
        return np.arange(count)
    return np.asarray(torch.linspace(0, count - 1, FIT_POINTS).long().numpy())


class GaussianProcess:
    """Posterior over functions of features, given standardised labels.

    Args:
        x: (n, d) features in [0, 1].
        y: (n,) labels of mean 0 and deviation 1.
        like: a process of the same features, fitted; the fit starts from its lengthscales.

    Attributes:
        log_evidence: log density of labels and fitted values, less a constant.
    """

    def __init__(self, x: Floats, y: Floats, like: GaussianProcess | None = None) -> None:
        self._x, self._y = torch.from_numpy(x), torch.from_numpy(y)
        # lengthscales grow with the root of the dimension, as distances do (Hvarfner et al., 2024);
        # theirs are longer and vaguer, and take too few labels for noise
        self._prior = 0.5 * math.log(max(1, x.shape[1])) - 0.9
        d = x.shape[1]
        start = np.concatenate([np.full(d, self._prior - 1.0), [0.0, math.log(0.1)]])
        self._fit(start if like is None else like._theta, is_near=like is not None)

    def _fit(self, start: Floats, *, is_near: bool) -> None:
        n, d = self._x.shape
        bounds = [(-4.0, 7.0)] * d + [(-4.0, 4.0), (math.log(1e-6), math.log(2.0))]
        part = torch.from_numpy(thinned(n))
        # of many points a part finds the place, and all of them a few steps from there
        on_part, on_all = (self._x[part], self._y[part], _STEPS), (self._x, self._y, _LAST_STEPS)
        stages = [on_part] if len(part) == n else [on_all] if is_near else [on_part, on_all]
        with torch.no_grad():
            for x, y, steps in stages:
                found = minimize(
                    self._negative_log_posterior,
                    start,
                    args=(x, y),
                    jac=True,
                    method="L-BFGS-B",
                    bounds=bounds,
                    options={"maxiter": steps},
                )
                start = np.asarray(found.x)
        self._theta, self.log_evidence = start, -float(found.fun)
        theta = torch.from_numpy(self._theta)
        self._scale, self._signal = theta[:d].exp(), float(theta[d].exp())
        self._noise = float(theta[d + 1].exp())
        with torch.no_grad():
            gram = self._kernel(self._x, self._x, self._scale, self._signal)
            self._chol = torch.linalg.cholesky(_plus(gram, self._noise + _JITTER))
            self._alpha = torch.cholesky_solve(self._y[:, None], self._chol)[:, 0]

    def _negative_log_posterior(self, vector: Floats, x: Tensor, y: Tensor) -> tuple[float, Floats]:
        """Returns the value and its gradient.

        Args:
            vector: logarithms of d lengthscales, of the signal's and the noise's variance.
            x: (n, d) features.
            y: (n,) labels.
        """
        theta = torch.from_numpy(vector)
        n, d = x.shape
        signal, noise = theta[d].exp(), theta[d + 1].exp()
        z = x / theta[:d].exp()
        distance = _distance(z, z)
        decay = signal * torch.exp(-distance)
        gram = decay * (1 + distance + distance**2 / 3)
        chol = torch.linalg.cholesky(_plus(gram, noise + _JITTER))
        alpha = torch.cholesky_solve(y[:, None], chol)[:, 0]
        fit = 0.5 * y @ alpha + chol.diagonal().log().sum() + 0.5 * n * math.log(2 * math.pi)
        # by the covariance, then by the squared distances (its factors -5/6, 2 and -2 as one)
        by_gram = 0.5 * (torch.cholesky_inverse(chol) - torch.outer(alpha, alpha))
        by_square = by_gram * decay * (1 + distance)
        by_scale = by_square.sum(1) @ z**2 - (z * (by_square @ z)).sum(0)
        gradient = torch.cat([by_scale * 10 / 3, (by_gram * gram).sum()[None],
                              (by_gram.trace() * noise)[None]])  # fmt: skip
        spread = torch.ones_like(theta)
        spread[d + 1] = _NOISE_WIDTH
        centre = torch.full_like(theta, self._prior)
        centre[d], centre[d + 1] = 0.0, math.log(_NOISE)
        off = (theta - centre) / spread
        return float(fit + (off**2).sum() / 2), (gradient + off / spread).numpy()

    @staticmethod
    def _kernel(a: Tensor, b: Tensor, scale: Tensor, signal: Tensor | float) -> Tensor:
        distance = _distance(a / scale, b / scale)
        return signal * (1 + distance + distance**2 / 3) * torch.exp(-distance)

    def mean(self, x: Floats) -> Floats:
        """Returns the posterior mean, (candidates,)."""
        with torch.no_grad():
            found = self._kernel(torch.from_numpy(x), self._x, self._scale, self._signal)
            return np.asarray((found @ self._alpha).numpy())

    @property
    def best(self) -> float:
        """The highest posterior mean of the training points."""
        return float(self.mean(self._x.numpy()).max())

    def leave_one_out(self) -> Floats:
        """Returns what each training point is predicted to be without itself, (n,)."""
        inverse = torch.cholesky_inverse(self._chol)
        return np.asarray((self._y - self._alpha / inverse.diagonal()).numpy())

    def draws(self, count: int, random: np.random.Generator) -> PosteriorDraws:
        """Returns ``count`` functions from the posterior."""
        d, n = self._x.shape[1], len(self._x)
        # a Matern 5/2 kernel is a mixture of waves with Student-t frequencies, 5 degrees
        chi = random.chisquare(5, (_WAVES, 1))
        waves = random.standard_normal((_WAVES, d)) * np.sqrt(5 / chi)
        frequencies = torch.from_numpy(waves) / self._scale
        phases = torch.from_numpy(random.uniform(0, 2 * math.pi, _WAVES))
        weights = torch.from_numpy(random.standard_normal((_WAVES, count)))
        noise = torch.from_numpy(random.standard_normal((n, count))) * math.sqrt(self._noise)
        return PosteriorDraws(self, frequencies, phases, weights, noise)


class PosteriorDraws:
    """Functions drawn from a posterior: waves of the prior, corrected by the data (Matheron)."""

    def __init__(
        self,
        process: GaussianProcess,
        frequencies: Tensor,
        phases: Tensor,
        weights: Tensor,
        noise: Tensor,
    ) -> None:
        self._process, self._frequencies, self._phases = process, frequencies, phases
        self._weights = weights
        residual = process._y[:, None] - self._prior(process._x) - noise
        self._correction = torch.cholesky_solve(residual, process._chol)

    def _prior(self, x: Tensor) -> Tensor:
        return self._waves(x) @ self._weights

    def _waves(self, x: Tensor) -> Tensor:
        amplitude = math.sqrt(2 * self._process._signal / len(self._frequencies))
        return amplitude * torch.cos(x @ self._frequencies.T + self._phases)

    def _cross(self, x: Tensor) -> Tensor:
        process = self._process
        return process._kernel(x, process._x, process._scale, process._signal)

    def __call__(self, x: Floats) -> Floats:
        """Returns the value of every function at every candidate, (candidates, count)."""
        points = torch.from_numpy(x)
        with torch.no_grad():
            correction = self._cross(points) @ self._correction
            return np.asarray((self._prior(points) + correction).numpy())

    def own(self, x: Floats, functions: npt.NDArray[np.int64]) -> Floats:
        """Returns the value of one function a candidate, (candidates,)."""
        points, mine = torch.from_numpy(x), torch.from_numpy(functions)
        with torch.no_grad():
            prior = (self._waves(points) * self._weights.T[mine]).sum(1)
            correction = (self._cross(points) * self._correction.T[mine]).sum(1)
            return np.asarray((prior + correction).numpy())


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """Returns distances times the root of five, as a Matern 5/2 kernel has them."""
    square = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    return math.sqrt(5) * (square.clamp_min(0) + 1e-12).sqrt()


def _plus(gram: Tensor, noise: Tensor | float) -> Tensor:
    return gram + noise * torch.eye(len(gram), dtype=gram.dtype)
