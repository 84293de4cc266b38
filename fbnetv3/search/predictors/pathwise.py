"""Functions sampled from a Gaussian process's posterior, by pathwise conditioning.

Matheron's rule turns a sample f of the prior into a sample of the posterior (Wilson et al., 2021,
"Pathwise Conditioning of Gaussian Processes"). With n observations (X, y), the kernel k, which has
the variance ``signal``, and the covariance K of y (all as in ``gp.py``):

    (f | y)(z) = f(z) + k(z, X) K^-1 (y - f(X) - epsilon),    epsilon ~ N(0, noise I + E)

E is the covariance of the errors of those y that are estimates; it is 0 without estimates.
The prior sample is a weighted sum of random Fourier features (Rahimi and Recht, 2007), whose number
is m in this file:

    f(z) = phi(z)^T w,    w ~ N(0, I)
    phi_j(z) = sqrt(2 signal / m) cos(omega_j^T z + b_j),    b_j ~ U(0, 2 pi)

The spectral density of a Matern 5/2 kernel is a multivariate Student t with 5 degrees of
freedom:

    omega_j = g_j sqrt(5 / c_j) / lengthscales,    g_j ~ N(0, I),    c_j ~ chi^2(5)
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fbnetv3.search.predictors.gp import GaussianProcess, as_tensor
from fbnetv3.search.predictors.networks import Floats
from fbnetv3.search.space.encoding import Features

_FOURIER_FEATURES = 1024


def draw_matheron_paths(
    gp: GaussianProcess, count: int, random: np.random.Generator
) -> PathwiseSamples:
    """Samples functions from the posterior of a Gaussian process.

    Args:
        gp: Gaussian process to sample from.
        count: Number of functions. All of them share the frequencies and phases of their Fourier
            features.
        random: Source of all random numbers.
    """
    n, d = gp.X.shape
    m = _FOURIER_FEATURES
    chi_square = random.chisquare(5, (m, 1))
    student_t = random.standard_normal((m, d)) * np.sqrt(5 / chi_square)
    frequencies = torch.from_numpy(student_t) / gp.lengthscales
    phases = torch.from_numpy(random.uniform(0, 2 * math.pi, m))
    weights = torch.from_numpy(random.standard_normal((m, count)))
    noise = gp.scale_noise(random.standard_normal((n, count)))
    return PathwiseSamples(gp, frequencies, phases, weights, noise)


class PathwiseSamples:
    """Functions sampled from the posterior of a Gaussian process.

    Args:
        gp: Gaussian process that the functions are sampled from.
        frequencies: (m, d) frequencies omega of the Fourier features.
        phases: (m,) phases b of the Fourier features, in radians.
        weights: (m, count) weights w of the Fourier features in each function.
        noise: (n, count) samples of epsilon, a column for each function.
    """

    def __init__(
        self,
        gp: GaussianProcess,
        frequencies: Tensor,
        phases: Tensor,
        weights: Tensor,
        noise: Tensor,
    ) -> None:
        self._gp, self._frequencies, self._phases = gp, frequencies, phases
        self._weights = weights
        residual = gp.y[:, None] - self._fourier_features(gp.X) @ weights - noise
        self._update_weights = torch.cholesky_solve(residual, gp.L)

    def _fourier_features(self, Z: Tensor) -> Tensor:
        amplitude = math.sqrt(2 * self._gp.signal / len(self._frequencies))
        return amplitude * torch.cos(Z @ self._frequencies.T + self._phases)

    def __call__(self, x: Features | Floats) -> Floats:
        """Returns the values of all functions, (points, count), at points (points, d)."""
        Z = as_tensor(x)
        with torch.no_grad():
            prior = self._fourier_features(Z) @ self._weights
            update = self._gp.kernel(Z, self._gp.X) @ self._update_weights
            return np.asarray((prior + update).numpy())

    def evaluate_each(self, x: Features | Floats, functions: npt.NDArray[np.int64]) -> Floats:
        """Returns the value of one function at each point, (points,).

        Args:
            x: (points, d) points.
            functions: (points,) index of the function to evaluate at each point.
        """
        Z, index = as_tensor(x), torch.from_numpy(functions)
        with torch.no_grad():
            prior = (self._fourier_features(Z) * self._weights.T[index]).sum(1)
            kernel = self._gp.kernel(Z, self._gp.X)
            update = (kernel * self._update_weights.T[index]).sum(1)
            return np.asarray((prior + update).numpy())
