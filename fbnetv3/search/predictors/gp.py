"""Gaussian process regression with a Matern 5/2 kernel.

Notation of this module, ``hyperparameters.py``, ``fantasies.py`` and ``pathwise.py``; all numbers
are float64:

    n, d          numbers of observations and of features
    X             (n, d) features of the observations, in [0, 1]
    y             (n,) labels of mean 0 and standard deviation 1
    lengthscales  (d,) one for each feature
    signal        prior variance of the function f
    noise         variance of the labels around f, without their own errors
    theta         (d + 2,) natural logarithms of lengthscales, signal and noise
    v             (n,) variances of the labels' own errors: 0 unless a label is an estimate
    K             (n, n) covariance of the labels, k(X, X) + (noise + JITTER) I + E
    L             (n, n) lower Cholesky factor of K
    alpha         (n,) K^-1 y
    Z             (m, d) points at which the posterior is evaluated

Kernel (Rasmussen and Williams, 2006, Eq. 4.17):

    k(a, b) = signal (1 + r + r^2 / 3) exp(-r),    r = sqrt(5) ||(a - b) / lengthscales||

Posterior of f at Z (Eqs. 2.25 and 2.26), with V = L^-1 k(X, Z):

    mean      k(Z, X) alpha
    variance  signal - sum_i V_ij^2    at the j-th point

Labels may be final scores that were estimated from partial trainings (``final_scores.py``). Their
errors are similar for similar candidates, but only in part. With c the correlation k / signal,

    E_ij = SMOOTH min(v_i, v_j) c(x_i, x_j) + (1 - SMOOTH) v_i [i = j]

is the covariance of the errors. Whole trainings have no such error (v_i = 0), so f is the score
after a whole training, without its noise.

Leave-one-out prediction of y_i from all other labels (Eq. 5.12):

    y_i - alpha_i / (K^-1)_ii
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from fbnetv3.search.predictors.networks import Floats
from fbnetv3.search.space.encoding import Features

JITTER = 1e-6
"""Added to the diagonal of covariances, which keeps them positive definite despite rounding."""
SMOOTH = 0.5
"""Share of the variance of a label's own error that is correlated between similar candidates."""


class GaussianProcess:
    """Posterior of a function given standardised labels, at fixed hyperparameters.

    ``fit_gp`` in ``hyperparameters.py`` estimates the hyperparameters and builds the object.

    Args:
        X: (n, d) features in [0, 1].
        y: (n,) labels of mean 0 and standard deviation 1.
        theta: (d + 2,) natural logarithms of the lengthscales, the signal and the noise.
        errors: (n,) standard deviation sqrt(v) of each label's own error; None: 0.

    Attributes:
        X: (n, d) features.
        y: (n,) labels.
        theta: (d + 2,) log hyperparameters.
        lengthscales: (d,) lengthscales.
        signal: Prior variance of the function.
        noise: Variance of the labels around the function, without their own errors.
        L: (n, n) lower Cholesky factor of the labels' covariance.
        alpha: (n,) inverse covariance of the labels times the labels.
    """

    def __init__(
        self, X: Features | Floats, y: Floats, theta: Floats, errors: Floats | None = None
    ) -> None:
        d = X.shape[1]
        self.X, self.y, self.theta = as_tensor(X), as_tensor(y), theta
        logs = torch.from_numpy(theta)
        self.lengthscales = logs[:d].exp()
        self.signal, self.noise = float(logs[d].exp()), float(logs[d + 1].exp())
        with torch.no_grad():
            kernel = self.kernel(self.X, self.X)
            K = add_to_diagonal(kernel, self.noise + JITTER)
            self._E = None
            if errors is not None:
                smooth, own = split_errors(as_tensor(errors) ** 2)
                self._E = smooth * kernel / self.signal + torch.diag(own)
                K = K + self._E
            self.L = torch.linalg.cholesky(K)
            self.alpha = torch.cholesky_solve(self.y[:, None], self.L)[:, 0]

    def kernel(self, A: Tensor, B: Tensor) -> Tensor:
        """Returns prior covariances of the function.

        Args:
            A: (a, d) points.
            B: (b, d) points.

        Returns:
            (a, b) covariances.
        """
        r = scaled_distance(A / self.lengthscales, B / self.lengthscales)
        return self.signal * (1 + r + r**2 / 3) * torch.exp(-r)

    def mean(self, Z: Features | Floats) -> Floats:
        """Returns the posterior mean, (m,), at points (m, d)."""
        with torch.no_grad():
            return np.asarray((self.kernel(as_tensor(Z), self.X) @ self.alpha).numpy())

    def scale_noise(self, normal: Floats) -> Tensor:
        """Returns samples of the labels' differences from the function, (n, count).

        Args:
            normal: (n, count) samples of the standard normal distribution.
        """
        samples = torch.from_numpy(normal)
        if self._E is None:
            return samples * math.sqrt(self.noise)
        covariance = add_to_diagonal(self._E, self.noise + JITTER)
        return torch.linalg.cholesky(covariance) @ samples

    @property
    def best_mean(self) -> float:
        """Highest posterior mean at the observed points; the incumbent of expected improvement."""
        return float(self.mean(self.X.numpy()).max())

    def leave_one_out(self) -> Floats:
        """Returns the prediction of each label from all other labels, (n,)."""
        with torch.no_grad():
            precisions = torch.cholesky_inverse(self.L).diagonal()
            return np.asarray((self.y - self.alpha / precisions).numpy())


def as_tensor(values: Features | Floats) -> Tensor:
    """Returns an array as a float64 tensor, without a copy if it is float64 already."""
    return torch.from_numpy(np.asarray(values, dtype=np.float64))


def scaled_distance(A: Tensor, B: Tensor) -> Tensor:
    """Returns the distances r, (a, b), of the Matern 5/2 kernel.

    Args:
        A: (a, d) points divided by the lengthscales.
        B: (b, d) points divided by the lengthscales.
    """
    square = (A**2).sum(1)[:, None] + (B**2).sum(1)[None] - 2 * A @ B.T
    # rounding may leave squares slightly below 0
    return math.sqrt(5) * (square.clamp_min(0) + 1e-12).sqrt()


def split_errors(variances: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the parts of the covariance E of the labels' own errors.

    Args:
        variances: (n,) variances v.

    Returns:
        SMOOTH min(v_i, v_j), (n, n), which the correlation c is multiplied by in E, and
        (1 - SMOOTH) v, (n,), which is added to the diagonal.
    """
    least = torch.minimum(variances[:, None], variances[None])
    return SMOOTH * least, (1 - SMOOTH) * variances


def add_to_diagonal(matrix: Tensor, value: Tensor | float) -> Tensor:
    """Returns a square matrix with a value added to every diagonal element."""
    return matrix + value * torch.eye(len(matrix), dtype=matrix.dtype)
