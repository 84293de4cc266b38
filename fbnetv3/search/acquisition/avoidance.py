"""Candidates that are predicted to run out of memory or time are proposed last.

A logistic regression learns from the trials that ran out of memory or time and from the trials with
a score. x contains the standardised features of a candidate and ten times the standardised arcsinh
(like a logarithm) of its statistics, since memory and time of a training depend on these; w are the
weights, b is the intercept, and y = 1 for a failure, else 0. The regression minimises

    sum_i log(1 + exp(-s_i (w x_i + b))) + |w|^2 / 2,    s_i = 2 y_i - 1

A candidate is predicted to fail if w x + b > 0: its predicted probability is above one half.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit

from fbnetv3.search.predictors.networks import Floats
from fbnetv3.search.space.constraints import Columns, Mask
from fbnetv3.search.space.encoding import Encoding
from fbnetv3.search.space.feasible import FeasibleSpace
from fbnetv3.search.space.parameters import Levels
from fbnetv3.search.space.pool import Pool

MIN_TRIALS = 5
"""Smallest number of failures, and of trials with a score, at which failures are predicted."""
_STATISTICS_WEIGHT = 10.0
"""Factor of the standardised statistics, which lowers the penalty of their weights."""


class Avoided(Protocol):
    """Candidates to propose last."""

    def fails(self, pool: Pool) -> Mask:
        """Returns which candidates of a pool are to be proposed last, (candidates,)."""


@dataclass(frozen=True)
class _Any:
    """Candidates to propose last for any of several reasons."""

    parts: tuple[Avoided, ...]

    def fails(self, pool: Pool) -> Mask:
        mask = np.zeros(len(pool), dtype=bool)
        for part in self.parts:
            mask |= part.fails(pool)
        return mask


def any_of(*models: Avoided | None) -> Avoided | None:
    """Returns a model of the candidates that any of several models avoids; None without models."""
    parts = tuple(model for model in models if model is not None)
    return _Any(parts) if len(parts) > 1 else next(iter(parts), None)


class FailureModel:
    """Predicts which candidates run out of memory or time.

    Args:
        encoding: Encoding of the space.
        pool: Trained candidates with their statistics.
        failed: (candidates,) whether each candidate ran out of memory or time.
    """

    def __init__(self, encoding: Encoding, pool: Pool, failed: Mask) -> None:
        self._encoding = encoding
        columns = self._columns(pool)
        self._mean, self._std = columns.mean(0), columns.std(0)
        self._std[self._std < 1e-9] = 1.0  # columns of equal values become 0
        self._std[encoding.width :] /= _STATISTICS_WEIGHT  # columns of the statistics
        self._weights = _fit((columns - self._mean) / self._std, failed)

    def fails(self, pool: Pool) -> Mask:
        """Returns which candidates are predicted to fail, (candidates,)."""
        columns = (self._columns(pool) - self._mean) / self._std
        return np.asarray(columns @ self._weights[:-1] + self._weights[-1] > 0)

    def _columns(self, pool: Pool) -> Floats:
        """Returns features and statistics, (candidates, width)."""
        return np.column_stack([self._encoding.encode(pool.levels), *_logs(pool.statistics)])


def _logs(statistics: Columns) -> list[Floats]:
    """Returns the arcsinh of each statistic: like a logarithm, but also defined at 0 and below."""
    return [np.arcsinh(statistics[name]) for name in sorted(statistics)]


def _fit(X: Floats, failed: Mask) -> Floats:
    """Returns the weights and the intercept, (width + 1,)."""
    sign = np.where(failed, 1.0, -1.0)

    def loss(theta: Floats) -> tuple[float, Floats]:
        margin = sign * (X @ theta[:-1] + theta[-1])
        slope = -sign * expit(-margin)
        value = np.logaddexp(0.0, -margin).sum() + np.square(theta[:-1]).sum() / 2
        return float(value), np.append(X.T @ slope + theta[:-1], slope.sum())

    solution: Floats = minimize(loss, np.zeros(X.shape[1] + 1), jac=True, method="L-BFGS-B").x
    return solution


@dataclass(frozen=True)
class FailureSummary:
    """Numbers of trials behind a model of failures, and its effect on the pool.

    Attributes:
        failures: Number of trials that ran out of memory or time.
        scores: Number of trials with a score.
        pool_share: Share of the pool that is predicted to fail, in [0, 1].
    """

    failures: int
    scores: int
    pool_share: float

    def __str__(self) -> str:
        return (
            f"learned from {self.failures} failures for lack of memory or time and {self.scores} "
            f"scores; {self.pool_share:.0%} of the pool is predicted to fail, and proposed last"
        )


@dataclass(frozen=True)
class SafeSpace(FeasibleSpace):
    """The part of a feasible space whose candidates are not predicted to fail.

    Attributes:
        model: Model of the failures; None: no candidate is predicted to fail.
    """

    model: Avoided | None = None

    def are_feasible(self, levels: Levels) -> Mask:
        return self.mask(self.with_statistics(levels))

    def mask(self, pool: Pool) -> Mask:
        mask = super().mask(pool)
        return mask if self.model is None else mask & ~self.model.fails(pool)


def safe_part(part: FeasibleSpace, model: Avoided | None) -> FeasibleSpace:
    """Returns the part of a space without candidates that are predicted to fail.

    Args:
        part: Feasible space.
        model: Model of the failures; None: the part itself is returned.
    """
    return part if model is None else SafeSpace(part.costs, part.constraints, model)


def failing_last(scores: Floats, fails: Mask) -> Floats:
    """Returns scores for ordering, with candidates that are predicted to fail below all others.

    If any candidate is predicted to fail, the returned scores are ranks from 0 (worst).

    Args:
        scores: (candidates,) predicted scores.
        fails: (candidates,) which candidates are predicted to fail.
    """
    if not fails.any():
        return scores
    ranks: npt.NDArray[np.int64] = np.empty(len(scores), dtype=np.int64)
    ranks[np.lexsort((scores, ~fails))] = np.arange(len(scores))
    return ranks.astype(np.float64)
