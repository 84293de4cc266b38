"""Fantasy models of a Gaussian process: posteriors given assumed labels of points without labels.

Such a point and its assumed label are a fantasy. The label is the posterior mean at the point
("Kriging believer"; Ginsbourger et al., 2010, "Kriging is Well-Suited to Parallelize
Optimization"). X are the points of the observations, k is the kernel, and K = L L^T is the
covariance of the labels (see ``gp.py``). Fantasies at points Z extend K and L by one block:

    [ K        k(X, Z) ]   [ L    0   ] [ L^T  V     ]
    [ k(Z, X)  K_Z     ] = [ V^T  L_Z ] [ 0    L_Z^T ]

    K_Z = k(Z, Z) + (noise + JITTER) I,    V = L^-1 k(X, Z),    L_Z L_Z^T = K_Z - V^T V

Labels that equal the posterior mean do not change this mean; they only reduce the variance. For the
posterior at points P, fantasies append rows to V_P = L^-1 k(X, P), by forward substitution:

    L_Z^-1 (k(Z, P) - V^T V_P)
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fbnetv3.search.predictors.gp import JITTER, GaussianProcess, add_to_diagonal, as_tensor
from fbnetv3.search.predictors.networks import Floats
from fbnetv3.search.space.encoding import Features


class FantasyModel:
    """A Gaussian process with fantasies, added one at a time or several at once.

    Args:
        gp: Gaussian process fitted to the observations.
        capacity: Largest number of fantasies.
    """

    def __init__(self, gp: GaussianProcess, capacity: int) -> None:
        n, d = gp.X.shape
        total = n + capacity
        self.gp, self.capacity, self._size = gp, capacity, n
        self._X = gp.X.new_zeros(total, d)
        self._L = gp.X.new_zeros(total, total)
        self._X[:n], self._L[:n, :n] = gp.X, gp.L

    @property
    def X(self) -> Tensor:
        """(n + fantasies, d) features of the observations and the fantasies."""
        return self._X[: self._size]

    @property
    def L(self) -> Tensor:
        """(n + fantasies, n + fantasies) Cholesky factor of the covariance of all labels."""
        return self._L[: self._size, : self._size]

    def posterior(self, x: Features | Floats) -> tuple[Floats, Floats]:
        """Returns posterior mean and standard deviation, (m,) each, at points (m, d).

        They describe the function itself: the noise of the labels is not part of the deviation.
        """
        with torch.no_grad():
            mean, V = self.mean_and_V(as_tensor(x))
        return mean.numpy(), standard_deviation(self.gp.signal - (V**2).sum(0))

    def cache(self, x: Features | Floats) -> CachedPosterior:
        """Returns the posterior at points (m, d), which is cheap to update for new fantasies.

        An update computes only the rows of V that belong to the new fantasies.
        """
        return CachedPosterior(self, as_tensor(x))

    def add(self, x: Features | Floats) -> Floats:
        """Adds fantasies at points (m, d), and returns their labels, (m,).

        Raises:
            ArithmeticError: The covariance of the fantasies is not finite.
        """
        Z = as_tensor(x)
        with torch.no_grad():
            mean, V = self.mean_and_V(Z)
            self._append(Z, V)
        return mean.numpy()

    def add_cached(self, cached: CachedPosterior, index: int) -> float:
        """Adds a fantasy at a point of a cached posterior, and returns its label.

        This costs less than :meth:`add`, because the cache has the column of V for the point.

        Args:
            cached: Cached posterior of this model.
            index: Index of the point.

        Raises:
            ArithmeticError: The covariance of the fantasies is not finite.
        """
        point = slice(index, index + 1)
        cached.update()
        with torch.no_grad():
            self._append(cached.points[point], cached.V[:, point])
        return float(cached.mean[index])

    def _append(self, Z: Tensor, V: Tensor) -> None:
        old, new = self._size, self._size + len(Z)
        K_Z = add_to_diagonal(self.gp.kernel(Z, Z), self.gp.noise + JITTER)
        self._L[old:new, :old] = V.T
        self._L[old:new, old:new] = _cholesky(K_Z - V.T @ V)
        self._X[old:new] = Z
        self._size = new

    def mean_and_V(self, Z: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the posterior mean, (m,), and V = L^-1 k(X, Z), (n + fantasies, m)."""
        kernel = self.gp.kernel(Z, self.X)
        mean = kernel[:, : len(self.gp.X)] @ self.gp.alpha
        return mean, torch.linalg.solve_triangular(self.L, kernel.T, upper=False)


class CachedPosterior:
    """Posterior of a fantasy model at fixed points.

    An update computes only the rows of V that belong to fantasies added since the previous update.

    Args:
        model: Fantasy model.
        points: (m, d) points.

    Attributes:
        points: (m, d) points.
        mean: (m,) posterior mean, which fantasies do not change.
    """

    def __init__(self, model: FantasyModel, points: Tensor) -> None:
        self.points, self._model, self._size = points, model, len(model.X)
        self._V = points.new_empty(len(model.gp.X) + model.capacity, len(points))
        with torch.no_grad():
            self.mean, V = model.mean_and_V(points)
        self._V[: self._size] = V
        self._variance = model.gp.signal - (V**2).sum(0)

    @property
    def V(self) -> Tensor:
        """(n + fantasies, m) L^-1 k(X, points) as of the last update."""
        return self._V[: self._size]

    def posterior(self) -> tuple[Floats, Floats]:
        """Returns posterior mean and standard deviation, (m,) each, given all fantasies so far."""
        self.update()
        return self.mean.numpy(), standard_deviation(self._variance)

    def update(self) -> None:
        """Appends to V the rows of the fantasies added to the model since the last update."""
        old, new = self._size, len(self._model.X)
        if old == new:
            return
        with torch.no_grad():
            kernel = self._model.gp.kernel(self._model.X[old:], self.points)
            kernel -= self._model.L[old:, :old] @ self.V
            rows = torch.linalg.solve_triangular(self._model.L[old:, old:], kernel, upper=False)
        self._V[old:new] = rows
        self._variance = self._variance - (rows**2).sum(0)
        self._size = new


def standard_deviation(variance: Tensor) -> Floats:
    """Returns the square root of a variance, which is raised to at least 1e-10.

    Rounding may have left it at 0 or below.
    """
    return np.asarray(variance.clamp_min(1e-10).sqrt().numpy())


def _cholesky(covariance: Tensor) -> Tensor:
    """Factors a covariance, with jitter added until it is numerically positive definite.

    Raises:
        ArithmeticError: The covariance has values that are not finite, which no jitter mends.
    """
    jitter = JITTER
    while True:
        factor, info = torch.linalg.cholesky_ex(covariance)
        if not info:
            return factor
        if not covariance.isfinite().all():
            raise ArithmeticError("a covariance of fantasies has values that are not finite")
        covariance, jitter = add_to_diagonal(covariance, jitter), 10 * jitter
