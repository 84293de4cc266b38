"""Fantasy models of a Gaussian process."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fbnetv3.search.predictors.gp import _JITTER, GaussianProcess, _plus
from fbnetv3.search.predictors.networks import Floats


class Believed:
    """A process that takes its own predictions at further points for labels.

    The mean stays what it was; the variance falls near those points.

    Args:
        process: fitted.
        room: so many points can be added.
    """

    def __init__(self, process: GaussianProcess, room: int) -> None:
        self._process, self._known = process, len(process._x)
        total = self._known + room
        self._points = process._x.new_zeros(total, process._x.shape[1])
        self._points[: self._known] = process._x
        self._factor = process._x.new_zeros(total, total)
        self._factor[: self._known, : self._known] = process._chol

    def posterior(self, x: Floats) -> tuple[Floats, Floats]:
        """Returns mean and deviation at points (n, d), (n,) each."""
        with torch.no_grad():
            mean, whitened = self._solved(torch.from_numpy(x))
        return mean.numpy(), _root(self._process._signal - (whitened**2).sum(0))

    def watch(self, x: Floats) -> Watched:
        """Returns points (n, d) whose posterior follows at little cost what is added."""
        return Watched(self, torch.from_numpy(x))

    def add(self, x: Floats) -> Floats:
        """Believes the predictions at points (n, d), and returns them, (n,)."""
        points = torch.from_numpy(x)
        with torch.no_grad():
            mean, whitened = self._solved(points)
            self._append(points, whitened)
        return mean.numpy()

    def add_watched(self, watched: Watched, index: int) -> float:
        """Believes the prediction at a watched point, and returns it: cheaper than :meth:`add`."""
        watched.posterior()
        with torch.no_grad():
            one = slice(index, index + 1)
            self._append(watched._points[one], watched._whitened[: self._known, one])
        return float(watched._mean[index])

    def _append(self, points: Tensor, whitened: Tensor) -> None:
        old, new = self._known, self._known + len(points)
        covariance = _plus(self._kernel(points, points), self._process._noise + _JITTER)
        covariance -= whitened.T @ whitened
        self._factor[old:new, :old] = whitened.T
        self._factor[old:new, old:new] = _safe_cholesky(covariance)
        self._points[old:new] = points
        self._known = new

    def _solved(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the mean, (n,), and the covariance with what is known, whitened, (known, n)."""
        n = self._known
        kernel = self._kernel(points, self._points[:n])
        mean = kernel[:, : len(self._process._x)] @ self._process._alpha
        return mean, torch.linalg.solve_triangular(self._factor[:n, :n], kernel.T, upper=False)

    def _kernel(self, a: Tensor, b: Tensor) -> Tensor:
        return self._process._kernel(a, b, self._process._scale, self._process._signal)


class Watched:
    """Points with what is believed of them; see :meth:`Believed.watch`."""

    def __init__(self, believed: Believed, points: Tensor) -> None:
        self._believed, self._points, self._known = believed, points, believed._known
        self._whitened = points.new_empty(len(believed._points), len(points))
        with torch.no_grad():
            self._mean, whitened = believed._solved(points)
        self._whitened[: self._known] = whitened
        self._variance = believed._process._signal - (whitened**2).sum(0)

    def posterior(self) -> tuple[Floats, Floats]:
        """Returns mean and deviation, (n,) each, after all that has been added."""
        if self._known < self._believed._known:
            with torch.no_grad():
                self._catch_up(self._known, self._believed._known)
        return self._mean.numpy(), _root(self._variance)

    def _catch_up(self, old: int, new: int) -> None:
        """Forward substitution goes on with the rows of what was added."""
        believed = self._believed
        covariance = believed._kernel(believed._points[old:new], self._points)
        covariance -= believed._factor[old:new, :old] @ self._whitened[:old]
        block = believed._factor[old:new, old:new]
        rows = torch.linalg.solve_triangular(block, covariance, upper=False)
        self._whitened[old:new] = rows
        self._variance = self._variance - (rows**2).sum(0)
        self._known = new


def _root(variance: Tensor) -> Floats:
    return np.asarray(variance.clamp_min(1e-10).sqrt().numpy())


def _safe_cholesky(covariance: Tensor) -> Tensor:
    """Returns the factor of a covariance that rounding may have left without one."""
    noise = _JITTER
    while True:
        factor, failed = torch.linalg.cholesky_ex(covariance)
        if not failed:
            return factor
        covariance, noise = _plus(covariance, noise), 10 * noise
