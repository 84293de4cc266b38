"""Estimates of the score after the last rung from the score after an earlier rung.

Rungs are numbers of epochs after which candidates are compared. Let s_r be a candidate's gain after
rung r (its score, or minus its score if the lowest is the best), and m_r and d_r the median and the
spread of s_r over the candidates that have reached the rung. Between one rung and the next, all
candidates share a line with normal errors:

    (s_{r+1} - m_r) / d_r = a + b (s_r - m_r) / d_r + error,    error ~ N(0, v)
    a ~ N(0, 10^2),    b ~ N(1, 1),    v ~ scaled inverse chi-square(4, 1/4)

a, b and v are estimated from the candidates with gains after both rungs. Some of them went on
because of a high s_r, but a selection by s_r does not bias a regression on s_r. Lines are chained
up to the last rung, so the final gain of a candidate that has stopped at rung r has the normal
distribution with

    mean      A_r + B_r s_r,    the lines from rung r on, applied one after the other: B_r is the
                                product of their slopes, and A_r the intercept that results
    variance  V_r,              the sum of the variances d^2 v of these lines, each times the square
                                of the product of the slopes of all later lines

V_r leaves out the uncertainty of a and b: all candidates that have stopped at a rung share it, so
it does not change their order.

The chain is the autoregressive model of multi-fidelity Gaussian processes (Kennedy and O'Hagan,
2000, "Predicting the Output from a Complex Computer Code When Fast Approximations Are Available")
with errors that are independent of each other. The usual choice is a further Gaussian process of
the errors, or a product kernel of candidate and epoch; a search has too few trainings of full
length to fit the lengthscales of such a process or kernel. The predictors are fitted to the
estimates, with their standard deviations as the errors of the labels; the Gaussian processes among
them take these errors as correlated between similar candidates (``gp.py``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
MIN_PAIRS = 8
"""A rung's correlation counts as known if this many candidates have gains at it and the next."""
_PRIOR_PRECISION = np.array([1e-2, 1.0])
"""Prior precisions of the intercept and the slope."""
_PRIOR_SLOPE, _PRIOR_VARIANCE, _PRIOR_COUNT = 1.0, 0.25, 4.0
_STEPS = 20  # of the fixed-point iteration between the line and its variance; 5 are enough
_TINY = float(np.finfo(np.float64).tiny)
_NORMAL_IQR = 1.349  # interquartile range of the standard normal distribution


@dataclass(frozen=True)
class Line:
    """Line from the gain after one rung to the gain after the next.

    Attributes:
        intercept: Expected gain after the next rung if the gain after the first of the two is 0.
        slope: Change of the expected gain after the next rung per unit of gain after the first.
        variance: Variance of the gain after the next rung around the line.
        pairs: Number of candidates from which the line was estimated.
    """

    intercept: float
    slope: float
    variance: float
    pairs: int


class FinalScores:
    """Distributions of the gains after the last rung.

    Args:
        gains: (candidates, rungs) gain of each candidate after each rung; NaN where it has none.
            Every candidate has a gain after at least one rung.

    Attributes:
        lines: Line from each rung to the next, (rungs - 1,).
        means: (candidates,) means of the final gains, from the last rung that each has reached.
        stds: (candidates,) standard deviations of the final gains around these means; 0 for
            candidates that have reached the last rung.
        rung_stds: (rungs,) standard deviation of the final gain of a candidate, by its last rung.
        correlations: (rungs,) correlation, in [0, 1], of the gain after each rung with the final
            gain, as the lines from this rung on imply it for the gains of all candidates that have
            reached the rung; 0 if the product of the slopes of these lines is negative.
    """

    def __init__(self, gains: Floats) -> None:
        count, rungs = gains.shape
        self.lines = tuple(_fit(gains[:, r], gains[:, r + 1]) for r in range(rungs - 1))
        self.means, self.stds = np.full(count, np.nan), np.zeros(count)
        self.rung_stds = np.zeros(rungs)
        self.correlations = np.ones(rungs)
        is_known = ~np.isnan(gains)
        last = rungs - 1 - np.argmax(is_known[:, ::-1], axis=1)
        intercept, slope, variance = 0.0, 1.0, 0.0
        for r in reversed(range(rungs)):
            if r < rungs - 1:
                line = self.lines[r]
                variance += slope**2 * line.variance
                intercept, slope = intercept + slope * line.intercept, slope * line.slope
                spread = max(0.0, slope) * _center_and_spread(gains[is_known[:, r], r])[1]
                self.correlations[r] = spread / max(np.sqrt(spread**2 + variance), _TINY)
            rows = last == r
            self.means[rows] = intercept + slope * gains[rows, r]
            self.stds[rows] = self.rung_stds[r] = np.sqrt(variance)


def _fit(before: Floats, after: Floats) -> Line:
    """Returns the line from the gains after one rung, (candidates,), to those after the next."""
    center, spread = _center_and_spread(before[~np.isnan(before)])
    has_both = ~np.isnan(before) & ~np.isnan(after)
    x, y = (before[has_both] - center) / spread, (after[has_both] - center) / spread
    X = np.column_stack([np.ones(len(x)), x])
    variance, coefficients = _PRIOR_VARIANCE, np.array([0.0, _PRIOR_SLOPE])
    for _ in range(_STEPS):
        precision = X.T @ X / variance + np.diag(_PRIOR_PRECISION)
        moments = X.T @ y / variance + _PRIOR_PRECISION * np.array([0.0, _PRIOR_SLOPE])
        coefficients = np.linalg.solve(precision, moments)
        squares = float(np.square(y - X @ coefficients).sum())
        variance = (_PRIOR_COUNT * _PRIOR_VARIANCE + squares) / (_PRIOR_COUNT + len(x))
    a, b = coefficients.tolist()
    return Line(center + spread * a - b * center, b, spread**2 * variance, len(x))


def _center_and_spread(values: Floats) -> tuple[float, float]:
    """Returns the median and the spread of values, on which outliers have little effect.

    The spread is the standard deviation of a normal distribution with the same interquartile range;
    if this range is 0, the standard deviation of the values; if that is 0, too, 1. Without values,
    the median is 0 and the spread 1.
    """
    if not len(values):
        return 0.0, 1.0
    low, center, high = np.quantile(values, [0.25, 0.5, 0.75])
    spread = float(high - low) / _NORMAL_IQR or float(values.std()) or 1.0
    return float(center), spread
